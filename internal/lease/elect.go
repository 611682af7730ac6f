package lease

import (
	"context"
	"errors"
	"time"
)

// releaseTimeout bounds what a process that ends waits for its lease to be released.
const releaseTimeout = time.Second

// Elect contends until ctx ends, and runs lead while we lead. Lead's context ends when we do not any more; lead must
// return soon after, and what it does until then must do no harm beside the next leader. Elect returns when lead has.
// trouble is told of each error that differs from the one before.
func Elect(ctx context.Context, l *Lease[struct{}], lead func(ctx context.Context), trouble func(error)) {
	// Twice as often as a renewal is due, so that one that failed is tried again before trust ends.
	tick := time.NewTicker(l.state.term / 8)
	defer tick.Stop()
	var t *tenure
	said := ""
	for {
		try, cancel := context.WithTimeout(ctx, l.state.term/4)
		_, err := l.Contend(try, struct{}{})
		cancel()
		switch {
		case err == nil:
			said = ""
		case !errors.Is(err, context.Canceled) && err.Error() != said:
			said = err.Error()
			trouble(err)
		}
		now := l.now()
		left, leads := l.state.trusted.Sub(now), l.Leads(now)
		if t != nil && !(leads && t.extend(left)) {
			t.end()
			t = nil
		} else if leads && t == nil && ctx.Err() == nil {
			t = begin(ctx, left, lead)
		}
		select {
		case <-ctx.Done():
			if t != nil {
				t.end()
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
			defer cancel()
			if err := l.Release(last, struct{}{}); err != nil {
				trouble(err)
			}
			return
		case <-tick.C:
		}
	}
}

// tenure is one run of lead.
type tenure struct {
	cancel context.CancelFunc
	expiry *time.Timer // cancels when trust ends
	done   chan struct{}
}

func begin(ctx context.Context, left time.Duration, lead func(context.Context)) *tenure {
	ctx, cancel := context.WithCancel(ctx)
	t := &tenure{cancel: cancel, expiry: time.AfterFunc(left, cancel), done: make(chan struct{})}
	go func() {
		defer close(t.done)
		lead(ctx)
	}()
	return t
}

// extend is false if the tenure is over already.
func (t *tenure) extend(left time.Duration) bool { return t.expiry.Reset(left) }

func (t *tenure) end() {
	t.expiry.Stop()
	t.cancel()
	<-t.done
}
