package lr

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
)

const (
	// blockRows is the unit of reduction: a sum over all rows is the sum over each
	// block, from its first row to its last, added up in the order of the blocks.
	// It is part of the definition of a result: another value gives other last bits.
	blockRows = 1024
	// tileRows are worked on at a time, so that they stay in the cache. Its value
	// changes no bit.
	tileRows = 128
	// tileStride keeps the columns of a tile from falling into the same cache sets.
	tileStride = tileRows + 8
	// largest magnitude accepted in X, weights and starts: such that no weighted
	// square in a sum over rows overflows.
	largest = 1e90
	// smallest weight above 0, and spread of a column that is not constant, such
	// that no curvature underflows.
	smallest = 1e-90
)

// together is how many columns the inner loops take at a time: the most whose
// sums stay in registers on amd64 (four and eight take half as long again and twice
// as long). Its value changes no bit.
const together = 6

// padded is the length of theta for cols columns: the intercept, the columns, and
// zeros up to a multiple of together.
func padded(cols int) int { return (cols + together) / together * together }

// evaluation is the objective loss + alpha ½|w|² at theta, with derivatives.
type evaluation struct {
	theta     []float64
	objective float64
	gradient  []float64
	hessian   []float64 // len(theta)² numbers, of which the lower triangle is valid
}

func newEvaluation(n int) *evaluation {
	return &evaluation{theta: make([]float64, n), gradient: make([]float64, n), hessian: make([]float64, n*n)}
}

// worker holds the partial sums of one block and the room to make them.
type worker struct {
	tile     []float64 // tile[j*tileStride+i]: parameter j's column at row i, shifted; column 0 is all 1
	curved   []float64 // a column of the tile times curve
	logit    []float64
	residual []float64 // derivative of the loss by the logit
	curve    []float64 // second derivative

	// Partial sums of evaluate,
	loss     float64
	gradient []float64
	hessian  []float64

	// of measureColumns,
	sum, low, high []float64
	bad            *ValueError // the block's first

	// and of margins.
	least, most float64
	gain        int
}

func newWorkers(n int, X Matrix) []*worker {
	blocks := (X.Rows + blockRows - 1) / blockRows
	ws := make([]*worker, min(n, blocks))
	p := padded(X.Cols)
	for i := range ws {
		w := &worker{
			tile:     make([]float64, p*tileStride),
			curved:   make([]float64, tileRows),
			logit:    make([]float64, tileRows),
			residual: make([]float64, tileRows),
			curve:    make([]float64, tileRows),
			gradient: make([]float64, p),
			hessian:  make([]float64, p*p),
			sum:      make([]float64, X.Cols),
			low:      make([]float64, X.Cols),
			high:     make([]float64, X.Cols),
		}
		for i := range tileRows {
			w.tile[i] = 1
		}
		ws[i] = w
	}
	return ws
}

// overBlocks calls compute for every block of rows, on all workers at once, and
// merge for every block in ascending order, one at a time, on the worker that
// computed it. A worker computes its next block only when its last is merged, so
// partial sums take the memory of the workers, not of the blocks.
//
// At the end of ctx the remaining blocks are passed over and its cause returned.
// All goroutines have ended on return.
func (f *fitter) overBlocks(ctx context.Context, compute func(w *worker, lo, hi int), merge func(*worker)) error {
	f.passes++
	blocks := (f.X.Rows + blockRows - 1) / blockRows
	var (
		wg   sync.WaitGroup
		next atomic.Int64 // block to be taken
		mu   sync.Mutex
		turn int // block to be merged, under mu
		done = sync.NewCond(&mu)
	)
	work := func(w *worker) {
		for {
			b := int(next.Add(1)) - 1
			if b >= blocks {
				return
			}
			live := ctx.Err() == nil
			if live {
				lo := b * blockRows
				compute(w, lo, min(lo+blockRows, f.X.Rows))
			}
			// Blocks are taken in order, so whoever has the block whose turn it is
			// is at work on it, and the turn comes to everyone.
			mu.Lock()
			for turn != b {
				done.Wait()
			}
			if live {
				merge(w)
			}
			turn++
			done.Broadcast()
			mu.Unlock()
		}
	}
	for _, w := range f.workers[1:] {
		wg.Go(func() { work(w) })
	}
	work(f.workers[0])
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// measureColumns finds each column's shift and spread, and numbers that are not
// finite or too large.
func (f *fitter) measureColumns(ctx context.Context) error {
	cols := f.X.Cols
	sum := make([]float64, cols)
	low, high := make([]float64, cols), make([]float64, cols)
	for j := range cols {
		low[j], high[j] = math.Inf(1), math.Inf(-1)
	}
	var bad *ValueError
	compute := func(w *worker, lo, hi int) { w.measure(f.X, lo, hi) }
	merge := func(w *worker) {
		if bad == nil {
			bad = w.bad
		}
		for j := range cols {
			sum[j] += w.sum[j]
			low[j] = min(low[j], w.low[j])
			high[j] = max(high[j], w.high[j])
		}
	}
	if err := f.overBlocks(ctx, compute, merge); err != nil {
		return fmt.Errorf("lr: measure columns: %w", err)
	}
	if bad != nil {
		return bad
	}
	f.center, f.spread = sum, high
	for j := range cols {
		// Between low and high, so that a constant column becomes exactly 0.
		f.center[j] = min(max(sum[j]/float64(f.X.Rows), low[j]), high[j])
		f.spread[j] = max(high[j]-f.center[j], f.center[j]-low[j])
	}
	return nil
}

func (w *worker) measure(X Matrix, lo, hi int) {
	w.bad = nil
	sum, low, high := w.sum, w.low, w.high
	for j := range sum {
		sum[j], low[j], high[j] = 0, math.Inf(1), math.Inf(-1)
	}
	for i := lo; i < hi; i++ {
		row := X.Row(i)
		low, high, sum := low[:len(row)], high[:len(row)], sum[:len(row)]
		for j, v := range row {
			sum[j] += v
			if v < low[j] {
				low[j] = v
			}
			if v > high[j] {
				high[j] = v
			}
		}
	}
	// A NaN or an infinity anywhere shows in the sum of its column, so the search
	// for the cell runs only where there is one to find.
	for j := range sum {
		if math.Abs(sum[j]) <= math.MaxFloat64 && low[j] >= -largest && high[j] <= largest {
			continue
		}
		w.bad = firstBad(X, lo, hi)
		return
	}
}

func firstBad(X Matrix, lo, hi int) *ValueError {
	for i := lo; i < hi; i++ {
		for j, v := range X.Row(i) {
			if !(math.Abs(v) <= largest) {
				return &ValueError{What: "X", Row: i, Col: j, Value: v, Want: fmt.Sprintf("finite and at most %g in magnitude", largest)}
			}
		}
	}
	return nil
}

// evaluate fills e for e.theta.
func (f *fitter) evaluate(ctx context.Context, e *evaluation) error {
	e.objective = 0
	clear(e.gradient)
	clear(e.hessian)
	compute := func(w *worker, lo, hi int) { w.evaluate(f, e.theta, lo, hi) }
	merge := func(w *worker) {
		e.objective += w.loss
		addTo(e.gradient, w.gradient)
		p := len(e.theta)
		for j := range p {
			addTo(e.hessian[j*p:j*p+j+1], w.hessian[j*p:j*p+j+1])
		}
	}
	if err := f.overBlocks(ctx, compute, merge); err != nil {
		return err
	}
	p := len(e.theta)
	for j := 1; j <= f.X.Cols; j++ {
		w := e.theta[j]
		e.objective += float64(float64(0.5*f.alpha*w) * w)
		e.gradient[j] += float64(f.alpha * w)
		e.hessian[j*p+j] += f.alpha
	}
	return nil
}

func addTo(dst, src []float64) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += src[i]
	}
}

// evaluate makes the partial sums of rows lo to hi.
func (w *worker) evaluate(f *fitter, theta []float64, lo, hi int) {
	w.loss = 0
	clear(w.gradient)
	clear(w.hessian)
	for ; lo < hi; lo += tileRows {
		n := min(hi-lo, tileRows)
		w.load(f.X, f.center, lo, n)
		w.logits(theta, n)
		w.losses(f, lo, n)
		w.addGradient(n)
		w.addHessian(n)
	}
}

// load copies n rows from row lo into the tile: shifted, and column by column.
func (w *worker) load(X Matrix, center []float64, lo, n int) {
	for i := range n {
		row := X.Row(lo + i)
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
func (w *worker) losses(f *fitter, lo, n int) {
	z, r, v := w.logit[:n], w.residual[:n], w.curve[:n]
	y := f.y[lo : lo+n]
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
		if f.weights != nil {
			k := f.weights[lo+i]
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

// margins tells how moving theta by direction moves the margins (2y-1)·logit of
// the rows of positive weight: the least (negative where a row loses), the largest
// magnitude, and how many gain more than threshold.
func (f *fitter) margins(ctx context.Context, direction []float64, threshold float64) (least, most float64, gain int, err error) {
	least = math.Inf(1)
	compute := func(w *worker, lo, hi int) {
		w.least, w.most, w.gain = math.Inf(1), 0, 0
		for ; lo < hi; lo += tileRows {
			n := min(hi-lo, tileRows)
			w.load(f.X, f.center, lo, n)
			w.logits(direction, n)
			for i, m := range w.logit[:n] {
				if f.weights != nil && f.weights[lo+i] == 0 {
					continue
				}
				if f.y[lo+i] == 0 {
					m = -m
				}
				w.least = min(w.least, m)
				w.most = max(w.most, math.Abs(m))
				if m > threshold {
					w.gain++
				}
			}
		}
	}
	merge := func(w *worker) {
		least = min(least, w.least)
		most = max(most, w.most)
		gain += w.gain
	}
	err = f.overBlocks(ctx, compute, merge)
	return least, most, gain, err
}

// softplus returns ln(1+eᵗ), the loss of a row whose margin is -t.
func softplus(t float64) float64 {
	return max(t, 0) + Log1p(Exp(-math.Abs(t)))
}
