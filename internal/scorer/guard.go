package scorer

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
)

// laneStage adds what only a lane knows, and does not let a member of the model hold a batch up.
type laneStage struct {
	*stage
	tick *time.Timer
}

// A member holds a batch up if it has been at one event for stuckTicks of our own ticks, or at most of the looks that were taken while the
// batch took slowTicks. Ticks are counted, not time: a process that was frozen or starved of CPU has had few.
const (
	guardTick  = 25 * time.Millisecond
	stuckTicks = 4
	slowTicks  = 8
)

// Outcomes scores the batch in a goroutine of its own, since nothing can stop a member from outside. If one holds it up, the member is
// switched off and the batch scored again without it; the goroutine is left to end at its next event.
func (l *laneStage) Outcomes(batch []lane.Event) []*nats.Msg {
	l.arrange()                  // Adopt may have been some batches ago
	for range model.MaxMembers { // each time with one member less
		if len(l.predictor.Members()) == 0 {
			if l.panel != nil {
				l.panel.noteOut(l.kind, "")
			}
			break
		}
		s, done := l.stage, make(chan []*nats.Msg, 1)
		s.missing = s.predictor.Out()
		go func() { done <- s.Outcomes(batch) }()
		msgs, slow := l.wait(s, done)
		if slow == "" {
			l.panel.noteOut(s.kind, s.missing)
			return msgs
		}
		s.abandoned.Store(true)
		for_ := l.panel.tooSlow(s.kind, slow)
		if s.tally.slow != nil {
			s.tally.slow(s.kind, slow, for_)
		}
		l.stage = s.fresh()
		l.arrange()
	}
	return l.stage.Outcomes(batch)
}

// wait returns the outcomes, or the member that holds them up.
func (l *laneStage) wait(s *stage, done <-chan []*nats.Msg) (msgs []*nats.Msg, slow string) {
	if l.tick == nil {
		l.tick = time.NewTimer(guardTick)
	} else {
		l.tick.Reset(guardTick)
	}
	defer l.tick.Stop()
	names := s.predictor.Members()
	looks := make([]int, len(names)+1) // by what was at work; 0: none
	var last uint64
	at, ticks := 0, 0
	for {
		select {
		case msgs := <-done:
			return msgs, ""
		case <-l.tick.C:
			l.tick.Reset(guardTick)
		}
		work := s.scratch.Working.Load()
		member := min(int(work&0xff), len(names))
		if ticks++; work != last {
			last, at = work, 0
		}
		at++
		looks[member]++
		if member > 0 && (at >= stuckTicks || ticks >= slowTicks && 4*looks[member] >= 3*ticks) {
			return nil, names[member-1]
		}
	}
}

// fresh is a stage of the same lane that shares nothing it works in with s, which may still be at work.
func (s *stage) fresh() *stage {
	next := &stage{
		kind: s.kind, watcher: s.watcher, lane: s.lane, recalls: s.recalls, await: s.await, tally: s.tally, panel: s.panel,
		live: s.live, stale: s.stale, recall: s.recall, memory: make([]float64, len(s.memory)), remembered: s.remembered, panicOn: s.panicOn,
	}
	next.scratch.Fault = s.scratch.Fault
	if s.beside != nil {
		next.beside = &besides{running: s.beside.running, tried: s.beside.tried}
		next.beside.adopt(s.live)
	}
	return next
}
