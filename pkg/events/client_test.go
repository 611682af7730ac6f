package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const kind = "payment"

func contract() events.Contract {
	c := events.DefaultContract()
	c.Kind, c.ID, c.Lanes = kind, "id", 2
	c.Fields = []events.Field{{Name: "amount", Type: events.Number, Required: true}}
	return c
}

// broker is one node with the kind payment, and a client of it.
func broker(t testing.TB) (*testkit.Cluster, natsjs.JetStream, *events.Client) {
	t.Helper()
	cluster, js := node(t)
	client, err := events.NewClient(cluster.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return cluster, js, client
}

func node(t testing.TB, opts ...testkit.Option) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	cluster := testkit.Start(t, 1, opts...)
	js := cluster.JetStream(t)
	if _, err := topology.ApplyShared(testkit.Context(t), js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(testkit.Context(t), js, contract(), topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return cluster, js
}

// commit stores the outcome of an event as a scorer would: amounts above 100 are high.
func commit(ctx context.Context, js natsjs.JetStream, schema *events.Schema, subject string, seq uint64, body []byte) error {
	stored, err := events.ParseStoredEvent(subject)
	if err != nil {
		return err
	}
	enc, err := events.DetectEncoding("", body)
	if err != nil {
		return err
	}
	var rec events.Record
	entity := events.UnescapeEntity(stored.Token)
	var out []byte
	band := events.BandInvalid
	if err := schema.Decode(enc, body, &rec); err != nil {
		bad, ok := errors.AsType[*events.InvalidError](err)
		if !ok {
			return err
		}
		v := events.Invalid{Seq: seq, Kind: kind, Entity: entity, Field: bad.Field, Reason: bad.Reason}
		out = v.Append(nil, enc)
	} else if n := rec.Values[0].Num; n == -1 || n == -2 { // an earlier event is said to have the id
		v := events.Repeat{ID: string(rec.ID), Seq: seq, First: 1, Kind: kind, Entity: entity, Conflict: n == -2}
		band, out = v.Band(), v.Append(nil, enc)
	} else {
		s := events.Score{ID: string(rec.ID), Seq: seq, Kind: kind, Entity: entity, P: min(rec.Values[0].Num/1000, 1), Band: events.BandLow,
			Decision: events.Approve, Mode: events.ModePrior, Time: time.Unix(1, 0).UTC()}
		if rec.Values[0].Num > 100 {
			s.Band, s.Decision = events.BandHigh, events.Decline
		}
		band, out = s.Band, s.Append(nil, enc)
	}
	_, err = js.Publish(ctx, events.CommitSubject(kind, band, stored.Token), out)
	return err
}

// score runs a plain scorer until the test ends.
func score(t testing.TB, js natsjs.JetStream) {
	t.Helper()
	schema, err := events.Compile(contract())
	if err != nil {
		t.Fatal(err)
	}
	cons, err := js.OrderedConsumer(t.Context(), events.EventsStream(kind), natsjs.OrderedConsumerConfig{FilterSubjects: []string{"events." + kind + ".*.*"}})
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := cons.Messages()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			m, err := msgs.Next(natsjs.NextContext(ctx))
			if ctx.Err() != nil {
				ended <- nil
				return
			}
			var meta *natsjs.MsgMetadata
			if err == nil {
				meta, err = m.Metadata()
			}
			if err == nil {
				err = commit(context.WithoutCancel(ctx), js, schema, m.Subject(), meta.Sequence.Stream, m.Data())
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("scorer: %v", err)
		}
		msgs.Stop()
	})
}

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

func TestClientPublish(t *testing.T) {
	_, js, client := broker(t)
	ctx := testkit.Context(t)
	e := events.Event{Entity: "c.1 *", ID: "p-1", Fields: map[string]any{"id": "p-1", "amount": 12.5}, History: true}
	first, err := client.Publish(ctx, kind, e)
	if err != nil || first.Duplicate {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := client.Publish(ctx, kind, e)
	if err != nil || !again.Duplicate || again.Seq != first.Seq {
		t.Errorf("published again with the same id: %+v, %v; want a duplicate of %d", again, err, first.Seq)
	}
	s, err := js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(ctx, first.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := events.ParseStoredEvent(m.Subject); err != nil || events.UnescapeEntity(stored.Token) != e.Entity {
		t.Errorf("stored under %s, %v", m.Subject, err)
	}
	if string(m.Data) != `{"amount":12.5,"id":"p-1"}` || m.Header.Get(events.HeaderContentType) != events.ContentTypeJSON || m.Header.Get(events.HeaderHistory) != "1" {
		t.Errorf("stored %s with %v", m.Data, m.Header)
	}

	for _, x := range []struct {
		name, err string
		kind      string
		event     events.Event
	}{
		{"no entity", "entity id is empty: every event needs one", kind, events.Event{Fields: map[string]any{}}},
		{"no body", "event: want one of Body and Fields", kind, events.Event{Entity: "a"}},
		{"both", "event: want one of Body and Fields", kind, events.Event{Entity: "a", Body: []byte("{}"), Fields: map[string]any{}}},
		{"text", "event: body is neither a JSON object nor a msgpack map", kind, events.Event{Entity: "a", Body: []byte("hello")}},
		{"large", "event: body has 1048577 bytes: at most 1048576", kind, events.Event{Entity: "a", Body: append([]byte("{"), make([]byte, events.MaxEventBytes)...)}},
		{"kind", `kind name "No": want a lower-case letter, then up to 31 of a-z, 0-9 and _`, "No", events.Event{Entity: "a", Body: []byte("{}")}},
		{"undeclared", "kind is not declared: other: declare it with riskweir kind apply", "other", events.Event{Entity: "a", Body: []byte("{}")}},
	} {
		if _, err := client.Publish(ctx, x.kind, x.event); err == nil || err.Error() != x.err {
			t.Errorf("%s: error %v, want %s", x.name, err, x.err)
		}
	}
	_, err = client.Publish(ctx, "other", events.Event{Entity: "a", Body: []byte("{}")})
	if !errors.Is(err, events.ErrUndeclaredKind) {
		t.Errorf("undeclared kind: %v", err)
	}
}

func TestClientPublishBatch(t *testing.T) {
	_, js, client := broker(t)
	ctx := testkit.Context(t)
	const n = 1500 // more than are on their way at once
	batch := make([]events.Event, n)
	for i := range batch {
		batch[i] = events.Event{Entity: fmt.Sprintf("c%d", i%7), ID: fmt.Sprint(i), Body: fmt.Appendf(nil, `{"amount":%d}`, i)}
	}
	batch[700].Entity = ""
	results, err := client.PublishBatch(ctx, kind, batch)
	if want := "1 of 1500 events not stored; the first is number 700: entity id is empty: every event needs one"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	stream, err := js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if i == 700 {
			continue
		}
		if r.Err != nil {
			t.Fatalf("event %d: %v", i, r.Err)
		}
		if i%100 == 0 {
			m, err := stream.GetMsg(ctx, r.Ack.Seq)
			if err != nil || string(m.Data) != string(batch[i].Body) {
				t.Errorf("event %d is not at its sequence %d: %v", i, r.Ack.Seq, err)
			}
		}
	}
	if info, err := stream.Info(ctx); err != nil || info.State.LastSeq != n-1 {
		t.Errorf("stream ends at %d, %v", info.State.LastSeq, err)
	}
	if results, err = client.PublishBatch(ctx, "other", batch[:3]); !errors.Is(err, events.ErrUndeclaredKind) || !errors.Is(results[2].Err, events.ErrUndeclaredKind) {
		t.Errorf("undeclared kind: %v, %v", err, results)
	}
}

func TestClientLabel(t *testing.T) {
	_, js, client := broker(t)
	ctx := testkit.Context(t)
	bad := 1
	ack, err := client.Label(ctx, kind, "c.1", events.Label{ID: "p-1", Label: &bad})
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, events.LabelsStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(ctx, ack.Seq)
	if err != nil || m.Subject != "labels.payment.c%2E1" || string(m.Data) != `{"id":"p-1","label":1}` {
		t.Errorf("stored %v, %v", m, err)
	}
	if _, err := client.Label(ctx, kind, "c.1", events.Label{Label: &bad}); err == nil || err.Error() != "label: names no event: want id, or seq" {
		t.Errorf("a label of no event: %v", err)
	}
}

func TestClientScore(t *testing.T) {
	_, js, client := broker(t)
	score(t, js)
	ctx := testkit.Context(t)
	for i := range 20 {
		s, err := client.Score(ctx, kind, events.Event{Entity: "c.1", Fields: map[string]any{"id": fmt.Sprint(i), "amount": 10 * i}})
		if err != nil {
			t.Fatal(err)
		}
		if s.ID != fmt.Sprint(i) || s.P != float64(10*i)/1000 || s.Entity != "c.1" {
			t.Errorf("event %d got the score %+v", i, s)
		}
	}
	msgpack := append([]byte("\x82\xa2id\xa1m\xa6amount"), 7)
	if s, err := client.Score(ctx, kind, events.Event{Entity: "c.1", Body: msgpack}); err != nil || s.ID != "m" {
		t.Errorf("msgpack: %+v, %v", s, err)
	}
	_, err := client.Score(ctx, kind, events.Event{Entity: "c.1", Fields: map[string]any{"amount": "much"}})
	if bad, ok := errors.AsType[*events.InvalidOutcome](err); !ok || bad.Field != "amount" {
		t.Errorf("an invalid event: %v", err)
	}
	for amount := -2; amount < 0; amount++ {
		_, err = client.Score(ctx, kind, events.Event{Entity: "c.1", Fields: map[string]any{"id": fmt.Sprint("r", amount), "amount": amount}})
		if again, ok := errors.AsType[*events.RepeatOutcome](err); !ok || again.First != 1 || again.Conflict != (amount == -2) {
			t.Errorf("an event that repeats another: %v", err)
		}
	}
}

func TestClientScoreIsLate(t *testing.T) {
	_, _, client := broker(t)
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	_, err := client.Score(ctx, kind, events.Event{Entity: "c1", Fields: map[string]any{"amount": 1}})
	late, ok := errors.AsType[*events.LateError](err)
	if !ok || late.Seq != 1 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a scorer: %v", err)
	}
}

// The live view may miss a score. Here it shows nothing: an event that was scored before comes from the
// stream, wherever it stands among the entity's outcomes.
func TestClientScoreReadsTheStream(t *testing.T) {
	_, js, client := broker(t)
	schema, err := events.Compile(contract())
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	const n = 40
	for i := range n {
		e := events.Event{Entity: fmt.Sprintf("c%d", i%3), ID: fmt.Sprint(i), Fields: map[string]any{"id": fmt.Sprint(i), "amount": (i * 37) % 200}}
		ack, err := client.Publish(ctx, kind, e)
		if err != nil {
			t.Fatal(err)
		}
		if err := commit(ctx, js, schema, "events.payment.0."+e.Entity, ack.Seq, fmt.Appendf(nil, `{"id":"%d","amount":%d}`, i, (i*37)%200)); err != nil {
			t.Fatal(err)
		}
	}
	if body, band, err := client.Outcome(ctx, kind, "c0", 1); err != nil || band != events.BandLow || !strings.Contains(string(body), `"id":"0"`) {
		t.Errorf("outcome of the first event: %s, %s, %v", band, body, err)
	}
	if body, _, err := client.Outcome(ctx, kind, "c0", n+1); err != nil || body != nil {
		t.Errorf("outcome of an event to come: %s, %v", body, err)
	}
	for i := range n {
		e := events.Event{Entity: fmt.Sprintf("c%d", i%3), ID: fmt.Sprint(i), Fields: map[string]any{"amount": 0}}
		if s, err := client.Score(ctx, kind, e); err != nil || s.ID != fmt.Sprint(i) {
			t.Errorf("event %d: %+v, %v", i, s, err)
		}
	}
}

func TestClientScoreUndeclared(t *testing.T) {
	_, _, client := broker(t)
	if _, err := client.Score(testkit.Context(t), "other", events.Event{Entity: "c1", Body: []byte("{}")}); !errors.Is(err, events.ErrUndeclaredKind) {
		t.Errorf("undeclared kind: %v", err)
	}
}

// publishAmounts publishes one event of each amount and waits until a scorer has committed all.
func publishAmounts(t *testing.T, js natsjs.JetStream, client *events.Client, amounts ...int) {
	t.Helper()
	s, err := js.Stream(t.Context(), events.ScoresStream(kind))
	if err != nil {
		t.Fatal(err)
	}
	before := s.CachedInfo().State.LastSeq
	for _, a := range amounts {
		if _, err := client.Publish(t.Context(), kind, events.Event{Entity: "c1", Fields: map[string]any{"id": fmt.Sprint(a), "amount": a}}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, testkit.Deadline, "every event has its outcome", func() (bool, string) {
		info, err := s.Info(t.Context())
		if err != nil {
			return false, err.Error()
		}
		return info.State.LastSeq == before+uint64(len(amounts)), fmt.Sprint(info.State.LastSeq)
	})
}

func TestSubscribeLive(t *testing.T) {
	cluster, js, client := broker(t)
	score(t, js)
	nc := cluster.Connect(t)
	viewer, err := events.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testkit.Context(t))
	defer cancel()
	got, ended := make(chan events.Outcome, 10), make(chan error, 1)
	go func() {
		ended <- viewer.Subscribe(ctx, kind, events.Subscription{Band: events.BandHigh}, func(_ context.Context, o events.Outcome) error {
			got <- o
			return nil
		})
	}()
	testkit.Eventually(t, testkit.Deadline, "the view is open", func() (bool, string) {
		return nc.NumSubscriptions() > 0 && nc.Flush() == nil, "no subscription"
	})
	publishAmounts(t, js, client, 50, 150, 60, 250)
	for _, want := range []string{"150", "250"} {
		if o := <-got; o.Err != nil || o.Score == nil || o.Score.ID != want || o.Entity != "c1" || o.Band != events.BandHigh || o.Seq != 0 {
			t.Errorf("outcome %+v, want the score of %s", o, want)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestSubscribeDurable(t *testing.T) {
	_, js, client := broker(t)
	score(t, js)
	ctx := testkit.Context(t)
	publishAmounts(t, js, client, 1, 2, -3, 150, 5)

	// collect handles n outcomes, or fails upon one.
	collect := func(s events.Subscription, n int, failAt string) (ids []string, err error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		err = client.Subscribe(ctx, kind, s, func(_ context.Context, o events.Outcome) error {
			if o.Err != nil || o.Seq == 0 {
				return fmt.Errorf("outcome %+v", o)
			}
			if o.Score.ID == failAt {
				return errors.New("no room")
			}
			if ids = append(ids, o.Score.ID); len(ids) == n {
				cancel()
			}
			return nil
		})
		return ids, err
	}
	all := events.Subscription{Durable: "ledger", FromStart: true}
	ids, err := collect(all, 9, "-3")
	if err == nil || err.Error() != "no room" || !slices.Equal(ids, []string{"1", "2"}) {
		t.Fatalf("handled %v, %v", ids, err)
	}
	// The one that failed, and those delivered ahead, come again; which first is the server's affair.
	ids, err = collect(all, 3, "")
	slices.Sort(ids)
	if err != nil || !slices.Equal(ids, []string{"-3", "150", "5"}) {
		t.Fatalf("after the failure handled %v, %v", ids, err)
	}
	publishAmounts(t, js, client, 7)
	if ids, err = collect(events.Subscription{Durable: "ledger"}, 1, ""); err != nil || !slices.Equal(ids, []string{"7"}) {
		t.Errorf("an existing durable went on with %v, %v", ids, err)
	}
	if ids, err = collect(events.Subscription{Durable: "alarm", Band: events.BandHigh, Entity: "c1", FromStart: true}, 1, ""); err != nil || !slices.Equal(ids, []string{"150"}) {
		t.Errorf("high ones of c1: %v, %v", ids, err)
	}
	if _, err = collect(events.Subscription{Durable: "ledger", Band: events.BandHigh}, 1, ""); err == nil || !strings.Contains(err.Error(), "take another name") {
		t.Errorf("a durable of another filter: %v", err)
	}
	if err := client.Subscribe(ctx, "other", all, nil); !errors.Is(err, events.ErrUndeclaredKind) {
		t.Errorf("undeclared kind: %v", err)
	}
	if _, err := js.Consumer(ctx, events.ScoresStream(kind), "ledger"); err != nil {
		t.Errorf("the durable is gone: %v", err)
	}
}

// A handler that blocks must not lose outcomes in silence.
func TestSubscribeLiveTooSlow(t *testing.T) {
	cluster, _, _ := broker(t)
	nc := cluster.Connect(t, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.SyncQueueLen(4))
	viewer, err := events.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	release, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- viewer.Subscribe(ctx, kind, events.Subscription{}, func(context.Context, events.Outcome) error {
			<-release
			return nil
		})
	}()
	testkit.Eventually(t, testkit.Deadline, "the view is open", func() (bool, string) {
		return nc.NumSubscriptions() > 0 && nc.Flush() == nil, "no subscription"
	})
	for range 100 {
		if err := nc.Publish("scores.payment.low.c1", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	close(release)
	if err := <-ended; !errors.Is(err, nats.ErrSlowConsumer) {
		t.Errorf("ended with %v, want a slow consumer", err)
	}
}
