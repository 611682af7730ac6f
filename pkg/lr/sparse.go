package lr

import (
	"fmt"
	"math"
)

// Sparse is a matrix in compressed sparse rows (CSR): row i has the value Data[k] in
// column Index[k] for Ptr[i] <= k < Ptr[i+1], and 0 everywhere else. Within a row
// the columns ascend. As in [Matrix] no column stands for the intercept.
type Sparse struct {
	Rows, Cols int
	Ptr        []int     // length Rows+1, from 0 to len(Index), never falling
	Index      []int32   // columns
	Data       []float64 // as long as Index; the functions here only read all three
}

// Row returns the columns and values of row i without copying.
func (s Sparse) Row(i int) (index []int32, data []float64) {
	lo, hi := s.Ptr[i], s.Ptr[i+1]
	return s.Index[lo:hi:hi], s.Data[lo:hi:hi]
}

// check tells whether the dimensions are positive and Ptr fits them. What stands in
// Index and Data is looked at when the columns are measured.
func (s Sparse) check() error {
	switch {
	case s.Rows < 1:
		return &ShapeError{What: "rows of X", Got: s.Rows, Want: "at least 1"}
	case s.Cols < 1:
		return &ShapeError{What: "columns of X", Got: s.Cols, Want: "at least 1"}
	case s.Cols > math.MaxInt32:
		return &ShapeError{What: "columns of X", Got: s.Cols, Want: fmt.Sprintf("at most %d", math.MaxInt32)}
	case len(s.Ptr)-1 != s.Rows:
		return &ShapeError{What: "length of X.Ptr", Got: len(s.Ptr), Want: fmt.Sprintf("one more than the rows of X, %d", s.Rows)}
	case len(s.Data) != len(s.Index):
		return &ShapeError{What: "length of X.Data", Got: len(s.Data), Want: fmt.Sprintf("that of X.Index, %d", len(s.Index))}
	case s.Ptr[0] != 0:
		return &ShapeError{What: "X.Ptr[0]", Got: s.Ptr[0], Want: "0"}
	case s.Ptr[s.Rows] != len(s.Index):
		return &ShapeError{What: "the last of X.Ptr", Got: s.Ptr[s.Rows], Want: fmt.Sprintf("the length of X.Index, %d", len(s.Index))}
	}
	for i, p := range s.Ptr[1:] {
		if p < s.Ptr[i] {
			return &ShapeError{What: fmt.Sprintf("X.Ptr[%d]", i+1), Got: p, Want: fmt.Sprintf("at least the one before, %d", s.Ptr[i])}
		}
	}
	return nil
}

// LogitSparse returns the log-odds of the row that has data[k] in column index[k] and
// 0 elsewhere. It has the same bits as [Model.Logit] of the row written out, in
// whatever order the columns are named, while all terms together stay below 8192 in
// magnitude; beyond, if they ascend. It panics if the lengths differ or a column is
// not one of the model's.
func (m Model) LogitSparse(index []int32, data []float64) float64 {
	if len(data) != len(index) {
		panicLength("data", len(data), len(index))
	}
	z := quantise(m.Intercept)
	for k, j := range index {
		z += quantise(float64(m.Weights[j] * data[k]))
	}
	return z
}

// LogitsSparse writes the log-odds of each row of X into dst and allocates nothing. It
// panics unless len(dst) == X.Rows and X.Cols == len(Weights).
func (m Model) LogitsSparse(dst []float64, X Sparse) {
	if len(dst) != X.Rows {
		panicLength("dst", len(dst), X.Rows)
	}
	if X.Cols != len(m.Weights) {
		panicLength("Weights", len(m.Weights), X.Cols)
	}
	for i := range dst {
		dst[i] = m.LogitSparse(X.Row(i))
	}
}

// ProbsSparse writes the probability of label 1 for each row of X into dst and
// allocates nothing. It panics unless len(dst) == X.Rows and X.Cols == len(Weights).
func (m Model) ProbsSparse(dst []float64, X Sparse) {
	m.LogitsSparse(dst, X)
	for i, z := range dst {
		dst[i] = Sigmoid(z)
	}
}
