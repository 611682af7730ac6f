package lr

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// Inference is what the rows say about how far the weights of a model can be trusted.
// Parameters are counted from the intercept, which is parameter 0; column j is parameter
// j+1.
type Inference struct {
	N          int     `json:"n"`          // rows of weight above 0
	Positives  int     `json:"positives"`  // of them
	Weight     float64 `json:"weight"`     // of the N rows together
	Parameters int     `json:"parameters"` // columns and the intercept

	// DF is how many parameters the fit is worth: Parameters without a penalty, and with
	// one the trace of H⁻¹F, which is less (Gray, Journal of the American Statistical
	// Association 87, 1992).
	DF        float64 `json:"df"`
	Penalised bool    `json:"penalised"`

	Deviance     float64 `json:"deviance"`      // -2·log-likelihood, in nats
	NullDeviance float64 `json:"null_deviance"` // that of the model with an intercept only, and the offsets
	AIC          float64 `json:"aic"`           // Deviance + 2·DF (Akaike); 0 beside a Lack
	BIC          float64 `json:"bic"`           // Deviance + DF·ln Weight (Schwarz); 0 beside a Lack

	// Terms are the intercept and then the columns, and Covariance the matrix, with one
	// row and column for each of them, of the estimates' covariances. Beside a Lack they are
	// empty.
	Terms      []Term  `json:"terms"`
	Covariance Matrix  `json:"-"`
	Level      float64 `json:"level"` // of the intervals in Terms

	// Condition is the square root of the ratio of the largest to the smallest eigenvalue of
	// the correlations of the columns, as the fit sees them (each row counted by its
	// weight·p(1-p)): 1 if none are correlated, +∞ if one is a combination of others, which
	// is written as 0 and a warning. It does not depend on the columns' units.
	Condition float64 `json:"condition"`

	Lack     Lack      `json:"lack"` // LackRows or LackInformation
	Warnings []Warning `json:"warnings"`
}

// Term is one parameter.
type Term struct {
	Estimate float64 `json:"estimate"`
	SE       float64 `json:"se"`   // standard error
	Z        float64 `json:"z"`    // Estimate/SE
	P        float64 `json:"p"`    // probability of a |Z| at least as large if the parameter were 0 (Wald)
	Low      float64 `json:"low"`  // Estimate - z·SE
	High     float64 `json:"high"` // Estimate + z·SE

	// VIF is by how much the column's correlation with others inflates the variance of its
	// weight: 1 at best (Marquardt, Technometrics 12, 1970; for this model Fox and Monette, Journal
	// of the American Statistical Association 87, 1992). 0 for the intercept, and where
	// Condition is 0.
	VIF float64 `json:"vif"`
}

// WarningKind says what to be careful with.
type WarningKind int

const (
	// WarnNotOptimum: the model is not the optimum of these rows and options, by Value
	// standard errors, so that none of the figures is what it is called.
	WarnNotOptimum WarningKind = iota
	// WarnPenalised: a penalty has drawn the estimates towards 0, so that the intervals,
	// which know of variance only, are not centred on the truth.
	WarnPenalised
	// WarnFewEvents: Value, which is less than 10, rows of the rarer label for each column:
	// estimates are biased away from 0 and intervals too short (Peduzzi and others, Journal of
	// Clinical Epidemiology 49, 1996).
	WarnFewEvents
	// WarnCondition: a Condition of Value, above 30 (Belsley, Kuh and Welsch, Regression
	// Diagnostics, 1980, 3.2), or 0 for infinity.
	WarnCondition
	// WarnVIF: Column has a VIF of Value, above 10 (Marquardt).
	WarnVIF
)

// Warning is a doubt about an [Inference].
type Warning struct {
	Kind   WarningKind `json:"kind"`
	Column int         `json:"column"` // -1 if it concerns no single column
	Value  float64     `json:"value"`
}

func (w Warning) String() string {
	switch w.Kind {
	case WarnNotOptimum:
		return fmt.Sprintf("the model is %.3g standard errors away from the optimum of these rows", w.Value)
	case WarnPenalised:
		return "the penalty biases the estimates towards 0, which the intervals do not contain"
	case WarnFewEvents:
		return fmt.Sprintf("only %.3g rows of the rarer label for each column, want 10", w.Value)
	case WarnCondition:
		if w.Value == 0 {
			return "columns are combinations of others"
		}
		return fmt.Sprintf("the columns' condition number is %.3g: some are nearly combinations of others", w.Value)
	case WarnVIF:
		return fmt.Sprintf("column %d: correlation with others multiplies its weight's variance by %.3g", w.Column, w.Value)
	}
	return fmt.Sprintf("Warning(%d)", int(w.Kind))
}

const (
	optimumDecrement = 1e-3 // standard errors
	enoughEvents     = 10
	highCondition    = 30
	highVIF          = 10
)

// Infer computes standard errors and what follows from them for a model that [Fit] found
// for these rows with these options, from the information matrix F = XᵀVX, where X has
// a column of ones and V = diag(weightᵢ pᵢ(1-pᵢ)) (McCullagh and Nelder, Generalized Linear
// Models, 2.5 and 4.4). The covariance of the estimates is F⁻¹ without a penalty. With one it
// is H⁻¹FH⁻¹, H = F + 1/C on the diagonal of the weights.
//
// Sample weights count rows: with weight 2 throughout, standard errors are smaller by √2.
// If weights correct for how rows were drawn they must be scaled to mean 1 before, and
// even then these standard errors are too small.
//
// level is that of the confidence intervals, such as 0.95. Of opts, Penalty (None
// or L2), C, Weights, ClassWeights and Offsets count. It works on one goroutine; time grows with Rows·Cols² and Cols³,
// memory with 40·Cols² bytes. Errors are as those of Fit, but for separation and lack of rank:
// rows that do not suffice are a [Lack].
func Infer(ctx context.Context, X Matrix, y []float64, m Model, opts Options, level float64) (*Inference, error) {
	if err := checkLevel(level); err != nil {
		return nil, err
	}
	alpha, err := ridge(opts)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if len(m.Weights) != X.Cols {
		return nil, &ShapeError{What: "length of the model's Weights", Got: len(m.Weights), Want: fmt.Sprintf("one a column of X, %d", X.Cols)}
	}
	if X.Cols > maxCols {
		return nil, &ShapeError{What: "columns of X", Got: X.Cols, Want: fmt.Sprintf("at most %d", maxCols)}
	}
	in, err := informationAt(ctx, X, y, m, opts)
	if err != nil {
		return nil, err
	}
	inf := &Inference{
		N: in.rows, Positives: in.positives, Weight: in.weight, Parameters: X.Cols + 1,
		Penalised: alpha > 0, Level: level,
		Deviance: 2 * in.loss, NullDeviance: 2 * in.null(y, opts),
	}
	if few := float64(min(inf.Positives, inf.N-inf.Positives)) / float64(X.Cols); few < enoughEvents {
		inf.warn(WarnFewEvents, -1, few)
	}
	if inf.Penalised {
		inf.warn(WarnPenalised, -1, 0)
	}
	inf.estimate(in, m, alpha)
	return inf, nil
}

// ridge returns the weight of ½|w|² against the loss.
func ridge(opts Options) (alpha float64, err error) {
	switch c := opts.C; {
	case opts.Penalty == None && (c == 0 || math.IsInf(c, 1)) || opts.Penalty == L2 && math.IsInf(c, 1):
		return 0, nil
	case opts.Penalty != L2:
		return 0, &OptionError{Option: "Penalty", Value: float64(opts.Penalty), Want: "None with C 0, or L2"}
	case c == 0:
		return 1, nil
	case c >= 1e-100 && c <= 1e100:
		return 1 / c, nil
	default:
		return 0, &OptionError{Option: "C", Value: c, Want: "between 1e-100 and 1e100, or +Inf for no penalty"}
	}
}

func (inf *Inference) warn(kind WarningKind, column int, value float64) {
	inf.Warnings = append(inf.Warnings, Warning{Kind: kind, Column: column, Value: value})
}

// estimate fills in what needs the inverse of the Hessian, if it has one.
func (inf *Inference) estimate(in *information, m Model, alpha float64) {
	n := inf.Parameters
	if !inf.Penalised && inf.N <= n {
		inf.Lack = LackRows
		return
	}
	hessian, gradient := slices.Clone(in.fisher), slices.Clone(in.gradient)
	for j, w := range m.Weights {
		hessian[(j+1)*n+j+1] += alpha
		gradient[j+1] += float64(alpha * w)
	}
	chol := newCholesky(n, n)
	if chol.decompose(hessian, 0, rankFloor) >= 0 {
		inf.Lack = LackInformation
		return
	}
	inverse := chol.inverse()
	step := make([]float64, n)
	chol.solve(step, gradient)
	if away := math.Sqrt(max(dot(step, gradient), 0) / (in.weight / float64(in.rows))); away > optimumDecrement {
		inf.warn(WarnNotOptimum, -1, away)
	}
	inf.DF = float64(n)
	if inf.Penalised {
		for j := 1; j < n; j++ {
			inf.DF -= float64(alpha * inverse[j*n+j])
		}
		inverse = sandwich(inverse, n, alpha)
	}
	inf.AIC = inf.Deviance + 2*inf.DF
	inf.BIC = inf.Deviance + float64(inf.DF*Log(inf.Weight))
	uncenter(inverse, n, in.center)
	inf.Covariance = Matrix{Rows: n, Cols: n, Data: inverse}

	vif := inf.collinearity(in.fisher)
	z := quantile(inf.Level)
	inf.Terms = make([]Term, n)
	for j := range inf.Terms {
		t := Term{Estimate: m.Intercept, SE: math.Sqrt(inverse[j*n+j])}
		if j > 0 {
			t.Estimate, t.VIF = m.Weights[j-1], vif[j-1]
			if t.VIF > highVIF {
				inf.warn(WarnVIF, j-1, t.VIF)
			}
		}
		t.Z = t.Estimate / t.SE
		t.P = twoSided(t.Z)
		half := float64(z * t.SE)
		t.Low, t.High = t.Estimate-half, t.Estimate+half
		inf.Terms[j] = t
	}
}

// sandwich returns H⁻¹FH⁻¹ = H⁻¹ - alpha H⁻¹DH⁻¹ for the inverse of H = F + alpha·D, where
// D is 1 on the diagonal of the weights.
func sandwich(inverse []float64, n int, alpha float64) []float64 {
	out := make([]float64, n*n)
	for i := range n {
		for j := range i + 1 {
			v := inverse[i*n+j] - float64(alpha*dot(inverse[i*n+1:i*n+n], inverse[j*n+1:j*n+n]))
			out[i*n+j], out[j*n+i] = v, v
		}
	}
	return out
}

// uncenter turns the covariance of the parameters of shifted columns into that of the
// columns as they were given, whose intercept is less by Σ weightⱼ·centerⱼ.
func uncenter(cov []float64, n int, center []float64) {
	for j := range n {
		cov[j] -= dot(center, cov[j*n+1:j*n+n]) // row 0: the intercept's with parameter j
	}
	// Now row 0 is right but for its first, and column 0 is as it was.
	first := cov[0]
	for j := 1; j < n; j++ {
		first -= float64(center[j-1] * cov[j])
		cov[j*n] = cov[j]
	}
	cov[0] = first
}

// collinearity sets Condition and returns the columns' variance inflation factors: the
// diagonal of the inverse of their correlations.
func (inf *Inference) collinearity(fisher []float64) (vif []float64) {
	n, d := inf.Parameters, inf.Parameters-1
	vif = make([]float64, d)
	spread := make([]float64, d)
	r := make([]float64, d*d)
	at := func(i, j int) float64 { return fisher[i*n+j] } // j <= i
	for j := range d {
		v := at(j+1, j+1)
		spread[j] = math.Sqrt(v - float64(at(j+1, 0)*(at(j+1, 0)/at(0, 0))))
		// Rounding leaves something of a constant column.
		if !(spread[j] > 1e-7*math.Sqrt(v)) {
			inf.warn(WarnCondition, -1, 0)
			return vif
		}
	}
	for i := range d {
		for j := range i {
			v := at(i+1, j+1) - float64(at(i+1, 0)*(at(j+1, 0)/at(0, 0)))
			r[i*d+j] = v / spread[i] / spread[j]
		}
		r[i*d+i] = 1
	}
	chol := newCholesky(d, d)
	if chol.decompose(r, 0, rankFloor) >= 0 {
		inf.warn(WarnCondition, -1, 0)
		return vif
	}
	inverse := chol.inverse()
	for j := range vif {
		vif[j] = max(inverse[j*d+j], 1)
	}
	least, most := extremeEigenvalues(r, d)
	if !(least > 0) {
		inf.warn(WarnCondition, -1, 0)
		return vif
	}
	inf.Condition = math.Sqrt(most / least)
	if inf.Condition > highCondition {
		inf.warn(WarnCondition, -1, inf.Condition)
	}
	return vif
}

// inverse returns the inverse of what was decomposed, n x n.
func (c *cholesky) inverse() []float64 {
	n := c.n
	out := make([]float64, n*n)
	unit := make([]float64, n)
	for j := range n {
		clear(unit)
		unit[j] = 1
		c.solve(out[j*n:j*n+n], unit)
	}
	// Rounding is not symmetric.
	for i := range n {
		for j := range i {
			v := float64(0.5 * (out[i*n+j] + out[j*n+i]))
			out[i*n+j], out[j*n+i] = v, v
		}
	}
	return out
}

// check says whether all parameters are numbers to work with.
func (m Model) check() error {
	want := fmt.Sprintf("finite and at most %g in magnitude", largest)
	if !(math.Abs(m.Intercept) <= largest) {
		return &ValueError{What: "Intercept", Row: -1, Col: -1, Value: m.Intercept, Want: want}
	}
	for j, w := range m.Weights {
		if !(math.Abs(w) <= largest) {
			return &ValueError{What: "Weights", Row: -1, Col: j, Value: w, Want: want}
		}
	}
	return nil
}

// RatioTest is a likelihood-ratio test.
type RatioTest struct {
	N         int     `json:"n"`
	Statistic float64 `json:"statistic"` // by how much the larger model's deviance is smaller
	DF        int     `json:"df"`        // by how many parameters it is larger
	P         float64 `json:"p"`         // probability of such a statistic or a larger one if they are 0; 0 beside a Lack
	Lack      Lack    `json:"lack"`
}

// LikelihoodRatio tests whether the parameters that full has beyond those of reduced are
// 0 (Wilks, Annals of Mathematical Statistics 9, 1938): twice the log-likelihood that they gain
// is then a chi-square number of as many degrees of freedom. For single parameters it is
// more trustworthy than Z.
//
// Both must be inferences without penalty about the same rows and weights, and the columns
// of reduced be among those of full, which it cannot check. Otherwise the error is an
// [OptionError] or [ShapeError].
func LikelihoodRatio(reduced, full *Inference) (RatioTest, error) {
	switch {
	case reduced.Penalised || full.Penalised:
		return RatioTest{}, &OptionError{Option: "Penalty", Value: float64(L2), Want: "None, since a penalised likelihood is not the greatest"}
	case reduced.N != full.N:
		return RatioTest{}, &ShapeError{What: "rows of reduced", Got: reduced.N, Want: fmt.Sprintf("those of full, %d", full.N)}
	case reduced.Positives != full.Positives || reduced.Weight != full.Weight || reduced.NullDeviance != full.NullDeviance:
		return RatioTest{}, &OptionError{Option: "reduced", Value: reduced.NullDeviance, Want: fmt.Sprintf("the rows and weights of full, whose null deviance is %v", full.NullDeviance)}
	case reduced.Parameters >= full.Parameters:
		return RatioTest{}, &ShapeError{What: "parameters of reduced", Got: reduced.Parameters, Want: fmt.Sprintf("fewer than those of full, %d", full.Parameters)}
	}
	t := ratio(full, reduced.Deviance, reduced.Parameters)
	if t.Lack == LackNothing && reduced.Lack != LackNothing {
		t.Lack, t.P = reduced.Lack, 0
	}
	return t, nil
}

// Overall tests the model against one with an intercept only: whether its columns together
// say anything. It is meaningful without a penalty.
func (inf *Inference) Overall() RatioTest { return ratio(inf, inf.NullDeviance, 1) }

func ratio(full *Inference, deviance float64, parameters int) RatioTest {
	t := RatioTest{N: full.N, Statistic: max(deviance-full.Deviance, 0), DF: full.Parameters - parameters, Lack: full.Lack}
	if t.Lack == LackNothing {
		t.P = chiSquareTail(t.Statistic, t.DF)
	}
	return t
}
