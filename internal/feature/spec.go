// Package feature turns an event into the vector that a model reads. A Spec says how; it is inferred from a
// contract and training records or written by hand, and travels in the model's artifact. Encoding is a pure
// function of (spec, contract, record), and gives the same bits on every processor.
package feature

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"unicode/utf8"
)

// SpecVersion is the version of the Spec's own form. An encoder of another version is another function.
const SpecVersion = 1

// Kind is what is done to one field. Each but Hashed, OneHot and Date ends with (x - Mean) / SD.
type Kind string

const (
	Numeric Kind = "numeric" // x as it is
	Asinh   Kind = "asinh"   // asinh((x - Median) / IQR): linear near the median, a logarithm far from it
	Log1p   Kind = "log1p"   // log(1 + |x|) with the sign of x
	OneHot  Kind = "onehot"  // one 0/1 column for each level but the first; any other level gives zeros
	Hashed  Kind = "hashed"  // one 0/1 column for each bucket; missing gives zeros
	Date    Kind = "date"    // parts of a time in Spec.Zone
)

// Part is a part of a time.
type Part string

const (
	Hour       Part = "hour"         // 0 to 23
	Weekday    Part = "weekday"      // 0, Monday, to 6
	DayOfMonth Part = "day_of_month" // 0 to 30
	Month      Part = "month"        // 0, January, to 11
)

// period is the number of values that a part takes; 0: no such part.
func (p Part) period() int {
	switch p {
	case Hour:
		return 24
	case Weekday:
		return 7
	case DayOfMonth:
		return 31
	case Month:
		return 12
	}
	return 0
}

// DatePart makes one column, the part as a number from -1 to 1, or with Cyclic two: its sine and cosine.
type DatePart struct {
	Part   Part `json:"part" msgpack:"part"`
	Cyclic bool `json:"cyclic,omitempty" msgpack:"cyclic,omitempty"`
}

// Transform makes the columns of one field. Which of the members have a meaning follows from Kind.
type Transform struct {
	Field   string     `json:"field,omitempty" msgpack:"field,omitempty"` // empty (Date only): the event's own time
	Kind    Kind       `json:"kind" msgpack:"kind"`
	Median  float64    `json:"median,omitempty" msgpack:"median,omitempty"`   // Asinh
	IQR     float64    `json:"iqr,omitempty" msgpack:"iqr,omitempty"`         // Asinh; > 0: the scale, by default the interquartile range
	Mean    float64    `json:"mean,omitempty" msgpack:"mean,omitempty"`       // Numeric, Asinh, Log1p: of the transformed value
	SD      float64    `json:"sd,omitempty" msgpack:"sd,omitempty"`           // likewise; > 0
	Missing bool       `json:"missing,omitempty" msgpack:"missing,omitempty"` // a 0/1 column follows: 1 where there is no value
	Levels  []string   `json:"levels,omitempty" msgpack:"levels,omitempty"`   // OneHot; ascending by code point, the first has no column; "" is the level of a missing value
	Buckets int        `json:"buckets,omitempty" msgpack:"buckets,omitempty"` // Hashed
	Parts   []DatePart `json:"parts,omitempty" msgpack:"parts,omitempty"`     // Date
}

// Spec says how an event becomes a vector: the columns of its transforms, one after the other.
type Spec struct {
	Version int         `json:"version" msgpack:"version"`
	Zone    string      `json:"zone,omitempty" msgpack:"zone,omitempty"` // IANA zone of date parts; empty: UTC
	Fields  []Transform `json:"fields" msgpack:"fields"`
}

// Bounds on a spec, so that one from outside cannot exhaust a scorer.
const (
	MaxColumns = 1 << 13 // no more than pkg/lr fits
	MaxBuckets = 1 << 12
)

// Validate returns all that is wrong with the spec, joined.
func (s Spec) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("feature spec: "+format, a...)) }
	if s.Version != SpecVersion {
		bad("version %d: this program encodes version %d", s.Version, SpecVersion)
	}
	seen := map[string]bool{}
	columns := 0
	for _, t := range s.Fields {
		if seen[t.Field] {
			bad("field %s stands twice", t.Field)
		}
		seen[t.Field] = true
		if t.Field == "" && t.Kind != Date {
			bad("a %s transform names no field", t.Kind)
		}
		for _, v := range []float64{t.Median, t.IQR, t.Mean, t.SD} {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				bad("field %s: median %v, iqr %v, mean %v, sd %v: want finite numbers", t.Field, t.Median, t.IQR, t.Mean, t.SD)
				break
			}
		}
		switch t.Kind {
		case Numeric, Asinh, Log1p:
			if !(t.SD > 0) {
				bad("field %s: sd %v: want more than 0", t.Field, t.SD)
			}
			if t.Kind == Asinh && !(t.IQR > 0) {
				bad("field %s: iqr %v: want more than 0", t.Field, t.IQR)
			}
		case OneHot:
			if len(t.Levels) == 0 {
				bad("field %s: no levels", t.Field)
			}
			for i, l := range t.Levels {
				if !utf8.ValidString(l) {
					bad("field %s: level %q is not UTF-8", t.Field, l)
				}
				if i > 0 && t.Levels[i-1] >= l {
					bad("field %s: level %q after %q: want them ascending", t.Field, l, t.Levels[i-1])
				}
			}
		case Hashed:
			if t.Buckets < 2 || t.Buckets > MaxBuckets {
				bad("field %s: %d buckets: want 2 to %d", t.Field, t.Buckets, MaxBuckets)
			}
		case Date:
			if len(t.Parts) == 0 {
				bad("field %s: no date parts", t.Field)
			}
			parts := map[Part]bool{}
			for _, p := range t.Parts {
				if p.Part.period() == 0 || parts[p.Part] {
					bad("field %s: date part %q: want hour, weekday, day_of_month or month, each at most once", t.Field, p.Part)
				}
				parts[p.Part] = true
			}
		default:
			bad("field %s: kind %q: want numeric, asinh, log1p, onehot, hashed or date", t.Field, t.Kind)
		}
		columns += len(t.columns(""))
	}
	if columns > MaxColumns {
		bad("%d columns: want at most %d", columns, MaxColumns)
	}
	return errors.Join(errs...)
}

// Canonical is the one JSON form of the spec: members in the order above, the shortest numbers that read back
// to the same bits, no spaces.
func (s Spec) Canonical() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return nil, fmt.Errorf("feature spec: write as JSON: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// ParseSpec reads what Canonical wrote, or what a person did. Unknown members are errors.
func ParseSpec(text []byte) (Spec, error) {
	var s Spec
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Spec{}, fmt.Errorf("feature spec: read as JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Spec{}, errors.New("feature spec: something follows the JSON object")
	}
	return s, s.Validate()
}

// Fingerprint is the SHA-256, in hexadecimal, of the canonical form. It is empty for a spec that has none: one
// that Validate refuses because of a number that is not finite.
func (s Spec) Fingerprint() string {
	c, err := s.Canonical()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(c)
	return hex.EncodeToString(sum[:])
}

// Column is one input of the model.
type Column struct {
	Name  string // field, field=level, field__missing, field#bucket, field:hour, field:hour_sin
	Field string // the source field, as reasons name it
}

// Columns lists the inputs in order. For the event's own time the field is timeField.
func (s Spec) Columns(timeField string) []Column {
	var cs []Column
	for _, t := range s.Fields {
		cs = append(cs, t.columns(timeField)...)
	}
	return cs
}

func (t Transform) columns(timeField string) []Column {
	field := t.Field
	if field == "" {
		field = timeField
	}
	var cs []Column
	add := func(name string) { cs = append(cs, Column{Name: name, Field: field}) }
	switch t.Kind {
	case Numeric, Asinh, Log1p:
		add(field)
	case OneHot:
		for i := 1; i < len(t.Levels); i++ {
			add(field + "=" + t.Levels[i])
		}
	case Hashed:
		for i := range min(max(t.Buckets, 0), MaxColumns+1) {
			add(fmt.Sprintf("%s#%d", field, i))
		}
	case Date:
		for _, p := range t.Parts {
			if p.Cyclic {
				add(field + ":" + string(p.Part) + "_sin")
				add(field + ":" + string(p.Part) + "_cos")
			} else {
				add(field + ":" + string(p.Part))
			}
		}
	}
	if t.Missing && t.Kind != OneHot { // a one-hot field has the level "" for it
		add(field + "__missing")
	}
	return cs
}
