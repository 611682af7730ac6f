package lr

import "math"

// upperTail returns 1-Φ(z), the probability that a standard normal number exceeds z,
// with a relative error below 10⁻¹³ and the same bits on every CPU. (math.Erfc is
// compiled to other instructions on other CPUs.)
//
// Near 0 it adds up Marsaglia's series Φ(z) = ½ + φ(z)(z + z³/3 + z⁵/(3·5) + ...) (Journal of
// Statistical Software 11(4), 2004), and further out Laplace's continued fraction
// 1-Φ(z) = φ(z)/(z + 1/(z + 2/(z + 3/(z + ...)))) (Abramowitz and Stegun, 26.2.14).
func upperTail(z float64) float64 {
	const (
		series    = 2.0 // up to here
		fractions = 120 // enough for 10⁻¹⁶ at z = 2, where it converges most slowly
		root2Pi   = 2.506628274631000502
	)
	switch {
	case z != z:
		return z
	case z < 0:
		return 1 - upperTail(-z)
	case z > 40:
		return 0
	}
	// z² is split so that its rounding error does not reach the exponential: the
	// upper half of z has an exact square.
	high := float64(math.Float32frombits(math.Float32bits(float32(z)) &^ 0xfff))
	density := Exp(float64(-0.5*high*high)) * Exp(float64(-0.5*(z-high)*(z+high))) / root2Pi
	if z <= series {
		square := float64(z * z)
		sum, term := z, z
		for k := 3.0; term > float64(sum*0x1p-60); k += 2 {
			term = float64(term * square / k)
			sum += term
		}
		return 0.5 - float64(density*sum)
	}
	tail := z
	for k := float64(fractions); k >= 1; k-- {
		tail = z + k/tail
	}
	return density / tail
}

// twoSided returns the probability that a standard normal number lies at least as
// far from 0 as z.
func twoSided(z float64) float64 { return 2 * upperTail(math.Abs(z)) }

// quantile returns the z of which the interval -z to z holds the given share of the
// standard normal distribution: 1.96 for 0.95. It halves an interval until no number
// is left between its ends.
func quantile(level float64) float64 {
	low, high := 0.0, 40.0
	for {
		mid := low + float64(0.5*(high-low))
		if mid <= low || mid >= high {
			return high
		}
		if twoSided(mid) > 1-level {
			low = mid
		} else {
			high = mid
		}
	}
}

// checkLevel judges the confidence level of an interval.
func checkLevel(level float64) error {
	if !(level > 0 && level < 1) {
		return &OptionError{Option: "Level", Value: level, Want: "above 0 and below 1"}
	}
	return nil
}

// chiSquareTail returns the probability that a chi-square number of df >= 1 degrees
// of freedom exceeds x. For whole degrees it is a finite sum (Abramowitz and Stegun,
// 26.4.4 and 26.4.5): with h = x/2,
//
//	even df: e⁻ʰ Σ hⁱ/i!,                   0 <= i < df/2
//	odd df:  2(1-Φ(√x)) + e⁻ʰ Σ hⁱ/Γ(i+1), i = 1/2, 3/2, ... < df/2
//
// Each term is taken by its logarithm, since e⁻ʰ underflows where the sum does not.
func chiSquareTail(x float64, df int) float64 {
	if !(x > 0) {
		return 1
	}
	if x > math.MaxFloat64 {
		return 0
	}
	const logRootPi = 0.572364942924700087 // ln Γ(1/2)
	h := float64(0.5 * x)
	logH := Log(h)
	sum, i, logTerm := 0.0, 0.0, -h
	if df%2 == 1 {
		sum = twoSided(math.Sqrt(x))
		i = 0.5
		logTerm = float64(0.5*logH) - h - (logRootPi + Log(0.5)) // Γ(3/2) = Γ(1/2)/2
	}
	for ; i < float64(df)/2; i++ {
		sum += Exp(logTerm)
		logTerm += logH - Log(i+1)
	}
	return min(sum, 1)
}
