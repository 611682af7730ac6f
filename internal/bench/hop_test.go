package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// What features by a second key would cost the broker, tried small (ADR 11). Nothing is computed: lanes take events and commit answers of the usual size.
//
//	everyone:  one lane pass; two readers of everything beside it, as two scorers' memories are
//	second hop: three lane passes, as an event of one other key has: keyed again and committed; answered by the
//	            other key's lanes and committed; joined and committed. All passes at once, each on a stream of its own
//
// The second hop is flattered: no pass waits for the one before, and nothing is joined.
//
//	go test -run xxx -bench SecondHop -benchtime 5x ./internal/bench
func BenchmarkSecondHop(b *testing.B) {
	const (
		backlog = 30_000
		lanes   = 8
	)
	c := testkit.Start(b, 3, testkit.Sync())
	conn := c.Connect(b)
	js, err := natsjs.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 3}); err != nil {
		b.Fatal(err)
	}
	h := &bench{Config: Config{Conn: conn, Nodes: 3, Lanes: lanes, Events: backlog}, js: js}
	kinds := []string{"hop_a", "hop_b", "hop_c"}
	for _, kind := range kinds {
		if _, err := topology.ApplyKind(ctx, js, contract(kind, lanes), topology.Options{Replicas: 3}); err != nil {
			b.Fatal(err)
		}
		if err := h.fill(ctx, kind, events.Msgpack); err != nil {
			b.Fatal(err)
		}
	}
	// drain is the time in which lanes of the kinds come to their ends.
	drain := func(readers int, kinds ...string) time.Duration {
		ends := map[string]map[int]uint64{}
		for _, kind := range kinds {
			var err error
			if ends[kind], err = h.rewind(ctx, kind, 0); err != nil {
				b.Fatal(err)
			}
		}
		run, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		began := time.Now()
		var read atomic.Int64
		for i := range readers {
			r := &tail.Reader{JS: js, Name: fmt.Sprint("hop", i), Stream: events.EventsStream(kinds[0]), Owner: "bench", Begin: func(time.Time) {}, Idle: func() {},
				Take: func(tail.Message, *natsjs.MsgMetadata) { read.Add(1) }, Trouble: func(err error) { b.Error(err) }}
			running.Go(func() { _ = r.Run(run) }) // its end is asked for
		}
		running.Go(func() { h.lanes(b, run, c, kinds) })
		for _, kind := range kinds {
			if err := h.wait(ctx, func(ctx context.Context) (bool, error) { return h.passed(ctx, kind, ends[kind]) }); err != nil {
				b.Fatal(err)
			}
		}
		for read.Load() < int64(readers*backlog) {
			if err := pause(ctx, pollEvery); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(began)
	}
	drain(0, kinds...)
	var ratios []float64
	for b.Loop() {
		everyone := drain(2, kinds[0])
		hop := drain(0, kinds...)
		ratios = append(ratios, hop.Seconds()/everyone.Seconds())
		b.Logf("everyone %.2f s, second hop %.2f s", everyone.Seconds(), hop.Seconds())
	}
	s := spread(ratios)
	b.Logf("second hop over everyone: %.2f (%.2f to %.2f), n=%d", s.Median, s.Min, s.Max, s.N)
	b.ReportMetric(s.Median, "ratio")
	b.Logf("latency: one pass p50 %.1f ms; three, one behind the other, p50 %.1f ms", h.chain(b, c, kinds[:1]), h.chain(b, c, kinds))
}

// lanes runs those of all kinds, with prepared answers: a scorer is a scorer of every kind.
func (h *bench) lanes(b *testing.B, ctx context.Context, c *testkit.Cluster, kinds []string) {
	conn := c.Connect(b)
	js, err := natsjs.New(conn)
	if err != nil {
		b.Error(err)
		return
	}
	all := make(chan []lane.Kind, 1)
	var list []lane.Kind
	for _, kind := range kinds {
		list = append(list, lane.Kind{Name: kind, Lanes: h.Lanes, Refresh: time.Hour})
	}
	all <- list
	err = lane.NewPool(lane.Config{
		Conn: conn, JS: js, Limits: lane.DefaultLimits(), Kinds: all,
		Self:  lane.Member{Instance: "hop", Name: "hop", Started: time.Now()},
		Stage: func(k lane.Kind, _ int) lane.Stage { return prepared{kind: k.Name, body: outcomeOfSize(300)} },
	}).Run(ctx)
	if err != nil {
		b.Error(err)
	}
}

// chain is the median time from an event to the last kind's outcome, each outcome but the last being the next kind's event.
func (h *bench) chain(b *testing.B, c *testkit.Cluster, kinds []string) float64 {
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	conn := c.Connect(b)
	running.Go(func() { h.lanes(b, ctx, c, kinds) })
	came := make(chan time.Time, 1)
	for i, kind := range kinds {
		sub, err := conn.Subscribe("scores."+kind+".>", func(*nats.Msg) {
			if i+1 == len(kinds) {
				select {
				case came <- time.Now():
				default:
				}
				return
			}
			if err := conn.Publish("events."+kinds[i+1]+".a1", []byte("{}")); err != nil {
				b.Error(err)
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		defer sub.Unsubscribe()
	}
	if err := pause(ctx, settle); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	for range 300 {
		began := time.Now()
		if err := conn.Publish("events."+kinds[0]+".a1", []byte("{}")); err != nil {
			b.Fatal(err)
		}
		select {
		case at := <-came:
			took = append(took, at.Sub(began))
		case <-time.After(5 * time.Second):
			b.Fatal("no outcome")
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			b.Fatal(err)
		}
	}
	v := make([]float64, len(took))
	for i := range took {
		v[i] = ms(took[i])
	}
	return spread(v).Median
}
