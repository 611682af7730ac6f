package feature

import (
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

// The functions here give the same bits on every processor. Those of package math need not: some are written in
// assembly on some processors, and where there is a fused multiply-add the compiler may use it. It may not across
// an explicit conversion, hence float64(a*b) + c.

// asinh is log(x + sqrt(x^2 + 1)) for finite x.
func asinh(x float64) float64 {
	a := math.Abs(x)
	var y float64
	switch {
	case a < 1.0/(1<<28): // the next term is x^3 / 6
		y = a
	case a > 1e150: // x^2 would overflow, and 1 has long been lost beside it
		y = lr.Log1p(a) + math.Ln2
	default:
		aa := float64(a * a)
		y = lr.Log1p(a + aa/(1+math.Sqrt(aa+1)))
	}
	return math.Copysign(y, x)
}

// SignedLog1p is log(1 + |x|) with the sign of x, the same bits on every processor.
func SignedLog1p(x float64) float64 { return math.Copysign(lr.Log1p(math.Abs(x)), x) }

// sinCosTurn is the sine and cosine of 2 pi k / n, 0 <= k < n, exact where it is 0 or 1 in magnitude.
func sinCosTurn(k, n int) (sin, cos float64) {
	switch {
	case 2*k > n:
		sin, cos = sinCosTurn(n-k, n)
		return -sin, cos
	case 4*k > n: // sin(pi - x) = sin x, cos(pi - x) = -cos x
		sin, cos = sinCosAngle(math.Pi * (float64(n-2*k) / float64(n)))
		return sin, -cos
	}
	return sinCosAngle(math.Pi * (float64(2*k) / float64(n)))
}

// sinCosAngle sums the Taylor series for 0 <= x <= pi/2.
func sinCosAngle(x float64) (sin, cos float64) {
	if x == math.Pi/2 {
		return 1, 0
	}
	xx := float64(x * x)
	sin, cos = 1, 1
	for i := 24; i >= 2; i -= 2 { // Horner, from x^25/25! and x^24/24! down
		sin = 1 - float64(xx*sin)/float64(i*(i+1))
		cos = 1 - float64(xx*cos)/float64((i-1)*i)
	}
	return float64(x * sin), cos
}
