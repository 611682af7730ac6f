package jetstream_test

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jsm.go"
	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/jsm.go/monitor"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

var single = topology.Options{Replicas: 1}

// applied is the JetStream of a single node with the shared topology and c.
func applied(t *testing.T, c events.Contract, opts ...testkit.Option) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	cluster := testkit.Start(t, 1, opts...)
	js := cluster.JetStream(t)
	if _, err := topology.ApplyShared(testkit.Context(t), js, single); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(testkit.Context(t), js, c, single); err != nil {
		t.Fatal(err)
	}
	return cluster, js
}

// lastOf returns the newest message of a subject, nil if there is none.
func lastOf(t *testing.T, js natsjs.JetStream, stream, subject string) *natsjs.RawStreamMsg {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func info(t *testing.T, js natsjs.JetStream, stream string) *natsjs.StreamInfo {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	_, js := applied(t, payment())
	changes, err := topology.ApplyShared(t.Context(), js, single)
	if err != nil || len(changes) != 0 {
		t.Errorf("shared: %v, %v", changes, err)
	}
	again, err := topology.ApplyKind(t.Context(), js, payment(), single)
	if err != nil || len(again.Changes) != 0 || again.Declared || again.Zeroed {
		t.Errorf("kind: %+v, %v", again, err)
	}
	kinds, err := topology.Kinds(t.Context(), js)
	if err != nil || len(kinds) != 1 || kinds[0].Contract.Kind != "payment" || kinds[0].Revision != again.Kind.Revision || again.Kind.Revision == 0 {
		t.Errorf("kinds %+v, %v; applied at %d", kinds, err, again.Kind.Revision)
	}
	created := info(t, js, "EVENTS_payment").Created
	for lane := range payment().Lanes {
		m := lastOf(t, js, "SCORES_payment", events.PositionSubject("payment", lane))
		if m == nil {
			t.Fatalf("lane %d has no position", lane)
		}
		var p events.Position
		if err := json.Unmarshal(m.Data, &p); err != nil {
			t.Fatal(err)
		}
		if p.Seq != 0 || p.Epoch != 0 || p.Owner != "" || !p.Incarnation.Equal(created) {
			t.Errorf("lane %d: %+v, want 0 of the stream made at %s", lane, p, created)
		}
	}
	if got := info(t, js, "SCORES_payment").State.Msgs; got != uint64(payment().Lanes+1) {
		t.Errorf("%d messages in SCORES, want a position a lane", got)
	}
}

func TestContractGoesForwardOnly(t *testing.T) {
	_, js := applied(t, payment())
	ctx := t.Context()

	wide := payment()
	wide.Lanes, wide.Version = 4, 2
	if _, err := topology.ApplyKind(ctx, js, wide, single); !errors.Is(err, topology.ErrPlan) || !strings.Contains(err.Error(), "8 lanes, not 4") {
		t.Errorf("other lanes: %v", err)
	}
	next := payment()
	next.Fields = append(next.Fields, events.Field{Name: "channel", Type: events.Category})
	if _, err := topology.ApplyKind(ctx, js, next, single); !errors.Is(err, topology.ErrPlan) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("another contract of the same version: %v", err)
	}
	next.Version = 2
	serving := single
	serving.Reads = func(_ context.Context, kind string) (func(string) bool, error) {
		return func(field string) bool { return kind == "payment" && field == "amount" }, nil
	}
	retyped := next
	retyped.Fields = []events.Field{{Name: "amount", Type: events.Category}}
	if _, err := topology.ApplyKind(ctx, js, retyped, serving); !errors.Is(err, topology.ErrPlan) || !strings.Contains(err.Error(), "field amount") {
		t.Errorf("a field retyped that a model reads: %v", err)
	}
	away := errors.New("MODELS is away")
	serving.Reads = func(context.Context, string) (func(string) bool, error) { return nil, away }
	if _, err := topology.ApplyKind(ctx, js, next, serving); !errors.Is(err, away) || errors.Is(err, topology.ErrPlan) {
		t.Errorf("models that cannot be read: %v", err)
	}
	before, err := topology.ReadKind(ctx, js, "payment")
	if err != nil || before.Contract.Version != 1 {
		t.Fatalf("stored %+v, %v", before, err)
	}
	next.Retention.Scores = events.Duration(200 * 24 * time.Hour)
	got, err := topology.ApplyKind(ctx, js, next, single)
	if err != nil || !got.Declared || got.Kind.Revision <= before.Revision || len(got.Changes) != 1 || got.Changes[0].Stream != "SCORES_payment" || got.Zeroed {
		t.Errorf("next version: %+v, %v", got, err)
	}
	if got := info(t, js, "SCORES_payment").Config.MaxAge; got != 200*24*time.Hour {
		t.Errorf("scores are kept %s", got)
	}
	short := next
	short.Version, short.Retention.Events = 3, events.Duration(time.Hour)
	if _, err := topology.ApplyKind(ctx, js, short, single); !errors.Is(err, topology.ErrPlan) {
		t.Errorf("shorter retention: %v", err)
	}
	if k, err := topology.ReadKind(ctx, js, "payment"); err != nil || k.Contract.Version != 2 {
		t.Errorf("after a refusal version %d is stored, %v", k.Contract.Version, err)
	}
	shorten := single
	shorten.Shorten = true
	if _, err := topology.ApplyKind(ctx, js, short, shorten); err != nil {
		t.Errorf("shorter retention as asked: %v", err)
	}
}

// Streams without an entry in KINDS remember their lanes too.
func TestLanesAreRefusedByTheStreamAlone(t *testing.T) {
	_, js := applied(t, payment())
	kv, err := js.KeyValue(t.Context(), events.KindsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "payment"); err != nil {
		t.Fatal(err)
	}
	if kinds, err := topology.Kinds(t.Context(), js); err != nil || len(kinds) != 0 {
		t.Errorf("kinds %v, %v: want none", kinds, err)
	}
	c := payment()
	c.Lanes = 4
	if _, err := topology.ApplyKind(t.Context(), js, c, single); !errors.Is(err, topology.ErrPlan) {
		t.Errorf("got %v, want a refusal", err)
	}
	again, err := topology.ApplyKind(t.Context(), js, payment(), single)
	if err != nil || !again.Declared || again.Zeroed {
		t.Errorf("declared again: %+v, %v", again, err)
	}
}

func TestKindsTellsOfBrokenEntries(t *testing.T) {
	_, js := applied(t, payment())
	kv, err := js.KeyValue(t.Context(), events.KindsBucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "broken", "lanes: many"); err != nil {
		t.Fatal(err)
	}
	kinds, err := topology.Kinds(t.Context(), js)
	if err == nil || !strings.Contains(err.Error(), "kind broken at revision 2") {
		t.Errorf("error %v", err)
	}
	if len(kinds) != 1 || kinds[0].Contract.Kind != "payment" {
		t.Errorf("kinds %v", kinds)
	}
}

func TestApplyKindWithoutShared(t *testing.T) {
	js := testkit.Start(t, 1).JetStream(t)
	if _, err := topology.ApplyKind(t.Context(), js, payment(), single); !errors.Is(err, natsjs.ErrBucketNotFound) {
		t.Errorf("got %v", err)
	}
}

// Position 0 is written once in a kind's life, whatever is repeated, lost or made anew.
func TestPositionZero(t *testing.T) {
	shared := func(t *testing.T) natsjs.JetStream {
		js := testkit.Start(t, 1).JetStream(t)
		if _, err := topology.ApplyShared(t.Context(), js, single); err != nil {
			t.Fatal(err)
		}
		return js
	}
	publish := func(t *testing.T, js natsjs.JetStream) {
		t.Helper()
		if _, err := js.Publish(t.Context(), "events.payment.c1", []byte(`{"amount":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	streams := func(t *testing.T, js natsjs.JetStream) {
		t.Helper()
		cfgs, err := topology.ForKind(payment(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, cfg := range cfgs {
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
	}

	t.Run("resumed after a stop between streams and positions", func(t *testing.T) {
		js := shared(t)
		streams(t, js)
		publish(t, js) // publishers do not wait
		got, err := topology.ApplyKind(t.Context(), js, payment(), single)
		if err != nil || !got.Zeroed || !got.Declared {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("scores made anew beside events in use", func(t *testing.T) {
		_, js := applied(t, payment())
		publish(t, js)
		if err := js.DeleteStream(t.Context(), "SCORES_payment"); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second finds SCORES in place
			got, err := topology.ApplyKind(t.Context(), js, payment(), single)
			if !errors.Is(err, topology.ErrRebase) || !strings.Contains(err.Error(), "riskweir lane rebase payment") || got.Zeroed {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		if n := info(t, js, "SCORES_payment").State.Msgs; n != 0 {
			t.Errorf("%d messages were written", n)
		}
	})
	t.Run("scores made anew beside events never used", func(t *testing.T) {
		_, js := applied(t, payment())
		if err := js.DeleteStream(t.Context(), "SCORES_payment"); err != nil {
			t.Fatal(err)
		}
		got, err := topology.ApplyKind(t.Context(), js, payment(), single)
		if err != nil || !got.Zeroed {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("events made anew", func(t *testing.T) {
		_, js := applied(t, payment())
		if err := js.DeleteStream(t.Context(), "EVENTS_payment"); err != nil {
			t.Fatal(err)
		}
		_, err := topology.ApplyKind(t.Context(), js, payment(), single)
		if !errors.Is(err, topology.ErrRebase) || !strings.Contains(err.Error(), "lane 7") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one position lost", func(t *testing.T) {
		_, js := applied(t, payment())
		s, err := js.Stream(t.Context(), "SCORES_payment")
		if err != nil {
			t.Fatal(err)
		}
		m := lastOf(t, js, "SCORES_payment", "position.payment.3")
		if err := s.DeleteMsg(t.Context(), m.Sequence); err != nil {
			t.Fatal(err)
		}
		_, err = topology.ApplyKind(t.Context(), js, payment(), single)
		if !errors.Is(err, topology.ErrRebase) || !strings.Contains(err.Error(), "payment lane 3") || strings.Contains(err.Error(), "lane 4") {
			t.Errorf("got %v", err)
		}
		if lastOf(t, js, "SCORES_payment", "position.payment.3") != nil {
			t.Error("the position was written again")
		}
	})
	t.Run("one lane", func(t *testing.T) {
		c := payment()
		c.Lanes = 1
		_, js := applied(t, c)
		if lastOf(t, js, "SCORES_payment", "position.payment.0") == nil {
			t.Error("no position")
		}
	})
}

// Publishers name an entity; the lane is the server's choice, always the same for the same entity.
func TestEventsAreStoredByLane(t *testing.T) {
	_, js := applied(t, payment())
	ctx := t.Context()
	used := map[int]bool{}
	for i := range 64 {
		entity := "c" + strconv.Itoa(i)
		subject, err := events.EventSubject("payment", entity)
		if err != nil {
			t.Fatal(err)
		}
		lane := -1
		for range 2 {
			ack, err := js.Publish(ctx, subject, []byte(`{}`))
			if err != nil {
				t.Fatal(err)
			}
			s, err := js.Stream(ctx, ack.Stream)
			if err != nil {
				t.Fatal(err)
			}
			m, err := s.GetMsg(ctx, ack.Sequence)
			if err != nil {
				t.Fatal(err)
			}
			at, err := events.ParseStoredEvent(m.Subject)
			if err != nil || at.Token != entity || at.Kind != "payment" || at.Lane >= payment().Lanes {
				t.Fatalf("stored as %s: %+v, %v", m.Subject, at, err)
			}
			if lane >= 0 && at.Lane != lane {
				t.Errorf("%s went to lanes %d and %d", entity, lane, at.Lane)
			}
			lane = at.Lane
		}
		used[lane] = true
	}
	if len(used) != payment().Lanes {
		t.Errorf("64 entities fill %d of %d lanes", len(used), payment().Lanes)
	}
	for _, chosen := range []string{"events.payment.0.c1", "events.payment", "events.unknown.c1", "scores.payment.low.c1", "commit.payment.c1"} {
		if ack, err := js.Publish(ctx, chosen, nil, natsjs.WithRetryAttempts(0)); !errors.Is(err, natsjs.ErrNoStreamResponse) {
			t.Errorf("%s: %+v, %v: want that nobody takes it", chosen, ack, err)
		}
	}
	// A partition of another server version would send entities elsewhere: these are fixed.
	for entity, lane := range map[string]int{"c0": 6, "c1": 1, "%C3%A4": 4} {
		if lastOf(t, js, "EVENTS_payment", "events.payment.*."+entity) == nil {
			if _, err := js.Publish(ctx, "events.payment."+entity, nil); err != nil {
				t.Fatal(err)
			}
		}
		got, err := events.ParseStoredEvent(lastOf(t, js, "EVENTS_payment", "events.payment.*."+entity).Subject)
		if err != nil || got.Lane != lane {
			t.Errorf("%s is in lane %d, %v; it was in %d", entity, got.Lane, err, lane)
		}
	}
}

// A subscriber to scores sees committed outcomes only: no positions, and nothing of a stale owner's batch.
func TestOnlyCommittedScoresAreSeen(t *testing.T) {
	cluster, js := applied(t, payment())
	ctx := testkit.Context(t)
	nc := cluster.Connect(t)
	seen, err := nc.SubscribeSync("scores.>")
	if err != nil {
		t.Fatal(err)
	}
	positions, err := cluster.Connect(t).SubscribeSync("scores.*.position.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	committer := topology.Committer{Conn: js.Conn(), Stream: "SCORES_payment", Timeout: 5 * time.Second}
	batch := func(fence uint64, entities ...string) []*nats.Msg {
		var out []*nats.Msg
		for _, e := range entities {
			m := nats.NewMsg(events.CommitSubject("payment", events.BandLow, e))
			m.Data = []byte(`{"p":0.1}`)
			out = append(out, m)
		}
		p := nats.NewMsg(events.PositionSubject("payment", 3))
		p.Data = []byte(`{"seq":2}`)
		topology.Fence(p, fence)
		return append(out, p)
	}
	first := lastOf(t, js, "SCORES_payment", "position.payment.3").Sequence
	seq, err := committer.Commit(ctx, batch(first, "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := committer.Commit(ctx, batch(first, "stale")); !errors.Is(err, topology.ErrFenced) {
		t.Errorf("stale owner: %v", err)
	}
	if _, err := committer.Commit(ctx, batch(seq, "c")); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 3 {
		m, err := seen.NextMsgWithContext(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.Subject)
	}
	if want := "scores.payment.low.a scores.payment.low.b scores.payment.low.c"; strings.Join(got, " ") != want {
		t.Errorf("seen %v, want %s", got, want)
	}
	// Republishing keeps the order of the stream, so what came before c would have been seen by now.
	if n, _, err := seen.Pending(); err != nil || n != 0 {
		t.Errorf("%d more messages, %v", n, err)
	}
	if n, _, err := positions.Pending(); err != nil || n != 0 {
		t.Errorf("%d positions, %v", n, err)
	}
	if m := lastOf(t, js, "SCORES_payment", "scores.payment.low.stale"); m != nil {
		t.Errorf("the stale outcome is stored at %d", m.Sequence)
	}
}

// On three nodes everything is R3, repeats without change, and `nats server check stream` is green.
func TestThreeReplicas(t *testing.T) {
	cluster := testkit.Start(t, 3)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	o := topology.Options{Replicas: 3}
	if _, err := topology.ApplyShared(ctx, js, o); err != nil {
		t.Fatal(err)
	}
	if got, err := topology.ApplyKind(ctx, js, payment(), o); err != nil || !got.Zeroed {
		t.Fatalf("got %+v, %v", got, err)
	}
	if changes, err := topology.ApplyShared(ctx, js, o); err != nil || len(changes) != 0 {
		t.Errorf("shared again: %v, %v", changes, err)
	}
	if got, err := topology.ApplyKind(ctx, js, payment(), o); err != nil || len(got.Changes) != 0 || got.Zeroed {
		t.Errorf("kind again: %+v, %v", got, err)
	}
	one := topology.Options{Replicas: 1}
	if _, err := topology.ApplyShared(ctx, js, one); !errors.Is(err, topology.ErrPlan) {
		t.Errorf("fewer replicas: %v", err)
	}
	manager, err := jsm.New(js.Conn())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rendered(t, 3) {
		testkit.Eventually(t, testkit.Deadline, "nats server check stream is green", func() (bool, string) {
			r := &monitor.Result{Check: "stream"}
			err := monitor.CheckStreamHealthWithConnection(manager, r, monitor.CheckStreamHealthOptions{StreamName: f.Name}, api.NewDiscardLogger())
			return err == nil && len(r.Criticals) == 0 && len(r.Warnings) == 0 && len(r.OKs) >= 3, f.Name + ": " + strings.Join(append(r.Criticals, r.Warnings...), ", ")
		})
	}
	if _, err := js.Publish(ctx, "events.payment.c1", nil); err != nil {
		t.Fatal(err)
	}
	if m := lastOf(t, js, "EVENTS_payment", "events.payment.1.c1"); m == nil {
		t.Error("c1 is not in lane 1, as on a single node")
	}
}

// EVENTS of a kind that was declared when nothing was told of labels takes what is, once the kind is applied again; nothing in it changes.
func TestApplyGivesEventsTheSubjectForLabels(t *testing.T) {
	c := payment()
	_, js := applied(t, c)
	ctx := testkit.Context(t)
	old := info(t, js, "EVENTS_payment").Config
	old.Subjects = old.Subjects[:2]
	if _, err := js.UpdateStream(ctx, old); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "events.payment.c1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, events.KnownSubject("payment"), []byte("x"), natsjs.WithRetryAttempts(0)); !errors.Is(err, natsjs.ErrNoStreamResponse) {
		t.Fatalf("EVENTS takes it already: %v", err)
	}
	if _, err := topology.ApplyKind(ctx, js, c, single); err != nil {
		t.Fatal(err)
	}
	ack, err := js.Publish(ctx, events.KnownSubject("payment"), []byte("x"))
	if err != nil || ack.Sequence != 2 || ack.Stream != "EVENTS_payment" {
		t.Errorf("%+v, %v", ack, err)
	}
	if m := lastOf(t, js, "EVENTS_payment", "events.payment.>"); m == nil || m.Sequence != 1 {
		t.Errorf("the event is gone: %+v", m)
	}
}
