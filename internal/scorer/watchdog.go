package scorer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/pkg/events"
)

const watchEvery = 100 * time.Millisecond

// watchdog finds a lane whose stage does not come back. Nothing can end a goroutine from outside, and the process would go on
// announcing itself, so that the lane would wait for as long as the hang lasts: such a process has to end.
//
// It counts its own ticks rather than time: a process that was frozen, or starved of CPU, has had few.
type watchdog struct {
	after int // ticks during one call, after which it hangs

	mu     sync.Mutex
	stages map[string]*watched // "<kind>/<lane>": the latest there was
}

func newWatchdog(after time.Duration) *watchdog {
	return &watchdog{after: max(1, int(after/watchEvery)), stages: map[string]*watched{}}
}

// watched is a stage under the watchdog's eyes.
//
//	calls is odd while the lane is in the stage
type watched struct {
	lane.Stage
	calls atomic.Uint64

	// Owned by watchdog.mu.
	seen  uint64
	ticks int
}

func (d *watchdog) watch(name string, s lane.Stage) lane.Stage {
	w := &watched{Stage: s}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stages[name] = w
	return w
}

func (w *watched) Adopt() uint64 {
	w.calls.Add(1)
	defer w.calls.Add(1)
	return w.Stage.Adopt()
}

func (w *watched) Outcomes(batch []lane.Event) []*nats.Msg {
	w.calls.Add(1)
	defer w.calls.Add(1)
	return w.Stage.Outcomes(batch)
}

func (w *watched) Beside(before events.Besides) events.Besides {
	w.calls.Add(1)
	defer w.calls.Add(1)
	return w.Stage.Beside(before)
}

func (w *watched) Unread(e lane.Event, attempts int) *nats.Msg {
	w.calls.Add(1)
	defer w.calls.Add(1)
	return w.Stage.Unread(e, attempts)
}

func (w *watched) Expired(first, last uint64) *nats.Msg {
	w.calls.Add(1)
	defer w.calls.Add(1)
	return w.Stage.Expired(first, last)
}

// look is one tick. It returns a lane that hangs, or "".
func (d *watchdog) look() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, w := range d.stages {
		calls := w.calls.Load()
		if calls%2 == 0 || calls != w.seen {
			w.seen, w.ticks = calls, 0
			continue
		}
		if w.ticks++; w.ticks >= d.after {
			return name
		}
	}
	return ""
}

// run looks until ctx ends or a lane hangs, which is the error.
func (d *watchdog) run(ctx context.Context) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if name := d.look(); name != "" {
				return fmt.Errorf("scorer: lane %s has not come back from scoring for %s: the process ends, for another to take its lanes", name, time.Duration(d.after)*watchEvery)
			}
		}
	}
}
