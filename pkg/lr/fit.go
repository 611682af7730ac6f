package lr

import (
	"context"
	"fmt"
	"iter"
)

// Penalty says what keeps the weights small.
type Penalty int

const (
	// L2 adds ½ Σ Weights[j]² to the objective. It is the zero value.
	L2 Penalty = iota
	// None gives the maximum-likelihood estimate, which need not exist: see
	// [SeparationError] and [RankError].
	None
	// L1 adds Σ |Weights[j]|, which makes weights exactly 0 that gain less than they
	// cost.
	L1
	// ElasticNet adds L1Ratio Σ |Weights[j]| + ½ (1-L1Ratio) Σ Weights[j]².
	ElasticNet
)

func (p Penalty) String() string {
	switch p {
	case L2:
		return "l2"
	case None:
		return "none"
	case L1:
		return "l1"
	case ElasticNet:
		return "elastic net"
	}
	return fmt.Sprintf("Penalty(%d)", int(p))
}

// Solver is a way to find the optimum. All find the same one, within Tolerance.
type Solver int

const (
	// SolverAuto takes [SolverNewton] where its cost is small or, without a penalty,
	// its proofs are needed, and [SolverLBFGS] for many rows or many columns. It goes
	// over to Newton if L-BFGS is slow to converge and the columns are few.
	SolverAuto Solver = iota
	// SolverNewton uses exact second derivatives in each of five to ten steps, with a
	// line search. With an L1 part each step is found by coordinate descent on the
	// quadratic model (Friedman, Hastie and Tibshirani, J. Stat. Software 33, 2010;
	// Lee, Sun and Saunders, SIAM J. Optim. 24, 2014). Time grows with Rows·Cols² a
	// step, memory with 16·Cols² bytes a worker and a few times more.
	SolverNewton
	// SolverLBFGS needs gradients only (Nocedal and Wright, Numerical Optimization,
	// 7.2). It begins at the optimum of a sample of the rows and with that optimum's
	// second derivatives, where the columns are dense and at most 512 and the penalty is L2,
	// and else with the diagonal of the second derivatives. With an L1 part it is OWL-QN
	// (Andrew and Gao, ICML 2007). Time grows with the numbers in X a step, memory with
	// 200·Cols bytes, and in [FitChunks] the sample, of at most 65536 rows and an eighth of all.
	SolverLBFGS
)

func (s Solver) String() string {
	switch s {
	case SolverAuto:
		return "auto"
	case SolverNewton:
		return "newton"
	case SolverLBFGS:
		return "l-bfgs"
	}
	return fmt.Sprintf("Solver(%d)", int(s))
}

// Progress is the state of a search after a step.
type Progress struct {
	Solver    Solver
	Iteration int     // steps taken, of this solver
	Passes    int     // times the data was read
	Objective float64 // see [Result]
	Decrement float64 // distance from the optimum in standard errors, as last known
}

// Options are the settings of [Fit]. The zero value is an L2 penalty with C = 1
// and every row counted once.
type Options struct {
	Penalty Penalty

	// C is the weight of the data against the penalty, as in scikit-learn: the
	// larger, the weaker the penalty. 0 means 1; +Inf means the same as Penalty
	// None, with which C has no meaning and must be 0 or +Inf.
	C float64

	// L1Ratio is the share of L1 in an ElasticNet, above 0 and below 1. With another
	// Penalty it has no meaning and must be 0.
	L1Ratio float64

	// Weights count the rows: a row of weight 2 is as good as the row twice, and
	// one of weight 0 as if it were absent. nil means 1 for all. They need not add
	// up to anything; a fit with C and weights w is a fit with C·k and w/k. For
	// [FitChunks] they come with the chunks, and this must be nil.
	Weights []float64

	// ClassWeights multiply the weights of the rows of label 0 and of label 1. The
	// zero value means 1 for both; [BalancedWeights] gives both classes the same say.
	ClassWeights [2]float64

	// Offsets are added to the rows' logits and are no part of the model: what is known
	// beforehand, such as the log-odds of another model, or the log of the rate at which
	// a row's class was sampled. nil means 0 for all. For [FitChunks] they come with the
	// chunks, and this must be nil.
	Offsets []float64

	// Solver names the way to the optimum; the zero value chooses.
	Solver Solver

	// Start is where the search begins (nil: weights 0, and the intercept that
	// reproduces the share of positives). It changes the time, not the result,
	// within Tolerance. A start that is worse than the usual one is not used.
	Start *Model

	// Tolerance is how far from the optimum the result may be, in any direction,
	// as a share of that direction's standard error (the square root of the Newton
	// decrement; Boyd and Vandenberghe, Convex Optimization, 9.5.1). 0 means 1e-10;
	// at 1e-2 a weight has as many digits as its standard error leaves it. With
	// SolverLBFGS the curvature is an estimate, and so is the distance.
	Tolerance float64

	// MaxIterations bounds the steps of a solver. 0 means 100 for SolverNewton, of which
	// five to ten are usual, and 2000 for SolverLBFGS.
	MaxIterations int

	// Workers bounds the goroutines. 0 means GOMAXPROCS. The result has the same
	// bits for every number.
	Workers int

	// Progress, if not nil, is called after each step, on the goroutine that called
	// Fit.
	Progress func(Progress)
}

// BalancedWeights returns class weights with which both classes weigh half of the rows'
// weight (scikit-learn's class_weight "balanced"): n/(2 n₀) and n/(2 n₁). weights nil
// means 1 for each row. Of a class that has no weight the number is +Inf, which [Fit]
// refuses.
func BalancedWeights(y, weights []float64) [2]float64 {
	var sum [2]float64
	for i, label := range y {
		w := 1.0
		if weights != nil {
			w = weights[i]
		}
		if label == 1 {
			sum[1] += w
		} else {
			sum[0] += w
		}
	}
	half := (sum[0] + sum[1]) / 2
	return [2]float64{half / sum[0], half / sum[1]}
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
	Solver    Solver // the one that ended the search

	// Objective is C Σ weight·logloss + penalty at Model, in nats; without a penalty
	// Σ weight·logloss, which is minus the log-likelihood.
	Objective float64
	// GradientNorm is the largest magnitude in the gradient of Objective by the
	// weights and the intercept, where each dense column is taken as its distance from
	// its mean (which leaves the gradient by the weights as it is at an optimum). With
	// an L1 part it is the least of the subgradients, which is 0 at an optimum: the
	// residual of the Karush-Kuhn-Tucker conditions.
	GradientNorm float64
	// Decrement is what Options.Tolerance bounds: the distance from the optimum in
	// standard errors.
	Decrement float64

	Rows       int // rows of weight above 0
	Iterations int // steps taken by Solver
	Passes     int // times the data was read
}

// maxCols bounds the dense Hessian, of which each worker holds one or two of 8·Cols² bytes.
const maxCols = 8192

// Fit finds the weights and intercept that minimise
//
//	C Σᵢ weightᵢ·logloss(yᵢ, Sigmoid(offsetᵢ + Logit(xᵢ))) + penalty
//
// over the rows of X, where the penalty is ½ Σⱼ Weights[j]² or as [Options] say
// (scikit-learn's LogisticRegression has the same objective). The intercept is not
// penalised. y has one label a row, 0 or 1.
//
// The result has the same bits whatever the number of workers and whatever the CPU.
// Memory beyond X stays below a tenth of it where X has many more rows than columns;
// see [Solver].
//
// The error is a [ShapeError], [ValueError], [OptionError] or [OneClassError] for
// input that cannot be fitted, a [SeparationError] or [RankError] where without a
// penalty no unique optimum exists, all as pointers, or wraps the cause of ctx's end.
// A search that ends without having converged is no error: see [Result].Stop.
// All goroutines have ended when Fit returns.
func Fit(ctx context.Context, X Matrix, y []float64, opts Options) (*Result, error) {
	if err := X.check(); err != nil {
		return nil, err
	}
	return fitMemory(ctx, Chunk{X: X, Y: y, Weights: opts.Weights, Offsets: opts.Offsets}, X.Cols, opts)
}

// FitSparse is [Fit] for a sparse X. Columns are not shifted, so large means cost
// digits, and blocks of rows are larger: its result has the bits of a dense fit only
// up to rounding.
func FitSparse(ctx context.Context, X Sparse, y []float64, opts Options) (*Result, error) {
	if err := X.check(); err != nil {
		return nil, err
	}
	return fitMemory(ctx, Chunk{Sparse: X, Y: y, Weights: opts.Weights, Offsets: opts.Offsets}, X.Cols, opts)
}

func fitMemory(ctx context.Context, c Chunk, cols int, opts Options) (*Result, error) {
	if err := c.check(cols, c.isSparse()); err != nil {
		return nil, err
	}
	return fit(ctx, newMemory(c), cols, opts)
}

// FitChunks is [Fit] or [FitSparse] for rows that come in chunks of cols columns, such
// as from a file that is larger than memory. chunks is read once for each of
// [Result].Passes and must give the same rows in the same order each time; a chunk must
// stay as it is until the next is asked for. The result has the same bits as that of
// all rows in one matrix, wherever the chunks are cut.
//
// Beside a chunk it holds the rows of one block for each worker (1024 dense rows, or
// 4096 sparse ones and at least as many as columns), and what the [Solver] needs. An
// error from chunks ends the fit and is returned, wrapped.
func FitChunks(ctx context.Context, cols int, chunks iter.Seq2[Chunk, error], opts Options) (*Result, error) {
	switch {
	case cols < 1:
		return nil, &ShapeError{What: "columns of X", Got: cols, Want: "at least 1"}
	case opts.Weights != nil:
		return nil, &ShapeError{What: "length of Weights", Got: len(opts.Weights), Want: "0, for the chunks have them"}
	case opts.Offsets != nil:
		return nil, &ShapeError{What: "length of Offsets", Got: len(opts.Offsets), Want: "0, for the chunks have them"}
	}
	return fit(ctx, &stream{chunks: chunks, cols: cols}, cols, opts)
}

func fit(ctx context.Context, rows source, cols int, opts Options) (*Result, error) {
	f, err := newFitter(ctx, rows, cols, opts)
	if err != nil {
		return nil, err
	}
	return f.run(ctx)
}
