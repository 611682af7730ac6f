package lr

import (
	"context"
	"math"
	"sync"
)

const (
	// blockRows is the number of rows in a block of a dense matrix: see block.
	blockRows = 1024
	// tileRows are worked on at a time, so that they stay in the cache. Its value
	// changes no bit.
	tileRows = 128
	// tileStride keeps the columns of a tile from falling into the same cache sets.
	tileStride = tileRows + 8
	// largest magnitude accepted in X, weights, offsets and starts: such that no
	// weighted square in a sum over rows overflows.
	largest = 1e90
	// A goroutine may be so many blocks ahead of another, if columns are not more than that: each
	// block has sums of all columns.
	ahead, aheadCols = 8, 1 << 14
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

// evaluation is the objective loss + penalty at theta, with derivatives; the L1 part
// of the penalty is in the objective only. Of hessian and diagonal one is asked for,
// or neither, by its not being nil.
type evaluation struct {
	theta     []float64
	objective float64
	gradient  []float64
	hessian   []float64 // len(theta)² numbers, of which the lower triangle is valid
	diagonal  []float64 // of the Hessian
}

func newEvaluation(n int) *evaluation {
	return &evaluation{theta: make([]float64, n), gradient: make([]float64, n)}
}

func (e *evaluation) withHessian() *evaluation {
	e.hessian = make([]float64, len(e.theta)*len(e.theta))
	return e
}

// worker holds the partial sums of one block and the room to make them, which is made
// when it is first needed.
type worker struct {
	block block
	room  chunkRoom

	logit    [tileRows]float64
	residual [tileRows]float64 // derivative of the loss by the logit
	curve    [tileRows]float64 // second derivative
	tile     []float64         // tile[j*tileStride+i]: parameter j's column at row i, shifted; column 0 is all 1
	curved   [tileRows]float64 // a column of the tile times curve
	rows     []float64         // the tile again, rows[i*rowStride+j], for rowHessian

	// Partial sums of evaluate,
	loss     float64
	gradient []float64
	hessian  []float64
	diagonal []float64

	// of measureColumns,
	sum, low, high []float64
	seen           []int // sparse: numbers in a column
	bad            error // the block's first

	// and of margins.
	least, most float64
	gain        int
}

// withTile gives the worker what is needed for columns of p parameters.
func (w *worker) withTile(p int) {
	if len(w.tile) == p*tileStride {
		return
	}
	w.tile = make([]float64, p*tileStride)
	for i := range tileRows {
		w.tile[i] = 1
	}
}

// reserve makes s have n zeros.
func reserve(s []float64, n int) []float64 {
	if cap(s) < n {
		return make([]float64, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// overBlocks calls compute for every block of rows, on all goroutines at once, and merge for
// every block in ascending order, one at a time, with the worker that it was computed with.
// Partial sums take the memory of the workers, not of the blocks: hold says how many of
// f.workers may be used, at least f.goroutines. With more, a goroutine need not wait
// for a slower one that has an earlier block.
//
// At the end of ctx no more blocks are taken, and its cause is returned. All
// goroutines have ended on return.
func (f *fitter) overBlocks(ctx context.Context, hold int, compute func(w *worker, b *block), merge func(w *worker, b *block)) error {
	f.passes++
	rows, end := f.source.pass()
	defer end()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex // over all below, and merge
		returned = sync.NewCond(&mu)
		free     = append([]*worker(nil), f.workers[:hold]...)
		ready    = make([]*worker, hold) // block number modulo hold: computed, to be merged
		turn     int                     // block to be merged: blocks turn to turn+hold-1 may be taken
		failed   error                   // of rows
	)
	work := func() {
		mu.Lock()
		defer mu.Unlock()
		for ctx.Err() == nil {
			// Blocks are taken in order, so if every worker has one, another goroutine is at
			// work on the block whose turn it is, and will return it.
			for len(free) == 0 {
				returned.Wait()
			}
			w := free[len(free)-1]
			free = free[:len(free)-1]
			mu.Unlock()
			ok, err := rows.next(&w.block, &w.room)
			if ok {
				compute(w, &w.block)
			}
			mu.Lock()
			if err != nil {
				failed = err
			}
			if !ok {
				free = append(free, w)
				returned.Signal()
				return
			}
			ready[w.block.number%hold] = w
			for {
				w := ready[turn%hold]
				if w == nil {
					break
				}
				merge(w, &w.block)
				ready[turn%hold] = nil
				turn++
				w.block = block{}
				free = append(free, w)
				returned.Signal()
			}
		}
	}
	for range f.goroutines - 1 {
		wg.Go(work)
	}
	work()
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return failed
}

// evaluate fills e for e.theta.
func (f *fitter) evaluate(ctx context.Context, e *evaluation) error {
	e.objective = 0
	clear(e.gradient)
	clear(e.hessian)
	clear(e.diagonal)
	compute := func(w *worker, b *block) { w.evaluate(f, e, b) }
	merge := func(w *worker, _ *block) {
		e.objective += w.loss
		addTo(e.gradient, w.gradient)
		if e.diagonal != nil {
			addTo(e.diagonal, w.diagonal)
		}
		if e.hessian != nil {
			p := len(e.theta)
			for j := range p {
				addTo(e.hessian[j*p:j*p+j+1], w.hessian[j*p:j*p+j+1])
			}
		}
	}
	hold := len(f.workers)
	if e.hessian != nil {
		hold = min(hold, 2*f.goroutines)
	}
	if err := f.overBlocks(ctx, hold, compute, merge); err != nil {
		return err
	}
	f.penalise(e)
	return nil
}

func addTo(dst, src []float64) {
	src = src[:len(dst)]
	for i := range dst {
		dst[i] += src[i]
	}
}

// evaluate makes the partial sums of a block.
func (w *worker) evaluate(f *fitter, e *evaluation, b *block) {
	w.loss = 0
	p := len(e.theta)
	w.gradient = reserve(w.gradient, p)
	if e.diagonal != nil {
		w.diagonal = reserve(w.diagonal, p)
	}
	if e.hessian != nil {
		w.hessian = reserve(w.hessian, p*p)
		if !f.sparse {
			w.withTile(p)
		}
	}
	rows := tileRows
	if !f.sparse && e.hessian == nil {
		rows = rowsInCache(f.cols)
	}
	for lo := 0; lo < b.n; lo += rows {
		n := min(b.n-lo, rows)
		switch {
		case f.sparse:
			w.sparseLogits(e.theta, b, lo, n)
			w.lossesFast(f, b, lo, n)
			w.addSparse(b, lo, n, e)
		case e.hessian != nil:
			w.load(b, f.cols, f.center, lo, n)
			w.logits(e.theta, n)
			w.losses(f, b, lo, n)
			w.addGradient(n)
			w.addHessian(n)
		default:
			w.gradientRows(f, e, b, lo, n)
		}
	}
}

// rowWeight is what row i of the block counts.
func (f *fitter) rowWeight(b *block, i int) float64 {
	k := 1.0
	if b.weights != nil {
		k = b.weights[i]
	}
	if f.classed {
		k = float64(k * f.class[int(b.y[i])])
	}
	return k
}

// margins tells how moving theta by direction moves the margins (2y-1)·logit of
// the rows of positive weight: the least (negative where a row loses), the largest
// magnitude, and how many gain more than threshold.
func (f *fitter) margins(ctx context.Context, direction []float64, threshold float64) (least, most float64, gain int, err error) {
	least = math.Inf(1)
	compute := func(w *worker, b *block) {
		w.least, w.most, w.gain = math.Inf(1), 0, 0
		for lo := 0; lo < b.n; lo += tileRows {
			n := min(b.n-lo, tileRows)
			if f.sparse {
				w.sparseLogits(direction, b, lo, n)
			} else {
				w.withTile(len(direction))
				w.load(b, f.cols, f.center, lo, n)
				w.logits(direction, n)
			}
			for i, m := range w.logit[:n] {
				if b.weights != nil && b.weights[lo+i] == 0 {
					continue
				}
				if b.y[lo+i] == 0 {
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
	merge := func(w *worker, _ *block) {
		least = min(least, w.least)
		most = max(most, w.most)
		gain += w.gain
	}
	err = f.overBlocks(ctx, f.goroutines, compute, merge)
	return least, most, gain, err
}

// softplus returns ln(1+eᵗ), the loss of a row whose margin is -t.
func softplus(t float64) float64 {
	return max(t, 0) + Log1p(Exp(-math.Abs(t)))
}
