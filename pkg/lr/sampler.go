package lr

import (
	"context"
	"math"
)

const (
	// sampleCols is the most columns with which a sample's Hessian is worth its
	// decomposition.
	sampleCols = 512
	// A sample has rows for each column, within bounds.
	sampleRowsPerCol        = 512
	sampleLeast, sampleMost = 16384, 65536
	// sampleShare is how many rows there must be for one in the sample: what is gained
	// by working on few rows would be lost on several.
	sampleShare = 8
	// sampleMinority is how many rows of either class make a sample worth something.
	sampleMinority = 64
)

// sampler keeps every stride-th row, where stride is the smallest power of two with
// which they are not more than most. It does not know how many rows will come.
type sampler struct {
	most, stride int
	whole        []float64 // the matrix, if there is one: then room has no copies of its rows
	room         chunkRoom
	weighted     bool
	offset       bool
}

func newSampler(cols int) *sampler {
	return &sampler{most: min(max(sampleRowsPerCol*cols, sampleLeast), sampleMost), stride: 1}
}

// expect spares the sampler what it would keep and drop again, if the rows are known. It
// tells whether they are enough for a sample.
func (s *sampler) expect(rows int) bool {
	for (rows+s.stride-1)/s.stride > s.most {
		s.stride *= 2
	}
	return s.stride >= sampleShare
}

// reserve makes room for the sample of a dense matrix.
func (s *sampler) reserve(X Matrix) {
	s.whole = X.Data
	n := (X.Rows + s.stride - 1) / s.stride
	s.room.y, s.room.weights, s.room.offsets = make([]float64, 0, n), make([]float64, 0, n), make([]float64, 0, n)
}

// add is called for the blocks in order. It keeps nothing of sparse ones.
func (s *sampler) add(b *block, cols int) {
	if b.ptr != nil {
		return
	}
	s.weighted = s.weighted || b.weights != nil
	s.offset = s.offset || b.offsets != nil
	c := Chunk{X: Matrix{Rows: b.n, Cols: cols, Data: b.dense}, Y: b.y, Weights: b.weights, Offsets: b.offsets}
	if s.whole != nil {
		c.X.Data = nil
	}
	for {
		next := len(s.room.y)*s.stride - b.first
		if next >= b.n {
			return
		}
		if len(s.room.y) == s.most {
			s.room.halve(cols)
			s.stride *= 2
			continue
		}
		s.room.append(c, next, 1)
	}
}

// rows are every step-th row of the sample.
func (s *sampler) rows(step, cols int) *memory {
	c := Chunk{X: Matrix{Cols: cols, Data: s.room.dense}}
	for i := 0; i < len(s.room.y); i += step {
		c.Y = append(c.Y, s.room.y[i])
		if s.weighted {
			c.Weights = append(c.Weights, s.room.weights[i])
		}
		if s.offset {
			c.Offsets = append(c.Offsets, s.room.offsets[i])
		}
	}
	c.X.Rows = len(c.Y)
	m := newMemory(c)
	m.step = step
	if s.whole != nil {
		m.X.Data, m.step = s.whole, step*s.stride
	}
	return m
}

// worthwhile tells whether the sample can stand for all rows.
func (s *sampler) worthwhile(f *fitter) bool {
	return s != nil && !f.sparse && s.stride >= sampleShare && classes(s.room.y, s.room.weights, sampleMinority)
}

// classes tells whether each class has at least so many rows that count.
func classes(y, weights []float64, least int) bool {
	var n [2]int
	for i, label := range y {
		if weights == nil || weights[i] > 0 {
			n[int(label)]++
		}
	}
	return min(n[0], n[1]) >= least
}

// optimum fits the sample, by way of a smaller one, as closely as its own error makes
// worthwhile, from start (nil: the constant model). The Hessian is that of the sample, in its
// own scale.
func (s *sampler) optimum(ctx context.Context, f *fitter, start []float64) (theta, hessian []float64, err error) {
	for _, step := range []int{8, 1} {
		c := s.rows(step, f.cols)
		if step > 1 && (c.X.Rows < 16*f.cols+512 || !classes(c.Y, c.Weights, sampleMinority/8)) {
			continue
		}
		sub := *f
		sub.source, sub.sample, sub.progress, sub.passes = c, nil, nil, 0
		sub.rows, sub.all, sub.total = 0, 0, [2]float64{}
		sub.count(&block{n: c.X.Rows, y: c.Y, weights: c.Weights})
		weight := float64(sub.total[0]*f.class[0]) + float64(sub.total[1]*f.class[1])
		sub.meanRow = weight / float64(sub.rows)
		sub.alpha = float64(f.alpha * (weight / (f.total[0] + f.total[1])))
		sub.tolerance = 0.25 * math.Sqrt(float64(f.cols))
		sub.iterations = 30
		sub.warm, sub.coldLoss = start, math.NaN()
		search, _, err := sub.newtonSearch(ctx)
		if err != nil {
			return nil, nil, err
		}
		theta, hessian = search.at.theta, search.at.hessian
		for j, v := range search.step {
			theta[j] += v
		}
		start = theta
	}
	return theta, hessian, nil
}
