package sim

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

func TestPaceIsEven(t *testing.T) {
	p := pace{rate: 300, from: start}
	n := 0
	for ms := range 10_000 {
		k := p.take(start.Add(time.Duration(ms)*time.Millisecond), 1000)
		if k > 1 {
			t.Fatalf("%d events at %d ms: want one every 3.3 ms", k, ms)
		}
		n += k
	}
	if n != 2999 {
		t.Errorf("%d events in 9.999 s at 300 a second", n)
	}
}

func TestPaceDoesNotFloodAfterAnOutage(t *testing.T) {
	p := pace{rate: 100, from: start}
	if n := p.take(start.Add(time.Hour), 1_000_000); n != 100 {
		t.Errorf("%d events after an hour's wait: want one second's worth, 100", n)
	}
	if n := p.take(start.Add(time.Hour+time.Second), 1_000_000); n != 100 {
		t.Errorf("%d events in the second after: want 100", n)
	}
	if n := p.take(start.Add(time.Hour+2*time.Second), 7); n != 7 {
		t.Errorf("%d events into room for 7", n)
	}
}

func TestPaceSleepsUntilTheNextIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 7, from: time.Now()}
		began := time.Now()
		for n := 0; n < 70; {
			time.Sleep(time.Until(p.next()))
			k := p.take(time.Now(), 100)
			if k != 1 {
				t.Fatalf("%d events at the time the next one is due", k)
			}
			n += k
		}
		if d := time.Since(began); d < 10*time.Second-time.Microsecond || d > 10*time.Second+time.Microsecond {
			t.Errorf("70 events at 7 a second took %s", d)
		}
	})
}

// broker starts a node with streams as the topology has them.
func broker(t *testing.T) (*testkit.Cluster, jetstream.JetStream) {
	t.Helper()
	c := testkit.Start(t, 1)
	js := c.JetStream(t)
	for _, s := range []jetstream.StreamConfig{
		{Name: events.EventsStream(Kind), Subjects: []string{"events.payment.*"},
			SubjectTransform: &jetstream.SubjectTransformConfig{Source: "events.payment.*", Destination: "events.payment.{{partition(8,1)}}.{{wildcard(1)}}"}},
		{Name: events.LabelsStream, Subjects: []string{"labels.*.*"}},
	} {
		if _, err := js.CreateStream(testkit.Context(t), s); err != nil {
			t.Fatal(err)
		}
	}
	return c, js
}

// stored returns the messages of a stream by the field id of their bodies.
func stored(t *testing.T, js jetstream.JetStream, stream string) map[string]int {
	t.Helper()
	ctx := testkit.Context(t)
	s, err := js.Stream(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]int{}
	for seq := range s.CachedInfo().State.LastSeq {
		m, err := s.GetMsg(ctx, seq+1)
		if err != nil {
			t.Fatal(err)
		}
		var b struct{ ID string }
		if err := json.Unmarshal(m.Data, &b); err != nil {
			t.Fatal(err)
		}
		ids[b.ID]++
	}
	return ids
}

func run(t *testing.T, f *Feeder) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func TestFeederPublishesEventsAndLaterTheirLabels(t *testing.T) {
	c, js := broker(t)
	f, err := NewFeeder(FeederConfig{Conn: c.Connect(t), Generator: New(Config{Seed: 1, Start: start}), Rate: 4000})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f)
	testkit.Eventually(t, testkit.Deadline, "some labels are in", func() (bool, string) {
		n := f.labelled.Load()
		return n >= 5, time.Duration(n).String()
	})
	stop()
	got := f.Counters()
	inStream := stored(t, js, events.EventsStream(Kind))
	if len(inStream) != int(got["events_acknowledged"]) || got["events_generated"] != got["events_acknowledged"] {
		t.Errorf("%d ids in the stream, counters %v: want as many as acknowledged and generated", len(inStream), got)
	}
	for id := range stored(t, js, events.LabelsStream) {
		if inStream[id] != 1 {
			t.Errorf("label of %s, which is not in the stream", id)
		}
	}
}

// The broker restarts while events are under way: some stored without an ack, some not at all.
func TestFeederRepeatsUntilAcknowledgedAndNeverDoubles(t *testing.T) {
	c, js := broker(t)
	f, err := NewFeeder(FeederConfig{Conn: c.Connect(t), Generator: New(Config{Seed: 1, Start: start}), MaxPending: 500})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f)
	more := func(n int64) {
		t.Helper()
		want := f.acknowledged.Load() + n
		testkit.Eventually(t, testkit.Deadline, "more events are acknowledged", func() (bool, string) {
			return f.acknowledged.Load() >= want, ""
		})
	}
	more(300)
	c.RestartNode(t, 0)
	more(600)
	stop()
	if f.failures.Load() == 0 {
		t.Error("no publish failed: the restart tested nothing")
	}
	ids := stored(t, js, events.EventsStream(Kind))
	if int64(len(ids)) != f.generated.Load() || f.acknowledged.Load() != f.generated.Load() {
		t.Errorf("%d ids in the stream, %d generated, %d acknowledged", len(ids), f.generated.Load(), f.acknowledged.Load())
	}
	for id, n := range ids {
		if n != 1 {
			t.Errorf("event %s stands %d times", id, n)
		}
	}
}
