package model

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// List is a kind's overrides, made ready to be looked up. It is not changed.
type List struct {
	Revision uint64 // in MODELS
	byEntity map[string]*Override
}

// Of returns what holds for an entity's event that was stored at t, or nil. It costs a comparison where the list is empty.
func (l *List) Of(entity string, t time.Time) *Override {
	if l == nil || len(l.byEntity) == 0 {
		return nil
	}
	o := l.byEntity[entity]
	if o == nil || !o.Holds(t) {
		return nil
	}
	return o
}

// Len is how many entities are on the list.
func (l *List) Len() int {
	if l == nil {
		return 0
	}
	return len(l.byEntity)
}

func newList(o *Overrides, revision uint64) *List {
	l := &List{Revision: revision, byEntity: make(map[string]*Override, len(o.Entries))}
	for i := range o.Entries {
		l.byEntity[o.Entries[i].Entity] = &o.Entries[i]
	}
	return l
}

// ListsConfig of Lists.
type ListsConfig struct {
	KV    jetstream.KeyValue // bucket MODELS
	Trust *Trust             // a list that none of its keys signed is refused; nil: no signature is looked at
	// Report is told from Run of each list that is taken (err nil) or refused, once for each revision, and of trouble with the bucket, for which kind
	// is empty. It must not block. nil: nobody listens.
	Report func(kind string, revision uint64, entries int, err error)
	Kinds  func() []string // that are declared; they are read every Poll, beside the watch
	Poll   time.Duration   // 0: 5 s
}

// Lists keeps the override lists of all kinds, as a Watcher keeps their models: a list that is broken or not trusted never takes a good one's
// place. One that was deleted is empty.
type Lists struct {
	cfg   ListsConfig
	ready chan struct{} // closed when all that there was has been read once
	once  sync.Once

	mu      sync.Mutex // writers
	settled map[string]uint64
	lists   atomic.Pointer[map[string]*List]
}

// NewLists does no I/O.
func NewLists(cfg ListsConfig) *Lists {
	if cfg.Poll <= 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.Report == nil {
		cfg.Report = func(string, uint64, int, error) {}
	}
	if cfg.Kinds == nil {
		cfg.Kinds = func() []string { return nil }
	}
	l := &Lists{cfg: cfg, ready: make(chan struct{}), settled: map[string]uint64{}}
	l.lists.Store(&map[string]*List{})
	return l
}

// Of a kind; nil: there is none. It takes no lock.
func (l *Lists) Of(kind string) *List { return (*l.lists.Load())[kind] }

// AwaitFirst returns nil once what there was has been read, or the context's error.
func (l *Lists) AwaitFirst(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run watches until ctx ends. It returns nil: trouble is reported and waited out.
func (l *Lists) Run(ctx context.Context) error {
	var (
		watch   jetstream.KeyWatcher
		updates <-chan jetstream.KeyValueEntry
		wait    = rewatchMin
	)
	rewatch := time.NewTimer(0)
	defer rewatch.Stop()
	poll := time.NewTicker(l.cfg.Poll)
	defer poll.Stop()
	lost := func(err error) {
		if ctx.Err() == nil {
			l.cfg.Report("", 0, 0, fmt.Errorf("watch the override lists in %s: %w", l.cfg.KV.Bucket(), err))
		}
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
			next, err := l.cfg.KV.Watch(ctx, "*"+overridesSuffix)
			if err != nil {
				lost(err)
				continue
			}
			watch, updates = next, next.Updates()
		case e, ok := <-updates:
			switch {
			case !ok:
				lost(errors.New("it ended"))
			case e == nil: // what was there at the start has come
				wait = rewatchMin
				l.once.Do(func() { close(l.ready) })
			default:
				l.take(e)
			}
		case <-poll.C:
			l.read(ctx)
		}
	}
}

// read asks for the list of every kind: a watch may be lost without a word.
func (l *Lists) read(ctx context.Context) {
	for _, kind := range l.cfg.Kinds() {
		asked, cancel := context.WithTimeout(ctx, attemptTimeout)
		e, err := l.cfg.KV.Get(asked, OverridesKey(kind))
		cancel()
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound): // none, or deleted: then the watch says at which revision
		case err != nil:
			if ctx.Err() == nil {
				l.cfg.Report("", 0, 0, fmt.Errorf("read %s: %w", OverridesKey(kind), err))
			}
			return
		default:
			l.take(e)
		}
	}
}

func (l *Lists) take(e jetstream.KeyValueEntry) {
	kind, ok := strings.CutSuffix(e.Key(), overridesSuffix)
	if !ok || events.CheckKind(kind) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Revision() <= l.settled[kind] {
		return
	}
	l.settled[kind] = e.Revision()
	list := &Overrides{Kind: kind}
	if e.Operation() == jetstream.KeyValuePut {
		var err error
		if list, err = decodeOverrides(kind, e.Value(), l.cfg.Trust); err != nil {
			l.cfg.Report(kind, e.Revision(), 0, fmt.Errorf("%s at revision %d: %w", e.Key(), e.Revision(), err))
			return
		}
	}
	next := make(map[string]*List, len(*l.lists.Load())+1)
	for k, v := range *l.lists.Load() {
		next[k] = v
	}
	next[kind] = newList(list, e.Revision())
	l.lists.Store(&next)
	l.cfg.Report(kind, e.Revision(), len(list.Entries), nil)
}
