package model

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"go.yaml.in/yaml/v3"

	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Scorecard is a model that somebody wrote: points by bins of fields. Points rise as risk falls.
//
//	logit = -(Base + Σ points - Scale.Base) ln 2 / Scale.PDO - ln Scale.Odds
type Scorecard struct {
	Kind   string      `json:"kind" yaml:"kind"`
	Base   float64     `json:"base" yaml:"base"`   // points before any field
	Scale  CardScale   `json:"scale" yaml:"scale"` // what points mean
	Fields []CardField `json:"fields" yaml:"fields"`
}

// CardScale is Scale, as it is written by hand.
type CardScale struct {
	Base float64 `json:"base" yaml:"base"`
	Odds float64 `json:"odds" yaml:"odds"`
	PDO  float64 `json:"pdo" yaml:"pdo"`
}

// CardField gives points by the value of a field: a number by the first bin that it is below, a category by its level.
type CardField struct {
	Field   string             `json:"field" yaml:"field"`
	Bins    []CardBin          `json:"bins,omitempty" yaml:"bins,omitempty"`     // ascending; the last has no bound
	Levels  map[string]float64 `json:"levels,omitempty" yaml:"levels,omitempty"` //
	Other   float64            `json:"other,omitempty" yaml:"other,omitempty"`   // of any other level
	Missing float64            `json:"missing,omitempty" yaml:"missing,omitempty"`
}

// CardBin is the values below a bound that are in no bin before it. The last bin has none.
type CardBin struct {
	Below  *float64 `json:"below,omitempty" yaml:"below,omitempty"`
	Points float64  `json:"points" yaml:"points"`
}

const maxCardPoints = 1000

// ParseScorecard reads YAML. Unknown members are errors.
func ParseScorecard(text []byte) (*Scorecard, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	var c Scorecard
	if err := dec.Decode(&c); err != nil {
		return nil, fmt.Errorf("scorecard: read as YAML: %w", err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("scorecard: want one YAML document")
	}
	return &c, nil
}

// Check returns what is wrong with the card for records of the schema, joined.
func (c *Scorecard) Check(schema *events.Schema) error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("scorecard: "+format, a...)) }
	points := func(field string, v float64) {
		if !(math.Abs(v) <= maxCardPoints) {
			bad("field %s: %v points: want a number of at most %d in magnitude", field, v, maxCardPoints)
		}
	}
	if c.Kind != schema.Contract.Kind {
		bad("it is of kind %q, not %s", c.Kind, schema.Contract.Kind)
	}
	if s := c.Scale; !(math.Abs(s.Base) <= maxScale && s.Odds >= 1/maxScale && s.Odds <= maxScale && s.PDO >= 1 && s.PDO <= maxScale) {
		bad("scale base %v, odds %v, pdo %v: want odds above 0, pdo of 1 or more", s.Base, s.Odds, s.PDO)
	}
	points("base", c.Base)
	if len(c.Fields) == 0 {
		bad("no fields")
	}
	seen := map[string]bool{}
	for _, f := range c.Fields {
		if seen[f.Field] {
			bad("field %s stands twice", f.Field)
		}
		seen[f.Field] = true
		points(f.Field, f.Other)
		points(f.Field, f.Missing)
		for _, v := range f.Levels {
			points(f.Field, v)
		}
		for i, b := range f.Bins {
			points(f.Field, b.Points)
			last := i == len(f.Bins)-1
			if last != (b.Below == nil) || b.Below != nil && (math.IsNaN(*b.Below) || i > 0 && !(*b.Below > *f.Bins[i-1].Below)) {
				bad("field %s, bin %d: want bounds that ascend, and none for the last", f.Field, i)
				break
			}
		}
		i := inputOf(schema, f.Field)
		if i < 0 {
			bad("field %s is not in the contract of %s", f.Field, c.Kind)
			continue
		}
		in := schema.Inputs[i]
		switch {
		case in.Protected || in.Past || in.Key:
			bad("field %s is protected, a key, or known only afterwards: it is never a model input", f.Field)
		case (in.Type == events.Category) != (len(f.Levels) > 0) || (in.Type == events.Category) == (len(f.Bins) > 0):
			bad("field %s is a %s: want levels for a category, bins for anything else", f.Field, in.Type)
		}
	}
	return errors.Join(errs...)
}

func inputOf(schema *events.Schema, field string) int {
	for i, f := range schema.Inputs {
		if f.Name == field {
			return i
		}
	}
	return -1
}

// card is a Scorecard made ready: points in log-odds.
type card struct {
	base   float64
	fields []cardField
}

type cardField struct {
	input, group   int
	below, bins    []float64 // len(bins) = len(below) + 1
	levels         map[string]float64
	other, missing float64
}

// compile makes the card ready. groupOf says which group a field counts in.
func (c *Scorecard) compile(schema *events.Schema, groupOf func(field string) int) (*card, error) {
	if err := c.Check(schema); err != nil {
		return nil, err
	}
	unit := -math.Ln2 / c.Scale.PDO
	out := &card{base: float64(unit*(c.Base-c.Scale.Base)) - lr.Log(c.Scale.Odds)}
	for _, f := range c.Fields {
		x := cardField{input: inputOf(schema, f.Field), group: groupOf(f.Field), other: float64(unit * f.Other), missing: float64(unit * f.Missing)}
		for _, b := range f.Bins {
			if b.Below != nil {
				x.below = append(x.below, *b.Below)
			}
			x.bins = append(x.bins, float64(unit*b.Points))
		}
		if len(f.Levels) > 0 {
			x.levels = map[string]float64{}
			for l, v := range f.Levels {
				x.levels[l] = float64(unit * v)
			}
		}
		out.fields = append(out.fields, x)
	}
	return out, nil
}

func (c *card) contributions(groups []float64, rec *events.Record) {
	for i := range c.fields {
		f := &c.fields[i]
		v := &rec.Values[f.input]
		add := f.missing
		switch {
		case v.State == events.HasText && f.levels != nil:
			known := false
			if add, known = f.levels[string(v.Text)]; !known {
				add = f.other
			}
		case v.State == events.HasNum && f.levels == nil && v.Num == v.Num:
			at := 0
			for at < len(f.below) && !(v.Num < f.below[at]) {
				at++
			}
			add = f.bins[at]
		}
		groups[f.group] += add
	}
}

// Logit returns a function that gives the card's logit of records of the schema. It is for one goroutine.
func (c *Scorecard) Logit(schema *events.Schema) (func(rec *events.Record) float64, error) {
	k, err := c.compile(schema, func(string) int { return 0 })
	if err != nil {
		return nil, err
	}
	sum := make([]float64, 1)
	return func(rec *events.Record) float64 {
		sum[0] = k.base
		k.contributions(sum, rec)
		return sum[0]
	}, nil
}
