package lr

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// randomModel has terms of very different sizes, such as wild tails give.
func randomModel(r *rand.Rand, cols int) (m Model, x, baseline []float64) {
	draw := func() []float64 {
		v := make([]float64, cols)
		for j := range v {
			v[j] = math.Ldexp(r.Float64()-0.5, r.IntN(40)-30)
			if r.IntN(8) == 0 {
				v[j] = 0
			}
		}
		return v
	}
	m.Intercept = (r.Float64() - 0.5) * 20
	m.Weights = draw()
	x, baseline = draw(), draw()
	// Columns of weight below 1 may be large.
	for j, w := range m.Weights {
		if math.Abs(w) < 1e-3 {
			x[j] *= 1000
		}
	}
	return m, x, baseline
}

func TestContributionsSumExactlyToTheLogit(t *testing.T) {
	const seed = 21
	r := rand.New(rand.NewPCG(seed, 0))
	inexact := 0
	for trial := range 5000 {
		cols := 1 + r.IntN(60)
		m, x, baseline := randomModel(r, cols)
		size := math.Abs(m.Intercept)
		for j, w := range m.Weights {
			size += math.Abs(w*x[j]) + 2*math.Abs(w*baseline[j])
		}
		if size >= 8192 {
			inexact++
			continue
		}
		logit := m.Logit(x)
		dst := make([]float64, cols)
		for _, b := range [][]float64{nil, baseline, x} {
			base := m.Contributions(dst, x, b)
			if b != nil && base != m.Logit(b) {
				t.Fatalf("trial %d, seed %d: base %v, logit of the baseline %v", trial, seed, base, m.Logit(b))
			}
			for _, order := range [][]int{ascendingInts(cols), r.Perm(cols)} {
				sum := base
				for _, j := range order {
					sum += dst[j]
				}
				if sum != logit {
					t.Fatalf("trial %d, seed %d: base and contributions make %v, logit %v, apart %g", trial, seed, sum, logit, sum-logit)
				}
			}
		}
		base := m.Contributions(dst, x, x)
		for j, c := range dst {
			if c != 0 || base != logit {
				t.Fatalf("trial %d, seed %d: column %d contributes %v against itself", trial, seed, j, c)
			}
		}
	}
	if inexact > 1000 {
		t.Errorf("%d of 5000 trials were out of the exact range: too few are left", inexact)
	}
}

func ascendingInts(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// Without a baseline the sum from left to right is the logit however large it is.
func TestContributionsOfHugeTerms(t *testing.T) {
	const seed = 22
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		cols := 1 + r.IntN(20)
		m, x, _ := randomModel(r, cols)
		for j := range x {
			x[j] = math.Ldexp(x[j], r.IntN(60))
		}
		dst := make([]float64, cols)
		sum := m.Contributions(dst, x, nil)
		for _, c := range dst {
			sum += c
		}
		if logit := m.Logit(x); sum != logit {
			t.Fatalf("seed %d: base and contributions make %v, logit %v", seed, sum, logit)
		}
	}
}

func TestLogitIsTheDotProduct(t *testing.T) {
	const seed = 23
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		cols := 1 + r.IntN(40)
		m, x, _ := randomModel(r, cols)
		want := new(big.Float).SetPrec(300).SetFloat64(m.Intercept)
		largest := math.Abs(m.Intercept)
		for j, w := range m.Weights {
			p := new(big.Float).SetPrec(300).SetFloat64(w)
			want.Add(want, p.Mul(p, new(big.Float).SetFloat64(x[j])))
			largest = max(largest, math.Abs(w*x[j]))
		}
		exact, _ := want.Float64()
		// Half a quantum a term, and the rounding of the products themselves.
		allowed := float64(cols+1) * (0x1p-41 + largest*0x1p-52)
		if d := math.Abs(m.Logit(x) - exact); !(d <= allowed) {
			t.Fatalf("seed %d: logit %v, exact %v: off by %g, allowed %g", seed, m.Logit(x), exact, d, allowed)
		}
	}
}

func TestQuantise(t *testing.T) {
	const seed = 24
	r := rand.New(rand.NewPCG(seed, 0))
	scale := new(big.Float).SetInt64(1 << 40)
	for range 100_000 {
		v := math.Ldexp(r.Float64()-0.5, r.IntN(64)-48)
		if r.IntN(3) == 0 {
			v = float64(r.IntN(1<<20)-1<<19) * 0x1p-41 // many ties
		}
		got := quantise(v)
		n := new(big.Float).Mul(new(big.Float).SetFloat64(got), scale)
		if !n.IsInt() {
			t.Fatalf("seed %d: quantise(%v) = %v is no multiple of 2⁻⁴⁰", seed, v, got)
		}
		if math.Abs(got-v) > 0x1p-41 {
			t.Fatalf("seed %d: quantise(%v) = %v is not the nearest", seed, v, got)
		}
		if i, _ := n.Int64(); math.Abs(got-v) == 0x1p-41 && i%2 != 0 {
			t.Fatalf("seed %d: quantise(%v) = %v is a tie that went to the odd multiple", seed, v, got)
		}
	}
	for _, v := range []float64{2047.9999999999, 2048, 2048.0000000000005, -2048.0000000000005, 4095.9999999999995, 4096, 1e300, math.Inf(1), math.Inf(-1), 0} {
		if got := quantise(v); math.Abs(got-v) > 0x1p-41 {
			t.Errorf("quantise(%v) = %v", v, got)
		}
	}
	if got := quantise(math.NaN()); got == got {
		t.Errorf("quantise(NaN) = %v", got)
	}
}

func TestSigmoid(t *testing.T) {
	for _, c := range []struct{ z, want float64 }{
		{0, 0.5},
		{800, 1}, {-800, 0},
		{math.Inf(1), 1}, {math.Inf(-1), 0},
		{-745, 5e-324}, {40, 1}, {-40, 4.248354255291589e-18},
		{1, 0.7310585786300049}, {-1, 0.2689414213699951},
	} {
		if got := Sigmoid(c.z); got != c.want {
			t.Errorf("Sigmoid(%v) = %v, want %v", c.z, got, c.want)
		}
	}
	if got := Sigmoid(math.NaN()); got == got {
		t.Errorf("Sigmoid(NaN) = %v", got)
	}
	previous := 0.0
	for z := -800.0; z <= 800; z += 0.37 {
		p := Sigmoid(z)
		if !(p >= previous && p <= 1) {
			t.Fatalf("Sigmoid(%v) = %v after %v", z, p, previous)
		}
		if d := math.Abs(p + Sigmoid(-z) - 1); d > 0x1p-52 {
			t.Fatalf("Sigmoid(%v) + Sigmoid(%v) is off 1 by %g", z, -z, d)
		}
		previous = p
	}
}

func TestProbAtExtremeLogits(t *testing.T) {
	m := Model{Intercept: 0, Weights: []float64{1}}
	for _, c := range []struct{ x, want float64 }{{800, 1}, {-800, 0}, {1e308, 1}, {-1e308, 0}, {math.Inf(1), 1}} {
		if got := m.Prob([]float64{c.x}); got != c.want {
			t.Errorf("Prob at logit %v is %v, want %v", c.x, got, c.want)
		}
	}
	if got := m.Prob([]float64{math.NaN()}); got == got {
		t.Errorf("Prob of NaN is %v, want NaN", got)
	}
}

func TestBatchesEqualSingleRows(t *testing.T) {
	s := generate(25, 37, 5)
	m := Model{Intercept: -0.3, Weights: []float64{1, -2, 0.5, 0, 3}}
	z, p := make([]float64, 37), make([]float64, 37)
	m.Logits(z, s.X)
	m.Probs(p, s.X)
	for i := range z {
		if z[i] != m.Logit(s.X.Row(i)) || p[i] != m.Prob(s.X.Row(i)) {
			t.Errorf("row %d: batch %v, %v; single %v, %v", i, z[i], p[i], m.Logit(s.X.Row(i)), m.Prob(s.X.Row(i)))
		}
	}
}

func TestPredictAllocatesNothing(t *testing.T) {
	s := generate(26, 20, 30)
	m := Model{Intercept: 1, Weights: s.X.Row(0)}
	x, dst, out := s.X.Row(1), make([]float64, 30), make([]float64, 20)
	for name, f := range map[string]func(){
		"Logit":         func() { sink = m.Logit(x) },
		"Prob":          func() { sink = m.Prob(x) },
		"Contributions": func() { sink = m.Contributions(dst, x, s.X.Row(2)) },
		"Logits":        func() { m.Logits(out, s.X) },
		"Probs":         func() { m.Probs(out, s.X) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestWrongLengthsPanicByName(t *testing.T) {
	m := Model{Weights: []float64{1, 2}}
	for name, c := range map[string]struct {
		f    func()
		want string
	}{
		"Logit":                  {func() { m.Logit([]float64{1}) }, "length of x is 1, want 2"},
		"Prob":                   {func() { m.Prob([]float64{1, 2, 3}) }, "length of x is 3, want 2"},
		"Contributions x":        {func() { m.Contributions(make([]float64, 2), nil, nil) }, "length of x is 0, want 2"},
		"Contributions dst":      {func() { m.Contributions(nil, []float64{1, 2}, nil) }, "length of dst is 0, want 2"},
		"Contributions baseline": {func() { m.Contributions(make([]float64, 2), []float64{1, 2}, []float64{1}) }, "length of baseline is 1, want 2"},
		"Probs":                  {func() { m.Probs(nil, Matrix{Rows: 1, Cols: 2, Data: []float64{1, 2}}) }, "length of dst is 0, want 1"},
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, c.want) {
					t.Errorf("%s: panic %q, want %q", name, got, c.want)
				}
			}()
			c.f()
		}()
	}
}
