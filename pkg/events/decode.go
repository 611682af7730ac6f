package events

// MaxEventBytes and MaxFields bound what Decode reads.
const (
	MaxEventBytes = 1 << 20
	MaxFields     = 4096
)

// Compile makes a contract ready to decode by.
func Compile(c Contract) (*Schema, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Schema{Contract: c}, nil
}

// Reset empties the record and gives it one value a field of s.
func (r *Record) Reset(s *Schema) {
	*r = Record{Values: make([]Value, len(s.Contract.Fields))}
}

// Decode reads an event under the contract. Any error is an *InvalidError.
func (s *Schema) Decode(enc Encoding, body []byte, rec *Record) error {
	rec.Reset(s)
	return &InvalidError{Reason: "decoding is being written"}
}

// SetText sets a column of rec from the text of a CSV cell.
func (s *Schema) SetText(rec *Record, column, text string) error {
	return &InvalidError{Field: column, Reason: "being written"}
}

// AppendRow appends a CSV row as the JSON body of an event.
func (s *Schema) AppendRow(dst []byte, columns, cells []string) ([]byte, error) {
	return dst, &InvalidError{Reason: "being written"}
}
