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

// addHessian adds Σ curve·x·xᵀ up to the diagonal, and by-products above it.
func (w *worker) addHessian(n int) {
	p := len(w.gradient)
	if fast {
		w.transpose(p, n)
		stride := rowStride(p)
		rows := rowsInCache(stride)
		for i := 0; i < n; i += rows {
			m := min(rows, n-i)
			rowHessian(w.hessian, w.rows[i*stride:(i+m)*stride], w.curve[i:i+m], p, stride)
		}
		return
	}
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

// rowStride is the length of a row of p parameters in worker.rows.
func rowStride(p int) int { return (p + 15) / 16 * 16 }

// transpose copies the tile, row by row.
func (w *worker) transpose(p, n int) {
	stride := rowStride(p)
	if len(w.rows) != tileRows*stride {
		w.rows = make([]float64, tileRows*stride)
	}
	for j := range p {
		at := j
		for _, v := range w.column(j, n) {
			w.rows[at] = v
			at += stride
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

// gradientRows evaluates n rows from row lo row by row, without the Hessian but with its
// diagonal if that is wanted. Sums over rows are made from the first to the last.
func (w *worker) gradientRows(f *fitter, e *evaluation, b *block, lo, n int) {
	d := f.cols
	x := b.dense[lo*d : (lo+n)*d]
	rowLogits(w.logit[:n], x, e.theta[1:d+1], f.center, e.theta[0])
	w.lossesFast(f, b, lo, n)
	for _, v := range w.residual[:n] {
		w.gradient[0] += v
	}
	rowGradient(w.gradient[1:d+1], x, f.center, w.residual[:n])
	if e.diagonal == nil {
		return
	}
	for _, k := range w.curve[:n] {
		w.diagonal[0] += k
	}
	rowSquares(w.diagonal[1:d+1], x, f.center, w.curve[:n])
}
