package lane

import (
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// mutant breaks one rule on the way between machine and server; the zero mutant breaks none.
type mutant struct {
	rule         string
	input        func(w *world, lane int, m *Machine, in Input) Input
	commit       func(w *world, m *Machine, c *Commit) (swallow bool) // swallowed: answered as stored, and not sent
	fenceIgnored bool                                                 // by the server
	// Messages of any run at this process are taken for the current one's. Those of the same lane alone would do no harm: every
	// run opened before one's own claim began no later than it, and who opens one after it fences us.
	anyRun bool
}

var mutants = []mutant{
	{rule: "fence ignored", fenceIgnored: true},
	{rule: "claim skipped", commit: func(_ *world, m *Machine, _ *Commit) bool { return m.phase == Claiming }},
	{rule: "run identity ignored", anyRun: true},
	{rule: "gap accepted", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if d, ok := in.(Delivered); ok && d.Consumer > m.delivered {
			d.Consumer = m.delivered + 1
			return d
		}
		return in
	}},
	{rule: "heartbeat's tail ignored", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if h, ok := in.(Heartbeat); ok {
			h.Consumer = m.delivered
			return h
		}
		return in
	}},
	{rule: "silence ignored", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if _, ok := in.(Tick); ok && m.phase == Running {
			return nil
		}
		return in
	}},
	{rule: "unknown taken for stored", input: func(w *world, lane int, _ *Machine, in Input) Input {
		if c, ok := in.(CommitEnd); ok && c.Result == Unknown {
			return CommitEnd{ID: c.ID, Result: Stored, Token: w.lanes[lane].top().token}
		}
		return in
	}},
	{rule: "unknown taken for not stored", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if c, ok := in.(CommitEnd); ok && c.Result == Unknown && m.phase == Committing && c.ID == m.asked {
			m.next = m.pos
			return CommitEnd{ID: c.ID, Result: Stored, Token: m.token}
		}
		return in
	}},
	{rule: "missing position taken for 0", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if p, ok := in.(PositionRead); ok && p.Err == nil && !p.Found {
			return PositionRead{ID: p.ID, Found: true, Position: events.Position{Incarnation: m.pos.Incarnation}}
		}
		return in
	}},
	{rule: "incarnation ignored", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && i.Err == nil {
			i.Incarnation = m.pos.Incarnation
			return i
		}
		return in
	}},
	{rule: "end of EVENTS ignored", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && i.Err == nil {
			i.Last = max(i.Last, m.pos.Seq)
			return i
		}
		return in
	}},
	{rule: "start of EVENTS ignored", input: func(_ *world, _ int, _ *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && i.Err == nil {
			i.First = 1
			return i
		}
		return in
	}},
	{rule: "start of EVENTS not asked again", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && i.Err == nil && m.phase == Checking {
			i.First = 1
			return i
		}
		return in
	}},
	{rule: "leap not asked about", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && m.phase == Checking {
			i.Next = 0
			return i
		}
		return in
	}},
	{rule: "first event not asked for", input: func(_ *world, _ int, m *Machine, in Input) Input {
		if i, ok := in.(Inspected); ok && m.phase != Checking {
			i.Next = 0
			return i
		}
		return in
	}},
	{rule: "attempts not counted", commit: func(_ *world, _ *Machine, c *Commit) bool {
		c.Position.Attempts = 0
		return false
	}},
	{rule: "mark not stored", commit: func(_ *world, m *Machine, c *Commit) bool {
		return c.Position.Tries > m.pos.Tries
	}},
	{rule: "mark not taken back", commit: func(_ *world, m *Machine, c *Commit) bool {
		if m.phase == Claiming {
			c.Position.Trying, c.Position.Taken, c.Position.Tries = m.pos.Trying, m.pos.Taken, m.pos.Tries
			m.next = c.Position
		}
		return false
	}},
}

func mutantNamed(rule string) (mutant, bool) {
	if rule == "" {
		return mutant{}, true
	}
	for _, m := range mutants {
		if m.rule == rule {
			return m, true
		}
	}
	return mutant{}, false
}

// TestSimulationNotices breaks each rule in turn: a simulation that did not object would prove nothing of it.
func TestSimulationNotices(t *testing.T) {
	if testkit.Raced {
		t.Skip("a schedule has one goroutine: nothing is found here that TestSimulation does not show the race detector")
	}
	const within = 20_000
	for _, m := range mutants {
		seed, broken, _ := campaign(within, m)
		if seed < 0 {
			t.Errorf("%-30s not noticed in %d schedules", m.rule, within)
			continue
		}
		t.Logf("%-30s seed %4d: %s", m.rule, seed, broken)
	}
}
