package trainer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const tellingContract = `
kind: shop
id: id
entity: card
time: at
lanes: 2
fields:
- {name: terminal, type: category}
- {name: amount, type: number}
memory:
  features:
  - {name: bad, by: terminal, take: bad, window: 30d, delay: 1h}
`

// newTellers is a node with a kind whose log is told of labels.
func newTellers(t *testing.T, start func(t *testing.T) (*testkit.Cluster, jetstream.JetStream)) (*testkit.Cluster, jetstream.JetStream) {
	t.Helper()
	cluster, js := start(t)
	if _, err := topology.ApplyShared(testkit.Context(t), js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	c, err := events.ParseContract([]byte(tellingContract))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(testkit.Context(t), js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	return cluster, js
}

func plainNode(t *testing.T) (*testkit.Cluster, jetstream.JetStream) {
	c := testkit.Start(t, 1)
	return c, c.JetStream(t)
}

func put(t *testing.T, js jetstream.JetStream, subject string, body []byte) uint64 {
	t.Helper()
	ack, err := js.Publish(testkit.Context(t), subject, body)
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

func purchase(i int) []byte {
	return fmt.Appendf(nil, `{"id":"e%d","card":"c%d","terminal":"t%d","amount":1,"at":"2026-01-01T00:%02d:%02d.25Z"}`, i, i%5, i%3, i/60, i%60)
}

// heard reads what the log was told, checks that it is a chain for each event, and returns where it ends.
func heard(t *testing.T, js jetstream.JetStream) (last map[uint64]events.Known, messages, changes int) {
	t.Helper()
	ctx := testkit.Context(t)
	stream, err := js.Stream(ctx, "EVENTS_shop")
	if err != nil {
		t.Fatal(err)
	}
	last = map[uint64]events.Known{}
	for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if err != nil || !events.IsKnown(m.Subject) {
			continue
		}
		messages++
		list, err := events.DecodeKnown(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range list {
			if before := last[k.Seq]; k.Was != before.Label || k.Claim <= before.Claim {
				t.Errorf("%+v comes after %+v", k, before)
			}
			if i > 0 && list[i-1].Claim > k.Claim {
				t.Errorf("%+v comes after %+v in one message", k, list[i-1])
			}
			if k.Seq >= seq {
				t.Errorf("event %d is told of at %d", k.Seq, seq)
			}
			changes++
			last[k.Seq] = k
		}
	}
	return last, messages, changes
}

// The log is told what LABELS say, once, by whichever trainer leads: labels that came before their event, that name it by its sequence, were
// corrected, taken back or known later than others; and after another trainer has taken over, and is told of a contract with other keys.
func TestTellsTheLog(t *testing.T) {
	h := newHouse(t)
	_, js := newTellers(t, func(t *testing.T) (*testkit.Cluster, jetstream.JetStream) { return h.cluster, h.js })
	seqs := map[int]uint64{}
	label := func(i int, body string, a ...any) {
		put(t, js, fmt.Sprintf("labels.shop.c%d", i%5), fmt.Appendf(nil, body, a...))
	}
	label(7, `{"id":"e7","label":1}`) // before its event
	for i := range 40 {
		seqs[i] = put(t, js, fmt.Sprintf("events.shop.c%d", i%5), purchase(i))
	}
	put(t, js, "position.shop.ingest.file", []byte("{}"))
	label(1, `{"id":"e1","label":1}`)
	label(2, `{"seq":%d,"label":0}`, seqs[2])
	label(3, `{"id":"e3","label":1,"known_at":"2026-02-02T00:00:00Z"}`)
	label(3, `{"id":"e3","label":0,"known_at":"2026-02-01T00:00:00Z"}`) // known before the one before
	label(4, `{"id":"nobody","label":1}`)
	label(4, `{"seq":9999,"label":1}`)
	label(4, `{"id":"e4","label":null}`)
	want := map[int]events.Truth{7: events.BadLabel, 1: events.BadLabel, 2: events.GoodLabel, 3: events.BadLabel}
	await := func() {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "the log is told", func() (bool, string) {
			last, _, _ := heard(t, js)
			for i, truth := range want {
				if last[seqs[i]].Label != truth {
					return false, fmt.Sprintf("event %d: %+v, want %d", seqs[i], last[seqs[i]], truth)
				}
			}
			return len(last) == len(want), fmt.Sprintf("%d events are told of, want %d", len(last), len(want))
		})
	}
	first := h.start(t, "one", nil)
	await()
	last, _, _ := heard(t, js)
	if k := last[seqs[7]]; k.At != time.Date(2026, 1, 1, 0, 0, 7, 250e6, time.UTC) || k.Entity != "c2" || fmt.Sprint(k.Keys) != "[{terminal t1}]" || k.Claim != 1 {
		t.Errorf("%+v", k)
	}
	h.start(t, "two", nil)
	first.stop()
	label(1, `{"id":"e1","label":0}`) // a correction
	label(2, `{"id":"e2","label":null}`)
	label(8, `{"id":"e8","label":1}`)
	label(8, `{"id":"e8","label":1}`) // again
	want[1], want[2], want[8] = events.GoodLabel, events.NoLabel, events.BadLabel
	await()
	if _, messages, changes := heard(t, js); changes != 7 || messages > 7 {
		t.Errorf("%d changes in %d messages, want 7", changes, messages)
	}
	c, err := events.ParseContract([]byte(strings.Replace(tellingContract, "by: terminal", "by: card", 1) + "  - {name: n, by: card, take: count}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c.Version++
	if _, err := topology.ApplyKind(testkit.Context(t), js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	label(9, `{"id":"e9","label":1}`)
	want[9] = events.BadLabel
	await()
	if _, _, changes := heard(t, js); changes != 8 {
		t.Errorf("%d changes, want 8", changes)
	}
}

// Two trainers that both believe to lead, one of them with what it publishes or the answers lost now and then, tell the log each change once.
func TestTellersRace(t *testing.T) {
	cluster, js := newTellers(t, plainNode)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 4))
	courier := cluster.Courier(t)
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer running.Wait()
	defer cancel()
	for i, nc := range []*nats.Conn{courier.Connect(t), cluster.Connect(t)} {
		tr, err := New(Config{Conn: nc, Instance: fmt.Sprint("t", i), MinLabels: 100_000, MaxRows: 200_000, tell: time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := tr.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		running.Go(func() { tr.tell(ctx, js) }) // whether it leads or not
	}
	const n = 600
	want := map[uint64]events.Truth{}
	for i := range n {
		seq := put(t, js, fmt.Sprintf("events.shop.c%d", i%5), purchase(i))
		for range r.IntN(3) {
			y := r.IntN(2)
			put(t, js, fmt.Sprintf("labels.shop.c%d", i%5), fmt.Appendf(nil, `{"id":"e%d","label":%d}`, i, y))
			want[seq] = events.GoodLabel + events.Truth(y)
		}
		if i == n/3 || i == n/2 {
			courier.Lose("known.shop.from.labels", testkit.Halves[r.IntN(2)], 1)
		}
	}
	awaitTold(t, js, want)
}

// Events whose keys are long in JSON, whose entity was named by hand and is no UTF-8 or too long to be told, or whose time cannot be told, keep no
// label of others from the log.
func TestHostileEventsAreNotInTheWay(t *testing.T) {
	_, js := newTellers(t, plainNode)
	want := map[uint64]events.Truth{}
	claim := func(seq uint64, told bool) {
		put(t, js, "labels.shop.c", fmt.Appendf(nil, `{"seq":%d,"label":1}`, seq))
		if told {
			want[seq] = events.BadLabel
		}
	}
	control := strings.Repeat(`\u0001`, events.MaxKeyBytes-4)
	for i := range 200 { // 2.4 MB as JSON
		claim(put(t, js, "events.shop.c", fmt.Appendf(nil, `{"id":"l%d","card":"c","terminal":"%d%s","at":"2026-01-01T00:00:00Z"}`, i, i, control)), true)
	}
	claim(put(t, js, "events.shop.c\xff", []byte(`{"id":"a","terminal":"t","at":"2026-01-01T00:00:00Z"}`)), false)
	claim(put(t, js, "events.shop."+strings.Repeat("x", events.MaxEntityBytes+1), []byte(`{"id":"b","terminal":"t","at":"2026-01-01T00:00:00Z"}`)), false)
	claim(put(t, js, "events.shop.c", []byte(`{"id":"z","card":"c","terminal":"t","at":"0001-01-01T00:00:00.0000001Z"}`)), false)
	claim(put(t, js, "events.shop.c0", purchase(0)), true)
	tr, err := New(Config{Conn: js.Conn(), Instance: "t", tell: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() {
		if err := tr.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	awaitTold(t, js, want)
	k := tr.kind("shop")
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.counts.mute != 3 {
		t.Errorf("%d events could not be told of, want 3", k.counts.mute)
	}
}

func awaitTold(t *testing.T, js jetstream.JetStream, want map[uint64]events.Truth) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, "the log is told", func() (bool, string) {
		last, messages, changes := heard(t, js)
		for seq, truth := range want {
			if last[seq].Label != truth {
				return false, fmt.Sprintf("event %d: %+v, want %d", seq, last[seq], truth)
			}
		}
		t.Logf("%d changes of %d events in %d messages", changes, len(last), messages)
		return len(last) == len(want), fmt.Sprintf("%d events are told of, want %d", len(last), len(want))
	})
}

// Of the only trainer's messages to the log the request or the answer is lost; what they tell is told, once.
func TestEitherHalfOfWhatIsToldIsLost(t *testing.T) {
	for _, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			t.Parallel()
			cluster, js := newTellers(t, plainNode)
			courier := cluster.Courier(t)
			courier.Lose("known.shop.from.labels", half, 2)
			tr, err := New(Config{Conn: courier.Connect(t), Instance: "t", tell: 5 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			want := map[uint64]events.Truth{}
			for i := range 20 {
				want[put(t, js, fmt.Sprintf("events.shop.c%d", i%5), purchase(i))] = events.BadLabel
				put(t, js, fmt.Sprintf("labels.shop.c%d", i%5), fmt.Appendf(nil, `{"id":"e%d","label":1}`, i))
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() {
				if err := tr.Run(ctx); err != nil {
					t.Error(err)
				}
			})
			more := func(i int) {
				want[put(t, js, fmt.Sprintf("events.shop.c%d", i%5), purchase(i))] = events.GoodLabel
				put(t, js, fmt.Sprintf("labels.shop.c%d", i%5), fmt.Appendf(nil, `{"id":"e%d","label":0}`, i))
			}
			for i := range 2 {
				testkit.Eventually(t, testkit.Deadline, "a message is lost", func() (bool, string) { return courier.Lost() > i, "" })
				more(20 + i)
			}
			awaitTold(t, js, want)
		})
	}
}
