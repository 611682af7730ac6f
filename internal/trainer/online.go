package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

// news are rows whose outcome has become known since: claims of LABELS after labels, by their order; or, where silence means good, events
// after events, by theirs, as they are known once they are old enough. A label that comes later still is not learned. Of more than most
// the first are taken. The positions returned are behind what was taken.
func (j *join) news(cutoff time.Time, maturity time.Duration, labels, events uint64, most int) (list []example, toLabels, toEvents uint64) {
	toLabels, toEvents = labels, events
	if maturity == 0 {
		for _, r := range j.rows {
			if v := r.claim.verdict; r.claim.seq > labels && (v == good || v == bad) {
				list = append(list, example{row: r, bad: v == bad})
			}
		}
		slices.SortFunc(list, func(a, b example) int { return cmp.Compare(a.claim.seq, b.claim.seq) })
		list = list[:min(len(list), most)]
		if len(list) > 0 {
			toLabels = list[len(list)-1].claim.seq
		}
		return list, toLabels, toEvents
	}
	rows := j.usable(maturity)
	from, _ := slices.BinarySearchFunc(rows, events+1, func(r *row, seq uint64) int { return cmp.Compare(r.seq, seq) })
	for _, r := range rows[from:] {
		v, silent := r.verdictAt(cutoff, maturity)
		if v == unclaimed || len(list) == most { // none after it is old enough
			break
		}
		toEvents = r.seq
		if v == good || v == bad {
			list = append(list, example{row: r, bad: v == bad, silent: silent})
		}
	}
	return list, toLabels, toEvents
}

// newest known, for a learner at these positions.
type known struct {
	examples       []example
	labels, events uint64
	schema         schemaOf
}

type schemaOf struct {
	*events.Schema
	incarnation time.Time
}

// mostNews are learned at a time, in some 50 ms.
const mostNews = 5000

func (k *kind) news(labels, events uint64) (n known, ready bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.eventsRead || !k.labelsRead {
		return n, false
	}
	n.schema = schemaOf{k.schema, k.incarnation}
	n.examples, n.labels, n.events = k.join.news(k.cutoff(), time.Duration(k.schema.Contract.Maturity), labels, events, mostNews)
	for i := range n.examples { // a row's claim may change while it is learned
		row := *n.examples[i].row
		n.examples[i].row = &row
	}
	return n, true
}

// onliner teaches the members that learn online, and publishes what they know. It belongs to one goroutine of a leader's term.
type onliner struct {
	trainer  *Trainer
	js       jetstream.JetStream
	registry *model.Registry
	kinds    map[string]*taught
}

// taught is the member online of a kind's champion.
type taught struct {
	champion  int // 0: none yet
	schema    schemaOf
	predictor *model.Predictor // nil: the champion has no such member
	learner   *learner
	scratch   model.Scratch
	labels    uint64 // learned up to here
	events    uint64 // likewise
	rows      int

	changed   bool // since it was published
	published time.Time
}

// again is after how long a snapshot that has not changed is published again, as a sign of life: less than half of the scorers' lease.
const again = 20 * time.Second

// teach works until ctx ends.
func (t *Trainer) teach(ctx context.Context, js jetstream.JetStream, registry *model.Registry) {
	o := &onliner{trainer: t, js: js, registry: registry, kinds: map[string]*taught{}}
	tick := time.NewTicker(t.cfg.Snapshots)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, k := range t.sortedKinds() {
			if err := o.step(ctx, k, time.Now()); err != nil && ctx.Err() == nil {
				t.trouble(fmt.Errorf("the member online of %s: %w", k.name, err))
			}
		}
	}
}

// step learns what has become known, and publishes.
func (o *onliner) step(ctx context.Context, k *kind, now time.Time) error {
	rollout, _, err := o.registry.Rollout(ctx, k.name)
	if err != nil {
		return err
	}
	m := o.kinds[k.name]
	if m == nil {
		m = &taught{}
		o.kinds[k.name] = m
	}
	n, ready := k.news(m.labels, m.events)
	if !ready || rollout.Champion == 0 {
		return nil
	}
	if m.champion != rollout.Champion || m.schema != n.schema {
		if m, err = o.begin(ctx, k.name, rollout.Champion, n.schema); err != nil {
			return err
		}
		o.kinds[k.name] = m
		n, _ = k.news(m.labels, m.events)
	}
	if m.predictor == nil {
		return nil
	}
	if err := m.learn(n); err != nil {
		return err
	}
	if !m.changed && now.Sub(m.published) < again {
		return nil
	}
	return o.publish(ctx, k.name, m, now)
}

// begin goes on from what the champion's artifact has.
func (o *onliner) begin(ctx context.Context, kind string, champion int, schema schemaOf) (*taught, error) {
	m := &taught{champion: champion, schema: schema}
	a, err := o.registry.Get(ctx, kind, champion)
	if errors.Is(err, model.ErrArtifact) || errors.Is(err, model.ErrNoVersion) {
		return m, nil // whoever put it in force is told by the scorers
	}
	if err != nil || a.Ensemble == nil {
		return m, err
	}
	for _, member := range a.Ensemble.Members {
		if member.Kind != model.KindOnline {
			continue
		}
		online, err := model.ReadOnline(member)
		if err != nil {
			return m, err
		}
		if m.learner, err = resumed(online, a.Ensemble.Forget); err != nil {
			return m, err
		}
		if m.predictor, err = model.Compile(a, schema.Schema); err != nil {
			return m, err
		}
	}
	if t := a.Training; t.Stream == events.EventsStream(kind) && t.Incarnation.Equal(schema.incarnation) {
		m.labels, m.events = t.LabelsSeq, t.LastSeq
	}
	m.changed = true
	return m, nil
}

func (m *taught) learn(n known) error {
	var rec events.Record
	logits := make([]float64, len(m.predictor.Members()))
	remembers := fingerprint(n.schema.Schema)
	m.labels, m.events = n.labels, n.events
	for _, e := range n.examples {
		if e.fingerprint != remembers || n.schema.Decode(e.encoding, e.body, &rec) != nil {
			continue
		}
		rec.SetMemory(e.memory)
		if rec.Time.IsZero() {
			rec.Time = e.stored
		}
		y := 0.0
		if e.bad {
			y = 1
		}
		x := m.predictor.Logits(logits, &rec, &m.scratch)
		z, err := m.learner.learn(x, y)
		if err != nil {
			return err
		}
		m.learner.level.learn(m.predictor.Fuse(logits, z), y)
		m.rows++
		m.changed = true
	}
	return nil
}

// publish appends to ONLINE. If its answer is lost the snapshot is there or not; the next one follows either way.
func (o *onliner) publish(ctx context.Context, kind string, m *taught, now time.Time) error {
	online, err := m.learner.online()
	if err != nil {
		return err
	}
	online.State, online.Covariance = nil, [3]float64{}
	online.Intercept = float64(float32(online.Intercept))
	for j, w := range online.Weights {
		online.Weights[j] = float64(float32(w)) // a third of the bytes
	}
	s := model.Snapshot{Format: model.SnapshotFormat, Kind: kind, Version: m.champion, Labels: m.labels, Events: m.events, Rows: m.rows, Created: now.UTC(), Online: online}
	if signer := o.trainer.cfg.Signer; signer != nil {
		if err := s.Sign(signer); err != nil {
			return err
		}
	}
	body, err := s.Encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if _, err := o.js.Publish(ctx, events.OnlineSubject(kind), body, jetstream.WithExpectStream(events.OnlineStream)); err != nil {
		return fmt.Errorf("publish a snapshot: %w", err)
	}
	m.changed, m.published = false, now
	return nil
}

const publishTimeout = 5 * time.Second
