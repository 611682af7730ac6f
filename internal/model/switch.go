package model

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

var (
	// ErrNothingBefore says that a rollback cannot tell what to go back to.
	ErrNothingBefore = errors.New("no version to go back to")
	// ErrUnfit says that a version is sound, and cannot score what the contract declares.
	ErrUnfit = errors.New("the version does not fit the declared contract")
)

// Switch asks for another champion.
type Switch struct {
	Schema *events.Schema // of the contract that is declared, which the version must fit
	By     string
	Reason string
}

// Switched is what a switch came to.
type Switched struct {
	Before   Rollout // zero: there was no record, or none that could be read
	Now      Rollout
	Revision uint64 // of Now
	Changed  bool   // false: the version was the champion already
}

// PromoteFit makes a version the champion if the policy of the contract allows it. It must be there, and fit the schema: what no scorer would
// take is refused before anything is written; the replica that is asked gets a second to learn of one just published. Promoting the champion changes
// nothing. A record that was edited into nonsense is replaced, upon the last one that was none.
func (r *Registry) PromoteFit(ctx context.Context, s Switch, version int) (Switched, error) {
	return r.Order(ctx, s, rollout.OrderPromote, version)
}

// Order carries out an order of a person: what PromoteFit is told of promotion holds for the other verbs. It returns rollout.ErrOrder
// where the state of the version does not allow it.
func (r *Registry) Order(ctx context.Context, s Switch, verb rollout.Verb, version int) (Switched, error) {
	o := rollout.Order{Verb: verb, Version: version, By: s.By, Why: s.Reason}
	done, err := r.order(ctx, s.Schema.Contract.Kind, PolicyOf(&s.Schema.Contract), s.fits, func(Rollout, uint64, error) (rollout.Order, error) { return o, nil })
	if err != nil {
		return done, fmt.Errorf("%s: %w", verb, err)
	}
	return done, nil
}

// Rollback makes an earlier version the champion again: the given one, or, for 0, the champion before. A canary that is given is taken out. It returns
// ErrNothingBefore where that is not known: for the first champion, and after a rollback, so that one typed twice does not bring the bad
// version back.
func (r *Registry) Rollback(ctx context.Context, s Switch, to int) (Switched, error) {
	kind := s.Schema.Contract.Kind
	done, err := r.order(ctx, kind, PolicyOf(&s.Schema.Contract), s.fits, func(current Rollout, revision uint64, unread error) (rollout.Order, error) {
		o := rollout.Order{Verb: rollout.OrderRollback, Version: current.Champion, To: to, By: s.By, Why: s.Reason}
		switch {
		case to == 0 && unread != nil:
			return o, fmt.Errorf("%w: %w", ErrNothingBefore, unread)
		case to != 0 && (unread != nil || current.Champion == 0):
			o.Verb, o.Version, o.To = rollout.OrderPromote, to, 0
		case to != 0 && current.Canary != nil && current.Canary.Version == to:
			o.Version, o.To = to, 0
		case to != 0:
		case current.Champion == 0:
			return o, fmt.Errorf("%w: %s has no champion", ErrNothingBefore, kind)
		case current.Previous == 0:
			return o, fmt.Errorf("%w: %s is in force since revision %d, and no champion before it is known", ErrNothingBefore, Name(kind, current.Champion), revision)
		default:
			o.To = current.Previous
		}
		return o, nil
	})
	if err != nil {
		return done, fmt.Errorf("roll back: %w", err)
	}
	return done, nil
}

func (s Switch) fits(a *Artifact) error {
	if _, err := Compile(a, s.Schema); err != nil {
		return fmt.Errorf("%w, it was trained under version %d: %w", ErrUnfit, a.Contract.Version, err)
	}
	return nil
}

// serves is the version that an order lets score, of which it must be known that it can; 0: none.
func serves(o rollout.Order) int {
	switch o.Verb {
	case rollout.OrderPromote, rollout.OrderShadow, rollout.OrderCanary:
		return o.Version
	case rollout.OrderRollback:
		return o.To
	}
	return 0
}

// order carries out the order that choose makes of the record there is. Where the record is changed meanwhile it is decided again, unless
// another version has become champion: whoever gave the order did not know that, and is told with an ErrConflict.
func (r *Registry) order(ctx context.Context, kind string, p rollout.Policy, fits func(*Artifact) error, choose func(current Rollout, revision uint64, unread error) (rollout.Order, error)) (Switched, error) {
	current, revision, unread := r.Rollout(ctx, kind)
	if unread != nil && !errors.Is(unread, ErrRollout) {
		return Switched{}, unread
	}
	first := Switched{Before: current, Now: current, Revision: revision}
	o, err := choose(current, revision, unread)
	if err != nil {
		return first, err
	}
	named := map[int]*Artifact{} // that the order names, and are there
	for _, v := range []int{serves(o), o.Version} {
		if v == 0 || named[v] != nil {
			continue
		}
		a, err := r.Get(ctx, kind, v)
		for attempt := 1; attempt < attempts && errors.Is(err, ErrNoVersion) && pause(ctx, time.Duration(attempt)*retryWait); attempt++ {
			a, err = r.Get(ctx, kind, v)
		}
		if err == nil && v == serves(o) {
			err = fits(a)
		}
		if v != serves(o) && (errors.Is(err, ErrNoVersion) || errors.Is(err, ErrArtifact)) {
			continue // what is to be stopped need not be sound
		}
		if err != nil {
			return first, err
		}
		named[v] = a
	}
	if current.Champion != 0 && serves(o) == current.Champion && (o.Verb == rollout.OrderPromote || o.Verb == rollout.OrderRollback) {
		return first, nil
	}
	for attempt := 0; ; attempt++ {
		state := current.State()
		if unread != nil {
			if state, err = r.lastGood(ctx, kind, serves(o)); err != nil {
				return first, err
			}
		}
		for _, v := range slices.Sorted(maps.Keys(named)) { // what the record does not know is a candidate
			if state.Of(v) == nil {
				state.Lives = append(state.Lives, rollout.Life{Version: v, Stage: rollout.Candidate, Since: named[v].Created, By: []string{named[v].CreatedBy}})
			}
		}
		slices.SortFunc(state.Lives, func(a, b rollout.Life) int { return a.Version - b.Version })
		done, err := r.decide(ctx, kind, p, current, state, revision, o)
		if !errors.Is(err, ErrConflict) || attempt == conflicts {
			return done, err
		}
		champion := current.Champion
		if current, revision, unread = r.Rollout(ctx, kind); unread != nil || current.Champion != champion {
			return first, err
		}
	}
}

// conflicts are how many times what lost to another change is decided again.
const conflicts = 8

// lastGood is the state of the last record that was none of nonsense, for an order upon one that is. If the version is already champion
// there, it is another one again.
func (r *Registry) lastGood(ctx context.Context, kind string, version int) (rollout.State, error) {
	records, err := r.History(ctx, kind)
	if err != nil {
		return rollout.State{}, err
	}
	for _, x := range slices.Backward(records) {
		if x.Err == nil && !x.Deleted {
			s := x.Rollout.State()
			if s.Champion() == version {
				s.Of(version).Stage = rollout.Retired
			}
			if c := s.Canary(); c != 0 { // of which nobody knows any more how it fared
				l := s.Of(c)
				l.Stage, l.Share = rollout.RolledBack, 0
			}
			return s, nil
		}
	}
	return rollout.State{}, nil
}

// Take puts an input that is no person's to the policy upon the record of a kind, and stores what it decides, until nothing has come between.
// What it returns as Changed is that something was decided; a changed verdict alone is stored without a decision.
func (r *Registry) Take(ctx context.Context, kind string, p rollout.Policy, in rollout.Input) (Switched, error) {
	for attempt := 0; ; attempt++ {
		current, revision, err := r.Rollout(ctx, kind)
		if err != nil { // also one that was edited into nonsense: somebody is at it, who will not want it overwritten
			return Switched{}, err
		}
		done, err := r.decide(ctx, kind, p, current, current.State(), revision, in)
		if !errors.Is(err, ErrConflict) || attempt == conflicts {
			return done, err
		}
	}
}

// decide is one step of the policy and, if it decides anything, one compare-and-swap. If we die before it nothing has happened, and after it all
// has: whoever comes next reads the record.
func (r *Registry) decide(ctx context.Context, kind string, p rollout.Policy, current Rollout, state rollout.State, revision uint64, in rollout.Input) (Switched, error) {
	unchanged := Switched{Before: current, Now: current, Revision: revision}
	now := time.Now()
	next, decisions, err := p.Step(state, in, now)
	if err != nil {
		return unchanged, err
	}
	if len(decisions) == 0 && samePassed(state, next) {
		return unchanged, nil
	}
	record, err := recordOf(next, decisions, now)
	if err != nil {
		return unchanged, err
	}
	if len(decisions) == 0 {
		record.UpdatedBy, record.Reason = rollout.Gate, "what the gates have seen"
	}
	newRevision, err := r.SetRollout(ctx, kind, record, revision)
	if err != nil {
		return unchanged, err
	}
	return Switched{Before: current, Now: record, Revision: newRevision, Changed: true}, nil
}

// samePassed says that no gate's verdict has changed, which is what is worth a new record beside decisions.
func samePassed(a, b rollout.State) bool {
	return slices.EqualFunc(a.Lives, b.Lives, func(x, y rollout.Life) bool { return x.Version == y.Version && x.Passed == y.Passed })
}

// Record is one revision of a kind's rollout record, as MODELS keeps it.
type Record struct {
	Revision uint64
	Stored   time.Time
	Deleted  bool
	Rollout  Rollout
	Err      error  // why Rollout, which is empty then, may not serve; an ErrRollout
	PutBack  uint64 // the earlier revision that had the same bytes: 'nats kv revert' writes such; 0: none
	body     []byte
}

// History of the rollout record of a kind, ascending, as far back as the bucket keeps it.
func (r *Registry) History(ctx context.Context, kind string) ([]Record, error) {
	if err := events.CheckKind(kind); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*attemptTimeout)
	defer cancel()
	entries, err := r.kv.History(ctx, RolloutKey(kind))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", RolloutKey(kind), err)
	}
	var records []Record
	for _, e := range entries {
		rec := Record{Revision: e.Revision(), Stored: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut, body: e.Value()}
		if !rec.Deleted {
			rec.Rollout, rec.Err = DecodeRollout(e.Value())
		}
		records = append(records, rec)
	}
	return putBack(records), nil
}

// ParseVersion reads v3, 3, v000003 or, of that kind, payment.v000003.
func ParseVersion(kind, text string) (int, error) {
	if k, v, err := ParseName(text); err == nil {
		if k != kind {
			return 0, fmt.Errorf("version %q is one of %s, not of %s", text, k, kind)
		}
		return v, nil
	}
	v, digits := 0, strings.TrimPrefix(text, "v")
	for _, c := range digits {
		if c < '0' || c > '9' || v > MaxVersion {
			v = 0
			break
		}
		v = 10*v + int(c-'0')
	}
	if v < 1 || v > MaxVersion {
		return 0, fmt.Errorf("version %q: want one such as v3, from v1 to v%d", text, MaxVersion)
	}
	return v, nil
}
