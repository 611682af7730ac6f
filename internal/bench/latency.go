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

// latency of scorers that are started for it.
func (b *bench) latency(ctx context.Context, rate int) (Latency, error) {
	for i := range b.Scorers {
		if err := b.System.Start(ctx, "scorer-"+strconv.Itoa(i+1), "scorer"); err != nil {
			return Latency{}, err
		}
	}
	defer b.System.Stop()
	if err := pause(ctx, settle); err != nil {
		return Latency{}, err
	}
	return b.paced(ctx, b.kind, rate)
}

// sent is what became of events that were to be sent at fixed times.
type sent struct {
	due  []time.Time
	late []time.Duration // by which the sender itself was
	came []time.Time     // zero: not
}

// send sends msgpack events at fixed times, whatever became of those before, and says when the committed score of each came by the
// live view. before is called ahead of each event with the time since the first; nil: not.
func (b *bench) send(ctx context.Context, kind string, rate int, span time.Duration, before func(time.Duration) error) (sent, error) {
	every := time.Second / time.Duration(rate)
	n := int(span / every)
	prefix := strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	x := sent{due: make([]time.Time, n), late: make([]time.Duration, n)}
	came := make([]time.Time, n) // of mu

	var mu sync.Mutex
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
		return x, fmt.Errorf("live view: %w", err)
	}
	defer sub.Unsubscribe()
	if err := b.Conn.Flush(); err != nil {
		return x, err
	}
	g := newGenerator(uint64(time.Now().UnixNano()))
	began := time.Now().Add(10 * time.Millisecond)
	for i := range n {
		e := g.event()
		e.id = prefix + strconv.Itoa(i)
		body, err := e.msgpack()
		if err != nil {
			return x, err
		}
		subject, err := events.EventSubject(kind, e.account)
		if err != nil {
			return x, err
		}
		x.due[i] = began.Add(time.Duration(i) * every)
		if err := pause(ctx, time.Until(x.due[i])); err != nil {
			return x, err
		}
		if before != nil {
			if err := before(x.due[i].Sub(began)); err != nil {
				return x, err
			}
		}
		x.late[i] = time.Since(x.due[i])
		if _, err := b.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: body}, natsjs.WithStallWait(settle)); err != nil {
			return x, fmt.Errorf("publish: %w", err)
		}
	}
	for end := time.Now().Add(settle); time.Now().Before(end); {
		mu.Lock()
		all := !slices.ContainsFunc(came, time.Time.IsZero)
		mu.Unlock()
		if all {
			break
		}
		if err := pause(ctx, pollEvery); err != nil {
			return x, err
		}
	}
	mu.Lock()
	defer mu.Unlock()
	x.came = slices.Clone(came) // a score may come still
	return x, nil
}

// paced is the latency at a rate, from the time at which an event was to be sent to when its committed score came.
func (b *bench) paced(ctx context.Context, kind string, rate int) (Latency, error) {
	x, err := b.send(ctx, kind, rate, warmUp+b.Span, nil)
	if err != nil {
		return Latency{}, err
	}
	lost := 0
	var took, late []float64
	for i := range x.due {
		if x.due[i].Sub(x.due[0]) < warmUp {
			continue
		}
		late = append(late, ms(x.late[i]))
		if x.came[i].IsZero() {
			lost++
			continue
		}
		took = append(took, ms(x.came[i].Sub(x.due[i])))
	}
	l := latencyOf(rate, took, late)
	l.Lost = lost
	return l, nil
}

// floor is what the broker alone takes: an event stored and acknowledged, and behind it an outcome stored and acknowledged.
func (b *bench) floor(ctx context.Context, rate int) (Latency, error) {
	every := time.Second / time.Duration(rate)
	n := int((warmUp + b.Span) / every)
	skip := int(warmUp / every)
	event, err := newGenerator(1).next(b.kind, events.Msgpack)
	if err != nil {
		return Latency{}, err
	}
	outcome := &nats.Msg{Subject: events.CommitSubject(b.kind, events.BandLow, "a1"), Data: outcomeOfSize(b.size)}
	took, late, failed := make([]float64, n), make([]float64, n), make(chan error, n)
	var under sync.WaitGroup
	began := time.Now().Add(10 * time.Millisecond)
	for i := range n {
		due := began.Add(time.Duration(i) * every)
		if err := pause(ctx, time.Until(due)); err != nil {
			return Latency{}, err
		}
		late[i] = ms(time.Since(due))
		under.Go(func() {
			for _, m := range []*nats.Msg{event, outcome} {
				if _, err := b.js.PublishMsg(ctx, m); err != nil {
					failed <- fmt.Errorf("publish: %w", err)
					return
				}
			}
			took[i] = ms(time.Since(due))
		})
	}
	under.Wait()
	select {
	case err := <-failed:
		return Latency{}, err
	default:
	}
	return latencyOf(rate, took[skip:], late[skip:]), nil
}

// latencyOf sorts both, which are in milliseconds.
func latencyOf(rate int, took, late []float64) Latency {
	slices.Sort(took)
	slices.Sort(late)
	return Latency{
		Rate: rate, N: len(took), P50: quantile(took, 0.5), P90: quantile(took, 0.9), P99: quantile(took, 0.99), Max: quantile(took, 1),
		LateSend: quantile(late, 0.99),
	}
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
