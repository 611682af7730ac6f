package rollout

import (
	"fmt"
	"math"
	"slices"

	"github.com/riskweir/riskweir/pkg/lr"
)

// OfflinePolicy is what a new version must show on later records before it may be a shadow. Zero values are the defaults
// given, but for AUCMargin.
type OfflinePolicy struct {
	Alpha        float64 // of each one-sided test; 0.05
	AUCMargin    float64 // by how much its AUC may be lower than the champion's; 0: it must be higher
	MaxRatio     float64 // of bad records to expected ones, or of expected to bad; 2
	MaxEffect    float64 // of a column, in log-odds per standard deviation; 10
	UselessAUC   float64 // one that cannot be told from 0.5 nor reaches this is chance; 0.6
	LeakAUC      float64 // an AUC surely above it is too good to be true; 0.995
	LeakAlone    float64 // so is one surely above this, ...; 0.95
	LeakOneField float64 // ... if one field of three or more has this share of its Gini alone; 0.98
}

func (p OfflinePolicy) withDefaults() OfflinePolicy {
	for _, d := range []struct {
		of *float64
		to float64
	}{{&p.Alpha, 0.05}, {&p.MaxRatio, 2}, {&p.MaxEffect, 10}, {&p.UselessAUC, 0.6}, {&p.LeakAUC, 0.995}, {&p.LeakAlone, 0.95}, {&p.LeakOneField, 0.98}} {
		if *d.of == 0 {
			*d.of = d.to
		}
	}
	return p
}

// Column of a version.
type Column struct {
	Name   string
	Weight float64 // log-odds per unit
	SD     float64 // of the column in the training records; 0: not known, then per unit
	Expect int     // sign that the weight should have: -1, 1; 0: none is expected
}

// OfflineInput is a new version, and how it and the champion score the same later records.
type OfflineInput struct {
	Version, Against int
	Columns          []Column
	Want             int       // number of columns that its spec makes
	Stop             string    // why the fit ended before its optimum; empty: it did not
	Y                []float64 // 0 or 1
	P                []float64 // by the version
	Q                []float64 // by the champion; nil: there is none, or it cannot score them
	// Alone has for each field the probabilities that it would give by itself; nil: not known. Any increasing
	// function of its contributions will do.
	Alone map[string][]float64
}

// Offline is what the gate has to say. It stops at a version that cannot be measured.
func Offline(p OfflinePolicy, in OfflineInput) Evidence {
	g := offline{policy: p.withDefaults(), in: in, e: Evidence{Gate: GateOffline, Version: in.Version, Against: in.Against}}
	if g.whole() && g.numbers() {
		g.weights()
		if g.order() {
			g.leak()
			g.calibration()
			if in.Q != nil {
				g.champion()
			}
		}
	}
	for i := range g.e.Checks {
		g.e.Checks[i] = g.e.Checks[i].finite()
	}
	return g.e
}

type offline struct {
	policy OfflinePolicy
	in     OfflineInput
	e      Evidence
	auc    lr.AUCEstimate
}

func (g *offline) add(c Check) Verdict {
	g.e.Checks = append(g.e.Checks, c)
	return c.Verdict
}

// verdict that something is well if ok, else that it is not.
func verdict(ok bool) Verdict {
	if ok {
		return Pass
	}
	return Fail
}

func (g *offline) whole() bool {
	in := g.in
	n := len(in.Y)
	ok := len(in.Columns) == in.Want && len(in.P) == n && (in.Q == nil || len(in.Q) == n)
	why := fmt.Sprintf("%d weights for %d columns", len(in.Columns), in.Want)
	if len(in.P) != n || in.Q != nil && len(in.Q) != n {
		why += fmt.Sprintf(", %d and %d scores for %d records", len(in.P), len(in.Q), n)
	}
	return g.add(Check{Name: "shape", Verdict: verdict(ok), Value: float64(len(in.Columns)), Limit: float64(in.Want), N: n, Why: why}) == Pass
}

func (g *offline) numbers() bool {
	why, ok := "weights and scores are numbers", true
	for _, c := range g.in.Columns {
		if math.IsNaN(c.Weight) || math.IsInf(c.Weight, 0) {
			why, ok = fmt.Sprintf("the weight of %s is %v", c.Name, c.Weight), false
			break
		}
	}
	for i, v := range g.in.P {
		if ok && !(v >= 0 && v <= 1) {
			why, ok = fmt.Sprintf("it scores record %d with %v", i, v), false
		}
	}
	if ok && g.in.Stop != "" {
		why, ok = "the fit ended before its optimum: "+g.in.Stop, false
	}
	return g.add(Check{Name: "numbers", Verdict: verdict(ok), N: len(g.in.P), Why: why}) == Pass
}

func (g *offline) weights() {
	wild, contrary := Check{Name: "weights", Verdict: Pass, Limit: g.policy.MaxEffect, Why: "no column weighs too much"}, Check{Name: "signs", Verdict: Pass, Why: "as expected"}
	expected := false
	for _, c := range g.in.Columns {
		effect := c.Weight
		if c.SD > 0 {
			effect *= c.SD
		}
		wild.N++
		if math.Abs(effect) > math.Abs(wild.Value) {
			wild.Value = effect
			wild.Why = fmt.Sprintf("%s has the most effect, %.3g log-odds per standard deviation, limit %.3g", c.Name, effect, g.policy.MaxEffect)
		}
		if expected = expected || c.Expect != 0; c.Expect == 0 {
			continue
		}
		contrary.N++
		if float64(c.Expect)*effect < 0 && math.Abs(effect) > math.Abs(contrary.Value) {
			contrary.Value, contrary.Verdict = effect, Fail
			contrary.Why = fmt.Sprintf("%s has %.3g log-odds per standard deviation, want the sign %+d", c.Name, effect, c.Expect)
		}
	}
	wild.Verdict = verdict(math.Abs(wild.Value) <= g.policy.MaxEffect)
	g.add(wild)
	if expected {
		g.add(contrary)
	}
}

// order is false where nothing further can be measured.
func (g *offline) order() bool {
	p := g.policy
	n := len(g.in.Y)
	c := Check{Name: "order", Limit: 0.5, N: n, Verdict: Fail}
	if n > 0 && slices.Min(g.in.P) == slices.Max(g.in.P) {
		c.Why = fmt.Sprintf("it gives the same probability, %v, to every later record", g.in.P[0])
		g.add(c)
		return false
	}
	var err error
	if g.auc, err = lr.AUCInterval(g.in.Y, g.in.P, nil, 1-2*p.Alpha); err != nil { // both sides of the interval are α
		c.Why = fmt.Sprintf("the %d later records cannot measure it: %v", n, err)
		g.add(c)
		return false
	}
	a := g.auc
	c.Value, c.Low, c.High = a.AUC, a.Low, a.High
	switch {
	case a.Low > 0.5 || a.Lack != lr.LackNothing && a.AUC > 0.5:
		c.Verdict = Pass
	case a.AUC > 0.5 && a.High >= p.UselessAUC:
		c.Verdict = Inconclusive
	}
	c.Why = fmt.Sprintf("AUC %.4f (%.4f to %.4f) on %d later records, %d bad", a.AUC, a.Low, a.High, n, a.Positives)
	g.add(c)
	return true
}

func (g *offline) leak() {
	p, a := g.policy, g.auc
	c := Check{Name: "leak", Verdict: Pass, Value: a.AUC, Limit: p.LeakAUC, Low: a.Low, High: a.High, N: len(g.in.Y), Why: fmt.Sprintf("AUC %.4f is not too good to be true", a.AUC)}
	low := a.Low
	if a.Lack != lr.LackNothing {
		low = a.AUC
		if min(a.Positives, a.N-a.Positives) < 100 {
			low = 0 // few that happen to be told apart
		}
	}
	if low > p.LeakAUC {
		c.Verdict, c.Why = Fail, fmt.Sprintf("AUC %.4f is too good to be true: some field knows the label", a.AUC)
	} else if low > p.LeakAlone && len(g.in.Alone) >= 3 {
		for _, field := range sortedFields(g.in.Alone) {
			alone, err := lr.AUC(g.in.Y, g.in.Alone[field])
			if share := (2*alone - 1) / (2*a.AUC - 1); err == nil && share >= p.LeakOneField {
				c.Verdict, c.Value, c.Limit = Fail, share, p.LeakOneField
				c.Why = fmt.Sprintf("of AUC %.4f the field %s alone has %.4f: it may know the label", a.AUC, field, alone)
				break
			}
		}
	}
	g.add(c)
}

func sortedFields(m map[string][]float64) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// calibration compares bad records with how many were expected; their number has variance Σp(1-p) if p is right.
func (g *offline) calibration() {
	var bad, expected, variance float64
	for i, p := range g.in.P {
		bad += g.in.Y[i]
		expected += p
		variance += float64(p * (1 - p))
	}
	// 1.645 standard errors, at the default α of 0.05; the bound is coarse anyway.
	half := float64(1.6448536269514722 * math.Sqrt(variance))
	limit := g.policy.MaxRatio
	c := Check{Name: "calibration", Value: bad / expected, Limit: limit, Low: max(0, bad-half) / expected, High: (bad + half) / expected, N: len(g.in.P), Verdict: Inconclusive}
	switch {
	case c.Low > limit || c.High < 1/limit:
		c.Verdict = Fail
	case c.High <= limit && c.Low >= 1/limit:
		c.Verdict = Pass
	}
	c.Why = fmt.Sprintf("%.0f bad for %.1f expected: ratio %.3f (%.3f to %.3f), limit %.3g either way", bad, expected, c.Value, c.Low, c.High, limit)
	g.add(c)
}

// champion is the paired test of DeLong, one-sided on either side.
func (g *offline) champion() {
	limit := -g.policy.AUCMargin
	c := Check{Name: "auc", Limit: limit, N: len(g.in.Y), Verdict: Inconclusive}
	cmp, err := lr.CompareAUC(g.in.Y, g.in.P, g.in.Q, nil, 1-2*g.policy.Alpha)
	if err != nil {
		c.Why = fmt.Sprintf("v%d cannot be compared: %v", g.in.Against, err)
		g.add(c)
		return
	}
	c.Value, c.Low, c.High = cmp.Difference, cmp.Low, cmp.High
	switch {
	case cmp.Lack != lr.LackNothing: // they order all records alike, or nearly none can be ordered
		if cmp.Difference == 0 && limit < 0 && cmp.Lack == lr.LackOverlap {
			c.Verdict = Pass
		}
	case cmp.Low > limit:
		c.Verdict = Pass
	case cmp.High < limit:
		c.Verdict = Fail
	}
	c.Why = fmt.Sprintf("AUC %.4f against %.4f of v%d: %+.4f (%+.4f to %+.4f), limit %+.4f", cmp.AUC[0], cmp.AUC[1], g.in.Against, cmp.Difference, cmp.Low, cmp.High, limit)
	g.add(c)
}
