package feature

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/riskweir/riskweir/pkg/events"
)

// Encoding is how Infer treats numbers.
type Encoding string

const (
	Plain     Encoding = "plain" // standardised as they are
	AllAsinh  Encoding = "asinh" // asinh first, every number
	AutoAsinh Encoding = "auto"  // asinh first where the tails are wild: see Options.WildTail
)

// ParseEncoding reads plain, asinh or auto; "" is auto.
func ParseEncoding(s string) (Encoding, error) {
	switch e := Encoding(s); e {
	case "":
		return AutoAsinh, nil
	case Plain, AllAsinh, AutoAsinh:
		return e, nil
	}
	return "", fmt.Errorf("encoding %q: want plain, asinh or auto", s)
}

// Options steer Infer. The zero value is the default.
type Options struct {
	Encoding  Encoding // "": auto
	WildTail  float64  // auto takes asinh where a training value is further from the median than this many IQR (see restScale); 0: DefaultWildTail
	MaxLevels int      // a category with more levels in training is hashed; 0: DefaultMaxLevels
	Buckets   int      // of a hashed category; 0: DefaultBuckets
	NoTime    bool     // leave the event's own time out, and so the hour or the month it came in
	// Kinds takes the choice for some number and category fields out of Infer's hands.
	Kinds map[string]Kind
}

const (
	DefaultWildTail  = 20 // a normal column of 10^8 rows reaches 4, an exponential one 16
	DefaultMaxLevels = 200
	DefaultBuckets   = 256
)

// ErrNoRecords says that there was nothing to infer from.
var ErrNoRecords = errors.New("no records to infer a feature spec from")

// column collects what training says of one field.
type column struct {
	field   events.Field
	numbers []float64
	missing bool
	// Of categories: len(levels) <= maxLevels; nil once there were more.
	levels    map[string]struct{}
	maxLevels int
	// Of times: the range, both zero if there was none.
	first, last time.Time
}

// Infer makes a spec from the contract and the training records, whose order does not matter. Number, money
// and bool fields become Numeric or Asinh, categories OneHot or Hashed, times the date parts that the records span at
// least twice, so that a part is not a mere name for "late in the training data". The event's own time does likewise, if the contract names
// it. Protected fields, and fields without any value, are left out. Transforms stand in the order of the
// contract's fields, the event's time last. Memory: 8 bytes for each number of each record.
func Infer(schema *events.Schema, recs iter.Seq[*events.Record], o Options) (Spec, error) {
	var err error
	if o.Encoding, err = ParseEncoding(string(o.Encoding)); err != nil {
		return Spec{}, err
	}
	setDefault(&o.WildTail, DefaultWildTail)
	setDefault(&o.MaxLevels, DefaultMaxLevels)
	setDefault(&o.Buckets, DefaultBuckets)

	contract := &schema.Contract
	cols := make([]column, len(schema.Inputs)+1)
	for i, f := range schema.Inputs {
		cols[i] = column{field: f, levels: map[string]struct{}{}, maxLevels: o.MaxLevels}
		if o.Kinds[f.Name] == OneHot {
			cols[i].maxLevels = MaxColumns
		}
	}
	own := &cols[len(schema.Inputs)]
	own.field = events.Field{Type: events.Time, Protected: contract.Time == "" || o.NoTime}

	if err := o.checkKinds(schema); err != nil {
		return Spec{}, err
	}
	n := 0
	for rec := range recs {
		n++
		for i := range schema.Inputs {
			cols[i].add(&rec.Values[i])
		}
		own.addTime(rec.Time)
	}
	if n == 0 {
		return Spec{}, ErrNoRecords
	}
	spec := Spec{Version: SpecVersion, Zone: contract.Zone}
	for i := range cols {
		c := &cols[i]
		if c.field.Protected || c.field.Past || c.field.Key {
			continue
		}
		if t, ok := c.transform(o); ok {
			spec.Fields = append(spec.Fields, t)
		}
		c.numbers = nil
	}
	if err := spec.Validate(); err != nil {
		return Spec{}, fmt.Errorf("infer: %w", err)
	}
	return spec, nil
}

// checkKinds refuses a choice that could not take effect.
func (o Options) checkKinds(s *events.Schema) error {
	var errs []error
	for name, kind := range o.Kinds {
		i := slices.IndexFunc(s.Inputs, func(f events.Field) bool { return f.Name == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("field %s, to be encoded as %s, is not in the contract of %s", name, kind, s.Contract.Kind))
		} else if f := s.Inputs[i]; kind == Date || !kind.fits(f.Type) {
			errs = append(errs, fmt.Errorf("field %s is a %s, which cannot be chosen to be encoded as %s", name, f.Type, kind))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func setDefault[T int | float64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (c *column) add(v *events.Value) {
	if c.field.Protected || c.field.Past || c.field.Key {
		return
	}
	switch {
	case v.State == events.HasNum && c.field.Type == events.Time:
		c.addTime(time.Unix(unixSeconds(v.Num), 0))
	case v.State == events.HasNum && c.field.Type != events.Category:
		c.numbers = append(c.numbers, v.Num)
	case v.State == events.HasText && c.field.Type == events.Category:
		c.addLevel(v.Text)
	default:
		c.missing = true
		if c.field.Type == events.Category {
			c.addLevel(nil)
		}
	}
}

// maxLevel bounds the text of a level: an artifact holds them all, and one event must not fill it.
const maxLevel = 256

// addLevel leaves out text that a spec could not carry, not being UTF-8 or too long: it counts as any unseen level.
func (c *column) addLevel(text []byte) {
	if c.levels == nil {
		return
	}
	if _, ok := c.levels[string(text)]; ok || len(text) > maxLevel || !utf8.Valid(text) {
		return
	}
	if c.levels[string(text)] = struct{}{}; len(c.levels) > c.maxLevels {
		c.levels = nil
	}
}

func (c *column) addTime(t time.Time) {
	if c.first.IsZero() || t.Before(c.first) {
		c.first = t
	}
	if c.last.IsZero() || t.After(c.last) {
		c.last = t
	}
}

// transform is false for a field that tells nothing.
func (c *column) transform(o Options) (Transform, bool) {
	switch c.field.Type {
	case events.Time:
		parts := spannedParts(c.last.Sub(c.first))
		return Transform{Field: c.field.Name, Kind: Date, Parts: parts, Missing: c.missing}, len(parts) > 0
	case events.Category:
		return c.category(o)
	}
	return c.number(o)
}

func (c *column) category(o Options) (Transform, bool) {
	t := Transform{Field: c.field.Name, Kind: OneHot}
	if c.levels == nil || o.Kinds[c.field.Name] == Hashed {
		t.Kind, t.Buckets, t.Missing = Hashed, o.Buckets, c.missing
		return t, true
	}
	for l := range c.levels {
		t.Levels = append(t.Levels, l)
	}
	slices.Sort(t.Levels) // bytes of UTF-8 sort as code points do
	return t, len(t.Levels) > 0
}

func (c *column) number(o Options) (Transform, bool) {
	xs := c.numbers
	if len(xs) == 0 {
		return Transform{}, false
	}
	t := Transform{Field: c.field.Name, Kind: Numeric, Missing: c.missing}
	slices.Sort(xs)
	t.Median = quantile(xs, 0.5)
	t.IQR = finite(quantile(xs, 0.75) - quantile(xs, 0.25))
	if t.IQR == 0 && o.Encoding == AutoAsinh {
		t.IQR = restScale(xs, t.Median)
	}
	if t.IQR == 0 {
		t.IQR = 1
	}
	switch kind := o.Kinds[c.field.Name]; {
	case kind == Numeric || kind == Asinh || kind == Log1p:
		t.Kind = kind
	case c.field.Type == events.Bool:
	case o.Encoding == AllAsinh, o.Encoding == AutoAsinh && wild(xs, t.Median, t.IQR, o.WildTail):
		t.Kind = Asinh
	}
	if t.Kind != Asinh {
		t.Median, t.IQR = 0, 0
	}
	if t.Kind != Numeric {
		st := t.step()
		for i, x := range xs {
			xs[i] = st.shape(x)
		}
	}
	t.Mean, t.SD = meanSD(xs)
	return t, true
}

// wild says whether the furthest of the sorted numbers is more than bound IQR from the median.
func wild(sorted []float64, median, iqr, bound float64) bool {
	return max(median-sorted[0], sorted[len(sorted)-1]-median)/iqr > bound
}

// restScale stands for an IQR of 0, as of an amount that is mostly nothing: the median distance from the median, of
// the numbers that are not the median themselves; 0 if there are none. With the 1 that the encoding asinh puts there, the unit
// of the field would decide whether its tails are wild.
func restScale(xs []float64, median float64) float64 {
	var rest []float64
	for _, x := range xs {
		if x != median {
			rest = append(rest, finite(math.Abs(x-median)))
		}
	}
	if len(rest) == 0 {
		return 0
	}
	slices.Sort(rest)
	return quantile(rest, 0.5)
}

// quantile is the q-quantile of sorted numbers, linear between the two nearest: numpy's default.
func quantile(sorted []float64, q float64) float64 {
	at := float64(q * float64(len(sorted)-1))
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	w := at - float64(i)
	return float64(sorted[i]*(1-w)) + float64(sorted[i+1]*w)
}

// meanSD is the mean and the population standard deviation of sorted numbers; 1 where they are all equal. Sums
// are compensated, and scaled by a power of two so that squares neither overflow nor vanish.
func meanSD(sorted []float64) (mean, sd float64) {
	lowest, highest := sorted[0], sorted[len(sorted)-1]
	if lowest == highest {
		return lowest, 1
	}
	_, exp := math.Frexp(max(-lowest, highest))
	n := float64(len(sorted))
	var sum, squares compensated
	for _, x := range sorted {
		sum.add(math.Ldexp(x, -exp))
	}
	m := sum.value() / n
	for _, x := range sorted {
		d := math.Ldexp(x, -exp) - m
		squares.add(float64(d * d))
	}
	mean, sd = math.Ldexp(m, exp), math.Ldexp(math.Sqrt(squares.value()/n), exp)
	if sd == 0 {
		sd = 1
	}
	return mean, sd
}

// compensated is Neumaier's sum: the rounding error of each addition is summed beside.
type compensated struct{ sum, lost float64 }

func (c *compensated) add(x float64) {
	t := c.sum + x
	if math.Abs(c.sum) >= math.Abs(x) {
		c.lost += (c.sum - t) + x
	} else {
		c.lost += (x - t) + c.sum
	}
	c.sum = t
}

func (c *compensated) value() float64 { return c.sum + c.lost }

// spannedParts are the parts of which the range holds at least two periods.
func spannedParts(d time.Duration) []DatePart {
	const day = 24 * time.Hour
	var parts []DatePart
	for _, p := range []struct {
		part   Part
		period time.Duration
	}{{Hour, day}, {Weekday, 7 * day}, {DayOfMonth, 31 * day}, {Month, 366 * day}} {
		if d >= 2*p.period {
			parts = append(parts, DatePart{Part: p.part, Cyclic: true})
		}
	}
	return parts
}
