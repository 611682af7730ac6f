package lr

import (
	"hash/fnv"
	"math/rand/v2"
	"testing"
)

// As [TestSameBitsOnEveryCPU], for what is learned online, inferred, calibrated and compared.
func TestSameBitsOfJudgementsOnEveryCPU(t *testing.T) {
	r := rand.New(rand.NewPCG(73, 0))
	s := generate(74, 3000, 5)
	weights := randomWeights(r, s.X.Rows)
	fit := mustFit(t, s, Options{Penalty: None, Weights: weights})
	inf, err := Infer(t.Context(), s.X, s.y, fit.Model, Options{Penalty: None, Weights: weights}, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	inferred := append([]float64{inf.Deviance, inf.NullDeviance, inf.AIC, inf.BIC, inf.Condition, inf.Overall().P}, inf.Covariance.Data...)
	for _, term := range inf.Terms {
		inferred = append(inferred, term.SE, term.Z, term.P, term.Low, term.High, term.VIF)
	}

	p, q, z := make([]float64, s.X.Rows), make([]float64, s.X.Rows), make([]float64, s.X.Rows)
	fit.Model.Probs(p, s.X)
	fit.Model.Logits(z, s.X)
	for i := range q {
		q[i] = Sigmoid(float64(0.7*z[i]) + r.Float64() - 0.5)
	}
	m, err := EvaluateWeighted(s.y, p, weights)
	if err != nil {
		t.Fatal(err)
	}
	c, err := CompareAUC(s.y, p, q, weights, 0.95)
	if err != nil {
		t.Fatal(err)
	}
	d, err := DecomposeBrier(s.y, p, weights, Bins{Count: 10})
	if err != nil {
		t.Fatal(err)
	}
	table, err := CalibrationTable(s.y, p, weights, Bins{Count: 10, EqualCount: true}, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	judged := []float64{m.LogLoss, m.Brier, m.ECE, m.ECEMass, m.AUC, m.AUCSE, m.Gini, m.AP, m.KS,
		c.Difference, c.DifferenceSE, c.Z, c.P, c.Low, c.High, d.Reliability, d.Resolution, d.Uncertainty, d.Within}
	for _, b := range table {
		judged = append(judged, b.MeanP, b.Rate, b.Low, b.High)
	}

	platt, err := FitPlatt(t.Context(), z, s.y, weights)
	if err != nil {
		t.Fatal(err)
	}
	isotonic, err := FitIsotonic(z, s.y, weights)
	if err != nil {
		t.Fatal(err)
	}
	calibrated := []float64{platt.Slope, platt.Intercept}
	for _, v := range z {
		calibrated = append(calibrated, isotonic.Prob(v+0.01))
	}

	learner, err := NewFTRL(FTRLOptions{Cols: 40, Alpha: 0.7, L1: 0.5, L2: 0.1})
	if err != nil {
		t.Fatal(err)
	}
	for i, label := range s.y {
		index := []int32{int32(r.IntN(40)), int32(r.IntN(40)), 7}
		if _, err := learner.Learn(index, s.X.Row(i)[:3], label, 1); err != nil {
			t.Fatal(err)
		}
	}
	state := fnv.New64a()
	state.Write(mustMarshal(t, learner))

	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"inference", bits(inferred...), 0x028a18236e8bac29},
		{"measures", bits(judged...), 0xe148fc7bc144279b},
		{"calibration", bits(calibrated...), 0xfdc5bc13b2f2d03d},
		{"online", state.Sum64(), 0x07f8351a2e03c53e},
	} {
		if c.got != c.want {
			t.Errorf("%s: checksum %#016x, want %#016x", c.what, c.got, c.want)
		}
	}
}
