package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// DomainOverrides is that of signatures on lists of overrides.
const DomainOverrides = "riskweir override list 1"

// ErrOverrides says that a list of overrides may not be used.
var ErrOverrides = errors.New("override list refused")

// Bounds of a kind's list: it is one value of MODELS, and scorers hold it in memory.
const (
	MaxOverrides      = 5000
	MaxOverrideReason = 200 // bytes
)

// Override says what is decided for an entity, whatever its scores are.
type Override struct {
	Entity string    `json:"entity"`
	List   string    `json:"list"` // events.Allow or events.Deny
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`             // it was put on the list
	Until  time.Time `json:"until,omitzero"` // events stored from then on are not decided by it; zero: for good
}

// Holds for an event that was stored at t: by the stream's clock, never by a scorer's.
func (o *Override) Holds(t time.Time) bool { return o.Until.IsZero() || t.Before(o.Until) }

// Overrides is the list of a kind. It is not changed once a scorer holds it.
//
//	Entries ascend by Entity, each once
type Overrides struct {
	Kind      string     `json:"kind"`
	Entries   []Override `json:"entries"`
	Signature *Signature `json:"signature,omitempty"`
}

// OverridesKey of a kind in MODELS.
func OverridesKey(kind string) string { return kind + overridesSuffix }

const overridesSuffix = ".overrides"

// Validate returns all that is wrong with the list, joined.
func (l *Overrides) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if err := events.CheckKind(l.Kind); err != nil {
		errs = append(errs, err)
	}
	if len(l.Entries) > MaxOverrides {
		bad("%d entries: want at most %d: a rule for so many belongs into a field of the events", len(l.Entries), MaxOverrides)
	}
	for i, o := range l.Entries {
		if o.Entity == "" || len(o.Entity) > events.MaxIDBytes {
			bad("entity %q: want 1 to %d bytes", o.Entity, events.MaxIDBytes)
		}
		if i > 0 && l.Entries[i-1].Entity >= o.Entity {
			bad("entity %q behind %q: want them ascending, each once", o.Entity, l.Entries[i-1].Entity)
		}
		if o.List != events.Allow && o.List != events.Deny {
			bad("entity %q: list %q: want %s or %s", o.Entity, o.List, events.Allow, events.Deny)
		}
		if len(o.Reason) > MaxOverrideReason || strings.ContainsFunc(o.Reason, unicode.IsControl) {
			bad("entity %q: reason: want one line of at most %d bytes", o.Entity, MaxOverrideReason)
		}
		if len(errs) > 10 {
			break
		}
	}
	return errors.Join(errs...)
}

func (l *Overrides) canonical() ([]byte, error) {
	c := *l
	c.Signature = nil
	return marshal(&c)
}

// encode signs the list, if there is a signer.
func (l *Overrides) encode(s *Signer) ([]byte, error) {
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOverrides, err)
	}
	if l.Signature = nil; s != nil {
		body, err := l.canonical()
		if err != nil {
			return nil, err
		}
		sig, err := s.Sign(DomainOverrides, body)
		if err != nil {
			return nil, err
		}
		l.Signature = &sig
	}
	compact, err := marshal(l)
	if err != nil {
		return nil, err
	}
	body := layOut(compact)
	if len(body) > MaxArtifact {
		return nil, fmt.Errorf("%w: %d entries make %d bytes, and MODELS holds at most %d", ErrOverrides, len(l.Entries), len(body), MaxArtifact)
	}
	return body, nil
}

// decodeOverrides reads the list of a kind. Any error is an ErrOverrides, and an ErrUntrusted where it is not what a trusted key signed.
func decodeOverrides(kind string, body []byte, trust *Trust) (*Overrides, error) {
	var l Overrides
	err := strict(body, &l)
	if err == nil {
		err = l.Validate()
	}
	if err == nil && l.Kind != kind {
		err = fmt.Errorf("it says that it is of %s", l.Kind)
	}
	if err == nil && trust != nil {
		var signed []byte
		if signed, err = l.canonical(); err == nil {
			err = trust.Verify(DomainOverrides, signed, l.Signature)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOverrides, err)
	}
	return &l, nil
}

// Put replaces or adds an entry.
func (l *Overrides) Put(o Override) {
	i, found := l.find(o.Entity)
	if found {
		l.Entries[i] = o
		return
	}
	l.Entries = slices.Insert(l.Entries, i, o)
}

// Remove is false if the entity is not on the list.
func (l *Overrides) Remove(entity string) bool {
	i, found := l.find(entity)
	if found {
		l.Entries = slices.Delete(l.Entries, i, i+1)
	}
	return found
}

// Of returns the entry of an entity, or nil.
func (l *Overrides) Of(entity string) *Override {
	if i, found := l.find(entity); found {
		return &l.Entries[i]
	}
	return nil
}

func (l *Overrides) find(entity string) (int, bool) {
	return slices.BinarySearchFunc(l.Entries, entity, func(o Override, e string) int { return strings.Compare(o.Entity, e) })
}

// Overrides returns the list of a kind and its revision in MODELS; without one it is empty, at revision 0 or that of its deletion.
func (r *Registry) Overrides(ctx context.Context, kind string) (*Overrides, uint64, error) {
	entry, err := r.get(ctx, OverridesKey(kind))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return &Overrides{Kind: kind, Entries: []Override{}}, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s from %s: %w", OverridesKey(kind), r.kv.Bucket(), err)
	}
	l, err := decodeOverrides(kind, entry.Value(), r.trust)
	if err != nil {
		return nil, entry.Revision(), fmt.Errorf("%s at revision %d: %w", OverridesKey(kind), entry.Revision(), err)
	}
	return l, entry.Revision(), nil
}

// OverridesAt returns the list as it was at a revision that a score names. MODELS keeps the last 64 of a kind: older ones are ErrNoVersion.
func (r *Registry) OverridesAt(ctx context.Context, kind string, revision uint64) (*Overrides, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	entry, err := r.kv.GetRevision(ctx, OverridesKey(kind), revision)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, fmt.Errorf("%s at revision %d: %w", OverridesKey(kind), revision, ErrNoVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s at revision %d: %w", OverridesKey(kind), revision, err)
	}
	return decodeOverrides(kind, entry.Value(), nil) // what scorers took then was looked at then
}

// ChangeOverrides replaces the list of a kind by what edit makes of it, in one compare-and-swap upon what edit was given; edit may be called again
// where somebody else was faster. It returns the list before, the new one and its revision. A list that may not be used is not edited.
func (r *Registry) ChangeOverrides(ctx context.Context, kind string, edit func(*Overrides) error) (before, now *Overrides, revision uint64, err error) {
	for attempt := 1; ; attempt++ {
		before, revision, err = r.Overrides(ctx, kind)
		if err != nil {
			return nil, nil, 0, err
		}
		next := &Overrides{Kind: kind, Entries: slices.Clone(before.Entries)}
		if err := edit(next); err != nil {
			return before, nil, revision, err
		}
		body, err := next.encode(r.signer)
		if err != nil {
			return before, nil, revision, fmt.Errorf("set %s: %w", OverridesKey(kind), err)
		}
		key, was := OverridesKey(kind), revision
		revision, err = r.swap(ctx, key, body, func(ctx context.Context) (uint64, error) {
			if was == 0 {
				return r.kv.Create(ctx, key, body) // also where it was deleted
			}
			return r.kv.Update(ctx, key, body, was)
		}, was)
		switch {
		case err == nil:
			return before, next, revision, nil
		case errors.Is(err, errSwapLost) && attempt < attempts:
			continue
		case errors.Is(err, errSwapLost):
			return before, nil, was, fmt.Errorf("set %s: %w", key, ErrConflict)
		}
		return before, nil, was, fmt.Errorf("set %s: %w", key, err)
	}
}

// OverrideChange is one revision of a kind's lists.
type OverrideChange struct {
	Revision uint64    `json:"revision"`
	Stored   time.Time `json:"stored"`
	Changes  []string  `json:"changes"` // for people, a line each
}

// OverrideHistory is what changed, ascending, as far back as MODELS keeps it.
func (r *Registry) OverrideHistory(ctx context.Context, kind string) ([]OverrideChange, error) {
	if err := events.CheckKind(kind); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*attemptTimeout)
	defer cancel()
	entries, err := r.kv.History(ctx, OverridesKey(kind))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history of %s: %w", OverridesKey(kind), err)
	}
	var out []OverrideChange
	before := &Overrides{Kind: kind}
	for i, e := range entries {
		c := OverrideChange{Revision: e.Revision(), Stored: e.Created(), Changes: []string{}}
		now, err := &Overrides{Kind: kind}, error(nil)
		if e.Operation() == jetstream.KeyValuePut {
			now, err = decodeOverrides(kind, e.Value(), r.trust)
		}
		switch {
		case err != nil:
			c.Changes = append(c.Changes, "scorers passed it over: "+err.Error())
		case i == 0 && len(entries) == keptHistory:
			c.Changes = append(c.Changes, fmt.Sprintf("%d entities are on it; what was before is no longer kept", len(now.Entries)))
		default:
			c.Changes = append(c.Changes, changed(before, now)...)
		}
		if err == nil {
			before = now
		}
		out = append(out, c)
	}
	return out, nil
}

// keptHistory is how many revisions of a key MODELS keeps (jetstream/models.json).
const keptHistory = 64

func changed(before, now *Overrides) []string {
	var out []string
	for _, o := range now.Entries {
		if was := before.Of(o.Entity); was == nil || *was != o {
			until := ""
			if !o.Until.IsZero() {
				until = ", until " + o.Until.Format(time.RFC3339)
			}
			out = append(out, fmt.Sprintf("%s %s, by %s: %s%s", o.List, o.Entity, o.By, o.Reason, until))
		}
	}
	for _, o := range before.Entries {
		if now.Of(o.Entity) == nil {
			out = append(out, fmt.Sprintf("%s is on no list any more", o.Entity))
		}
	}
	return out
}
