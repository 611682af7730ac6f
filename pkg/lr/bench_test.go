package lr

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// generate makes rows of which the columns are uniform on [-√3, √3) (mean 0,
// variance 1) and the labels follow a logistic model. It calls no function that
// differs between CPUs, so it gives the same sample everywhere.
func generate(seed uint64, rows, cols int) sample {
	r := rand.New(rand.NewPCG(seed, 1))
	truth := make([]float64, cols)
	for j := range truth {
		truth[j] = (r.Float64() - 0.5) * 2
	}
	s := sample{X: Matrix{Rows: rows, Cols: cols, Data: make([]float64, rows*cols)}, y: make([]float64, rows)}
	for i := range rows {
		row := s.X.Row(i)
		z := -1.0
		for j := range row {
			row[j] = (r.Float64() - 0.5) * 3.4641016151377544
			z += float64(truth[j] * row[j])
		}
		if r.Float64() < Sigmoid(z) {
			s.y[i] = 1
		}
	}
	return s
}

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
