package feature

import "math"

// The functions here give the same bits on every processor. Those of package math need not: some are written in
// assembly on some processors, and where there is a fused multiply-add the compiler may use it. It may not across
// an explicit conversion, hence float64(a*b) + c.

// log1p is log(1 + x) for x >= 0, within 1 unit in the last place. It follows FreeBSD's s_log1p.c, as math.Log1p does.
func log1p(x float64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
	)
	if x < 1.0/(1<<54) {
		return x
	}
	// 1 + x = 2^k u, sqrt(2)/2 < u < sqrt(2), f = u - 1; c corrects the rounding of 1 + x.
	var f, c float64
	k := 0
	if x < 4.142135623730950488017e-01 {
		f = x
	} else {
		u := x
		if x < 1<<53 {
			u = 1 + x
			c = (1 - (u - x)) / u
		}
		frac, exp := math.Frexp(u) // frac in [1/2, 1)
		if frac < math.Sqrt2/2 {
			frac, exp = 2*frac, exp-1
		}
		f, k = frac-1, exp
	}
	hfsq := float64(float64(0.5*f) * f)
	s := f / (2 + f)
	z := float64(s * s)
	r := 1.479819860511658591e-01
	for _, a := range [...]float64{1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
		2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01} {
		r = float64(r*z) + a
	}
	r = float64(r * z)
	if k == 0 {
		return f - (hfsq - float64(s*(hfsq+r)))
	}
	kf := float64(k)
	low := float64(kf*ln2Lo) + c
	return float64(kf*ln2Hi) - ((hfsq - (float64(s*(hfsq+r)) + low)) - f)
}

// asinh is log(x + sqrt(x^2 + 1)) for finite x.
func asinh(x float64) float64 {
	a := math.Abs(x)
	var y float64
	switch {
	case a < 1.0/(1<<28): // the next term is x^3 / 6
		y = a
	case a > 1e150: // x^2 would overflow, and 1 has long been lost beside it
		y = log1p(a) + math.Ln2
	default:
		aa := float64(a * a)
		y = log1p(a + aa/(1+math.Sqrt(aa+1)))
	}
	return math.Copysign(y, x)
}

// signedLog1p is log(1 + |x|) with the sign of x.
func signedLog1p(x float64) float64 { return math.Copysign(log1p(math.Abs(x)), x) }

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
