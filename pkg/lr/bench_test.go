package lr

import (
	"fmt"
	"testing"
)

func BenchmarkFit(b *testing.B) {
	for _, size := range []struct{ rows, cols int }{{10_000, 30}, {1_000_000, 30}, {200_000, 100}} {
		b.Run(fmt.Sprintf("%dx%d", size.rows, size.cols), func(b *testing.B) {
			s := generate(1, size.rows, size.cols)
			b.ReportAllocs()
			for b.Loop() {
				r, err := Fit(b.Context(), s.X, s.y, Options{})
				if err != nil || !r.Converged {
					b.Fatal(r, err)
				}
				b.ReportMetric(float64(r.Passes), "passes")
			}
		})
	}
}

func BenchmarkLogits900x30(b *testing.B) {
	s := generate(1, 900, 30)
	m := Model{Intercept: -1, Weights: s.X.Row(0)}
	dst := make([]float64, 900)
	b.ReportAllocs()
	for b.Loop() {
		m.Logits(dst, s.X)
	}
}

func BenchmarkProbs900x30(b *testing.B) {
	s := generate(1, 900, 30)
	m := Model{Intercept: -1, Weights: s.X.Row(0)}
	dst := make([]float64, 900)
	b.ReportAllocs()
	for b.Loop() {
		m.Probs(dst, s.X)
	}
}

func BenchmarkContributions30(b *testing.B) {
	s := generate(1, 3, 30)
	m := Model{Intercept: -1, Weights: s.X.Row(0)}
	dst := make([]float64, 30)
	b.ReportAllocs()
	for b.Loop() {
		m.Contributions(dst, s.X.Row(1), s.X.Row(2))
	}
}

func BenchmarkExp(b *testing.B) {
	x, sum := -5.0, 0.0
	for b.Loop() {
		x += 1e-7
		sum += Exp(x)
	}
	sink = sum
}

func BenchmarkEvaluate100k(b *testing.B) {
	s := generate(1, 100_000, 5)
	m := Model{Intercept: -1, Weights: s.X.Row(0)}
	p := make([]float64, s.X.Rows)
	m.Probs(p, s.X)
	for b.Loop() {
		if _, err := Evaluate(s.y, p); err != nil {
			b.Fatal(err)
		}
	}
}

var sink float64
