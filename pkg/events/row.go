package events

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// A cell becomes the token that its column's JSON value would be read as. AppendRow writes that
// token and SetText reads it, so both ways give the same record.

// CheckColumns says what is wrong with the header of a table whose rows are to be events:
// a name that is empty or stands twice, or a required field without a column.
func (s *Schema) CheckColumns(columns []string) error {
	if len(columns) > MaxFields {
		return invalidf("%d columns: at most %d", len(columns), MaxFields)
	}
	seen := make(map[string]bool, len(columns))
	for i, c := range columns {
		switch {
		case c == "":
			return invalidf("column %d has no name", i+1)
		case !utf8.ValidString(c):
			return invalidf("name of column %d is not UTF-8", i+1)
		case seen[c]:
			return &InvalidError{Field: clip(c), Reason: "stands twice"}
		}
		seen[c] = true
	}
	for _, i := range s.required {
		if !seen[s.slots[i].Name] {
			return &InvalidError{Field: s.slots[i].Name, Reason: "is required and has no column"}
		}
	}
	return nil
}

// AppendRow appends a row of a table to dst as the JSON body of an event. Empty cells, and
// the label's column, are left out; numbers keep their digits; the cells of columns that the contract
// does not name are strings. Decode reads what AppendRow returns without an error: any error is
// an *InvalidError and names the column, and dst is returned as it came.
func (s *Schema) AppendRow(dst []byte, columns, cells []string) ([]byte, error) {
	out, e := s.appendRow(dst, columns, cells)
	if e != nil {
		return dst, e
	}
	return out, nil
}

func (s *Schema) appendRow(dst []byte, columns, cells []string) ([]byte, *InvalidError) {
	if len(columns) != len(cells) {
		return nil, invalidf("%d cells under %d columns", len(cells), len(columns))
	}
	if len(columns) > MaxFields {
		return nil, invalidf("%d columns: at most %d", len(columns), MaxFields)
	}
	start := len(dst)
	dst = append(dst, '{')
	var (
		t    token
		lit  []byte
		seen [MaxFields / 64]uint64 // a bit a slot
	)
	for k, column := range columns {
		i, known := s.index[column]
		if !known {
			i = -1
		}
		ok, e := s.cell(i, column, cells[k], &t, &lit)
		if e != nil {
			return nil, e
		}
		if !ok {
			continue
		}
		if known {
			if seen[i>>6]&(1<<(i&63)) != 0 {
				return nil, twice([]byte(column))
			}
			seen[i>>6] |= 1 << (i & 63)
			var v Value
			if e := s.try(i, &v, &t); e != nil {
				return nil, e
			}
			if v.State == Missing && s.slots[i].role == roleField && s.slots[i].Required {
				return nil, s.missing(i)
			}
		} else {
			for j, c := range columns[:k] {
				if c == column && cells[j] != "" {
					return nil, twice([]byte(column))
				}
			}
		}
		if len(dst) > start+1 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, column), ':')
		switch t.kind {
		case kindString:
			dst = appendString(dst, bytesString(t.text))
		default:
			dst = t.appendText(dst)
		}
	}
	for _, i := range s.required {
		if seen[i>>6]&(1<<(i&63)) == 0 {
			return nil, s.missing(i)
		}
	}
	dst = append(dst, '}')
	if n := len(dst) - start; n > MaxEventBytes {
		return nil, invalidf("event of %d bytes: at most %d", n, MaxEventBytes)
	}
	return dst, nil
}

// SetText sets a column of rec, which has been Reset to s, from the text of a table's cell. When all
// columns of a row are set and Check is content, rec is what AppendRow and Decode would have made.
func (s *Schema) SetText(rec *Record, column, text string) error {
	if rec.schema != s {
		rec.Reset(s)
	}
	i, known := s.index[column]
	if !known {
		i = -1
	}
	var t token
	from := len(rec.r.scratch)
	ok, e := s.cell(i, column, text, &t, &rec.r.scratch)
	switch {
	case e != nil:
		return e
	case !ok:
		return nil
	case known && rec.mark(i):
		return twice([]byte(column))
	case t.kind == kindString:
		// the token aliases the caller's text, the record may not
		rec.r.scratch = append(rec.r.scratch[:from], t.text...)
		t.text = rec.r.scratch[from:len(rec.r.scratch):len(rec.r.scratch)]
	}
	if known {
		if e := s.set(rec, i, &t); e != nil {
			return e
		}
		return nil
	}
	rec.Unknown++
	rec.others = append(rec.others, []byte(column))
	if e := doubled(rec.others); e != nil {
		return e
	}
	return nil
}

// try reads t as slot i would, and keeps only v.
func (s *Schema) try(i int, v *Value, t *token) *InvalidError {
	x := &s.slots[i]
	var reason string
	var none []byte
	switch x.role {
	case roleField:
		reason = x.value(v, t, &none)
	case roleID:
		_, reason = t.name(&none, MaxIDBytes)
	case roleEntity:
		_, reason = t.name(&none, MaxEntityBytes)
	case roleIDEntity:
		_, reason = t.name(&none, min(MaxIDBytes, MaxEntityBytes))
	case roleTime:
		_, reason = t.time()
	}
	if reason != "" {
		return &InvalidError{Field: x.Name, Reason: reason}
	}
	return nil
}

// cell reads the text of a cell as slot i, or as an unknown column (i < 0). It returns false
// where the event has no such field: the cell is empty or the label's. lit is where a number's literal
// is put that differs from the cell's text.
func (s *Schema) cell(i int, column, text string, t *token, lit *[]byte) (bool, *InvalidError) {
	if i >= 0 && s.slots[i].role == roleLabel {
		return false, nil
	}
	if !utf8.ValidString(text) || i < 0 && !utf8.ValidString(column) {
		return false, &InvalidError{Field: clip(strings.ToValidUTF8(column, "\uFFFD")), Reason: "is not UTF-8"}
	}
	t.kind, t.text = kindString, stringBytes(text)
	if i < 0 || s.slots[i].role != roleField && s.slots[i].role != roleTime || s.slots[i].Type == Category {
		return text != "", nil
	}
	x := &s.slots[i]
	text = strings.Trim(text, " \t")
	t.text = stringBytes(text)
	if text == "" {
		return false, nil
	}
	if x.role == roleTime || x.Type == Time {
		return true, nil
	}
	if x.Type == Bool {
		if v, ok := boolText(text); ok {
			t.kind, t.num = kindBool, v
			return true, nil
		}
	}
	from := len(*lit)
	*lit = appendLiteral(*lit, text)
	n := token{}
	if b := (*lit)[from:]; len(b) > 0 && scanNumber(b, 0, &n) == len(b) {
		*t = n
		return true, nil
	}
	// Not a number: a missing text, or for x.value to refuse.
	if slices.Contains(x.Missing, text) {
		return true, nil
	}
	return false, &InvalidError{Field: x.Name, Reason: fmt.Sprintf("is %s: want %s", x.describe(t), wanted[x.Type])}
}

var wanted = map[FieldType]string{Number: "a number", Money: "an amount", Bool: "true or false"}

func boolText(s string) (v float64, ok bool) {
	switch s {
	case "true", "True", "TRUE":
		return 1, true
	case "false", "False", "FALSE":
		return 0, true
	}
	return 0, false
}

// appendLiteral writes a number as tables hold it (+5, .5, 5., 007) by the grammar of JSON. What is no
// number stays none.
func appendLiteral(dst []byte, s string) []byte {
	switch {
	case strings.HasPrefix(s, "-"):
		dst = append(dst, '-')
		s = s[1:]
	case len(s) > 1 && s[0] == '+' && s[1] != '-':
		s = s[1:]
	}
	for len(s) > 1 && s[0] == '0' && isDigit(s[1]) {
		s = s[1:]
	}
	if len(s) > 1 && s[0] == '.' && isDigit(s[1]) {
		dst = append(dst, '0')
	}
	whole := 0
	for whole < len(s) && isDigit(s[whole]) {
		whole++
	}
	if whole > 0 && whole < len(s) && s[whole] == '.' && (whole+1 == len(s) || !isDigit(s[whole+1])) {
		dst = append(dst, s[:whole]...)
		s = s[whole+1:]
	}
	return append(dst, s...)
}

func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func bytesString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
