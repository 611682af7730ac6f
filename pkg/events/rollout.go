package events

import (
	"errors"
	"fmt"
	"time"
)

// How versions of a kind's model come into force.
const (
	RolloutManual = "manual" // people promote
	RolloutGated  = "gated"  // gates do, too

	ApprovalTwo  = "two"  // nobody promotes what they proposed
	ApprovalSolo = "solo" // whoever may write the registry promotes
)

// MaxShadows of a kind, at a time: each costs scorers as much as another champion.
const MaxShadows = 4

// Rollout is how versions of a kind's model come into force. What is zero has the default of WithDefaults.
type Rollout struct {
	Mode       string    `yaml:"mode,omitempty"`
	Approval   string    `yaml:"approval,omitempty"`
	Steps      []float64 `yaml:"steps,omitempty,flow"`  // shares of the entities for which a canary decides, ascending
	MaxShadows int       `yaml:"max_shadows,omitempty"` //
	Patience   Duration  `yaml:"patience,omitempty"`    // without a verdict a version does not stay shadow, or canary, for longer
	AUCMargin  float64   `yaml:"auc_margin,omitempty"`  // by how much a version's AUC may be lower
	MaxRatio   float64   `yaml:"max_ratio,omitempty"`   // of bad records to expected ones, or of expected to bad
	MaxShift   float64   `yaml:"max_shift,omitempty"`   // of the share of events that are not approved, either way
	MaxPSI     float64   `yaml:"max_psi,omitempty"`     // of its scores against the champion's
	LateAfter  Duration  `yaml:"late_after,omitempty"`  // that a version may take for one event
	Watch      Duration  `yaml:"watch,omitempty"`       // for how long after its promotion the gate holds a champion against the one before
}

// PlaygroundRollout is for one person on one machine, where models come into force by the gates within minutes: the first is trained on very
// little, so that what follows it may differ much.
func PlaygroundRollout() *Rollout {
	return &Rollout{Mode: RolloutGated, Approval: ApprovalSolo, Patience: Duration(10 * time.Minute), AUCMargin: 0.02, MaxRatio: 3, MaxShift: 0.3, MaxPSI: 10}
}

// WithDefaults has what is left out.
func (r Rollout) WithDefaults() Rollout {
	day := Duration(24 * time.Hour)
	if r.Mode == "" {
		r.Mode = RolloutManual
	}
	if r.Approval == "" {
		r.Approval = ApprovalTwo
	}
	if len(r.Steps) == 0 {
		r.Steps = []float64{0.1}
	}
	if r.MaxShadows == 0 {
		r.MaxShadows = 3
	}
	for _, d := range []struct {
		of *Duration
		to Duration
	}{{&r.Patience, 30 * day}, {&r.LateAfter, Duration(5 * time.Millisecond)}, {&r.Watch, day}} {
		if *d.of == 0 {
			*d.of = d.to
		}
	}
	for _, d := range []struct {
		of *float64
		to float64
	}{{&r.AUCMargin, 0.01}, {&r.MaxRatio, 2}, {&r.MaxShift, 0.02}, {&r.MaxPSI, 0.25}} {
		if *d.of == 0 {
			*d.of = d.to
		}
	}
	return r
}

func (r *Rollout) validate(c *Contract) error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("contract %s: rollout: "+format, append([]any{c.Kind}, a...)...))
	}
	x := r.WithDefaults()
	if x.Mode != RolloutManual && x.Mode != RolloutGated {
		bad("mode %q: want %s or %s", x.Mode, RolloutManual, RolloutGated)
	}
	if x.Approval != ApprovalTwo && x.Approval != ApprovalSolo {
		bad("approval %q: want %s or %s", x.Approval, ApprovalTwo, ApprovalSolo)
	}
	last := 0.0
	for _, s := range x.Steps {
		if !(s > last && s <= 1) {
			bad("steps %v: want them ascending, above 0 and at most 1", x.Steps)
			break
		}
		last = s
	}
	if x.MaxShadows < 1 || x.MaxShadows > MaxShadows {
		bad("max_shadows %d: want 1 to %d", x.MaxShadows, MaxShadows)
	}
	if !(x.AUCMargin > 0 && x.AUCMargin < 0.5) || !(x.MaxShift > 0 && x.MaxShift <= 1) || !(x.MaxPSI > 0 && x.MaxPSI <= 100) {
		bad("auc_margin %v, max_shift %v, max_psi %v: want them above 0, and below 0.5, at most 1 and at most 100", x.AUCMargin, x.MaxShift, x.MaxPSI)
	}
	if !(x.MaxRatio > 1 && x.MaxRatio <= 100) {
		bad("max_ratio %v: want it above 1, and at most 100", x.MaxRatio)
	}
	if x.Patience < Duration(time.Second) || x.Watch < Duration(time.Second) || x.LateAfter < Duration(time.Microsecond) || x.LateAfter > Duration(time.Second) {
		bad("patience %s, watch %s, late_after %s: want at least a second, a second, and a microsecond to a second", x.Patience, x.Watch, x.LateAfter)
	}
	return errors.Join(errs...)
}
