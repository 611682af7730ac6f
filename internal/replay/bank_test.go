package replay

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const contractText = `
kind: payment
version: 1
id: id
lanes: 4
fields:
  - {name: amount, type: money, currency: EUR, required: true}
  - {name: channel, type: category}
  - {name: income, type: number, sensitive: true}
prior: 0.02
`

const memoryText = contractText + `
memory:
  features:
    - {name: spent, by: card, take: sum, field: amount, window: 24h}
    - {name: seen, by: card, take: count, window: 1h}
entity: card
`

// bank is a kind on a node of its own, with versions; the test scores by hand.
type bank struct {
	t        *testing.T
	cluster  *testkit.Cluster
	js       natsjs.JetStream
	schema   *events.Schema
	revision uint64
	store    *memory.Store // nil: the contract declares no memory
	versions []*model.Predictor
	rnd      *rand.Rand
	rec      events.Record
	scratch  model.Scratch
	pending  []natsjs.PubAckFuture
	first    uint64 // sequence of the first of pending, once known
	made     int    // events
}

func newBank(t *testing.T, text string) *bank {
	t.Helper()
	const seed = 20260124
	t.Logf("seed %d", seed)
	cluster := testkit.Start(t, 1)
	b := &bank{t: t, cluster: cluster, js: cluster.JetStream(t), rnd: rand.New(rand.NewPCG(seed, 1))}
	if _, err := jetstream.ApplyShared(testkit.Context(t), b.js, jetstream.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	b.declare(text)
	plan, err := memory.Compile(b.schema)
	if err != nil {
		t.Fatal(err)
	}
	if plan != nil {
		b.store = memory.New(plan)
	}
	return b
}

// declare puts a contract in force.
func (b *bank) declare(text string) {
	b.t.Helper()
	contract, err := events.ParseContract([]byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	applied, err := jetstream.ApplyKind(testkit.Context(b.t), b.js, contract, jetstream.Options{Replicas: 1})
	if err != nil {
		b.t.Fatal(err)
	}
	b.revision = applied.Kind.Revision
	if b.schema, err = events.Compile(contract); err != nil {
		b.t.Fatal(err)
	}
}

// publish adds a version, whose weights grow with its number.
func (b *bank) publish() {
	b.t.Helper()
	n := float64(len(b.versions) + 1)
	spec := feature.Spec{Version: feature.SpecVersion, Zone: "UTC", Fields: []feature.Transform{
		{Field: "amount", Kind: feature.Numeric, Mean: 50, SD: 30},
		{Field: "channel", Kind: feature.OneHot, Levels: []string{"", "branch", "web"}},
		{Field: "income", Kind: feature.Numeric, Mean: 2000, SD: 900},
	}}
	if b.store != nil {
		spec.Fields = append(spec.Fields, feature.Transform{Field: "spent", Kind: feature.Numeric, Mean: 100, SD: 70}, feature.Transform{Field: "seen", Kind: feature.Numeric, Mean: 3, SD: 2})
	}
	a := &model.Artifact{
		Format: model.Format, Kind: "payment", Version: 1, Created: time.Unix(0, 0).UTC(), CreatedBy: "test", Code: "test",
		Contract: model.ContractRef{Version: 1}, Scale: model.DefaultScale, Calibration: model.Calibration{Method: model.CalibrationNone},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: -2,
	}
	for j, col := range spec.Columns("") {
		a.Weights = append(a.Weights, model.Weight{Column: col.Name, Field: col.Field, Weight: n * 0.17 * float64(j+1), Baseline: 0.1})
	}
	kv, err := b.js.KeyValue(testkit.Context(b.t), events.ModelsBucket)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := model.NewRegistry(kv).Publish(testkit.Context(b.t), a); err != nil {
		b.t.Fatal(err)
	}
	p, err := model.Compile(a, b.schema)
	if err != nil {
		b.t.Fatal(err)
	}
	b.versions = append(b.versions, p)
}

// events publishes n of them and the scores that scorers would give with a version, 0 being the prior, and returns the sequence of the first.
// Scores come lane by lane in pieces, so that their order is not that of EVENTS. edit may change a score, and says whether it is stored at all.
func (b *bank) events(n, version int, history bool, edit func(i int, s *events.Score) bool) (first uint64) {
	b.t.Helper()
	const piece = 5000
	for at := 0; at < n; at += piece {
		seq := b.piece(at, min(piece, n-at), version, history, edit)
		if first == 0 {
			first = seq
		}
	}
	return first
}

func (b *bank) piece(at, n, version int, history bool, edit func(int, *events.Score) bool) (first uint64) {
	b.t.Helper()
	type sent struct {
		entity string
		body   []byte
	}
	var all []sent
	for i := range n {
		entity := fmt.Sprintf("card %d", b.rnd.IntN(500))
		body := fmt.Sprintf(`{"id":"p%d-%d","amount":"%d.%02d","channel":%q`, version, b.made, b.rnd.IntN(200), b.rnd.IntN(100), []string{"web", "branch", "phone"}[b.rnd.IntN(3)])
		if b.rnd.IntN(3) > 0 {
			body += fmt.Sprintf(`,"income":%d`, b.rnd.IntN(5000))
		}
		b.made++
		all = append(all, sent{entity, []byte(body + "}")})
		subject, err := events.EventSubject("payment", entity)
		if err != nil {
			b.t.Fatal(err)
		}
		msg := &nats.Msg{Subject: subject, Data: all[i].body}
		if history {
			msg.Header = nats.Header{events.HeaderHistory: {"1"}}
		}
		b.send(msg)
	}
	first = b.flush()
	type outcome struct {
		lane    int
		subject string
		body    []byte
	}
	var out []outcome
	i := 0
	stream, err := b.js.Stream(testkit.Context(b.t), "EVENTS_payment")
	if err != nil {
		b.t.Fatal(err)
	}
	cons, err := stream.OrderedConsumer(testkit.Context(b.t), natsjs.OrderedConsumerConfig{DeliverPolicy: natsjs.DeliverByStartSequencePolicy, OptStartSeq: first})
	if err != nil {
		b.t.Fatal(err)
	}
	for i < n {
		batch, err := cons.Fetch(min(1000, n-i))
		if err != nil {
			b.t.Fatal(err)
		}
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				b.t.Fatal(err)
			}
			where, err := events.ParseStoredEvent(m.Subject())
			if err != nil {
				b.t.Fatal(err)
			}
			s := b.score(all[i].entity, all[i].body, meta, version, history)
			if edit == nil || edit(at+i, &s) {
				out = append(out, outcome{where.Lane, events.CommitSubject("payment", s.Band, where.Token), s.Append(nil, []events.Encoding{events.JSON, events.Msgpack}[i%2])})
			}
			i++
		}
		if err := batch.Error(); err != nil {
			b.t.Fatal(err)
		}
	}
	slices.SortStableFunc(out, func(x, y outcome) int { return cmp.Compare(x.lane, y.lane) })
	for _, o := range out {
		b.send(&nats.Msg{Subject: o.subject, Data: o.body})
	}
	b.flush()
	return first
}

func (b *bank) send(m *nats.Msg) {
	b.t.Helper()
	f, err := b.js.PublishMsgAsync(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if b.pending = append(b.pending, f); len(b.pending) == 1000 {
		b.await(b.pending[:500]) // bounds what is in flight
		b.pending = slices.Delete(b.pending, 0, 500)
	}
}

// await waits until what was sent is stored.
func (b *bank) await(sent []natsjs.PubAckFuture) {
	b.t.Helper()
	for _, f := range sent {
		select {
		case ack := <-f.Ok():
			if b.first == 0 {
				b.first = ack.Sequence
			}
		case err := <-f.Err():
			b.t.Fatal(err)
		case <-time.After(20 * time.Second):
			b.t.Fatal("not stored within 20 s")
		}
	}
}

// flush waits until all that was sent is stored, and returns the sequence of the first.
func (b *bank) flush() (first uint64) {
	b.t.Helper()
	b.await(b.pending)
	first, b.first, b.pending = b.first, 0, b.pending[:0]
	return first
}

// score is what a scorer does.
func (b *bank) score(entity string, body []byte, at *natsjs.MsgMetadata, version int, history bool) events.Score {
	b.t.Helper()
	if err := b.schema.Decode(events.JSON, body, &b.rec); err != nil {
		b.t.Fatal(err)
	}
	if b.store != nil {
		out := make([]float64, b.store.Plan().Width())
		if v := b.store.Step(memory.Event{Record: &b.rec, Entity: []byte(entity), Stored: at.Timestamp, Seq: at.Sequence.Stream}, out); v.Repeated() {
			b.t.Fatalf("event %d repeats %d", at.Sequence.Stream, v.First)
		}
		b.rec.SetMemory(out)
	}
	b.rec.Time = at.Timestamp
	p, name, mode := model.Prior(&b.schema.Contract), "", events.ModePrior
	if version > 0 {
		p, name, mode = b.versions[version-1], model.Name("payment", version), events.ModeModel
	}
	r := p.Score(&b.rec, &b.scratch)
	s := events.Score{ID: string(b.rec.ID), Seq: at.Sequence.Stream, Kind: "payment", Entity: entity, P: r.P, Points: r.Points, Reasons: slices.Clone(r.Reasons),
		Band: b.schema.Contract.Band(r.P), Model: name, Contract: b.revision, Mode: mode, Time: at.Timestamp}
	s.Decision = b.schema.Contract.Decide(s.Mode, s.Band)
	if history {
		s.Band, s.Decision = events.BandHistory, events.None
	}
	return s
}

func (b *bank) config() Config { return Config{JS: b.js, Kind: "payment"} }

func (b *bank) assert(cfg Config) Equality {
	b.t.Helper()
	// A long run is many times what a test may take.
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*testkit.Deadline)
	defer cancel()
	e, err := AssertEqual(ctx, cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	for name, m := range e.Models {
		sum := m.Equal + m.Different
		for _, n := range m.Not {
			sum += n
		}
		if sum != m.Stored {
			b.t.Errorf("%s: %+v: want stored = equal + different + not comparable", name, m)
		}
	}
	return e
}

func (b *bank) delete(stream string, seq uint64) {
	b.t.Helper()
	s, err := b.js.Stream(testkit.Context(b.t), stream)
	if err == nil {
		err = s.DeleteMsg(testkit.Context(b.t), seq)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}
