package lane

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// view says how wrong the scorers' idea of who owns a lane may be, and of what they die.
type view uint8

const (
	orderly  view = iota // a lane goes to another only when its owner is dead, hangs or has released it; death is by poison
	quarrels             // anyone may think that it owns a lane; death is by poison
	havoc                // the same, with kills and freezes at any moment
)

type damage uint8

const (
	intact damage = iota
	positionLost
	recreated
	shortened
)

const (
	simMaxAge  = time.Minute
	simRefresh = simMaxAge / 4
)

// faults of one schedule. Numbers are chances in 1000.
type faults struct {
	view   view
	damage damage
	ages   bool // time passes by the minute, and EVENTS forgets

	loseAsk, lateAsk, loseAnswer       int
	stale, refuse, loseCommit          int
	loseDelivery, repeatDelivery       int
	poison, churn, kill, freeze, skips int
	holes                              int // consumers that begin behind where they should, or pass over events
}

// counters show that a campaign meets what it is for.
type counters struct {
	steps, commits, claims, fenced, inFlight, storedUnknown, lostCommits, lostDeliveries int
	kills, hangs, crashes, zombies, unread, expired, halts, foreign, holes               int
}

func (c *counters) add(d counters) {
	c.steps += d.steps
	c.commits += d.commits
	c.claims += d.claims
	c.fenced += d.fenced
	c.inFlight += d.inFlight
	c.storedUnknown += d.storedUnknown
	c.lostCommits += d.lostCommits
	c.lostDeliveries += d.lostDeliveries
	c.kills += d.kills
	c.hangs += d.hangs
	c.crashes += d.crashes
	c.zombies += d.zombies
	c.unread += d.unread
	c.expired += d.expired
	c.halts += d.halts
	c.foreign += d.foreign
	c.holes += d.holes
}

// proc is one scorer process; lanes[i] is its machine for lane i, nil where it has none.
type proc struct {
	name     string
	lives    int
	instance string
	up       bool
	frozen   int     // steps that it will not take part in
	hung     *packet // the commit whose outcomes it hangs in
	skew     time.Duration
	revision uint64
	lanes    []*Machine
	adopted  []uint64 // by lane
}

func (p *proc) awake() bool { return p.up && p.frozen == 0 && p.hung == nil }

// world is one schedule: a server, its wire and some processes.
type world struct {
	r      *rand.Rand
	f      faults
	mutant mutant
	limits Limits
	now    time.Time
	budget int  // events still to publish
	closed bool // nothing is published for now
	broken bool // there was damage

	gen      *generation
	lanes    []simLane
	token    uint64
	revision uint64
	runs     []*simRun
	wire     []packet
	procs    []*proc

	count             counters
	tracing, settling bool
	trace             []string
}

// violation is a broken invariant.
type violation string

func (w *world) fail(format string, a ...any) { panic(violation(fmt.Sprintf(format, a...))) }

func (w *world) tracef(format string, a ...any) {
	if w.tracing {
		w.trace = append(w.trace, fmt.Sprintf("%7.3f  ", w.now.Sub(simEpoch).Seconds())+fmt.Sprintf(format, a...))
	}
}

func (w *world) chance(perMille int) bool { return perMille > 0 && w.r.IntN(1000) < perMille }

var simEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64, m mutant) *world {
	r := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	pick := func(n ...int) int { return n[r.IntN(len(n))] }
	f := faults{
		view:    []view{orderly, quarrels, havoc, havoc}[r.IntN(4)],
		loseAsk: pick(0, 30, 100), lateAsk: pick(0, 30, 100), loseAnswer: pick(0, 30, 150),
		stale: pick(0, 200, 500), refuse: pick(0, 0, 30), loseCommit: pick(0, 50, 150),
		loseDelivery: pick(0, 10, 80), repeatDelivery: pick(0, 10, 50),
		poison: pick(0, 0, 60, 200), churn: pick(5, 20, 50), skips: pick(0, 5, 20),
		ages: r.IntN(3) == 0,
	}
	if f.ages {
		f.skips = pick(10, 20, 40)
	}
	if r.IntN(4) == 0 {
		f.holes = 150
	}
	if f.view == havoc {
		f.kill, f.freeze = pick(0, 5, 20), pick(0, 10, 30)
	}
	if r.IntN(10) == 0 {
		f.damage = damage(1 + r.IntN(3))
	}
	w := &world{r: r, f: f, mutant: m, now: simEpoch.Add(time.Hour), budget: pick(3, 8, 16), revision: 1}
	w.gen = &generation{name: "first", created: simEpoch, first: 1}
	w.limits = DefaultLimits()
	w.limits.MaxBatch, w.limits.MaxBuffered, w.limits.Narrow = 4, 8, 2
	if r.IntN(4) == 0 {
		w.limits.MaxBatch, w.limits.MaxBuffered, w.limits.Narrow, w.budget = 24, 48, 4, 30
	}
	if f.ages {
		w.limits.Refresh = simRefresh
	}
	w.limits.Leap = uint64(pick(1, 2, 4))
	if w.limits.Leap == 4 && !f.ages { // where EVENTS forgets, Refresh has idle lanes commit as well
		w.limits.Far = 10
	}
	w.lanes = make([]simLane, pick(1, 1, 2))
	for i := range w.lanes {
		w.token++
		w.lanes[i].hist = append(make([]storedPosition, 0, 32), storedPosition{token: w.token})
		w.lanes[i].hist[0].pos.Incarnation = simEpoch
	}
	for i := range 3 {
		p := &proc{name: string(rune('A' + i)), lanes: make([]*Machine, len(w.lanes)), adopted: make([]uint64, len(w.lanes)), skew: time.Duration(r.IntN(2000)-1000) * time.Millisecond}
		w.procs = append(w.procs, p)
		w.start(p)
	}
	for i := range w.lanes {
		w.lanes[i].holder = r.IntN(len(w.procs))
	}
	return w
}

func (w *world) start(p *proc) {
	p.lives++
	p.instance = p.name + strconv.Itoa(p.lives)
	p.up, p.frozen, p.hung, p.revision = true, 0, nil, w.revision
}

func (w *world) die(p *proc, why string) {
	if w.tracing {
		w.tracef("%s dies: %s", p.instance, why)
	}
	p.up, p.hung, p.frozen = false, nil, 0
	clear(p.lanes)
}

// own is what the pool does when the view gives p a lane.
func (w *world) own(p *proc, lane int) {
	if p.lanes[lane] == nil {
		p.lanes[lane] = NewMachine(p.instance, w.limits)
		p.adopted[lane] = p.revision
		w.feed(p, lane, Revised{p.revision})
	}
	if p.awake() && p.lanes[lane] != nil {
		w.feed(p, lane, Own{})
	}
}

// feed steps a machine and carries out what it decides, as runner does.
func (w *world) feed(p *proc, lane int, in Input) {
	m := p.lanes[lane]
	if w.mutant.input != nil {
		in = w.mutant.input(w, lane, m, in)
	}
	actions := m.Step(in, w.now.Add(p.skew))
	if w.tracing && (len(actions) > 0 || !w.settling) {
		w.tracef("%s/%d  %s -> %s", p.instance, lane, show(in), showAll(actions))
	}
	for _, a := range actions {
		switch a := a.(type) {
		case ReadPosition, OpenRun:
			w.send(packet{p: p, m: m, lane: lane, ask: a})
		case Inspect:
			p.revision = max(p.revision, a.Revision) // Stage.Await
			w.send(packet{p: p, m: m, lane: lane, ask: a})
		case Commit:
			w.commit(packet{p: p, m: m, lane: lane, ask: a}, a)
		case CloseRun:
			for _, r := range w.runs {
				if r.m == m && r.id == a.Run && w.r.IntN(2) == 0 {
					r.alive = false
				}
			}
		case Halt:
			w.count.halts++
		case Released:
			p.lanes[lane] = nil
		}
	}
	if p.lanes[lane] != m || !p.awake() {
		return
	}
	w.checkMachine(lane, m)
	if p.adopted[lane] < p.revision { // Stage.Adopt after every step
		p.adopted[lane] = p.revision
		w.feed(p, lane, Revised{p.revision})
	}
}

// commit scores a batch, of which the process may die, and sends it.
func (w *world) commit(q packet, c Commit) {
	p := q.p
	if c.Treatment == Scored {
		for _, e := range c.Events {
			if e.Subject != w.gen.name || e.Seq > w.gen.last() {
				continue
			}
			truth := w.gen.event(e.Seq)
			if truth.poison == harmless {
				continue
			}
			truth.kills++
			if len(c.Events) == 1 {
				truth.alone++
			}
			if limit := deathsOf(w.limits); w.f.view == orderly && truth.kills > limit && len(w.lanes) == 1 && !w.broken { // a rebase forgets what was counted
				w.fail("event %d kills owner %d; after %d it must have been given up", e.Seq, truth.kills, limit)
			}
			if truth.poison == deadly {
				w.count.kills++
				w.die(p, "poison "+strconv.FormatUint(e.Seq, 10))
			} else {
				w.count.hangs++
				w.tracef("%s hangs in event %d", p.instance, e.Seq)
				p.hung = &q
			}
			return
		}
	}
	if w.mutant.commit != nil && w.mutant.commit(w, q.m, &c) {
		w.wire = append(w.wire, packet{p: p, m: q.m, lane: q.lane, in: CommitEnd{ID: c.ID, Result: Stored, Token: c.Fence}})
		return
	}
	q.ask = c
	w.send(q)
}

// carry takes one packet off the wire and brings it where it belongs.
func (w *world) carry(i int) {
	q := w.wire[i]
	if q.ask == nil && q.p.up && !q.p.awake() && q.p.lanes[q.lane] == q.m {
		return // it waits in the socket
	}
	w.wire = slices.Delete(w.wire, i, i+1)
	if q.ask != nil {
		w.serve(q)
		return
	}
	if w.mutant.anyRun && q.run != nil && q.p.awake() {
		lane := w.r.IntN(len(w.lanes))
		if m := q.p.lanes[lane]; m != nil {
			w.feed(q.p, lane, renamed(q.in, m.run))
		}
		return
	}
	if !q.p.awake() || q.p.lanes[q.lane] != q.m {
		// The machine it was for is gone. Should it reach another of the same lane, run.read sees a foreign name.
		if m := q.p.lanes[q.lane]; q.run != nil && m != nil && q.p.awake() && w.r.IntN(3) == 0 {
			w.count.foreign++
			w.feed(q.p, q.lane, RunEnded{m.run, "foreign message"})
		}
		return
	}
	w.feed(q.p, q.lane, q.in)
}

// step is one move of the schedule while faults are on.
func (w *world) step() {
	w.count.steps++
	w.now = w.now.Add(time.Duration(w.r.IntN(20)) * time.Millisecond)
	for _, p := range w.procs {
		if p.frozen > 0 {
			p.frozen--
		}
	}
	x := w.r.IntN(1000)
	switch {
	case x < 480:
		if n := len(w.wire); n > 0 {
			i := w.r.IntN(min(n, 3))
			if w.r.IntN(8) == 0 {
				i = w.r.IntN(n)
			}
			w.carry(i)
		}
	case x < 600:
		w.decide(w.r.IntN(len(w.lanes)))
	case x < 780:
		if n := len(w.runs); n > 0 {
			w.emit(w.runs[n-1-w.r.IntN(min(n, 3))], w.r.IntN(12) == 0)
		}
	case x < 830:
		if w.budget > 0 && !w.closed {
			w.budget--
			w.publish()
		}
	case x < 840+w.f.churn && w.f.view != orderly:
		w.churn(w.procs[w.r.IntN(len(w.procs))], w.r.IntN(len(w.lanes)))
	case x < 900:
		p := w.procs[w.r.IntN(len(w.procs))]
		if lane := w.r.IntN(len(w.lanes)); p.awake() && p.lanes[lane] != nil {
			w.feed(p, lane, Tick{})
		}
	default:
		w.fault()
	}
	w.members()
}

// fault is something that goes wrong, or at least changes.
func (w *world) fault() {
	p := w.procs[w.r.IntN(len(w.procs))]
	lane := w.r.IntN(len(w.lanes))
	m := p.lanes[lane]
	switch w.r.IntN(9) {
	case 0:
		if w.chance(10 * w.f.kill); p.up && w.chance(10*w.f.kill) {
			w.count.crashes++
			w.die(p, "killed")
		}
	case 1:
		if p.awake() && w.chance(20*w.f.freeze) {
			p.frozen = 5 + w.r.IntN(60)
			w.count.zombies++
			w.tracef("%s freezes for %d steps", p.instance, p.frozen)
		}
	case 2:
		if w.chance(20 * w.f.skips) {
			d := time.Duration(1+w.r.IntN(4000)) * time.Millisecond
			if w.f.ages {
				d *= 8
			}
			w.now = w.now.Add(d)
			w.tracef("%s pass", d)
		}
	case 3:
		if w.f.ages {
			w.expire()
			w.look()
		}
	case 4: // an operator deletes a consumer; its reader is told, or not
		if n := len(w.runs); n > 0 && w.r.IntN(3) == 0 {
			r := w.runs[w.r.IntN(n)]
			if r.alive = false; w.r.IntN(2) == 0 {
				w.wire = append(w.wire, packet{p: r.p, m: r.m, lane: r.lane, run: r, in: RunEnded{r.id, "409 consumer deleted"}})
			}
		}
	case 5: // the connection is lost
		if m != nil && p.awake() && w.r.IntN(3) == 0 {
			w.feed(p, lane, RunEnded{m.run, "connection lost"})
		}
	case 6:
		if w.r.IntN(4) == 0 {
			w.revision++
		}
		if p.up {
			p.revision = w.revision
		}
	case 7:
		if w.f.damage != intact && w.count.steps > 60 && w.r.IntN(3) == 0 {
			w.damage(lane)
		}
	case 8:
		if h := w.procs[w.lanes[lane].holder]; w.f.view == orderly && w.chance(10*w.f.churn) && h.awake() && h.lanes[lane] != nil {
			w.feed(h, lane, Release{})
		}
	}
}

// look tells the lanes where EVENTS begins and ends, as Pool.look does.
func (w *world) look() {
	for _, p := range w.procs {
		for i, m := range p.lanes {
			if m != nil && p.awake() && p.lanes[i] == m {
				w.feed(p, i, Horizon{Incarnation: w.gen.created, First: w.gen.first, Last: w.gen.last()})
			}
		}
	}
}

// churn is a process changing its mind about who owns a lane.
func (w *world) churn(p *proc, lane int) {
	switch {
	case !p.awake():
	case w.r.IntN(3) > 0:
		w.own(p, lane)
	case p.lanes[lane] != nil:
		w.feed(p, lane, Release{})
	}
}

// members starts what is down and, in an orderly view, gives each lane to one that can take it.
func (w *world) members() {
	for _, p := range w.procs {
		if !p.up && w.r.IntN(4) == 0 {
			w.start(p)
		}
		if p.hung != nil && w.r.IntN(50) == 0 && w.deposed(p) {
			w.wake(p)
		}
	}
	if w.f.view != orderly {
		return
	}
	for i := range w.lanes {
		w.seat(i)
	}
}

func (w *world) seat(lane int) {
	l := &w.lanes[lane]
	h := w.procs[l.holder]
	if h.awake() && h.lanes[lane] != nil {
		return
	}
	for range w.procs {
		l.holder = (l.holder + 1) % len(w.procs)
		if p := w.procs[l.holder]; p.awake() {
			w.own(p, lane)
			return
		}
	}
}

// deposed says that every lane of a hung process has found another owner.
func (w *world) deposed(p *proc) bool {
	for i, m := range p.lanes {
		if m != nil && w.lanes[i].top().pos.Owner == p.instance {
			return false
		}
	}
	return true
}

// wake ends the hanging: by death, or with the commit that was to be sent long ago.
func (w *world) wake(p *proc) {
	q := *p.hung
	p.hung = nil
	if w.r.IntN(2) == 0 {
		w.die(p, "ended, it hung")
		return
	}
	w.count.zombies++
	w.tracef("%s wakes up", p.instance)
	for _, e := range q.ask.(Commit).Events {
		if e.Subject == w.gen.name && e.Seq <= w.gen.last() && w.gen.event(e.Seq).poison == hanging {
			w.gen.event(e.Seq).kills-- // it came back, and takes its mark back if nobody has set out since
			break
		}
	}
	w.send(q)
}

func renamed(in Input, run uint64) Input {
	switch in := in.(type) {
	case Delivered:
		in.Run = run
		return in
	case Heartbeat:
		in.Run = run
		return in
	}
	return in
}

func show(a any) string { return showAll([]Action{a}) }

func showAll(all []Action) string {
	var out []string
	for _, a := range all {
		switch a := a.(type) {
		case Delivered:
			out = append(out, fmt.Sprintf("Delivered{run %d #%d event %d}", a.Run, a.Consumer, a.Event.Seq))
		case Commit:
			seqs := []uint64{}
			for _, e := range a.Events {
				seqs = append(seqs, e.Seq)
			}
			p := a.Position
			out = append(out, fmt.Sprintf("Commit{id %d fence %d events %v treatment %d range %d-%d: seq %d epoch %d owner %q attempts %d trying %d tries %d rev %d}",
				a.ID, a.Fence, seqs, a.Treatment, a.First, a.Last, p.Seq, p.Epoch, p.Owner, p.Attempts, p.Trying, p.Tries, p.Revision))
		case PositionRead:
			out = append(out, fmt.Sprintf("PositionRead{id %d found %t token %d seq %d epoch %d owner %q err %v}", a.ID, a.Found, a.Token, a.Position.Seq, a.Position.Epoch, a.Position.Owner, a.Err))
		default:
			out = append(out, strings.TrimPrefix(fmt.Sprintf("%T%+v", a, a), "lane."))
		}
	}
	return strings.Join(out, ", ")
}
