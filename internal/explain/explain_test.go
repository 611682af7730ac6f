package explain

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

const contractText = `
kind: payment
version: 1
id: id
lanes: 2
fields:
  - {name: amount, type: money, currency: EUR, required: true}
  - {name: channel, type: category}
  - {name: income, type: number, sensitive: true}
prior: 0.02
`

// bank is a kind with a published model, on a node of its own; the test scores by hand.
type bank struct {
	t         *testing.T
	js        natsjs.JetStream
	schema    *events.Schema
	revision  uint64
	predictor *model.Predictor
	name      string
	store     *memory.Store // nil: the contract declares no memory
}

func newBank(t *testing.T) *bank { return newBankOf(t, contractText) }

func newBankOf(t *testing.T, contractText string, remembered ...feature.Transform) *bank {
	t.Helper()
	c := testkit.Start(t, 1)
	b := &bank{t: t, js: c.JetStream(t)}
	contract, err := events.ParseContract([]byte(contractText))
	if err != nil {
		t.Fatal(err)
	}
	ctx, o := testkit.Context(t), jetstream.Options{Replicas: 1}
	if _, err := jetstream.ApplyShared(ctx, b.js, o); err != nil {
		t.Fatal(err)
	}
	applied, err := jetstream.ApplyKind(ctx, b.js, contract, o)
	if err != nil {
		t.Fatal(err)
	}
	b.revision = applied.Kind.Revision
	if b.schema, err = events.Compile(contract); err != nil {
		t.Fatal(err)
	}
	spec := feature.Spec{Version: feature.SpecVersion, Zone: "UTC", Fields: []feature.Transform{
		{Field: "amount", Kind: feature.Numeric, Mean: 20, SD: 30},
		{Field: "channel", Kind: feature.OneHot, Levels: []string{"", "branch", "web"}},
		{Field: "income", Kind: feature.Numeric, Mean: 2000, SD: 900},
	}}
	spec.Fields = append(spec.Fields, remembered...)
	plan, err := memory.Compile(b.schema)
	if err != nil {
		t.Fatal(err)
	}
	if plan != nil {
		b.store = memory.New(plan)
	}
	a := &model.Artifact{
		Format: model.Format, Kind: "payment", Version: 1, Created: time.Unix(0, 0).UTC(), CreatedBy: "test", Code: "test",
		Contract: model.ContractRef{Version: 1}, Scale: model.DefaultScale, Calibration: model.Calibration{Method: model.CalibrationNone},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: -2,
	}
	for j, col := range spec.Columns("") {
		a.Weights = append(a.Weights, model.Weight{Column: col.Name, Field: col.Field, Weight: 0.3 * float64(j+1), Baseline: 0.1})
	}
	kv, err := b.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if a.Version, err = model.NewRegistry(kv).Publish(ctx, a); err != nil {
		t.Fatal(err)
	}
	b.name = model.Name("payment", a.Version)
	if b.predictor, err = model.Compile(a, b.schema); err != nil {
		t.Fatal(err)
	}
	return b
}

// score publishes an event and the score that a scorer would give, as edited.
func (b *bank) score(entity, body string, edit func(*events.Score)) uint64 {
	b.t.Helper()
	ctx := testkit.Context(b.t)
	subject, err := events.EventSubject("payment", entity)
	if err != nil {
		b.t.Fatal(err)
	}
	ack, err := b.js.Publish(ctx, subject, []byte(body))
	if err != nil {
		b.t.Fatal(err)
	}
	var rec events.Record
	if err := b.schema.Decode(events.JSON, []byte(body), &rec); err != nil {
		b.t.Fatal(err)
	}
	m, err := message(ctx, b.js, "EVENTS_payment", ack.Sequence)
	if err != nil {
		b.t.Fatal(err)
	}
	rec.Time = m.Time
	if b.store != nil {
		out := make([]float64, b.store.Plan().Width())
		b.store.Step(memory.Event{Record: &rec, Entity: []byte(entity), Stored: m.Time}, out)
		rec.SetMemory(out)
	}
	var scratch model.Scratch
	r := b.predictor.Score(&rec, &scratch)
	s := events.Score{ID: string(rec.ID), Seq: ack.Sequence, Kind: "payment", Entity: entity, P: r.P, Points: r.Points, Reasons: r.Reasons,
		Band: b.schema.Contract.Band(r.P), Model: b.name, Contract: b.revision, Mode: events.ModeModel, Time: rec.Time}
	if s.ID == "" {
		s.ID = strconv.FormatUint(s.Seq, 10)
	}
	s.Decision = b.schema.Contract.Decide(s.Mode, s.Band)
	if edit != nil {
		edit(&s)
	}
	b.commit(s.Band, entity, s.Append(nil, events.JSON))
	return ack.Sequence
}

func (b *bank) commit(band, entity string, body []byte) {
	b.t.Helper()
	token, err := events.EscapeEntity(entity)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.js.Publish(testkit.Context(b.t), events.CommitSubject("payment", band, token), body); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bank) explain(q Query) Explanation {
	b.t.Helper()
	q.Kind = "payment"
	e, err := Run(testkit.Context(b.t), b.js, q)
	if err != nil {
		b.t.Fatal(err)
	}
	return e
}

func TestExplainsToTheLastBit(t *testing.T) {
	b := newBank(t)
	first := b.score("card 1", `{"id":"p1","amount":"12.50","channel":"web","income":7777777}`, nil)
	for i := range 450 { // more than two batches of a search
		b.score("card 1", fmt.Sprintf(`{"id":"q%d","amount":"%d","channel":"branch"}`, i, i), nil)
	}
	last := b.score("card 1", `{"amount":"7","extra":true}`, nil)
	for _, x := range []struct {
		q   Query
		seq uint64
	}{
		{Query{Seq: first}, first},
		{Query{Entity: "card 1", ID: "p1"}, first},
		{Query{Entity: "card 1", ID: "q449"}, last - 1},
		{Query{Entity: "card 1"}, last},
		{Query{Seq: last}, last},
	} {
		e := b.explain(x.q)
		if e.Score == nil || e.Score.Seq != x.seq || !e.Recomputed || len(e.Differences) > 0 {
			t.Fatalf("%v: %+v\nwant event %d, the same to the bit", x.q, e, x.seq)
		}
		sum := e.Base
		for _, c := range e.Contributions {
			sum += c.Add
		}
		if math.Float64bits(sum) != math.Float64bits(e.Logit) {
			t.Errorf("%v: base and contributions add up to %v, the logit is %v", x.q, sum, e.Logit)
		}
	}
	text := b.explain(Query{Seq: first}).String()
	for _, want := range []string{"p1 of card 1", "the same to the last bit", "amount = 12.5", "channel = web", model.Withheld, b.name} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "7777777") || strings.Contains(text, "income") {
		t.Errorf("a sensitive field shows in\n%s", text)
	}
}

// Scores by memory are explained to the last bit, and the state that their features were computed from is shown, without what is sensitive.
func TestShowsTheMemory(t *testing.T) {
	b := newBankOf(t, contractText+`
memory:
  features:
    - {name: spent, by: card, take: sum, field: amount, window: 24h}
    - {name: earned, by: card, take: max, field: income}
entity: card
`, feature.Transform{Field: "spent", Kind: feature.Numeric, Mean: 10, SD: 5}, feature.Transform{Field: "earned", Kind: feature.Numeric, Mean: 10, SD: 5})
	b.score("card 1", `{"id":"p1","amount":"12.50","channel":"web","income":7777777}`, nil)
	b.score("card 2", `{"id":"p2","amount":"1000","channel":"web","income":9000}`, nil)
	b.score("card 1", `{"id":"p3","amount":"7.25","channel":"web"}`, nil)
	last := b.score("card 1", `{"id":"p4","amount":"1","channel":"web"}`, nil)
	e := b.explain(Query{Seq: last})
	if !e.Recomputed || len(e.Differences) > 0 || len(e.Memory) == 0 || e.MemoryFrom != 1 {
		t.Fatalf("%+v", e)
	}
	text := e.String()
	for _, want := range []string{"the same to the last bit", "spent = 19.75", "in the windows: 2"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "7777777") {
		t.Errorf("a sensitive field shows in\n%s", text)
	}
}

func TestNamesWhatIsNotTheSame(t *testing.T) {
	b := newBank(t)
	seq := b.score("c1", `{"id":"p1","amount":"12.50"}`, func(s *events.Score) {
		s.P = math.Nextafter(s.P, 1)
		s.Points++
		s.Decision = events.Decline
	})
	e := b.explain(Query{Seq: seq})
	var what []string
	for _, d := range e.Differences {
		what = append(what, strings.Split(d, ":")[0])
	}
	if got := strings.Join(what, " "); got != "p points decision" {
		t.Errorf("differences %q: want p points decision", e.Differences)
	}
	if !strings.Contains(e.String(), "DIFFERENT") {
		t.Errorf("the text does not say so:\n%s", e)
	}
}

func TestPriorAndInvalid(t *testing.T) {
	b := newBank(t)
	b.predictor, b.name = model.Prior(&b.schema.Contract), ""
	seq := b.score("c1", `{"amount":"1"}`, func(s *events.Score) { s.Mode, s.Decision = events.ModePrior, b.schema.Contract.Decisions.Prior })
	if e := b.explain(Query{Seq: seq}); !e.Recomputed || len(e.Differences) > 0 || e.Score.P != 0.02 {
		t.Errorf("prior: %+v", e)
	}
	bad := events.Invalid{ID: "x9", Seq: 4711, Kind: "payment", Entity: "c2", Field: "amount", Reason: "is missing"}
	b.commit(events.BandInvalid, "c2", bad.Append(nil, events.JSON))
	e := b.explain(Query{Entity: "c2", ID: "x9"})
	if e.Invalid == nil || e.Invalid.Reason != "is missing" || !strings.Contains(e.String(), "is missing") {
		t.Errorf("invalid: %+v", e)
	}
	for i, text := range []string{"of event 7, in all", "event 7 has this id, and other content"} {
		again := events.Repeat{ID: "x10", Seq: 4712 + uint64(i), First: 7, Kind: "payment", Entity: "c3", Conflict: i == 1}
		b.commit(again.Band(), "c3", again.Append(nil, events.Msgpack))
		e := b.explain(Query{Entity: "c3"})
		if e.Repeat == nil || *e.Repeat != again || !strings.Contains(e.String(), text) || !strings.Contains(e.String(), "explain payment --seq 7") {
			t.Errorf("%s: %+v", again.Band(), e)
		}
	}
}

func TestEventThatAgedAway(t *testing.T) {
	b := newBank(t)
	seq := b.score("c1", `{"id":"p1","amount":"1"}`, nil)
	stream, err := b.js.Stream(testkit.Context(t), "EVENTS_payment")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(testkit.Context(t), seq); err != nil {
		t.Fatal(err)
	}
	e := b.explain(Query{Entity: "c1"})
	if e.Recomputed || e.Score == nil || !strings.Contains(e.String(), "no longer in EVENTS_payment") {
		t.Errorf("%s", e)
	}
}

func TestNotFound(t *testing.T) {
	b := newBank(t)
	ack, err := b.js.Publish(testkit.Context(t), "events.payment.c1", []byte(`{"amount":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []Query{{Seq: ack.Sequence}, {Seq: 99}, {Entity: "c1"}, {Entity: "c1", ID: "p1"}} {
		q.Kind = "payment"
		if _, err := Run(testkit.Context(t), b.js, q); !errors.Is(err, ErrNotFound) {
			t.Errorf("%v: error %v, want ErrNotFound", q, err)
		}
	}
	if _, err := Run(testkit.Context(t), b.js, Query{Kind: "payment"}); err == nil {
		t.Error("no entity: no error")
	}
}
