package lr

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// slowFull is the objective as the documentation of Fit writes it, with all its options,
// and the derivatives of its smooth part by the weights and then the intercept.
func slowFull(m Model, s sample, opts Options) (value float64, gradient []float64) {
	c, square, size := 1.0, 1.0, 0.0
	if opts.C != 0 {
		c = opts.C
	}
	switch opts.Penalty {
	case L1:
		square, size = 0, 1
	case ElasticNet:
		square, size = 1-opts.L1Ratio, opts.L1Ratio
	case None:
		c, square = 1, 0
	}
	d := len(m.Weights)
	gradient = make([]float64, d+1)
	for i, y := range s.y {
		k, z := c, m.Intercept
		if opts.Weights != nil {
			k *= opts.Weights[i]
		}
		if opts.ClassWeights != [2]float64{} {
			k *= opts.ClassWeights[int(y)]
		}
		if opts.Offsets != nil {
			z += opts.Offsets[i]
		}
		x := s.X.Row(i)
		for j, w := range m.Weights {
			z += w * x[j]
		}
		p := 1 / (1 + math.Exp(-z))
		if y == 1 {
			value -= k * math.Log(p)
		} else {
			value -= k * math.Log1p(-p)
		}
		for j, v := range x {
			gradient[j] += k * (p - y) * v
		}
		gradient[d] += k * (p - y)
	}
	for j, w := range m.Weights {
		value += square/2*w*w + size*math.Abs(w)
		gradient[j] += square * w
	}
	return value, gradient
}

// proximalDescent is the dumb twin of all solvers: steps downhill that the curvature can
// never make too long, each followed by the shrinking that the L1 part asks for.
func proximalDescent(s sample, opts Options) Model {
	m := Model{Weights: make([]float64, s.X.Cols)}
	c, size := 1.0, 0.0
	if opts.C != 0 {
		c = opts.C
	}
	switch opts.Penalty {
	case L1:
		size = 1
	case ElasticNet:
		size = opts.L1Ratio
	}
	curvature := 1.0
	for i := range s.y {
		norm := 1.0
		for _, v := range s.X.Row(i) {
			norm += v * v
		}
		k := c
		if opts.Weights != nil {
			k *= opts.Weights[i]
		}
		if opts.ClassWeights != [2]float64{} {
			k *= opts.ClassWeights[int(s.y[i])]
		}
		curvature += k * norm / 4
	}
	for range 100_000 {
		_, g := slowFull(m, s, opts)
		moved := 0.0
		for j, w := range m.Weights {
			v := w - g[j]/curvature
			v = math.Copysign(max(math.Abs(v)-size/curvature, 0), v)
			moved = max(moved, math.Abs(v-w))
			m.Weights[j] = v
		}
		d := g[len(m.Weights)] / curvature
		m.Intercept -= d
		if max(moved, math.Abs(d)) < 1e-11 {
			break
		}
	}
	return m
}

func toSparse(X Matrix) Sparse {
	s := Sparse{Rows: X.Rows, Cols: X.Cols, Ptr: []int{0}}
	for i := range X.Rows {
		for j, v := range X.Row(i) {
			if v != 0 {
				s.Index, s.Data = append(s.Index, int32(j)), append(s.Data, v)
			}
		}
		s.Ptr = append(s.Ptr, len(s.Index))
	}
	return s
}

// holes sets most of X to 0.
func holes(r *rand.Rand, X Matrix) {
	for k := range X.Data {
		if r.IntN(3) > 0 {
			X.Data[k] = 0
		}
	}
}

// chunksOf cuts rows into chunks of random sizes, some of them empty.
func chunksOf(r *rand.Rand, s sample, opts Options, sparse bool) iter.Seq2[Chunk, error] {
	seed := r.Uint64()
	return func(yield func(Chunk, error) bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		for lo := 0; lo < s.X.Rows; {
			hi := min(lo+r.IntN(1+s.X.Rows/3), s.X.Rows)
			c := Chunk{Y: s.y[lo:hi]}
			part := Matrix{Rows: hi - lo, Cols: s.X.Cols, Data: s.X.Data[lo*s.X.Cols : hi*s.X.Cols]}
			if sparse {
				c.Sparse = toSparse(part)
			} else {
				c.X = part
			}
			if opts.Weights != nil {
				c.Weights = opts.Weights[lo:hi]
			}
			if opts.Offsets != nil {
				c.Offsets = opts.Offsets[lo:hi]
			}
			if !yield(c, nil) {
				return
			}
			lo = hi
		}
	}
}

func withoutRows(o Options) Options {
	o.Weights, o.Offsets = nil, nil
	return o
}

// Every way to fit against the dumb twin, with random options.
func TestSolversAgreeWithTheDumbTwin(t *testing.T) {
	const seed = 61
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	zeros := 0
	for trial := range 24 {
		s := generate(r.Uint64(), 60+r.IntN(80), 1+r.IntN(6))
		if trial%2 == 1 {
			holes(r, s.X)
		}
		opts := Options{Penalty: []Penalty{L2, L1, ElasticNet, L1}[trial%4], C: 0.05 + r.Float64()}
		if opts.Penalty == ElasticNet {
			opts.L1Ratio = 0.2 + 0.6*r.Float64()
		}
		if r.IntN(2) == 0 {
			opts.Weights = randomWeights(r, s.X.Rows)
		}
		if r.IntN(2) == 0 {
			opts.ClassWeights = [2]float64{0.3 + r.Float64(), 0.3 + r.Float64()}
		}
		if r.IntN(2) == 0 {
			opts.Offsets = make([]float64, s.X.Rows)
			for i := range opts.Offsets {
				opts.Offsets[i] = 2 * (r.Float64() - 0.5)
			}
		}
		want := proximalDescent(s, opts)
		value, _ := slowFull(want, s, opts)
		for _, solver := range []Solver{SolverAuto, SolverNewton, SolverLBFGS} {
			opts.Solver = solver
			fits := map[string]func() (*Result, error){
				"dense":  func() (*Result, error) { return Fit(t.Context(), s.X, s.y, opts) },
				"sparse": func() (*Result, error) { return FitSparse(t.Context(), toSparse(s.X), s.y, opts) },
				"dense chunks": func() (*Result, error) {
					return FitChunks(t.Context(), s.X.Cols, chunksOf(r, s, opts, false), withoutRows(opts))
				},
				"sparse chunks": func() (*Result, error) {
					return FitChunks(t.Context(), s.X.Cols, chunksOf(r, s, opts, true), withoutRows(opts))
				},
			}
			for how, fit := range fits {
				what := fmt.Sprintf("trial %d, %s, %v, %v", trial, how, opts.Penalty, solver)
				got, err := fit()
				if err != nil || !got.Converged {
					t.Fatalf("%s: %+v, %v", what, got, err)
				}
				checkSameModel(t, what, got.Model, want, 2e-8)
				checkClose(t, what+" objective", got.Objective, value, 1e-10*value)
				if got.GradientNorm > 1e-6 {
					t.Errorf("%s: gradient %g", what, got.GradientNorm)
				}
				for j, w := range got.Model.Weights {
					if (w == 0) != (want.Weights[j] == 0) {
						t.Errorf("%s: weight %d is %g, want %g: one is exactly 0", what, j, w, want.Weights[j])
					}
				}
			}
		}
		for _, w := range want.Weights {
			if w == 0 && opts.Penalty != L2 {
				zeros++
			}
		}
	}
	if zeros < 5 {
		t.Errorf("%d weights are 0: too few to say that these are found", zeros)
	}
}

// At an optimum with an L1 part |gradient| <= 1 where the weight is 0, and = 1 with the
// other sign elsewhere; correlated columns and many of them.
func TestL1SatisfiesItsConditions(t *testing.T) {
	const seed = 62
	r := rand.New(rand.NewPCG(seed, 0))
	for _, size := range []struct{ rows, cols int }{{400, 40}, {60, 200}} {
		s := generate(r.Uint64(), size.rows, size.cols)
		for i := range s.X.Rows {
			row := s.X.Row(i)
			for j := 1; j < len(row); j += 2 {
				row[j] = row[j-1] + 0.05*row[j]
			}
		}
		for _, solver := range []Solver{SolverNewton, SolverLBFGS} {
			opts := Options{Penalty: L1, C: 0.3, Solver: solver}
			if solver == SolverLBFGS {
				opts.Tolerance = 1e-7
			}
			got := mustFit(t, s, opts)
			value, g := slowFull(got.Model, s, opts)
			checkClose(t, "objective", got.Objective, value, 1e-11*value)
			zeros, worst := 0, math.Abs(g[s.X.Cols])
			for j, w := range got.Model.Weights {
				if w == 0 {
					zeros++
					worst = max(worst, math.Abs(g[j])-1)
				} else {
					worst = max(worst, math.Abs(g[j]+sign(w)))
				}
			}
			t.Logf("%dx%d %v: %d of %d zeros, residual %.2g, %d iterations", size.rows, size.cols, solver, zeros, s.X.Cols, worst, got.Iterations)
			if limit := map[Solver]float64{SolverNewton: 1e-8, SolverLBFGS: 2e-5}[solver]; worst > limit {
				t.Errorf("residual %.2g of the conditions, allowed %.2g", worst, limit)
			}
			checkClose(t, "GradientNorm", got.GradientNorm, max(worst, 0), 1e-9)
			if zeros < s.X.Cols/4 || zeros == s.X.Cols {
				t.Errorf("%d of %d weights are 0", zeros, s.X.Cols)
			}
		}
	}
}

// So strong an L1 part that no weight pays leaves the constant model.
func TestL1Alone(t *testing.T) {
	s := generate(63, 500, 5)
	for _, solver := range []Solver{SolverNewton, SolverLBFGS} {
		got := mustFit(t, s, Options{Penalty: L1, C: 1e-6, Solver: solver})
		positives := 0.0
		for _, y := range s.y {
			positives += y
		}
		checkSameModel(t, "constant", got.Model, Model{Intercept: math.Log(positives / (500 - positives)), Weights: make([]float64, 5)}, 1e-12)
		for j, w := range got.Model.Weights {
			if w != 0 {
				t.Errorf("%v: weight %d is %g, want 0", solver, j, w)
			}
		}
	}
	// A constant column has no say.
	for i := range s.X.Rows {
		s.X.Row(i)[2] = 7
	}
	for _, solver := range []Solver{SolverNewton, SolverLBFGS} {
		if got := mustFit(t, s, Options{Penalty: L1, Solver: solver}); got.Model.Weights[2] != 0 {
			t.Errorf("%v: weight of a constant column is %g", solver, got.Model.Weights[2])
		}
	}
}

func TestOffsetsAndClassWeights(t *testing.T) {
	const seed = 64
	r := rand.New(rand.NewPCG(seed, 0))
	s := generate(seed, 2500, 4)
	whole := mustFit(t, s, Options{Penalty: None})
	for _, solver := range []Solver{SolverNewton, SolverLBFGS} {
		constant := make([]float64, s.X.Rows)
		linear := make([]float64, s.X.Rows)
		for i := range constant {
			constant[i] = 3
			linear[i] = 0.5*s.X.Row(i)[1] - 2*s.X.Row(i)[3]
		}
		got := mustFit(t, s, Options{Penalty: None, Offsets: constant, Solver: solver}).Model
		got.Intercept += 3
		checkSameModel(t, "constant offset", got, whole.Model, 1e-8)
		got = mustFit(t, s, Options{Penalty: None, Offsets: linear, Solver: solver}).Model
		got.Weights[1] += 0.5
		got.Weights[3] -= 2
		checkSameModel(t, "linear offset", got, whole.Model, 1e-8)

		class := [2]float64{0.4, 2.5}
		weights := randomWeights(r, s.X.Rows)
		both := slices.Clone(weights)
		for i := range both {
			both[i] *= class[int(s.y[i])]
		}
		want := mustFit(t, s, Options{Weights: both})
		by := mustFit(t, s, Options{Weights: weights, ClassWeights: class, Solver: solver})
		checkSameModel(t, "class weights", by.Model, want.Model, 1e-8)
		checkClose(t, "objective", by.Objective, want.Objective, 1e-11*want.Objective)
		if by.Rows != want.Rows {
			t.Errorf("%d rows, want %d", by.Rows, want.Rows)
		}
	}
	balanced := BalancedWeights([]float64{1, 0, 0, 0, 1, 0}, []float64{1, 1, 2, 0, 1, 1})
	if balanced != [2]float64{6.0 / 2 / 4, 6.0 / 2 / 2} {
		t.Errorf("balanced %v", balanced)
	}
	// Weighted by balanced weights the constant model is even.
	even := mustFit(t, s, Options{Penalty: L1, C: 1e-9, ClassWeights: BalancedWeights(s.y, nil)})
	checkClose(t, "intercept", even.Model.Intercept, 0, 1e-12)
}

// A sample of large data gives the start; the optimum is that of all rows.
func TestLBFGSFromASample(t *testing.T) {
	s := generate(65, 140_000, 6)
	s.X.Data[5] = 1e6 // far out in one column
	for i := range s.X.Rows {
		s.X.Row(i)[4] = 0
	}
	for _, i := range []int{1001, 70_003, 139_999} { // rows that are not in the sample
		s.X.Row(i)[4] = 1
	}
	weights := randomWeights(rand.New(rand.NewPCG(65, 2)), s.X.Rows)
	for _, opts := range []Options{{}, {C: 0.01, Weights: weights}, {ClassWeights: [2]float64{1, 3}}} {
		opts.Solver = SolverNewton
		want := mustFit(t, s, opts)
		opts.Solver = SolverAuto
		steps := 0
		opts.Progress = func(p Progress) {
			if steps++; p.Iteration != steps || p.Solver != SolverLBFGS || !(p.Objective > 0) {
				t.Errorf("progress %+v at step %d", p, steps)
			}
		}
		got := mustFit(t, s, opts)
		if got.Solver != SolverLBFGS || steps != got.Iterations || got.Iterations >= patience {
			t.Errorf("%v in %d steps, %d reported", got.Solver, got.Iterations, steps)
		}
		checkSameModel(t, "from a sample", got.Model, want.Model, 1e-9)
		checkClose(t, "objective", got.Objective, want.Objective, 1e-12*want.Objective)
		opts.Progress, opts.Start = nil, &want.Model
		again := mustFit(t, s, opts)
		if again.Iterations > 2 {
			t.Errorf("from the optimum %d steps", again.Iterations)
		}
		checkSameModel(t, "from the optimum", again.Model, want.Model, 1e-9)
	}
}

// Where L-BFGS is slow, SolverAuto goes over to Newton's method.
func TestAutoGoesOverToNewton(t *testing.T) {
	s := generate(66, 132_000, 14)
	for i := range s.X.Rows {
		// Nearly copies of each other, in the rows outside the sample only.
		row := s.X.Row(i)
		for j := 1; j < len(row) && i%16 != 0; j += 2 {
			row[j] = row[j-1] + 0.3*row[j]/math.Pow(4, float64(j))
		}
	}
	got := mustFit(t, s, Options{C: 1e6})
	want := mustFit(t, s, Options{C: 1e6, Solver: SolverNewton})
	if got.Solver != SolverNewton || got.Passes <= patience {
		t.Errorf("%v after %d passes: L-BFGS was not slow", got.Solver, got.Passes)
	}
	if got.Iterations >= want.Iterations {
		t.Errorf("%d Newton steps after L-BFGS, %d without: its point was not used", got.Iterations, want.Iterations)
	}
	t.Logf("%v, %d iterations, %d passes; Newton %d passes", got.Solver, got.Iterations, got.Passes, want.Passes)
	checkClose(t, "objective", got.Objective, want.Objective, 1e-12*want.Objective)
	checkSameModel(t, "auto", got.Model, want.Model, 1e-6)
}

// No chunking, number of workers or form of the source changes a bit.
func TestSameBitsForAnyChunksAndWorkers(t *testing.T) {
	const seed = 67
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	small, large := generate(68, 5*blockRows+77, 7), generate(69, 132_000, 3)
	holes(r, small.X)
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	for _, c := range []struct {
		name string
		s    sample
		opts Options
	}{
		{"newton", small, Options{}},
		{"weights", small, Options{Weights: randomWeights(r, small.X.Rows), ClassWeights: [2]float64{1, 2}}},
		{"l-bfgs", small, Options{Solver: SolverLBFGS}},
		{"l1", small, Options{Penalty: L1, C: 0.1, Offsets: randomWeights(r, small.X.Rows)}},
		{"owl-qn", small, Options{Penalty: ElasticNet, L1Ratio: 0.5, Solver: SolverLBFGS, Tolerance: 1e-6}},
		{"sample", large, Options{}},
		{"weighted sample", large, Options{Weights: randomWeights(r, large.X.Rows)}},
	} {
		for _, sparse := range []bool{false, true} {
			if sparse && c.s.X.Rows > 100_000 {
				continue
			}
			whole := func(workers int) *Result {
				opts := c.opts
				opts.Workers = workers
				var got *Result
				var err error
				if sparse {
					got, err = FitSparse(t.Context(), toSparse(c.s.X), c.s.y, opts)
				} else {
					got, err = Fit(t.Context(), c.s.X, c.s.y, opts)
				}
				if err != nil || !got.Converged {
					t.Fatal(c.name, got, err)
				}
				return got
			}
			want := whole(1)
			same := func(how string, got *Result, err error) {
				t.Helper()
				if err != nil {
					t.Fatal(c.name, how, err)
				}
				a := bits(append(got.Model.Weights, got.Model.Intercept, got.Objective, got.GradientNorm, got.Decrement)...)
				b := bits(append(want.Model.Weights, want.Model.Intercept, want.Objective, want.GradientNorm, want.Decrement)...)
				if a != b || got.Passes != want.Passes {
					t.Errorf("%s, sparse %t, %s: %+v, want %+v", c.name, sparse, how, got, want)
				}
			}
			for _, procs := range []int{1, 2, 8} {
				runtime.GOMAXPROCS(procs)
				same(fmt.Sprintf("GOMAXPROCS %d", procs), whole(0), nil)
			}
			opts := withoutRows(c.opts)
			opts.Workers = 3
			got, err := FitChunks(t.Context(), c.s.X.Cols, chunksOf(r, c.s, c.opts, sparse), opts)
			same("chunks", got, err)
		}
	}
}

// The gradient passes and the sparse Hessian against finite differences, away from the
// optimum, over several blocks.
func TestFastDerivativesByFiniteDifferences(t *testing.T) {
	const seed = 70
	r := rand.New(rand.NewPCG(seed, 0))
	for trial := range 6 {
		s := generate(r.Uint64(), 2*blockRows+333, []int{1, 5, 8}[trial%3])
		sparse := trial >= 3
		c := Chunk{X: s.X, Y: s.y, Offsets: randomWeights(r, s.X.Rows)}
		if sparse {
			holes(r, s.X)
			c.X, c.Sparse = Matrix{}, toSparse(s.X)
		}
		if trial%2 == 0 {
			c.Weights = randomWeights(r, s.X.Rows)
		}
		opts := Options{C: 0.5, Weights: c.Weights, Offsets: c.Offsets, ClassWeights: [2]float64{1, 1.5}}
		f, err := newFitter(t.Context(), newMemory(c), s.X.Cols, opts)
		if err != nil {
			t.Fatal(err)
		}
		n, p := s.X.Cols+1, padded(s.X.Cols)
		theta := make([]float64, p)
		for j := range n {
			theta[j] = r.Float64() - 0.5
		}
		at := func(j int, move float64, e *evaluation) *evaluation {
			copy(e.theta, theta)
			e.theta[j] += move
			if err := f.evaluate(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			return e
		}
		e := newEvaluation(p)
		e.diagonal = make([]float64, p)
		at(0, 0, e)
		full := at(0, 0, newEvaluation(p).withHessian())
		value, _ := slowFull(f.model(theta), s, opts)
		checkClose(t, "objective", f.scale*e.objective, value, 1e-12*value)
		checkClose(t, "objective with Hessian", full.objective, e.objective, 1e-12*value)
		const h = 1e-4
		for j := range n {
			up, down := at(j, h, newEvaluation(p)), at(j, -h, newEvaluation(p))
			checkClose(t, "gradient", e.gradient[j], (up.objective-down.objective)/(2*h), 1e-5*float64(s.X.Rows)/1000)
			checkClose(t, "gradient with Hessian", full.gradient[j], e.gradient[j], 1e-9)
			for k := range j + 1 {
				curve := (up.gradient[k] - down.gradient[k]) / (2 * h)
				checkClose(t, "Hessian", full.hessian[j*p+k], curve, 1e-5*float64(s.X.Rows)/1000)
			}
			checkClose(t, "diagonal", e.diagonal[j], full.hessian[j*p+j], 1e-12*full.hessian[j*p+j])
		}
		if t.Failed() {
			t.Fatalf("trial %d, seed %d", trial, seed)
		}
	}
}

// Rows whose losses all but vanish, and rows far on the wrong side.
func TestFastLossesNearAndFar(t *testing.T) {
	for _, z := range []float64{0, 1e-9, 0.3, 5, 20, 36, 40, 300, 707, 709, 745, 800, 1e5} {
		for _, y := range []float64{0, 1} {
			for _, side := range []float64{-z, z} {
				const n = group + 3
				b := &block{n: n, y: slices.Repeat([]float64{y}, n)}
				var fast, slow worker
				for i := range n {
					fast.logit[i], slow.logit[i] = side, side
				}
				fast.lossesFast(&fitter{}, b, 0, n)
				slow.losses(&fitter{}, b, 0, n)
				checkClose(t, fmt.Sprint("loss at ", side), fast.loss, slow.loss, 5e-14*slow.loss)
				for i := range n {
					checkClose(t, fmt.Sprint("residual at ", side), fast.residual[i], slow.residual[i], 1e-15*math.Abs(slow.residual[i])+1e-320)
					checkClose(t, fmt.Sprint("curve at ", side), fast.curve[i], slow.curve[i], 1e-15*slow.curve[i]+1e-320)
				}
			}
		}
	}
}

func TestExpDown(t *testing.T) {
	const seed = 72
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200_000 {
		x := r.Float64() * []float64{1e-8, 0.1, 3, 40, 708}[r.IntN(5)]
		got, want := expDown(x), Exp(-x)
		if d := math.Abs(got - want); !(d <= 2*(math.Nextafter(want, 2)-want)) {
			t.Fatalf("expDown(%v) = %v, Exp gives %v, seed %d", x, got, want, seed)
		}
	}
	for _, x := range []float64{0, 708, 708.5, 740, 745, 746, 1e300, math.Inf(1)} {
		checkClose(t, fmt.Sprint("expDown of ", x), expDown(x), Exp(-x), 4e-16*Exp(-x))
	}
	if v := expDown(math.NaN()); v == v {
		t.Errorf("expDown(NaN) = %v", v)
	}
}

// What the sampler keeps does not depend on whether it knew how many rows would come.
func TestSamplerKeepsEveryStride(t *testing.T) {
	s := generate(73, 3*blockRows+5, 2)
	for _, most := range []int{1, 7, 64, 1000, 4000} {
		told, untold := &sampler{most: most, stride: 1}, &sampler{most: most, stride: 1}
		told.expect(s.X.Rows)
		src := newMemory(Chunk{X: s.X, Y: s.y})
		rows, _ := src.pass()
		for b := (block{}); ; {
			ok, err := rows.next(&b, nil)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			told.add(&b, 2)
			untold.add(&b, 2)
		}
		if told.stride != untold.stride || !slices.Equal(told.room.dense, untold.room.dense) {
			t.Errorf("most %d: stride %d and %d", most, told.stride, untold.stride)
		}
		n := (s.X.Rows + told.stride - 1) / told.stride
		if len(told.room.y) != n || n > most || told.stride > 1 && 2*n+1 < most {
			t.Errorf("most %d: %d rows of stride %d, want %d", most, len(told.room.y), told.stride, n)
		}
		for i, y := range told.room.y {
			if y != s.y[i*told.stride] || told.room.dense[2*i] != s.X.Row(i * told.stride)[0] {
				t.Fatalf("most %d: row %d is not row %d", most, i, i*told.stride)
			}
		}
	}
}

func TestFitChunksRefuses(t *testing.T) {
	s := generate(74, 3000, 2)
	whole := Chunk{X: s.X, Y: s.y}
	list := func(cs ...Chunk) iter.Seq2[Chunk, error] {
		return func(yield func(Chunk, error) bool) {
			for _, c := range cs {
				if !yield(c, nil) {
					return
				}
			}
		}
	}
	broken := errors.New("disk on fire")
	passes := 0
	withNaN := Matrix{Rows: 3, Cols: 2, Data: []float64{1, 2, 3, 4, 5, math.NaN()}}
	for _, c := range []struct {
		name   string
		cols   int
		chunks iter.Seq2[Chunk, error]
		opts   Options
		text   string
	}{
		{"no chunk", 2, list(), Options{}, "lr: rows of X is 0, want at least 1"},
		{"no columns", 0, list(whole), Options{}, "lr: columns of X is 0, want at least 1"},
		{"other columns", 3, list(whole), Options{}, "columns of X is 2, want those of all chunks, 3"},
		{"two kinds", 2, list(whole, Chunk{Sparse: toSparse(s.X), Y: s.y}), Options{}, "chunk 1, from row 3000: lr: kinds of matrix in all chunks is 2"},
		{"short labels", 2, list(whole, Chunk{X: s.X, Y: s.y[1:]}), Options{}, "length of y is 2999, want one a row of X, 3000"},
		{"short weights", 2, list(Chunk{X: s.X, Y: s.y, Weights: s.y[1:]}), Options{}, "length of Weights is 2999"},
		{"short offsets", 2, list(Chunk{X: s.X, Y: s.y, Offsets: s.y[1:]}), Options{}, "length of Offsets is 2999"},
		{"weights twice", 2, list(whole), Options{Weights: s.y}, "length of Weights is 3000, want 0"},
		{"offsets twice", 2, list(whole), Options{Offsets: s.y}, "length of Offsets is 3000, want 0"},
		{"NaN", 2, list(whole, Chunk{X: withNaN, Y: []float64{0, 1, 0}}), Options{}, "lr: X row 3002 column 1 is NaN"},
		{"an error", 2, func(yield func(Chunk, error) bool) { _ = yield(whole, nil) && yield(Chunk{}, broken) }, Options{}, "read chunk 1: disk on fire"},
		{"an error later", 2, func(yield func(Chunk, error) bool) {
			if passes++; passes == 3 {
				yield(Chunk{}, broken)
				return
			}
			yield(whole, nil)
		}, Options{}, "lr: iteration 1: lr: read chunk 0: disk on fire"},
		{"fewer rows later", 2, func(yield func(Chunk, error) bool) {
			if passes++; passes == 5 {
				return
			}
			yield(whole, nil)
		}, Options{}, "rows of all chunks in a later pass is 0, want as in the first, 3000"},
	} {
		passes = 0
		got, err := FitChunks(t.Context(), c.cols, c.chunks, c.opts)
		if got != nil || err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v, want %q", c.name, got, err, c.text)
		}
		if strings.HasPrefix(c.name, "an error") && !errors.Is(err, broken) {
			t.Errorf("%s: %v does not wrap the cause", c.name, err)
		}
	}
	// Chunks stop being asked for when the context ends.
	ctx, cancel := context.WithCancel(t.Context())
	asked := 0
	_, err := FitChunks(ctx, 2, func(yield func(Chunk, error) bool) {
		for yield(whole, nil) {
			if asked++; asked == 3 {
				cancel()
			}
		}
	}, Options{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("endless chunks: %v", err)
	}
}

func TestFitSparseRefuses(t *testing.T) {
	y := []float64{0, 1, 0}
	good := func() Sparse {
		return Sparse{Rows: 3, Cols: 4, Ptr: []int{0, 2, 2, 4}, Index: []int32{0, 3, 1, 2}, Data: []float64{1, 2, 3, 4}}
	}
	if _, err := FitSparse(t.Context(), good(), y, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		make func(s *Sparse)
		text string
	}{
		{"no rows", func(s *Sparse) { s.Rows = 0 }, "lr: rows of X is 0, want at least 1"},
		{"no columns", func(s *Sparse) { s.Cols = 0 }, "lr: columns of X is 0, want at least 1"},
		{"columns beyond int32", func(s *Sparse) { s.Cols = math.MaxInt32; s.Cols++ }, "lr: columns of X is "},
		{"short Ptr", func(s *Sparse) { s.Ptr = s.Ptr[:3] }, "lr: length of X.Ptr is 3, want one more than the rows of X, 3"},
		{"rows overflow", func(s *Sparse) { s.Rows = math.MaxInt }, "lr: length of X.Ptr is 4"},
		{"short Data", func(s *Sparse) { s.Data = s.Data[:3] }, "lr: length of X.Data is 3, want that of X.Index, 4"},
		{"Ptr from 1", func(s *Sparse) { s.Ptr[0] = 1 }, "lr: X.Ptr[0] is 1, want 0"},
		{"Ptr too far", func(s *Sparse) { s.Ptr[3] = 5 }, "lr: the last of X.Ptr is 5, want the length of X.Index, 4"},
		{"Ptr falls", func(s *Sparse) { s.Ptr[1], s.Ptr[2] = 3, 1 }, "lr: X.Ptr[2] is 1, want at least the one before, 3"},
		{"column 4 of 4", func(s *Sparse) { s.Index[3] = 4 }, "lr: X.Index row 2 is 4, want ascending columns, each once, of 0 to 3"},
		{"negative column", func(s *Sparse) { s.Index[0] = -1 }, "lr: X.Index row 0 is -1"},
		{"column twice", func(s *Sparse) { s.Index[3] = 1 }, "lr: X.Index row 2 is 1"},
		{"NaN", func(s *Sparse) { s.Data[2] = math.NaN() }, "lr: X row 2 column 1 is NaN"},
	} {
		s := good()
		c.make(&s)
		if got, err := FitSparse(t.Context(), s, y, Options{}); got != nil || err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v, want %q", c.name, got, err, c.text)
		}
	}
}

// What is not written in a sparse column is 0, so ones only make no constant; ones in
// every row do.
func TestSparseLackOfRankIsNamed(t *testing.T) {
	s := generate(78, 300, 3)
	for _, c := range []struct {
		name string
		cell func(row []float64) float64
		want RankError
	}{
		{"twin", func(row []float64) float64 { return row[1] }, RankError{Column: 2}},
		{"constant", func([]float64) float64 { return 1 }, RankError{Column: 2, Constant: true}},
	} {
		for i := range s.X.Rows {
			row := s.X.Row(i)
			row[1] = float64(i % 2)
			row[2] = c.cell(row)
		}
		_, err := FitSparse(t.Context(), toSparse(s.X), s.y, Options{Penalty: None})
		var e *RankError
		if !errors.As(err, &e) || *e != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, &c.want)
		}
	}
}

// Many columns separate any labels; L-BFGS proves it too.
func TestLBFGSProvesSeparation(t *testing.T) {
	s := generate(75, 60, 40)
	for i := range s.y {
		s.y[i] = 0
		if s.X.Row(i)[0]+0.5*s.X.Row(i)[1] > 0.2 {
			s.y[i] = 1
		}
	}
	_, err := Fit(t.Context(), s.X, s.y, Options{Penalty: None, Solver: SolverLBFGS})
	var e *SeparationError
	if !errors.As(err, &e) || !e.Complete || e.Rows != 60 {
		t.Errorf("%v", err)
	}
}

func TestSparsePredictions(t *testing.T) {
	const seed = 76
	r := rand.New(rand.NewPCG(seed, 0))
	s := generate(seed, 53, 9)
	holes(r, s.X)
	m := Model{Intercept: 0.3, Weights: make([]float64, 9)}
	for j := range m.Weights {
		m.Weights[j] = r.NormFloat64() * 100
	}
	// Terms on both sides of quantise's short way, in each place of a group of four rows.
	for k, v := range []float64{2047, 2048, -2048, 2049, 4095, -3000.3, 70_000.3, -1e9, 1e300, math.Inf(1), math.NaN()} {
		m.Weights[k%9] = 1
		s.X.Row(4*k + k%4)[k%9] = v
	}
	X := toSparse(s.X)
	dense, sparse := make([]float64, 53), make([]float64, 53)
	m.Logits(dense, s.X)
	m.LogitsSparse(sparse, X)
	same := func(what string, i int, got, want float64) {
		t.Helper()
		if math.Float64bits(got) != math.Float64bits(want) && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("%s of row %d is %v, want %v", what, i, got, want)
		}
	}
	for i := range dense {
		want := m.Logit(s.X.Row(i))
		same("Logits", i, dense[i], want)
		same("LogitsSparse", i, sparse[i], want)
	}
	m.ProbsSparse(sparse, X)
	for i := range dense {
		same("ProbsSparse", i, sparse[i], Sigmoid(dense[i]))
	}
	// One term of any size among small ones: each half of the check on exponents is needed.
	one := Model{Weights: []float64{1}}
	group, got := Matrix{Rows: 4, Cols: 1, Data: make([]float64, 4)}, make([]float64, 4)
	for range 4000 {
		for i := range group.Data {
			group.Data[i] = r.Float64()
		}
		at := r.IntN(4)
		// Divided, since Float64 gives multiples of 2⁻⁵³, which need no rounding here.
		group.Data[at] = math.Ldexp((2*r.Float64()-1)/0.999, 10+r.IntN(9))
		one.Logits(got, group)
		for i := range got {
			same(fmt.Sprintf("Logits of %v", group.Data), i, got[i], one.Logit(group.Row(i)))
		}
	}
	for what, f := range map[string]func(){
		"Logits":       func() { m.Logits(dense, s.X) },
		"Probs":        func() { m.Probs(dense, s.X) },
		"LogitsSparse": func() { m.LogitsSparse(dense, X) },
		"ProbsSparse":  func() { m.ProbsSparse(dense, X) },
	} {
		if n := testing.AllocsPerRun(20, f); n != 0 {
			t.Errorf("%s allocates %v times", what, n)
		}
	}
}

// As TestSameBitsOnEveryCPU, for what came later.
func TestSolversSameBitsOnEveryCPU(t *testing.T) {
	s := generate(72, 5000, 13)
	large := generate(77, 132_000, 3)
	var numbers []float64
	add := func(r *Result, err error) {
		t.Helper()
		if err != nil || !r.Converged {
			t.Fatal(r, err)
		}
		numbers = append(append(numbers, r.Objective, r.GradientNorm, r.Decrement, r.Model.Intercept), r.Model.Weights...)
	}
	sums := map[string]uint64{}
	done := func(what string) {
		sums[what] = bits(numbers...)
		numbers = nil
	}
	add(Fit(t.Context(), s.X, s.y, Options{Solver: SolverLBFGS}))
	add(Fit(t.Context(), s.X, s.y, Options{Solver: SolverLBFGS, ClassWeights: [2]float64{1, 2}}))
	done("l-bfgs")
	add(Fit(t.Context(), large.X, large.y, Options{}))
	done("from a sample")
	add(Fit(t.Context(), s.X, s.y, Options{Penalty: L1, C: 0.02}))
	add(Fit(t.Context(), s.X, s.y, Options{Penalty: ElasticNet, L1Ratio: 0.5, C: 0.02, Solver: SolverLBFGS, Tolerance: 1e-6}))
	done("l1")
	add(FitSparse(t.Context(), toSparse(s.X), s.y, Options{}))
	add(FitSparse(t.Context(), toSparse(s.X), s.y, Options{Solver: SolverLBFGS}))
	done("sparse")
	for what, want := range map[string]uint64{
		"l-bfgs":        0xad4953a74a3f1612,
		"from a sample": 0xb15e5b5bfa95cbed,
		"l1":            0xfc7968c346a1b937,
		"sparse":        0xb6ed12fbccd288dc,
	} {
		if sums[what] != want {
			t.Errorf("%s: checksum %#016x, want %#016x", what, sums[what], want)
		}
	}
}
