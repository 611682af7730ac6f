//go:build !amd64 || purego

package lr

const fast = false

func rowLogits(z, x, weights, center []float64, first float64) {
	rowLogitsGo(z, x, weights, center, first)
}

func rowGradient(g, x, center, r []float64) { rowGradientGo(g, x, center, r) }

func rowSquares(h, x, center, curve []float64) { rowSquaresGo(h, x, center, curve) }

func rowRanges(sum, low, high, x []float64) { rowRangesGo(sum, low, high, x) }

func rowHessian(h, x, curve []float64, p, stride int) { rowHessianGo(h, x, curve, p, stride) }
