package lr

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// slowObjective is the objective as the documentation writes it, and its
// derivatives by the weights and then the intercept.
func slowObjective(m Model, s sample, opts Options) (value float64, gradient []float64) {
	c := 1.0
	if opts.C != 0 {
		c = opts.C
	}
	penalty := 1.0
	if opts.Penalty == None || math.IsInf(c, 1) {
		c, penalty = 1, 0
	}
	gradient = make([]float64, len(m.Weights)+1)
	for i, y := range s.y {
		w := c
		if opts.Weights != nil {
			w *= opts.Weights[i]
		}
		x := s.X.Row(i)
		z := m.Intercept
		for j, v := range m.Weights {
			z += v * x[j]
		}
		p := 1 / (1 + math.Exp(-z))
		if y == 1 {
			value -= w * math.Log(p)
		} else {
			value -= w * math.Log1p(-p)
		}
		for j := range m.Weights {
			gradient[j] += w * (p - y) * x[j]
		}
		gradient[len(m.Weights)] += w * (p - y)
	}
	for j, v := range m.Weights {
		value += penalty / 2 * v * v
		gradient[j] += penalty * v
	}
	return value, gradient
}

// gradientDescent goes downhill by steps that the curvature can never make too long.
func gradientDescent(s sample, opts Options) Model {
	m := Model{Weights: make([]float64, s.X.Cols)}
	curvature := 1.0
	for i := range s.y {
		w := 1.0
		if opts.Weights != nil {
			w = opts.Weights[i]
		}
		if opts.C != 0 && !math.IsInf(opts.C, 1) {
			w *= opts.C
		}
		norm := 1.0
		for _, v := range s.X.Row(i) {
			norm += v * v
		}
		curvature += w * norm / 4
	}
	for range 200_000 {
		_, g := slowObjective(m, s, opts)
		worst := 0.0
		for j := range m.Weights {
			m.Weights[j] -= g[j] / curvature
			worst = max(worst, math.Abs(g[j]))
		}
		m.Intercept -= g[len(m.Weights)] / curvature
		if max(worst, math.Abs(g[len(m.Weights)])) < 1e-9 {
			break
		}
	}
	return m
}

func mustFit(t testing.TB, s sample, opts Options) *Result {
	t.Helper()
	r, err := Fit(t.Context(), s.X, s.y, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Converged || r.Stop != StopConverged {
		t.Fatalf("not converged after %d iterations: %v", r.Iterations, r.Stop)
	}
	return r
}

func checkSameModel(t testing.TB, what string, got, want Model, tolerance float64) {
	t.Helper()
	if d := math.Abs(got.Intercept - want.Intercept); !(d <= tolerance) {
		t.Errorf("%s: intercept %v, want %v: off by %.2g, allowed %.2g", what, got.Intercept, want.Intercept, d, tolerance)
	}
	for j, w := range want.Weights {
		if d := math.Abs(got.Weights[j] - w); !(d <= tolerance) {
			t.Errorf("%s: weight %d is %v, want %v: off by %.2g, allowed %.2g", what, j, got.Weights[j], w, d, tolerance)
		}
	}
}

func randomWeights(r *rand.Rand, n int) []float64 {
	w := make([]float64, n)
	for i := range w {
		if r.IntN(5) > 0 {
			w[i] = r.Float64() * 3
		}
	}
	return w
}

func TestFitAgainstGradientDescent(t *testing.T) {
	const seed = 31
	r := rand.New(rand.NewPCG(seed, 0))
	for trial := range 12 {
		s := generate(r.Uint64(), 60+r.IntN(60), 1+r.IntN(4))
		opts := Options{}
		switch trial % 4 {
		case 1:
			opts.C = 0.1
		case 2:
			opts.Penalty = None
		case 3:
			opts.C = 3
			opts.Weights = randomWeights(r, s.X.Rows)
		}
		got := mustFit(t, s, opts)
		want := gradientDescent(s, opts)
		t.Logf("trial %d, seed %d: %d x %d, penalty %v, C %v", trial, seed, s.X.Rows, s.X.Cols, opts.Penalty, opts.C)
		checkSameModel(t, "gradient descent", got.Model, want, 1e-7)
		value, gradient := slowObjective(got.Model, s, opts)
		checkClose(t, "objective", got.Objective, value, 1e-12*value)
		for _, g := range gradient {
			checkClose(t, "gradient at the optimum", g, 0, 1e-9)
		}
	}
}

// The evaluation that drives the search against its definition and against finite
// differences, away from the optimum, over several blocks and tiles.
func TestDerivativesByFiniteDifferences(t *testing.T) {
	const seed = 32
	r := rand.New(rand.NewPCG(seed, 0))
	for _, cols := range []int{1, 4, 5, 6, 11, 12} {
		s := generate(r.Uint64(), 2*blockRows+3*tileRows+7, cols)
		opts := Options{C: 0.5, Weights: randomWeights(r, s.X.Rows)}
		f, err := newFitter(t.Context(), newMemory(Chunk{X: s.X, Y: s.y, Weights: opts.Weights}), cols, opts)
		if err != nil {
			t.Fatal(err)
		}
		dim, p := cols+1, padded(cols)
		theta := make([]float64, p)
		for j := range dim {
			theta[j] = r.Float64() - 0.5
		}
		at := func(j int, move float64) *evaluation {
			e := newEvaluation(p).withHessian()
			copy(e.theta, theta)
			e.theta[j] += move
			if err := f.evaluate(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			return e
		}
		e := at(0, 0)
		value, _ := slowObjective(f.model(theta), s, opts)
		checkClose(t, "objective", f.scale*e.objective, value, 1e-12*value)
		const h = 1e-4
		for j := range dim {
			up, down := at(j, h), at(j, -h)
			slope := (up.objective - down.objective) / (2 * h)
			checkClose(t, "gradient", e.gradient[j], slope, 1e-5*float64(s.X.Rows)/1000)
			for k := range j + 1 {
				curve := (up.gradient[k] - down.gradient[k]) / (2 * h)
				checkClose(t, "Hessian", e.hessian[j*p+k], curve, 1e-5*float64(s.X.Rows)/1000)
			}
		}
		if t.Failed() {
			t.Fatalf("%d columns, seed %d", cols, seed)
		}
	}
}

func TestFitProperties(t *testing.T) {
	const seed = 33
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	s := generate(r.Uint64(), 3000, 4)
	n := s.X.Rows
	whole := mustFit(t, s, Options{})

	// take makes a sample of the given rows.
	take := func(rows []int) sample {
		u := sample{X: Matrix{Rows: len(rows), Cols: s.X.Cols}}
		for _, i := range rows {
			u.X.Data = append(u.X.Data, s.X.Row(i)...)
			u.y = append(u.y, s.y[i])
		}
		return u
	}
	// change makes a sample with another column 1.
	change := func(f func(float64) float64) sample {
		u := sample{X: Matrix{Rows: n, Cols: s.X.Cols, Data: slices.Clone(s.X.Data)}, y: s.y}
		for i := range n {
			u.X.Data[i*s.X.Cols+1] = f(u.X.Data[i*s.X.Cols+1])
		}
		return u
	}

	t.Run("shuffled rows", func(t *testing.T) {
		checkSameModel(t, "shuffled", mustFit(t, take(r.Perm(n)), Options{}).Model, whole.Model, 1e-11)
	})
	t.Run("a row twice is weight 2, and weight 0 is absence", func(t *testing.T) {
		weights := make([]float64, n)
		var rows []int
		for i := range n {
			k := r.IntN(3)
			weights[i] = float64(k)
			for range k {
				rows = append(rows, i)
			}
		}
		got := mustFit(t, s, Options{Weights: weights})
		want := mustFit(t, take(rows), Options{})
		checkSameModel(t, "weighted", got.Model, want.Model, 1e-11)
		checkClose(t, "objective", got.Objective, want.Objective, 1e-10)
	})
	t.Run("weights and C trade", func(t *testing.T) {
		weights := make([]float64, n)
		for i := range weights {
			weights[i] = 1e-6
		}
		got := mustFit(t, s, Options{Weights: weights, C: 1e6})
		checkSameModel(t, "small weights, large C", got.Model, whole.Model, 1e-9)
		checkClose(t, "objective", got.Objective, whole.Objective, 1e-10*whole.Objective)
	})
	t.Run("flipped labels negate", func(t *testing.T) {
		flipped := sample{X: s.X, y: make([]float64, n)}
		for i, v := range s.y {
			flipped.y[i] = 1 - v
		}
		got := mustFit(t, flipped, Options{}).Model
		got.Intercept = -got.Intercept
		for j := range got.Weights {
			got.Weights[j] = -got.Weights[j]
		}
		checkSameModel(t, "flipped", got, whole.Model, 1e-12)
	})
	t.Run("a shifted column moves the intercept only", func(t *testing.T) {
		const shift = 1e6
		got := mustFit(t, change(func(v float64) float64 { return v + shift }), Options{}).Model
		got.Intercept += got.Weights[1] * shift
		checkSameModel(t, "shifted", got, whole.Model, 1e-8)
	})
	t.Run("without penalty a column's unit divides its weight", func(t *testing.T) {
		want := mustFit(t, s, Options{Penalty: None}).Model
		for _, unit := range []float64{1e-20, 1024, 1e30} {
			got := mustFit(t, change(func(v float64) float64 { return v * unit }), Options{Penalty: None}).Model
			got.Weights[1] *= unit
			checkSameModel(t, "scaled", got, want, 1e-9)
		}
	})
	t.Run("C to infinity is no penalty", func(t *testing.T) {
		none := mustFit(t, s, Options{Penalty: None})
		inf := mustFit(t, s, Options{C: math.Inf(1)})
		checkSameModel(t, "C = +Inf", inf.Model, none.Model, 0)
		checkSameModel(t, "C = 1e9", mustFit(t, s, Options{C: 1e9}).Model, none.Model, 1e-8)
		checkClose(t, "objective", inf.Objective, none.Objective, 0)
	})
	t.Run("a constant column gets weight 0", func(t *testing.T) {
		got := mustFit(t, change(func(float64) float64 { return 0.1 }), Options{}).Model
		if got.Weights[1] != 0 {
			t.Errorf("weight of the constant column is %v, want 0", got.Weights[1])
		}
	})
	t.Run("twins share", func(t *testing.T) {
		twin := change(func(v float64) float64 { return v })
		for i := range n {
			twin.X.Data[i*4+1] = twin.X.Data[i*4]
		}
		got := mustFit(t, twin, Options{}).Model
		checkClose(t, "twins' weights", got.Weights[0], got.Weights[1], 1e-12)
	})
}

func TestMoreColumnsThanRows(t *testing.T) {
	s := generate(40, 40, 150)
	for _, c := range []float64{0.01, 1, 1000} {
		r := mustFit(t, s, Options{C: c})
		value, gradient := slowObjective(r.Model, s, Options{C: c})
		checkClose(t, "objective", r.Objective, value, 1e-12*value)
		for _, g := range gradient {
			checkClose(t, "gradient", g, 0, 1e-9*max(1, c))
		}
	}
}

func TestSameBitsForAnyNumberOfWorkers(t *testing.T) {
	s := generate(34, 7*blockRows+321, 9)
	weights := randomWeights(rand.New(rand.NewPCG(34, 2)), s.X.Rows)
	fit := func(workers int) *Result {
		return mustFit(t, s, Options{Workers: workers, Weights: weights})
	}
	want := fit(1)
	same := func(what string, got *Result) {
		t.Helper()
		if math.Float64bits(got.Objective) != math.Float64bits(want.Objective) || got.GradientNorm != want.GradientNorm || got.Iterations != want.Iterations {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
		checkSameModel(t, what, got.Model, want.Model, 0)
	}
	for _, workers := range []int{2, 3, 8, 100} {
		same("workers", fit(workers))
	}
	before := runtime.GOMAXPROCS(1)
	one := fit(0)
	runtime.GOMAXPROCS(8)
	many := fit(0)
	runtime.GOMAXPROCS(before)
	same("GOMAXPROCS 1", one)
	same("GOMAXPROCS 8", many)
}

func TestWarmStart(t *testing.T) {
	s := generate(35, 4000, 6)
	cold := mustFit(t, s, Options{})
	again := mustFit(t, s, Options{Start: &cold.Model})
	if again.Iterations > 1 || again.Passes >= cold.Passes {
		t.Errorf("from the optimum: %d iterations, %d passes; cold: %d, %d", again.Iterations, again.Passes, cold.Iterations, cold.Passes)
	}
	checkSameModel(t, "from the optimum", again.Model, cold.Model, 1e-10)

	near := Model{Intercept: cold.Model.Intercept + 0.1, Weights: slices.Clone(cold.Model.Weights)}
	near.Weights[2] -= 0.2
	kept := slices.Clone(near.Weights)
	got := mustFit(t, s, Options{Start: &near})
	if got.Iterations >= cold.Iterations {
		t.Errorf("from nearby %d iterations, cold %d", got.Iterations, cold.Iterations)
	}
	checkSameModel(t, "from nearby", got.Model, cold.Model, 1e-10)
	if !slices.Equal(near.Weights, kept) {
		t.Error("Fit changed the given start")
	}

	far := Model{Intercept: 1e80, Weights: []float64{1e85, -1e85, 0, 3, 4, 1e85}}
	checkSameModel(t, "from far out", mustFit(t, s, Options{Start: &far}).Model, cold.Model, 0)
	checkSameModel(t, "from far out without penalty", mustFit(t, s, Options{Start: &far, Penalty: None}).Model,
		mustFit(t, s, Options{Penalty: None}).Model, 0)
}

func TestIterationsUsedUp(t *testing.T) {
	s := generate(36, 500, 3)
	r, err := Fit(t.Context(), s.X, s.y, Options{MaxIterations: 1})
	if err != nil {
		t.Fatal(err)
	}
	if r.Converged || r.Stop != StopIterations || r.Iterations != 1 || !(r.Decrement > 1e-10) {
		t.Errorf("after one of several steps: %+v (%v)", r, r.Stop)
	}
	if !strings.Contains(r.Stop.String(), "iterations") {
		t.Errorf("Stop reads %q", r.Stop)
	}
}

// A tolerance finer than rounding allows ends where rounding does.
func TestToleranceBelowRounding(t *testing.T) {
	s := generate(39, 500, 3)
	for _, penalty := range []Penalty{L2, None} {
		r := mustFit(t, s, Options{Penalty: penalty, Tolerance: 1e-200})
		if r.Iterations > 12 || r.Decrement > 1e-12 {
			t.Errorf("penalty %v: %d iterations to %g", penalty, r.Iterations, r.Decrement)
		}
	}
}

// A penalty that is lost in rounding leaves two equal columns without a curvature
// between them. The search must end, say so, and stay finite.
func TestPenaltyLostInRounding(t *testing.T) {
	s := generate(37, 500, 2)
	for i := range s.X.Rows {
		s.X.Data[2*i+1] = s.X.Data[2*i]
	}
	r, err := Fit(t.Context(), s.X, s.y, Options{C: 1e50})
	if err != nil {
		t.Fatal(err)
	}
	if r.Converged || r.Stop != StopStalled {
		t.Errorf("Stop = %v, want %v", r.Stop, StopStalled)
	}
	for _, w := range r.Model.Weights {
		if !(math.Abs(w) < 100) {
			t.Errorf("weights %v", r.Model.Weights)
		}
	}
}

// dyingContext ends at the n-th look at it.
type dyingContext struct {
	context.Context
	looks chan struct{} // holds the looks left
}

func (c dyingContext) Err() error {
	select {
	case <-c.looks:
		return nil
	default:
		return context.DeadlineExceeded
	}
}

func TestFitEndsWithItsContext(t *testing.T) {
	s := generate(38, 6*blockRows, 3)
	reason := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(reason)
	if r, err := Fit(ctx, s.X, s.y, Options{}); r != nil || !errors.Is(err, reason) {
		t.Errorf("cancelled before: %v, %v", r, err)
	}
	// At any later moment: while columns are measured, in the first evaluation, in
	// the iterations, in the check for separation.
	for _, penalty := range []Penalty{L2, None} {
		ended := 0
		for looks := 0; ; looks += 5 {
			ctx := dyingContext{t.Context(), make(chan struct{}, looks+1)}
			for range looks {
				ctx.looks <- struct{}{}
			}
			r, err := Fit(ctx, s.X, s.y, Options{Penalty: penalty, Workers: 3})
			if err == nil {
				break
			}
			if r != nil || !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "lr: ") {
				t.Fatalf("ended after %d looks: %v, %v", looks, r, err)
			}
			ended++
		}
		if ended < 8 {
			t.Errorf("penalty %v: the fit was interrupted at %d moments only", penalty, ended)
		}
	}
}
