package feature

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// MaxMagnitude bounds every encoded number, so that no event, however wild, can make a logit that is not
// finite. Training rows never reach it: of n numbers none is more than sqrt(n - 1) standard deviations from the mean.
const MaxMagnitude = 1e9

// Encoder is a Spec made ready to encode records of one schema. It is safe for concurrent use.
type Encoder struct {
	columns []Column
	steps   []step
	zone    *time.Location
}

// step makes the columns of one transform, dst[at : at+width].
type step struct {
	index     int // of the value in the record; -1: the event's own time
	at, width int
	do        transformer
	missing   bool
	mean, sd  float64 // of a number
	median    float64
	iqr       float64
	buckets   int
	levels    map[string]int // OneHot: level -> column after at; the first level is not in it
	tables    []partTable    // Date
}

// transformer is a Kind to switch on: comparing the texts took a tenth of Encode.
type transformer uint8

const (
	standardise transformer = iota
	oneHot
	hashed
	date
	asinhOf
	log1pOf
)

var transformers = map[Kind]transformer{Numeric: standardise, OneHot: oneHot, Hashed: hashed, Date: date, Asinh: asinhOf, Log1p: log1pOf}

// partTable holds the columns for each value of a date part.
type partTable struct {
	part Part
	cols [2][]float64 // the second is nil unless the part is cyclic
}

// Compile makes an encoder for records of the schema. It refuses a spec that reads a field which the contract
// does not name, has under another type, or protects.
func (s Spec) Compile(schema *events.Schema) (*Encoder, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil {
		return nil, fmt.Errorf("feature spec: zone %q: %w", s.Zone, err)
	}
	contract := &schema.Contract
	fields := map[string]int{}
	for i, f := range schema.Inputs {
		fields[f.Name] = i
	}
	e := &Encoder{zone: zone, columns: s.Columns(timeField(contract))}
	at := 0
	var errs []error
	for _, t := range s.Fields {
		st := t.step()
		st.index, st.at = -1, at
		at += st.width
		if t.Field != "" {
			i, ok := fields[t.Field]
			if !ok {
				errs = append(errs, fmt.Errorf("feature spec: field %s is not in the contract of %s", t.Field, contract.Kind))
				continue
			}
			f := schema.Inputs[i]
			if !t.Kind.fits(f.Type) {
				errs = append(errs, fmt.Errorf("feature spec: field %s is a %s in the contract of %s, which cannot be encoded as %s", t.Field, f.Type, contract.Kind, t.Kind))
			}
			if f.Protected {
				errs = append(errs, fmt.Errorf("feature spec: field %s is protected by the contract of %s: it is never a model input", t.Field, contract.Kind))
			}
			if f.Past {
				errs = append(errs, fmt.Errorf("feature spec: field %s of the contract of %s says how the event ended: only later events may know", t.Field, contract.Kind))
			}
			if f.Key {
				errs = append(errs, fmt.Errorf("feature spec: field %s of the contract of %s is a key: a model may read what is remembered by it, not who it is", t.Field, contract.Kind))
			}
			st.index = i
		}
		switch t.Kind {
		case OneHot:
			st.levels = make(map[string]int, len(t.Levels))
			for i, l := range t.Levels[1:] {
				st.levels[l] = i
			}
		case Date:
			for _, p := range t.Parts {
				st.tables = append(st.tables, newPartTable(p))
			}
		}
		e.steps = append(e.steps, st)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return e, nil
}

// Signs has for each column the sign that the contract expects of its weight: -1 or 1, and 0 where it expects none. A column that says that a value is
// missing, or is of a category or a date, has none.
func (s Spec) Signs(schema *events.Schema) []int {
	expected := map[string]int{}
	for _, f := range schema.Inputs {
		switch f.Sign {
		case events.SignUp:
			expected[f.Name] = 1
		case events.SignDown:
			expected[f.Name] = -1
		}
	}
	var signs []int
	for _, t := range s.Fields {
		for i := range t.columns("") {
			sign := 0
			if i == 0 && (t.Kind == Numeric || t.Kind == Asinh || t.Kind == Log1p) {
				sign = expected[t.Field]
			}
			signs = append(signs, sign)
		}
	}
	return signs
}

// timeField is how columns and reasons name the event's own time.
func timeField(c *events.Contract) string {
	if c.Time != "" {
		return c.Time
	}
	return "time"
}

func (k Kind) fits(t events.FieldType) bool {
	switch k {
	case Numeric, Asinh, Log1p:
		return t == events.Number || t == events.Money || t == events.Bool
	case OneHot, Hashed:
		return t == events.Category
	case Date:
		return t == events.Time
	}
	return false
}

func newPartTable(p DatePart) partTable {
	n := p.Part.period()
	t := partTable{part: p.Part}
	t.cols[0] = make([]float64, n)
	if p.Cyclic {
		t.cols[1] = make([]float64, n)
	}
	for k := range n {
		if p.Cyclic {
			t.cols[0][k], t.cols[1][k] = sinCosTurn(k, n)
		} else {
			t.cols[0][k] = float64(2*k-(n-1)) / float64(n-1)
		}
	}
	return t
}

// Dim is the length of an encoded vector.
func (e *Encoder) Dim() int { return len(e.columns) }

// Columns names the elements of an encoded vector. The caller must not change it.
func (e *Encoder) Columns() []Column { return e.columns }

// Encode writes the vector of rec to dst, len(dst) == Dim. rec must come from the schema that the encoder was
// compiled for, and rec.Time must be set: to the time at which the event was stored, if it gave none. Every element
// is finite and at most MaxMagnitude. It does not allocate, and keeps nothing of rec.
func (e *Encoder) Encode(dst []float64, rec *events.Record) {
	if len(dst) != len(e.columns) {
		panic(fmt.Sprintf("feature: Encode into %d elements, want %d", len(dst), len(e.columns)))
	}
	clear(dst)
	for i := range e.steps {
		st := &e.steps[i]
		out := dst[st.at : st.at+st.width]
		if st.index < 0 {
			e.date(st, out, rec.Time)
			continue
		}
		v := &rec.Values[st.index]
		switch st.do {
		case oneHot:
			var text []byte // missing is the level ""
			if v.State == events.HasText {
				text = v.Text
			}
			if c, ok := st.levels[string(text)]; ok {
				out[c] = 1
			}
		case hashed:
			if v.State == events.HasText {
				out[bucket(v.Text, st.buckets)] = 1
			} else if st.missing {
				out[st.width-1] = 1
			}
		case date:
			if v.State == events.HasNum {
				e.date(st, out, time.Unix(unixSeconds(v.Num), 0))
			} else if st.missing {
				out[st.width-1] = 1
			}
		default:
			if v.State == events.HasNum && v.Num == v.Num {
				out[0] = clamp((st.shape(v.Num) - st.mean) / st.sd)
			} else if st.missing {
				out[1] = 1
			}
		}
	}
}

// step is all of t but where its value and its columns are.
func (t *Transform) step() step {
	return step{
		do: transformers[t.Kind], width: len(t.columns("")), missing: t.Missing,
		mean: t.Mean, sd: t.SD, median: t.Median, iqr: t.IQR, buckets: t.Buckets,
	}
}

// shape is the transform before it is standardised.
func (st *step) shape(x float64) float64 {
	switch st.do {
	case asinhOf:
		return asinh(finite((x - st.median) / st.iqr))
	case log1pOf:
		return SignedLog1p(finite(x))
	}
	return x
}

func (e *Encoder) date(st *step, out []float64, at time.Time) {
	local := at.In(e.zone)
	i := 0
	for j := range st.tables {
		t := &st.tables[j]
		k := t.part.of(local)
		for _, col := range t.cols {
			if col != nil {
				out[i] = col[k]
				i++
			}
		}
	}
}

// of is the part's value, counted from 0.
func (p Part) of(t time.Time) int {
	switch p {
	case Hour:
		return t.Hour()
	case Weekday:
		return (int(t.Weekday()) + 6) % 7
	case DayOfMonth:
		return t.Day() - 1
	}
	return int(t.Month()) - 1
}

// unixSeconds is x rounded down, held where the calendar still works.
func unixSeconds(x float64) int64 {
	const year9999 = 253402300799
	return int64(math.Floor(min(max(x, -year9999), year9999)))
}

func clamp(z float64) float64 { return min(max(z, -MaxMagnitude), MaxMagnitude) }

func finite(x float64) float64 { return min(max(x, -math.MaxFloat64), math.MaxFloat64) }

// bucket is the 64-bit FNV-1a hash of the text, mixed by the finaliser of splitmix64, since the low bits of
// FNV depend on few bits of the text; modulo n.
func bucket(text []byte, n int) int {
	h := uint64(14695981039346656037)
	for _, b := range text {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ h>>30) * 0xBF58476D1CE4E5B9
	h = (h ^ h>>27) * 0x94D049BB133111EB
	return int((h ^ h>>31) % uint64(n))
}
