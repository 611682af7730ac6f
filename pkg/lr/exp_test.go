package lr

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// bigPrec is enough to tell the correct rounding of a float64 result.
const bigPrec = 300

// bigExp returns e**x by its power series at x/2⁶⁴, squared 64 times.
func bigExp(x *big.Float) *big.Float {
	r := new(big.Float).SetPrec(bigPrec).SetMantExp(x, -64)
	sum := big.NewFloat(1).SetPrec(bigPrec)
	term := big.NewFloat(1).SetPrec(bigPrec)
	for n := int64(1); n < 12; n++ {
		term.Mul(term, r)
		term.Quo(term, new(big.Float).SetInt64(n))
		sum.Add(sum, term)
	}
	for range 64 {
		sum.Mul(sum, sum)
	}
	return sum
}

// bigLog returns ln x by Halley's iteration on bigExp, which trebles the digits.
func bigLog(x *big.Float) *big.Float {
	f, _ := x.Float64()
	y := new(big.Float).SetPrec(bigPrec).SetFloat64(math.Log(f))
	for range 3 {
		e := bigExp(y)
		d := new(big.Float).SetPrec(bigPrec).Sub(x, e)
		d.Quo(d, new(big.Float).Add(x, e))
		y.Add(y, d.Add(d, d))
	}
	return y
}

// ulps returns how many units in the last place of want's rounding got is away
// from want.
func ulps(got float64, want *big.Float) float64 {
	w, _ := want.Float64()
	if got == w {
		return 0 // correctly rounded, however far within half a unit
	}
	unit := new(big.Float).SetFloat64(math.Nextafter(math.Abs(w), math.Inf(1)) - math.Abs(w))
	d := new(big.Float).SetPrec(bigPrec).Sub(want, new(big.Float).SetFloat64(got))
	u, _ := d.Quo(d, unit).Float64() // in big, since d can be less than a denormal number
	return math.Abs(u)
}

func TestExpAndLogsAgainstBigFloat(t *testing.T) {
	const seed, n = 11, 1500
	r := rand.New(rand.NewPCG(seed, 0))
	one := big.NewFloat(1)
	exact := func(x float64) *big.Float { return new(big.Float).SetPrec(bigPrec).SetFloat64(x) }
	uniform := func(lo, hi float64) func() float64 {
		return func() float64 { return lo + (hi-lo)*r.Float64() }
	}
	tiny := func() float64 { return math.Ldexp(r.Float64()-0.5, -r.IntN(80)) }
	anywhere := func() float64 { return math.Ldexp(1+r.Float64(), r.IntN(2046)-1022) }
	above1 := func() float64 { return math.Ldexp(1+r.Float64(), r.IntN(1023)) }
	for _, c := range []struct {
		name string
		got  func(float64) float64
		want func(float64) *big.Float
		draw func() float64
	}{
		{"Exp small", Exp, func(x float64) *big.Float { return bigExp(exact(x)) }, uniform(-2, 2)},
		{"Exp tiny", Exp, func(x float64) *big.Float { return bigExp(exact(x)) }, tiny},
		{"Exp wide", Exp, func(x float64) *big.Float { return bigExp(exact(x)) }, uniform(-708, 709.7)},
		{"Exp denormal", Exp, func(x float64) *big.Float { return bigExp(exact(x)) }, uniform(-745.1, -708)},
		{"Log near 1", Log, func(x float64) *big.Float { return bigLog(exact(x)) }, uniform(0.5, 2)},
		{"Log anywhere", Log, func(x float64) *big.Float { return bigLog(exact(x)) }, anywhere},
		{"Log1p of probabilities", Log1p, func(x float64) *big.Float { return bigLog(exact(x).Add(exact(x), one)) }, uniform(0, 1)},
		{"Log1p below 0", Log1p, func(x float64) *big.Float { return bigLog(exact(x).Add(exact(x), one)) }, uniform(-1, 0)},
		{"Log1p tiny", Log1p, func(x float64) *big.Float { return bigLog(exact(x).Add(exact(x), one)) }, tiny},
		{"Log1p large", Log1p, func(x float64) *big.Float { return bigLog(exact(x).Add(exact(x), one)) }, above1},
	} {
		worst, at := 0.0, 0.0
		for range n {
			x := c.draw()
			if u := ulps(c.got(x), c.want(x)); u > worst {
				worst, at = u, x
			}
		}
		if worst >= 1 {
			t.Errorf("%s: off by %.3f ulp at %v, want < 1 (seed %d)", c.name, worst, at, seed)
		}
		t.Logf("%s: worst %.3f ulp at %v", c.name, worst, at)
	}
}

func TestExpAndLogsAgainstMath(t *testing.T) {
	const seed = 12
	r := rand.New(rand.NewPCG(seed, 0))
	apart := func(a, b float64) uint64 {
		x, y := math.Float64bits(a), math.Float64bits(b)
		return max(x, y) - min(x, y)
	}
	for range 200_000 {
		x := (r.Float64() - 0.5) * 1416 // math.Exp's assembly overflows before its time
		if d := apart(Exp(x), math.Exp(x)); d > 2 {
			t.Fatalf("Exp(%v) = %v, math.Exp %v: %d apart (seed %d)", x, Exp(x), math.Exp(x), d, seed)
		}
		x = math.Ldexp(r.Float64(), r.IntN(2000)-1000)
		if d := apart(Log(x), math.Log(x)); d > 2 {
			t.Fatalf("Log(%v) = %v, math.Log %v: %d apart (seed %d)", x, Log(x), math.Log(x), d, seed)
		}
		if d := apart(Log1p(x), math.Log1p(x)); d > 2 {
			t.Fatalf("Log1p(%v) = %v, math.Log1p %v: %d apart (seed %d)", x, Log1p(x), math.Log1p(x), d, seed)
		}
	}
}

func TestExpAndLogsSpecialCases(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	const denormal = 5e-324
	for _, c := range []struct {
		name    string
		f       func(float64) float64
		x, want float64
	}{
		{"Exp", Exp, 0, 1}, {"Exp", Exp, inf, inf}, {"Exp", Exp, -inf, 0}, {"Exp", Exp, nan, nan},
		{"Exp", Exp, 709.782712893384, 1.7976931348622732e308}, {"Exp", Exp, 709.7827128933841, inf},
		{"Exp", Exp, 800, inf}, {"Exp", Exp, -800, 0}, {"Exp", Exp, -745.1332191019411, denormal}, {"Exp", Exp, -745.1332191019412, 0},
		{"Exp", Exp, denormal, 1}, {"Exp", Exp, -denormal, 1},
		{"Log", Log, 1, 0}, {"Log", Log, 0, -inf}, {"Log", Log, -1, nan}, {"Log", Log, -inf, nan}, {"Log", Log, inf, inf}, {"Log", Log, nan, nan},
		{"Log", Log, denormal, -744.4400719213812}, {"Log", Log, math.MaxFloat64, 709.782712893384},
		{"Log1p", Log1p, 0, 0}, {"Log1p", Log1p, -1, -inf}, {"Log1p", Log1p, -1.5, nan}, {"Log1p", Log1p, -inf, nan},
		{"Log1p", Log1p, inf, inf}, {"Log1p", Log1p, nan, nan}, {"Log1p", Log1p, denormal, denormal}, {"Log1p", Log1p, 1, math.Ln2},
		{"Log1p", Log1p, math.MaxFloat64, 709.782712893384},
	} {
		got := c.f(c.x)
		if got != c.want && !(math.IsNaN(got) && math.IsNaN(c.want)) {
			t.Errorf("%s(%v) = %v, want %v", c.name, c.x, got, c.want)
		}
	}
	if !math.Signbit(Log1p(math.Copysign(0, -1))) {
		t.Error("Log1p(-0) lost its sign")
	}
}
