package lr

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// slowReasons sorts all columns.
func slowReasons(contributions []float64, k int, d Direction) []Reason {
	size := func(c float64) float64 { return []float64{c, -c, math.Abs(c)}[d] }
	var all []Reason
	for j, c := range contributions {
		if size(c) > 0 {
			all = append(all, Reason{j, c})
		}
	}
	slices.SortStableFunc(all, func(a, b Reason) int {
		switch {
		case size(a.Add) > size(b.Add):
			return -1
		case size(a.Add) < size(b.Add):
			return 1
		}
		return 0
	})
	return all[:min(k, len(all))]
}

func TestTopReasonsAgainstSorting(t *testing.T) {
	const seed = 801
	r := rand.New(rand.NewPCG(seed, 0))
	dst := make([]Reason, 0, 8)
	for range 2000 {
		c := make([]float64, r.IntN(20))
		for j := range c {
			c[j] = float64(r.IntN(7) - 3) // ties and zeros
			if r.IntN(10) == 0 {
				c[j] = math.NaN()
			}
		}
		k := r.IntN(8)
		for _, d := range []Direction{Raising, Lowering, Either} {
			got, want := TopReasons(dst, c, k, d), slowReasons(c, k, d)
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: %v of %v, %d in direction %d: got %v, want %v", seed, k, c, k, d, got, want)
			}
		}
	}
	c := []float64{0.5, 2, -1, 0.5}
	if n := testing.AllocsPerRun(100, func() { dst = TopReasons(dst, c, 3, Either) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if got := TopReasons(nil, c, -1, Raising); len(got) != 0 {
		t.Errorf("k -1: %v", got)
	}
}

func TestGroupContributions(t *testing.T) {
	m := Model{Intercept: 0.3, Weights: []float64{1, 2, -3, 0.1}}
	x := []float64{0.7, 0, 1, 5.5}
	c, g := make([]float64, 4), []float64{9, 9}
	base := m.Contributions(c, x, nil)
	GroupContributions(g, c, []int{0, 1, 1, 0})
	if base+g[0]+g[1] != m.Logit(x) || g[1] != -3 {
		t.Errorf("groups %v and base %v, logit %v", g, base, m.Logit(x))
	}
}

func TestScorecard(t *testing.T) {
	s := Scorecard{BasePoints: 600, BaseOdds: 50, PDO: 20}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ odds, points float64 }{{50, 600}, {100, 620}, {25, 580}, {50 * 1024, 800}} {
		logit := -math.Log(c.odds) // of label 1
		checkClose(t, "points", s.Points(logit), c.points, 1e-9)
		checkClose(t, "logit", s.Logit(c.points), logit, 1e-12)
	}
	for _, bad := range []Scorecard{{600, 0, 20}, {600, 50, 0}, {600, 50, -20}, {math.NaN(), 50, 20}, {600, math.Inf(1), 20}, {1e10, 50, 20}} {
		err := bad.Check()
		if err == nil {
			t.Errorf("%+v is no error", bad)
			continue
		}
		mustBeTyped(t, err)
		if _, _, again := bad.Split(nil, 0, nil); again == nil || again.Error() != err.Error() {
			t.Errorf("Split: %v, want %v", again, err)
		}
	}
}

func TestScorecardPartsAddUp(t *testing.T) {
	const seed = 802
	r := rand.New(rand.NewPCG(seed, 0))
	s := Scorecard{BasePoints: 600, BaseOdds: 30, PDO: 20}
	for range 2000 {
		c := make([]float64, r.IntN(15))
		dst := make([]int, len(c))
		base, logit := r.NormFloat64(), 0.0
		logit = base
		for j := range c {
			c[j] = r.NormFloat64()
			if r.IntN(3) == 0 {
				c[j] = math.Round(4*c[j]) * s.PDO / 80 // ties
			}
			logit += c[j]
		}
		first, total, err := s.Split(dst, base, c)
		if err != nil {
			t.Fatal(err)
		}
		sum := first
		for j, d := range dst {
			sum += d
			exact := -c[j] * s.PDO / math.Ln2
			if math.Abs(float64(d)-exact) >= 1 {
				t.Errorf("column %d has %d points, exactly %v", j, d, exact)
			}
		}
		if sum != total || float64(total) != math.Round(s.Points(logit)) || math.Abs(float64(first)-s.Points(base)) >= 1 {
			t.Fatalf("seed %d: %d + %v = %d, total %d, exactly %v", seed, first, dst, sum, total, s.Points(logit))
		}
	}
	// Two equal remainders, one point: the lower column has it.
	half := Scorecard{BasePoints: 100, BaseOdds: 1, PDO: math.Ln2}
	dst := make([]int, 2)
	if base, total, err := half.Split(dst, 0, []float64{-0.5, -0.5}); err != nil || base != 100 || total != 101 || !slices.Equal(dst, []int{1, 0}) {
		t.Errorf("%v, %v, %v, %v", base, dst, total, err)
	}
	var value *ValueError
	if _, _, err := s.Split(dst, 0, []float64{1, math.NaN()}); !errors.As(err, &value) || value.Col != 1 {
		t.Errorf("NaN: %v", err)
	}
	if _, _, err := s.Split(dst, math.Inf(1), []float64{1, 1}); !errors.As(err, &value) || value.What != "base" {
		t.Errorf("infinite base: %v", err)
	}
}

func TestWeightOfEvidence(t *testing.T) {
	// 100 good and 20 bad: bin 0 has 60 and 4, bin 1 40 and 16, bin 2 nothing.
	var bin []int
	var y []float64
	add := func(b, n int, label float64) {
		for range n {
			bin, y = append(bin, b), append(y, label)
		}
	}
	add(0, 60, 0)
	add(0, 4, 1)
	add(1, 40, 0)
	add(1, 16, 1)
	got, err := WeightOfEvidence(bin, 3, y, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	w0, w1 := math.Log(0.6/0.2), math.Log(0.4/0.8)
	checkClose(t, "WOE 0", got.Bins[0].WOE, w0, 1e-14)
	checkClose(t, "WOE 1", got.Bins[1].WOE, w1, 1e-14)
	checkClose(t, "IV", got.IV, 0.4*w0-0.4*w1, 1e-14)
	checkClose(t, "rate", got.Bins[1].Rate, 16./56, 1e-15)
	checkClose(t, "share", got.Bins[1].Share, 56./120, 1e-15)
	if got.Bins[2] != (WOEBin{Lack: LackOneClass}) || got.Lack != LackNothing || got.N != 120 || got.Positives != 20 || got.Bins[0].N != 64 {
		t.Errorf("%+v", got)
	}

	// The WOE in place of the feature has the weight -1, and the intercept the overall odds.
	X := Matrix{Rows: len(y), Cols: 1}
	for _, b := range bin {
		X.Data = append(X.Data, got.Bins[b].WOE)
	}
	fit := mustFit(t, sample{X, y}, Options{Penalty: None})
	checkClose(t, "weight", fit.Model.Weights[0], -1, 1e-8)
	checkClose(t, "intercept", fit.Model.Intercept, math.Log(20./100), 1e-8)

	// A bin of one class lacks a WOE, unless something is added.
	add(2, 5, 0)
	got, err = WeightOfEvidence(bin, 3, y, nil, 0)
	if err != nil || got.Bins[2].Lack != LackOneClass || got.Lack != LackOneClass || got.Bins[2].WOE != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	smooth, err := WeightOfEvidence(bin, 3, y, nil, 0.5)
	if err != nil || smooth.Lack != LackNothing {
		t.Fatal(smooth, err)
	}
	checkClose(t, "smoothed WOE", smooth.Bins[2].WOE, math.Log(5.5/106.5)-math.Log(0.5/21.5), 1e-14)

	// Weights are rows repeated; flipped labels are negated WOE.
	weights := make([]float64, len(y))
	flipped := make([]float64, len(y))
	var rbin []int
	var ry []float64
	for i := range y {
		weights[i] = float64(i % 3)
		flipped[i] = 1 - y[i]
		for range i % 3 {
			rbin, ry = append(rbin, bin[i]), append(ry, y[i])
		}
	}
	a, err := WeightOfEvidence(bin, 3, y, weights, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	b, err := WeightOfEvidence(rbin, 3, ry, nil, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	c, err := WeightOfEvidence(bin, 3, flipped, weights, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 3 {
		checkClose(t, "weighted WOE", a.Bins[k].WOE, b.Bins[k].WOE, 1e-14)
		checkClose(t, "flipped WOE", c.Bins[k].WOE, -a.Bins[k].WOE, 1e-14)
	}
	checkClose(t, "weighted IV", a.IV, b.IV, 1e-14)

	for _, err := range []error{
		second(WeightOfEvidence(bin, 0, y, nil, 0)), second(WeightOfEvidence(bin, 2, y, nil, 0)), second(WeightOfEvidence(bin[:3], 3, y, nil, 0)),
		second(WeightOfEvidence(bin, 3, y, nil, -1)), second(WeightOfEvidence(nil, 3, nil, nil, 0)), second(WeightOfEvidence(bin, 3, y, weights[:2], 0)),
	} {
		if err == nil {
			t.Error("bad input is no error")
			continue
		}
		mustBeTyped(t, err)
	}
	var one *OneClassError
	if _, err := WeightOfEvidence([]int{0, 1}, 2, []float64{1, 1}, nil, 0.5); !errors.As(err, &one) {
		t.Errorf("one class: %v", err)
	}
}

func TestCuts(t *testing.T) {
	values := []float64{5, 1, math.NaN(), 1, 2, 3, 1, 1, 4, 6}
	cuts, err := Cuts(values, 3)
	if err != nil || !slices.Equal(cuts, []float64{4}) { // the four at 1 are more than a third
		t.Errorf("%v, %v, want 4", cuts, err)
	}
	for v, want := range map[float64]int{0: 0, 1: 0, 2.9: 1, 3: 2, 99: 2} {
		if got := BinOf([]float64{2, 3}, v); got != want {
			t.Errorf("%v is in bin %d, want %d", v, got, want)
		}
	}
	if got := BinOf([]float64{2, 3}, math.NaN()); got != 3 {
		t.Errorf("NaN is in bin %d", got)
	}
	const seed = 803
	r := rand.New(rand.NewPCG(seed, 0))
	for range 300 {
		n, bins := 1+r.IntN(300), 1+r.IntN(12)
		values := make([]float64, n)
		for i := range values {
			values[i] = r.NormFloat64()
		}
		cuts, err := Cuts(values, bins)
		if err != nil || !slices.IsSorted(cuts) {
			t.Fatal(cuts, err)
		}
		counts := make([]int, len(cuts)+2)
		for _, v := range values {
			counts[BinOf(cuts, v)]++
		}
		for k, c := range counts[:len(cuts)+1] {
			// Each bin has n/bins rows, rounded up or down, if there is enough to cut.
			if n >= bins && (len(cuts) != bins-1 || c < n/bins || c > n/bins+1) {
				t.Fatalf("seed %d: %d values in %d bins: bin %d has %d", seed, n, bins, k, c)
			}
		}
	}
	if cuts, err := Cuts([]float64{math.NaN()}, 4); err != nil || len(cuts) != 0 {
		t.Errorf("only missing: %v, %v", cuts, err)
	}
	for _, err := range []error{second(Cuts(values, 0)), second(Cuts([]float64{math.Inf(1)}, 2))} {
		if err == nil {
			t.Error("bad input is no error")
		}
	}
}
