package lr

import (
	"fmt"
	"math"
)

// Model is a fitted logistic regression: the log-odds of label 1 are
// Intercept + Σ Weights[j]·x[j].
type Model struct {
	Intercept float64
	Weights   []float64 // one per column, in the units of 1/column
}

// Terms are rounded to a multiple of quantum = 2⁻⁴⁰ (9·10⁻¹³) before they are
// added. Multiples of 2⁻⁴⁰ below 2¹³ are float64 numbers without exception, so
// their sums and differences are exact and do not depend on order. That is what
// makes contributions add up to the logit to the last bit, whatever the baseline,
// at the price of an error of at most 2⁻⁴¹ per term.
const (
	quantum   = 0x1p-40
	perUnit   = 0x1p40
	snapLimit = 0x1p11
	snap      = 0x1.8p12 // for |v| <= snapLimit the last bit of v+snap is worth one quantum
)

// quantise rounds v to the nearest multiple of 2⁻⁴⁰, ties to even. From 2¹² on
// every float64 is one already.
func quantise(v float64) float64 {
	if v <= snapLimit && v >= -snapLimit {
		return float64(v+snap) - snap
	}
	return quantiseWide(v)
}

func quantiseWide(v float64) float64 {
	if v < 0x1p12 && v > -0x1p12 {
		return float64(math.RoundToEven(v*perUnit) * quantum)
	}
	return v
}

// Quantise rounds v to the nearest multiple of 2⁻⁴⁰, ties to even, as the terms of a logit are rounded. Sums of such numbers are
// exact, in any order, while the magnitudes of all together stay below 8192.
func Quantise(v float64) float64 { return quantise(v) }

// Logit returns the log-odds of label 1:
//
//	q(Intercept) + q(Weights[0]·x[0]) + q(Weights[1]·x[1]) + ...
//
// where q rounds to a multiple of 2⁻⁴⁰, added from left to right. While all
// terms together stay below 8192 in magnitude the additions are exact. The bits
// are the same on every CPU. A NaN in x gives NaN.
//
// It panics unless len(x) == len(Weights).
func (m Model) Logit(x []float64) float64 {
	if len(x) != len(m.Weights) {
		panicLength("x", len(x), len(m.Weights))
	}
	z := quantise(m.Intercept)
	for j, w := range m.Weights {
		z += quantise(float64(w * x[j]))
	}
	return z
}

// Prob returns the probability of label 1, Sigmoid(Logit(x)).
func (m Model) Prob(x []float64) float64 {
	return Sigmoid(m.Logit(x))
}

// Logits writes the log-odds of each row of X into dst. It panics unless
// len(dst) == X.Rows and X.Cols == len(Weights).
func (m Model) Logits(dst []float64, X Matrix) {
	if len(dst) != X.Rows {
		panicLength("dst", len(dst), X.Rows)
	}
	if X.Cols != len(m.Weights) {
		panicLength("Weights", len(m.Weights), X.Cols)
	}
	i := 0
	for ; i+4 <= len(dst); i += 4 {
		m.logits4((*[4]float64)(dst[i:]), X.Row(i), X.Row(i+1), X.Row(i+2), X.Row(i+3))
	}
	for ; i < len(dst); i++ {
		dst[i] = m.Logit(X.Row(i))
	}
}

// logits4 is Logit of four rows, whose sums do not wait for each other. Whether all terms
// are small enough for the short way of quantise is seen from the exponents of term+snap,
// after the fact.
func (m Model) logits4(dst *[4]float64, a, b, c, d []float64) {
	weights := m.Weights
	a, b, c, d = a[:len(weights)], b[:len(weights)], c[:len(weights)], d[:len(weights)]
	p := quantise(m.Intercept)
	q, r, s := p, p, p
	every, some := ^uint64(0), uint64(0)
	for j, w := range weights {
		e := float64(w*a[j]) + snap
		f := float64(w*b[j]) + snap
		g := float64(w*c[j]) + snap
		h := float64(w*d[j]) + snap
		every &= math.Float64bits(e) & math.Float64bits(f) & math.Float64bits(g) & math.Float64bits(h)
		some |= math.Float64bits(e) | math.Float64bits(f) | math.Float64bits(g) | math.Float64bits(h)
		p += e - snap
		q += f - snap
		r += g - snap
		s += h - snap
	}
	const exponent = 1023 + 12
	if len(weights) > 0 && (every>>52 != exponent || some>>52 != exponent) {
		p, q, r, s = m.Logit(a), m.Logit(b), m.Logit(c), m.Logit(d)
	}
	dst[0], dst[1], dst[2], dst[3] = p, q, r, s
}

// Probs writes the probability of label 1 for each row of X into dst. It panics
// unless len(dst) == X.Rows and X.Cols == len(Weights).
func (m Model) Probs(dst []float64, X Matrix) {
	m.Logits(dst, X)
	for i, z := range dst {
		dst[i] = Sigmoid(z)
	}
}

// Contributions explains Logit(x) against a baseline. It writes into dst[j] by
// how much column j moves the log-odds when it goes from baseline[j] to x[j],
//
//	dst[j] = q(Weights[j]·x[j]) - q(Weights[j]·baseline[j])
//
// and returns base = Logit(baseline), the log-odds of the baseline itself; q is
// the rounding that [Model.Logit] describes. A nil baseline means all zeros, and
// then base = q(Intercept).
//
//	base + dst[0] + dst[1] + ... == Logit(x)
//
// holds bit for bit, in any order of addition, while |Intercept| + Σ|w·x| +
// 2Σ|w·baseline| stays below 8192. (At a logit of 745 the probability of the
// other label is no longer a float64.) Beyond, with a nil baseline it holds from
// left to right, and otherwise to rounding.
//
// It allocates nothing, and panics unless dst, x and a baseline that is not nil
// have the length of Weights. dst may be x.
func (m Model) Contributions(dst, x, baseline []float64) (base float64) {
	if len(x) != len(m.Weights) {
		panicLength("x", len(x), len(m.Weights))
	}
	if len(dst) != len(m.Weights) {
		panicLength("dst", len(dst), len(m.Weights))
	}
	base = quantise(m.Intercept)
	if baseline == nil {
		for j, w := range m.Weights {
			dst[j] = quantise(float64(w * x[j]))
		}
		return base
	}
	if len(baseline) != len(m.Weights) {
		panicLength("baseline", len(baseline), len(m.Weights))
	}
	for j, w := range m.Weights {
		b := quantise(float64(w * baseline[j]))
		dst[j] = quantise(float64(w*x[j])) - b
		base += b
	}
	return base
}

func panicLength(what string, got, want int) {
	panic(fmt.Sprintf("lr: length of %s is %d, want %d", what, got, want))
}

// Sigmoid returns 1/(1+e⁻ᶻ), the probability that belongs to log-odds z. It never
// overflows: far below zero it goes through the denormal numbers to 0 (at -745.2),
// far above it is 1. The bits are the same on every CPU. Sigmoid(NaN) is NaN.
func Sigmoid(z float64) float64 {
	if z >= 0 {
		return 1 / (1 + Exp(-z))
	}
	e := Exp(z)
	return e / (1 + e)
}
