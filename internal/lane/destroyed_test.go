package lane

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jsm.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// halting is a pool that notes which lanes have halted, and why.
type halting struct {
	mu     sync.Mutex
	causes map[int]string
	stop   func()
}

func (b *broker) watchHalts(t *testing.T, name string) *halting {
	t.Helper()
	h := &halting{causes: map[int]string{}}
	conn := b.Connect(t)
	js, err := natsjs.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(chan []Kind, 1)
	kinds <- []Kind{{Name: testKind, Lanes: testLanes}}
	limits := DefaultLimits()
	limits.HaltedRetry = 100 * time.Millisecond
	p := NewPool(Config{
		Conn: conn, JS: js, Self: Member{Instance: name, Name: name}, Limits: limits, Kinds: kinds, Stage: func(Kind, int) Stage { return sequences{} },
		APITimeout: time.Second,
		Observer: Observer{
			Halted: func(_ string, lane int, cause string) {
				h.mu.Lock()
				defer h.mu.Unlock()
				h.causes[lane] = cause
			},
			Phase: func(_ string, lane int, p Phase) {
				h.mu.Lock()
				defer h.mu.Unlock()
				if p == Running {
					delete(h.causes, lane)
				}
			},
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *halting) halted() map[int]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int]string{}
	for lane, cause := range h.causes {
		out[lane] = cause
	}
	return out
}

func (h *halting) await(t *testing.T, n int, cause string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%d lanes have halted", n), func() (bool, string) {
		got := h.halted()
		for _, c := range got {
			if !strings.Contains(c, cause) {
				return false, fmt.Sprint(got)
			}
		}
		return len(got) == n, fmt.Sprint(got)
	})
}

// rebase lets lanes go on after event seq. A halted lane claims again at each look, which may come between.
func (b *broker) rebase(t *testing.T, seq uint64, lanes ...int) {
	t.Helper()
	for _, lane := range lanes {
		r := topology.RebaseRequest{Kind: testKind, Lane: lane, Seq: seq, By: "ann", Reason: "a test"}
		testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("lane %d is rebased", lane), func() (bool, string) {
			_, err := topology.Rebase(testkit.Context(t), b.js, r)
			if err != nil && !errors.Is(err, topology.ErrFenced) {
				t.Fatal(err)
			}
			return err == nil, fmt.Sprint(err)
		})
	}
}

func everyLane() []int { return events.LaneNumbers(testLanes) }

// EVENTS is deleted and made again while it is read: no lane takes the new stream for the old one.
func TestEventsMadeAnew(t *testing.T) {
	b := newBroker(t)
	ctx := testkit.Context(t)
	h := b.watchHalts(t, "a")
	const before, after = 300, 400
	b.publish(t, before)
	b.await(t, before)
	if err := b.js.DeleteStream(ctx, events.EventsStream(testKind)); err != nil {
		t.Fatal(err)
	}
	k, err := topology.ReadKind(ctx, b.js, testKind)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, b.js, k.Contract, topology.Options{Replicas: 1}); !errors.Is(err, topology.ErrRebase) {
		t.Errorf("apply: %v, want %v", err, topology.ErrRebase)
	}
	b.publish(t, after) // beyond where the old one ended
	h.await(t, len(everyLane()), "lane rebase")
	if n := b.outcomes(t); n != before {
		t.Errorf("%d outcomes while every lane is halted, want %d", n, before)
	}
	b.rebase(t, 0, everyLane()...)
	b.await(t, before+after)
	h.await(t, 0, "")
}

// An operator removes a lane's positions, the newest last, so that no older one is ever the newest: the lane stops, the others
// go on, and from where the outcomes say it goes on without a loss.
func TestPositionRemoved(t *testing.T) {
	b := newBroker(t)
	ctx := testkit.Context(t)
	const lane, each = 3, 300
	h := b.watchHalts(t, "a")
	b.publish(t, each)
	b.await(t, each)
	scores, err := b.js.Stream(ctx, events.ScoresStream(testKind))
	if err != nil {
		t.Fatal(err)
	}
	subject := events.PositionSubject(testKind, lane)
	for { // the lane may store one meanwhile
		var at []uint64
		for from := uint64(1); ; {
			m, err := scores.GetMsg(ctx, from, natsjs.WithGetMsgSubject(subject))
			if errors.Is(err, natsjs.ErrMsgNotFound) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, m.Sequence)
			from = m.Sequence + 1
		}
		if len(at) == 0 {
			break
		}
		for _, seq := range at {
			if err := scores.DeleteMsg(ctx, seq); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.publish(t, each)
	h.await(t, 1, "no position")

	// Where to go on, by the outcomes alone.
	lanes := map[uint64]int{}
	b.read(t, events.EventsStream(testKind), func(m natsjs.Msg, seq uint64) {
		if e, err := events.ParseStoredEvent(m.Subject()); err == nil {
			lanes[seq] = e.Lane
		}
	})
	last := uint64(0)
	b.read(t, events.ScoresStream(testKind), func(m natsjs.Msg, _ uint64) {
		if seq, err := strconv.ParseUint(string(m.Data()), 10, 64); err == nil && lanes[seq] == lane {
			last = max(last, seq)
		}
	})
	b.rebase(t, last, lane)
	b.await(t, 2*each)
	h.await(t, 0, "")
	h.stop()
	b.verify(t, 2*each)
}

// EVENTS is put back from a backup that is older than the positions. The server gives a stream that was put back another time of
// creation, so that it is told from the one of before even when events have come that take the sequences again.
func TestEventsRestored(t *testing.T) {
	for _, running := range []bool{true, false} {
		t.Run(fmt.Sprintf("lanes run meanwhile: %v", running), func(t *testing.T) {
			b := newBroker(t)
			ctx := testkit.Context(t)
			h := b.watchHalts(t, "a")
			const each = 300
			b.publish(t, each)
			b.await(t, each)
			manager, err := jsm.New(b.conn)
			if err != nil {
				t.Fatal(err)
			}
			in, err := manager.LoadStream(events.EventsStream(testKind))
			if err != nil {
				t.Fatal(err)
			}
			backup := t.TempDir()
			if _, err := in.SnapshotToDirectory(ctx, backup); err != nil {
				t.Fatal(err)
			}
			b.publish(t, each)
			b.await(t, 2*each)
			if !running {
				h.stop()
			}
			if err := in.Delete(); err != nil {
				t.Fatal(err)
			}
			if _, _, err := manager.RestoreSnapshotFromDirectory(ctx, events.EventsStream(testKind), backup); err != nil {
				t.Fatal(err)
			}
			if running {
				h.await(t, len(everyLane()), "lane rebase")
			}
			// New events take the sequences that the lanes have passed, and more.
			b.publish(t, 2*each)
			if !running {
				h = b.watchHalts(t, "b")
			}
			h.await(t, len(everyLane()), "lane rebase")
			if n := b.outcomes(t); n != 2*each {
				t.Errorf("%d outcomes, want the %d of before: events were scored under sequences that have outcomes, and others passed over", n, 2*each)
			}
		})
	}
}
