package lr

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// File is a [Model] with the names of its columns, as it is kept. It is written as JSON, which
// people can read, or as msgpack, which is smaller. Either has one form for a File, to the
// byte, and both have the same checksum: the SHA-256 of the msgpack form without it.
//
//	{
//	  "format": "lr-model",
//	  "version": 1,
//	  "intercept": -2,
//	  "columns": [
//	    {"name": "amount", "weight": 0.8},
//	    {"name": "income", "weight": -0.5}
//	  ],
//	  "checksum": "sha256:..."
//	}
//
// Numbers are the shortest that read back to the same bits.
type File struct {
	Model   Model
	Columns []string // a name for each weight, all different and not empty, in UTF-8; or nil
}

const (
	modelFormat  = "lr-model"
	modelVersion = 1
	modelFile    = "model file" // in errors
)

// Check says whether the file can be written: the error is a [ShapeError] or [ValueError]
// for the model, or a [FormatError] for a name.
func (f File) Check() error {
	if err := f.Model.check(); err != nil {
		return err
	}
	if f.Columns == nil {
		return nil
	}
	if len(f.Columns) != len(f.Model.Weights) || len(f.Columns) == 0 {
		return &ShapeError{What: "length of Columns", Got: len(f.Columns), Want: fmt.Sprintf("one a weight, %d, or nil", len(f.Model.Weights))}
	}
	at := make(map[string]int, len(f.Columns))
	for j, name := range f.Columns {
		where := fmt.Sprintf("column %d", j)
		if name == "" || !utf8.ValidString(name) {
			return &FormatError{Format: modelFile, Where: where, Problem: fmt.Sprintf("has the name %q, want one in UTF-8", name)}
		}
		if k, ok := at[name]; ok {
			return &FormatError{Format: modelFile, Where: where, Problem: fmt.Sprintf("has the name %q of column %d", name, k)}
		}
		at[name] = j
	}
	return nil
}

// jsonFile is the JSON form.
type jsonFile struct {
	Format    string       `json:"format"`
	Version   uint64       `json:"version"`
	Intercept float64      `json:"intercept"`
	Columns   []jsonColumn `json:"columns"`
	Checksum  string       `json:"checksum"`
}

type jsonColumn struct {
	Name   string  `json:"name,omitempty"`
	Weight float64 `json:"weight"`
}

// JSON returns the file as JSON. Errors are as those of Check.
func (f File) JSON() ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	out := []byte("{\n  \"format\": \"" + modelFormat + "\",\n")
	out = fmt.Appendf(out, "  \"version\": %d,\n  \"intercept\": ", modelVersion)
	out, err := appendJSON(out, f.Model.Intercept)
	if err != nil {
		return nil, err
	}
	out = append(out, ",\n  \"columns\": ["...)
	for j, w := range f.Model.Weights {
		if j > 0 {
			out = append(out, ',')
		}
		out = append(out, "\n    {"...)
		if f.Columns != nil {
			out = append(out, "\"name\": "...)
			if out, err = appendJSON(out, f.Columns[j]); err != nil {
				return nil, err
			}
			out = append(out, ", "...)
		}
		out = append(out, "\"weight\": "...)
		if out, err = appendJSON(out, w); err != nil {
			return nil, err
		}
		out = append(out, '}')
	}
	if len(f.Model.Weights) > 0 {
		out = append(out, "\n  "...)
	}
	out = append(out, "],\n  \"checksum\": \""...)
	return append(append(out, checksum(f.payload())...), "\"\n}\n"...), nil
}

// appendJSON appends a string or number in the form of package encoding/json.
func appendJSON(dst []byte, v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("lr: write the model file: %w", err)
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...), nil
}

func checksum(payload []byte) string {
	sum := sha256.Sum256(payload)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// DecodeFile reads what JSON or Msgpack wrote. White space between the tokens of JSON
// may differ; nothing else may. The error is a [VersionError] for a version that this program
// does not know, a [FormatError], or as those of Check. Memory is bounded by a few times the
// length of b.
func DecodeFile(b []byte) (File, error) {
	text := bytes.TrimLeft(b, " \t\r\n")
	if len(text) > 0 && text[0] == '{' {
		return decodeJSON(b)
	}
	return decodeMsgpack(b)
}

func decodeJSON(b []byte) (File, error) {
	var head struct {
		Format  string `json:"format"`
		Version uint64 `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return File{}, notJSON(err)
	}
	if err := checkHead(head.Format, head.Version); err != nil {
		return File{}, err
	}
	var doc jsonFile
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return File{}, notJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return File{}, &FormatError{Format: modelFile, Problem: "has something behind its end"}
	}
	f := File{Model: Model{Intercept: doc.Intercept, Weights: make([]float64, len(doc.Columns))}}
	if len(doc.Columns) > 0 && doc.Columns[0].Name != "" {
		f.Columns = make([]string, len(doc.Columns))
	}
	for j, c := range doc.Columns {
		f.Model.Weights[j] = c.Weight
		switch {
		case f.Columns != nil:
			f.Columns[j] = c.Name
		case c.Name != "":
			return File{}, &FormatError{Format: modelFile, Where: fmt.Sprintf("column %d", j), Problem: "has a name, and the first has none"}
		}
	}
	if err := f.sealedBy(doc.Checksum); err != nil {
		return File{}, err
	}
	// What the decoder of package encoding/json lets pass, such as members twice or in other
	// case, shows here.
	canonical, err := f.JSON()
	if err != nil {
		return File{}, err
	}
	var got, want bytes.Buffer
	if err := json.Compact(&got, b); err != nil {
		return File{}, notJSON(err)
	}
	if err := json.Compact(&want, canonical); err != nil {
		return File{}, notJSON(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		return File{}, &FormatError{Format: modelFile, Problem: "is not in the one form that is written"}
	}
	return f, nil
}

func notJSON(err error) error {
	return &FormatError{Format: modelFile, Problem: "cannot be read as JSON: " + err.Error()}
}

func checkHead(format string, version uint64) error {
	if format != modelFormat {
		return &FormatError{Format: modelFile, Where: "format", Problem: fmt.Sprintf("is %q, want %q", format, modelFormat)}
	}
	if version != modelVersion {
		return &VersionError{Format: modelFile, Version: version, Want: modelVersion}
	}
	return nil
}

// sealedBy checks what was read and its checksum.
func (f File) sealedBy(sum string) error {
	if err := f.Check(); err != nil {
		return err
	}
	if want := checksum(f.payload()); sum != want {
		return &FormatError{Format: modelFile, Where: "checksum", Problem: fmt.Sprintf("is %q, that of the content %q: it was altered or cut", sum, want)}
	}
	return nil
}
