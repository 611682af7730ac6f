package model

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

// Canary gives a version a share of the entities: those of rollout.Share.
type Canary struct {
	Version int     `json:"version"`
	Share   float64 `json:"share"` // of entities, 0 to 1
}

// Rollout says which versions of a kind serve. It is changed by compare-and-swap only. Which record is newer is told
// by its revision in MODELS: an older version number at a newer revision is a rollback.
//
// What scorers need stands first. Lives are the same in full; a record that was written by hand, or before there were any, has none, and
// they follow from the rest.
//
//	Champion, Previous, Shadow and Canary are those of Lives, if there are any
//	Champion = 0  =>  Decisions: no version has come so far yet
type Rollout struct {
	Champion  int       `json:"champion"`
	Previous  int       `json:"previous,omitempty"` // the champion before
	Shadow    []int     `json:"shadow,omitempty"`
	Canary    *Canary   `json:"canary,omitempty"`
	UpdatedBy string    `json:"updated_by"`
	Reason    string    `json:"reason"`
	At        time.Time `json:"at"`

	Lives     []rollout.Life `json:"lives,omitempty"`     // all that serve, and the newest of the others
	Decisions []Decision     `json:"decisions,omitempty"` // that made this record of the one before
}

// Decision with the hash of its evidence, which approvals and reports name.
type Decision struct {
	rollout.Decision
	Hash string `json:"evidence_hash"` // see rollout.Evidence.Hash
}

// keptLives is how many lives that are over, or have not begun, a record holds: some 200 bytes each.
const keptLives = 50

func (r Rollout) Validate() error {
	var errs []error
	version := func(what string, v int) {
		if v < 1 || v > MaxVersion {
			errs = append(errs, fmt.Errorf("%s %d: want a version from 1 to %d", what, v, MaxVersion))
		}
	}
	if r.Champion != 0 || len(r.Decisions) == 0 {
		version("champion", r.Champion)
	}
	if r.Previous != 0 {
		version("previous", r.Previous)
	}
	for _, v := range r.Shadow {
		version("shadow", v)
	}
	if r.Canary != nil {
		version("canary", r.Canary.Version)
		if !(r.Canary.Share >= 0 && r.Canary.Share <= 1) {
			errs = append(errs, fmt.Errorf("canary share %v: want 0 to 1", r.Canary.Share))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return r.agrees()
}

// agrees says whether what scorers read is what the lives say.
func (r Rollout) agrees() error {
	state := r.State()
	if len(r.Lives) > 0 {
		if err := state.Validate(); err != nil {
			return fmt.Errorf("lives: %w", err)
		}
	}
	told := Rollout{}
	told.summarise(state)
	shadows := slices.Sorted(slices.Values(r.Shadow))
	canary := func(c *Canary) Canary {
		if c == nil {
			return Canary{}
		}
		return *c
	}
	if told.Champion != r.Champion || told.Previous != r.Previous || !slices.Equal(told.Shadow, shadows) || canary(told.Canary) != canary(r.Canary) {
		return fmt.Errorf("champion %d, previous %d, shadow %v, canary %+v do not agree with each other or with the lives, which say champion %d, previous %d, shadow %v, canary %+v",
			r.Champion, r.Previous, r.Shadow, canary(r.Canary), told.Champion, told.Previous, told.Shadow, canary(told.Canary))
	}
	return nil
}

// summarise sets what scorers need.
func (r *Rollout) summarise(s rollout.State) {
	r.Champion, r.Previous, r.Shadow, r.Canary = s.Champion(), s.Previous, s.In(rollout.Shadow), nil
	if v := s.Canary(); v != 0 {
		r.Canary = &Canary{Version: v, Share: s.Of(v).Share}
	}
}

// State that the record holds.
func (r Rollout) State() rollout.State {
	if len(r.Lives) > 0 {
		return rollout.State{Lives: slices.Clone(r.Lives), Previous: r.Previous}
	}
	var s rollout.State
	add := func(version int, stage rollout.Stage, share float64) {
		if version == 0 || s.Of(version) != nil {
			return
		}
		served := stage == rollout.Champion || stage == rollout.Retired
		s.Lives = append(s.Lives, rollout.Life{Version: version, Stage: stage, Share: share, Since: r.At, Served: served})
	}
	add(r.Champion, rollout.Champion, 0)
	if r.Previous != r.Champion {
		add(r.Previous, rollout.Retired, 0)
		s.Previous = r.Previous
	}
	if r.Canary != nil && r.Canary.Share > 0 {
		add(r.Canary.Version, rollout.Canary, r.Canary.Share)
	}
	for _, v := range r.Shadow {
		add(v, rollout.Shadow, 0)
	}
	slices.SortFunc(s.Lives, func(a, b rollout.Life) int { return a.Version - b.Version })
	return s
}

// recordOf a state, made by decisions. What they are summed up by is the last one that widened or narrowed what a version decides.
func recordOf(s rollout.State, decisions []rollout.Decision, at time.Time) (Rollout, error) {
	s = s.Bounded(keptLives)
	r := Rollout{Lives: s.Lives, At: at.UTC()}
	r.summarise(s)
	for _, d := range decisions {
		hash, err := d.Evidence.Hash()
		if err != nil {
			return r, err
		}
		r.Decisions = append(r.Decisions, Decision{d, hash})
		if d.From != "" || r.Reason == "" {
			r.UpdatedBy, r.Reason = d.By, d.Reason
		}
	}
	for _, d := range slices.Backward(decisions) { // of a switch: why, and not what followed from it
		if d.To == rollout.Champion && d.From != rollout.Retired && d.From != rollout.RolledBack || d.From == rollout.Champion && d.To == rollout.RolledBack {
			r.UpdatedBy, r.Reason = d.By, d.Reason
			break
		}
	}
	return r, nil
}

// DecodeRollout refuses unknown members and versions that cannot be.
func DecodeRollout(body []byte) (Rollout, error) {
	var r Rollout
	if err := strict(body, &r); err != nil {
		return Rollout{}, fmt.Errorf("%w: %w", ErrRollout, err)
	}
	if err := r.Validate(); err != nil {
		return Rollout{}, fmt.Errorf("%w: %w", ErrRollout, err)
	}
	return r, nil
}

// PolicyOf a contract. A contract that says nothing has the strict one: people promote, and never their own.
func PolicyOf(c *events.Contract) rollout.Policy {
	if c.Rollout == nil {
		c = &events.Contract{Rollout: &events.Rollout{}}
	}
	x := c.Rollout.WithDefaults()
	return rollout.Policy{
		Mode: rollout.Mode(x.Mode), Approval: rollout.Approval(x.Approval), Steps: x.Steps, MaxShadows: x.MaxShadows, Patience: time.Duration(x.Patience),
		AUCMargin: x.AUCMargin, MaxRatio: x.MaxRatio, MaxShift: x.MaxShift, MaxPSI: x.MaxPSI,
	}
}
