package rollout

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/lr"
)

// world draws events that a champion of AUC 0.85 and a candidate of a known other AUC score. A version sees a·y + noise,
// where the two noises have the correlation 0.9, and gives the probability that follows: so both are calibrated, and
// AUC = Φ(a/√2) exactly.
type world struct {
	r    *rand.Rand
	a, b float64 // of champion and candidate
	bad  func() bool
}

const (
	rate     = 0.008
	perDay   = 4000 // events; looked at once a day
	maturity = 45   // days; labels take a lognormal time of median 10 days, σ = 1, and 6.6 % come too late: they count as good
)

// separation is √2·Φ⁻¹(auc), by bisection.
func separation(auc float64) float64 {
	low, high := 0.0, 6.0
	for range 60 {
		if mid := (low + high) / 2; 0.5*math.Erfc(-mid/2) < auc {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

func newWorld(seed, candidate uint64, difference float64) *world {
	r := rand.New(rand.NewPCG(seed, candidate))
	return &world{r: r, a: separation(0.85), b: separation(0.85 + difference), bad: func() bool { return r.Float64() < rate }}
}

type event struct {
	p, q float64
	bad  bool
	due  int // day on which a bad one is reported
}

func (w *world) draw(day int) event {
	e := event{bad: w.bad()}
	y := one(e.bad)
	u, v := w.r.NormFloat64(), w.r.NormFloat64()
	e.q = posterior(w.a, float64(w.a*y)+u)
	e.p = posterior(w.b, float64(w.b*y)+0.9*u+math.Sqrt(1-0.81)*v)
	if e.bad {
		e.due = day + int(10*math.Exp(w.r.NormFloat64()))
	}
	return e
}

func posterior(a, s float64) float64 {
	return 1 / (1 + math.Exp(-(math.Log(rate/(1-rate)) + float64(a*s) - float64(a*a)/2)))
}

// trial takes one candidate through its life, one look a day, and returns where it ended and after how many days.
type trial struct {
	world   *world
	life    Policy
	offline OfflinePolicy
	shadow  OnlinePolicy
	canary  OnlinePolicy
	days    int
	// turn changes what the candidate does from the day on; nil: it never turns.
	turn   func(r *rand.Rand, e *event)
	turnAt int
	direct bool // an order makes it canary on the first day

	reason string
}

func (c *trial) run(t *testing.T) (Stage, int) {
	t.Helper()
	now := epoch
	s := State{Lives: []Life{{Version: 1, Stage: Champion, Since: now}}}
	step := func(in Input) {
		next, decisions, err := c.life.Step(s, in, now)
		if err != nil {
			t.Fatal(err)
		}
		if why := broken(c.life, s, next, in, decisions); why != "" {
			t.Fatal(why)
		}
		for _, d := range decisions {
			if d.Version == 2 {
				c.reason = d.Reason
			}
		}
		s = next
	}
	if c.direct {
		step(Proposal{Version: 2, By: "trainer", Evidence: said(GateOffline, 2, 1, Pass)})
		step(Order{Verb: OrderCanary, Version: 2, By: "ann", Why: "ordered"})
	} else {
		in := OfflineInput{Version: 2, Against: 1}
		for range 60_000 {
			e := c.world.draw(0)
			in.Y, in.P, in.Q = append(in.Y, one(e.bad)), append(in.P, e.p), append(in.Q, e.q)
		}
		step(Proposal{Version: 2, By: "trainer", Evidence: Offline(c.offline, in)})
	}
	var gate *Online
	var of Life
	var seq, from uint64
	days := make([][]event, maturity)
	for day := range c.days {
		l := *s.Of(2)
		if l.Stage != Shadow && l.Stage != Canary {
			return l.Stage, day
		}
		if gate == nil || l.Stage != of.Stage || l.Share != of.Share {
			p := c.shadow
			if l.Stage == Canary {
				p = c.canary
			}
			p.Rate, p.FirstEvents = rate, seq+1
			gate, of, from = NewOnline(p, 2, 1, l.Stage, l.Share), l, uint64(day)
		}
		slot := day % maturity
		if day >= maturity && uint64(day-maturity) >= from {
			for _, e := range days[slot] {
				gate.Mature(e.p, e.q, e.bad && e.due <= day)
			}
		}
		days[slot] = days[slot][:0]
		for range perDay {
			e := c.world.draw(day)
			if c.turn != nil && day >= c.turnAt {
				c.turn(c.world.r, &e)
			}
			seq++
			gate.Seen(Scored{Seq: seq, P: e.p, Q: e.q, Flagged: [2]bool{e.p > 0.1, e.q > 0.1}})
			days[slot] = append(days[slot], e)
		}
		now = now.Add(24 * time.Hour)
		step(gate.Observe())
	}
	return s.Of(2).Stage, c.days
}

// TestPromotionWithPeeking: of candidates whose true difference in AUC is known, few are promoted wrongly. GATES_CANDIDATES=200
// makes it the whole trial.
func TestPromotionWithPeeking(t *testing.T) {
	n, days := 4, 150
	if text := os.Getenv("GATES_CANDIDATES"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		days = 250
	}
	const seed = 20260101
	t.Logf("seed %d, candidates 0 to %d, %d events a day, up to %d days", seed, n-1, perDay, days)
	for _, c := range []struct {
		name       string
		margin     float64
		difference float64
		wrong      bool
	}{
		{"must be better", 0, -0.01, true},
		{"must be better", 0, 0, true},
		{"must be better", 0, 0.01, false},
		{"may be 0.01 worse", 0.01, -0.01, true},
		{"may be 0.01 worse", 0.01, 0, false},
	} {
		if os.Getenv("GATES_CANDIDATES") == "" && c.margin != 0 {
			continue
		}
		ends := map[Stage]int{}
		var took []int
		for i := range n {
			trial := &trial{world: newWorld(seed, uint64(i), c.difference), life: Policy{Mode: Gated}, days: days,
				offline: OfflinePolicy{AUCMargin: 0.01}, shadow: OnlinePolicy{AUCMargin: c.margin}, canary: OnlinePolicy{AUCMargin: 0.01 + c.margin, Watch: true}}
			end, day := trial.run(t)
			ends[end]++
			if end == Champion {
				took = append(took, day)
			}
		}
		slices.Sort(took)
		median := 0
		if len(took) > 0 {
			median = took[len(took)/2]
		}
		t.Logf("%-18s true %+.2f: promoted %3d, refused %3d, rolled back %2d, inconclusive %3d (of them canary %2d) of %d; median days to promotion %d (%d of them waiting for labels)",
			c.name, c.difference, ends[Champion], ends[Refused], ends[RolledBack], ends[Shadow]+ends[Canary], ends[Canary], n, median, 2*maturity)
		if c.wrong && float64(ends[Champion]) > 0.05*float64(n) {
			t.Errorf("%s, true difference %v: %d of %d promoted", c.name, c.difference, ends[Champion], n)
		}
		if c.difference > 0 && n < 20 && ends[Champion]+ends[Canary] < n/2 {
			t.Errorf("true difference %v: only %d of %d got on", c.difference, ends[Champion]+ends[Canary], n)
		}
	}
}

// TestTurnsBadInCanary: the machine takes back by itself what turned bad while it decided.
func TestTurnsBadInCanary(t *testing.T) {
	const seed, turnAt = 20260102, 60
	n := 2
	if text := os.Getenv("GATES_CANDIDATES"); text != "" {
		n = 50
	}
	t.Logf("seed %d", seed)
	for _, c := range []struct {
		name  string
		turn  func(r *rand.Rand, e *event)
		check string
		most  int // days
	}{
		{"gives no answer to 1 event in 50", func(r *rand.Rand, e *event) {
			if r.IntN(50) == 0 {
				e.p = math.NaN()
			}
		}, "errors:", 2},
		{"log-odds 2 too high", func(_ *rand.Rand, e *event) { e.p = lr.Sigmoid(math.Log(e.p/(1-e.p)) + 2) }, "", 2},
		{"orders like chance, same distribution", func(r *rand.Rand, e *event) {
			a := separation(0.86)
			e.p = posterior(a, float64(a*one(r.Float64() < rate))+r.NormFloat64())
		}, "", maturity + 30},
	} {
		var events []int
		first := ""
		for i := range n {
			trial := &trial{world: newWorld(seed, uint64(i), 0.01), life: Policy{Mode: Manual}, days: turnAt + c.most + 1, direct: true,
				canary: OnlinePolicy{AUCMargin: 0.01, Watch: true}, turn: c.turn, turnAt: turnAt}
			end, day := trial.run(t)
			if end != RolledBack || day < turnAt || !strings.Contains(trial.reason, c.check) {
				t.Errorf("%s: candidate %d is %s on day %d: %s", c.name, i, end, day, trial.reason)
				continue
			}
			events = append(events, (day-turnAt)*perDay)
			if first == "" {
				first = trial.reason
			}
		}
		slices.Sort(events)
		if len(events) > 0 {
			t.Logf("%s: rolled back after %d events in the median (%d to %d), n = %d; one reason: %s", c.name, events[len(events)/2], events[0], events[len(events)-1], len(events), first)
		}
	}
}

// fittedInput is a fit to records of 8 columns, of which the label depends on the first four, as the offline gate sees it.
func fittedInput(t *testing.T, r *rand.Rand, edit func(x []float64, y float64) float64) OfflineInput {
	t.Helper()
	const rows, cols = 24_000, 8
	x := lr.Matrix{Rows: rows, Cols: cols, Data: make([]float64, rows*cols)}
	y, learned := make([]float64, rows), make([]float64, rows)
	for i := range rows {
		row := x.Row(i)
		y[i] = one(r.Float64() < 0.03)
		for j := range row {
			row[j] = r.NormFloat64()
			if j < 4 {
				row[j] += 0.7 * y[i]
			}
		}
		learned[i] = edit(row, y[i])
	}
	const train = rows * 3 / 4
	fit, err := lr.Fit(context.Background(), lr.Matrix{Rows: train, Cols: cols, Data: x.Data[:train*cols]}, learned[:train], lr.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := OfflineInput{Version: 2, Against: 1, Want: cols, Y: y[train:], Alone: map[string][]float64{}}
	for j, w := range fit.Model.Weights {
		in.Columns = append(in.Columns, Column{Name: fmt.Sprintf("c%d", j), Weight: w, SD: 1})
	}
	// The champion knows the true distribution of the honest columns.
	champion := lr.Model{Intercept: math.Log(0.03/0.97) - 4*0.245, Weights: []float64{0.7, 0.7, 0.7, 0.7, 0, 0, 0, 0}}
	for i := train; i < rows; i++ {
		in.P = append(in.P, fit.Model.Prob(x.Row(i)))
		in.Q = append(in.Q, champion.Prob(x.Row(i)))
		for j, w := range fit.Model.Weights {
			name := in.Columns[j].Name
			in.Alone[name] = append(in.Alone[name], lr.Sigmoid(float64(w*x.Row(i)[j])))
		}
	}
	return in
}

// TestBadCandidatesAreStopped: each by the check that should.
func TestBadCandidatesAreStopped(t *testing.T) {
	const seed = 20260103
	t.Logf("seed %d", seed)
	honest := func(_ []float64, y float64) float64 { return y }
	for _, c := range []struct {
		name string
		edit func(r *rand.Rand) func(x []float64, y float64) float64
		then func(in *OfflineInput)
		want []string // one of these fails first; none: nothing fails
	}{
		{name: "sound"},
		{name: "labels shuffled", edit: func(r *rand.Rand) func([]float64, float64) float64 {
			return func(_ []float64, _ float64) float64 { return one(r.Float64() < 0.03) }
		}, want: []string{"order", "auc"}},
		{name: "a column is the label", edit: func(r *rand.Rand) func([]float64, float64) float64 {
			return func(x []float64, y float64) float64 { x[7] = 6*y + r.NormFloat64(); return y }
		}, want: []string{"leak"}},
		{name: "a column nearly is", edit: func(r *rand.Rand) func([]float64, float64) float64 {
			return func(x []float64, y float64) float64 { x[7] = 3*y + 0.9*r.NormFloat64(); return y }
		}, want: []string{"leak"}},
		{name: "NaN weight", then: func(in *OfflineInput) { in.Columns[3].Weight = math.NaN() }, want: []string{"numbers"}},
		{name: "NaN score", then: func(in *OfflineInput) { in.P[100] = math.NaN() }, want: []string{"numbers"}},
		{name: "not converged", then: func(in *OfflineInput) { in.Stop = "iterations used up" }, want: []string{"numbers"}},
		{name: "a column too many", then: func(in *OfflineInput) { in.Columns = append(in.Columns, Column{}) }, want: []string{"shape"}},
		{name: "scores for fewer records", then: func(in *OfflineInput) { in.P = in.P[1:] }, want: []string{"shape"}},
		{name: "constant", then: func(in *OfflineInput) {
			for i := range in.P {
				in.P[i] = 0.03
			}
		}, want: []string{"order"}},
		{name: "turned round", then: func(in *OfflineInput) {
			for i := range in.P {
				in.P[i] = 1 - in.P[i]
			}
		}, want: []string{"order"}},
		{name: "wild weight", then: func(in *OfflineInput) { in.Columns[0].Weight = -1e6 }, want: []string{"weights"}},
		{name: "contrary sign", then: func(in *OfflineInput) { in.Columns[0].Expect = -1 }, want: []string{"signs"}},
		{name: "expected sign", then: func(in *OfflineInput) { in.Columns[0].Expect = 1 }},
		{name: "three times too high", then: func(in *OfflineInput) {
			for i, p := range in.P {
				in.P[i] = min(1, 3*p)
			}
		}, want: []string{"calibration"}},
	} {
		for i := range uint64(4) {
			r := rand.New(rand.NewPCG(seed, i))
			edit := honest
			if c.edit != nil {
				edit = c.edit(r)
			}
			in := fittedInput(t, r, edit)
			if c.then != nil {
				c.then(&in)
			}
			e := Offline(OfflinePolicy{AUCMargin: 0.02}, in)
			failed := e.Failed()
			if len(c.want) == 0 && len(failed) > 0 || len(c.want) > 0 && (len(failed) == 0 || !slices.Contains(c.want, failed[0])) {
				t.Errorf("%s, %d: failed %q, want one of %q: %s", c.name, i, failed, c.want, e.Sentence())
			}
			if _, err := e.Hash(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if i == 0 {
				t.Logf("%s: %s", c.name, e.Sentence())
			}
		}
	}
}
