package model

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

// ErrRefused says that a rollout revision was looked at and may not serve here: the champion before it goes on.
var ErrRefused = errors.New("rollout revision refused")

// Live is what a kind is scored with, in one piece: records must be decoded with its Schema, and what a score says of
// model, revision and contract is said here.
type Live struct {
	Predictor *Predictor
	Name      string // payment.v000003; empty: the prior
	Version   int    // 0: the prior
	Revision  uint64 // of the rollout record; 0: there has been none

	Schema           *events.Schema
	ContractRevision uint64 // in KINDS

	Canary *Canarying // nil: there is none, or it is not loaded yet
	// Contenders are the versions of which it is counted how they fare, Predictor's own among them where another is held against it: champion,
	// canary, shadows. What cannot be loaded is not among them.
	Contenders []Contender
}

// Contender is a version beside others.
type Contender struct {
	Version   int
	Name      string
	Since     int64 // Unix ms: it came into its stage
	Predictor *Predictor
}

// Canarying is a version that decides for a share of the entities.
type Canarying struct {
	Contender
	Share rollout.Share
}

// Event of a watcher: a model came into force (Live), or Err says why the one at Revision did not, or why the registry
// could not be read.
type Event struct {
	Kind     string // empty: of the registry as a whole
	Revision uint64
	Version  int // that Err is about; 0: of none
	Live     *Live
	Err      error
}

// WatcherConfig of a Watcher.
type WatcherConfig struct {
	KV jetstream.KeyValue // bucket MODELS
	// Trust: a version that none of its keys signed is refused. nil: no signature is looked at.
	Trust *Trust
	// Report is called by Run, one call at a time, and must not block. nil: nobody listens.
	Report func(Event)
	// Poll is how often the registry is read directly, beside the watch; 0: 5 s. A lost watch is mended no later.
	Poll time.Duration
	// Lease is how long the registry may stay unseen before scores say "stale"; 0: 30 s. It should hold a few polls
	// and the election of a new leader (up to 10 s).
	Lease time.Duration
}

// Watcher keeps the model in force of each tracked kind. The KV watch is a hint, reading is the truth: both feed the same
// place, which takes only what has a higher revision than what it took before. A record or artifact that is deleted,
// empty or broken never replaces a good one. Revisions count in one bucket: should MODELS be made anew, what it then
// holds is older to every watcher and every position, and services must be started again.
type Watcher struct {
	cfg      WatcherConfig
	registry *Registry
	refused  atomic.Uint64
	seen     atomic.Int64 // monotonic nanoseconds after epoch at which the last answer of the bucket's leader was asked for; 0: never
	epoch    time.Time

	mu    sync.Mutex // writers of kinds
	kinds atomic.Pointer[map[string]*watched]
	kick  chan struct{} // a kind was added: read now
	warm  chan struct{} // a version beside the champion is missing: load it

	reporting sync.Mutex
}

// watched is the state of one kind.
//
//	live.Revision <= settled
type watched struct {
	kind string
	live atomic.Pointer[Live]

	mu       sync.Mutex
	artifact *Artifact       // behind live; nil: the prior
	record   Rollout         // at live.Revision
	beside   map[int]*beside // other versions of record, and those that were; the champion, too, once it is replaced
	settled  uint64          // highest rollout revision taken or refused
	refusal  error           // why settled is not in force; nil: it is
	reported uint64          // highest revision whose trouble was reported while it may still pass
	changed  chan struct{}
}

// NewWatcher does no I/O.
func NewWatcher(cfg WatcherConfig) *Watcher {
	if cfg.Poll <= 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.Lease <= 0 {
		cfg.Lease = 30 * time.Second
	}
	w := &Watcher{cfg: cfg, registry: NewRegistry(cfg.KV).Keyed(nil, cfg.Trust), epoch: time.Now(), kick: make(chan struct{}, 1), warm: make(chan struct{}, 1)}
	w.kinds.Store(&map[string]*watched{})
	return w
}

func (w *Watcher) report(e Event) {
	w.reporting.Lock()
	defer w.reporting.Unlock()
	if w.cfg.Report != nil {
		w.cfg.Report(e)
	}
}

// Track adds a kind, which is scored with the prior until its model has been read, or gives a tracked one another contract:
// then the model in force is compiled for it at once, and if that cannot be, nothing changes and the error says why. It
// does no I/O and may be called before and during Run.
func (w *Watcher) Track(schema *events.Schema, contractRevision uint64) error {
	kind := schema.Contract.Kind
	w.mu.Lock()
	defer w.mu.Unlock()
	kinds := *w.kinds.Load()
	if k, ok := kinds[kind]; ok {
		defer w.wantWarm()
		return k.track(schema, contractRevision)
	}
	k := &watched{kind: kind, changed: make(chan struct{}), beside: map[int]*beside{}}
	k.live.Store(&Live{Predictor: Prior(&schema.Contract), Schema: schema, ContractRevision: contractRevision})
	next := make(map[string]*watched, len(kinds)+1)
	for name, other := range kinds {
		next[name] = other
	}
	next[kind] = k
	w.kinds.Store(&next)
	select {
	case w.kick <- struct{}{}:
	default:
	}
	return nil
}

func (k *watched) track(schema *events.Schema, contractRevision uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := *k.live.Load()
	next.Schema, next.ContractRevision = schema, contractRevision
	if k.artifact == nil {
		next.Predictor = Prior(&schema.Contract)
	} else {
		p, err := Compile(k.artifact, schema)
		if err != nil {
			return fmt.Errorf("contract of %s at revision %d does not fit the model in force: %w", k.kind, contractRevision, err)
		}
		next.Predictor = p
	}
	k.contend(&next)
	k.install(&next)
	return nil
}

// install needs k.mu.
func (k *watched) install(l *Live) {
	k.live.Store(l)
	close(k.changed)
	k.changed = make(chan struct{})
}

// Live returns what the kind is scored with now, or nil if it is not tracked. It takes no lock.
func (w *Watcher) Live(kind string) *Live {
	k := (*w.kinds.Load())[kind]
	if k == nil {
		return nil
	}
	return k.live.Load()
}

// Changed returns a channel that is closed at the next change of Live(kind), or nil if the kind is not tracked. Take it
// before you read Live, so that no change falls between.
func (w *Watcher) Changed(kind string) <-chan struct{} {
	k := (*w.kinds.Load())[kind]
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.changed
}

// WaitRevision returns once the model in force is that of revision or of a later one. It returns ErrRefused if that
// revision has been looked at and may not serve here, and the context's error if it ends first.
func (w *Watcher) WaitRevision(ctx context.Context, kind string, revision uint64) error {
	k := (*w.kinds.Load())[kind]
	if k == nil {
		return fmt.Errorf("wait for a model of %s: the kind is not tracked", kind)
	}
	for {
		k.mu.Lock()
		live, settled, refusal, changed := k.live.Load(), k.settled, k.refusal, k.changed
		k.mu.Unlock()
		if live.Revision >= revision {
			return nil
		}
		if settled >= revision {
			return fmt.Errorf("wait for revision %d of %s: revision %d: %w: %w", revision, RolloutKey(kind), settled, ErrRefused, refusal)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for revision %d of %s, which is at %d here: %w", revision, RolloutKey(kind), live.Revision, context.Cause(ctx))
		}
	}
}

// Seen is when the answer was asked for by which the registry was last seen; zero: never.
func (w *Watcher) Seen() time.Time {
	n := w.seen.Load()
	if n == 0 {
		return time.Time{}
	}
	return w.epoch.Add(time.Duration(n))
}

// Stale says that the registry has not been seen for longer than the lease, so that a newer model may be in force
// elsewhere.
func (w *Watcher) Stale() bool {
	return time.Since(w.epoch)-time.Duration(w.seen.Load()) > w.cfg.Lease
}

// Refused counts the revisions and artifacts that could not be taken.
func (w *Watcher) Refused() uint64 { return w.refused.Load() }

const (
	rewatchMin = 250 * time.Millisecond
	rewatchMax = 5 * time.Second
	againMin   = 100 * time.Millisecond
)

// Run watches until ctx ends. It returns nil: trouble with the registry is reported and waited out.
func (w *Watcher) Run(ctx context.Context) error {
	var (
		watch   jetstream.KeyWatcher
		updates <-chan jetstream.KeyValueEntry
		wait    = rewatchMin
	)
	rewatch := time.NewTimer(0)
	defer rewatch.Stop()
	poll := time.NewTicker(w.cfg.Poll)
	defer poll.Stop()
	again := time.NewTimer(w.cfg.Poll) // sooner than the next poll, while a record waits for its model
	defer again.Stop()
	again.Stop()
	againIn := againMin
	var warming sync.WaitGroup
	defer warming.Wait()
	warming.Go(func() { w.keepWarm(ctx) })
	read := func() {
		if w.poll(ctx) {
			againIn = againMin
			return
		}
		again.Reset(againIn)
		againIn = min(2*againIn, w.cfg.Poll)
	}
	read()
	lost := func(err error) {
		w.report(Event{Err: fmt.Errorf("watch %s: %w", w.cfg.KV.Bucket(), err)})
		updates = nil
		rewatch.Reset(wait)
		wait = min(2*wait, rewatchMax)
	}
	defer func() {
		if watch != nil {
			EndWatch(watch)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rewatch.C:
			if watch != nil {
				EndWatch(watch)
				watch = nil
			}
			next, err := w.cfg.KV.Watch(ctx, "*"+rolloutSuffix)
			if err != nil {
				if ctx.Err() == nil {
					lost(err)
				}
				continue
			}
			watch, updates = next, next.Updates()
		case e, ok := <-updates:
			switch {
			case !ok:
				if ctx.Err() == nil {
					lost(errors.New("it ended"))
				}
			case e == nil: // what was there at the start has come: the watch works
				wait = rewatchMin
			default:
				if k := w.ofRollout(e.Key()); k != nil && !w.take(ctx, k, e.Revision(), e.Operation(), e.Value()) {
					again.Reset(againMin)
				}
			}
		case <-poll.C:
			read()
		case <-again.C:
			read()
		case <-w.kick:
			read()
		}
	}
}

func (w *Watcher) ofRollout(key string) *watched {
	kind, ok := kindOfRollout(key)
	if !ok {
		return nil
	}
	return (*w.kinds.Load())[kind]
}

// poll asks the bucket's leader for a sign of life, since the reads after it may be answered by a replica that is cut
// off, and reads every rollout record. It is false if a record waits for its model.
func (w *Watcher) poll(ctx context.Context) bool {
	asked := time.Since(w.epoch)
	if err := w.leaderAnswers(ctx); err != nil {
		if ctx.Err() == nil {
			w.report(Event{Err: err})
		}
		return true
	}
	settled := true
	for kind, k := range *w.kinds.Load() {
		entry, err := w.registry.get(ctx, RolloutKey(kind))
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound): // none yet, or deleted: then the watch says at which revision
		case err != nil:
			if ctx.Err() == nil {
				w.report(Event{Kind: kind, Err: fmt.Errorf("read %s: %w", RolloutKey(kind), err)})
			}
			return settled
		default:
			settled = w.take(ctx, k, entry.Revision(), entry.Operation(), entry.Value()) && settled
		}
	}
	w.seen.Store(max(1, int64(asked)))
	return settled
}

func (w *Watcher) leaderAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if _, err := w.cfg.KV.Status(ctx); err != nil {
		return fmt.Errorf("ask for the state of %s: %w", w.cfg.KV.Bucket(), err)
	}
	return nil
}

// take brings the rollout record at a revision into force, or refuses it, and returns true. What may still pass (the
// artifact cannot be read, or is not there yet) it leaves for another time, and returns false.
func (w *Watcher) take(ctx context.Context, k *watched, revision uint64, op jetstream.KeyValueOp, body []byte) bool {
	k.mu.Lock()
	// What was not trusted is looked at again with every poll: it may have been signed meanwhile.
	known := revision < k.settled || revision == k.settled && !errors.Is(k.refusal, ErrUntrusted)
	k.mu.Unlock()
	if known {
		return true
	}
	if op != jetstream.KeyValuePut {
		w.refuse(k, revision, 0, fmt.Errorf("%s was deleted", RolloutKey(k.kind)))
		return true
	}
	record, err := DecodeRollout(body)
	if err != nil {
		w.refuse(k, revision, 0, err)
		return true
	}
	if record.Champion == 0 {
		w.takeNone(k, record, revision)
		return true
	}
	a, err := w.load(ctx, k, record.Champion)
	if err != nil && !errors.Is(err, ErrArtifact) {
		w.postpone(ctx, k, revision, err)
		return false
	}
	var live *Live
	if err == nil {
		live, err = k.take(a, record, revision)
	}
	if err != nil {
		w.refuse(k, revision, record.Champion, err)
		return true
	}
	w.report(Event{Kind: k.kind, Revision: revision, Live: live})
	w.wantWarm()
	return true
}

// takeNone takes a record that tells of versions of which none has come into force yet.
func (w *Watcher) takeNone(k *watched, record Rollout, revision uint64) {
	k.mu.Lock()
	champion := k.artifact
	if champion == nil {
		next := *k.live.Load()
		next.Revision = revision
		k.record, k.settled, k.refusal = record, revision, nil
		k.install(&next)
	}
	k.mu.Unlock()
	if champion != nil {
		w.refuse(k, revision, 0, fmt.Errorf("%w: it has no champion, and %s is in force", ErrRollout, champion.Name()))
	}
}

// load reads a version unless it is at hand.
func (w *Watcher) load(ctx context.Context, k *watched, version int) (*Artifact, error) {
	k.mu.Lock()
	a, b := k.artifact, k.beside[version]
	k.mu.Unlock()
	switch {
	case a != nil && a.Version == version:
		return a, nil
	case b != nil && b.artifact != nil:
		return b.artifact, nil
	}
	return w.registry.Get(ctx, k.kind, version)
}

// take keeps the champion before at hand: the next record may go back to it.
func (k *watched) take(a *Artifact, record Rollout, revision uint64) (*Live, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.live.Load()
	p := now.Predictor
	if k.artifact != a {
		var err error
		if b := k.beside[a.Version]; b != nil && b.predictor != nil && b.schema == now.Schema {
			p = b.predictor
		} else if p, err = Compile(a, now.Schema); err != nil {
			return nil, err
		}
		if k.artifact != nil {
			k.beside[k.artifact.Version] = &beside{artifact: k.artifact, predictor: now.Predictor, schema: now.Schema}
		}
	}
	next := &Live{Predictor: p, Name: a.Name(), Version: a.Version, Revision: revision, Schema: now.Schema, ContractRevision: now.ContractRevision}
	k.artifact, k.record, k.settled, k.refusal = a, record, revision, nil
	k.contend(next)
	k.install(next)
	return next, nil
}

func (w *Watcher) refuse(k *watched, revision uint64, version int, err error) {
	k.mu.Lock()
	if again := k.settled == revision && k.refusal != nil; again {
		k.refusal = err
		k.mu.Unlock()
		return
	}
	w.refused.Add(1)
	k.settled, k.refusal = revision, err
	k.install(k.live.Load()) // wakes who waits for this revision
	k.mu.Unlock()
	w.report(Event{Kind: k.kind, Revision: revision, Version: version, Err: fmt.Errorf("%s at revision %d: %w: %w", RolloutKey(k.kind), revision, ErrRefused, err)})
}

func (w *Watcher) postpone(ctx context.Context, k *watched, revision uint64, err error) {
	k.mu.Lock()
	first := revision > k.reported
	k.reported = max(k.reported, revision)
	k.mu.Unlock()
	if first && ctx.Err() == nil {
		w.report(Event{Kind: k.kind, Revision: revision, Err: fmt.Errorf("%s at revision %d waits for its model: %w", RolloutKey(k.kind), revision, err)})
	}
}
