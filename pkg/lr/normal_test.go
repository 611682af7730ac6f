package lr

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

func TestUpperTail(t *testing.T) {
	for z := -6.0; z < 37; z += 0.013 {
		want := math.Erfc(z/math.Sqrt2) / 2
		if got := upperTail(z); !(math.Abs(got-want) <= 1e-12*want) {
			t.Fatalf("tail of %v: got %v, want %v", z, got, want)
		}
	}
	if got := upperTail(0); got != 0.5 {
		t.Errorf("tail of 0: %v", got)
	}
	if got := upperTail(math.NaN()); got == got {
		t.Errorf("tail of NaN: %v", got)
	}
	if lo, hi := upperTail(math.Inf(-1)), upperTail(math.Inf(1)); lo != 1 || hi != 0 {
		t.Errorf("tails of -Inf and Inf: %v, %v", lo, hi)
	}
}

func TestQuantile(t *testing.T) {
	for _, level := range []float64{1e-6, 0.1, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1 - 1e-9} {
		want := distuv.UnitNormal.Quantile((1 + level) / 2)
		// Near 1 the level itself has few digits left.
		checkClose(t, "quantile", quantile(level), want, 1e-12+1e-14/(1-level))
	}
	for _, bad := range []float64{0, 1, -0.5, 95, math.NaN()} {
		if err := checkLevel(bad); err == nil {
			t.Errorf("level %v is no error", bad)
		}
	}
}

func TestChiSquareTail(t *testing.T) {
	for df := 1; df <= 301; df += 1 + df/7 {
		d := distuv.ChiSquared{K: float64(df)}
		for _, ratio := range []float64{0.01, 0.3, 0.8, 1, 1.2, 2, 5, 20} {
			x := ratio * float64(df)
			want := d.Survival(x)
			if got := chiSquareTail(x, df); !(math.Abs(got-want) <= 1e-10*want+1e-15) {
				t.Errorf("chi-square of %d beyond %v: got %v, want %v", df, x, got, want)
			}
		}
	}
	if chiSquareTail(0, 3) != 1 || chiSquareTail(-1, 2) != 1 || chiSquareTail(math.Inf(1), 2) != 0 {
		t.Error("beyond 0 everything lies, beyond infinity nothing")
	}
	// e⁻²⁰⁰⁰ is no float64, the tail at the mean of 4000 degrees is about a half.
	checkClose(t, "df 4000", chiSquareTail(4000, 4000), distuv.ChiSquared{K: 4000}.Survival(4000), 1e-10)
}
