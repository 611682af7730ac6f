package scorer

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/lane"
)

// stuck is a stage whose Outcomes come back when they are let.
type stuck struct {
	lane.Stage
	entered, let chan struct{}
}

func (s stuck) Outcomes([]lane.Event) []*nats.Msg {
	s.entered <- struct{}{}
	<-s.let
	return nil
}

func TestWatchdog(t *testing.T) {
	t.Parallel()
	const ticks = 30
	d := newWatchdog(ticks * watchEvery)
	s := stuck{entered: make(chan struct{}), let: make(chan struct{})}
	busy := d.watch("payment/3", s)
	d.watch("payment/4", s)
	looks := func(n int, want string) {
		t.Helper()
		for i := range n {
			if got := d.look(); got != "" {
				t.Fatalf("look %d says that %q hangs", i, got)
			}
		}
		if got := d.look(); got != want {
			t.Fatalf("it says that %q hangs, want %q", got, want)
		}
	}
	looks(5*ticks, "") // nobody scores
	done := make(chan struct{})
	go func() {
		defer close(done)
		busy.Outcomes(nil)
		busy.Outcomes(nil)
	}()
	<-s.entered
	looks(ticks-1, "") // it is seen first, and then for a tick less than it may take
	s.let <- struct{}{}
	<-s.entered
	looks(ticks, "payment/3") // another call begins anew
	// A lane that is owned again has another stage, whatever became of the old one.
	d.watch("payment/3", s)
	looks(2*ticks, "")
	s.let <- struct{}{}
	<-done
}

func TestWatchdogEnds(t *testing.T) {
	t.Parallel()
	d := newWatchdog(watchEvery)
	s := stuck{entered: make(chan struct{}), let: make(chan struct{})}
	w := d.watch("payment/3", s)
	done := make(chan struct{})
	go func() { defer close(done); w.Outcomes(nil) }()
	<-s.entered
	began := time.Now()
	if err := d.run(t.Context()); err == nil {
		t.Error("run has ended without an error")
	}
	if took := time.Since(began); took < watchEvery {
		t.Errorf("it ended after %s", took)
	}
	close(s.let)
	<-done
}
