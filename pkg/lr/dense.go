package lr

import "math"

// load copies n rows from row lo into the tile: shifted, and column by column.
func (w *worker) load(b *block, cols int, center []float64, lo, n int) {
	for i := range n {
		row := b.row(lo+i, cols)
		center := center[:len(row)]
		at := tileStride + i
		for j, v := range row {
			w.tile[at] = v - center[j]
			at += tileStride
		}
	}
}

// column returns n rows of a parameter's column.
func (w *worker) column(j, n int) []float64 {
	return w.tile[j*tileStride : j*tileStride+n]
}

// columns returns n rows of the columns of parameters j to j+5.
func (w *worker) columns(j, n int) (a, b, c, d, e, f []float64) {
	return w.column(j, n), w.column(j+1, n), w.column(j+2, n), w.column(j+3, n), w.column(j+4, n), w.column(j+5, n)
}

// logits sums theta·x from the first parameter to the last.
func (w *worker) logits(theta []float64, n int) {
	z := w.logit[:n]
	clear(z)
	for j := 0; j < len(theta); j += together {
		t := (*[together]float64)(theta[j:])
		a, b, c, d, e, f := w.columns(j, n)
		a, b, c, d, e, f = a[:len(z)], b[:len(z)], c[:len(z)], d[:len(z)], e[:len(z)], f[:len(z)]
		for i, v := range z {
			v += float64(t[0] * a[i])
			v += float64(t[1] * b[i])
			v += float64(t[2] * c[i])
			v += float64(t[3] * d[i])
			v += float64(t[4] * e[i])
			z[i] = v + float64(t[5]*f[i])
		}
	}
}

// losses adds the rows' losses and leaves the first and second derivatives by the
// logit. With the margin m = (2y-1)·logit and e = exp(-|m|):
//
//	loss ln(1+exp(-m)), derivative -(2y-1)·σ(-m), second derivative e/(1+e)²
//
// each without cancellation or overflow for any m.
func (w *worker) losses(f *fitter, b *block, lo, n int) {
	z, r, v := w.logit[:n], w.residual[:n], w.curve[:n]
	y := b.y[lo : lo+n]
	if b.offsets != nil {
		addTo(z, b.offsets[lo:lo+n])
	}
	weighted := b.weights != nil || f.classed
	for i := range z {
		m, sign := z[i], -1.0
		if y[i] == 0 {
			m, sign = -m, 1
		}
		e := Exp(-math.Abs(m))
		loss := Log1p(e)
		q := 1 / (1 + e)
		wrong := float64(e * q) // σ(-m), the probability of the other label
		curve := float64(wrong * q)
		if m < 0 {
			loss -= m
			wrong = q
		}
		if weighted {
			k := f.rowWeight(b, lo+i)
			loss = float64(k * loss)
			wrong = float64(k * wrong)
			curve = float64(k * curve)
		}
		w.loss += loss
		r[i] = sign * wrong
		v[i] = curve
	}
}

func (w *worker) addGradient(n int) {
	for j := 0; j < len(w.gradient); j += together {
		w.addProducts(w.gradient[j:], w.residual[:n], j)
	}
}

// addHessian adds Σ curve·x·xᵀ up to the diagonal, and by-products just above it.
func (w *worker) addHessian(n int) {
	p := len(w.gradient)
	curve, curved := w.curve[:n], w.curved[:n]
	for j := range p {
		column := w.column(j, n)
		for i, c := range curve {
			curved[i] = float64(c * column[i])
		}
		for k := 0; k <= j; k += together {
			w.addProducts(w.hessian[j*p+k:], curved, k)
		}
	}
}

// addProducts adds to sums[k] the products of s with the column of parameter j+k,
// for k < together, each from the first row to the last.
func (w *worker) addProducts(sums, s []float64, j int) {
	t := (*[together]float64)(sums)
	ta, tb, tc, td, te, tf := t[0], t[1], t[2], t[3], t[4], t[5]
	a, b, c, d, e, f := w.columns(j, len(s))
	a, b, c, d, e, f = a[:len(s)], b[:len(s)], c[:len(s)], d[:len(s)], e[:len(s)], f[:len(s)]
	for i, v := range s {
		ta += float64(v * a[i])
		tb += float64(v * b[i])
		tc += float64(v * c[i])
		td += float64(v * d[i])
		te += float64(v * e[i])
		tf += float64(v * f[i])
	}
	t[0], t[1], t[2], t[3], t[4], t[5] = ta, tb, tc, td, te, tf
}

// rowsInCache is how many rows of a dense matrix the two passes of a gradient take at a
// time, so that the second finds them in the first level of the cache. Its value
// changes no bit, since lossesFast takes groups of four of them.
func rowsInCache(cols int) int {
	const numbers = 3072 // 24 KB
	return max(min(numbers/cols, tileRows)/group*group, group)
}

// rowLogits sums theta·x of n rows from row lo, from the first parameter to the last.
func (w *worker) rowLogits(theta, center []float64, b *block, lo, n int) {
	first, weights := theta[0], theta[1:]
	d := len(weights)
	center = center[:d]
	z := w.logit[:n]
	x := b.dense[lo*d : (lo+n)*d]
	for len(z) >= 4 && len(x) >= 4*d {
		a0, a1, a2, a3 := x[:d][:len(weights)], x[d : 2*d][:len(weights)], x[2*d : 3*d][:len(weights)], x[3*d : 4*d][:len(weights)]
		center := center[:len(weights)]
		z0, z1, z2, z3 := first, first, first, first
		for j, v := range weights {
			c := center[j]
			z0 += float64(v * (a0[j] - c))
			z1 += float64(v * (a1[j] - c))
			z2 += float64(v * (a2[j] - c))
			z3 += float64(v * (a3[j] - c))
		}
		z[0], z[1], z[2], z[3] = z0, z1, z2, z3
		z, x = z[4:], x[4*d:]
	}
	for i := range z {
		row := x[i*d : (i+1)*d]
		s := first
		for j, v := range weights {
			s += float64(v * (row[j] - center[j]))
		}
		z[i] = s
	}
}

// addRows adds n rows from row lo to the gradient, and their squares to the diagonal of
// the Hessian, from the first row to the last.
func (w *worker) addRows(center []float64, b *block, lo, n int, diagonal bool) {
	r := w.residual[:n]
	g := w.gradient[1 : len(center)+1]
	d := len(g)
	for _, v := range r {
		w.gradient[0] += v
	}
	x := b.dense[lo*d : (lo+n)*d]
	for len(r) >= 4 && len(x) >= 4*d {
		a0, a1, a2, a3 := x[:d][:len(g)], x[d : 2*d][:len(g)], x[2*d : 3*d][:len(g)], x[3*d : 4*d][:len(g)]
		center := center[:len(g)]
		r0, r1, r2, r3 := r[0], r[1], r[2], r[3]
		for j, v := range g {
			c := center[j]
			v += float64(r0 * (a0[j] - c))
			v += float64(r1 * (a1[j] - c))
			v += float64(r2 * (a2[j] - c))
			v += float64(r3 * (a3[j] - c))
			g[j] = v
		}
		r, x = r[4:], x[4*d:]
	}
	for i, v := range r {
		row := x[i*d : (i+1)*d]
		for j := range g {
			g[j] += float64(v * (row[j] - center[j]))
		}
	}
	if diagonal {
		w.addSquares(center, b, lo, n)
	}
}

func (w *worker) addSquares(center []float64, b *block, lo, n int) {
	h := w.diagonal[1 : len(center)+1]
	d := len(h)
	for i, k := range w.curve[:n] {
		row := b.dense[(lo+i)*d : (lo+i+1)*d][:len(h)]
		center := center[:len(h)]
		for j, v := range h {
			u := row[j] - center[j]
			h[j] = v + float64(float64(k*u)*u)
		}
		w.diagonal[0] += k
	}
}
