// Package scorer turns events into scores: lane -> decode -> features -> model -> outcome.
package scorer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Service is the scorer's name among the micro services and heartbeats.
const Service = "scorer"

const (
	defaultHang = 3 * time.Second // a full batch takes some 30 ms
	giveUp      = time.Second     // for the other lanes of a process in which one hangs
)

// Config of a Scorer.
type Config struct {
	Conn     *nats.Conn
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Instance string        // unique to this process
	Name     string        // as the operator started it: scorer-1
	Lease    time.Duration // without sight of the registry, after which scores say stale; 30 s if zero
	Trust    *model.Trust  // whose signatures on models count; nil: none is looked at
	Limits   lane.Limits   // lane.DefaultLimits if MaxBatch is zero
	Snapshot time.Duration // least time between snapshots of a kind's memory; recall's default if zero
	// SnapshotLease is how long the member that learns online may go without a new snapshot before it votes no more; 1 m. The trainer
	// repeats one that has not changed. SnapshotPoll is how often ONLINE is looked at; 1 s.
	SnapshotLease time.Duration
	SnapshotPoll  time.Duration
	Skew          time.Duration // by which this process's clock is wrong, for tests of that
	Hang          time.Duration // that scoring one batch may take, after which the process has to end; 3 s if zero
	// Abort ends the process and does not return. It is called when a lane hangs, once the others have had the time to be given up;
	// nil: Run ends with the hang.
	Abort func(error)
}

// Scorer competes for lanes and scores those that it owns.
type Scorer struct {
	cfg     Config
	started time.Time
	metrics metrics
	latency service.Latency

	mu       sync.Mutex
	lanes    map[string]lane.Phase          // "<kind>/<lane>", owned or about to be
	unlucky  map[string]string              // halted lane -> cause
	refused  map[string]events.RefusedModel // by kind: the latest revision, if it was not taken
	catalog  *topology.Catalog              // set by Run
	watcher  *model.Watcher                 // set by Run
	panel    *panel                         // set by Run
	outcomes float64                        // committed, since started

	// Set by tests only.
	remembered func(seq uint64, features []float64)
	folded     func(seq uint64, s *memory.Store)
	fault      func(member string) float64 // see model.Scratch
}

// New does no I/O.
func New(cfg Config) (*Scorer, error) {
	if cfg.Conn == nil || cfg.Log == nil || cfg.Metrics == nil || cfg.Instance == "" {
		return nil, errors.New("scorer: connection, logger, metrics and instance are needed")
	}
	if cfg.Lease == 0 {
		cfg.Lease = 30 * time.Second
	}
	if cfg.SnapshotLease == 0 {
		cfg.SnapshotLease = time.Minute
	}
	if cfg.SnapshotPoll == 0 {
		cfg.SnapshotPoll = time.Second
	}
	if cfg.Hang == 0 {
		cfg.Hang = defaultHang
	}
	if cfg.Limits.MaxBatch == 0 {
		cfg.Limits = lane.DefaultLimits()
	}
	s := &Scorer{cfg: cfg, lanes: map[string]lane.Phase{}, unlucky: map[string]string{}, refused: map[string]events.RefusedModel{}}
	s.metrics = newMetrics(cfg.Metrics)
	return s, nil
}

// Run scores until ctx ends; then every lane is given up in order.
//
//	KINDS ──► catalog ──► kinds ─────────────┐
//	MODELS ─► watcher ──► Live ──► stage ──► pool of lanes ──► SCORES
//	SCORERS ◄────────── members ─────────────┘
func (s *Scorer) Run(ctx context.Context) error {
	s.started = time.Now()
	js, err := natsjs.New(s.cfg.Conn)
	if err != nil {
		return fmt.Errorf("scorer: jetstream: %w", err)
	}
	kv, err := topology.AwaitBucket(ctx, js, events.ModelsBucket, func(err error) { s.cfg.Log.Info("waiting for the registry", zap.Error(err)) })
	if err != nil {
		return err
	}
	watcher := model.NewWatcher(model.WatcherConfig{KV: kv, Trust: s.cfg.Trust, Report: s.modelEvent, Lease: s.cfg.Lease})
	catalog := topology.NewCatalog(js, func(err error) { s.cfg.Log.Warn("kinds", zap.Error(err)) })
	lists := model.NewLists(model.ListsConfig{KV: kv, Trust: s.cfg.Trust, Report: s.listEvent, Kinds: catalog.Names})
	s.mu.Lock()
	s.catalog, s.watcher = catalog, watcher
	s.mu.Unlock()
	kinds := make(chan []lane.Kind, 1)
	recalls := &recalls{js: js, log: s.cfg.Log, owner: s.cfg.Instance, writes: s.writesMemory, every: s.cfg.Snapshot, folded: s.folded, followed: map[string]*followed{}, bySchema: map[*events.Schema]*recall.Recall{}}
	dog := newWatchdog(s.cfg.Hang)
	var beside sync.WaitGroup
	defer beside.Wait()
	panel := newPanel(s.cfg.SnapshotLease)
	s.mu.Lock()
	s.panel = panel
	s.mu.Unlock()
	pool := lane.NewPool(lane.Config{
		Conn: s.cfg.Conn, JS: js, Limits: s.cfg.Limits, Kinds: kinds, Now: func() time.Time { return time.Now().Add(s.cfg.Skew) },
		Self: lane.Member{Instance: s.cfg.Instance, Name: s.cfg.Name, Host: service.Hostname(), PID: os.Getpid(), Started: s.started},
		Stage: func(k lane.Kind, n int) lane.Stage {
			return dog.watch(laneName(k.Name, n), &laneStage{stage: &stage{
				kind: k.Name, lane: n, watcher: watcher, lists: lists, recalls: recalls, await: s.cfg.Lease, panel: panel,
				beside: &besides{running: &beside}, remembered: s.remembered, scratch: model.Scratch{Fault: s.fault},
				tally: tally{unknownFields: s.metrics.unknownFields, panicked: s.panicked, repeated: s.repeated, slow: s.slow},
			}})
		},
		Committer: func(kind string) lane.Committer { return newPatient(s.cfg.Conn, events.ScoresStream(kind)) },
		Observer:  lane.Observer{Committed: s.committed, Phase: s.phase, Note: s.note, Halted: s.halted},
	})

	g, ctx := service.NewGroup(ctx)
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	back, _ := service.NewGroup(background) // outlives the pool: lanes in flight still need their model
	back.Go(watcher.Run)
	back.Go(func(ctx context.Context) error { return s.followSnapshots(ctx, js, catalog, panel) })
	back.Go(lists.Run)
	recalls.ctx = background
	defer recalls.running.Wait()
	hung := make(chan error, 1)
	back.Go(func(ctx context.Context) error { // also while the lanes are given up
		err := dog.run(ctx)
		if err == nil {
			return nil
		}
		hung <- err
		if s.cfg.Abort != nil {
			abort := time.AfterFunc(giveUp, func() { s.cfg.Abort(err) })
			defer abort.Stop()
		}
		<-ctx.Done()
		return nil
	})
	g.Go(func(ctx context.Context) error {
		select {
		case err := <-hung:
			return err
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(catalog.Run)
	g.Go(func(ctx context.Context) error {
		s.awaitLists(ctx, lists)
		return s.feedKinds(ctx, catalog, watcher, recalls, kinds)
	})
	g.Go(pool.Run)
	g.Go(func(ctx context.Context) error {
		return service.Beat(ctx, s.cfg.Conn, events.Heartbeat{Service: Service, Instance: s.cfg.Instance, Name: s.cfg.Name, Started: s.started}, s.beat)
	})
	err = g.Wait()
	stopBackground()
	return errors.Join(err, back.Wait())
}

// awaitLists lets no lane begin before the override lists have been read, so that nobody who is denied slips through while a scorer starts. When they
// cannot be read for as long as the lease, an answer is owed all the same: scores say stale by then, and the contract's decision for that is made.
func (s *Scorer) awaitLists(ctx context.Context, lists *model.Lists) {
	wait, cancel := context.WithTimeout(ctx, s.cfg.Lease)
	defer cancel()
	if err := lists.AwaitFirst(wait); err != nil && ctx.Err() == nil {
		s.cfg.Log.Error("override lists: not read yet, scoring begins without", zap.Error(err))
	}
}

// feedKinds gives each new contract to the watcher, then the kinds to the pool.
func (s *Scorer) feedKinds(ctx context.Context, catalog *topology.Catalog, watcher *model.Watcher, recalls *recalls, out chan<- []lane.Kind) error {
	tracked := map[string]uint64{}
	for {
		changed := catalog.Changed()
		var kinds []lane.Kind
		for _, name := range catalog.Names() {
			schema, revision, _ := catalog.Schema(name)
			if tracked[name] != revision {
				recalls.track(schema, func() {
					if err := watcher.Track(schema, revision); err != nil {
						s.cfg.Log.Error("contract", zap.String("kind", name), zap.Error(err))
					}
				})
				tracked[name] = revision
			}
			if watcher.Live(name) == nil {
				continue
			}
			c := schema.Contract
			kinds = append(kinds, lane.Kind{Name: name, Lanes: c.Lanes, Refresh: time.Duration(min(c.Retention.Events, c.Retention.Scores)) / 4})
		}
		if catalog.Loaded() {
			select {
			case out <- kinds:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// Ready says why the scorer can't score now.
func (s *Scorer) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.cfg.Conn.IsConnected():
		return errors.New("NATS is away")
	case s.catalog == nil || !s.catalog.Loaded():
		return errors.New("the kinds have not been read yet")
	}
	for name, cause := range s.unlucky {
		return fmt.Errorf("lane %s is halted: %s", name, cause)
	}
	return nil
}
