package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// Errors that a caller branches on.
var (
	// ErrPlan says that a plan holds a change that is refused: nothing was changed.
	ErrPlan = errors.New("topology change refused")
	// ErrRebase says that a lane's position is lost, or counts in another stream than there is now. The
	// lane must not run before `riskweir lane rebase` has said where it goes on.
	ErrRebase = errors.New("lane position")
)

// Options of Apply*.
type Options struct {
	Replicas int  // of every stream: 3 or 5, or 1 on a single node
	Shorten  bool // let limits of age, count and size be tightened, which deletes what they no longer cover

	// Reads tells which fields a kind's models read that serve, or may be switched to without training:
	// events.Compatible asks before a stored contract is replaced. nil, or a nil answer: there is none.
	Reads func(ctx context.Context, kind string) (func(field string) bool, error)
}

// A cluster that has just started, or just lost a leader, answers so for a while.
const (
	codeNoSuitablePeers = 10005
	codeNotAvailable    = 10008
	codeNotLeader       = 10009

	transientPause  = 250 * time.Millisecond
	transientBudget = 30 * time.Second // an election takes 4 to 9 s
	tryTimeout      = 3 * time.Second
)

// Have reads the configs of those of the named streams that exist.
func Have(ctx context.Context, js natsjs.JetStream, names []string) ([]natsjs.StreamConfig, error) {
	var out []natsjs.StreamConfig
	for _, name := range names {
		info, err := streamInfo(ctx, js, name)
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info.Config)
	}
	return out, nil
}

func streamInfo(ctx context.Context, js natsjs.JetStream, name string) (*natsjs.StreamInfo, error) {
	var s natsjs.Stream
	err := patiently(ctx, func(ctx context.Context) (err error) {
		s, err = js.Stream(ctx, name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topology: read stream %s: %w", name, err)
	}
	return s.CachedInfo(), nil
}

// Apply makes the changes in order, or none if one of them is refused. It may be repeated after a failure.
func Apply(ctx context.Context, js natsjs.JetStream, changes []Change) error {
	var refused []error
	for _, c := range changes {
		if c.Action == Refuse {
			refused = append(refused, fmt.Errorf("%w: stream %s: %s", ErrPlan, c.Stream, c.Reason))
		}
	}
	if len(refused) > 0 {
		return errors.Join(refused...)
	}
	for _, c := range changes {
		err := patiently(ctx, func(ctx context.Context) (err error) {
			if c.Action == Create {
				_, err = js.CreateStream(ctx, c.Want)
			} else {
				_, err = js.UpdateStream(ctx, c.Want)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("topology: %s stream %s: %w", c.Action, c.Stream, err)
		}
	}
	return nil
}

// patiently repeats a reading, or a write that may be made twice, while the cluster says that it has no leader
// or peers yet, or says nothing: a request that comes before there is a leader is never answered.
func patiently(ctx context.Context, f func(context.Context) error) error {
	return persist(ctx, transient, f)
}

func persist(ctx context.Context, again func(error) bool, f func(context.Context) error) error {
	deadline := time.Now().Add(transientBudget)
	for {
		try, cancel := context.WithTimeout(ctx, tryTimeout)
		err := f(try)
		cancel()
		if err == nil || ctx.Err() != nil || !again(err) || time.Now().After(deadline) {
			return err
		}
		pause := time.NewTimer(transientPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return errors.Join(err, ctx.Err())
		case <-pause.C:
		}
	}
}

func transient(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) {
		return true
	}
	var api *natsjs.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case codeNoSuitablePeers, codeNotAvailable, codeNotLeader:
		return true
	}
	return false
}

// untaken says that nobody was there to take a message: it is stored nowhere and may be sent again. A bucket
// whose leader is on its way answers so.
func untaken(err error) bool {
	return errors.Is(err, nats.ErrNoResponders) || errors.Is(err, natsjs.ErrNoStreamResponse)
}

func plan(ctx context.Context, js natsjs.JetStream, want []natsjs.StreamConfig, shorten bool) ([]Change, error) {
	names := make([]string, len(want))
	for i, w := range want {
		names[i] = w.Name
	}
	have, err := Have(ctx, js, names)
	if err != nil {
		return nil, err
	}
	return Plan(have, want, shorten), nil
}

// PlanShared says what ApplyShared would do.
func PlanShared(ctx context.Context, js natsjs.JetStream, o Options) ([]Change, error) {
	want, err := Shared(o.Replicas)
	if err != nil {
		return nil, err
	}
	return plan(ctx, js, want, o.Shorten)
}

// PlanKind says what ApplyKind would do to the kind's streams.
func PlanKind(ctx context.Context, js natsjs.JetStream, c events.Contract, o Options) ([]Change, error) {
	want, err := ForKind(c, o.Replicas)
	if err != nil {
		return nil, err
	}
	return plan(ctx, js, want, o.Shorten)
}

// ApplyShared makes the streams and buckets that all kinds share, and returns what it changed.
func ApplyShared(ctx context.Context, js natsjs.JetStream, o Options) ([]Change, error) {
	changes, err := PlanShared(ctx, js, o)
	if err != nil {
		return nil, err
	}
	return changes, Apply(ctx, js, changes)
}

// ApplyAudit makes the stream AUDIT, if it is not there: it comes before all that is to be on record in it.
func ApplyAudit(ctx context.Context, js natsjs.JetStream, o Options) error {
	want, err := Shared(o.Replicas)
	if err != nil {
		return err
	}
	want = slices.DeleteFunc(want, func(c natsjs.StreamConfig) bool { return c.Name != events.AuditStream })
	changes, err := plan(ctx, js, want, o.Shorten)
	if err != nil {
		return err
	}
	return Apply(ctx, js, changes)
}

// Kind is a declared kind.
type Kind struct {
	Contract events.Contract
	Revision uint64 // of its entry in KINDS
}

// Applied is what ApplyKind did.
type Applied struct {
	Kind     Kind
	Declared bool     // the contract was written
	Changes  []Change // of streams
	Zeroed   bool     // the lanes' positions were written, for the first and only time
}

// ApplyKind declares a kind, or brings it up to a newer contract: its streams, the positions of its
// lanes, and its entry in KINDS, which is replaced by compare-and-swap. A new kind's entry comes last, so
// that who finds a kind in KINDS finds all of it. ApplyKind may be repeated after a failure at any point.
//
// Errors: ErrPlan where a change is refused, another number of lanes above all; ErrRebase where a lane's
// position is lost or counts in another stream, everything else having been applied.
func ApplyKind(ctx context.Context, js natsjs.JetStream, c events.Contract, o Options) (Applied, error) {
	var done Applied
	want, err := ForKind(c, o.Replicas)
	if err != nil {
		return done, err
	}
	kv, err := kinds(ctx, js)
	if err != nil {
		return done, err
	}
	body, err := c.YAML()
	if err != nil {
		return done, err
	}
	stored, err := get(ctx, kv, c.Kind)
	known := err == nil
	if err != nil && !errors.Is(err, natsjs.ErrKeyNotFound) {
		return done, err
	}
	done.Kind = Kind{Contract: c, Revision: stored.Revision}

	replace := false
	if known {
		if replace, err = succeeds(ctx, stored.Contract, c, body, o); err != nil {
			return done, err
		}
	}
	changes, err := plan(ctx, js, want, o.Shorten)
	if err != nil {
		return done, err
	}
	if slices.ContainsFunc(changes, func(c Change) bool { return c.Action == Refuse }) {
		return done, Apply(ctx, js, changes)
	}
	if replace { // first, so that of two who differ one stops here
		err := persist(ctx, untaken, func(context.Context) (err error) {
			done.Kind.Revision, err = kv.Update(ctx, c.Kind, body, stored.Revision)
			return err
		})
		if err != nil {
			return done, fmt.Errorf("topology: replace contract of kind %s (somebody else may have, since it was read): %w", c.Kind, err)
		}
		done.Declared = true
	}
	if err := Apply(ctx, js, changes); err != nil {
		return done, err
	}
	done.Changes = changes
	var lost error
	if done.Zeroed, lost = zeroPositions(ctx, js, c); lost != nil && !errors.Is(lost, ErrRebase) {
		return done, lost
	}
	if !known {
		err := persist(ctx, untaken, func(context.Context) (err error) {
			done.Kind.Revision, err = kv.Create(ctx, c.Kind, body)
			return err
		})
		if err != nil {
			return done, errors.Join(lost, fmt.Errorf("topology: declare kind %s (somebody else may have, meanwhile): %w", c.Kind, err))
		}
		done.Declared = true
	}
	return done, lost
}

// succeeds says whether next must replace stored.
func succeeds(ctx context.Context, stored, next events.Contract, body []byte, o Options) (bool, error) {
	if stored.Lanes != next.Lanes {
		return false, fmt.Errorf("%w: kind %s has %d lanes, not %d: another number would send entities to other lanes, past the events they have waiting there. "+
			"Keep %d, or declare a kind of another name and let this one drain", ErrPlan, next.Kind, stored.Lanes, next.Lanes, stored.Lanes)
	}
	before, err := stored.YAML()
	if err != nil {
		return false, err
	}
	if bytes.Equal(before, body) {
		return false, nil
	}
	if next.Version <= stored.Version {
		return false, fmt.Errorf("%w: contract %s differs from the stored version %d: give it version %d", ErrPlan, next.Kind, stored.Version, stored.Version+1)
	}
	var reads func(field string) bool
	if o.Reads != nil {
		if reads, err = o.Reads(ctx, next.Kind); err != nil {
			return false, fmt.Errorf("topology: fields that the models of kind %s read: %w", next.Kind, err)
		}
	}
	if err := events.Compatible(stored, next, reads); err != nil {
		return false, fmt.Errorf("%w: %w", ErrPlan, err)
	}
	return true, nil
}

func kinds(ctx context.Context, js natsjs.JetStream) (natsjs.KeyValue, error) {
	var kv natsjs.KeyValue
	err := patiently(ctx, func(ctx context.Context) (err error) {
		kv, err = js.KeyValue(ctx, events.KindsBucket)
		return err
	})
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return nil, fmt.Errorf("topology: no bucket %s: run `riskweir topology apply` first: %w", events.KindsBucket, err)
	}
	if err != nil {
		return nil, fmt.Errorf("topology: bucket %s: %w", events.KindsBucket, err)
	}
	return kv, nil
}

func get(ctx context.Context, kv natsjs.KeyValue, kind string) (Kind, error) {
	var entry natsjs.KeyValueEntry
	err := patiently(ctx, func(ctx context.Context) (err error) {
		entry, err = kv.Get(ctx, kind)
		return err
	})
	if err != nil {
		return Kind{}, fmt.Errorf("topology: read contract of kind %s: %w", kind, err)
	}
	c, err := events.ParseContract(entry.Value())
	if err == nil && c.Kind != kind {
		err = fmt.Errorf("it declares kind %q", c.Kind)
	}
	if err != nil {
		return Kind{}, fmt.Errorf("topology: contract of kind %s at revision %d of %s: %w", kind, entry.Revision(), events.KindsBucket, err)
	}
	return Kind{Contract: c, Revision: entry.Revision()}, nil
}

// ReadKind reads one declared kind; the error is natsjs.ErrKeyNotFound where there is none.
func ReadKind(ctx context.Context, js natsjs.JetStream, kind string) (Kind, error) {
	kv, err := kinds(ctx, js)
	if err != nil {
		return Kind{}, err
	}
	return get(ctx, kv, kind)
}

// Kinds lists the declared kinds by name. An entry that cannot be read is part of the error; the others
// are returned all the same.
func Kinds(ctx context.Context, js natsjs.JetStream) ([]Kind, error) {
	kv, err := kinds(ctx, js)
	if err != nil {
		return nil, err
	}
	// The stream's leader knows its subjects: neither a consumer nor a replica that lags is needed.
	prefix := "$KV." + events.KindsBucket + "."
	var info *natsjs.StreamInfo
	err = patiently(ctx, func(ctx context.Context) error {
		bucket, err := js.Stream(ctx, "KV_"+events.KindsBucket)
		if err != nil {
			return err
		}
		info, err = bucket.Info(ctx, natsjs.WithSubjectFilter(prefix+">"))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("topology: list kinds: %w", err)
	}
	var names []string
	for subject := range info.State.Subjects {
		names = append(names, strings.TrimPrefix(subject, prefix))
	}
	slices.Sort(names)
	var out []Kind
	var errs []error
	for _, name := range names {
		k, err := get(ctx, kv, name)
		switch {
		case err == nil:
			out = append(out, k)
		case !errors.Is(err, natsjs.ErrKeyNotFound): // deleted meanwhile
			errs = append(errs, err)
		}
	}
	return out, errors.Join(errs...)
}
