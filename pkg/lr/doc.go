// Package lr fits, applies, explains and measures binary logistic regressions.
//
// # The model
//
// A row x of d features has label 1 with probability
//
//	p = σ(z),  z = b + w₁x₁ + ... + w_d x_d,  σ(z) = 1/(1+e⁻ᶻ)
//
// z is the logit, the natural logarithm of the odds p/(1-p). A [Model] is the
// intercept b and the weights w. Every step of xⱼ by one adds wⱼ to the logit,
// whatever the other features are, so it multiplies the odds by exp(wⱼ). That is
// why such a model can say what a score is made of.
//
// # Fitting
//
// [Fit] finds the weights and intercept of least
//
//	C Σᵢ kᵢ·lossᵢ + ½ Σⱼ wⱼ²,  lossᵢ = -ln pᵢ if yᵢ = 1, else -ln(1-pᵢ)
//
// where kᵢ is the weight of row i. This is scikit-learn's convention: C weighs the
// data, so a small C means a strong penalty, and the intercept is not penalised. It
// follows that features should be of similar size, such as standardised to variance
// 1: the penalty counts a weight per unit of its column.
//
// The objective is convex and, with the penalty, has one minimum. Newton's method
// finds it: each step solves H s = -g with the gradient g and Hessian
//
//	g = C Xᵀk(p-y) + w,  H = C XᵀVX + I,  V = diag(kᵢ pᵢ(1-pᵢ))
//
// (which for this model is the same as iteratively reweighted least squares; Hastie,
// Tibshirani and Friedman, The Elements of Statistical Learning, 4.4.1), by
// Cholesky's decomposition, and shortens s until the objective falls (Nocedal and
// Wright, Numerical Optimization, 3.1). It stops when gᵀH⁻¹g says that the optimum is
// less than 10⁻¹⁰ standard errors away in every direction (Boyd and Vandenberghe, Convex
// Optimization, 9.5). What it cannot promise it says: see [Result].Stop.
//
// Without a penalty ([None]) the minimum can lie at infinity, if a plane separates
// the classes (Albert and Anderson, Biometrika 71, 1984), or be a whole line, if a column
// is a combination of others. [Fit] proves either case while it searches, and returns a
// [SeparationError] or a [RankError] with the columns, not a weight of 10⁸.
//
// [L1] and [ElasticNet] add Σ |wⱼ|, or a share of it, and make weights exactly 0. Each
// Newton step then minimises the quadratic model with that term (see [SolverNewton]), and
// what has converged satisfies the conditions of Karush, Kuhn and Tucker as closely as
// [Result].GradientNorm says. For many rows or columns there is L-BFGS, which needs
// gradients only ([SolverLBFGS]; Nocedal and Wright, 7.2). It begins at the optimum of a sample
// of the rows, and with the sample's Hessian in place of the whole one (Byrd, Chin, Neveitt and
// Nocedal, SIAM J. Optim. 21, 2011), so that a million rows are read half a dozen times. The
// gradient is that of all rows, so the optimum is that of all rows too.
//
// Rows may be sparse ([FitSparse]), or come in chunks where memory does not hold them
// ([FitChunks]). Offsets in [Options] add to the logits what is known beforehand.
//
// # Predicting and explaining
//
// [Model.Logit] and [Model.Prob] score one row and allocate nothing; [Model.Logits] and
// [Model.Probs] a matrix. [Model.Contributions] splits a logit by features:
//
//	cⱼ = wⱼxⱼ - wⱼaⱼ,  base = logit of a
//
// where a is a baseline, such as the mean of the training rows. They add up to the
// logit exactly, to the last bit and in any order, because every term is rounded to a
// multiple of 2⁻⁴⁰ before it is added: sums of such numbers need no rounding. So what
// is published as reasons is the whole score.
//
// [TopReasons] picks the greatest of them. A [Scorecard] writes them as the points of credit
// bureaus, which rise as risk falls, and [WeightOfEvidence] says what a binned feature knows.
//
// # How sure
//
// [Infer] gives what a statistician asks of a fit: standard errors, z, p, confidence intervals,
// deviance, AIC and BIC, from the information matrix at the optimum, and warnings where columns
// are nearly combinations of others or events are few. [LikelihoodRatio] compares two nested
// fits. Where the rows do not suffice the answer is a [Lack], which is a value, not an error.
//
// # Learning online
//
// [FTRL] learns from rows that come one at a time, with a rate for each column, weights of
// exactly 0 by L1, and columns chosen by [HashColumn] in place of a dictionary. Every row is
// predicted before it is learned, and [FTRL.Progressive] says how well. [Delayed] waits for
// labels that come late. The state is bytes, from which a learner goes on to the same bits.
//
// # Measuring
//
// [Evaluate] compares probabilities with labels: [LogLoss] and [Brier] for the
// probabilities as such, [ECE] for their calibration, [AUC], [AveragePrecision] and [KS]
// for the order that they put the rows in; [EvaluateWeighted] for rows that count
// differently. [AUCInterval] says how far the AUC can be trusted, and [CompareAUC] whether
// one of two models is better on the same rows. [CalibrationTable], [DecomposeBrier] and [Lift]
// show where a model is right and wrong. All say from how many rows.
//
// # Calibrating
//
// [FitPlatt] and [FitIsotonic] turn scores into probabilities that come true as often as they
// say, given rows that the model has not seen. [PriorShift] and [KeptShift] mend a model that
// was fitted to a sample with fewer rows of one label.
//
// # Keeping
//
// A [File] is a model and its columns' names, as JSON or msgpack: one form to the byte,
// with a version and a checksum.
//
// # The same bits everywhere
//
// Results do not depend on the number of goroutines or on the CPU. Sums over rows
// are made in blocks of fixed size, added in order, wherever chunks are cut. No
// product is fused with a sum. Where the CPU has AVX2 the inner loops are assembly that adds the
// same numbers in the same order; the build tag purego leaves it out. [Exp],
// [Log] and [Log1p] take the place of those in package math, which differ between CPUs; they
// are exported for whoever computes features that must be as reproducible.
//
// # Errors
//
// Input that cannot be worked with gives a [ShapeError], [ValueError], [OptionError] or
// [OneClassError], which name what is wrong and in which row and column; bytes that are not
// a model or a state a [FormatError] or [VersionError]. Predicting is
// on the hot path and panics when a length is wrong, as indexing does; a NaN gives NaN.
package lr
