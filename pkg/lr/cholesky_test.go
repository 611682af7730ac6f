package lr

import (
	"math"
	"math/rand/v2"
	"testing"

	"gonum.org/v1/gonum/mat"
)

func TestCholeskyAgainstGonum(t *testing.T) {
	const seed = 81
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		n := 1 + r.IntN(40)
		p := padded(n - 1)
		// A = BᵀB + I with columns of very different units.
		b := mat.NewDense(n+3, n, nil)
		b.Apply(func(int, int, float64) float64 { return r.Float64() - 0.5 }, b)
		var square mat.Dense
		square.Mul(b.T(), b)
		units := make([]float64, n)
		for j := range units {
			units[j] = math.Ldexp(1, r.IntN(40)-20)
		}
		a := make([]float64, p*p)
		sym := mat.NewSymDense(n, nil)
		for j := range n {
			for k := range j + 1 {
				v := square.At(j, k)
				if j == k {
					v++
				}
				a[j*p+k] = v * units[j] * units[k]
				sym.SetSym(j, k, v)
			}
		}
		right := make([]float64, n)
		for j := range right {
			right[j] = (r.Float64() - 0.5) * units[j]
		}

		c := newCholesky(n, p)
		if failed := c.decompose(a, 0, pivotFloor); failed >= 0 {
			t.Fatalf("seed %d: pivot %d of %d failed", seed, failed, n)
		}
		got := make([]float64, n)
		c.solve(got, right)

		// gonum is spared the units.
		var ch mat.Cholesky
		if !ch.Factorize(sym) {
			t.Fatalf("seed %d: gonum finds the matrix not positive definite", seed)
		}
		plain := make([]float64, n)
		for j := range plain {
			plain[j] = right[j] / units[j]
		}
		var want mat.VecDense
		if err := ch.SolveVecTo(&want, mat.NewVecDense(n, plain)); err != nil {
			t.Fatal(err)
		}
		for j := range got {
			checkClose(t, "solution", got[j]*units[j], want.AtVec(j), 1e-12)
		}
		if t.Failed() {
			t.Fatalf("seed %d, %d rows", seed, n)
		}
	}
}

func TestCholeskyNamesTheDependentRow(t *testing.T) {
	// Row 2 is the sum of rows 0 and 1.
	a := []float64{
		2, 0, 0, 0,
		1, 3, 0, 0,
		3, 4, 7, 0,
		0, 1, 1, 5,
	}
	c := newCholesky(4, 4)
	if got := c.decompose(a, 0, rankFloor); got != 2 {
		t.Errorf("failed at %d, want 2", got)
	}
	if got := c.decompose(a, 1e-6, pivotFloor); got != -1 {
		t.Errorf("with a ridge failed at %d, want -1", got)
	}
	a[5] = math.NaN()
	if got := c.decompose(a, 1, pivotFloor); got != 1 {
		t.Errorf("a NaN on the diagonal: failed at %d, want 1", got)
	}
}
