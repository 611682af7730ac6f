package lane

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
)

var (
	simSchedules = flag.Int("sim.schedules", 20_000, "schedules of the lane simulation")
	simSeed      = flag.Int64("sim.seed", -1, "run this one schedule of the lane simulation and print its trace")
	simMutant    = flag.String("sim.mutant", "", "break this rule in the schedule of -sim.seed")
)

const (
	simSteps  = 250  // with faults
	simRounds = 1200 // without, after which a lane counts as stuck: a minute of the simulated clock
)

// simulate runs one schedule. It returns what was violated, empty if nothing.
func simulate(seed uint64, m mutant, tracing bool) (w *world, broken string) {
	w = newWorld(seed, m)
	w.tracing = tracing
	defer func() {
		if e := recover(); e != nil {
			v, ok := e.(violation)
			if !ok {
				panic(e)
			}
			broken = string(v)
		}
	}()
	for range simSteps {
		w.step()
	}
	w.settle()
	return w, ""
}

// settle is the fair phase: nothing fails any more, and everything must come to its end.
func (w *world) settle() {
	w.tracef("no more faults")
	w.f, w.settling = faults{view: w.f.view}, true
	for _, p := range w.procs {
		if p.frozen = 0; p.hung != nil {
			w.die(p, "ended, it hung")
		}
	}
	for i := range w.lanes {
		l := &w.lanes[i]
		l.holder = w.r.IntN(len(w.procs))
		for j, p := range w.procs {
			if j != l.holder && p.lanes[i] != nil {
				w.feed(p, i, Release{})
			}
		}
	}
	if w.broken && !w.closed { // an idle lane has no reason to look
		for range 4 * len(w.lanes) {
			w.publish()
		}
	}
	// A stream cannot be restored from a backup faster than the silence of its consumers is noticed.
	calm := 0
	w.rounds("damaged lanes halt and are mended", func() bool {
		calm++
		for i := range w.lanes {
			if w.hurt(i) {
				if calm = 0; w.halted(i) {
					w.rebase(i)
				}
			}
		}
		return !w.broken || calm > 40
	})
	for range w.budget {
		w.publish()
	}
	w.rounds("every event has an outcome, and every lane the last revision", w.finished)
}

// hurt says that a lane's position is missing or not of the EVENTS there is.
func (w *world) hurt(lane int) bool {
	l := &w.lanes[lane]
	return l.missing || !l.top().pos.Incarnation.Equal(w.gen.created) || l.top().pos.Seq > w.gen.last()
}

func (w *world) halted(lane int) bool {
	m := w.procs[w.lanes[lane].holder].lanes[lane]
	return m != nil && m.phase == Halted
}

func (w *world) finished() bool {
	for i := range w.gen.events {
		if w.gen.events[i].outcome == none {
			return false
		}
	}
	for i := range w.lanes {
		if w.lanes[i].top().pos.Revision < w.revision || w.lanes[i].inflight != nil {
			return false
		}
	}
	return true
}

func (w *world) rounds(until string, done func() bool) {
	for n := range simRounds {
		if done() {
			return
		}
		w.now = w.now.Add(50 * time.Millisecond)
		w.round(n)
	}
	for i := range w.lanes {
		w.tracef("lane %d: %+v, machine %+v", i, w.lanes[i].top(), w.procs[w.lanes[i].holder].lanes[i])
	}
	w.fail("waited a minute until %s", until)
}

func (w *world) round(n int) {
	for _, p := range w.procs {
		switch {
		case !p.up:
			w.start(p)
		case p.hung != nil && w.deposed(p):
			w.die(p, "ended, it hung")
		}
		p.revision = w.revision
	}
	for i := range w.lanes {
		w.seat(i)
	}
	for i := 0; i < len(w.wire); {
		before := len(w.wire)
		w.carry(i)
		if len(w.wire) == before && w.wire[i].ask == nil && !w.wire[i].p.awake() {
			i++
		}
	}
	for i := range w.lanes {
		w.decide(i)
	}
	if n%100 == 99 {
		w.look()
	}
	for _, r := range w.runs {
		if n > 100 && (r.m.run != r.id || r.m.phase == Idle) {
			r.alive = false // inactiveThreshold
		}
		if r.alive {
			w.emit(r, n%10 == 9)
		}
	}
	for _, p := range w.procs {
		for i := range p.lanes {
			if p.awake() && p.lanes[i] != nil {
				w.feed(p, i, Tick{})
			}
		}
	}
}

// campaign runs schedules from seed 0 on at all cores, until one is broken, and returns the first such.
func campaign(n int, m mutant) (seed int, broken string, total counters) {
	var next, failed atomic.Int64
	failed.Store(int64(n))
	what := map[int64]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine counters
			for {
				seed := next.Add(1) - 1
				if seed >= failed.Load() {
					break
				}
				w, broken := simulate(uint64(seed), m, false)
				mine.add(w.count)
				if broken != "" {
					mu.Lock()
					what[seed] = broken
					if seed < failed.Load() {
						failed.Store(seed)
					}
					mu.Unlock()
				}
			}
			mu.Lock()
			total.add(mine)
			mu.Unlock()
		}()
	}
	wg.Wait()
	if f := failed.Load(); f < int64(n) {
		return int(f), what[f], total
	}
	return -1, "", total
}

// traced runs a schedule again and returns the end of its story.
func traced(seed uint64, m mutant, lines int) string {
	w, broken := simulate(seed, m, true)
	return fmt.Sprintf("faults %+v, %d lanes\n%s\nVIOLATION: %s", w.f, len(w.lanes), strings.Join(w.trace[max(0, len(w.trace)-lines):], "\n"), broken)
}

func TestSimulation(t *testing.T) {
	if *simSeed >= 0 {
		m, ok := mutantNamed(*simMutant)
		if !ok {
			t.Fatalf("-sim.mutant %q: want one of the rules that TestSimulationNotices prints", *simMutant)
		}
		t.Log(traced(uint64(*simSeed), m, 1<<20))
		return
	}
	n := *simSchedules
	if testing.Short() || testkit.Raced {
		n = min(n, 4000)
	}
	start := time.Now()
	seed, broken, c := campaign(n, mutant{})
	if broken != "" {
		t.Fatalf("seed %d: %s\nagain: go test ./internal/lane -run TestSimulation$ -sim.seed %d\n%s", seed, broken, seed, traced(uint64(seed), mutant{}, 60))
	}
	t.Logf("%d schedules in %s: %+v", n, time.Since(start).Round(time.Millisecond), c)
	for what, n := range map[string]int{
		"commit": c.commits, "claim": c.claims, "fenced commit": c.fenced, "commit refused in flight": c.inFlight,
		"commit stored and not answered": c.storedUnknown, "commit lost": c.lostCommits, "delivery lost": c.lostDeliveries,
		"death by poison": c.kills, "hanging": c.hangs, "crash": c.crashes, "zombie": c.zombies,
		"unread event": c.unread, "expired event": c.expired, "halt": c.halts, "foreign message": c.foreign,
	} {
		if n == 0 {
			t.Errorf("no %s in %d schedules: the simulation does not meet what it is for", what, *simSchedules)
		}
	}
}
