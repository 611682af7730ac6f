package lr

import "math"

// The algorithms and constants of Exp, Log and Log1p are those of FreeBSD's
// msun (e_exp.c, e_log.c, s_log1p.c), which came with this notice:
//
//	Copyright (C) 2004 by Sun Microsystems, Inc. All rights reserved.
//	Permission to use, copy, modify, and distribute this
//	software is freely granted, provided that this notice
//	is preserved.
//
// Every product that is added to something is converted explicitly, which
// forbids the compiler to fuse the two (Go specification, "Floating-point
// operators"). What remains are single IEEE 754 operations, which have one
// correct result, so the bits are the same on every CPU. math.Exp gives no such
// promise: on amd64 it is assembly that takes another path where the CPU has
// FMA, and on other architectures it is other assembly or fused by the compiler.

const (
	ln2Hi = 6.93147180369123816490e-01 // the upper bits of ln 2; times any exponent it is exact
	ln2Lo = 1.90821492927058770002e-10 // ln 2 - ln2Hi
)

// Exp returns e**x with an error below 1 ulp and the same bits on every CPU.
// It overflows to +Inf above 709.78 and goes through the denormal numbers to 0
// below -745.13. Exp(NaN) is NaN.
func Exp(x float64) float64 {
	const (
		log2e     = 1.44269504088896338700e+00
		overflow  = 7.09782712893383973096e+02
		underflow = -7.45133219101941108420e+02
		nearZero  = 0x1p-28

		p1 = 1.66666666666666657415e-01
		p2 = -2.77777777770155933842e-03
		p3 = 6.61375632143793436117e-05
		p4 = -1.65339022054652515390e-06
		p5 = 4.13813679705723846039e-08
	)
	switch {
	case x != x:
		return x
	case x > overflow:
		return math.Inf(1)
	case x < underflow:
		return 0
	case -nearZero < x && x < nearZero:
		return 1 + x
	}

	// x = k ln2 + r with |r| <= ln2/2, and r kept as hi - lo.
	half := 0.5
	if x < 0 {
		half = -0.5
	}
	k := int(float64(log2e*x) + half)
	hi := x - float64(float64(k)*ln2Hi)
	lo := float64(float64(k) * ln2Lo)

	// exp(r) = 1 + r + r c/(2-c), c = r - t(p1 + t(p2 + ...)), t = r².
	r := hi - lo
	t := float64(r * r)
	c := p4 + float64(t*p5)
	c = p3 + float64(t*c)
	c = p2 + float64(t*c)
	c = p1 + float64(t*c)
	c = r - float64(t*c)
	y := 1 - ((lo - float64(r*c)/(2-c)) - hi)

	// 2**k y. Outside the normal exponents in two steps, of which only the last
	// can round.
	switch {
	case k > 1023:
		return float64(float64(y*2) * pow2(k-1))
	case k < -1022:
		return float64(float64(y*pow2(k+64)) * 0x1p-64)
	}
	return float64(y * pow2(k))
}

// pow2 returns 2**k for -1022 <= k <= 1023.
func pow2(k int) float64 {
	return math.Float64frombits(uint64(k+1023) << 52)
}

// logTail returns s(f²/2 + R), where s = f/(2+f) and
// ln(1+f) = f - f²/2 + s(f²/2 + R) for sqrt(1/2) < 1+f < sqrt(2).
func logTail(f, hfsq float64) float64 {
	const (
		l1 = 6.666666666666735130e-01
		l2 = 3.999999999940941908e-01
		l3 = 2.857142874366239149e-01
		l4 = 2.222219843214978396e-01
		l5 = 1.818357216161805012e-01
		l6 = 1.531383769920937332e-01
		l7 = 1.479819860511658591e-01
	)
	s := f / (2 + f)
	z := float64(s * s)
	r := l6 + float64(z*l7)
	r = l5 + float64(z*r)
	r = l4 + float64(z*r)
	r = l3 + float64(z*r)
	r = l2 + float64(z*r)
	r = l1 + float64(z*r)
	return float64(s * (hfsq + float64(z*r)))
}

// Log returns the natural logarithm with an error below 1 ulp and the same bits
// on every CPU. Log(0) is -Inf, Log of a negative number or NaN is NaN.
func Log(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	m, e := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		e--
	}
	f := m - 1
	k := float64(e)
	hfsq := float64(float64(0.5*f) * f)
	return float64(k*ln2Hi) - ((hfsq - (logTail(f, hfsq) + float64(k*ln2Lo))) - f)
}

// Log1p returns ln(1+x), accurate also near x = 0, with an error below 1 ulp and
// the same bits on every CPU. Log1p(-1) is -Inf; below, and for NaN, it is NaN.
func Log1p(x float64) float64 {
	const (
		sqrt2M1     = 4.142135623730950488017e-01  // sqrt(2) - 1
		sqrt2HalfM1 = -2.928932188134524755992e-01 // sqrt(2)/2 - 1
		sqrt2Frac   = 0x0006a09e667f3bcd           // fraction bits of sqrt(2)
		fraction    = 0x000fffffffffffff
	)
	switch {
	case x != x || x < -1:
		return math.NaN()
	case x == -1:
		return math.Inf(-1)
	case x > math.MaxFloat64:
		return x
	}
	if ax := math.Abs(x); ax < 0x1p-29 {
		if ax < 0x1p-54 {
			return x
		}
		return x - float64(float64(x*x)*0.5)
	}
	if sqrt2HalfM1 < x && x < sqrt2M1 {
		hfsq := float64(float64(0.5*x) * x)
		return x - (hfsq - logTail(x, hfsq))
	}

	// 1+x = 2**k (1+f), and c makes up for what rounding 1+x lost.
	u, c := x, 0.0
	if x < 0x1p53 {
		u = 1 + x
		if u >= 2 {
			c = 1 - (u - x)
		} else {
			c = x - (u - 1)
		}
		c /= u
	}
	bits := math.Float64bits(u)
	k := int(bits>>52) - 1023
	bits &= fraction
	if bits < sqrt2Frac {
		u = math.Float64frombits(bits | 0x3ff0000000000000)
	} else {
		k++
		u = math.Float64frombits(bits | 0x3fe0000000000000)
	}
	f := u - 1
	kf := float64(k)
	c += float64(kf * ln2Lo)
	hfsq := float64(float64(0.5*f) * f)
	return float64(kf*ln2Hi) - ((hfsq - (logTail(f, hfsq) + c)) - f)
}
