package lr

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// slowPlatt goes downhill on Platt's objective by bisection of one parameter after the
// other, which both are convex.
func slowPlatt(scores, y, weights []float64) (slope, intercept float64) {
	var positive, negative float64
	for i, label := range y {
		if label == 1 {
			positive += weights[i]
		} else {
			negative += weights[i]
		}
	}
	gradient := func(a, b float64) (da, db float64) {
		for i, s := range scores {
			target := 1 / (negative + 2)
			if y[i] == 1 {
				target = (positive + 1) / (positive + 2)
			}
			d := weights[i] * (1/(1+math.Exp(-a*s-b)) - target)
			da += d * s
			db += d
		}
		return da, db
	}
	root := func(f func(float64) float64) float64 {
		low, high := -60.0, 60.0
		for range 100 {
			mid := (low + high) / 2
			if f(mid) < 0 {
				low = mid
			} else {
				high = mid
			}
		}
		return (low + high) / 2
	}
	best := func(a float64) float64 {
		return root(func(b float64) float64 { _, db := gradient(a, b); return db })
	}
	slope = root(func(a float64) float64 { da, _ := gradient(a, best(a)); return da })
	return slope, best(slope)
}

func TestPlattAgainstBisection(t *testing.T) {
	const seed = 701
	r := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		n := 5 + r.IntN(20)
		scores, y, weights := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range y {
			y[i] = float64(i % 2)
			scores[i] = r.NormFloat64() + y[i]
			weights[i] = float64(r.IntN(3))
		}
		weights[0], weights[1] = 1, 2
		got, err := FitPlatt(t.Context(), scores, y, weights)
		if err != nil {
			t.Fatal(err)
		}
		slope, intercept := slowPlatt(scores, y, weights)
		checkClose(t, "slope", got.Slope, slope, 1e-7)
		checkClose(t, "intercept", got.Intercept, intercept, 1e-7)
	}
	// Separated scores have an optimum too.
	got, err := FitPlatt(t.Context(), []float64{-2, -1, 1, 2}, []float64{0, 0, 1, 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	slope, intercept := slowPlatt([]float64{-2, -1, 1, 2}, []float64{0, 0, 1, 1}, []float64{1, 1, 1, 1})
	checkClose(t, "separated slope", got.Slope, slope, 1e-7)
	checkClose(t, "separated intercept", got.Intercept, intercept, 1e-7)
}

// Scores that were stretched and shifted are found to have been.
func TestPlattUndoesADistortion(t *testing.T) {
	s := generate(702, 20_000, 2)
	r := rand.New(rand.NewPCG(702, 0))
	scores := make([]float64, len(s.y))
	for i := range scores {
		z := 2*r.Float64() - 1
		s.y[i] = 0
		if r.Float64() < Sigmoid(z) {
			s.y[i] = 1
		}
		scores[i] = 3*z + 1
	}
	c, err := FitPlatt(t.Context(), scores, s.y, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkClose(t, "slope", c.Slope, 1./3, 0.03)
	checkClose(t, "intercept", c.Intercept, -1./3, 0.06)
	if c.N != 20_000 || c.Prob(1) != Sigmoid(c.Intercept+c.Slope) {
		t.Errorf("%+v", c)
	}
}

// slowIsotonic is max over a <= i of min over b >= i of the mean of a to b (Robertson,
// Wright and Dykstra, Order Restricted Statistical Inference, 1.4), on distinct scores.
func slowIsotonic(labels, weights []float64) []float64 {
	fit := make([]float64, len(labels))
	for i := range fit {
		fit[i] = math.Inf(-1)
		for a := 0; a <= i; a++ {
			least := math.Inf(1)
			for b := i; b < len(labels); b++ {
				sum, weight := 0.0, 0.0
				for k := a; k <= b; k++ {
					sum += weights[k] * labels[k]
					weight += weights[k]
				}
				least = min(least, sum/weight)
			}
			fit[i] = max(fit[i], least)
		}
	}
	return fit
}

func TestIsotonicAgainstItsDefinition(t *testing.T) {
	const seed = 703
	r := rand.New(rand.NewPCG(seed, 0))
	for range 150 {
		n := 1 + r.IntN(25)
		scores, y, weights := make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range y {
			scores[i] = float64(r.IntN(12))
			y[i] = float64(r.IntN(2))
			weights[i] = float64(1 + r.IntN(3))
		}
		f, err := FitIsotonic(scores, y, weights)
		if err != nil {
			t.Fatal(err)
		}
		// One element for each score.
		values := slices.Clone(scores)
		slices.Sort(values)
		values = slices.Compact(values)
		labels, sums := make([]float64, len(values)), make([]float64, len(values))
		for i, s := range scores {
			k, _ := slices.BinarySearch(values, s)
			labels[k] += weights[i] * y[i]
			sums[k] += weights[i]
		}
		for k := range labels {
			labels[k] /= sums[k]
		}
		want := slowIsotonic(labels, sums)
		rows := 0
		for k, s := range values {
			checkClose(t, "fit", f.Prob(s), want[k], 1e-12)
		}
		for k, b := range f.Blocks {
			rows += b.N
			if k > 0 && !(b.P > f.Blocks[k-1].P && b.Low > f.Blocks[k-1].High) {
				t.Errorf("blocks do not ascend: %+v", f.Blocks)
			}
		}
		if rows != n || f.N != n {
			t.Errorf("blocks have %d rows of %d", rows, n)
		}
		last := math.Inf(-1)
		for s := -1.0; s < 13; s += 0.1 {
			p := f.Prob(s)
			if p < last || p < 0 || p > 1 {
				t.Errorf("probability falls to %v from %v at %v", p, last, s)
			}
			last = p
		}
		if t.Failed() {
			t.Fatalf("seed %d: scores %v, y %v, weights %v", seed, scores, y, weights)
		}
	}
	f := Isotonic{Blocks: []IsotonicBlock{{Low: 0, High: 1, P: 0.2}, {Low: 3, High: 4, P: 0.6}}}
	for s, want := range map[float64]float64{-9: 0.2, 0.5: 0.2, 1: 0.2, 2: 0.4, 3: 0.6, 99: 0.6, math.Inf(1): 0.6} {
		checkClose(t, "between blocks", f.Prob(s), want, 1e-15)
	}
	if p := f.Prob(math.NaN()); p == p {
		t.Errorf("probability of NaN is %v", p)
	}
}

func TestCalibrationRefusesBadInput(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		scores, y, weights []float64
		want               string
	}{
		{nil, nil, nil, "lr: length of y is 0, want at least 1"},
		{[]float64{1}, []float64{1, 0}, nil, "lr: length of scores is 1, want that of y, 2"},
		{[]float64{1, nan}, []float64{1, 0}, nil, "lr: scores row 1 is NaN, want finite and at most 1e+90 in magnitude"},
		{[]float64{1, 2}, []float64{1, 3}, nil, "lr: y row 1 is 3, want 0 or 1"},
		{[]float64{1, 2}, []float64{1, 0}, []float64{1, nan}, "lr: weights row 1 is NaN, want 0 or between 1e-90 and 1e+90"},
	} {
		if _, err := FitPlatt(t.Context(), c.scores, c.y, c.weights); err == nil || err.Error() != c.want {
			t.Errorf("Platt: %v, want %s", err, c.want)
		}
		if _, err := FitIsotonic(c.scores, c.y, c.weights); err == nil || err.Error() != c.want {
			t.Errorf("isotonic: %v, want %s", err, c.want)
		}
	}
	var one *OneClassError
	if _, err := FitPlatt(t.Context(), []float64{1, 2}, []float64{1, 0}, []float64{1, 0}); !errors.As(err, &one) || one.Class != 1 {
		t.Errorf("Platt of one class: %v", err)
	}
	var rank *RankError
	if _, err := FitPlatt(t.Context(), []float64{2, 2}, []float64{1, 0}, nil); !errors.As(err, &rank) {
		t.Errorf("Platt of equal scores: %v", err)
	}
}

// A model of down-sampled rows, shifted, is that of all rows.
func TestPriorCorrection(t *testing.T) {
	all := generate(704, 60_000, 2)
	for i := range all.y {
		if all.X.Row(i)[0] < 0.6 && i%2 == 0 {
			all.y[i] = 0 // rarer positives
		}
	}
	r := rand.New(rand.NewPCG(704, 0))
	kept := sample{X: Matrix{Cols: 2}}
	positives, keptPositives := 0.0, 0.0
	for i, label := range all.y {
		positives += label
		if label == 0 && r.Float64() >= 0.2 {
			continue
		}
		keptPositives += label
		kept.X.Rows++
		kept.X.Data = append(kept.X.Data, all.X.Row(i)...)
		kept.y = append(kept.y, label)
	}
	population, share := positives/60_000, keptPositives/float64(kept.X.Rows)
	shift, err := PriorShift(share, population)
	if err != nil {
		t.Fatal(err)
	}
	// Equation 7, as it is printed: subtract ln[((1-τ)/τ)(ȳ/(1-ȳ))].
	checkClose(t, "shift", shift, -math.Log((1-population)/population*share/(1-share)), 1e-12)
	byKept, err := KeptShift(1, 0.2)
	if err != nil {
		t.Fatal(err)
	}
	checkClose(t, "shift by the share kept", byKept, math.Log(0.2), 1e-14)
	checkClose(t, "both shifts", shift, byKept, 0.05)

	fit := mustFit(t, kept, Options{Penalty: None}).Model
	shifted := fit.Shift(shift)
	if fit.Intercept == shifted.Intercept {
		t.Error("Shift changed nothing, or the model it was called on")
	}
	mean := 0.0
	for i := range all.y {
		mean += shifted.Prob(all.X.Row(i)) / 60_000
	}
	checkClose(t, "mean probability", mean, population, 0.01)

	positive, negative, err := PriorWeights(share, population)
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float64, kept.X.Rows)
	sum, ones := 0.0, 0.0
	for i, label := range kept.y {
		weights[i] = negative
		if label == 1 {
			weights[i] = positive
			ones += positive
		}
		sum += weights[i]
	}
	checkClose(t, "weighted share", ones/sum, population, 1e-12)
	checkClose(t, "mean weight", sum/float64(len(weights)), 1, 1e-12)

	for _, err := range []error{
		second(PriorShift(0, 0.5)), second(PriorShift(0.5, 1)), second(PriorShift(math.NaN(), 0.5)),
		second(KeptShift(0, 1)), second(KeptShift(1, 1.5)),
	} {
		if err == nil {
			t.Error("a share out of range is no error")
			continue
		}
		mustBeTyped(t, err)
	}
	if _, _, err := PriorWeights(0.5, -1); err == nil || err.Error() != "lr: option population is -1, want above 0 and below 1" {
		t.Error(err)
	}
}
