package trainer

import (
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

// pull draws the weights of a fusion towards equal ones, in units of the loss of all rows: it matters where rows are few.
const pull = 10

// leastSay is what the weights of a fusion sum to at least. Members that were of no use on the later rows, because the world had
// changed, then still put records in an order, near the rate of those rows.
const leastSay = 0.2

// fuse finds weights, none below 0, and a bias for the logits of some members, by row: those of least
//
//	Σ loss(σ(bias + Σ wₘ·logitₘ), y) + pull/2 Σ (wₘ - 1/k)²,  k members
//
// (stacking: Wolpert 1992; none below 0: Breiman, Stacked regressions, 1996). The rows are such that the members had not learned
// from. A member that says nothing of its own gets 0. The slope that calibrates is in the weights, which need not sum to 1.
func fuse(members [][]float64, y []float64) (weights []float64, bias float64) {
	k := len(members)
	f := fusing{members: members, y: y, x: make([]float64, k+1)}
	theta := make([]float64, k+1)
	for i := range k {
		theta[i] = 1 / float64(k)
	}
	f.descend(theta, false)
	sum := 0.0
	for _, w := range theta[:k] {
		sum += w
	}
	if sum < leastSay {
		for i := range k {
			theta[i] = leastSay / float64(k)
		}
		f.descend(theta, true)
	}
	return theta[:k], theta[k]
}

// descend moves theta to the least loss, or the bias alone.
func (f *fusing) descend(theta []float64, biasOnly bool) {
	k := len(f.members)
	loss := f.loss(theta)
	for range 100 {
		f.derive(theta)
		step := f.step(theta, biasOnly)
		size, shorter := 1.0, false
		next := make([]float64, len(theta))
		var moved float64
		for range 40 {
			moved = 0
			for i := range next {
				next[i] = theta[i] - float64(size*step[i])
				if i < k {
					next[i] = max(next[i], 0)
				}
				moved = max(moved, math.Abs(next[i]-theta[i]))
			}
			if l := f.loss(next); l < loss {
				loss, shorter = l, true
				break
			}
			size /= 2
		}
		if !shorter || moved < 1e-9 {
			break
		}
		copy(theta, next)
	}
}

// fusing is the objective of fuse and its derivatives, the bias last.
type fusing struct {
	members  [][]float64
	y        []float64
	x        []float64 // of a row
	gradient []float64
	hessian  [][]float64
}

func (f *fusing) logit(theta []float64, row int) float64 {
	k := len(f.members)
	z := theta[k]
	for m, logits := range f.members {
		f.x[m] = logits[row]
		z += float64(theta[m] * logits[row])
	}
	f.x[k] = 1
	return z
}

func (f *fusing) loss(theta []float64) float64 {
	sum := 0.0
	for i, y := range f.y {
		z := f.logit(theta, i)
		if y == 1 {
			z = -z
		}
		sum += max(z, 0) + lr.Log1p(lr.Exp(-math.Abs(z)))
	}
	for _, w := range theta[:len(f.members)] {
		d := w - 1/float64(len(f.members))
		sum += float64(pull / 2 * float64(d*d))
	}
	return sum
}

func (f *fusing) derive(theta []float64) {
	k := len(f.members)
	f.gradient, f.hessian = make([]float64, len(theta)), make([][]float64, len(theta))
	for i := range f.hessian {
		f.hessian[i] = make([]float64, len(theta))
	}
	for r, y := range f.y {
		p := lr.Sigmoid(f.logit(theta, r))
		h := float64(p * (1 - p))
		for i, v := range f.x {
			f.gradient[i] += float64((p - y) * v)
			for j := range i + 1 {
				f.hessian[i][j] += float64(float64(h*v) * f.x[j])
			}
		}
	}
	for i := range k {
		f.gradient[i] += float64(pull * (theta[i] - 1/float64(k)))
		f.hessian[i][i] += pull
	}
	f.hessian[k][k] += 1e-9
}

// step is Newton's among the weights that are not held at 0.
func (f *fusing) step(theta []float64, biasOnly bool) []float64 {
	k := len(f.members)
	var free []int
	for i := range theta {
		if i == k || !biasOnly && (theta[i] > 0 || f.gradient[i] < 0) {
			free = append(free, i)
		}
	}
	n := len(free)
	a := make([][]float64, n)
	for i, fi := range free {
		a[i] = make([]float64, n+1)
		for j, fj := range free {
			a[i][j] = f.hessian[max(fi, fj)][min(fi, fj)]
		}
		a[i][n] = f.gradient[fi]
	}
	for i := range n { // positive definite: no pivoting
		for r := range n {
			if r == i {
				continue
			}
			by := a[r][i] / a[i][i]
			for c := i; c <= n; c++ {
				a[r][c] -= float64(by * a[i][c])
			}
		}
	}
	out := make([]float64, len(theta))
	for i, fi := range free {
		out[fi] = a[i][n] / a[i][i]
	}
	return out
}
