package lane

import (
	"errors"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// The simulated server: EVENTS and SCORES of one kind, consumers, and a wire that loses, delays and repeats.

type poison uint8

const (
	harmless poison = iota
	deadly          // kills the process that scores it, alone or in a batch
	hanging         // the process that scores it does nothing more
)

type outcome uint8

const (
	none outcome = iota
	scored
	unread
	expired
)

// simEvent is the truth about one event.
type simEvent struct {
	lane    int
	stored  time.Time
	poison  poison
	outcome outcome
	left    bool     // EVENTS without an outcome
	kills   int      // owners that died of it, or hung and did not come back
	alone   int      // owners that died or hung of it while they scored nothing else
	sealed  int      // of markers, those that can not be taken back: another has set out since
	markers []string // instances that stored that they set out upon it alone, and have not come back
}

// generation is one EVENTS stream, from its creation to its deletion.
type generation struct {
	name    string // in every event's Subject, so that no commit mixes two
	created time.Time
	first   uint64
	events  []simEvent // by sequence - 1
}

func (g *generation) last() uint64             { return uint64(len(g.events)) }
func (g *generation) event(s uint64) *simEvent { return &g.events[s-1] }

type storedPosition struct {
	token uint64
	pos   events.Position
}

// simLane is what SCORES knows of a lane.
type simLane struct {
	hist     []storedPosition
	missing  bool // the position was purged
	inflight *packet
	holder   int // index of the process that the orderly view gives the lane to
}

func (l *simLane) top() storedPosition { return l.hist[len(l.hist)-1] }

// packet is one message under way: a question to the server (ask) or an input to a machine (in).
type packet struct {
	p    *proc
	m    *Machine
	lane int
	ask  Action
	in   Input
	run  *simRun // of in
	mute bool    // the asker has been told of a time-out
}

// simRun is a consumer.
type simRun struct {
	p         *proc
	m         *Machine
	lane      int
	id        uint64
	gen       *generation
	next      uint64 // EVENTS sequence to look at next
	shown     uint64 // up to which messages told of EVENTS
	delivered uint64 // consumer sequence of the last message sent
	alive     bool
}

var errSimTimeout = errors.New("time-out")

// timeout is what the asker hears when no answer comes.
func timeout(ask Action) Input {
	switch a := ask.(type) {
	case ReadPosition:
		return PositionRead{ID: a.ID, Err: errSimTimeout}
	case Inspect:
		return Inspected{ID: a.ID, Err: errSimTimeout}
	case OpenRun:
		return Opened{Run: a.Run, Err: errSimTimeout}
	case Commit:
		return CommitEnd{ID: a.ID, Result: Unknown, Err: errSimTimeout}
	}
	panic("no such question")
}

// send puts a question on the wire, where it may be lost, or still be under way when the asker gives up.
func (w *world) send(q packet) {
	switch {
	case w.chance(w.f.loseAsk):
		w.wire = append(w.wire, packet{p: q.p, m: q.m, lane: q.lane, in: timeout(q.ask)})
		return
	case w.chance(w.f.lateAsk):
		w.wire = append(w.wire, packet{p: q.p, m: q.m, lane: q.lane, in: timeout(q.ask)})
		q.mute = true
	}
	w.wire = append(w.wire, q)
}

func (w *world) answer(q *packet, in Input) {
	if q.mute {
		return
	}
	if w.chance(w.f.loseAnswer) {
		in = timeout(q.ask)
	}
	w.wire = append(w.wire, packet{p: q.p, m: q.m, lane: q.lane, in: in})
}

// serve handles a question that has reached the server.
func (w *world) serve(q packet) {
	l := &w.lanes[q.lane]
	switch a := q.ask.(type) {
	case ReadPosition:
		at := l.top()
		stale := w.chance(w.f.stale)
		if stale {
			at = l.hist[w.r.IntN(len(l.hist))]
		}
		if l.missing && !stale {
			w.answer(&q, PositionRead{ID: a.ID})
			return
		}
		w.answer(&q, PositionRead{ID: a.ID, Found: true, Token: at.token, Position: at.pos})
	case Inspect:
		in := Inspected{ID: a.ID, Incarnation: w.gen.created, First: w.gen.first, Last: w.gen.last()}
		for seq := max(a.After+1, w.gen.first); a.Begin && seq <= w.gen.last(); seq++ {
			if w.gen.event(seq).lane == q.lane {
				in.Next = seq
				break
			}
		}
		w.answer(&q, in)
	case OpenRun:
		from := a.From
		if from <= q.m.end && w.chance(w.f.holes) { // on a replica that is being put right; of what came after the claim nothing is known
			from = min(from+1+w.r.Uint64N(4), q.m.end+1)
		}
		w.runs = append(w.runs, &simRun{p: q.p, m: q.m, lane: q.lane, id: a.Run, gen: w.gen, next: from, shown: a.From - 1, alive: true})
		w.answer(&q, Opened{Run: a.Run})
	case Commit:
		switch {
		case l.inflight != nil:
			w.count.inFlight++
			w.answer(&q, CommitEnd{ID: a.ID, Result: Unknown, Err: errors.New("10164")})
		case !w.mutant.fenceIgnored && (l.missing && a.Fence != 0 || !l.missing && a.Fence != l.top().token):
			w.count.fenced++
			w.answer(&q, CommitEnd{ID: a.ID, Result: Fenced, Err: errors.New("10071")})
		case w.chance(w.f.refuse):
			w.answer(&q, CommitEnd{ID: a.ID, Result: Refused, Err: errors.New("10077")})
		default:
			l.inflight = &q
		}
	}
}

// decide ends the commit in flight of a lane: stored, or lost with its leader.
func (w *world) decide(lane int) {
	l := &w.lanes[lane]
	q := l.inflight
	if q == nil {
		return
	}
	l.inflight = nil
	c := q.ask.(Commit)
	if w.chance(w.f.loseCommit) {
		w.count.lostCommits++
		if w.tracing {
			w.tracef("commit %d of %s is lost by the server", c.ID, c.Position.Owner)
		}
		w.answer(q, timeout(c))
		return
	}
	w.apply(lane, c)
	w.token += 1 + uint64(len(c.Events))
	l.hist = append(l.hist, storedPosition{w.token, c.Position})
	l.missing = false
	if q.mute {
		w.count.storedUnknown++
	}
	w.answer(q, CommitEnd{ID: c.ID, Result: Stored, Token: w.token})
}

// emit lets a consumer send its next message, or a heartbeat.
func (w *world) emit(r *simRun, heartbeat bool) {
	if !r.alive || r.p.lanes[r.lane] != r.m {
		return
	}
	if r.gen != w.gen {
		r.alive = false
		return
	}
	if to := r.shown + w.limits.Leap + 1 + w.r.Uint64N(4); to > r.next && to <= r.gen.last()+1 && w.chance(w.f.holes) {
		w.count.holes++
		r.next = to
	}
	seq := max(r.next, r.gen.first)
	for seq <= r.gen.last() && r.gen.event(seq).lane != r.lane {
		seq++
	}
	if seq > r.gen.last() || heartbeat {
		if seq > r.gen.last() {
			r.next = seq
		}
		r.shown = r.next - 1
		w.deliver(packet{p: r.p, m: r.m, lane: r.lane, run: r, in: Heartbeat{Run: r.id, Consumer: r.delivered, Stream: r.next - 1}})
		return
	}
	if r.m.Room() < 1 {
		return
	}
	e := r.gen.event(seq)
	r.next, r.shown = seq+1, seq
	r.delivered++
	w.deliver(packet{p: r.p, m: r.m, lane: r.lane, run: r, in: Delivered{Run: r.id, Consumer: r.delivered,
		Event: Event{Seq: seq, Stored: e.stored, Subject: r.gen.name}}})
}

func (w *world) deliver(q packet) {
	if w.chance(w.f.loseDelivery) {
		w.count.lostDeliveries++
		return
	}
	w.wire = append(w.wire, q)
	if w.chance(w.f.repeatDelivery) {
		w.wire = append(w.wire, q)
	}
}

// expire removes what is older than MaxAge.
func (w *world) expire() {
	g := w.gen
	for g.first <= g.last() && w.now.Sub(g.event(g.first).stored) > simMaxAge {
		if e := g.event(g.first); e.outcome == none {
			e.left = true
		}
		g.first++
	}
}

func (w *world) publish() {
	e := simEvent{lane: w.r.IntN(len(w.lanes)), stored: w.now}
	if w.chance(w.f.poison) {
		e.poison = deadly
		if w.r.IntN(3) == 0 {
			e.poison = hanging
		}
	}
	w.gen.events = append(w.gen.events, e)
}

// damage does what only a person or a lost disk does; the lane must stop until rebase.
func (w *world) damage(lane int) {
	l := &w.lanes[lane]
	switch w.f.damage {
	case positionLost:
		w.decide(lane) // a commit in flight would be the next position
		l.missing = true
		w.tracef("the position of lane %d is purged", lane)
	case recreated:
		w.gen = &generation{name: "second", created: w.now, first: 1}
		w.tracef("EVENTS is made anew")
	case shortened:
		keep := uint64(w.r.IntN(int(w.gen.last() + 1)))
		w.gen.events = w.gen.events[:keep]
		w.gen.first = min(w.gen.first, keep+1)
		w.closed = true
		for _, r := range w.runs {
			r.alive = false
		}
		w.tracef("EVENTS now ends at %d", keep)
	}
	w.f.damage, w.broken = intact, true
}

// rebase is the operator's 'riskweir lane rebase': fenced, and tried again when a commit is in flight.
func (w *world) rebase(lane int) {
	w.decide(lane)
	l := &w.lanes[lane]
	p := l.top().pos
	p.Seq = min(p.Seq, w.gen.last())
	if !p.Incarnation.Equal(w.gen.created) {
		p.Seq, p.Incarnation = 0, w.gen.created
	}
	p.Epoch++
	p.Owner, p.Attempts, p.Trying, p.Taken, p.Tries, p.Trier, p.Until, p.Width = "", 0, 0, 0, 0, "", 0, 0
	w.token++
	l.hist = append(l.hist, storedPosition{w.token, p})
	l.missing = false
	w.tracef("rebase of lane %d to %d", lane, p.Seq)
}
