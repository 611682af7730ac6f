package model

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

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

// PromoteFit is Promote for a version that must also fit the schema: what no scorer would take is refused before anything
// is written.
func (r *Registry) PromoteFit(ctx context.Context, s Switch, version int) (Switched, error) {
	kind := s.Schema.Contract.Kind
	done, err := r.change(ctx, kind, s.By, s.Reason, s.fits, func(Rollout, uint64, error) (int, error) { return version, nil })
	if err != nil {
		return done, fmt.Errorf("promote: %w", err)
	}
	return done, nil
}

// Rollback makes an earlier version the champion again: the given one, or, for 0, the champion before. It returns
// ErrNothingBefore where that is not a step back: for the first champion, and where the champion before is the newer version, so that a
// rollback typed twice does not bring the bad version back.
func (r *Registry) Rollback(ctx context.Context, s Switch, to int) (Switched, error) {
	kind := s.Schema.Contract.Kind
	done, err := r.change(ctx, kind, s.By, s.Reason, s.fits, func(current Rollout, revision uint64, unread error) (int, error) {
		switch {
		case to != 0:
			return to, nil
		case unread != nil:
			return 0, fmt.Errorf("%w: %w", ErrNothingBefore, unread)
		case current.Champion == 0:
			return 0, fmt.Errorf("%w: %s has no champion", ErrNothingBefore, kind)
		case current.Previous == 0:
			return 0, fmt.Errorf("%w: %s is the first champion", ErrNothingBefore, Name(kind, current.Champion))
		case current.Previous > current.Champion:
			return 0, fmt.Errorf("%w: %s is in force since revision %d in place of the newer %s", ErrNothingBefore,
				Name(kind, current.Champion), revision, Name(kind, current.Previous))
		}
		return current.Previous, nil
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

// change makes the version that choose names the champion, in one compare-and-swap upon the record that choose was given. The version must be
// there and fit to serve; the replica that is asked gets a second to learn of one just published.
func (r *Registry) change(ctx context.Context, kind, by, reason string, fits func(*Artifact) error, choose func(current Rollout, revision uint64, unread error) (int, error)) (Switched, error) {
	current, revision, unread := r.Rollout(ctx, kind)
	if unread != nil && !errors.Is(unread, ErrRollout) {
		return Switched{}, unread
	}
	unchanged := Switched{Before: current, Now: current, Revision: revision}
	version, err := choose(current, revision, unread)
	if err != nil {
		return unchanged, err
	}
	a, err := r.Get(ctx, kind, version)
	for attempt := 1; attempt < attempts && errors.Is(err, ErrNoVersion) && pause(ctx, time.Duration(attempt)*retryWait); attempt++ {
		a, err = r.Get(ctx, kind, version)
	}
	if err != nil {
		return unchanged, err
	}
	if err := fits(a); err != nil {
		return unchanged, err
	}
	if current.Champion == version {
		return unchanged, nil
	}
	next := current.Promoted(version, by, reason, time.Now())
	newRevision, err := r.SetRollout(ctx, kind, next, revision)
	if err != nil {
		return unchanged, fmt.Errorf("%s: %w", Name(kind, version), err)
	}
	return Switched{Before: current, Now: next, Revision: newRevision, Changed: true}, nil
}

// Record is one revision of a kind's rollout record, as MODELS keeps it.
type Record struct {
	Revision uint64
	Stored   time.Time
	Deleted  bool
	Rollout  Rollout
	Err      error  // why Rollout, which is empty then, may not serve; an ErrRollout
	PutBack  uint64 // the earlier revision that had the same bytes: 'nats kv revert' writes such; 0: none
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
	for i, e := range entries {
		rec := Record{Revision: e.Revision(), Stored: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut}
		if !rec.Deleted {
			rec.Rollout, rec.Err = DecodeRollout(e.Value())
			for _, earlier := range entries[:i] {
				if earlier.Operation() == jetstream.KeyValuePut && bytes.Equal(earlier.Value(), e.Value()) {
					rec.PutBack = earlier.Revision()
				}
			}
		}
		records = append(records, rec)
	}
	return records, nil
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
