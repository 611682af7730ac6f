package lr

import (
	"context"
	"fmt"
	"math"
)

// measureColumns reads the data for the first time. It finds each column's shift and
// spread, counts the labels, takes the sample, and refuses what cannot be worked with.
func (f *fitter) measureColumns(ctx context.Context) error {
	cols := f.cols
	sum := make([]float64, cols)
	low, high := make([]float64, cols), make([]float64, cols)
	var seen []int
	for j := range cols {
		low[j], high[j] = math.Inf(1), math.Inf(-1)
	}
	var (
		bad       error
		positives int
	)
	compute := func(w *worker, b *block) { w.measure(b, cols) }
	merge := func(w *worker, b *block) {
		if bad == nil {
			bad = w.bad
		}
		if bad != nil {
			return
		}
		for j := range cols {
			sum[j] += w.sum[j]
			low[j] = min(low[j], w.low[j])
			high[j] = max(high[j], w.high[j])
		}
		if b.ptr != nil {
			if seen == nil {
				seen = make([]int, cols)
			}
			for j, n := range w.seen {
				seen[j] += n
			}
		}
		positives += f.count(b)
		if f.sample != nil {
			f.sample.add(b, cols)
		}
	}
	if err := f.overBlocks(ctx, len(f.workers), compute, merge); err != nil {
		return fmt.Errorf("lr: measure columns: %w", err)
	}
	if bad != nil {
		return bad
	}
	f.source.describe(f)
	switch {
	case f.all == 0:
		return &ShapeError{What: "rows of X", Got: 0, Want: "at least 1"}
	case f.rows == 0:
		return &OptionError{Option: "Weights", Value: 0, Want: "at least one row of weight above 0"}
	case positives == 0:
		return &OneClassError{Class: 0, N: f.rows}
	case positives == f.rows:
		return &OneClassError{Class: 1, N: f.rows}
	}
	f.minority = min(positives, f.rows-positives)
	if f.classed {
		f.total[0] *= f.class[0]
		f.total[1] *= f.class[1]
	}
	f.meanRow = (f.total[1] + f.total[0]) / float64(f.rows)
	f.center, f.spread, f.width = sum, make([]float64, cols), make([]float64, cols)
	for j := range cols {
		if f.sparse {
			// The zeros that are not written are as good as those that are.
			if seen[j] < f.all {
				low[j], high[j] = min(low[j], 0), max(high[j], 0)
			}
			f.center[j] = 0
		} else {
			// Between low and high, so that a constant column becomes exactly 0.
			f.center[j] = min(max(sum[j]/float64(f.all), low[j]), high[j])
		}
		f.spread[j] = max(high[j]-f.center[j], f.center[j]-low[j])
		f.width[j] = high[j] - low[j]
	}
	for _, w := range f.workers {
		w.sum, w.low, w.high, w.seen = nil, nil, nil, nil
	}
	return nil
}

// count adds the rows of a block to the counts and returns the number of positives
// among those of weight above 0. It is called for the blocks in order, and the weights
// are added one by one.
func (f *fitter) count(b *block) (positives int) {
	f.all += b.n
	if b.weights == nil {
		for _, label := range b.y {
			if label == 1 {
				positives++
			}
		}
		f.rows += b.n
		f.total[0] += float64(b.n - positives)
		f.total[1] += float64(positives)
		return positives
	}
	for i, w := range b.weights {
		if w == 0 {
			continue
		}
		f.rows++
		f.total[int(b.y[i])] += w
		if b.y[i] == 1 {
			positives++
		}
	}
	return positives
}

func (w *worker) measure(b *block, cols int) {
	w.sum, w.low, w.high = reserve(w.sum, cols), reserve(w.low, cols), reserve(w.high, cols)
	for j := range cols {
		w.low[j], w.high[j] = math.Inf(1), math.Inf(-1)
	}
	if w.bad = badRow(b); w.bad != nil {
		return
	}
	if b.ptr != nil {
		w.measureSparse(b, cols)
		return
	}
	// The kernel does best with rows that the cache holds.
	step := cols * rowsInCache(cols)
	for x := b.dense; len(x) > 0; x = x[min(step, len(x)):] {
		rowRanges(w.sum, w.low, w.high, x[:min(step, len(x))])
	}
	sum, low, high := w.sum, w.low, w.high
	// A NaN or an infinity anywhere shows in the sum of its column, so the search
	// for the cell runs only where there is one to find.
	for j := range sum {
		if math.Abs(sum[j]) <= math.MaxFloat64 && low[j] >= -largest && high[j] <= largest {
			continue
		}
		w.bad = badCell(b, cols)
		return
	}
}

func (w *worker) measureSparse(b *block, cols int) {
	if len(w.seen) != cols {
		w.seen = make([]int, cols)
	}
	clear(w.seen)
	for i := range b.n {
		index, data := b.sparseRow(i)
		last := int32(-1)
		for k, j := range index {
			v := data[k]
			if j <= last || int(j) >= cols {
				w.bad = &ValueError{What: "X.Index", Row: b.first + i, Col: -1, Value: float64(j),
					Want: fmt.Sprintf("ascending columns, each once, of 0 to %d", cols-1)}
				return
			}
			last = j
			if !(math.Abs(v) <= largest) {
				w.bad = &ValueError{What: "X", Row: b.first + i, Col: int(j), Value: v, Want: finite}
				return
			}
			w.low[j] = min(w.low[j], v)
			w.high[j] = max(w.high[j], v)
			w.seen[j]++
		}
	}
}

// finite is what numbers must be.
var finite = fmt.Sprintf("finite and at most %g in magnitude", largest)

// badRow finds the first label, weight or offset that cannot be worked with.
func badRow(b *block) error {
	for i, label := range b.y {
		if label != 0 && label != 1 {
			return &ValueError{What: "y", Row: b.first + i, Col: -1, Value: label, Want: "0 or 1"}
		}
	}
	for i, w := range b.weights {
		if w != 0 && !(w >= smallest && w <= largest) {
			return &ValueError{What: "Weights", Row: b.first + i, Col: -1, Value: w,
				Want: fmt.Sprintf("0 or between %g and %g", smallest, largest)}
		}
	}
	for i, o := range b.offsets {
		if !(math.Abs(o) <= largest) {
			return &ValueError{What: "Offsets", Row: b.first + i, Col: -1, Value: o, Want: finite}
		}
	}
	return nil
}

func badCell(b *block, cols int) error {
	for i := range b.n {
		for j, v := range b.row(i, cols) {
			if !(math.Abs(v) <= largest) {
				return &ValueError{What: "X", Row: b.first + i, Col: j, Value: v, Want: finite}
			}
		}
	}
	return nil
}
