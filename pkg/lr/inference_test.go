package lr

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

type goldenInference struct {
	StdErr          []float64 `json:"std_err"`
	StdErrIntercept float64   `json:"std_err_intercept"`
	Z               []float64 `json:"z"`
	ZIntercept      float64   `json:"z_intercept"`
	HessianCond     float64   `json:"hessian_cond"`
}

type glm struct {
	Deviance     float64 `json:"deviance"`
	NullDeviance float64 `json:"null_deviance"`
	AIC          float64 `json:"aic"`
	Terms        []struct {
		Term     string  `json:"term"`
		Estimate float64 `json:"estimate"`
		SE       float64 `json:"std_error"`
		Z        float64 `json:"z"`
		P        float64 `json:"p"`
	} `json:"terms"`
}

// numericColumns of german_credit, by their means and standard deviations in the schema,
// come first in its design.
func readGLM(t *testing.T) (fits map[string]json.RawMessage, schema []struct{ Mean, Std float64 }, want goldenInference) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sharedData, "german_credit/golden.json"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("reference figures are absent: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		R      map[string]json.RawMessage `json:"r_glm_raw_units"`
		Splits map[string]struct {
			Schema      []struct{ Mean, Std float64 }
			Unpenalised goldenInference
		}
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g.R, g.Splits["mod5"].Schema, g.Splits["mod5"].Unpenalised
}

// R's glm worked on raw units, so the standardised columns are turned back.
func TestInferenceAgainstR(t *testing.T) {
	fits, schema, numpy := readGLM(t)
	train, test := readDesign(t, "german_credit/design.mod5.csv.gz")
	all := sample{X: Matrix{Rows: 1000, Cols: train.X.Cols, Data: slices.Concat(train.X.Data, test.X.Data)}, y: slices.Concat(train.y, test.y)}
	for name, s := range map[string]sample{"train800": train, "all1000": all} {
		var want glm
		if err := json.Unmarshal(fits[name], &want); err != nil {
			t.Fatal(err)
		}
		raw := sample{X: Matrix{Rows: s.X.Rows, Cols: s.X.Cols, Data: slices.Clone(s.X.Data)}, y: s.y}
		for i := range raw.X.Rows {
			for j, c := range schema {
				if c.Std != 0 {
					raw.X.Row(i)[j] = raw.X.Row(i)[j]*c.Std + c.Mean
				}
			}
		}
		fit := mustFit(t, raw, Options{Penalty: None})
		inf, err := Infer(t.Context(), raw.X, raw.y, fit.Model, Options{Penalty: None}, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, name+" deviance", inf.Deviance, want.Deviance, 1e-9*want.Deviance)
		checkClose(t, name+" null deviance", inf.NullDeviance, want.NullDeviance, 1e-9*want.NullDeviance)
		checkClose(t, name+" AIC", inf.AIC, want.AIC, 1e-9*want.AIC)
		checkClose(t, name+" BIC", inf.BIC, want.Deviance+49*math.Log(float64(s.X.Rows)), 1e-9*want.AIC)
		if len(inf.Terms) != len(want.Terms) {
			t.Fatalf("%s: %d terms, want %d", name, len(inf.Terms), len(want.Terms))
		}
		for j, w := range want.Terms {
			g := inf.Terms[j]
			checkClose(t, w.Term+" estimate", g.Estimate, w.Estimate, 1e-7*math.Abs(w.Estimate))
			checkClose(t, w.Term+" SE", g.SE, w.SE, 1e-6*w.SE)
			checkClose(t, w.Term+" z", g.Z, w.Z, 1e-6*math.Abs(w.Z))
			checkClose(t, w.Term+" p", g.P, w.P, 1e-5*w.P)
			checkClose(t, w.Term+" low", g.Low, w.Estimate-1.959963984540054*w.SE, 1e-6*(math.Abs(w.Estimate)+w.SE))
		}
	}

	fit := mustFit(t, train, Options{Penalty: None})
	inf, err := Infer(t.Context(), train.X, train.y, fit.Model, Options{Penalty: None}, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	checkClose(t, "standardised intercept's SE", inf.Terms[0].SE, numpy.StdErrIntercept, 1e-9)
	for j, se := range numpy.StdErr {
		checkClose(t, "standardised SE", inf.Terms[j+1].SE, se, 1e-9)
		checkClose(t, "standardised z", inf.Terms[j+1].Z, numpy.Z[j], 1e-8)
	}
	// The same Hessian's condition number, by numpy's singular values.
	h := mat.NewSymDense(49, nil)
	slowInformation(h, train, fit.Model)
	a := make([]float64, 49*49)
	for i := range 49 {
		for j := range 49 {
			a[i*49+j] = h.At(i, j)
		}
	}
	least, most := extremeEigenvalues(a, 49)
	checkClose(t, "condition of the Hessian", most/least, numpy.HessianCond, 1e-8*numpy.HessianCond)
}

// slowInformation is XᵀVX as the documentation writes it, the intercept first.
func slowInformation(h *mat.SymDense, s sample, m Model) {
	n := s.X.Cols + 1
	for i := range s.X.Rows {
		x := append([]float64{1}, s.X.Row(i)...)
		p := m.Prob(s.X.Row(i))
		for a := range n {
			for b := range a + 1 {
				h.SetSym(a, b, h.At(a, b)+p*(1-p)*x[a]*x[b])
			}
		}
	}
}

// The definition, by another library's matrices.
func TestInferenceAgainstItsDefinition(t *testing.T) {
	for _, opts := range []Options{{Penalty: None}, {C: 0.3}} {
		s := generate(301, 700, 4)
		for i := range s.X.Rows {
			s.X.Row(i)[3] = 100 + 0.8*s.X.Row(i)[0] + 0.1*s.X.Row(i)[3] // collinear, and far from 0
		}
		fit := mustFit(t, s, opts)
		inf, err := Infer(t.Context(), s.X, s.y, fit.Model, opts, 0.9)
		if err != nil {
			t.Fatal(err)
		}
		const n = 5
		f := mat.NewSymDense(n, nil)
		slowInformation(f, s, fit.Model)
		h := mat.NewDense(n, n, nil)
		h.CloneFrom(f)
		alpha := 0.0
		if opts.C != 0 {
			alpha = 1 / opts.C
			for j := 1; j < n; j++ {
				h.Set(j, j, h.At(j, j)+alpha)
			}
		}
		var inverse, half, cov mat.Dense
		if err := inverse.Inverse(h); err != nil {
			t.Fatal(err)
		}
		half.Mul(&inverse, f)
		cov.Mul(&half, &inverse)
		checkClose(t, "DF", inf.DF, mat.Trace(&half), 1e-7)
		for i := range n {
			for j := range n {
				checkClose(t, "covariance", inf.Covariance.Row(i)[j], cov.At(i, j), 1e-7*math.Sqrt(cov.At(i, i)*cov.At(j, j)))
			}
			checkClose(t, "SE", inf.Terms[i].SE, math.Sqrt(cov.At(i, i)), 1e-7*inf.Terms[i].SE)
			checkClose(t, "width", inf.Terms[i].High-inf.Terms[i].Low, 2*1.6448536269514722*inf.Terms[i].SE, 1e-12*inf.Terms[i].SE)
		}

		// VIF: 1/(1-R²) of each column on the others, by weighted least squares.
		for j := range 4 {
			r2 := rSquared(t, s, fit.Model, j)
			checkClose(t, "VIF", inf.Terms[j+1].VIF, 1/(1-r2), 1e-6/(1-r2))
		}
		if inf.Terms[0].VIF != 0 {
			t.Errorf("the intercept has a VIF of %v", inf.Terms[0].VIF)
		}
		if inf.Terms[4].VIF < highVIF || !slices.ContainsFunc(inf.Warnings, func(w Warning) bool { return w.Kind == WarnVIF && w.Column == 3 && w.Value == inf.Terms[4].VIF }) {
			t.Errorf("VIF %v, warnings %v: want one of column 3", inf.Terms[4].VIF, inf.Warnings)
		}
		if got := slices.ContainsFunc(inf.Warnings, func(w Warning) bool { return w.Kind == WarnPenalised }); got != (alpha > 0) || inf.Penalised != got {
			t.Errorf("penalty %v: warned of it: %v", alpha, got)
		}
	}
}

func rSquared(t *testing.T, s sample, m Model, column int) float64 {
	t.Helper()
	n, d := s.X.Rows, s.X.Cols
	a, b := mat.NewDense(n, d, nil), mat.NewVecDense(n, nil)
	var mean, total, weight float64
	for i := range n {
		p := m.Prob(s.X.Row(i))
		weight += p * (1 - p)
		mean += p * (1 - p) * s.X.Row(i)[column]
	}
	mean /= weight
	for i := range n {
		p := m.Prob(s.X.Row(i))
		root := math.Sqrt(p * (1 - p))
		for j, v := range s.X.Row(i) {
			if j == column {
				v = 1
			}
			a.Set(i, j, root*v)
		}
		v := s.X.Row(i)[column] - mean
		b.SetVec(i, root*v)
		total += root * v * root * v
	}
	var x mat.VecDense
	if err := x.SolveVec(a, b); err != nil {
		t.Fatal(err)
	}
	var fitted mat.VecDense
	fitted.MulVec(a, &x)
	residual := 0.0
	for i := range n {
		residual += (b.AtVec(i) - fitted.AtVec(i)) * (b.AtVec(i) - fitted.AtVec(i))
	}
	return 1 - residual/total
}

func TestExtremeEigenvalues(t *testing.T) {
	const seed = 302
	r := rand.New(rand.NewPCG(seed, 0))
	for trial := range 200 {
		n := 1 + r.IntN(24)
		s := mat.NewSymDense(n, nil)
		a := make([]float64, n*n)
		for i := range n {
			for j := range i + 1 {
				v := math.Ldexp(r.Float64()-0.5, r.IntN(8))
				if r.IntN(3) == 0 {
					v = 0
				}
				if trial%5 == 0 && i != j {
					v = 0 // diagonal, with equal eigenvalues in some
				}
				s.SetSym(i, j, v)
				a[i*n+j] = v
			}
		}
		var eig mat.EigenSym
		if !eig.Factorize(s, false) {
			t.Fatal("no eigenvalues")
		}
		want := eig.Values(nil)
		least, most := extremeEigenvalues(a, n)
		size := max(math.Abs(want[0]), math.Abs(want[n-1]), 1e-9)
		checkClose(t, "least", least, want[0], 1e-13*size)
		checkClose(t, "most", most, want[n-1], 1e-13*size)
		if t.Failed() {
			t.Fatalf("seed %d trial %d n %d", seed, trial, n)
		}
	}
}

// The intervals cover the truth as often as they say.
func TestIntervalsCover(t *testing.T) {
	const seed, trials = 303, 400
	r := rand.New(rand.NewPCG(seed, 0))
	covered, rejected := 0, 0
	for range trials {
		s := sample{X: Matrix{Rows: 300, Cols: 2, Data: make([]float64, 600)}, y: make([]float64, 300)}
		for i := range s.y {
			x := s.X.Row(i)
			x[0], x[1] = r.NormFloat64(), r.NormFloat64()
			if r.Float64() < Sigmoid(-0.5+0.7*x[0]) {
				s.y[i] = 1
			}
		}
		full := mustInfer(t, s, Options{Penalty: None})
		if full.Terms[1].Low <= 0.7 && 0.7 <= full.Terms[1].High {
			covered++
		}
		one := sample{X: Matrix{Rows: 300, Cols: 1}, y: s.y}
		for i := range s.y {
			one.X.Data = append(one.X.Data, s.X.Row(i)[0])
		}
		test, err := LikelihoodRatio(mustInfer(t, one, Options{Penalty: None}), full)
		if err != nil {
			t.Fatal(err)
		}
		if test.P < 0.1 {
			rejected++
		}
	}
	// Four standard deviations of a count.
	if off := math.Abs(float64(covered) - 0.9*trials); off > 4*math.Sqrt(trials*0.9*0.1) {
		t.Errorf("90 %% intervals cover %d of %d, seed %d", covered, trials, seed)
	}
	if off := math.Abs(float64(rejected) - 0.1*trials); off > 4*math.Sqrt(trials*0.9*0.1) {
		t.Errorf("a needless column is significant at 10 %% in %d of %d, seed %d", rejected, trials, seed)
	}
}

func mustInfer(t *testing.T, s sample, opts Options) *Inference {
	t.Helper()
	fit := mustFit(t, s, opts)
	inf, err := Infer(t.Context(), s.X, s.y, fit.Model, opts, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	return inf
}

func TestInferenceOfWeightsIsThatOfRepeatedRows(t *testing.T) {
	s := generate(304, 400, 3)
	weights := make([]float64, 400)
	twice := sample{X: Matrix{Cols: 3}}
	for i := range weights {
		weights[i] = float64(i % 3)
		for range i % 3 {
			twice.X.Rows++
			twice.X.Data = append(twice.X.Data, s.X.Row(i)...)
			twice.y = append(twice.y, s.y[i])
		}
	}
	got, want := mustInfer(t, s, Options{Penalty: None, Weights: weights}), mustInfer(t, twice, Options{Penalty: None})
	if got.N != 266 || got.Weight != 399 || want.N != 399 || want.Weight != 399 {
		t.Errorf("rows and weight %d, %v and %d, %v", got.N, got.Weight, want.N, want.Weight)
	}
	for j := range got.Terms {
		checkClose(t, "SE", got.Terms[j].SE, want.Terms[j].SE, 1e-9)
		checkClose(t, "P", got.Terms[j].P, want.Terms[j].P, 1e-9)
	}
	checkClose(t, "deviance", got.Deviance, want.Deviance, 1e-9*want.Deviance)
	checkClose(t, "null deviance", got.NullDeviance, want.NullDeviance, 1e-9*want.Deviance)
	checkClose(t, "BIC", got.BIC, want.BIC, 1e-9*want.BIC)
	checkClose(t, "condition", got.Condition, want.Condition, 1e-9*want.Condition)
}

// An offset is a column whose weight is known to be 1, and class weights are weights of rows.
func TestInferenceOfOffsetsAndClassWeights(t *testing.T) {
	s := generate(311, 2000, 3)
	first := sample{X: Matrix{Rows: 2000, Cols: 2}, y: s.y}
	offsets, weights := make([]float64, 2000), make([]float64, 2000)
	fit := mustFit(t, s, Options{Penalty: None})
	for i := range s.y {
		first.X.Data = append(first.X.Data, s.X.Row(i)[:2]...)
		offsets[i] = fit.Model.Weights[2] * s.X.Row(i)[2]
		weights[i] = 2 + 1.5*s.y[i]
	}
	got := mustInfer(t, first, Options{Penalty: None, Offsets: offsets})
	want := mustInfer(t, s, Options{Penalty: None})
	checkClose(t, "deviance", got.Deviance, want.Deviance, 1e-9*want.Deviance)
	for j := range 3 {
		checkClose(t, "estimate", got.Terms[j].Estimate, want.Terms[j].Estimate, 1e-7)
		if got.Terms[j].SE > want.Terms[j].SE {
			t.Errorf("SE %v with a weight known, %v with it estimated", got.Terms[j].SE, want.Terms[j].SE)
		}
	}
	// The null model has the offsets too: a column of nothing gives its deviance.
	noise := sample{X: Matrix{Rows: 2000, Cols: 1, Data: make([]float64, 2000)}, y: s.y}
	null := mustFit(t, noise, Options{Offsets: offsets})
	checkClose(t, "null deviance", got.NullDeviance, 2*null.Objective, 1e-9*got.NullDeviance)

	a := mustInfer(t, s, Options{Penalty: None, ClassWeights: [2]float64{2, 3.5}})
	b := mustInfer(t, s, Options{Penalty: None, Weights: weights})
	for j := range a.Terms {
		checkClose(t, "SE with class weights", a.Terms[j].SE, b.Terms[j].SE, 1e-12)
	}
	checkClose(t, "null deviance with class weights", a.NullDeviance, b.NullDeviance, 1e-9)
	bad := Options{Penalty: None, Offsets: slices.Clone(offsets)}
	bad.Offsets[3] = math.NaN()
	for _, opts := range []Options{bad, {Offsets: offsets[:4]}, {ClassWeights: [2]float64{1, -1}}, {Penalty: L1}, {C: -1}} {
		_, err := Infer(t.Context(), s.X, s.y, fit.Model, opts, 0.9)
		if err == nil {
			t.Errorf("%+v is no error", opts)
			continue
		}
		mustBeTyped(t, err)
	}
}

func TestInferenceEndsWithItsContext(t *testing.T) {
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	s := generate(305, 50, 2)
	if _, err := Infer(ctx, s.X, s.y, Model{Weights: make([]float64, 2)}, Options{}, 0.9); !errors.Is(err, cause) {
		t.Errorf("%v, want %v", err, cause)
	}
}

// The gradient and the information are derivatives of the loss.
func TestInformationByFiniteDifferences(t *testing.T) {
	s := generate(310, 200, 3)
	r := rand.New(rand.NewPCG(310, 2))
	weights, offsets := randomWeights(r, 200), make([]float64, 200)
	for i := range offsets {
		offsets[i] = r.NormFloat64()
	}
	at := func(theta []float64) *information {
		m := Model{Intercept: theta[0], Weights: theta[1:]}
		in, err := informationAt(t.Context(), s.X, s.y, m, Options{Weights: weights, Offsets: offsets})
		if err != nil {
			t.Fatal(err)
		}
		// By the intercept of columns that are not shifted.
		for j, c := range in.center {
			in.gradient[j+1] += c * in.gradient[0]
		}
		return in
	}
	theta := []float64{-0.4, 0.3, -1.2, 0.7}
	in := at(theta)
	const h = 1e-5
	for a := range theta {
		up, down := slices.Clone(theta), slices.Clone(theta)
		up[a] += h
		down[a] -= h
		checkClose(t, "gradient", in.gradient[a], (at(up).loss-at(down).loss)/(2*h), 1e-6)
		// Only the intercept's row is free of the shift.
		checkClose(t, "curvature", (at(up).gradient[0]-at(down).gradient[0])/(2*h), func() float64 {
			v := in.fisher[a*4]
			if a > 0 {
				v += in.center[a-1] * in.fisher[0]
			}
			return v
		}(), 1e-6)
	}
}

func TestTooLittleDataIsAValue(t *testing.T) {
	few := sample{X: Matrix{Rows: 3, Cols: 2, Data: []float64{1, 2, 3, 1, 0, 5}}, y: []float64{0, 1, 1}}
	twin := generate(306, 100, 2)
	for i := range twin.X.Rows {
		twin.X.Row(i)[1] = 2 * twin.X.Row(i)[0]
	}
	for _, c := range []struct {
		name string
		s    sample
		want Lack
	}{
		{"as many parameters as rows", few, LackRows},
		{"a column twice", twin, LackInformation},
	} {
		inf, err := Infer(t.Context(), c.s.X, c.s.y, Model{Weights: make([]float64, 2)}, Options{Penalty: None}, 0.95)
		if err != nil || inf.Lack != c.want || inf.Terms != nil || inf.AIC != 0 {
			t.Errorf("%s: %+v, %v, want %v", c.name, inf, err, c.want)
			continue
		}
		if inf.N != c.s.X.Rows || inf.Deviance == 0 || inf.NullDeviance == 0 {
			t.Errorf("%s: %+v: n and deviance do not need more rows", c.name, inf)
		}
		if test := inf.Overall(); test.Lack != c.want || test.P != 0 {
			t.Errorf("%s: %+v, want %v", c.name, test, c.want)
		}
		if _, err := json.Marshal(inf); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	// With a penalty a column twice has a standard error, and a warning.
	fit := mustFit(t, twin, Options{})
	inf, err := Infer(t.Context(), twin.X, twin.y, fit.Model, Options{}, 0.95)
	if err != nil || inf.Lack != LackNothing || inf.Condition != 0 || !slices.Contains(inf.Warnings, Warning{WarnCondition, -1, 0}) {
		t.Errorf("a column twice, with penalty: %+v, %v", inf, err)
	}
	if _, err := json.Marshal(inf); err != nil {
		t.Error(err)
	}
}

func TestInferenceWarns(t *testing.T) {
	s := generate(307, 60, 5)
	fit := mustFit(t, s, Options{Penalty: None})
	off := fit.Model
	off.Intercept += 1
	inf, err := Infer(t.Context(), s.X, s.y, off, Options{Penalty: None}, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[WarningKind]Warning{}
	for _, w := range inf.Warnings {
		kinds[w.Kind] = w
		if w.String() == "" || w.String()[0] == 'W' {
			t.Errorf("%d says %q", w.Kind, w)
		}
	}
	if w, ok := kinds[WarnNotOptimum]; !ok || w.Value < 0.1 {
		t.Errorf("no warning that the model is no optimum: %v", inf.Warnings)
	}
	events := float64(min(inf.Positives, inf.N-inf.Positives)) / 5
	if w, ok := kinds[WarnFewEvents]; !ok || w.Value != events {
		t.Errorf("no warning of %v events a column: %v", events, inf.Warnings)
	}
	inf = mustInfer(t, generate(308, 3000, 3), Options{Penalty: None})
	if len(inf.Warnings) != 0 || inf.Condition > 1.2 || inf.Condition < 1 {
		t.Errorf("independent columns: condition %v, %v", inf.Condition, inf.Warnings)
	}
	if test := inf.Overall(); test.DF != 3 || test.P > 1e-9 || test.N != 3000 {
		t.Errorf("overall %+v", test)
	}
}

func TestInferenceRefusesBadInput(t *testing.T) {
	s := generate(309, 50, 2)
	good := Model{Weights: make([]float64, 2)}
	for _, c := range []struct {
		m     Model
		level float64
		want  string
	}{
		{good, 95, "lr: option Level is 95, want above 0 and below 1"},
		{Model{Weights: []float64{0, math.NaN()}}, 0.9, "lr: Weights column 1 is NaN, want finite and at most 1e+90 in magnitude"},
		{Model{Intercept: math.Inf(1), Weights: good.Weights}, 0.9, "lr: Intercept is +Inf, want finite and at most 1e+90 in magnitude"},
		{Model{Weights: []float64{1}}, 0.9, "lr: length of the model's Weights is 1, want one a column of X, 2"},
	} {
		if _, err := Infer(t.Context(), s.X, s.y, c.m, Options{}, c.level); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	full := mustInfer(t, s, Options{Penalty: None})
	shorter := mustInfer(t, sample{X: Matrix{Rows: 40, Cols: 2, Data: s.X.Data[:80]}, y: s.y[:40]}, Options{Penalty: None})
	penalised := mustInfer(t, s, Options{})
	other := *full
	other.NullDeviance++
	for _, c := range []struct {
		reduced *Inference
		want    string
	}{
		{shorter, "lr: rows of reduced is 40, want those of full, 50"},
		{penalised, "lr: option Penalty is 0, want None, since a penalised likelihood is not the greatest"},
		{full, "lr: parameters of reduced is 3, want fewer than those of full, 3"},
	} {
		if _, err := LikelihoodRatio(c.reduced, full); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := LikelihoodRatio(&other, full); err == nil {
		t.Error("other labels are no error")
	}
}
