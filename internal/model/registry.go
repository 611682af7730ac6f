package model

import (
	"bytes"
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
	ErrNoVersion = errors.New("no such model version")
	ErrRollout   = errors.New("rollout record refused")
	// ErrConflict says that the rollout record is not, or no longer, at the expected revision. Losing is ordinary:
	// read again and decide again.
	ErrConflict = errors.New("the rollout record was changed by someone else")
)

// RolloutKey of a kind in MODELS.
func RolloutKey(kind string) string { return kind + ".rollout" }

const rolloutSuffix = ".rollout"

// Registry holds the versions and rollout records of all kinds in the bucket MODELS.
//
// Every write is a compare-and-swap that is asked for until its outcome is known: an answer that got lost is told from a
// write that did not happen by writing again and reading what stands in the way.
type Registry struct {
	kv     jetstream.KeyValue
	signer *Signer // nil: Publish signs nothing
	trust  *Trust  // nil: Get looks at no signature
}

// NewRegistry signs nothing, and looks at no signature.
func NewRegistry(kv jetstream.KeyValue) *Registry { return &Registry{kv: kv} }

// Keyed is the registry with keys: Publish signs with signer, and Get refuses what trust does not verify. Either may be nil.
func (r *Registry) Keyed(signer *Signer, trust *Trust) *Registry {
	return &Registry{kv: r.kv, signer: signer, trust: trust}
}

const (
	attemptTimeout = 3 * time.Second        // of one request
	attempts       = 5                      // of one write
	retryWait      = 100 * time.Millisecond // times the number of the attempt
)

// Publish stores the artifact under the next free version of its kind, which it returns. A version whose artifact was
// deleted is not free: scores may name it. Two trainers that race get two versions. If an answer got lost and the read
// that followed came from a replica behind, the same weights may stand under two versions; never two under one.
func (r *Registry) Publish(ctx context.Context, a *Artifact) (version int, err error) {
	c := *a
	entries, err := r.list(ctx, a.Kind)
	if err != nil {
		return 0, fmt.Errorf("publish a model of %s: %w", a.Kind, err)
	}
	c.Version = 1
	if n := len(entries); n > 0 {
		c.Version = entries[n-1].Version + 1
	}
	for ; c.Version <= MaxVersion; c.Version++ {
		if c.Signature = nil; r.signer != nil {
			if err := c.Sign(r.signer); err != nil {
				return 0, fmt.Errorf("publish: %w", err)
			}
		}
		body, err := c.Encode()
		if err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
		_, err = r.swap(ctx, c.Name(), body, func(ctx context.Context) (uint64, error) {
			return r.kv.Update(ctx, c.Name(), body, 0) // not Create, which would take a deleted version's place
		}, 0)
		if err == nil {
			return c.Version, nil
		}
		if !errors.Is(err, errSwapLost) {
			return 0, fmt.Errorf("publish %s: %w", c.Name(), err)
		}
	}
	return 0, fmt.Errorf("publish a model of %s: version %d is the last that its key can hold", a.Kind, MaxVersion)
}

// PublishFit is Publish for an artifact that must fit the schema of the contract that is declared: one that reads what the contract protects, does not
// name, or has under another type, becomes no version. One without reason codes gets those of the contract.
func (r *Registry) PublishFit(ctx context.Context, schema *events.Schema, a *Artifact) (version int, err error) {
	if err := (Switch{Schema: schema}).fits(a); err != nil {
		return 0, fmt.Errorf("publish a model of %s: %w", a.Kind, err)
	}
	c := *a
	if c.Codes == nil {
		c.Codes = reasonCodes(a, schema)
	}
	return r.Publish(ctx, &c)
}

// errSwapLost: something else stands at the key, at another revision.
var errSwapLost = errors.New("another write came first")

// swap lets write store body at key until it is known whether it did. write must store only if the key's last revision is
// the given one. swap returns the revision of body also if an earlier attempt stored it without saying so; for that the
// body must be one that nobody else writes.
func (r *Registry) swap(ctx context.Context, key string, body []byte, write func(context.Context) (uint64, error), revision uint64) (uint64, error) {
	var last error
	for attempt := range attempts {
		if attempt > 0 && !pause(ctx, time.Duration(attempt)*retryWait) {
			break
		}
		rev, err := inTime(ctx, write)
		if err == nil {
			return rev, nil
		}
		last = err
		entry, readErr := r.get(ctx, key)
		switch {
		case readErr == nil && bytes.Equal(entry.Value(), body):
			return entry.Revision(), nil
		case readErr == nil && entry.Revision() > revision:
			return 0, errSwapLost
		}
		// Nothing new to be seen: not stored, or in flight, or the read was behind. The next attempt tells: were it
		// stored, the server would refuse it.
	}
	if errors.Is(last, jetstream.ErrKeyRevisionMismatch) || errors.Is(last, jetstream.ErrKeyExists) {
		return 0, errSwapLost // what stands there cannot be read: a deleted version
	}
	return 0, fmt.Errorf("write %s, of which it is not known whether it is stored: %w", key, last)
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func inTime(ctx context.Context, write func(context.Context) (uint64, error)) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return write(ctx)
}

func (r *Registry) get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return r.kv.Get(ctx, key)
}

// Get returns a version, or ErrNoVersion, or ErrArtifact if what is stored there may not serve; one that is not what a trusted
// key signed is an ErrUntrusted too. A replica behind may answer ErrNoVersion for a version just published.
func (r *Registry) Get(ctx context.Context, kind string, version int) (*Artifact, error) {
	a, _, err := r.stored(ctx, kind, version)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// stored is Get, with the revision.
func (r *Registry) stored(ctx context.Context, kind string, version int) (*Artifact, uint64, error) {
	name := Name(kind, version)
	entry, err := r.get(ctx, name)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, 0, fmt.Errorf("%s: %w", name, ErrNoVersion)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read %s from %s: %w", name, r.kv.Bucket(), err)
	}
	a, err := Decode(entry.Value())
	if err != nil {
		return nil, 0, fmt.Errorf("%s at revision %d: %w", name, entry.Revision(), err)
	}
	if a.Kind != kind || a.Version != version {
		return nil, 0, fmt.Errorf("%s at revision %d: %w: it says that it is %s", name, entry.Revision(), ErrArtifact, a.Name())
	}
	if err := a.Verify(r.trust); err != nil {
		return nil, 0, fmt.Errorf("%s at revision %d: %w: %w", name, entry.Revision(), ErrArtifact, err)
	}
	return a, entry.Revision(), nil
}

// Resign puts the signer's signature in the place of the one that a version has, and changes nothing else of it. It is false if the signature
// is the signer's already. Whoever signs what has no signature vouches for it. What is signed by a key that is not trusted is
// refused: it came from elsewhere.
func (r *Registry) Resign(ctx context.Context, kind string, version int) (bool, error) {
	if r.signer == nil {
		return false, errors.New("sign: no signing key is given")
	}
	trust, err := r.trust.With(r.signer)
	if err != nil {
		return false, err
	}
	a, revision, err := NewRegistry(r.kv).stored(ctx, kind, version)
	if err != nil {
		return false, fmt.Errorf("sign: %w", err)
	}
	if a.Signature != nil {
		if err := a.Verify(trust); err != nil {
			return false, fmt.Errorf("sign %s: %w: if you know where it is from, export it, look at it, and import it as a version of its own", a.Name(), err)
		}
		if a.Signature.Key == r.signer.Public() {
			return false, nil
		}
	}
	if err := a.Sign(r.signer); err != nil {
		return false, err
	}
	body, err := a.Encode()
	if err != nil {
		return false, fmt.Errorf("sign: %w", err)
	}
	_, err = r.swap(ctx, a.Name(), body, func(ctx context.Context) (uint64, error) {
		return r.kv.Update(ctx, a.Name(), body, revision)
	}, revision)
	if errors.Is(err, errSwapLost) {
		return false, fmt.Errorf("sign %s: somebody else wrote it meanwhile: look again", a.Name())
	}
	if err != nil {
		return false, fmt.Errorf("sign: %w", err)
	}
	return true, nil
}

// Entry of a list of versions.
type Entry struct {
	Version  int
	Revision uint64
	Stored   time.Time
	Deleted  bool
}

// List returns the versions of a kind, ascending, without those deleted.
func (r *Registry) List(ctx context.Context, kind string) ([]Entry, error) {
	all, err := r.list(ctx, kind)
	if err != nil {
		return nil, fmt.Errorf("list the models of %s: %w", kind, err)
	}
	var stored []Entry
	for _, e := range all {
		if !e.Deleted {
			stored = append(stored, e)
		}
	}
	return stored, nil
}

func (r *Registry) list(ctx context.Context, kind string) ([]Entry, error) {
	if err := events.CheckKind(kind); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*attemptTimeout)
	defer cancel()
	watch, err := r.kv.Watch(ctx, kind+".*", jetstream.MetaOnly())
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", r.kv.Bucket(), err)
	}
	defer EndWatch(watch)
	byVersion := map[int]Entry{}
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("read the keys of %s: %w", r.kv.Bucket(), context.Cause(ctx))
		case e, ok := <-watch.Updates():
			if !ok {
				return nil, fmt.Errorf("read the keys of %s: the watch ended", r.kv.Bucket())
			}
			if e == nil {
				return slices.SortedFunc(maps.Values(byVersion), func(a, b Entry) int { return a.Version - b.Version }), nil
			}
			if k, v, err := ParseName(e.Key()); err == nil && k == kind {
				byVersion[v] = Entry{Version: v, Revision: e.Revision(), Stored: e.Created(), Deleted: e.Operation() != jetstream.KeyValuePut}
			}
		}
	}
}

// Rollout returns the record of a kind and its revision. Without a record both are zero. A record that may not serve is
// an ErrRollout, returned with its revision.
func (r *Registry) Rollout(ctx context.Context, kind string) (Rollout, uint64, error) {
	entry, err := r.get(ctx, RolloutKey(kind))
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return Rollout{}, 0, nil
	}
	if err != nil {
		return Rollout{}, 0, fmt.Errorf("read %s from %s: %w", RolloutKey(kind), r.kv.Bucket(), err)
	}
	record, err := DecodeRollout(entry.Value())
	if err != nil {
		return Rollout{}, entry.Revision(), fmt.Errorf("%s at revision %d: %w", RolloutKey(kind), entry.Revision(), err)
	}
	return record, entry.Revision(), nil
}

// SetRollout replaces the record of a kind if it is still at the given revision (0: there is none), and returns the new
// revision. ErrConflict says that it is not.
func (r *Registry) SetRollout(ctx context.Context, kind string, record Rollout, revision uint64) (uint64, error) {
	if err := record.Validate(); err != nil {
		return 0, fmt.Errorf("set %s: %w: %w", RolloutKey(kind), ErrRollout, err)
	}
	body, err := marshal(record)
	if err != nil {
		return 0, fmt.Errorf("set %s: %w", RolloutKey(kind), err)
	}
	key := RolloutKey(kind)
	rev, err := r.swap(ctx, key, body, func(ctx context.Context) (uint64, error) {
		if revision == 0 {
			return r.kv.Create(ctx, key, body) // also where the record was deleted
		}
		return r.kv.Update(ctx, key, body, revision)
	}, revision)
	switch {
	case errors.Is(err, errSwapLost):
		return 0, fmt.Errorf("set %s at revision %d: %w", RolloutKey(kind), revision, ErrConflict)
	case err != nil:
		return 0, fmt.Errorf("set %s: %w", RolloutKey(kind), err)
	}
	return rev, nil
}

// Promote makes a version the champion of its kind and returns the record and its revision, whoever proposed it and whether or not it fits a
// contract: who can say which contract is declared uses PromoteFit.
func (r *Registry) Promote(ctx context.Context, kind string, version int, by, reason string) (Rollout, uint64, error) {
	o := rollout.Order{Verb: rollout.OrderPromote, Version: version, By: by, Why: reason}
	done, err := r.order(ctx, kind, rollout.Policy{Approval: rollout.Solo}, func(*Artifact) error { return nil }, func(Rollout, uint64, error) (rollout.Order, error) { return o, nil })
	if err != nil {
		return done.Now, done.Revision, fmt.Errorf("promote: %w", err)
	}
	return done.Now, done.Revision, nil
}

// EndWatch ends a watch and reads what it still holds: its callback blocks, with its lock held, on a full channel.
func EndWatch(w jetstream.KeyWatcher) {
	// An error means that the subscription is gone already.
	_ = w.Stop()
	deadline := time.NewTimer(time.Second)
	defer deadline.Stop()
	for {
		select {
		case _, ok := <-w.Updates():
			if !ok {
				return
			}
		case <-deadline.C:
			return
		}
	}
}

func kindOfRollout(key string) (kind string, ok bool) {
	kind, ok = strings.CutSuffix(key, rolloutSuffix)
	return kind, ok && events.CheckKind(kind) == nil
}
