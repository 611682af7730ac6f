package lr

import (
	"fmt"
	"math"
)

const (
	// maxSweeps bounds the work on one quadratic model. One that it does not suffice for
	// still gives a step downhill.
	maxSweeps = 3000
	// sweepAccuracy is the share of the tolerance to which the model is minimised.
	sweepAccuracy = 1e-2
)

// proximalStep finds the step u - w to the minimum of the quadratic model with the L1
// part,
//
//	gradient·(u-w) + ½ (u-w)ᵀH(u-w) + lambda Σ|uⱼ|,
//
// by coordinate descent. When a sweep leaves the signs of u as they were, they are
// assumed to be the minimum's, and it is found by Cholesky's decomposition; that it is
// one is then tested.
func (s *search) proximalStep() error {
	q := newQuadratic(s.at, s.cols+1, s.lambda)
	for j, d := range q.curvature {
		if !(d >= 0 && d <= math.MaxFloat64) {
			return fmt.Errorf("lr: iteration %d: the curvature of parameter %d (0 is the intercept) is not a positive number", s.iterations, j)
		}
	}
	enough := float64(float64(sweepAccuracy*s.tolerance)*sweepAccuracy*s.tolerance) * s.meanRow
	for sweep := 0; sweep < maxSweeps; sweep++ {
		moved, turned := q.sweep()
		if moved <= enough {
			break
		}
		// A failed attempt costs as much as many sweeps.
		if !turned && sweep%8 == 7 && q.polish() {
			break
		}
	}
	for j, u := range q.u {
		s.step[j] = u - s.at.theta[j]
	}
	s.damped = false
	change, bend := q.promise()
	s.slope = max(-change, 0)
	s.decrement = math.Sqrt(max(bend, 0) / s.meanRow)
	return nil
}

// quadratic is the model of the objective around w.
type quadratic struct {
	n         int       // parameters, of which the first is not penalised
	hessian   []float64 // n x n, both triangles
	curvature []float64 // its diagonal
	gradient  []float64 // at w
	lambda    float64
	w, u      []float64
	slope     []float64 // gradient + H(u-w)
}

func newQuadratic(e *evaluation, n int, lambda float64) *quadratic {
	p := len(e.theta)
	q := &quadratic{n: n, lambda: lambda, gradient: e.gradient[:n], w: e.theta[:n],
		hessian: make([]float64, n*n), curvature: make([]float64, n),
		u: append([]float64(nil), e.theta[:n]...), slope: append([]float64(nil), e.gradient[:n]...)}
	for j := range n {
		for k := range j + 1 {
			v := e.hessian[j*p+k]
			q.hessian[j*n+k], q.hessian[k*n+j] = v, v
		}
		q.curvature[j] = q.hessian[j*n+j]
	}
	return q
}

// sweep minimises the model by each parameter in turn. moved is the largest distance
// times curvature; turned tells whether a sign of u has changed.
func (q *quadratic) sweep() (moved float64, turned bool) {
	for j, old := range q.u {
		h := q.curvature[j]
		if h < smallest {
			// A constant column: whatever its weight does, the intercept can do.
			continue
		}
		u := float64(old*h) - q.slope[j]
		if j > 0 {
			u = shrink(u, q.lambda)
		}
		u /= h
		d := u - old
		if d == 0 {
			continue
		}
		q.u[j] = u
		turned = turned || j > 0 && sign(u) != sign(old)
		moved = max(moved, float64(float64(d*h)*d))
		row := q.hessian[j*q.n : (j+1)*q.n]
		slope := q.slope[:len(row)]
		for k, v := range row {
			slope[k] += float64(d * v)
		}
	}
	return moved, turned
}

// polish minimises the model by the parameters that are not 0, as if their signs were
// known, and keeps the result if it is the model's minimum.
func (q *quadratic) polish() bool {
	var active []int
	for j, u := range q.u {
		if j == 0 || u != 0 {
			active = append(active, j)
		}
	}
	n := len(active)
	h, b, x := make([]float64, n*n), make([]float64, n), make([]float64, n)
	for i, j := range active {
		for k, l := range active {
			h[i*n+k] = q.hessian[j*q.n+l]
		}
		b[i] = -q.slope[j] - float64(q.lambda*sign(q.u[j]))
		if j == 0 {
			b[i] = -q.slope[j]
		}
	}
	c := newCholesky(n, n)
	if c.decompose(h, 0, pivotFloor) >= 0 {
		return false
	}
	c.solve(x, b)
	for i, j := range active {
		if j > 0 && sign(q.u[j]+x[i]) != sign(q.u[j]) {
			return false
		}
	}
	for i, j := range active {
		q.u[j] += x[i]
	}
	// Afresh, without what the sweeps have left of rounding.
	d := make([]float64, q.n)
	for j, u := range q.u {
		d[j] = u - q.w[j]
	}
	minimum := true
	for j := range q.n {
		q.slope[j] = q.gradient[j] + dot(q.hessian[j*q.n:(j+1)*q.n], d)
		if j > 0 && q.u[j] == 0 && math.Abs(q.slope[j]) > q.lambda*(1+1e-13) {
			minimum = false
		}
	}
	return minimum
}

// promise returns by how much the step changes the model without its quadratic term,
// and that term twice.
func (q *quadratic) promise() (change, bend float64) {
	for j, u := range q.u {
		d := u - q.w[j]
		change += float64(q.gradient[j] * d)
		if j > 0 {
			change += float64(q.lambda * (math.Abs(u) - math.Abs(q.w[j])))
		}
		bend += float64((q.slope[j] - q.gradient[j]) * d)
	}
	return change, bend
}

// shrink moves v towards 0 by size, and no further.
func shrink(v, size float64) float64 {
	switch {
	case v > size:
		return v - size
	case v < -size:
		return v + size
	}
	return 0
}

func sign(v float64) float64 {
	switch {
	case v > 0:
		return 1
	case v < 0:
		return -1
	}
	return 0
}
