// Package rollout decides which version of a model serves: the life of a version as a pure state machine, and the gates
// whose evidence moves it.
//
//	          offline gate        online gate          online gate
//	candidate ──────────► shadow ────────────► canary ────────────► champion ──► retired
//	    │                   │  patience: retired  │ (by steps)          │
//	    └────► refused ◄────┘                     └───► rolled back ◄───┘ to the champion before
//
// Nothing here reads a clock or a stream. Whoever drives it keeps the state, and carries out what was decided.
package rollout

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Stage of a version's life.
type Stage string

const (
	Candidate  Stage = "candidate"   // measured offline, or waiting for an order
	Shadow     Stage = "shadow"      // scores every event, decides none
	Canary     Stage = "canary"      // decides for a share of the entities
	Champion   Stage = "champion"    //
	Retired    Stage = "retired"     // may serve again
	Refused    Stage = "refused"     // stopped by a gate before it decided anything
	RolledBack Stage = "rolled back" // stopped after it did
)

// Mode says who may widen the say of a version. Narrowing it is automatic in both.
type Mode string

const (
	Manual Mode = "manual" // orders only
	Gated  Mode = "gated"  // gates, and orders
)

// Approval says whose order may widen the say of a version. Narrowing it needs nobody's.
type Approval string

const (
	Two  Approval = "two"  // of somebody who did not propose it
	Solo Approval = "solo" // of anybody
)

// Policy of a kind. Zero values are the defaults given, but for Patience and AUCMargin.
type Policy struct {
	Mode       Mode          `json:"mode"`        // Manual
	Approval   Approval      `json:"approval"`    // Two
	Steps      []float64     `json:"steps"`       // the canary's shares of entities, ascending, 0 < share <= 1; one of 0.1
	MaxShadows int           `json:"max_shadows"` // at a time: a further one retires the oldest; 3
	Patience   time.Duration `json:"patience"`    // without a verdict a shadow is retired, a canary rolled back, after it; 0: never

	// Of the gates: see OfflinePolicy and OnlinePolicy.
	AUCMargin float64 `json:"auc_margin"`
	MaxRatio  float64 `json:"max_ratio"`
	MaxShift  float64 `json:"max_shift"`
	MaxPSI    float64 `json:"max_psi"`
}

// Offline gate of the policy.
func (p Policy) Offline() OfflinePolicy {
	return OfflinePolicy{AUCMargin: p.AUCMargin, MaxRatio: p.MaxRatio}
}

// canaryMargin is by how much more the AUC may be lower once a version decides: it has shown its worth as a shadow, and is now
// looked at for a change.
const canaryMargin = 0.01

// Online gate of the policy for a stage, where that share of events is bad.
func (p Policy) Online(stage Stage, rate float64) OnlinePolicy {
	o := OnlinePolicy{AUCMargin: p.AUCMargin, MaxShift: p.MaxShift, MaxPSI: p.MaxPSI, Rate: rate}
	if stage != Shadow {
		o.Watch, o.AUCMargin = true, p.AUCMargin+canaryMargin
	}
	return o
}

func (p Policy) steps() []float64 {
	if len(p.Steps) == 0 {
		return []float64{0.1}
	}
	return p.Steps
}

func (p Policy) maxShadows() int {
	if p.MaxShadows == 0 {
		return 3
	}
	return p.MaxShadows
}

// Room is how many shadows there may be at a time.
func (p Policy) Room() int { return p.maxShadows() }

// Validate returns all that is wrong with the policy, joined.
func (p Policy) Validate() error {
	var errs []error
	if p.Mode != "" && p.Mode != Manual && p.Mode != Gated {
		errs = append(errs, fmt.Errorf("mode %q: want %s or %s", p.Mode, Manual, Gated))
	}
	if p.Approval != "" && p.Approval != Two && p.Approval != Solo {
		errs = append(errs, fmt.Errorf("approval %q: want %s or %s", p.Approval, Two, Solo))
	}
	if !(p.AUCMargin >= 0 && p.AUCMargin < 0.5) || !(p.MaxShift >= 0 && p.MaxShift < 1) || !(p.MaxPSI >= 0) {
		errs = append(errs, fmt.Errorf("auc margin %v, max shift %v, max psi %v: want 0 to below 0.5, 0 to below 1, and not below 0", p.AUCMargin, p.MaxShift, p.MaxPSI))
	}
	last := 0.0
	for _, s := range p.Steps {
		if !(s > last && s <= 1) {
			errs = append(errs, fmt.Errorf("canary steps %v: want them ascending, above 0 and at most 1", p.Steps))
			break
		}
		last = s
	}
	if p.MaxShadows < 0 || p.Patience < 0 {
		errs = append(errs, fmt.Errorf("max shadows %d, patience %s: want neither below 0", p.MaxShadows, p.Patience))
	}
	return errors.Join(errs...)
}

// Life of one version.
type Life struct {
	Version  int       `json:"version"`
	Stage    Stage     `json:"stage"`
	Share    float64   `json:"share,omitempty"`  // of the entities; canary only
	Since    time.Time `json:"since"`            // in this stage and share
	Passed   bool      `json:"passed,omitempty"` // the online gate, since then, by Evidence
	By       []string  `json:"by,omitempty"`     // who proposed it: made it, or put it forward as a shadow
	Served   bool      `json:"served,omitempty"` // it has been champion
	Evidence *Evidence `json:"evidence,omitempty"`
}

// State of a kind: its versions, ascending. It is a value: Step returns another and leaves the old one as it was.
//
//	each version once
//	number of champions <= 1, of canaries <= 1, of shadows <= Policy.MaxShadows (orders may exceed it)
//	no champion: no canary
//	a canary has a share, of Policy.Steps when it was given; no other version has one
//	Previous = 0, or retired: the champion before, to which an automatic rollback goes
type State struct {
	Lives    []Life `json:"lives"`
	Previous int    `json:"previous,omitempty"`
}

// In returns the versions in a stage, ascending.
func (s *State) In(stage Stage) []int {
	var in []int
	for _, l := range s.Lives {
		if l.Stage == stage {
			in = append(in, l.Version)
		}
	}
	return in
}

// Champion is 0 if there is none, as is Canary.
func (s *State) Champion() int { return s.only(Champion) }
func (s *State) Canary() int   { return s.only(Canary) }

func (s *State) only(stage Stage) int {
	for _, l := range s.Lives {
		if l.Stage == stage {
			return l.Version
		}
	}
	return 0
}

// Of returns the life of a version, or nil.
func (s *State) Of(version int) *Life {
	for i := range s.Lives {
		if s.Lives[i].Version == version {
			return &s.Lives[i]
		}
	}
	return nil
}

// Input is a Proposal, an Observation, an Order or a Tick.
type Input interface{ input() }

// Proposal of a new version, with what the offline gate says of it. Version 0 is one that failed and has no number: it is
// published nowhere, and all that stays is the decision.
type Proposal struct {
	Version  int
	By       string
	Evidence Evidence
}

// Observation is what the online gate says of a version that is shadow, canary, or champion (then against the one
// before). All of it was seen in the version's present stage and share: for each the gate begins anew. Stage and Share
// say which, so that what comes late moves nothing.
type Observation struct {
	Stage    Stage
	Share    float64
	Evidence Evidence
}

// Order of a person.
type Order struct {
	Verb    Verb
	Version int
	To      int // of the rollback of a champion: the version that serves instead; 0: the champion before
	By, Why string
}

// Verb of an order.
type Verb string

const (
	OrderPromote  Verb = "promote"  // any but a refused one -> champion
	OrderRollback Verb = "rollback" // canary -> rolled back; champion -> rolled back, and another is champion
	OrderShadow   Verb = "shadow"   // candidate, retired or rolled back -> shadow
	OrderCanary   Verb = "canary"   // candidate or shadow -> canary at the first step
	OrderRetire   Verb = "retire"   // candidate or shadow -> retired
)

// Tick lets time pass.
type Tick struct{}

func (Proposal) input()    {}
func (Observation) input() {}
func (Order) input()       {}
func (Tick) input()        {}

// Gate is who decided where no person did.
const Gate = "gate"

// Decision moves one version. Those of one step are one change of the rollout record.
type Decision struct {
	At       time.Time `json:"at"`
	Version  int       `json:"version,omitempty"` // 0: one that has no number
	From     Stage     `json:"from,omitempty"`    // empty: it was not known
	To       Stage     `json:"to"`
	Share    float64   `json:"share,omitempty"` // To canary
	By       string    `json:"by"`              // a person, or Gate
	Reason   string    `json:"reason"`
	Evidence Evidence  `json:"evidence"` // on this version, or on the one that made it move
}

// ErrOrder says that an order cannot be carried out; nothing was changed.
var ErrOrder = errors.New("order refused")

// Step decides. An error is an ErrOrder, or a Proposal of a version that is known already.
func (p Policy) Step(s State, in Input, now time.Time) (State, []Decision, error) {
	w := work{policy: p, now: now.UTC(), state: State{Lives: slices.Clone(s.Lives), Previous: s.Previous}}
	var err error
	switch in := in.(type) {
	case Proposal:
		err = w.propose(in)
	case Observation:
		w.observe(in)
	case Order:
		err = w.order(in)
	case Tick:
		w.tick()
	}
	if err != nil {
		return s, nil, err
	}
	return w.state, w.decisions, nil
}

// work is one step under way.
type work struct {
	policy    Policy
	now       time.Time
	state     State
	decisions []Decision
}

// move needs version to be known. e is the evidence that moves it.
func (w *work) move(version int, to Stage, share float64, by, reason string, e Evidence) {
	l := w.state.Of(version)
	w.decisions = append(w.decisions, Decision{At: w.now, Version: version, From: l.Stage, To: to, Share: share, By: by, Reason: reason, Evidence: e})
	l.Stage, l.Share, l.Since, l.Passed = to, share, w.now, false
	l.Served = l.Served || to == Champion
	switch {
	case l.ended():
		l.Evidence = nil // the decision has it
	case e.Version == version:
		l.Evidence = &e
	}
}

// ended says that the version scores nothing.
func (l *Life) ended() bool { return l.Stage == Retired || l.Stage == Refused || l.Stage == RolledBack }

// last is the evidence on a version that an order finds.
func (w *work) last(version int) Evidence {
	if l := w.state.Of(version); l != nil && l.Evidence != nil {
		return *l.Evidence
	}
	return Evidence{Gate: GateOffline, Version: version, Checks: []Check{}}
}

func (w *work) propose(in Proposal) error {
	v := in.Version
	if v == 0 && in.Evidence.Verdict() == Fail {
		w.decisions = append(w.decisions, Decision{At: w.now, To: Refused, By: Gate, Reason: in.Evidence.Sentence(), Evidence: in.Evidence})
		return nil
	}
	if v < 1 || w.state.Of(v) != nil {
		return fmt.Errorf("propose version %d: want a number from 1 that no version has", v)
	}
	if in.Evidence.Version != v {
		return fmt.Errorf("propose version %d: its evidence is of version %d", v, in.Evidence.Version)
	}
	e := in.Evidence
	w.state.Lives = append(w.state.Lives, Life{Version: v, Since: w.now, By: []string{in.By}, Evidence: &e})
	slices.SortFunc(w.state.Lives, func(a, b Life) int { return a.Version - b.Version })
	w.move(v, Candidate, 0, in.By, "proposed", e)
	champion := w.state.Champion()
	switch verdict := e.Verdict(); {
	case verdict == Fail:
		w.move(v, Refused, 0, Gate, e.Sentence(), e)
	case e.Against != champion: // measured against one that is champion no more: an order may still take it on
	case champion == 0 && w.policy.Mode == Gated && verdict == Pass:
		w.crown(v, Gate, "first model: "+e.Sentence(), e)
	case champion == 0: // nothing to be a shadow beside
	default:
		w.shadow(v, Gate, e.Sentence(), e)
	}
	return nil
}

// shadow makes room first.
func (w *work) shadow(v int, by, reason string, e Evidence) {
	for shadows := w.state.In(Shadow); len(shadows) >= w.policy.maxShadows(); shadows = shadows[1:] {
		w.move(shadows[0], Retired, 0, by, fmt.Sprintf("v%d takes its place as shadow", v), w.last(shadows[0]))
	}
	w.move(v, Shadow, 0, by, reason, e)
}

// crown makes v champion, and retires who was.
func (w *work) crown(v int, by, reason string, e Evidence) {
	old := w.state.Champion()
	if old != 0 {
		w.move(old, Retired, 0, by, fmt.Sprintf("v%d takes its place as champion", v), e)
	}
	w.state.Previous = old
	w.move(v, Champion, 0, by, reason, e)
	w.unpair(by, e)
}

// unpair keeps a canary from going on against another champion than it was paired with, and shadows from what they
// showed against that one.
func (w *work) unpair(by string, e Evidence) {
	for i := range w.state.Lives {
		w.state.Lives[i].Passed = false
	}
	if c := w.state.Canary(); c != 0 {
		w.move(c, RolledBack, 0, by, "the champion that it was paired with serves no more", e)
	}
}

// dethrone puts to in the place of champion v. It has no other before it: a rollback is not rolled back by itself.
func (w *work) dethrone(v, to int, by, reason string, e Evidence) {
	w.state.Previous = 0
	w.move(v, RolledBack, 0, by, reason, e)
	w.move(to, Champion, 0, by, fmt.Sprintf("v%d is rolled back", v), e)
	w.unpair(by, e)
}

func (w *work) observe(in Observation) {
	e := in.Evidence
	l := w.state.Of(e.Version)
	if l == nil || l.Stage != in.Stage || l.Share != in.Share {
		return // of a stage that is over
	}
	against := w.state.Champion()
	if l.Stage == Champion {
		against = w.state.Previous
	}
	if against == 0 || e.Against != against {
		return // paired with another
	}
	v, verdict := e.Version, e.Verdict()
	kept := e
	l.Evidence, l.Passed = &kept, verdict == Pass
	gated := w.policy.Mode == Gated
	switch {
	case l.Stage == Shadow && verdict == Fail:
		w.move(v, Refused, 0, Gate, e.Sentence(), e)
	case l.Stage == Shadow && verdict == Pass && gated && w.state.Canary() == 0:
		w.move(v, Canary, w.policy.steps()[0], Gate, e.Sentence(), e)
	case l.Stage == Canary && verdict == Fail:
		w.move(v, RolledBack, 0, Gate, e.Sentence(), e)
	case l.Stage == Canary && verdict == Pass && gated:
		if next := w.next(l.Share); next != 0 {
			w.move(v, Canary, next, Gate, e.Sentence(), e)
		} else {
			w.crown(v, Gate, e.Sentence(), e)
		}
	case l.Stage == Champion && verdict == Fail:
		w.dethrone(v, against, Gate, e.Sentence(), e)
	}
	w.tick()
}

// next is the step after a share, or 0.
func (w *work) next(share float64) float64 {
	for _, s := range w.policy.steps() {
		if s > share {
			return s
		}
	}
	return 0
}

func (w *work) tick() {
	if w.policy.Patience == 0 {
		return
	}
	for _, l := range slices.Clone(w.state.Lives) {
		if l.Passed || w.now.Sub(l.Since) < w.policy.Patience {
			continue // one that passed waits for an order, or for the canary before it
		}
		why := fmt.Sprintf("no verdict in %s", w.policy.Patience)
		switch l.Stage {
		case Shadow:
			w.move(l.Version, Retired, 0, Gate, why, w.last(l.Version))
		case Canary:
			w.move(l.Version, RolledBack, 0, Gate, why, w.last(l.Version))
		}
	}
}

func (w *work) order(in Order) error {
	refuse := func(format string, a ...any) error {
		return fmt.Errorf("%s v%d: %w: %s", in.Verb, in.Version, ErrOrder, fmt.Sprintf(format, a...))
	}
	if in.By == "" {
		return refuse("it does not say who orders it")
	}
	l := w.state.Of(in.Version)
	if l == nil {
		return refuse("there is no such version")
	}
	v, stage, e := in.Version, l.Stage, w.last(in.Version)
	is := func(stages ...Stage) bool { return slices.Contains(stages, stage) }
	canary := w.state.Canary()
	// unapproved says that the order would widen the say of l, which nobody has found good, and is of one who proposed it.
	unapproved := func(l *Life) bool {
		return w.policy.Approval != Solo && slices.Contains(l.By, in.By) && (!l.Served || l.Stage == RolledBack)
	}
	switch {
	case in.Verb == OrderPromote && is(Candidate, Shadow, Canary, Retired, RolledBack):
		if canary != 0 && canary != v {
			return refuse("v%d is canary: promote it, or roll it back first", canary)
		}
		if unapproved(l) {
			return refuse("%s proposed it, and the kind's approval is %s: somebody else must promote it", in.By, Two)
		}
		w.crown(v, in.By, in.Why, e)
	case in.Verb == OrderRollback && is(Canary):
		w.move(v, RolledBack, 0, in.By, in.Why, e)
	case in.Verb == OrderRollback && is(Champion):
		to := in.To
		if to == 0 {
			to = w.state.Previous
		}
		if to == 0 {
			return refuse("no champion before it is known: say which version should serve")
		}
		switch back := w.state.Of(to); {
		case back == nil:
			return refuse("there is no v%d", to)
		case back.Stage == Refused || back.Stage == Champion || back.Stage == Canary:
			return refuse("v%d is %s", to, back.Stage)
		case unapproved(back):
			return refuse("%s proposed v%d, and the kind's approval is %s: somebody else must put it in force", in.By, to, Two)
		}
		w.dethrone(v, to, in.By, in.Why, e)
	case in.Verb == OrderShadow && is(Candidate, Retired, RolledBack):
		if w.state.Champion() == 0 {
			return refuse("there is no champion beside which it could be measured: promote it")
		}
		w.settle(v)
		w.shadow(v, in.By, in.Why, e)
		if l := w.state.Of(v); !slices.Contains(l.By, in.By) {
			l.By = append(slices.Clone(l.By), in.By)
		}
	case in.Verb == OrderCanary && is(Candidate, Shadow):
		switch {
		case w.state.Champion() == 0:
			return refuse("there is no champion beside which it could serve: promote it")
		case canary != 0:
			return refuse("v%d is canary: promote it, or roll it back first", canary)
		case unapproved(l):
			return refuse("%s proposed it, and the kind's approval is %s: somebody else must let it decide", in.By, Two)
		}
		w.move(v, Canary, w.policy.steps()[0], in.By, in.Why, e)
	case in.Verb == OrderRetire && is(Candidate, Shadow):
		w.move(v, Retired, 0, in.By, in.Why, e)
	default:
		return refuse("it is %s", stage)
	}
	return nil
}

// settle: a version that leaves retirement is not what a rollback goes back to.
func (w *work) settle(v int) {
	if w.state.Previous == v {
		w.state.Previous = 0
	}
}
