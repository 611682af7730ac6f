package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

const (
	settle = 3 * time.Second // after the start, and for the last scores to come
	warmUp = 2 * time.Second
)

// latency sends msgpack events at fixed times, whatever became of those before, and takes the time from when each was to be sent to
// when its committed score came by the live view.
func (b *bench) latency(ctx context.Context, rate int) (Latency, error) {
	kind := kindOf(events.Msgpack)
	for i := range b.Scorers {
		if err := b.System.Start(ctx, "scorer-"+strconv.Itoa(i+1), "scorer"); err != nil {
			return Latency{}, err
		}
	}
	defer b.System.Stop()
	if err := pause(ctx, settle); err != nil {
		return Latency{}, err
	}
	every := time.Second / time.Duration(rate)
	n := int((warmUp + b.Span) / every)
	skip := int(warmUp / every)
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36) + "-"

	var mu sync.Mutex
	came := make([]time.Time, n)
	sub, err := b.Conn.Subscribe("scores."+kind+".>", func(m *nats.Msg) {
		now := time.Now()
		s, err := events.DecodeScore(m.Data)
		if err != nil {
			return // of no event of ours
		}
		rest, ours := strings.CutPrefix(s.ID, prefix)
		if i, err := strconv.Atoi(rest); ours && err == nil && i < n {
			mu.Lock()
			came[i] = now
			mu.Unlock()
		}
	})
	if err != nil {
		return Latency{}, fmt.Errorf("live view: %w", err)
	}
	if err := b.Conn.Flush(); err != nil {
		return Latency{}, err
	}
	g := newGenerator(uint64(time.Now().UnixNano()))
	late := make([]float64, 0, n)
	began := time.Now().Add(10 * time.Millisecond)
	for i := range n {
		e := g.event()
		e.id = prefix + strconv.Itoa(i)
		body, err := e.msgpack()
		if err != nil {
			return Latency{}, err
		}
		subject, err := events.EventSubject(kind, e.account)
		if err != nil {
			return Latency{}, err
		}
		at := began.Add(time.Duration(i) * every)
		if err := pause(ctx, time.Until(at)); err != nil {
			return Latency{}, err
		}
		if i >= skip {
			late = append(late, ms(time.Since(at)))
		}
		if _, err := b.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: body}, natsjs.WithStallWait(settle)); err != nil {
			return Latency{}, fmt.Errorf("publish: %w", err)
		}
	}
	if err := pause(ctx, settle); err != nil {
		return Latency{}, err
	}
	if err := sub.Unsubscribe(); err != nil {
		return Latency{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	l := Latency{Rate: rate}
	var took []float64
	for i := skip; i < n; i++ {
		if came[i].IsZero() {
			l.Lost++
			continue
		}
		took = append(took, ms(came[i].Sub(began.Add(time.Duration(i)*every))))
	}
	slices.Sort(took)
	slices.Sort(late)
	l.N, l.P50, l.P90, l.P99, l.Max = len(took), quantile(took, 0.5), quantile(took, 0.9), quantile(took, 0.99), quantile(took, 1)
	l.LateSend = quantile(late, 0.99)
	return l, nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
