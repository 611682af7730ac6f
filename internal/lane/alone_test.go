package lane

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// witness sees the commits and the scoring of one process.
type witness struct {
	mu     sync.Mutex
	alone  int // lane between its mark and the end of the commit behind it; -1: none
	marks  map[int]int
	plain  int // batches scored without a mark
	broken []string
}

func (w *witness) scored(lane int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alone < 0 {
		w.plain++
	} else if w.alone != lane {
		w.broken = append(w.broken, fmt.Sprintf("lane %d makes outcomes while lane %d is alone", lane, w.alone))
	}
}

// watched is a Committer that tells the witness.
type watched struct {
	Committer
	w *witness
}

func (c watched) Commit(ctx context.Context, msgs []*nats.Msg) (uint64, error) {
	last := msgs[len(msgs)-1]
	_, lane, err := events.ParsePositionSubject(last.Subject)
	if err != nil {
		return 0, err
	}
	p, err := events.DecodePosition(last.Data)
	if err != nil {
		return 0, err
	}
	mark := len(msgs) == 1 && p.Tries > 0
	if mark {
		c.w.mu.Lock()
		if c.w.alone >= 0 {
			c.w.broken = append(c.w.broken, fmt.Sprintf("lane %d sets out while lane %d is alone", lane, c.w.alone))
		}
		c.w.alone = lane
		c.w.marks[lane]++
		c.w.mu.Unlock()
	}
	seq, err := c.Committer.Commit(ctx, msgs)
	if !mark || err != nil {
		c.w.mu.Lock()
		if c.w.alone == lane {
			c.w.alone = -1
		}
		c.w.mu.Unlock()
	}
	return seq, err
}

type watchedStage struct {
	sequences
	lane int
	w    *witness
}

func (s watchedStage) Outcomes(batch []Event) []*nats.Msg {
	s.w.scored(s.lane)
	return s.sequences.Outcomes(batch)
}

// While a lane tries what its owners may have died of, the process scores nothing else: what it dies of then is known.
func TestSetsOutAlone(t *testing.T) {
	b := newBroker(t)
	info, err := b.js.Stream(testkit.Context(t), events.EventsStream(testKind))
	if err != nil {
		t.Fatal(err)
	}
	suspect := []int{1, 4, 6}
	for _, lane := range suspect {
		body, err := json.Marshal(events.Position{Incarnation: info.CachedInfo().Created, Epoch: 2, Owner: "dead", Attempts: 2})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.js.Publish(testkit.Context(t), events.PositionSubject(testKind, lane), body); err != nil {
			t.Fatal(err)
		}
	}
	const n = 6000
	b.publish(t, n)
	w := &witness{alone: -1, marks: map[int]int{}}
	conn := b.Connect(t)
	js, err := natsjs.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(chan []Kind, 1)
	kinds <- []Kind{{Name: testKind, Lanes: testLanes}}
	p := NewPool(Config{
		Conn: conn, JS: js, Self: Member{Instance: "a", Name: "a"}, Limits: DefaultLimits(), Kinds: kinds,
		Stage: func(_ Kind, lane int) Stage { return watchedStage{lane: lane, w: w} },
		Committer: func(kind string) Committer {
			return watched{&topology.Committer{Conn: conn, Stream: events.ScoresStream(kind), Timeout: 5 * commitTimeout}, w}
		},
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	b.await(t, n)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.verify(t, n)
	for _, what := range w.broken {
		t.Error(what)
	}
	for _, lane := range suspect {
		if most := 2 * DefaultLimits().Narrow; w.marks[lane] < 2 || w.marks[lane] > most {
			t.Errorf("lane %d set out %d times, want 2 to %d", lane, w.marks[lane], most)
		}
	}
	if len(w.marks) != len(suspect) || w.plain == 0 {
		t.Errorf("lanes %v set out, want %v; %d plain batches", w.marks, suspect, w.plain)
	}
}
