package lr

// sparseLogits sums theta·x of n rows from row lo: the intercept, then in the order of
// the columns.
func (w *worker) sparseLogits(theta []float64, b *block, lo, n int) {
	first, weights := theta[0], theta[1:]
	from := b.ptr[0]
	for i := range w.logit[:n] {
		z := first
		at, end := b.ptr[lo+i]-from, b.ptr[lo+i+1]-from
		data := b.data[at:end]
		for k, j := range b.index[at:end][:len(data)] {
			z += float64(weights[j] * data[k])
		}
		w.logit[i] = z
	}
}

// addSparse adds n rows from row lo to the gradient, and to the Hessian or its diagonal
// where e has one.
func (w *worker) addSparse(b *block, lo, n int, e *evaluation) {
	g := w.gradient[1:]
	for i, r := range w.residual[:n] {
		index, data := b.sparseRow(lo + i)
		data = data[:len(index)]
		w.gradient[0] += r
		for k, j := range index {
			g[j] += float64(r * data[k])
		}
	}
	if e.diagonal != nil {
		h := w.diagonal[1:]
		for i, c := range w.curve[:n] {
			index, data := b.sparseRow(lo + i)
			w.diagonal[0] += c
			for k, j := range index {
				h[j] += float64(float64(c*data[k]) * data[k])
			}
		}
	}
	if e.hessian == nil {
		return
	}
	p := len(e.theta)
	for i, c := range w.curve[:n] {
		index, data := b.sparseRow(lo + i)
		w.hessian[0] += c
		for k, j := range index {
			curved := float64(c * data[k])
			row := w.hessian[(int(j)+1)*p : (int(j)+2)*p]
			row[0] += curved
			for l, other := range index[:k+1] {
				row[other+1] += float64(curved * data[l])
			}
		}
	}
}
