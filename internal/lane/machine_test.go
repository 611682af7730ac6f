package lane

import (
	"strconv"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// lifetime drives a machine against a server without faults until it dies of event poison, and returns what is stored
// then. It returns true if the machine ended the event unread instead.
func lifetime(t *testing.T, me string, pos events.Position, token uint64, poison, last uint64) (events.Position, uint64, bool) {
	t.Helper()
	now := simEpoch
	m := NewMachine(me, DefaultLimits())
	actions := m.Step(Own{}, now)
	var run OpenRun
	for next := uint64(0); ; {
		if len(actions) == 0 { // events come in a burst while a commit is under way
			if run.Run == 0 || next > last {
				t.Fatalf("%s: stuck %s at %d", me, m.Phase(), m.Position().Seq)
			}
			in := Delivered{Run: run.Run, Consumer: next - run.From + 1, Event: Event{Seq: next, Stored: now}}
			next++
			actions = m.Step(in, now)
			continue
		}
		action := actions[0]
		actions = actions[1:]
		var in Input
		switch a := action.(type) {
		case ReadPosition:
			in = PositionRead{ID: a.ID, Found: true, Token: token, Position: pos}
		case Inspect:
			in = Inspected{ID: a.ID, Incarnation: pos.Incarnation, First: 1, Last: last}
		case OpenRun:
			run, next, in = a, a.From, Opened{Run: a.Run}
		case Commit:
			if a.Treatment == Unread {
				return pos, token, true
			}
			for _, e := range a.Events {
				if e.Seq == poison {
					return pos, token, false
				}
			}
			for range 200 { // read while the commit is under way
				if next > last || m.Room() == 0 {
					break
				}
				if more := m.Step(Delivered{Run: run.Run, Consumer: next - run.From + 1, Event: Event{Seq: next, Stored: now}}, now); len(more) > 0 && run.Run > 0 {
					t.Fatalf("%s: %s during a commit", me, showAll(more))
				}
				if run.Run > 0 {
					next++
				}
			}
			token++
			pos, in = a.Position, CommitEnd{ID: a.ID, Result: Stored, Token: token}
		default:
			t.Fatalf("%s: %s", me, show(a))
		}
		actions = append(actions, m.Step(in, now)...)
	}
}

// deathsOf is how many owners an event takes with it at most: those that make the lane careful, one for each width in which it is
// then tried, and those that die of it alone.
func deathsOf(l Limits) int {
	n := l.CarefulAt + l.MaxTries
	for width := l.MaxBatch / l.Narrow; width > 1; width /= l.Narrow {
		n++
	}
	return n
}

// A poison deep in a backlog stands far behind the position, and every new owner commits something before it comes there:
// that must not make each of them the first to die.
func TestPoisonDeepInABacklog(t *testing.T) {
	l := DefaultLimits()
	for _, poison := range []uint64{1, 2, 30, 450, 899, 900, 901, 2000} {
		pos, token, unread := events.Position{Incarnation: simEpoch}, uint64(1), false
		deaths := 0
		for ; !unread; deaths++ {
			if deaths > deathsOf(l) {
				t.Fatalf("event %d has killed %d owners", poison, deaths)
			}
			pos, token, unread = lifetime(t, "owner"+strconv.Itoa(deaths), pos, token, poison, 3000)
		}
		if deaths--; deaths < l.CarefulAt+l.MaxTries {
			t.Errorf("event %d killed %d owners before it ended unread, want at least %d", poison, deaths, l.CarefulAt+l.MaxTries)
		}
	}
}

// Once closed, a run is not heard any more.
func TestOldRunIsNotHeard(t *testing.T) {
	m := NewMachine("me", DefaultLimits())
	m.phase, m.run, m.wanted = Running, 2, true
	for _, in := range []Input{
		Delivered{Run: 1, Consumer: 1, Event: Event{Seq: 1, Stored: simEpoch}},
		Heartbeat{Run: 1, Consumer: 7, Stream: 9},
		RunEnded{Run: 1, Cause: "deleted"},
		Opened{Run: 1},
		Inspected{ID: 0, First: 5},
		CommitEnd{ID: 9, Result: Stored, Token: 3},
	} {
		if actions := m.Step(in, simEpoch.Add(time.Second)); len(actions) > 0 || m.received != 0 || m.phase != Running {
			t.Errorf("%s: %s, %s, received %d", show(in), showAll(actions), m.phase, m.received)
		}
	}
}

// An idle lane far behind what its run has passed says so in its position: a run that begins there costs the server much.
func TestIdleLaneComesNear(t *testing.T) {
	m := NewMachine("s1", Limits{Far: 100})
	m.phase, m.pos = Running, events.Position{Seq: 10, Owner: "s1"}
	if m.received = 109; len(m.owed(simEpoch)) > 0 {
		t.Error("it commits for 99 sequences")
	}
	m.received = 110
	actions := m.owed(simEpoch)
	if len(actions) != 1 {
		t.Fatalf("%d actions", len(actions))
	}
	if c, ok := actions[0].(Commit); !ok || c.Position.Seq != 110 || len(c.Events) > 0 {
		t.Errorf("%+v", actions[0])
	}
}
