package lr

import "math"

// extremeEigenvalues returns the smallest and the largest eigenvalue of the symmetric
// matrix of n rows of which a holds the lower triangle, stride n, and which it overwrites.
// The error is about 10⁻¹⁵·n of the largest magnitude. The bits are the same on every CPU.
//
// Householder's reflections make it tridiagonal (Golub and Van Loan, Matrix
// Computations, 8.3.1); then an eigenvalue is found by halving an interval, since the signs
// of the pivots of T - x tell how many eigenvalues are below x (8.4.1).
func extremeEigenvalues(a []float64, n int) (least, most float64) {
	diagonal, beside := make([]float64, n), make([]float64, n) // beside[i] joins i and i+1
	v, p := make([]float64, n), make([]float64, n)
	for k := range n {
		diagonal[k] = a[k*n+k]
		if k == n-1 {
			break
		}
		size := 0.0
		for i := k + 1; i < n; i++ {
			v[i] = a[i*n+k]
			size += float64(v[i] * v[i])
		}
		norm := math.Sqrt(size)
		if v[k+1] > 0 {
			norm = -norm // away from the first, so that nothing cancels
		}
		beside[k] = norm
		v[k+1] -= norm
		// H = 1 - vvᵀ/half, half = |v|²/2 = norm² - norm·a₁; A becomes HAH = A - vwᵀ - wvᵀ.
		half := -float64(norm * v[k+1])
		if half == 0 {
			continue
		}
		along := 0.0
		for i := k + 1; i < n; i++ {
			sum := 0.0
			for j := k + 1; j <= i; j++ {
				sum += float64(a[i*n+j] * v[j])
			}
			for j := i + 1; j < n; j++ {
				sum += float64(a[j*n+i] * v[j])
			}
			p[i] = sum / half
			along += float64(p[i] * v[i])
		}
		for i := k + 1; i < n; i++ {
			p[i] -= float64(along / (2 * half) * v[i])
		}
		for i := k + 1; i < n; i++ {
			for j := k + 1; j <= i; j++ {
				a[i*n+j] -= float64(v[i]*p[j]) + float64(p[i]*v[j])
			}
		}
	}

	// Gershgorin's circles hold all eigenvalues.
	low, high := math.Inf(1), math.Inf(-1)
	for i := range n {
		reach := math.Abs(beside[i])
		if i > 0 {
			reach += math.Abs(beside[i-1])
		}
		low, high = min(low, diagonal[i]-reach), max(high, diagonal[i]+reach)
	}
	below := func(x float64) int {
		const tiny = 1e-300
		count, pivot := 0, 1.0
		for i := range n {
			square := 0.0
			if i > 0 {
				square = float64(beside[i-1] * beside[i-1])
			}
			pivot = diagonal[i] - x - square/pivot
			if math.Abs(pivot) < tiny {
				pivot = -tiny
			}
			if pivot < 0 {
				count++
			}
		}
		return count
	}
	// find returns the greatest x below which there are fewer than count.
	find := func(count int) float64 {
		low, high := low, high
		for {
			mid := low + float64(0.5*(high-low))
			if mid <= low || mid >= high {
				return low
			}
			if below(mid) < count {
				low = mid
			} else {
				high = mid
			}
		}
	}
	return find(1), find(n)
}
