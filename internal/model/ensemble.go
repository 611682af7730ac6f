package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/riskweir/riskweir/internal/boost"
	"github.com/riskweir/riskweir/pkg/events"
)

// Kinds of members.
const (
	KindBatch     = "batch"     // the artifact's own weights
	KindBoost     = "boost"     // trees
	KindOnline    = "online"    // a regression that goes on learning, and comes in snapshots
	KindScorecard = "scorecard" // points, written by hand
)

// MaxMembers of an ensemble: there is a fusion for each set of them.
const MaxMembers = 6

// Member is one of several models that score a record side by side. Each kind is once in an ensemble, and names the member.
type Member struct {
	Kind string `json:"kind"`
	// Body is the model, in the form of its kind; none for batch. It is read when the artifact is compiled, so that a
	// member that cannot be used is left out, and the others go on.
	Body json.RawMessage `json:"body,omitempty"`
}

// Fusion is how the logits of some members become one:
//
//	logit = Bias + Σ Weights[i] · logit of Members[i]
//
// It was learned on records later than the members', so that it calibrates too.
type Fusion struct {
	Members []string  `json:"members"` // ascending
	Weights []float64 `json:"weights"` // none below 0
	Bias    float64   `json:"bias"`
}

// Ensemble is the members of an artifact of format 2 and their fusions, one for each set of members but the empty one: whoever is
// left out, the rest has weights of its own.
//
//	Members ascending by kind
type Ensemble struct {
	Members []Member `json:"members"`
	Fusions []Fusion `json:"fusions"`
	Forget  float64  `json:"forget"` // of the level's correction in snapshots, for each label; 0: there is none
}

const maxFusion = 1e3

// check returns what is wrong but for the members' bodies.
func (e *Ensemble) check() error {
	if n := len(e.Members); n < 1 || n > MaxMembers {
		return fmt.Errorf("%d members: want 1 to %d", n, MaxMembers)
	}
	for i, m := range e.Members {
		if m.Kind == "" || strings.Trim(m.Kind, "abcdefghijklmnopqrstuvwxyz") != "" || i > 0 && e.Members[i-1].Kind >= m.Kind {
			return fmt.Errorf("member %d is of kind %q: want small letters, ascending", i, m.Kind)
		}
	}
	if !(e.Forget >= 0 && e.Forget <= 1) {
		return fmt.Errorf("forget %v: want 0 to 1", e.Forget)
	}
	_, err := e.fusions()
	return err
}

// fusions by the mask of their members.
func (e *Ensemble) fusions() ([]Fusion, error) {
	out := make([]Fusion, 1<<len(e.Members))
	for _, f := range e.Fusions {
		if len(f.Weights) != len(f.Members) {
			return nil, fmt.Errorf("fusion of %s has %d weights", strings.Join(f.Members, ", "), len(f.Weights))
		}
		mask := 0
		for i, name := range f.Members {
			k := e.index(name)
			if k < 0 || mask>>k != 0 {
				return nil, fmt.Errorf("fusion of %s: want members, ascending", strings.Join(f.Members, ", "))
			}
			mask |= 1 << k
			if w := f.Weights[i]; !(w >= 0 && w <= maxFusion) {
				return nil, fmt.Errorf("fusion of %s: weight %v: want 0 to %g", strings.Join(f.Members, ", "), w, maxFusion)
			}
		}
		if !(math.Abs(f.Bias) <= maxFusion) {
			return nil, fmt.Errorf("fusion of %s: bias %v: want a number of at most %g in magnitude", strings.Join(f.Members, ", "), f.Bias, maxFusion)
		}
		if mask == 0 || out[mask].Members != nil {
			return nil, fmt.Errorf("fusion of %s stands twice, or is of none", strings.Join(f.Members, ", "))
		}
		out[mask] = f
	}
	for mask := 1; mask < len(out); mask++ {
		if out[mask].Members == nil {
			return nil, errors.New("not every set of members has a fusion")
		}
	}
	return out, nil
}

func (e *Ensemble) index(kind string) int {
	return slices.IndexFunc(e.Members, func(m Member) bool { return m.Kind == kind })
}

// panel is an ensemble made ready for a predictor.
type panel struct {
	names    []string
	boost    *boost.Scorer
	card     *card
	online   linear // as in the artifact, or in a snapshot
	batch    linear
	fusions  []fusion // by mask of the members that vote
	corrects [2]float64
	broken   uint32   // mask of members that cannot be used
	why      []string // of each of them
	suffix   []string // of mode, by mask of the members left out
	snapshot uint64   // sequence of what online was taken from
}

// linear is a regression on the columns.
type linear struct {
	weights []float64
	base    float64   // its logit at the baseline
	at      []float64 // weight · baseline, by column
}

func newLinear(intercept float64, weights, baseline []float64) linear {
	l := linear{weights: weights, base: intercept, at: make([]float64, len(weights))}
	for j, w := range weights {
		l.at[j] = float64(w * baseline[j])
		l.base += l.at[j]
	}
	return l
}

func (l *linear) contributions(groups, x []float64, groupOf []int) {
	at := l.at
	for j, w := range l.weights {
		groups[groupOf[j]] += float64(w*x[j]) - at[j]
	}
}

// fusion by index of members; 0 of those that do not vote.
type fusion struct {
	weights [MaxMembers]float64
	bias    float64
}

// cardFields are the fields of the scorecard, if there is one that can be read.
func (e *Ensemble) cardFields() []string {
	if e == nil {
		return nil
	}
	var fields []string
	for _, m := range e.Members {
		var c Scorecard
		if m.Kind == KindScorecard && strict(m.Body, &c) == nil {
			for _, f := range c.Fields {
				fields = append(fields, f.Field)
			}
		}
	}
	return fields
}

// compile makes the ensemble ready for p, whose fields stand.
func (e *Ensemble) compile(p *Predictor, schema *events.Schema, sensitive map[string]bool) error {
	fusions, err := e.fusions()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrArtifact, err)
	}
	c := &panel{corrects: [2]float64{1, 0}}
	for i, m := range e.Members {
		c.names = append(c.names, m.Kind)
		var err error
		switch m.Kind {
		case KindBatch:
			c.batch = newLinear(p.model.Intercept, p.model.Weights, p.means)
		case KindBoost:
			var b boost.Model
			if err = strict(m.Body, &b); err == nil {
				err = b.Check(len(p.means))
			}
			if err == nil {
				c.boost = b.Compile(p.groupOf)
			}
		case KindScorecard:
			var card Scorecard
			if err = strict(m.Body, &card); err == nil {
				c.card, err = card.compile(schema, func(field string) int {
					if sensitive[field] {
						field = Withheld
					}
					g, _ := slices.BinarySearch(p.fields, field)
					return g
				})
			}
		case KindOnline:
			var o Online
			if err = strict(m.Body, &o); err == nil {
				err = o.check(len(p.means))
			}
			if err == nil {
				c.setOnline(&o, p.means)
			}
		default:
			err = errors.New("this program knows no such member")
		}
		if err != nil {
			c.broken |= 1 << i
			c.why = append(c.why, fmt.Sprintf("%s: %v", m.Kind, err))
		}
	}
	for _, f := range fusions {
		var x fusion
		x.bias = f.Bias
		for i, name := range f.Members {
			x.weights[e.index(name)] = f.Weights[i]
		}
		c.fusions = append(c.fusions, x)
	}
	for mask := range 1 << len(c.names) {
		s := ""
		for i, name := range c.names {
			if mask>>i&1 == 1 {
				s += "-" + name
			}
		}
		c.suffix = append(c.suffix, s)
	}
	p.members, p.out, p.base = c, c.broken, priorLogit(p.prior)
	return nil
}
