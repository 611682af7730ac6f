package replay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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

// Scores of three versions, of the prior and of history, in another order than their events, are what their version computes. RISKWEIR_REPLAY says
// how many, for a long run.
func TestStoredScoresAreEqual(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			n := 3000
			if s := os.Getenv("RISKWEIR_REPLAY"); s != "" {
				var err error
				if n, err = strconv.Atoi(s); err != nil {
					t.Fatal(err)
				}
			}
			b := newBank(t, text)
			b.events(100, 0, false, nil)
			want := map[string]uint64{prior: 100}
			for v := range 3 {
				b.publish()
				if v == 2 { // the same events under another revision
					b.declare(strings.NewReplacer("version: 1", "version: 2", "prior: 0.02", "prior: 0.03\nthresholds: {medium: 0.03, high: 0.7}").Replace(text))
				}
				part := (n + 2) / 3
				b.events(part, v+1, v == 1, nil)
				want[model.Name("payment", v+1)] = uint64(part)
			}
			began := time.Now()
			e := b.assert(b.config())
			t.Logf("%d compared in %s", e.Compared, time.Since(began).Round(time.Millisecond))
			total := uint64(0)
			for name, n := range want {
				total += n
				if m := e.Models[name]; m == nil || m.Equal != n || m.Stored != n {
					t.Errorf("%s: %+v, want %d equal", name, m, n)
				}
			}
			if !e.OK() || e.Compared != total || e.Not != 0 || len(e.Differences) > 0 {
				t.Errorf("%s\nwant %d equal", e, total)
			}
			cfg := b.config()
			if cfg.window = 64; n <= 3000 {
				if e := b.assert(cfg); !e.OK() || e.Compared != total {
					t.Errorf("by windows of 64: %s", e)
				}
			}
			cfg.window, cfg.Model = 0, 2
			if e := b.assert(cfg); !e.OK() || e.Compared != want["payment.v000002"] || len(e.Models) != 1 {
				t.Errorf("of version 2: %s", e)
			}
			cfg.Model, cfg.From.Seq, cfg.To.Seq = 0, 51, 150
			if e := b.assert(cfg); !e.OK() || e.Compared != 100 || e.Models[prior].Equal != 50 {
				t.Errorf("of events 51 to 150: %s", e)
			}
		})
	}
}

// One bit of each part of a score is found, and named.
func TestFindsWhatIsAltered(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			alter := map[int]func(*events.Score){
				17: func(s *events.Score) { s.P = math.Float64frombits(math.Float64bits(s.P) ^ 1) },
				40: func(s *events.Score) { s.Points ^= 1 },
				41: func(s *events.Score) { s.Band = events.BandHistory },
				77: func(s *events.Score) {
					s.Decision = map[bool]string{true: events.Approve, false: events.Decline}[s.Decision == events.Decline]
				},
				130: func(s *events.Score) { s.ID += "x" },
				131: func(s *events.Score) { s.Model = "nonsense" },
				132: func(s *events.Score) { s.Seq = 1 << 40 },
				133: func(s *events.Score) { s.Seq += 300 },
				134: func(s *events.Score) { s.Time = s.Time.Add(time.Nanosecond) },
				135: func(s *events.Score) { s.Kind = "loan" },
				136: func(s *events.Score) {
					// Neither band nor decision say so: what is decided on a prior is as if it had been that.
					s.Mode, s.Decision = events.ModePrior, b.schema.Contract.Decisions.Prior
				},
				210: func(s *events.Score) {
					s.Reasons = slices.Clone(s.Reasons)
					if len(s.Reasons) == 0 {
						s.Reasons = []events.Reason{{Field: "amount", Add: 1}}
						return
					}
					s.Reasons[0].Add = math.Float64frombits(math.Float64bits(s.Reasons[0].Add) ^ 1)
				},
			}
			want := map[int]string{17: "p", 40: "points", 41: "band", 77: "decision", 130: "id", 131: "it names the model", 132: "EVENTS never held its event", 133: "EVENTS never held its event", 134: "time", 135: "kind", 136: "mode", 210: "reasons"}
			first := b.events(300, 1, false, func(i int, s *events.Score) bool {
				if f := alter[i]; f != nil {
					f(s)
				}
				return true
			})
			e := b.assert(b.config())
			if e.OK() || e.Different != uint64(len(alter)) || e.Equal != 300-uint64(len(alter)) || len(e.Differences) != len(alter) {
				t.Fatalf("%s\nwant %d different", e, len(alter))
			}
			for _, d := range e.Differences {
				i := int(d.Event - first)
				switch {
				case d.Event == 1<<40:
					i = 132
				case i > 300:
					i -= 300
				}
				if len(d.What) != 1 || !strings.HasPrefix(d.What[0], want[i]) || d.Outcome == 0 {
					t.Errorf("event %d: %+v, want %q", i, d, want[i])
				}
			}
			if text := e.String(); !strings.Contains(text, fmt.Sprintf("of event %d, p1-17 of", first+17)) || !strings.Contains(text, fmt.Sprintf("different=%d ", len(alter))) {
				t.Errorf("the text does not name it:\n%s", text)
			}
			cfg := b.config()
			cfg.window, cfg.Differences = 7, 2
			if e := b.assert(cfg); len(e.Differences) != 2 || !strings.Contains(e.String(), fmt.Sprintf("... and %d more", len(alter)-2)) {
				t.Errorf("two of the differences: %s", e)
			}
		})
	}
}

// What a score names may be gone: then it is neither equal nor different.
func TestNotComparable(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.publish()
			first := b.events(200, 1, false, func(i int, s *events.Score) bool {
				if i == 190 {
					s.Contract = 4000 // which KINDS does not hold
				}
				return true
			})
			b.events(50, 2, false, nil)
			last := b.events(1, 1, false, nil)
			// The last of its card, so that no other event's memory is of it.
			b.delete("EVENTS_payment", last)
			kv, err := b.js.KeyValue(testkit.Context(t), events.ModelsBucket)
			if err == nil {
				err = kv.Delete(testkit.Context(t), "payment.v000002")
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg := b.config()
			cfg.window = 16
			e := b.assert(cfg)
			one, two := e.Models["payment.v000001"], e.Models["payment.v000002"]
			if !e.OK() || e.Not != 52 || one.Equal != 199 || one.Not[whyLeft] != 1 || one.Not[whyContract] != 1 || two.Not[whyGone] != 50 {
				t.Fatalf("%s", e)
			}
			cfg.Model = 2
			if e := b.assert(cfg); e.OK() || e.Compared != 0 || !strings.Contains(e.String(), "proves nothing") {
				t.Errorf("nothing to compare: %s", e)
			}
			if b.store != nil {
				return // what is remembered of the first ones is gone with them
			}
			for i := range uint64(101) {
				b.delete("EVENTS_payment", first+i)
			}
			if e := b.assert(b.config()); !e.OK() || e.Models["payment.v000001"].Not[whyLeft] != 102 || e.Models["payment.v000001"].Equal != 98 {
				t.Errorf("after half of EVENTS had left: %s", e)
			}
		})
	}
}

// A score of an event that breaks the contract, or repeats another, is a difference.
func TestScoresThatShouldNotBe(t *testing.T) {
	b := newBank(t, memoryText)
	b.publish()
	var s events.Score
	b.events(1, 1, false, func(_ int, x *events.Score) bool { s = *x; return true })
	for i, body := range []string{`{"id":"bad"}`, ""} {
		if body == "" { // the first once more
			stream, err := b.js.Stream(testkit.Context(t), "EVENTS_payment")
			if err != nil {
				t.Fatal(err)
			}
			m, err := stream.GetMsg(testkit.Context(t), s.Seq)
			if err != nil {
				t.Fatal(err)
			}
			body = string(m.Data)
		}
		subject, err := events.EventSubject("payment", s.Entity)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := b.js.Publish(testkit.Context(t), subject, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		again := s
		again.Seq = ack.Sequence
		token, err := events.EscapeEntity(s.Entity)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.js.Publish(testkit.Context(t), events.CommitSubject("payment", again.Band, token), again.Append(nil, events.JSON)); err != nil {
			t.Fatal(err)
		}
		e := b.assert(b.config())
		if want := []string{"its event is not one", "its event repeats event"}[i]; e.Different != uint64(i+1) || !strings.HasPrefix(e.Differences[i].What[0], want) {
			t.Errorf("%s\nwant %q", e, want)
		}
	}
}

// sameCents allows for amounts that no float64 is.
func sameCents(amount float64, cents int) bool { return math.Abs(amount*100-float64(cents)) < 1e-6 }

// The numbers of a comparison are those of a plain loop over the scores.
func TestAgainst(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.publish()
			var p, q, y []float64
			var label []string
			var cents [4][4]int // by both versions' decisions
			var atStake []int   // of each event
			decided := func(p float64) int {
				return index(decisions[:], b.schema.Contract.Decide(events.ModeModel, b.schema.Contract.Band(p)))
			}
			first := b.events(400, 1, false, func(i int, s *events.Score) bool {
				p = append(p, s.P)
				q = append(q, b.versions[1].Score(&b.rec, &b.scratch).P)
				atStake = append(atStake, int(math.Round(b.rec.Values[0].Num*100)))
				cents[decided(p[i])][decided(q[i])] += atStake[i]
				return true
			})
			var badCents [4][4]int // likewise, of events labelled bad
			for i := range 400 {
				bad := b.rnd.Float64() < 0.3+0.5*q[i]
				truth := 0
				if bad {
					truth = 1
				}
				if i%4 == 3 {
					continue // no label
				}
				name := fmt.Sprintf(`"id":"p1-%d"`, i)
				if i%4 == 1 {
					name = fmt.Sprintf(`"seq":%d`, first+uint64(i))
				}
				label = append(label, fmt.Sprintf(`{%s,"label":%d,"known_at":"2026-01-02T00:00:00Z"}`, name, 1-truth), // which is not the last word
					fmt.Sprintf(`{%s,"label":%d,"known_at":"2026-01-03T00:00:00Z"}`, name, truth))
				if i%4 == 2 {
					label = append(label, fmt.Sprintf(`{%s,"label":null,"known_at":"2026-01-04T00:00:00Z"}`, name))
					continue
				}
				y = append(y, float64(truth))
				badCents[decided(p[i])][decided(q[i])] += truth * atStake[i]
				p[len(y)-1], q[len(y)-1] = p[i], q[i]
			}
			for _, l := range label {
				b.send(&nats.Msg{Subject: "labels.payment.any", Data: []byte(l)})
			}
			b.send(&nats.Msg{Subject: "labels.other.any", Data: []byte(`{"id":"p1-3","label":1}`)})
			b.send(&nats.Msg{Subject: "labels.payment.any", Data: []byte(`nonsense`)})
			b.flush()
			cfg := b.config()
			cfg.Model, cfg.Against = 1, 2
			r, err := Run(testkit.Context(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := r.Against
			if r.Scored != 400 || c == nil || c.Labels == nil || c.Labels.N != len(y) || c.Labels.Share != 1 {
				t.Fatalf("%s", r)
			}
			for i, x := range [][]float64{p[:len(y)], q[:len(y)]} {
				auc, err := lr.AUC(y, x)
				if err != nil {
					t.Fatal(err)
				}
				loss, err := lr.LogLoss(y, x)
				if err != nil {
					t.Fatal(err)
				}
				if c.Labels.AUC.AUC[i] != auc || c.Labels.LogLoss[i] != loss {
					t.Errorf("version %d: AUC %v, log-loss %v: want %v, %v", i+1, c.Labels.AUC.AUC[i], c.Labels.LogLoss[i], auc, loss)
				}
			}
			sum, moved := uint64(0), uint64(0)
			for i, row := range c.Bands {
				for j, n := range row {
					sum += n
					if i != j {
						moved += n
					}
				}
			}
			if sum != 400 || moved != c.Moved || moved == 0 {
				t.Errorf("bands %v, moved %d", c.Bands, c.Moved)
			}
			if d := c.Against.MeanLogit - r.Of.MeanLogit; math.Abs(d-c.Shift) > 1e-9 || c.Shift == 0 || c.ShiftSD == 0 {
				t.Errorf("shift %v, means differ by %v, deviation %v", c.Shift, d, c.ShiftSD)
			}
			all, movedCents := 0, 0
			for i, row := range cents {
				for j, n := range row {
					if all += n; i != j {
						movedCents += n
					}
					if stake := c.Stake; !sameCents(stake.Decisions[i][j], n) || !sameCents(stake.Bad[i][j], badCents[i][j]) {
						t.Errorf("%s to %s: %v, of it bad %v: want %d and %d cents", decisions[i], decisions[j], stake.Decisions[i][j], stake.Bad[i][j], n, badCents[i][j])
					}
				}
			}
			if s := c.Stake; movedCents == 0 || !sameCents(s.All, all) || !sameCents(s.Moved, movedCents) || s.Without != 0 || s.Field != "amount" || s.Unit != "EUR" {
				t.Errorf("at stake %+v: want %d of %d cents", s, movedCents, all)
			}
			var pic bytes.Buffer
			if err := r.SVG(&pic); err != nil {
				t.Fatal(err)
			}
			for dec := xml.NewDecoder(&pic); ; {
				if _, err := dec.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("the picture is no XML: %v", err)
				}
			}
			for _, want := range []string{"payment.v000001", "bands moved", "decisions moved", "AUC", "log-loss", fmt.Sprintf("at stake, amount of the events whose decision moved: %d.%02d of ", movedCents/100, movedCents%100), "of it labelled bad"} {
				if !strings.Contains(r.String(), want) {
					t.Errorf("no %q in\n%s", want, r)
				}
			}

			cfg.Labels = 60
			if r, err = Run(testkit.Context(t), cfg); err != nil {
				t.Fatal(err)
			}
			if l := r.Against.Labels; l == nil || l.Share > 0.25 || l.N == 0 || l.N >= 60 {
				t.Errorf("with 60 labels at most: %+v", l)
			}
			cfg.Against = cfg.Model
			if r, err = Run(testkit.Context(t), cfg); err != nil || r.Against.Moved != 0 || r.Against.Shift != 0 || r.Against.Labels.LogLoss[0] != r.Against.Labels.LogLoss[1] {
				t.Errorf("against itself: %v\n%s", err, r)
			}
		})
	}
}

// behind is a cluster where a consumer finds nothing on its replica as it is made, which catches up later.
type behind struct{ natsjs.JetStream }

type consumerBehind struct {
	natsjs.Consumer
	info natsjs.ConsumerInfo
}

func (c consumerBehind) CachedInfo() *natsjs.ConsumerInfo { return &c.info }

func (b behind) CreateConsumer(ctx context.Context, stream string, cfg natsjs.ConsumerConfig) (natsjs.Consumer, error) {
	c, err := b.JetStream.CreateConsumer(ctx, stream, cfg)
	if err != nil {
		return nil, err
	}
	info := *c.CachedInfo()
	info.NumPending = 0
	return consumerBehind{c, info}, nil
}

// What a replica has not got yet is not left out.
func TestReplicaBehind(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.events(300, 1, false, nil)
			cfg := b.config()
			cfg.JS, cfg.Model, cfg.Against = behind{b.js}, 1, 1
			r, err := Run(testkit.Context(t), cfg)
			if err != nil || r.Scored != 300 || r.Against.Bands[0][0]+r.Against.Bands[1][1]+r.Against.Bands[2][2] != 300 {
				t.Errorf("%v\n%s", err, r)
			}
			cfg.Against = 0
			if e := b.assert(cfg); !e.OK() || e.Compared != 300 {
				t.Errorf("%s", e)
			}
		})
	}
}

// What one replica did not find is gone only if the leader says so.
func TestIsGone(t *testing.T) {
	here := tail.Held{Subject: "$KV.MODELS.payment.v000001", Seq: 7}
	deleted, other := here, here
	deleted.Header = nats.Header{"KV-Operation": {"DEL"}}
	other.Subject = "$KV.MODELS.payment.v000002"
	for _, x := range []struct {
		name string
		held tail.Held
		err  error
		want string
	}{
		{"none", tail.Held{}, tail.ErrNone, ""},
		{"deleted", deleted, nil, ""},
		{"another key", other, nil, ""},
		{"there", here, nil, "MODELS has payment.v000001 at revision 7, and a replica that is behind did not: try again"},
		{"no answer", tail.Held{}, errors.New("no answer"), "no answer"},
	} {
		if err := isGone(x.held, x.err, "MODELS", "payment.v000001"); (err == nil) != (x.want == "") || err != nil && err.Error() != x.want {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

func TestRangeByTime(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	first := b.events(20, 1, false, nil)
	stream, err := b.js.Stream(testkit.Context(t), "EVENTS_payment")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(testkit.Context(t), first+8)
	if err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.Model = 1
	for _, x := range []struct {
		from, to Bound
		want     uint64
	}{
		{Bound{Time: m.Time}, Bound{}, 12},
		{Bound{}, Bound{Time: m.Time}, 8},
		{Bound{Time: m.Time}, Bound{Seq: first + 9}, 2},
		{Bound{Time: m.Time.Add(time.Hour)}, Bound{}, 0},
		{Bound{Seq: 5}, Bound{Seq: 4}, 0},
		{Bound{Seq: 1 << 50}, Bound{}, 0},
	} {
		cfg.From, cfg.To = x.from, x.to
		r, err := Run(testkit.Context(t), cfg)
		if err != nil || r.Scored != x.want {
			t.Errorf("%+v to %+v: %d scored, %v: want %d", x.from, x.to, r.Scored, err, x.want)
		}
	}
}

func TestCannotBeDone(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	b.events(3, 1, false, nil)
	cfg := b.config()
	cfg.Model = 7
	if _, err := Run(testkit.Context(t), cfg); !errors.Is(err, model.ErrNoVersion) {
		t.Errorf("version 7: %v, want ErrNoVersion", err)
	}
	cfg.Model, cfg.Against = 1, 7
	if _, err := Run(testkit.Context(t), cfg); !errors.Is(err, model.ErrNoVersion) {
		t.Errorf("against version 7: %v, want ErrNoVersion", err)
	}
	cfg.Against = 1
	for _, x := range [][2]string{{"income", "sensitive"}, {"channel", "category"}, {"nothing", "no field nothing"}} {
		cfg.Amount = x[0]
		if _, err := Run(testkit.Context(t), cfg); err == nil || !strings.Contains(err.Error(), x[1]) {
			t.Errorf("amount %s: %v, want %s", x[0], err, x[1])
		}
	}
	cfg.Kind = "nothing"
	if _, err := AssertEqual(testkit.Context(t), cfg); err == nil {
		t.Error("a kind that is not there: no error")
	}
	for _, bad := range []string{"", "0", "yesterday", "-4"} {
		if _, err := ParseBound(bad); err == nil {
			t.Errorf("bound %q: no error", bad)
		}
	}
	for text, want := range map[string]int{"v3": 3, "3": 3, "payment.v000003": 3, "loan.v000003": 0, "v0": 0, "x": 0, "": 0, "v1000000": 0} {
		if got, err := ParseVersion("payment", text); got != want || (err == nil) != (want > 0) {
			t.Errorf("version %q: %d, %v: want %d", text, got, err, want)
		}
	}
}
