package scorer

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/pkg/events"
)

// recalls are the memories that this scorer follows: one for each kind whose contract declares any, and two while such a contract is
// replaced by one under which all must be remembered anew.
type recalls struct {
	js      jetstream.JetStream
	log     *zap.Logger
	owner   string
	writes  func(kind string) bool // snapshots
	every   time.Duration
	folded  func(seq uint64, s *memory.Store)
	ctx     context.Context // of Run; nil before
	running sync.WaitGroup

	mu       sync.Mutex
	followed map[string]*followed // by kind: the one in force
	bySchema map[*events.Schema]*recall.Recall
}

type followed struct {
	*recall.Recall
	fingerprint string
	stop        context.CancelFunc
}

func (r *recalls) of(s *events.Schema) *recall.Recall {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bySchema[s]
}

const (
	catchUpEvery = 50 * time.Millisecond
	oldLingers   = 10 * time.Second // for batches of the old contract
)

// track follows the memory that the schema declares, and calls use once batches can be scored under it: at once if it is the first of
// the kind or remembers as before, else when the new memory has come as far as the old one.
func (r *recalls) track(s *events.Schema, use func()) {
	plan, err := memory.Compile(s)
	if err != nil { // the contract was refused when it was declared
		r.log.Error("memory", zap.String("kind", s.Contract.Kind), zap.Error(err))
		return
	}
	kind := s.Contract.Kind
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.followed[kind]
	switch {
	case plan == nil:
		delete(r.followed, kind)
		use()
		if old != nil {
			time.AfterFunc(oldLingers, old.stop)
		}
		return
	case old != nil && old.fingerprint == plan.Fingerprint():
		r.bySchema[s] = old.Recall
		use()
		return
	}
	ctx, stop := context.WithCancel(r.ctx)
	next := &followed{fingerprint: plan.Fingerprint(), stop: stop, Recall: recall.New(recall.Config{
		JS: r.js, Plan: plan, Owner: r.owner, Save: func() bool { return r.writes(kind) }, SaveEvery: r.every,
		Note: func(err error) { r.log.Warn("memory", zap.Error(err)) }, Folded: r.folded,
	})}
	r.followed[kind] = next
	r.bySchema[s] = next.Recall
	r.running.Go(func() {
		defer stop()
		_ = next.Run(ctx) // nil, always
	})
	if old == nil {
		use()
		return
	}
	r.running.Go(func() {
		tick := time.NewTicker(catchUpEvery)
		defer tick.Stop()
		for next.Front() == 0 || next.Front() < old.Front() {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		r.mu.Lock()
		latest := r.followed[kind] == next // not replaced in turn
		r.mu.Unlock()
		if latest {
			use()
		}
		linger := time.NewTimer(oldLingers)
		defer linger.Stop()
		select {
		case <-linger.C:
		case <-ctx.Done():
		}
		old.stop()
	})
}

// writes says whether this scorer writes the kind's snapshots: whoever owns lane 0.
func (s *Scorer) writesMemory(kind string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.lanes[laneName(kind, 0)]
	return ok && p != lane.Halted
}
