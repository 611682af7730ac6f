package trainer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// LeaseKey in MODELS says which trainer leads. (Every key of SCORERS is a scorer, so it is not there.) Two leaders would
// cost work, never correctness: versions and rollouts are changed by compare-and-swap.
const LeaseKey = "trainer.leader"

// leaseRecord is renewed while its holder leads.
type leaseRecord struct {
	Instance string    `json:"instance"` // empty: released
	Name     string    `json:"name,omitempty"`
	Host     string    `json:"host,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Renewals uint64    `json:"renewals,omitempty"`
}

// lease is the state of one contender; pure. No clocks are compared: a contender may take a lease over when it has seen
// it unchanged for its whole term by its own clock. A holder counts its term from before it asked for the
// renewal and believes in three quarters of it:
//
//	trusted = asked + 3/4 term < asked + term <= seen + term <= when another may take it
type lease struct {
	me   leaseRecord
	term time.Duration

	revision uint64      // last seen of the key; 0: none
	holder   leaseRecord // at revision
	seen     time.Time   // when that revision was first seen
	trusted  time.Time   // we lead until then; zero: we do not
}

// saw notes what a read that was answered at now found. Reads may come from a replica behind: an older revision is ignored.
func (l *lease) saw(holder leaseRecord, revision uint64, now time.Time) {
	if revision <= l.revision {
		return
	}
	l.revision, l.holder, l.seen = revision, holder, now
	if holder.Instance != l.me.Instance {
		l.trusted = time.Time{}
	}
}

// absent notes that there is no record, or that it was deleted.
func (l *lease) absent() { l.revision, l.holder = 0, leaseRecord{} }

// wants says what to do at now: write is whether to write a record with the last revision as the condition, as holder or to
// become it.
func (l *lease) wants(now time.Time) (write bool) {
	switch {
	case l.revision == 0, l.holder.Instance == "", l.holder.Instance == l.me.Instance:
		return true
	}
	return now.Sub(l.seen) >= l.term
}

// wrote notes that our record is at revision, asked for at the given time.
func (l *lease) wrote(record leaseRecord, revision uint64, asked time.Time) {
	l.revision, l.holder, l.seen = revision, record, asked
	l.trusted = asked.Add(l.term * 3 / 4)
}

func (l *lease) leads(now time.Time) bool { return now.Before(l.trusted) }

// elector contends for the lease and runs lead while it holds it.
type elector struct {
	kv      jetstream.KeyValue
	lease   lease
	lead    func(ctx context.Context) // returns soon after its context ends
	trouble func(error)
}

// run returns when ctx ends and lead, if it ran, has returned. A lease held is released.
func (e *elector) run(ctx context.Context) {
	every := e.lease.term / 4
	tick := time.NewTicker(every)
	defer tick.Stop()
	var term *leading
	for {
		e.contend(ctx, every)
		trusted, leads := time.Until(e.lease.trusted), e.lease.leads(time.Now())
		switch {
		case leads && term != nil && term.timer.Reset(trusted):
		case leads && term == nil:
			term = e.begin(ctx, trusted)
		case term != nil: // not trusted any more, or for a moment not
			term.end()
			term = nil
		}
		select {
		case <-ctx.Done():
			if term != nil {
				term.end()
			}
			e.release(ctx)
			return
		case <-tick.C:
		}
	}
}

// leading is one term.
type leading struct {
	cancel context.CancelFunc
	timer  *time.Timer // cancels when we stop believing
	done   chan struct{}
}

func (e *elector) begin(ctx context.Context, trusted time.Duration) *leading {
	ctx, cancel := context.WithCancel(ctx)
	t := &leading{cancel: cancel, timer: time.AfterFunc(trusted, cancel), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		e.lead(ctx)
	}()
	return t
}

func (t *leading) end() {
	t.timer.Stop()
	t.cancel()
	<-t.done
}

// contend reads the lease and writes it if it may. An answer that got lost is found by the next read: the record names us.
func (e *elector) contend(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := e.tryContend(ctx); err != nil && !errors.Is(err, context.Canceled) {
		e.trouble(fmt.Errorf("contend for %s: %w", LeaseKey, err))
	}
}

func (e *elector) tryContend(ctx context.Context) error {
	entry, err := e.kv.Get(ctx, LeaseKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		e.lease.absent()
	case err != nil:
		return fmt.Errorf("read: %w", err)
	default:
		var holder leaseRecord
		if json.Unmarshal(entry.Value(), &holder) != nil {
			holder = leaseRecord{} // edited by hand into nonsense: as if released
		}
		e.lease.saw(holder, entry.Revision(), time.Now())
	}
	asked := time.Now()
	if !e.lease.wants(asked) {
		return nil
	}
	record := e.lease.me
	record.Since, record.Renewals = asked.UTC(), 0
	if h := e.lease.holder; h.Instance == record.Instance {
		record.Since, record.Renewals = h.Since, h.Renewals+1
	}
	body, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	var revision uint64
	if e.lease.revision == 0 {
		revision, err = e.kv.Create(ctx, LeaseKey, body)
	} else {
		revision, err = e.kv.Update(ctx, LeaseKey, body, e.lease.revision)
	}
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return nil // somebody was first, or we ourselves with an answer that got lost: the next read tells
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	e.lease.wrote(record, revision, asked)
	return nil
}

// release is best effort: without it the lease runs out.
func (e *elector) release(ctx context.Context) {
	if !e.lease.leads(time.Now()) {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = e.kv.Update(ctx, LeaseKey, []byte("{}"), e.lease.revision)
}
