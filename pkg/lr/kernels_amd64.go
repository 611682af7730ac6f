//go:build !purego

package lr

import "golang.org/x/sys/cpu"

// fast tells whether the kernels in kernels_amd64.s are used. They have the bits of those in
// kernels.go, so that it matters to time alone. GODEBUG=cpu.avx2=off or the build tag purego
// does without them.
var fast = cpu.X86.HasAVX2

//go:noescape
func logitsAVX2(z, x, weights, center *float64, n, d int, masks *int64, first float64)

//go:noescape
func gradientAVX2(gradient, x, center, residual *float64, n, d int, masks *int64)

//go:noescape
func squaresAVX2(h, x, center, curve *float64, n, d int, masks *int64)

//go:noescape
func rangeAVX2(sum, low, high, x *float64, n, d int, masks *int64)

//go:noescape
func hessianAVX2(h0, h1, x, curve *float64, n, stride, j, k int, masks *int64)

// ones are masks: of the sixteen numbers from 16-k on, the first k are set. Kernels that take
// four at a time begin at fours.
var ones = [32]int64{-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}

const fours = 12

func rowLogits(z, x, weights, center []float64, first float64) {
	if !fast || len(z) == 0 {
		rowLogitsGo(z, x, weights, center, first)
		return
	}
	d := len(weights)
	x, center = x[:len(z)*d], center[:d]
	logitsAVX2(&z[0], &x[0], &weights[0], &center[0], len(z), d, &ones[fours], first)
}

func rowGradient(g, x, center, r []float64) {
	if !fast || len(r) == 0 {
		rowGradientGo(g, x, center, r)
		return
	}
	x, center = x[:len(r)*len(g)], center[:len(g)]
	gradientAVX2(&g[0], &x[0], &center[0], &r[0], len(r), len(g), &ones[fours])
}

func rowSquares(h, x, center, curve []float64) {
	if !fast || len(curve) == 0 {
		rowSquaresGo(h, x, center, curve)
		return
	}
	x, center = x[:len(curve)*len(h)], center[:len(h)]
	squaresAVX2(&h[0], &x[0], &center[0], &curve[0], len(curve), len(h), &ones[fours])
}

func rowRanges(sum, low, high, x []float64) {
	d := len(sum)
	if !fast || len(x) < d {
		rowRangesGo(sum, low, high, x)
		return
	}
	low, high = low[:d], high[:d]
	rangeAVX2(&sum[0], &low[0], &high[0], &x[0], len(x)/d, d, &ones[fours])
}

// rowHessian adds Σ curveᵢ·xᵢ·xᵢᵀ up to the diagonal, and by-products above it, to h, of p rows of
// p numbers, p even. x has rows of stride numbers, a multiple of 16, of which the first p count.
func rowHessian(h, x, curve []float64, p, stride int) {
	if len(curve) == 0 {
		return
	}
	h, x = h[:p*p], x[:len(curve)*stride]
	for j := 0; j < p; j += 2 {
		for k := 0; k <= j+1; k += 16 {
			hessianAVX2(&h[j*p+k], &h[(j+1)*p+k], &x[0], &curve[0], len(curve), stride, j, k, &ones[max(16-(p-k), 0)])
		}
	}
}
