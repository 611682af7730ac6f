package lr

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The kernels for the CPU have the bits of the Go code, and write nowhere else.
func TestKernelsHaveTheBitsOfTheirTwins(t *testing.T) {
	if !fast {
		t.Skip("this CPU has no kernels")
	}
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.IntRange(1, 70).Draw(t, "columns")
		n := rapid.IntRange(0, 40).Draw(t, "rows")
		number := rapid.OneOf(
			rapid.Float64Range(-3, 3),
			rapid.Float64Range(-1e90, 1e90),
			rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, -1, 1e-308, 5e-324, 1e90}))
		draw := func(n int, label string) []float64 {
			s := make([]float64, n, n+4)
			for i := range s {
				s[i] = number.Draw(t, label)
			}
			// Whoever writes past the end is seen.
			for i := range s[n : n+4] {
				s[n : n+4][i] = 12345
			}
			return s
		}
		twin := func(s []float64) []float64 { return append(make([]float64, 0, cap(s)), s[:cap(s)]...)[:len(s)] }
		same := func(kernel string, got, want []float64) {
			t.Helper()
			got, want = got[:cap(got)], want[:cap(got)]
			for i := range got {
				if math.Float64bits(got[i]) != math.Float64bits(want[i]) && !(math.IsNaN(got[i]) && math.IsNaN(want[i])) {
					t.Fatalf("%s of %d rows and %d columns: number %d is %x, the Go code gives %x", kernel, n, d, i, got[i], want[i])
				}
			}
		}
		x, center, weights, r := draw(n*d, "x"), draw(d, "center"), draw(d, "weights"), draw(n, "r")
		if n > 0 && rapid.Bool().Draw(t, "with a NaN") {
			x[rapid.IntRange(0, n*d-1).Draw(t, "place")] = rapid.SampledFrom([]float64{math.NaN(), math.Inf(1), math.Inf(-1)}).Draw(t, "what")
		}

		got := draw(n, "z")
		want := twin(got)
		rowLogits(got, x, weights, center, r0(r))
		rowLogitsGo(want, x, weights, center, r0(r))
		same("rowLogits", got, want)

		got = draw(d, "gradient")
		want = twin(got)
		rowGradient(got, x, center, r)
		rowGradientGo(want, x, center, r)
		same("rowGradient", got, want)

		got = draw(d, "squares")
		want = twin(got)
		rowSquares(got, x, center, r)
		rowSquaresGo(want, x, center, r)
		same("rowSquares", got, want)

		sum, low, high := draw(d, "sum"), draw(d, "low"), draw(d, "high")
		wantSum, wantLow, wantHigh := twin(sum), twin(low), twin(high)
		rowRanges(sum, low, high, x)
		rowRangesGo(wantSum, wantLow, wantHigh, x)
		same("rowRanges, sum", sum, wantSum)
		same("rowRanges, low", low, wantLow)
		same("rowRanges, high", high, wantHigh)

		p := (d + 1) / 2 * 2
		stride := rowStride(p)
		rows := draw(n*stride, "rows")
		got = draw(p*p, "Hessian")
		want = twin(got)
		rowHessian(got, rows, r, p, stride)
		rowHessianGo(want, rows, r, p, stride)
		for j := range p {
			same("rowHessian", got[j*p:j*p+j+1:j*p+j+1], want[j*p:j*p+j+1:j*p+j+1])
		}
		same("rowHessian, after the end", got[p*p:], want[p*p:])
	})
}

func r0(r []float64) float64 {
	if len(r) == 0 {
		return 0
	}
	return r[0]
}

// The Go code beside the definition, in the plain order where that is the definition.
func TestRowKernelsAgainstTheirDefinitions(t *testing.T) {
	const n = 21
	for d := 1; d <= 33; d++ {
		s := generate(uint64(d), n, d)
		x := s.X.Data
		center, weights := s.X.Row(n-1), s.X.Row(n-2)
		z, r := make([]float64, n), make([]float64, n)
		rowLogitsGo(z, x, weights, center, 0.25)
		for i := range n {
			r[i] = math.Sin(float64(i))
			want := 0.25
			for j, v := range s.X.Row(i) {
				want += weights[j] * (v - center[j])
			}
			if math.Abs(z[i]-want) > 1e-13*float64(d) {
				t.Fatalf("%d columns: the logit of row %d is %v, want %v", d, i, z[i], want)
			}
		}
		g, h := make([]float64, d), make([]float64, d)
		sum, low, high := make([]float64, d), make([]float64, d), make([]float64, d)
		for j := range d {
			low[j], high[j] = math.Inf(1), math.Inf(-1)
		}
		rowGradientGo(g, x, center, r)
		rowSquaresGo(h, x, center, r)
		rowRangesGo(sum, low, high, x)
		for j := range d {
			var wantG, wantH, wantSum float64
			wantLow, wantHigh := math.Inf(1), math.Inf(-1)
			for i := range n {
				v := s.X.Row(i)[j]
				u := v - center[j]
				wantG += float64(r[i] * u)
				wantH += float64(float64(r[i]*u) * u)
				wantSum += v
				wantLow, wantHigh = min(wantLow, v), max(wantHigh, v)
			}
			if g[j] != wantG || h[j] != wantH || sum[j] != wantSum || low[j] != wantLow || high[j] != wantHigh {
				t.Fatalf("column %d of %d: %v %v %v %v %v, want %v %v %v %v %v", j, d,
					g[j], h[j], sum[j], low[j], high[j], wantG, wantH, wantSum, wantLow, wantHigh)
			}
		}
	}
}
