package lr

import (
	"context"
	"fmt"
	"math"
	"runtime"
)

// Penalty says what keeps the weights small.
type Penalty int

const (
	// L2 adds ½ Σ Weights[j]² to the objective. It is the zero value.
	L2 Penalty = iota
	// None gives the maximum-likelihood estimate, which need not exist: see
	// [SeparationError] and [RankError].
	None
)

func (p Penalty) String() string {
	switch p {
	case L2:
		return "l2"
	case None:
		return "none"
	}
	return fmt.Sprintf("Penalty(%d)", int(p))
}

// Options are the settings of [Fit]. The zero value is an L2 penalty with C = 1
// and every row counted once.
type Options struct {
	Penalty Penalty

	// C is the weight of the data against the penalty, as in scikit-learn: the
	// larger, the weaker the penalty. 0 means 1; +Inf means the same as Penalty
	// None, with which C has no meaning and must be 0 or +Inf.
	C float64

	// Weights count the rows: a row of weight 2 is as good as the row twice, and
	// one of weight 0 as if it were absent. nil means 1 for all. They need not add
	// up to anything; a fit with C and weights w is a fit with C·k and w/k.
	Weights []float64

	// Start is where the search begins (nil: weights 0, and the intercept that
	// reproduces the share of positives). It changes the time, not the result,
	// within Tolerance. A start that is worse than the usual one is not used.
	Start *Model

	// Tolerance is how far from the optimum the result may be, in any direction,
	// as a share of that direction's standard error (the square root of the Newton
	// decrement; Boyd and Vandenberghe, Convex Optimization, 9.5.1). 0 means 1e-10.
	Tolerance float64

	// MaxIterations bounds the Newton steps. 0 means 100; five to ten are usual.
	MaxIterations int

	// Workers bounds the goroutines. 0 means GOMAXPROCS. The result has the same
	// bits for every number.
	Workers int
}

// Stop says why a fit ended.
type Stop int

const (
	// StopConverged: the optimum is reached within Options.Tolerance, or as near
	// as rounding lets the search come (within 1e-5 of a standard error).
	StopConverged Stop = iota
	// StopIterations: Options.MaxIterations steps did not suffice.
	StopIterations
	// StopStalled: no step along the Newton direction lowered the objective, which
	// happens when the columns' sizes or the sample weights differ so much that
	// the curvature drowns in rounding.
	StopStalled
)

func (s Stop) String() string {
	switch s {
	case StopConverged:
		return "converged"
	case StopIterations:
		return "iterations used up before the optimum was reached"
	case StopStalled:
		return "no further decrease: rounding drowns the curvature (rescale the columns, or strengthen the penalty)"
	}
	return fmt.Sprintf("Stop(%d)", int(s))
}

// Result is what [Fit] found.
type Result struct {
	Model Model

	// Converged is Stop == StopConverged. When false, Model is the best point seen,
	// not an optimum.
	Converged bool
	Stop      Stop

	// Objective is C Σ weight·logloss + ½ Σ Weights[j]² at Model, in nats; without
	// a penalty Σ weight·logloss, which is minus the log-likelihood.
	Objective float64
	// GradientNorm is the largest magnitude in the gradient of Objective by the
	// weights and the intercept, where each column is taken as its distance from
	// its mean (which leaves the gradient by the weights as it is at an optimum).
	GradientNorm float64
	// Decrement is what Options.Tolerance bounds: the distance from the optimum in
	// standard errors.
	Decrement float64

	Iterations int // Newton steps taken
	Passes     int // times the data was read
}

// maxCols bounds the dense Hessian, of which each worker holds one of 8·Cols² bytes.
const maxCols = 8192

// Fit finds the weights and intercept that minimise
//
//	C Σᵢ weightᵢ·logloss(yᵢ, Prob(xᵢ)) + ½ Σⱼ Weights[j]²
//
// over the rows of X (scikit-learn's LogisticRegression has the same objective).
// The intercept is not penalised. y has one label a row, 0 or 1.
//
// It uses Newton's method with exact second derivatives and a backtracking line
// search. Time grows with Rows·Cols² for each of five to ten steps, memory beyond X
// with 8·Cols² bytes for each worker and three times more, and with nothing else. Cols
// can be 8192 at most. The result has the same bits whatever the number of workers and
// whatever the CPU.
//
// The error is a [ShapeError], [ValueError], [OptionError] or [OneClassError] for
// input that cannot be fitted, a [SeparationError] or [RankError] where without a
// penalty no unique optimum exists, all as pointers, or wraps the cause of ctx's end.
// A search that ends without having converged is no error: see [Result.Stop].
// All goroutines have ended when Fit returns.
func Fit(ctx context.Context, X Matrix, y []float64, opts Options) (*Result, error) {
	f, err := newFitter(ctx, X, y, opts)
	if err != nil {
		return nil, err
	}
	return f.run(ctx)
}

// fitter is one fit. It works on columns shifted by their means, which leaves the
// objective as it is, since the intercept takes up the shift and is not penalised,
// and spares the Hessian the digits that large means would cost. So the
// parameters are a vector theta: the intercept of the shifted columns, the
// weights, and zeros (see padded).
type fitter struct {
	X       Matrix
	y       []float64
	weights []float64 // nil: all 1
	center  []float64 // shift of each column
	spread  []float64 // largest distance of a column from its shift

	alpha      float64 // weight of ½|w|² against the loss: 1/C, or 0
	scale      float64 // C, or 1 without penalty: Objective / (loss + alpha ½|w|²)
	tolerance  float64 // on the decrement of loss + alpha ½|w|², per root of mean row weight
	iterations int

	rows     int       // rows of positive weight
	meanRow  float64   // their mean weight
	cold     []float64 // theta of the constant model
	coldLoss float64   // its loss, which is also its objective
	warm     []float64 // theta of Options.Start, or nil

	workers []*worker
	passes  int
}

func newFitter(ctx context.Context, X Matrix, y []float64, opts Options) (*fitter, error) {
	if err := X.check(); err != nil {
		return nil, err
	}
	if X.Cols > maxCols {
		return nil, &ShapeError{What: "columns of X", Got: X.Cols, Want: fmt.Sprintf("at most %d", maxCols)}
	}
	if len(y) != X.Rows {
		return nil, &ShapeError{What: "length of y", Got: len(y), Want: fmt.Sprintf("one a row of X, %d", X.Rows)}
	}
	if opts.Weights != nil && len(opts.Weights) != X.Rows {
		return nil, &ShapeError{What: "length of Weights", Got: len(opts.Weights), Want: fmt.Sprintf("one a row of X, %d", X.Rows)}
	}
	f := &fitter{X: X, y: y, weights: opts.Weights}
	if err := f.setOptions(opts); err != nil {
		return nil, err
	}
	positive, negative, err := f.countLabels()
	if err != nil {
		return nil, err
	}
	n := opts.Workers
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	f.workers = newWorkers(n, X)
	if err := f.measureColumns(ctx); err != nil {
		return nil, err
	}
	return f, f.setStart(opts.Start, positive, negative)
}

func (f *fitter) setOptions(opts Options) error {
	switch opts.Penalty {
	case L2, None:
	default:
		return &OptionError{Option: "Penalty", Value: float64(opts.Penalty), Want: "L2 or None"}
	}
	switch c := opts.C; {
	case math.IsInf(c, 1) || opts.Penalty == None && c == 0:
		f.alpha, f.scale = 0, 1
	case opts.Penalty == None:
		return &OptionError{Option: "C", Value: c, Want: "0 or +Inf, since without a penalty it has no meaning"}
	case c == 0:
		f.alpha, f.scale = 1, 1
	case c >= 1e-100 && c <= 1e100:
		f.alpha, f.scale = 1/c, c
	default:
		return &OptionError{Option: "C", Value: c, Want: "between 1e-100 and 1e100, or +Inf for no penalty"}
	}
	switch t := opts.Tolerance; {
	case t == 0:
		f.tolerance = 1e-10
	case t > 0 && t < 1:
		f.tolerance = t
	default:
		return &OptionError{Option: "Tolerance", Value: t, Want: "above 0 and below 1"}
	}
	switch n := opts.MaxIterations; {
	case n == 0:
		f.iterations = 100
	case n > 0:
		f.iterations = n
	default:
		return &OptionError{Option: "MaxIterations", Value: float64(n), Want: "at least 0"}
	}
	if opts.Workers < 0 {
		return &OptionError{Option: "Workers", Value: float64(opts.Workers), Want: "at least 0"}
	}
	return nil
}

// countLabels checks labels and sample weights and returns the weight of each class.
func (f *fitter) countLabels() (positive, negative float64, err error) {
	rows, positives := 0, 0
	for i, label := range f.y {
		if label != 0 && label != 1 {
			return 0, 0, &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		w := 1.0
		if f.weights != nil {
			w = f.weights[i]
			if w != 0 && !(w >= smallest && w <= largest) {
				return 0, 0, &ValueError{What: "Weights", Row: i, Col: -1, Value: w,
					Want: fmt.Sprintf("0 or between %g and %g", smallest, largest)}
			}
			if w == 0 {
				continue
			}
		}
		rows++
		if label == 1 {
			positives++
			positive += w
		} else {
			negative += w
		}
	}
	switch {
	case rows == 0:
		return 0, 0, &OptionError{Option: "Weights", Value: 0, Want: "at least one row of weight above 0"}
	case positives == 0:
		return 0, 0, &OneClassError{Class: 0, N: rows}
	case positives == rows:
		return 0, 0, &OneClassError{Class: 1, N: rows}
	}
	f.rows = rows
	f.meanRow = (positive + negative) / float64(rows)
	return positive, negative, nil
}

// setStart prepares the first theta: that of the constant model, whose loss needs
// no pass over the data, and that of the given model.
func (f *fitter) setStart(given *Model, positive, negative float64) error {
	f.cold = make([]float64, padded(f.X.Cols))
	f.cold[0] = Log(positive) - Log(negative)
	f.coldLoss = float64(positive*softplus(-f.cold[0])) + float64(negative*softplus(f.cold[0]))
	if given == nil {
		return nil
	}
	if len(given.Weights) != f.X.Cols {
		return &ShapeError{What: "length of Start.Weights", Got: len(given.Weights), Want: fmt.Sprintf("one a column of X, %d", f.X.Cols)}
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
	m := Model{Intercept: theta[0], Weights: append([]float64(nil), theta[1:f.X.Cols+1]...)}
	for j, v := range m.Weights {
		m.Intercept -= float64(v * f.center[j])
	}
	return m
}
