package scorer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/jsm.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// numbers of the lanes of contract.
var numbers = events.LaneNumbers(2)

// keep gives the streams retentions shorter than a contract may.
func (w *world) keep(t *testing.T, ages map[string]time.Duration) {
	t.Helper()
	ctx := testkit.Context(t)
	for name, age := range ages {
		s, err := w.js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		c := s.CachedInfo().Config
		c.MaxAge, c.Duplicates = age, min(age, c.Duplicates)
		if _, err := w.js.UpdateStream(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *world) publishSome(t *testing.T, n int) (seqs []uint64) {
	t.Helper()
	for i := range n {
		seqs = append(seqs, w.publish(t, fmt.Sprintf("events.payment.c%d", i%9), nil, []byte(`{"amount":1}`)))
	}
	return seqs
}

// told is what SCORES holds: how often each event is scored, and how often it is in a range that expired.
func (w *world) told(t *testing.T) (scored, expired map[uint64]int) {
	t.Helper()
	ctx := testkit.Context(t)
	scored, expired = map[uint64]int{}, map[uint64]int{}
	s, err := w.js.Stream(ctx, events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for at := max(1, info.State.FirstSeq); at <= info.State.LastSeq; at++ {
		m, err := s.GetMsg(ctx, at)
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(m.Subject, "scores.payment.expired."):
			x, err := events.DecodeExpired(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			for seq := x.First; seq <= x.Last; seq++ {
				expired[seq]++
			}
		case strings.HasPrefix(m.Subject, "scores."):
			seq, _, err := events.OutcomeSeq(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			scored[seq]++
		}
	}
	return scored, expired
}

// laned is a pool of real stages whose lanes refresh their positions as often as asked.
type laned struct {
	mu     sync.Mutex
	causes map[int]string // of the lanes that are halted
	stop   func()
}

func (w *world) lanes(t *testing.T, refresh time.Duration) *laned {
	t.Helper()
	watcher := w.watched(t, testkit.Deadline)
	kinds := make(chan []lane.Kind, 1)
	kinds <- []lane.Kind{{Name: "payment", Lanes: len(numbers) - 1, Refresh: refresh}}
	limits := lane.DefaultLimits()
	limits.HaltedRetry = 100 * time.Millisecond
	l := &laned{causes: map[int]string{}}
	pool := lane.NewPool(lane.Config{
		Conn: w.js.Conn(), JS: w.js, Limits: limits, Kinds: kinds, Self: lane.Member{Instance: "s1-test", Name: "s1", Started: time.Now()},
		Stage: func(k lane.Kind, n int) lane.Stage {
			return &laneStage{stage: &stage{kind: k.Name, lane: n, watcher: watcher, await: time.Second}}
		},
		Observer: lane.Observer{
			Halted: func(_ string, n int, cause string) {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.causes[n] = cause
			},
			Phase: func(_ string, n int, p lane.Phase) {
				l.mu.Lock()
				defer l.mu.Unlock()
				if p == lane.Running {
					delete(l.causes, n)
				}
			},
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(ctx) }()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(l.stop)
	return l
}

func (l *laned) awaitHalt(t *testing.T, says string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, "every lane has halted", func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.causes {
			if !strings.Contains(c, says) {
				return false, fmt.Sprint(l.causes)
			}
		}
		return len(l.causes) == len(numbers), fmt.Sprint(l.causes)
	})
}

// events left in EVENTS, and the sequence of each lane's position in SCORES.
func (w *world) state(t *testing.T) (left uint64, positions []uint64) {
	t.Helper()
	ctx := testkit.Context(t)
	in, err := w.js.Stream(ctx, events.EventsStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.js.Stream(ctx, events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		m, err := out.GetLastMsgForSubject(ctx, events.PositionSubject("payment", n))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		positions = append(positions, m.Sequence)
	}
	return in.CachedInfo().State.Msgs, positions
}

func once(t *testing.T, what string, got map[uint64]int, want []uint64) {
	t.Helper()
	for _, seq := range want {
		if got[seq] != 1 {
			t.Errorf("event %d %s %d times", seq, what, got[seq])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d events %s, want %d", len(got), what, len(want))
	}
}

// Retention takes all events and would take the positions while nothing comes: the lanes commit them again, and go on.
func TestRetentionPassesWhileIdle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const age = 2 * time.Second
	w.lanes(t, age/4)
	before := w.publishSome(t, 40)
	w.outcomes(t, before)
	w.keep(t, map[string]time.Duration{events.EventsStream("payment"): age, events.ScoresStream("payment"): age})
	_, first := w.state(t)
	testkit.Eventually(t, testkit.Deadline, "retention has taken what there was, but for positions that came since", func() (bool, string) {
		left, now := w.state(t)
		scored, _ := w.told(t)
		return left == 0 && len(scored) == 0 && len(now) == len(numbers) && slices.Min(now) > slices.Max(first), fmt.Sprint(left, len(scored), first, now)
	})
	after := w.publishSome(t, 40)
	testkit.Eventually(t, testkit.Deadline, "what came after is scored", func() (bool, string) {
		scored, _ := w.told(t)
		return len(scored) >= len(after), fmt.Sprint(len(scored))
	})
	scored, expired := w.told(t)
	once(t, "is scored", scored, after)
	if len(expired) > 0 {
		t.Errorf("%d events count as expired, and each was scored in time", len(expired))
	}
}

// Events grow too old while nobody scores: each is in one range that expired, whoever comes back scores the rest.
func TestRetentionPassesWhileStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.lanes(t, 0)
	done := w.publishSome(t, 40)
	w.outcomes(t, done)
	l.stop()
	lost := w.publishSome(t, 40)
	w.keep(t, map[string]time.Duration{events.EventsStream("payment"): time.Second})
	testkit.Eventually(t, testkit.Deadline, "retention has taken the events", func() (bool, string) {
		left, _ := w.state(t)
		return left == 0, fmt.Sprint(left)
	})
	w.keep(t, map[string]time.Duration{events.EventsStream("payment"): time.Hour})
	rest := w.publishSome(t, 40)
	w.lanes(t, 0)
	testkit.Eventually(t, testkit.Deadline, "the rest is scored", func() (bool, string) {
		scored, _ := w.told(t)
		return len(scored) >= len(done)+len(rest), fmt.Sprint(len(scored))
	})
	scored, expired := w.told(t)
	once(t, "is scored", scored, slices.Concat(done, rest))
	for _, seq := range lost {
		if expired[seq] == 0 || expired[seq] > len(numbers) { // a range is of a lane, and passes over the events of the others
			t.Errorf("event %d is in %d ranges that expired", seq, expired[seq])
		}
	}
}

// Everything is stopped for longer than positions are kept: no lane begins anywhere before it is told where.
func TestRetentionTakesPositions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l := w.lanes(t, 0)
	done := w.publishSome(t, 40)
	w.outcomes(t, done)
	l.stop()
	w.keep(t, map[string]time.Duration{events.ScoresStream("payment"): time.Second})
	testkit.Eventually(t, testkit.Deadline, "retention has taken the positions", func() (bool, string) {
		_, positions := w.state(t)
		return len(positions) == 0, fmt.Sprint(positions)
	})
	w.keep(t, map[string]time.Duration{events.ScoresStream("payment"): time.Hour})
	rest := w.publishSome(t, 40)
	l = w.lanes(t, 0)
	l.awaitHalt(t, "no position")
	if scored, _ := w.told(t); len(scored) > 0 {
		t.Errorf("%d outcomes while every lane is halted", len(scored))
	}
	w.rebase(t, done[len(done)-1])
	testkit.Eventually(t, testkit.Deadline, "the rest is scored", func() (bool, string) {
		scored, _ := w.told(t)
		return len(scored) >= len(rest), fmt.Sprint(len(scored))
	})
	scored, _ := w.told(t)
	once(t, "is scored", scored, rest)
}

func (w *world) rebase(t *testing.T, seq uint64) {
	t.Helper()
	for _, n := range numbers {
		r := topology.RebaseRequest{Kind: "payment", Lane: n, Seq: seq, By: "ann", Reason: "a test"}
		testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("lane %d is rebased", n), func() (bool, string) {
			_, err := topology.Rebase(testkit.Context(t), w.js, r)
			if err != nil && !errors.Is(err, topology.ErrFenced) {
				t.Fatal(err)
			}
			return err == nil, fmt.Sprint(err)
		})
	}
}

// Both streams are put back from backups of different moments: whichever is the older, the lanes stop and say so, and go on
// without a loss where they are told.
func TestRestoredFromDifferentMoments(t *testing.T) {
	in, out := events.EventsStream("payment"), events.ScoresStream("payment")
	for _, older := range []string{in, out} {
		t.Run(older+" is the older", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx := testkit.Context(t)
			manager, err := jsm.New(w.js.Conn())
			if err != nil {
				t.Fatal(err)
			}
			backup := map[string]string{in: t.TempDir(), out: t.TempDir()}
			save := func(name string) {
				t.Helper()
				s, err := manager.LoadStream(name)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.SnapshotToDirectory(ctx, backup[name]); err != nil {
					t.Fatal(err)
				}
			}
			l := w.lanes(t, 0)
			first := w.publishSome(t, 40)
			w.outcomes(t, first)
			save(older)
			second := w.publishSome(t, 40)
			w.outcomes(t, second)
			save(map[string]string{in: out, out: in}[older])
			w.outcomes(t, w.publishSome(t, 40)) // in neither
			l.stop()
			for name, dir := range backup {
				if err := w.js.DeleteStream(ctx, name); err != nil {
					t.Fatal(err)
				}
				if _, _, err := manager.RestoreSnapshotFromDirectory(ctx, name, dir); err != nil {
					t.Fatal(err)
				}
			}
			third := w.publishSome(t, 40)
			l = w.lanes(t, 0)
			l.awaitHalt(t, "lane rebase")
			// With the older EVENTS, outcomes of second are of events that are gone, whose sequences those of third have taken.
			has := slices.Concat(first, second)
			if older == out {
				has = first
			}
			before, _ := w.told(t)
			once(t, "has an outcome", before, has)
			w.rebase(t, first[len(first)-1])
			testkit.Eventually(t, testkit.Deadline, "the rest is scored", func() (bool, string) {
				now, _ := w.told(t)
				total := 0
				for _, n := range now {
					total += n
				}
				want := len(first) + len(second) + len(third)
				return total >= want, fmt.Sprintf("%d of %d", total, want)
			})
			now, expired := w.told(t)
			for _, seq := range third {
				want := 1
				if slices.Contains(second, seq) && older == in {
					want = 2
				}
				if now[seq] != want {
					t.Errorf("event %d has %d outcomes, want %d", seq, now[seq], want)
				}
			}
			if len(expired) > 0 {
				t.Errorf("%d events count as expired", len(expired))
			}
		})
	}
}
