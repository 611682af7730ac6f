package lr

import "math"

// cholesky solves with a symmetric positive definite matrix of n rows, stored in a
// square of stride p. It scales the diagonal to 1 first, so that a column's unit
// does not matter, and adds in a fixed order without fused operations, so that it
// gives the same bits on every CPU (which a BLAS with assembly does not promise).
type cholesky struct {
	n, p   int
	l      []float64 // n x n lower triangle, stride n
	factor []float64 // 1/sqrt of the diagonal before scaling
}

func newCholesky(n, p int) *cholesky {
	return &cholesky{n: n, p: p, l: make([]float64, n*n), factor: make([]float64, n)}
}

// decompose factors a + ridge·diag(a). A pivot is 1 less the share of a row that
// the rows before it express. The first below floor ends the work: its index is
// returned, and -1 if there is none.
func (c *cholesky) decompose(a []float64, ridge, floor float64) (failed int) {
	n := c.n
	for j := range n {
		d := a[j*c.p+j]
		if !(d > 0 && d <= math.MaxFloat64) {
			return j
		}
		c.factor[j] = 1 / math.Sqrt(d)
	}
	for j := range n {
		row := c.l[j*n : j*n+j+1]
		for k := range j {
			other := c.l[k*n : k*n+k+1]
			scaled := float64(float64(a[j*c.p+k]*c.factor[j]) * c.factor[k])
			row[k] = (scaled - dot(row[:k], other[:k])) / other[k]
		}
		pivot := 1 + ridge - dot(row[:j], row[:j])
		if !(pivot > floor) {
			return j
		}
		row[j] = math.Sqrt(pivot)
	}
	return -1
}

// solve writes the solution of (what was decomposed)·x = b into x.
func (c *cholesky) solve(x, b []float64) {
	n := c.n
	for j := range n {
		row := c.l[j*n : j*n+j+1]
		x[j] = (float64(b[j]*c.factor[j]) - dot(row[:j], x[:j])) / row[j]
	}
	for j := n - 1; j >= 0; j-- {
		row := c.l[j*n : j*n+j+1]
		x[j] /= row[j]
		for k, v := range row[:j] {
			x[k] -= float64(v * x[j])
		}
	}
	for j := range n {
		x[j] *= c.factor[j]
	}
}

// dot sums in four strands, of every fourth product each, and then the strands.
func dot(a, b []float64) float64 {
	b = b[:len(a)]
	var s, t, u, v float64
	for len(a) >= 4 && len(b) >= 4 {
		s += float64(a[0] * b[0])
		t += float64(a[1] * b[1])
		u += float64(a[2] * b[2])
		v += float64(a[3] * b[3])
		a, b = a[4:], b[4:]
	}
	for i := range a {
		s += float64(a[i] * b[i])
	}
	return (s + t) + (u + v)
}
