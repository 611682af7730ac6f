package lr

import "strconv"

// Matrix is a dense matrix in row-major order: element (i, j) is
// Data[i*Cols+j]. Rows are observations, columns are features. It holds no
// column for the intercept.
type Matrix struct {
	Rows, Cols int
	Data       []float64 // length Rows*Cols; the functions here only read it
}

// Row returns row i, of length Cols, without copying.
func (m Matrix) Row(i int) []float64 {
	return m.Data[i*m.Cols : (i+1)*m.Cols : (i+1)*m.Cols]
}

// check tells whether the dimensions are positive and agree with Data. It
// divides rather than multiplies, since Rows*Cols can overflow.
func (m Matrix) check() error {
	switch {
	case m.Rows < 1:
		return &ShapeError{What: "rows of X", Got: m.Rows, Want: "at least 1"}
	case m.Cols < 1:
		return &ShapeError{What: "columns of X", Got: m.Cols, Want: "at least 1"}
	case len(m.Data)/m.Cols != m.Rows || len(m.Data)%m.Cols != 0:
		return &ShapeError{What: "length of X.Data", Got: len(m.Data),
			Want: strconv.Itoa(m.Rows) + " rows x " + strconv.Itoa(m.Cols) + " columns"}
	}
	return nil
}
