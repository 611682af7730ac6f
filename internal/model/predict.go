package model

import (
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// MaxReasons of a score.
const MaxReasons = 4

// Withheld stands for all sensitive fields together, in reasons and explanations. Which of them it was is not said.
const Withheld = "(withheld)"

// Points are kept in this range.
const (
	MinPoints = 0
	MaxPoints = 1000
)

// Result of one record.
type Result struct {
	Logit   float64
	P       float64         // lr.Sigmoid(Logit); for a prior the contract's own number
	Points  int             //
	Reasons []events.Reason // aliases the scratch: valid until the next Score with it

	Out      string // members that did not vote, as mode says them: -boost-online; empty: none
	Prior    bool   // none voted: it is the contract's prior
	Snapshot uint64 // sequence in ONLINE of what the member online voted with; 0: it did not
}

// Scratch is what Score works in. One goroutine uses it at a time; it grows to the largest model it has met.
type Scratch struct {
	x       []float64 // encoded record, then contributions
	groups  []float64 // by field
	parts   []float64 // by member, by field
	reasons [MaxReasons]events.Reason

	began uint64 // members that have been asked

	// Working is which member is at work, 1 + its place among the members and, above 8 bits, how many have been before; 0: none. Whoever waits
	// for a Score may read it from another goroutine.
	Working atomic.Uint64
	// Fault is set by tests only: it is called before a member scores, may panic or take long, and what it returns is added to the
	// member's logit.
	Fault func(member string) float64
}

// Predictor is an artifact made ready to score records of one schema. It is safe for concurrent use.
//
// Contributions by source field are measured against the artifact's baseline, a typical record:
//
//	Base + Σ contributions = Logit
//
// bit for bit, in any order of addition, while |intercept| + Σ|w·x| + 2Σ|w·baseline| stays below 8192 (see
// lr.Model.Contributions), and to rounding beyond. With members it holds for any record: a field's part of the fused logit is
// kept within ±maxPart. The same record gives the same bits on every CPU.
type Predictor struct {
	encoder  *feature.Encoder // nil: a prior
	model    lr.Model
	groupOf  []int     // column -> group
	fields   []string  // group -> name, ascending, as ties fall; sensitive ones are one group, Withheld
	codes    []string  // group -> reason code; empty: the artifact has none
	byColumn []int     // groups by their first column
	baseline []float64 // group -> its part of the baseline's logit
	base     float64
	prior    float64
	offset   float64 // points at logit 0
	factor   float64 // points a unit of logit

	name    string
	means   []float64 // the baseline, by column
	members *panel    // nil: format 1
	out     uint32    // mask of members that do not vote
}

// Compile makes a predictor for records of the schema. It refuses an artifact of another kind, or one that reads
// fields that the contract does not name, has under another type, or protects.
func Compile(a *Artifact, schema *events.Schema) (*Predictor, error) {
	p, err := compile(a, schema)
	if err != nil {
		return nil, fmt.Errorf("compile %s for contract version %d: %w", a.Name(), schema.Contract.Version, err)
	}
	return p, nil
}

func compile(a *Artifact, schema *events.Schema) (*Predictor, error) {
	if a.Kind != schema.Contract.Kind {
		return nil, fmt.Errorf("%w: it is a model of %s, not of %s", ErrArtifact, a.Kind, schema.Contract.Kind)
	}
	encoder, err := a.Spec.Compile(schema)
	if err != nil {
		return nil, err
	}
	columns := encoder.Columns()
	if len(columns) != len(a.Weights) {
		return nil, fmt.Errorf("%w: %d weights for %d columns", ErrArtifact, len(a.Weights), len(columns))
	}
	sensitive := map[string]bool{}
	for _, f := range schema.Inputs {
		sensitive[f.Name] = f.Sensitive
	}
	p := &Predictor{name: a.Name(), prior: schema.Contract.Prior, encoder: encoder, model: lr.Model{Intercept: a.Intercept, Weights: make([]float64, len(columns))}}
	p.setScale(a.Scale)
	names := make([]string, len(columns)) // of the groups
	atBaseline := make([]float64, len(columns))
	for j, c := range columns {
		w := a.Weights[j]
		if w.Column != c.Name || w.Field != c.Field {
			return nil, fmt.Errorf("%w: weight %d is of column %s, the contract's is %s", ErrArtifact, j, w.Column, c.Name)
		}
		if names[j] = c.Field; sensitive[c.Field] {
			names[j] = Withheld
		}
		p.model.Weights[j] = w.Weight
		atBaseline[j] = w.Baseline
	}
	more := a.Ensemble.cardFields()
	for i, field := range more {
		if sensitive[field] {
			more[i] = Withheld
		}
	}
	p.fields = slices.Compact(slices.Sorted(slices.Values(slices.Concat(names, more))))
	p.codes = a.codesFor(p.fields)
	seen := make([]bool, len(p.fields))
	for _, name := range names {
		g, _ := slices.BinarySearch(p.fields, name)
		if !seen[g] {
			seen[g] = true
			p.byColumn = append(p.byColumn, g)
		}
		p.groupOf = append(p.groupOf, g)
	}
	for g := range p.fields {
		if !seen[g] {
			p.byColumn = append(p.byColumn, g)
		}
	}
	if a.Ensemble != nil {
		p.means = atBaseline
		return p, a.Ensemble.compile(p, schema, sensitive)
	}

	p.baseline = make([]float64, len(p.fields))
	parts := make([]float64, len(columns))
	p.base = p.model.Contributions(parts, atBaseline, nil)
	for j, v := range parts {
		p.base += v
		p.baseline[p.groupOf[j]] += v
	}
	return p, nil
}

// Prior answers the contract's prior for every record, without reasons.
func Prior(c *events.Contract) *Predictor {
	p := &Predictor{prior: c.Prior}
	p.setScale(DefaultScale)
	p.base = priorLogit(c.Prior)
	return p
}

func priorLogit(p float64) float64 {
	return min(max(lr.Log(p)-lr.Log1p(-p), -maxPriorLogit), maxPriorLogit)
}

// maxPriorLogit stands for the infinite logit of a prior of 0 or 1.
const maxPriorLogit = 745

func (p *Predictor) setScale(s Scale) {
	p.factor = s.PDO / math.Ln2
	p.offset = s.Base - float64(p.factor*lr.Log(s.Odds))
}

func (p *Predictor) points(logit float64) int {
	v := math.Round(p.offset - float64(p.factor*logit))
	return int(min(max(v, MinPoints), MaxPoints))
}

// IsPrior says that no model is behind it.
func (p *Predictor) IsPrior() bool { return p.encoder == nil }

// Base is the logit of the baseline, from which contributions are measured.
func (p *Predictor) Base() float64 {
	if p.members != nil && p.voting() != 0 {
		return p.members.baseOf(p.voting())
	}
	return p.base
}

// Score needs a record of the schema that the predictor was compiled for, with its time set (to the time at which the
// event was stored, if it gave none). At most MaxReasons fields are named, those that raised the risk most against
// the baseline; ties go by name. It does not allocate once the scratch has grown.
func (p *Predictor) Score(rec *events.Record, s *Scratch) Result {
	if p.encoder == nil {
		return Result{Logit: p.base, P: p.prior, Points: p.points(p.base)}
	}
	if p.members != nil {
		return p.fuse(rec, s)
	}
	logit := p.contributions(rec, s)
	return Result{Logit: logit, P: lr.Sigmoid(logit), Points: p.points(logit), Reasons: p.reasons(s)}
}

// contributions leaves the contribution of each group in s.groups and returns the logit.
func (p *Predictor) contributions(rec *events.Record, s *Scratch) (logit float64) {
	s.x = sized(s.x, p.encoder.Dim())
	s.groups = sized(s.groups, len(p.fields))
	p.encoder.Encode(s.x, rec)
	logit = p.model.Contributions(s.x, s.x, nil) // of the intercept alone; left to right it becomes lr.Model.Logit
	for g, v := range p.baseline {
		s.groups[g] = -v
	}
	for j, v := range s.x {
		logit += v
		s.groups[p.groupOf[j]] += v
	}
	return logit
}

func sized(v []float64, n int) []float64 {
	if cap(v) < n {
		return make([]float64, n)
	}
	return v[:n]
}

func (p *Predictor) reasons(s *Scratch) []events.Reason {
	n, least := 0, 0.0             // least: what is not above it is no reason
	for g, add := range s.groups { // in the order of names, so that a later equal goes behind
		if !(add > least) {
			continue
		}
		if n < MaxReasons {
			n++
		}
		i := n - 1
		for ; i > 0 && s.reasons[i-1].Add < add; i-- {
			s.reasons[i] = s.reasons[i-1]
		}
		s.reasons[i] = events.Reason{Field: p.fields[g], Add: add, Code: p.codes[g]}
		if n == MaxReasons {
			least = s.reasons[n-1].Add
		}
	}
	return s.reasons[:n:n]
}

// Explain returns the contribution of every field, raising and lowering, in the order of the model's columns.
// Added to Base they are the logit of Score.
func (p *Predictor) Explain(rec *events.Record) []events.Reason {
	if p.encoder == nil {
		return nil
	}
	var s Scratch
	if p.members == nil {
		p.contributions(rec, &s)
	} else if p.fuse(rec, &s).Prior {
		return nil
	}
	parts := make([]events.Reason, len(p.fields))
	for i, g := range p.byColumn {
		parts[i] = events.Reason{Field: p.fields[g], Add: s.groups[g], Code: p.codes[g]}
	}
	return parts
}
