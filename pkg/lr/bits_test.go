package lr

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"
)

// bits is a checksum of the exact bits of numbers.
func bits(values ...float64) uint64 {
	h := fnv.New64a()
	for _, v := range values {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], math.Float64bits(v))
		h.Write(b[:])
	}
	return h.Sum64()
}

// The checksums were taken on amd64 with GOAMD64=v1, whose code never fuses a product
// with a sum. They must be the same on every CPU and with every setting; try
//
//	GODEBUG=cpu.fma=off go test -run SameBits
//	GOAMD64=v3 go test -run SameBits
//	GOARCH=386 go test -run SameBits
//
// A deliberate change of an algorithm changes them, and then models that were
// trained and scored before cannot be reproduced any more.
func TestSameBitsOnEveryCPU(t *testing.T) {
	r := rand.New(rand.NewPCG(71, 0))
	var exps, logs []float64
	for range 100_000 {
		// From the bits, so that exponents of all sizes occur.
		wide := math.Float64frombits(r.Uint64())
		if wide != wide {
			continue // the payload of a NaN is not defined
		}
		exps = append(exps, Exp((r.Float64()-0.5)*1500), Sigmoid((r.Float64()-0.5)*80))
		logs = append(logs, Log(math.Abs(wide)), Log1p(math.Abs(wide)), Log1p(r.Float64()-0.5))
	}
	s := generate(72, 5000, 13)
	weights := randomWeights(r, s.X.Rows)
	var fits []float64
	var model Model
	for _, opts := range []Options{{}, {C: 0.01}, {Penalty: None}, {Weights: weights}} {
		f := mustFit(t, s, opts)
		model = f.Model
		fits = append(fits, f.Objective, f.GradientNorm, f.Decrement, f.Model.Intercept)
		fits = append(fits, f.Model.Weights...)
	}
	p := make([]float64, s.X.Rows)
	model.Probs(p, s.X)
	dst := make([]float64, s.X.Cols)
	base := model.Contributions(dst, s.X.Row(0), s.X.Row(1))
	m, err := Evaluate(s.y, p)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want uint64
	}{
		{"Exp and Sigmoid", bits(exps...), 0xb297892cf324a544},
		{"Log and Log1p", bits(logs...), 0x3609e7558f181e29},
		{"fits", bits(fits...), 0x7a36818fc494d1a0},
		{"probabilities", bits(p...), 0x08101a7a152d3751},
		{"contributions", bits(append(dst, base)...), 0xc2ccb9668f730cc2},
		{"metrics", bits(m.LogLoss, m.Brier, m.ECE, m.ECEMass, m.AUC, m.AUCSE, m.AP, m.KS), 0x8a62bea70f98c11a},
	} {
		if c.got != c.want {
			t.Errorf("%s: checksum %#016x, want %#016x", c.what, c.got, c.want)
		}
	}
}
