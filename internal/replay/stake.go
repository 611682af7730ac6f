package replay

import (
	"cmp"
	"fmt"
	"math"

	"github.com/riskweir/riskweir/pkg/events"
)

// Stake is what the events of a comparison are worth, by what either version would decide on them.
//
//	All = sum of Decisions;   Moved = the same off the diagonal;   Bad <= Decisions where no amount is negative
type Stake struct {
	Field     string        `json:"field"` // that holds the amount
	Unit      string        `json:"unit,omitempty"`
	Without   uint64        `json:"without"` // events that have no amount
	All       float64       `json:"all"`
	Moved     float64       `json:"moved"`     // of events of which the versions decide otherwise
	Decisions [4][4]float64 `json:"decisions"` // by A's decision, then B's: approve, review, decline, none
	Bad       [4][4]float64 `json:"bad"`       // likewise, of the events that have a label and are bad
}

// sum of many amounts, with what rounding lost of each (Neumaier 1974): so cents do not drift, in whatever order they come.
type sum struct{ total, lost float64 }

func (s *sum) add(x float64) {
	t := s.total + x
	if math.Abs(s.total) >= math.Abs(x) {
		s.lost += (s.total - t) + x
	} else {
		s.lost += (x - t) + s.total
	}
	s.total = t
}

func (s *sum) value() float64 { return s.total + s.lost }

// staking sums up what a Stake says.
type staking struct {
	at         int // index of the field in a record
	field      events.Field
	without    uint64
	all, moved sum
	decisions  [4][4]sum
	bad        [4][4]sum
}

// stakeOf the field that is asked for; with none asked for, of the contract's only money, or nil if it has not one that may be told.
func stakeOf(contract *events.Contract, asked string) (*staking, error) {
	var only *staking
	for i, f := range contract.Fields {
		switch {
		case asked == "" && f.Type == events.Money && !f.Sensitive:
			if only != nil {
				return nil, nil
			}
			only = &staking{at: i, field: f}
		case asked != "" && f.Name == asked:
			if f.Type != events.Money && f.Type != events.Number {
				return nil, fmt.Errorf("the field %s is a %s: want money, or a number", asked, f.Type)
			}
			if f.Sensitive {
				return nil, fmt.Errorf("the field %s is sensitive: where few events moved, their sum would tell its values", asked)
			}
			return &staking{at: i, field: f}, nil
		}
	}
	if asked != "" {
		return nil, fmt.Errorf("the contract of %s has no field %s", contract.Kind, asked)
	}
	return only, nil
}

// add an event on which A and B decide as a and b say.
func (s *staking) add(rec *events.Record, a, b int, bad bool) {
	v := rec.Values[s.at]
	if v.State != events.HasNum {
		s.without++
		return
	}
	s.all.add(v.Num)
	s.decisions[a][b].add(v.Num)
	if a != b {
		s.moved.add(v.Num)
	}
	if bad {
		s.bad[a][b].add(v.Num)
	}
}

func (s *staking) finish() *Stake {
	out := &Stake{Field: s.field.Name, Unit: cmp.Or(s.field.Currency, s.field.Unit), Without: s.without, All: s.all.value(), Moved: s.moved.value()}
	for a := range s.decisions {
		for b := range s.decisions[a] {
			out.Decisions[a][b], out.Bad[a][b] = s.decisions[a][b].value(), s.bad[a][b].value()
		}
	}
	return out
}
