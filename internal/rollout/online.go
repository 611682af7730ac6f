package rollout

import (
	"fmt"
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

// OnlinePolicy is what a version must show on the same events as the one against it. Zero values are the defaults given,
// but for AUCMargin.
type OnlinePolicy struct {
	Alpha     float64 // bound on passing wrongly, however often one looks; 0.05
	HarmAlpha float64 // the same for failing wrongly, of each check, where it does not Watch; 0.01
	WatchRun  float64 // where it does: events, until a check first fails wrongly, on average at the soonest; 10 million

	AUCMargin   float64 // by how much the AUC may be lower; 0: it must be higher
	LossMargin  float64 // by how much log-loss may be higher, as a share of the entropy of Rate; 0.05
	MaxShift    float64 // of the share of events that are not approved, either way; 0.02
	MaxErrors   float64 // share of events that it could not score; 0.002
	MaxLate     float64 // share of events that it scored too late; 0.01
	MaxPSI      float64 // of its scores against the other's, in every window; 0.25
	PSIWindow   int     // events; 2000
	Rate        float64 // share of bad events, as known beforehand, 0 < Rate < 1; 0.01
	Watch       bool    // looks for a change for the worse at any time (canary), not for a version bad from the beginning
	FirstEvents uint64  // sequence of the first event that counts; 0: of the first that is seen
	Counted     bool    // errors and lateness are told by Counted, of those that score, and not by Seen
}

func (p OnlinePolicy) withDefaults() OnlinePolicy {
	for _, d := range []struct {
		of *float64
		to float64
	}{{&p.Alpha, 0.05}, {&p.HarmAlpha, 0.01}, {&p.WatchRun, 1e7}, {&p.LossMargin, 0.05}, {&p.MaxShift, 0.02}, {&p.MaxErrors, 0.002}, {&p.MaxLate, 0.01}, {&p.MaxPSI, 0.25}, {&p.Rate, 0.01}} {
		if *d.of == 0 {
			*d.of = d.to
		}
	}
	if p.PSIWindow == 0 {
		p.PSIWindow = 2000
	}
	return p
}

// Scored is one event by a version and the one against it.
type Scored struct {
	Seq     uint64
	P, Q    float64 // probabilities; Q is the other's
	Flagged [2]bool // not approved, by either
	Failed  bool    // the version gave no answer
	Late    bool    // or too late
}

// test is a claim to show and its contrary, both by betting.
type test struct {
	For, Against Bet
}

func (t *test) take(x float64) { t.For.Take(-x); t.Against.Take(x) }

// atMost tests whether numbers between least and most have a mean of at most limit.
func atMost(least, most, limit float64, watch bool) test {
	return test{For: NewBet(-most, -least, -limit, false), Against: NewBet(least, most, limit, watch)}
}

// Online gate of one version in one stage. It is given events in the order of the log, when they are scored and again when
// their labels are mature: a label that counts as soon as it is known would bring the bad before the good. It is
// not safe for concurrent use.
type Online struct {
	policy           OnlinePolicy
	version, against int
	stage            Stage
	share            float64
	last             uint64

	matching matching
	worse    test // in AUC, by sets
	loss     test // in log-loss, by events
	margin   float64
	more     test // not approved
	fewer    test
	errors   test
	late     test

	window  [2][psiBins]float64
	inside  int
	windows int
	psi     float64 // the highest of a whole window
}

// Probabilities are kept within 10⁻⁴ of 0 and 1 where log-losses are compared, so that their difference is bounded.
const (
	leastP  = 1e-4
	maxLoss = 9.210340371976182 // -ln leastP
)

// NewOnline begins for a version in a stage against another.
func NewOnline(p OnlinePolicy, version, against int, stage Stage, share float64) *Online {
	p = p.withDefaults()
	entropy := -float64(p.Rate*math.Log(p.Rate)) - float64((1-p.Rate)*math.Log1p(-p.Rate))
	margin := float64(p.LossMargin * entropy)
	return &Online{
		policy: p, version: version, against: against, stage: stage, share: share, margin: margin,
		matching: newMatching(p.Rate),
		worse:    atMost(-1, 1, p.AUCMargin, p.Watch),
		loss:     atMost(-maxLoss, maxLoss, margin, p.Watch),
		more:     atMost(-1, 1, p.MaxShift, p.Watch),
		fewer:    atMost(-1, 1, p.MaxShift, p.Watch),
		errors:   atMost(0, 1, p.MaxErrors, p.Watch),
		late:     atMost(0, 1, p.MaxLate, p.Watch),
	}
}

// Seen takes an event when both have scored it.
func (g *Online) Seen(s Scored) {
	if g.policy.FirstEvents == 0 {
		g.policy.FirstEvents = s.Seq
	}
	g.last = max(g.last, s.Seq)
	failed := s.Failed || !(s.P >= 0 && s.P <= 1)
	if !g.policy.Counted {
		g.errors.take(one(failed))
		g.late.take(one(s.Late))
	}
	if failed || !(s.Q >= 0 && s.Q <= 1) {
		return
	}
	shift := one(s.Flagged[0]) - one(s.Flagged[1])
	g.more.take(shift)
	g.fewer.take(-shift)
	g.window[0][psiBin(s.P)]++
	g.window[1][psiBin(s.Q)]++
	if g.inside++; g.inside == g.policy.PSIWindow {
		g.psi = max(g.psi, psi(&g.window[0], &g.window[1]))
		g.windows++
		g.inside, g.window = 0, [2][psiBins]float64{}
	}
}

// Counted takes that of n more events the version gave no answer to some, and was too late on some. Which of them is not known: they
// are spread evenly.
func (g *Online) Counted(n, failed, late uint64) {
	var f, l uint64
	for i := range n {
		nf, nl := spread(failed, n, i), spread(late, n, i)
		g.errors.take(float64(nf - f))
		g.late.take(float64(nl - l))
		f, l = nf, nl
	}
}

// spread is how many of k are among the first i+1 of n: k·(i+1)/n, in floating point, since the product may be large.
func spread(k, n, i uint64) uint64 {
	if i+1 == n {
		return k
	}
	return min(k, uint64(float64(k)*(float64(i+1)/float64(n))))
}

// Mature takes an event whose label is as sure as it gets. An event that either did not score tells nothing here.
func (g *Online) Mature(p, q float64, bad bool) {
	if !(p >= 0 && p <= 1 && q >= 0 && q <= 1) {
		return
	}
	g.loss.take(logLoss(p, bad) - logLoss(q, bad))
	if d, complete := g.matching.take(scored{p, q}, bad); complete {
		g.worse.take(-d)
	}
}

func logLoss(p float64, bad bool) float64 {
	if !bad {
		p = 1 - p
	}
	return -lr.Log(min(max(p, leastP), 1-leastP))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Observe is what the gate has to say now.
func (g *Online) Observe() Observation {
	p := g.policy
	e := Evidence{Gate: GateOnline, Version: g.version, Against: g.against, First: p.FirstEvents, Last: g.last}
	add := func(c Check, t *test, what string) {
		harm := 1 / p.HarmAlpha
		if p.Watch {
			harm = p.WatchRun
			if t == &g.worse { // counts sets
				harm /= float64(g.matching.PerBad + g.matching.PerGood)
			}
		}
		c.For, c.Against, c.N = t.For.Highest, t.Against.Highest, t.Against.N
		switch {
		case c.Against >= harm:
			c.Verdict = Fail
		case c.For >= 1/p.Alpha:
			c.Verdict = Pass
		default:
			c.Verdict = Inconclusive
		}
		c.Why = fmt.Sprintf("%s, evidence %.3g for, %.3g against", what, c.For, c.Against)
		e.Checks = append(e.Checks, c.finite())
	}
	auc := -g.worse.Against.Mean()
	add(Check{Name: "auc", Value: auc, Limit: -p.AUCMargin}, &g.worse,
		fmt.Sprintf("AUC %+.4f against v%d in %d matched sets, limit %+.4f", auc, g.against, g.worse.Against.N, -p.AUCMargin))
	loss := g.loss.Against.Mean()
	add(Check{Name: "log-loss", Value: loss, Limit: g.margin}, &g.loss,
		fmt.Sprintf("log-loss %+.5f against v%d on %d mature events, limit %+.5f", loss, g.against, g.loss.Against.N, g.margin))
	shift := g.more.Against.Mean()
	both := &test{For: g.more.For, Against: g.more.Against}
	both.For.Highest = min(g.more.For.Highest, g.fewer.For.Highest)
	both.Against.Highest = max(g.more.Against.Highest, g.fewer.Against.Highest) / 2 // the better of two tests: half each
	add(Check{Name: "decisions", Value: shift, Limit: p.MaxShift}, both,
		fmt.Sprintf("share not approved %+.4f against v%d on %d events, limit %.4f either way", shift, g.against, g.more.Against.N, p.MaxShift))
	errors := g.errors.Against.Mean()
	add(Check{Name: "errors", Value: errors, Limit: p.MaxErrors}, &g.errors, fmt.Sprintf("no answer to %.4f of %d events, limit %.4f", errors, g.errors.Against.N, p.MaxErrors))
	late := g.late.Against.Mean()
	add(Check{Name: "latency", Value: late, Limit: p.MaxLate}, &g.late, fmt.Sprintf("late on %.4f of %d events, limit %.4f", late, g.late.Against.N, p.MaxLate))
	c := Check{Name: "psi", Value: g.psi, Limit: p.MaxPSI, N: g.windows, Verdict: Inconclusive,
		Why: fmt.Sprintf("PSI of its scores at most %.3f in %d windows of %d events, limit %.3f", g.psi, g.windows, p.PSIWindow, p.MaxPSI)}
	switch {
	case g.psi > p.MaxPSI:
		c.Verdict = Fail
	case g.windows > 0:
		c.Verdict = Pass
	}
	e.Checks = append(e.Checks, c.finite())
	return Observation{Stage: g.stage, Share: g.share, Evidence: e}
}

// psiBins are of one unit of log-odds each, from -10 to 10, and two beyond.
const psiBins = 22

func psiBin(p float64) int {
	z := math.Log(p) - math.Log1p(-p)
	return int(min(max(math.Floor(z)+11, 0), psiBins-1))
}

// psi is the population stability index Σ(a-b)·ln(a/b) over the bins' shares, each count with 0.5 added.
func psi(a, b *[psiBins]float64) float64 {
	var na, nb float64
	for i := range a {
		na += a[i] + 0.5
		nb += b[i] + 0.5
	}
	sum := 0.0
	for i := range a {
		x, y := (a[i]+0.5)/na, (b[i]+0.5)/nb
		sum += float64((x - y) * math.Log(x/y))
	}
	return sum
}
