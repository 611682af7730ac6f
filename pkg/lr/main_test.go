package lr

import (
	"math/rand/v2"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
