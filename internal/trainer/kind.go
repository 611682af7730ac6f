package trainer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

// kindsSession bounds how long one watch of KINDS is trusted; the next one reads all of it again.
const kindsSession = 30 * time.Second

// followKinds starts and stops the readers of kinds as they are declared and deleted, until ctx ends.
func (t *Trainer) followKinds(ctx context.Context, js jetstream.JetStream, kv jetstream.KeyValue, running *sync.WaitGroup) {
	wait := readerRetryMin
	for ctx.Err() == nil {
		err := t.watchKinds(ctx, js, kv, running)
		if err == nil || ctx.Err() != nil {
			wait = readerRetryMin
			continue
		}
		t.trouble(fmt.Errorf("watch %s: %w", events.KindsBucket, err))
		pause(ctx, wait)
		wait = min(2*wait, readerRetryMax)
	}
}

func (t *Trainer) watchKinds(ctx context.Context, js jetstream.JetStream, kv jetstream.KeyValue, running *sync.WaitGroup) error {
	watch, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	defer model.EndWatch(watch)
	end := time.NewTimer(kindsSession)
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end.C:
			return nil
		case e, ok := <-watch.Updates():
			if !ok {
				return errors.New("it ended")
			}
			if e != nil {
				t.declare(ctx, js, e, running)
			}
		}
	}
}

// declare takes over an entry of KINDS.
func (t *Trainer) declare(ctx context.Context, js jetstream.JetStream, e jetstream.KeyValueEntry, running *sync.WaitGroup) {
	name := e.Key()
	k := t.kind(name)
	if e.Operation() != jetstream.KeyValuePut {
		if k != nil {
			k.stop()
			t.mu.Lock()
			delete(t.kinds, name)
			t.mu.Unlock()
		}
		return
	}
	if k != nil && k.knows(e.Revision()) {
		return
	}
	contract, err := events.ParseContract(e.Value())
	if err == nil && contract.Kind != name {
		err = fmt.Errorf("it declares kind %q", contract.Kind)
	}
	var schema *events.Schema
	if err == nil {
		schema, err = events.Compile(contract)
	}
	if err != nil {
		t.trouble(fmt.Errorf("%s in %s at revision %d: %w", name, events.KindsBucket, e.Revision(), err))
		return
	}
	if k != nil {
		k.setSchema(schema, e.Revision())
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	k = &kind{trainer: t, name: name, schema: schema, revision: e.Revision(), stop: cancel}
	k.reset()
	t.mu.Lock()
	t.kinds[name] = k
	t.mu.Unlock()
	running.Go(func() {
		defer cancel()
		k.follow(ctx, js)
	})
}

// kind is what is known of one kind.
type kind struct {
	trainer *Trainer
	name    string
	stop    context.CancelFunc

	mu          sync.Mutex
	schema      *events.Schema
	revision    uint64 // of the contract in KINDS
	join        *join
	incarnation time.Time // of EVENTS_<kind>
	// Whether each stream has been read to its end since the beginning: before, labels may be missing that are known.
	eventsRead, labelsRead bool
	labelsWaiting          bool      // LABELS held more when its last message was delivered
	labelStored            time.Time // of that message
	counts                 kindCounts
}

// kindCounts are of the messages that did not get into the join.
type kindCounts struct {
	invalid   int // events that break the contract
	badLabels int // labels that cannot be read
	probes    int
}

func (k *kind) reset() {
	limits := joinLimits{labelled: k.trainer.cfg.MaxRows, silent: k.trainer.cfg.MaxPending, early: k.trainer.cfg.MaxPending}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.join = newJoin(limits)
	k.eventsRead, k.labelsRead, k.labelsWaiting, k.labelStored = false, false, false, time.Time{}
	k.counts = kindCounts{}
}

func (k *kind) knows(revision uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return revision <= k.revision
}

// setSchema changes how events are read from now on, and how those that are held are trained on.
func (k *kind) setSchema(s *events.Schema, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.schema, k.revision = s, revision
}

// follow reads the kind's two streams until ctx ends; again from the beginning when one of them was made anew.
func (k *kind) follow(ctx context.Context, js jetstream.JetStream) {
	owner := k.trainer.cfg.Instance
	for ctx.Err() == nil {
		k.reset()
		round, cancel := context.WithCancelCause(ctx)
		var rec events.Record // of the reader of events
		readers := []*reader{
			{
				js: js, stream: events.EventsStream(k.name), filter: "events." + k.name + ".*.*", owner: owner,
				begin: k.setIncarnation,
				take: func(m jetstream.Msg, at *jetstream.MsgMetadata) {
					k.takeEvent(m, at, &rec)
				},
				idle:    func() { k.mu.Lock(); k.eventsRead = true; k.mu.Unlock() },
				trouble: k.trainer.trouble,
			},
			{
				js: js, stream: events.LabelsStream, filter: "labels." + k.name + ".*", owner: owner,
				begin:   func(time.Time) {},
				take:    k.takeLabel,
				idle:    func() { k.mu.Lock(); k.labelsRead = true; k.mu.Unlock() },
				trouble: k.trainer.trouble,
			},
		}
		var running sync.WaitGroup
		for _, r := range readers {
			running.Go(func() {
				if err := r.run(round); err != nil {
					cancel(err)
				}
			})
		}
		running.Wait()
		if ctx.Err() == nil {
			k.trainer.log.Warn("reading a kind from the beginning", zap.String("kind", k.name), zap.Error(context.Cause(round)))
		}
		cancel(nil)
	}
}

func (k *kind) setIncarnation(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.incarnation = at
}

func (k *kind) takeEvent(m jetstream.Msg, at *jetstream.MsgMetadata, rec *events.Record) {
	k.mu.Lock()
	schema := k.schema
	k.mu.Unlock()
	r, probe, err := readEvent(schema, m, at, k.trainer.cfg.ProbePrefix, rec)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case probe:
		k.counts.probes++
	case err != nil:
		k.counts.invalid++
	default:
		k.join.addEvent(r)
		return
	}
	k.join.pass(at.Sequence.Stream, at.Timestamp)
}

// readEvent makes a row of an event that keeps its contract.
func readEvent(schema *events.Schema, m jetstream.Msg, at *jetstream.MsgMetadata, probePrefix string, rec *events.Record) (r *row, probe bool, err error) {
	where, err := events.ParseStoredEvent(m.Subject())
	if err != nil {
		return nil, false, err
	}
	entity := events.UnescapeEntity(where.Token)
	if probePrefix != "" && strings.HasPrefix(entity, probePrefix) {
		return nil, true, nil
	}
	encoding, err := events.DetectEncoding(m.Headers().Get("Content-Type"), m.Data())
	if err != nil {
		return nil, false, err
	}
	if err := schema.Decode(encoding, m.Data(), rec); err != nil {
		return nil, false, err
	}
	if len(rec.Entity) > 0 && string(rec.Entity) != entity {
		return nil, false, fmt.Errorf("its entity is not that of its subject")
	}
	r = &row{seq: at.Sequence.Stream, stored: at.Timestamp, at: at.Timestamp.Unix(), id: string(rec.ID), body: m.Data(), encoding: encoding}
	if !rec.Time.IsZero() {
		r.at = rec.Time.Unix()
	}
	return r, false, nil
}

func (k *kind) takeLabel(m jetstream.Msg, at *jetstream.MsgMetadata) {
	l, err := readLabel(m, at)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.labelsWaiting, k.labelStored = at.NumPending > 0, at.Timestamp
	if err != nil {
		k.counts.badLabels++
		return
	}
	k.join.addLabel(l)
}

func readLabel(m jetstream.Msg, at *jetstream.MsgMetadata) (labelMsg, error) {
	encoding, err := events.DetectEncoding(m.Headers().Get("Content-Type"), m.Data())
	if err != nil {
		return labelMsg{}, err
	}
	l, err := events.DecodeLabel(encoding, m.Data())
	if err != nil {
		return labelMsg{}, err
	}
	if l.KnownAt.IsZero() {
		l.KnownAt = at.Timestamp
	}
	c := claim{verdict: withdrawn, knownAt: l.KnownAt, seq: at.Sequence.Stream}
	if l.Label != nil {
		c.verdict = good
		if *l.Label == 1 {
			c.verdict = bad
		}
	}
	return labelMsg{id: l.ID, event: l.Seq, claim: c, stored: at.Timestamp}, nil
}

// cutoff is until when labels are known, by the clock of the broker. It needs k.mu.
func (k *kind) cutoff() time.Time {
	if k.labelsWaiting {
		return k.labelStored
	}
	return k.join.newest
}
