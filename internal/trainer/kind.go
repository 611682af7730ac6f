package trainer

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/tail"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// followKinds reads the streams of every kind that is declared, until ctx ends.
func (t *Trainer) followKinds(ctx context.Context, js jetstream.JetStream, catalog *topology.Catalog, running *sync.WaitGroup) {
	for {
		changed := catalog.Changed()
		for _, name := range catalog.Names() {
			if schema, revision, ok := catalog.Schema(name); ok {
				t.declare(ctx, js, schema, revision, running)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// declare takes over a kind's contract, and begins to read a kind that is new.
func (t *Trainer) declare(ctx context.Context, js jetstream.JetStream, schema *events.Schema, revision uint64, running *sync.WaitGroup) {
	name := schema.Contract.Kind
	if k := t.kind(name); k != nil {
		k.setSchema(schema, revision)
		return
	}
	k := &kind{trainer: t, name: name, schema: schema, revision: revision}
	k.reset()
	t.mu.Lock()
	t.kinds[name] = k
	t.mu.Unlock()
	running.Go(func() { k.follow(ctx, js) })
}

// kind is what is known of one kind.
type kind struct {
	trainer *Trainer
	name    string

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
	// Of the round of reading under way; nil: the contract declares no memory.
	memory *remembering
	again  context.CancelCauseFunc // ends the round, for another to begin; nil: there is none
}

// remembering folds the events of one round of reading.
type remembering struct {
	recall.Folder
	unknown uint64 // events up to this sequence were remembered before EVENTS begins, and their features are not known
	out     []float64
}

// errRemember: the contract declares another memory, under which all is read again.
var errRemember = errors.New("the contract declares another memory")

// kindCounts are of the messages that did not get into the join.
type kindCounts struct {
	invalid   int // events that break the contract
	badLabels int // labels that cannot be read
	badKnown  int // messages that tell the log of labels, and cannot be read
	mute      int // events of which the log cannot be told: see memory.Plan.Tell, and readsBack
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

// setSchema changes how events are read from now on, and how those that are held are trained on.
func (k *kind) setSchema(s *events.Schema, revision uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.schema, k.revision = s, revision
	if k.again != nil && fingerprint(s) != k.memory.fingerprint() {
		k.again(errRemember)
	}
}

// declared is the schema of the contract as it is now.
func (k *kind) declared() *events.Schema {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.schema
}

// fingerprint of the schema's memory, "" if there is none.
func fingerprint(s *events.Schema) string {
	p, err := memory.Compile(s)
	if p == nil || err != nil {
		return ""
	}
	return p.Fingerprint()
}

func (m *remembering) fingerprint() string {
	if m == nil {
		return ""
	}
	return m.Store.Plan().Fingerprint()
}

// remember makes the memory ready for a round of reading from the beginning.
func (k *kind) remember(ctx context.Context, js jetstream.JetStream, again context.CancelCauseFunc) error {
	k.mu.Lock()
	schema := k.schema
	k.memory, k.again = nil, again
	k.mu.Unlock()
	plan, err := memory.Compile(schema)
	if plan == nil || err != nil {
		return err
	}
	b, err := recall.BeginOldest(ctx, js, plan, k.trainer.trouble)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if plan.HasLabels() {
		k.join.telling.plan = plan
	}
	k.memory = &remembering{Folder: recall.Folder{Store: b.Store}, unknown: b.Place.Seq, out: make([]float64, plan.Width())}
	if fingerprint(k.schema) != plan.Fingerprint() {
		return errRemember
	}
	return nil
}

// follow reads the kind's two streams until ctx ends; again from the beginning when one of them was made anew.
func (k *kind) follow(ctx context.Context, js jetstream.JetStream) {
	owner := k.trainer.cfg.Instance
	for ctx.Err() == nil {
		k.reset()
		round, cancel := context.WithCancelCause(ctx)
		if err := k.remember(round, js, cancel); err != nil {
			cancel(err)
			if ctx.Err() == nil {
				k.trainer.trouble(err)
				tail.Pause(ctx, time.Second)
			}
			continue
		}
		var rec events.Record // of the reader of events
		filter := "events." + k.name + ".*.*"
		if k.join.telling.plan != nil { // set by nobody but remember
			filter = events.KnownFilter(k.name)
		}
		readers := []*tail.Reader{
			{
				JS: js, Name: "trainer", Stream: events.EventsStream(k.name), Filter: filter, Owner: owner,
				Begin: k.setIncarnation,
				Take: func(m tail.Message, at *jetstream.MsgMetadata) {
					k.takeEvent(m, at, &rec)
				},
				Idle:    func() { k.mu.Lock(); k.eventsRead = true; k.mu.Unlock() },
				Trouble: k.trainer.trouble,
			},
			{
				JS: js, Name: "trainer", Stream: events.LabelsStream, Filter: "labels." + k.name + ".*", Owner: owner,
				Begin:   func(time.Time) {},
				Take:    k.takeLabel,
				Idle:    func() { k.mu.Lock(); k.labelsRead = true; k.mu.Unlock() },
				Trouble: k.trainer.trouble,
			},
		}
		var running sync.WaitGroup
		for _, r := range readers {
			running.Go(func() {
				if err := r.Run(round); err != nil {
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

func (k *kind) takeEvent(m tail.Message, at *jetstream.MsgMetadata, rec *events.Record) {
	k.mu.Lock()
	schema, mem := k.schema, k.memory
	k.mu.Unlock()
	remembered, again := mem.take(m, at)
	switch {
	case events.IsKnown(m.Subject()):
		k.takeKnown(m, at)
		return
	case !strings.HasPrefix(m.Subject(), "events."):
		return // how far a file has been ingested
	}
	r, probe, err := readEvent(schema, m, at, k.trainer.cfg.ProbePrefix, rec)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case probe:
		k.counts.probes++
	case err != nil:
		k.counts.invalid++
	case again:
		k.join.stats.duplicate++
	case mem != nil && !remembered: // its features are not known
	default:
		if mem != nil {
			r.memory, r.fingerprint = slices.Clone(mem.out), mem.fingerprint()
		}
		k.join.addEvent(r)
		return
	}
	k.join.pass(at.Sequence.Stream, at.Timestamp)
}

// take folds an event and leaves its features in out, if they are known. again: an earlier event has its id.
func (m *remembering) take(msg tail.Message, at *jetstream.MsgMetadata) (known, again bool) {
	if m == nil || at.Sequence.Stream <= m.unknown {
		return false, false
	}
	v, err := m.Step(at.Sequence.Stream, msg.Subject(), msg.Headers().Get("Content-Type"), msg.Data(), at.Timestamp, m.out)
	return err == nil, v.Repeated()
}

// readEvent makes a row of an event that keeps its contract.
func readEvent(schema *events.Schema, m tail.Message, at *jetstream.MsgMetadata, probePrefix string, rec *events.Record) (r *row, probe bool, err error) {
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
		return nil, false, errors.New("its entity is not that of its subject")
	}
	r = &row{told: told{entity: entity}, seq: at.Sequence.Stream, stored: at.Timestamp, at: at.Timestamp.Unix(), id: string(rec.ID), body: m.Data(), encoding: encoding}
	if !rec.Time.IsZero() {
		r.at = rec.Time.Unix()
	}
	return r, false, nil
}

func (k *kind) takeLabel(m tail.Message, at *jetstream.MsgMetadata) {
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

func readLabel(m tail.Message, at *jetstream.MsgMetadata) (labelMsg, error) {
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
