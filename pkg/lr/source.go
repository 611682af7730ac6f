package lr

import (
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
)

// Chunk is a run of rows that [FitChunks] is given: dense in X or sparse in Sparse,
// of which the other is the zero value.
type Chunk struct {
	X       Matrix
	Sparse  Sparse
	Y       []float64 // labels, 0 or 1
	Weights []float64 // nil: 1 for each row
	Offsets []float64 // nil: 0 for each row
}

func (c Chunk) isSparse() bool { return c.Sparse.Ptr != nil }

func (c Chunk) rows() int {
	if c.isSparse() {
		return c.Sparse.Rows
	}
	return c.X.Rows
}

// block is the unit of reduction: a sum over all rows is the sum over each block, from
// its first row to its last, added up in the order of the blocks. How many rows it has
// (see denseBlock and sparseBlock) is part of the definition of a result: another
// number gives other last bits.
type block struct {
	number int
	first  int // index of its first row
	n      int
	dense  []float64 // n rows of cols numbers, step rows apart, or
	step   int       // 1 in all but a sample of a matrix
	ptr    []int     // n+1 positions, counted from ptr[0], in
	index  []int32
	data   []float64

	y       []float64
	weights []float64 // nil: all 1
	offsets []float64 // nil: all 0
}

// row returns row i of a dense block.
func (b *block) row(i, cols int) []float64 {
	at := i * b.step * cols
	return b.dense[at : at+cols : at+cols]
}

// sparseRow returns row i of a sparse block.
func (b *block) sparseRow(i int) ([]int32, []float64) {
	lo, hi := b.ptr[i]-b.ptr[0], b.ptr[i+1]-b.ptr[0]
	return b.index[lo:hi], b.data[lo:hi]
}

// denseBlock is the number of rows in a block of a dense matrix.
const denseBlock = blockRows

// sparseBlock is the same for a sparse matrix. Adding up two blocks costs a pass over
// all columns, so it grows with them.
func sparseBlock(cols int) int {
	rows := 4 * blockRows
	for rows < cols && rows < 1<<20 {
		rows *= 2
	}
	return rows
}

// feed hands out the blocks of one pass in order. next may be called by several
// workers at once; the block is good until the same worker's next call.
type feed interface {
	next(b *block, room *chunkRoom) (ok bool, err error)
}

// source can be read again and again.
type source interface {
	pass() (f feed, end func())
	// describe tells f, after the first pass, what kind of rows there are.
	describe(f *fitter)
}

// memory is a source of rows that are all there.
type memory struct {
	Chunk
	step int // of the rows of X.Data, every step-th is one of X.Rows
	unit int
}

func newMemory(c Chunk) *memory {
	m := &memory{Chunk: c, step: 1, unit: denseBlock}
	if c.isSparse() {
		m.unit = sparseBlock(c.Sparse.Cols)
	}
	return m
}

func (m *memory) describe(f *fitter) {
	f.sparse, f.offset = m.isSparse(), m.Offsets != nil
}

func (m *memory) pass() (feed, func()) { return &memoryFeed{memory: m}, func() {} }

type memoryFeed struct {
	*memory
	taken atomic.Int64 // blocks
}

func (m *memoryFeed) next(b *block, _ *chunkRoom) (bool, error) {
	number := int(m.taken.Add(1)) - 1
	lo := number * m.unit
	if lo >= m.rows() {
		return false, nil
	}
	hi := min(lo+m.unit, m.rows())
	*b = block{number: number, first: lo, n: hi - lo, step: m.step, y: m.Y[lo:hi]}
	if m.isSparse() {
		s := m.Sparse
		b.ptr = s.Ptr[lo : hi+1]
		b.index, b.data = s.Index[s.Ptr[lo]:s.Ptr[hi]], s.Data[s.Ptr[lo]:s.Ptr[hi]]
	} else {
		b.dense = m.X.Data[lo*m.step*m.X.Cols : ((hi-1)*m.step+1)*m.X.Cols]
	}
	if m.Weights != nil {
		b.weights = m.Weights[lo:hi]
	}
	if m.Offsets != nil {
		b.offsets = m.Offsets[lo:hi]
	}
	return true, nil
}

// stream is a source of rows that come in chunks. It cuts them into blocks of its own,
// so that the chunks' sizes leave no trace in a result.
type stream struct {
	chunks iter.Seq2[Chunk, error]
	cols   int

	// Found in the first pass, which ends with read; the others must agree.
	read             bool
	rows             int
	sparse           bool
	weighted, offset bool // some chunk has weights, offsets
}

// chunkRoom is where a worker keeps a block of a stream.
type chunkRoom struct {
	dense, data, y, weights, offsets []float64
	index                            []int32
	ptr                              []int
}

type streamFeed struct {
	*stream
	mu         sync.Mutex // over all below, and over stream
	pull       func() (Chunk, error, bool)
	number     int // of the next chunk
	chunk      Chunk
	at         int // rows of chunk that are taken
	blocks     int
	rowsPulled int
	rowsTaken  int
	failed     error
	ended      bool
}

func (s *stream) describe(f *fitter) {
	f.sparse, f.offset = s.sparse, s.offset
}

func (s *stream) pass() (feed, func()) {
	pull, stop := iter.Pull2(s.chunks)
	return &streamFeed{stream: s, pull: pull}, stop
}

func (s *streamFeed) next(b *block, room *chunkRoom) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*b = block{number: s.blocks, first: s.rowsTaken, step: 1}
	room.clear()
	for !s.ended && s.failed == nil {
		if s.at == s.chunk.rows() {
			s.failed = s.pullChunk()
			continue
		}
		unit := denseBlock
		if s.sparse {
			unit = sparseBlock(s.cols)
		}
		if b.n == unit {
			break
		}
		n := min(unit-b.n, s.chunk.rows()-s.at)
		room.append(s.chunk, s.at, n)
		b.n += n
		s.at += n
	}
	if s.failed != nil || b.n == 0 {
		return false, s.failed
	}
	s.blocks++
	s.rowsTaken += b.n
	b.y = room.y
	if s.sparse {
		b.ptr, b.index, b.data = room.ptr, room.index, room.data
	} else {
		b.dense = room.dense
	}
	if s.weighted {
		b.weights = room.weights
	}
	if s.offset {
		b.offsets = room.offsets
	}
	return true, nil
}

// pullChunk gets the next chunk and checks its shape, or marks the end.
func (s *streamFeed) pullChunk() error {
	s.chunk, s.at = Chunk{}, 0
	c, err, ok := s.pull()
	if !ok {
		s.ended = true
		if s.read && s.rowsPulled != s.rows {
			return &ShapeError{What: "rows of all chunks in a later pass", Got: s.rowsPulled, Want: fmt.Sprintf("as in the first, %d", s.rows)}
		}
		s.read, s.rows = true, s.rowsPulled
		return nil
	}
	if err != nil {
		return fmt.Errorf("lr: read chunk %d: %w", s.number, err)
	}
	if c.rows() == 0 {
		s.number++
		return nil
	}
	if s.rowsPulled == 0 && !s.read {
		s.sparse = c.isSparse()
	}
	if err := c.check(s.cols, s.sparse); err != nil {
		return fmt.Errorf("lr: chunk %d, from row %d: %w", s.number, s.rowsPulled, err)
	}
	if !s.read {
		s.weighted = s.weighted || c.Weights != nil
		s.offset = s.offset || c.Offsets != nil
	}
	s.number++
	s.rowsPulled += c.rows()
	s.chunk = c
	return nil
}

// check tells whether everything has the same number of rows and the kind and columns
// are those that the other chunks have.
func (c Chunk) check(cols int, sparse bool) error {
	got := c.X.Cols
	if c.isSparse() {
		got = c.Sparse.Cols
	}
	switch {
	case c.isSparse() != sparse || c.isSparse() && c.X.Data != nil:
		return &ShapeError{What: "kinds of matrix in all chunks", Got: 2, Want: "1, X or Sparse"}
	case c.isSparse():
		if err := c.Sparse.check(); err != nil {
			return err
		}
	default:
		if err := c.X.check(); err != nil {
			return err
		}
	}
	if got != cols {
		return &ShapeError{What: "columns of X", Got: got, Want: fmt.Sprintf("those of all chunks, %d", cols)}
	}
	want := fmt.Sprintf("one a row of X, %d", c.rows())
	switch {
	case len(c.Y) != c.rows():
		return &ShapeError{What: "length of y", Got: len(c.Y), Want: want}
	case c.Weights != nil && len(c.Weights) != c.rows():
		return &ShapeError{What: "length of Weights", Got: len(c.Weights), Want: want}
	case c.Offsets != nil && len(c.Offsets) != c.rows():
		return &ShapeError{What: "length of Offsets", Got: len(c.Offsets), Want: want}
	}
	return nil
}

func (r *chunkRoom) clear() {
	r.dense, r.index, r.data = r.dense[:0], r.index[:0], r.data[:0]
	r.y, r.weights, r.offsets = r.y[:0], r.weights[:0], r.offsets[:0]
	r.ptr = append(r.ptr[:0], 0)
}

// append copies n rows of c from row lo. Absent weights are 1 and absent offsets 0,
// since another chunk may have some.
func (r *chunkRoom) append(c Chunk, lo, n int) {
	r.y = append(r.y, c.Y[lo:lo+n]...)
	if c.isSparse() {
		from := c.Sparse.Ptr[lo]
		r.index = append(r.index, c.Sparse.Index[from:c.Sparse.Ptr[lo+n]]...)
		shift := len(r.data) - from
		r.data = append(r.data, c.Sparse.Data[from:c.Sparse.Ptr[lo+n]]...)
		for _, p := range c.Sparse.Ptr[lo+1 : lo+n+1] {
			r.ptr = append(r.ptr, p+shift)
		}
	} else if c.X.Data != nil {
		r.dense = append(r.dense, c.X.Data[lo*c.X.Cols:(lo+n)*c.X.Cols]...)
	}
	for i := range n {
		w, o := 1.0, 0.0
		if c.Weights != nil {
			w = c.Weights[lo+i]
		}
		if c.Offsets != nil {
			o = c.Offsets[lo+i]
		}
		r.weights, r.offsets = append(r.weights, w), append(r.offsets, o)
	}
}

// halve drops all rows of a dense room but every second, from the first on.
func (r *chunkRoom) halve(cols int) {
	n := (len(r.y) + 1) / 2
	for i := range n {
		r.y[i], r.weights[i], r.offsets[i] = r.y[2*i], r.weights[2*i], r.offsets[2*i]
		copy(r.dense[i*cols:(i+1)*cols], r.dense[2*i*cols:])
	}
	r.y, r.weights, r.offsets, r.dense = r.y[:n], r.weights[:n], r.offsets[:n], r.dense[:n*cols]
}
