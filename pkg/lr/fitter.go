package lr

import (
	"context"
	"fmt"
	"math"
	"runtime"
)

// fitter is one fit. It works on dense columns shifted by their means, which leaves the
// objective as it is, since the intercept takes up the shift and is not penalised,
// and spares the Hessian the digits that large means would cost. So the
// parameters are a vector theta: the intercept of the shifted columns, the
// weights, and zeros (see padded).
type fitter struct {
	source source
	cols   int
	sparse bool

	class   [2]float64 // weights of the classes
	classed bool       // they are not both 1
	offset  bool       // rows have offsets

	center []float64 // shift of each column; of sparse ones 0
	spread []float64 // largest distance of a column from its shift
	width  []float64 // largest less smallest number in a column

	alpha      float64 // weight of ½|w|² against the loss: 1/C, a share of it, or 0
	lambda     float64 // weight of Σ|w| against the loss: the same
	scale      float64 // C, or 1 without penalty: Objective / (loss + penalty)
	tolerance  float64 // on the decrement of loss + penalty, per root of mean row weight
	iterations int     // 0: what the solver finds usual
	solver     Solver
	progress   func(Progress)

	rows     int        // of positive weight
	all      int        // of any
	minority int        // rows of positive weight of the rarer class
	total    [2]float64 // weight of the rows of each class
	meanRow  float64    // mean weight of the rows of positive weight
	cold     []float64  // theta of the constant model
	coldLoss float64    // its loss, which is also its objective; NaN with offsets
	warm     []float64  // theta of Options.Start, or nil
	sample   *sampler   // nil where none is wanted

	goroutines int
	workers    []*worker // at least as many
	passes     int
}

func newFitter(ctx context.Context, rows source, cols int, opts Options) (*fitter, error) {
	f := &fitter{source: rows, cols: cols}
	if err := f.setOptions(opts); err != nil {
		return nil, err
	}
	n := opts.Workers
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	if m, ok := rows.(*memory); ok {
		n = min(n, (m.rows()+m.unit-1)/m.unit)
		switch {
		case f.sample == nil:
		case m.isSparse() || !f.sample.expect(m.rows()):
			f.sample = nil
		default:
			f.sample.reserve(m.X)
		}
	}
	f.goroutines = n
	if rows, ok := rows.(*memory); ok && cols <= aheadCols {
		n = max(n, min(ahead*n, (rows.rows()+rows.unit-1)/rows.unit))
	}
	f.workers = make([]*worker, n)
	for i := range f.workers {
		f.workers[i] = &worker{}
	}
	if err := f.measureColumns(ctx); err != nil {
		return nil, err
	}
	if err := f.choose(); err != nil {
		return nil, err
	}
	return f, f.setStart(opts.Start)
}

func (f *fitter) setOptions(opts Options) error {
	ratio := 0.0
	switch opts.Penalty {
	case L2, None:
	case L1:
		ratio = 1
	case ElasticNet:
		ratio = opts.L1Ratio
		if !(ratio > 0 && ratio < 1) {
			return &OptionError{Option: "L1Ratio", Value: ratio, Want: "above 0 and below 1"}
		}
	default:
		return &OptionError{Option: "Penalty", Value: float64(opts.Penalty), Want: "L2, None, L1 or ElasticNet"}
	}
	if opts.Penalty != ElasticNet && opts.L1Ratio != 0 {
		return &OptionError{Option: "L1Ratio", Value: opts.L1Ratio, Want: "0 unless Penalty is ElasticNet"}
	}
	strength := 1.0
	switch c := opts.C; {
	case math.IsInf(c, 1) || opts.Penalty == None && c == 0:
		strength, f.scale = 0, 1
	case opts.Penalty == None:
		return &OptionError{Option: "C", Value: c, Want: "0 or +Inf, since without a penalty it has no meaning"}
	case c == 0:
		f.scale = 1
	case c >= 1e-100 && c <= 1e100:
		strength, f.scale = 1/c, c
	default:
		return &OptionError{Option: "C", Value: c, Want: "between 1e-100 and 1e100, or +Inf for no penalty"}
	}
	f.alpha, f.lambda = float64(strength*(1-ratio)), float64(strength*ratio)
	f.class = opts.ClassWeights
	if f.class == [2]float64{} {
		f.class = [2]float64{1, 1}
	}
	f.classed = f.class != [2]float64{1, 1}
	for k, w := range f.class {
		if !(w >= 1e-30 && w <= 1e30) {
			return &ValueError{What: fmt.Sprintf("ClassWeights[%d]", k), Row: -1, Col: -1, Value: w, Want: "between 1e-30 and 1e30"}
		}
	}
	switch opts.Solver {
	case SolverAuto, SolverNewton, SolverLBFGS:
		f.solver = opts.Solver
	default:
		return &OptionError{Option: "Solver", Value: float64(opts.Solver), Want: "SolverAuto, SolverNewton or SolverLBFGS"}
	}
	switch t := opts.Tolerance; {
	case t == 0:
		f.tolerance = 1e-10
	case t > 0 && t < 1:
		f.tolerance = t
	default:
		return &OptionError{Option: "Tolerance", Value: t, Want: "above 0 and below 1"}
	}
	if opts.MaxIterations < 0 {
		return &OptionError{Option: "MaxIterations", Value: float64(opts.MaxIterations), Want: "at least 0"}
	}
	f.iterations = opts.MaxIterations
	if opts.Workers < 0 {
		return &OptionError{Option: "Workers", Value: float64(opts.Workers), Want: "at least 0"}
	}
	f.progress = opts.Progress
	if f.alpha > 0 && f.lambda == 0 && f.solver != SolverNewton && f.cols <= sampleCols {
		f.sample = newSampler(f.cols)
	}
	return nil
}

// choose settles the solver once the number of rows is known.
func (f *fitter) choose() error {
	if f.solver == SolverNewton && f.cols > maxCols {
		return &ShapeError{What: "columns of X for SolverNewton", Got: f.cols, Want: fmt.Sprintf("at most %d", maxCols)}
	}
	return nil
}

// newtonFirst tells whether SolverAuto begins with Newton's method.
func (f *fitter) newtonFirst() bool {
	d := float64(f.cols)
	work := float64(float64(f.all)*d) * d
	switch {
	case f.alpha == 0 && f.lambda == 0:
		// Only Newton's method proves separation and lack of rank.
		return !f.sparse && f.cols <= maxCols || f.cols <= 2048
	case f.sparse:
		return f.cols <= 128 && f.all < 50_000
	case f.lambda > 0:
		return f.cols <= 128 || f.cols <= 1024 && work < 2e10
	case f.cols <= sampleCols:
		return !f.sample.worthwhile(f)
	default:
		return f.cols <= maxCols && work < 4e9
	}
}

// run chooses the solver.
func (f *fitter) run(ctx context.Context) (*Result, error) {
	switch {
	case f.solver == SolverNewton, f.solver == SolverAuto && f.newtonFirst():
		return f.newton(ctx)
	case f.solver == SolverAuto && f.cols <= sampleCols && (!f.sparse || f.cols <= 128):
		r, theta, err := f.lbfgs(ctx, patience)
		if err != nil || r.Converged {
			return r, err
		}
		f.warm = theta
		return f.newton(ctx)
	}
	r, _, err := f.lbfgs(ctx, f.limit(2000))
	return r, err
}

// limit is the number of steps allowed.
func (f *fitter) limit(usual int) int {
	if f.iterations > 0 {
		return f.iterations
	}
	return usual
}

// setStart prepares the first theta: that of the constant model, whose loss needs
// no pass over the data unless there are offsets, and that of the given model.
func (f *fitter) setStart(given *Model) error {
	f.cold = make([]float64, padded(f.cols))
	negative, positive := f.total[0], f.total[1]
	f.cold[0] = Log(positive) - Log(negative)
	f.coldLoss = float64(positive*softplus(-f.cold[0])) + float64(negative*softplus(f.cold[0]))
	if f.offset {
		f.coldLoss = math.NaN()
	}
	if given == nil {
		return nil
	}
	if len(given.Weights) != f.cols {
		return &ShapeError{What: "length of Start.Weights", Got: len(given.Weights), Want: fmt.Sprintf("one a column of X, %d", f.cols)}
	}
	want := fmt.Sprintf("finite and at most %g in magnitude", largest)
	if v := given.Intercept; !(math.Abs(v) <= largest) {
		return &ValueError{What: "Start.Intercept", Row: -1, Col: -1, Value: v, Want: want}
	}
	f.warm = make([]float64, len(f.cold))
	f.warm[0] = given.Intercept
	for j, v := range given.Weights {
		if !(math.Abs(v) <= largest) {
			return &ValueError{What: "Start.Weights", Row: -1, Col: j, Value: v, Want: want}
		}
		f.warm[j+1] = v
		f.warm[0] += float64(v * f.center[j])
	}
	return nil
}

// model turns theta back into a model of the columns as they were given.
func (f *fitter) model(theta []float64) Model {
	m := Model{Intercept: theta[0], Weights: append([]float64(nil), theta[1:f.cols+1]...)}
	for j, v := range m.Weights {
		m.Intercept -= float64(v * f.center[j])
	}
	return m
}

// report calls back after a step.
func (f *fitter) report(solver Solver, iteration int, objective, decrement float64) {
	if f.progress != nil {
		f.progress(Progress{Solver: solver, Iteration: iteration, Passes: f.passes,
			Objective: float64(f.scale * objective), Decrement: decrement})
	}
}

// penalise adds the penalty and its derivatives, the L1 part to the objective only.
func (f *fitter) penalise(e *evaluation) {
	p := len(e.theta)
	size := 0.0
	for j := 1; j <= f.cols; j++ {
		w := e.theta[j]
		e.objective += float64(float64(0.5*f.alpha*w) * w)
		e.gradient[j] += float64(f.alpha * w)
		if e.hessian != nil {
			e.hessian[j*p+j] += f.alpha
		}
		if e.diagonal != nil {
			e.diagonal[j] += f.alpha
		}
		size += math.Abs(w)
	}
	e.objective += float64(f.lambda * size)
}

// steepest is the gradient of the objective by parameter j, and with an L1 part the
// subgradient of least magnitude.
func (f *fitter) steepest(e *evaluation, j int) float64 {
	g := e.gradient[j]
	if j == 0 || f.lambda == 0 {
		return g
	}
	switch w := e.theta[j]; {
	case w > 0:
		return g + f.lambda
	case w < 0:
		return g - f.lambda
	case g > f.lambda:
		return g - f.lambda
	case g < -f.lambda:
		return g + f.lambda
	}
	return 0
}

// result describes the end of a search at e.
func (f *fitter) result(solver Solver, e *evaluation, stop Stop, decrement float64, iterations int) *Result {
	r := &Result{
		Model:      f.model(e.theta),
		Converged:  stop == StopConverged,
		Stop:       stop,
		Solver:     solver,
		Objective:  float64(f.scale * e.objective),
		Decrement:  decrement,
		Rows:       f.rows,
		Iterations: iterations,
		Passes:     f.passes,
	}
	for j := range f.cols + 1 {
		r.GradientNorm = max(r.GradientNorm, math.Abs(f.steepest(e, j)))
	}
	r.GradientNorm *= f.scale
	return r
}
