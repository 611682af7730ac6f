package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

// tries paces the attempts at one thing that the broker does not accept, until the patience is over.
type tries struct {
	until time.Time
	pause time.Duration
	told  bool
}

func (f *File) newTries() tries {
	return tries{until: time.Now().Add(f.cfg.Patience), pause: retryPause}
}

// again waits before the next attempt, or returns why there is none.
func (t *tries) again(ctx context.Context, log *zap.Logger, err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || !time.Now().Before(t.until) {
		return fmt.Errorf("not accepted by the broker (what was committed stays; run the same command again to go on): %w", err)
	}
	if !t.told {
		t.told = true
		log.Warn("not accepted by the broker, trying again", zap.Error(err), zap.Time("until", t.until))
	}
	if err := sleep(ctx, min(t.pause, time.Until(t.until))); err != nil {
		return err
	}
	t.pause = min(2*t.pause, retryLonger)
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
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

// pace lets rows go at a rate. What was missed by more than a second is not caught up with.
type pace struct {
	rate float64 // rows a second; 0: no limit
	next time.Time
}

// most is how many rows should go at once, of at most limit.
func (p *pace) most(limit int) int {
	if p.rate == 0 {
		return limit
	}
	return max(1, min(limit, int(p.rate*paceEvery.Seconds())))
}

// wait returns when n more rows may go.
func (p *pace) wait(ctx context.Context, n int64) error {
	if p.rate == 0 {
		return nil
	}
	now := time.Now()
	if earliest := now.Add(-time.Second); p.next.Before(earliest) {
		p.next = now
	}
	err := sleep(ctx, p.next.Sub(now))
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	return err
}
