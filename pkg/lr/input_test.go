package lr

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"testing"
)

func TestFitRefusesBadInput(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	matrix := func(rows, cols int, data ...float64) Matrix { return Matrix{Rows: rows, Cols: cols, Data: data} }
	good := matrix(4, 2, 1, 2, 3, 4, 5, 7, 1, 0)
	labels := []float64{0, 1, 0, 1}
	with := func(i int, v float64) Matrix {
		m := Matrix{Rows: 4, Cols: 2, Data: slices.Clone(good.Data)}
		m.Data[i] = v
		return m
	}
	finite := "finite and at most 1e+90 in magnitude"
	weight := "0 or between 1e-90 and 1e+90"
	for _, c := range []struct {
		name string
		X    Matrix
		y    []float64
		opts Options
		want error
		text string
	}{
		{"no rows", matrix(0, 2), nil, Options{},
			&ShapeError{"rows of X", 0, "at least 1"}, "lr: rows of X is 0, want at least 1"},
		{"no columns", matrix(4, 0), labels, Options{},
			&ShapeError{"columns of X", 0, "at least 1"}, "lr: columns of X is 0, want at least 1"},
		{"negative rows", matrix(-1, 2), nil, Options{}, &ShapeError{"rows of X", -1, "at least 1"}, ""},
		{"negative columns", matrix(4, -2), labels, Options{}, &ShapeError{"columns of X", -2, "at least 1"}, ""},
		{"short data", matrix(4, 2, 1, 2, 3), labels, Options{},
			&ShapeError{"length of X.Data", 3, "4 rows x 2 columns"}, "lr: length of X.Data is 3, want 4 rows x 2 columns"},
		{"dimension overflow", Matrix{Rows: math.MaxInt/2 + 1, Cols: 2, Data: nil}, nil, Options{},
			&ShapeError{"length of X.Data", 0, strconv.Itoa(math.MaxInt/2+1) + " rows x 2 columns"}, ""},
		{"too many columns", Matrix{Rows: 2, Cols: 8193, Data: make([]float64, 2*8193)}, []float64{1, 0}, Options{Solver: SolverNewton},
			&ShapeError{"columns of X for SolverNewton", 8193, "at most 8192"}, ""},
		{"short y", good, labels[:3], Options{},
			&ShapeError{"length of y", 3, "one a row of X, 4"}, "lr: length of y is 3, want one a row of X, 4"},
		{"short weights", good, labels, Options{Weights: []float64{1}}, &ShapeError{"length of Weights", 1, "one a row of X, 4"}, ""},
		{"short start", good, labels, Options{Start: &Model{Weights: []float64{1}}}, &ShapeError{"length of Start.Weights", 1, "one a column of X, 2"}, ""},

		{"NaN in X", with(5, nan), labels, Options{},
			&ValueError{"X", 2, 1, nan, finite}, "lr: X row 2 column 1 is NaN, want finite and at most 1e+90 in magnitude"},
		{"+Inf in X", with(0, inf), labels, Options{}, &ValueError{"X", 0, 0, inf, finite}, ""},
		{"-Inf in X", with(7, -inf), labels, Options{}, &ValueError{"X", 3, 1, -inf, finite}, ""},
		{"huge in X", with(6, 1e91), labels, Options{}, &ValueError{"X", 3, 0, 1e91, finite}, ""},
		{"huge and negative in X", with(6, -1e91), labels, Options{}, &ValueError{"X", 3, 0, -1e91, finite}, ""},
		{"label 2", good, []float64{0, 1, 2, 1}, Options{}, &ValueError{"y", 2, -1, 2, "0 or 1"}, "lr: y row 2 is 2, want 0 or 1"},
		{"NaN label", good, []float64{nan, 1, 0, 1}, Options{}, &ValueError{"y", 0, -1, nan, "0 or 1"}, ""},
		{"negative weight", good, labels, Options{Weights: []float64{1, 1, 1, -0.5}},
			&ValueError{"Weights", 3, -1, -0.5, weight}, "lr: Weights row 3 is -0.5, want 0 or between 1e-90 and 1e+90"},
		{"NaN weight", good, labels, Options{Weights: []float64{1, nan, 1, 1}}, &ValueError{"Weights", 1, -1, nan, weight}, ""},
		{"infinite weight", good, labels, Options{Weights: []float64{1, inf, 1, 1}}, &ValueError{"Weights", 1, -1, inf, weight}, ""},
		{"NaN start", good, labels, Options{Start: &Model{Weights: []float64{1, nan}}}, &ValueError{"Start.Weights", -1, 1, nan, finite}, "lr: Start.Weights column 1 is NaN, want finite and at most 1e+90 in magnitude"},
		{"infinite start", good, labels, Options{Start: &Model{Intercept: inf, Weights: []float64{1, 1}}}, &ValueError{"Start.Intercept", -1, -1, inf, finite}, ""},

		{"all weights zero", good, labels, Options{Weights: make([]float64, 4)},
			&OptionError{"Weights", 0, "at least one row of weight above 0"}, "lr: option Weights is 0, want at least one row of weight above 0"},
		{"only zeros", good, make([]float64, 4), Options{}, &OneClassError{0, 4}, "lr: all 4 rows have label 0, want both 0 and 1"},
		{"only ones", good, []float64{1, 1, 1, 1}, Options{}, &OneClassError{1, 4}, ""},
		{"only ones that count", good, labels, Options{Weights: []float64{0, 1, 0, 1}}, &OneClassError{1, 2}, ""},

		{"negative C", good, labels, Options{C: -1}, &OptionError{"C", -1, "between 1e-100 and 1e100, or +Inf for no penalty"}, ""},
		{"NaN C", good, labels, Options{C: nan}, &OptionError{"C", nan, "between 1e-100 and 1e100, or +Inf for no penalty"}, ""},
		{"C without penalty", good, labels, Options{Penalty: None, C: 2}, &OptionError{"C", 2, "0 or +Inf, since without a penalty it has no meaning"}, ""},
		{"unknown penalty", good, labels, Options{Penalty: 7}, &OptionError{"Penalty", 7, "L2, None, L1 or ElasticNet"}, ""},
		{"tolerance 1", good, labels, Options{Tolerance: 1}, &OptionError{"Tolerance", 1, "above 0 and below 1"}, ""},
		{"NaN tolerance", good, labels, Options{Tolerance: nan}, &OptionError{"Tolerance", nan, "above 0 and below 1"}, ""},
		{"negative iterations", good, labels, Options{MaxIterations: -1}, &OptionError{"MaxIterations", -1, "at least 0"}, ""},
		{"negative workers", good, labels, Options{Workers: -1}, &OptionError{"Workers", -1, "at least 0"}, ""},
	} {
		r, err := Fit(t.Context(), c.X, c.y, c.opts)
		if r != nil || err == nil {
			t.Errorf("%s: %v, %v, want %v", c.name, r, err, c.want)
			continue
		}
		// By text too, since NaN does not equal itself.
		if reflect.TypeOf(err) != reflect.TypeOf(c.want) || err.Error() != c.want.Error() {
			t.Errorf("%s: %#v, want %#v", c.name, err, c.want)
		}
		if c.text != "" && err.Error() != c.text {
			t.Errorf("%s: %q, want %q", c.name, err, c.text)
		}
	}
}

// Of several bad cells the first is named, whichever block and worker finds it.
func TestFirstBadCellIsNamed(t *testing.T) {
	s := generate(41, 9*blockRows, 3)
	for _, at := range []struct{ row, col int }{{8*blockRows + 5, 0}, {5*blockRows - 1, 2}, {blockRows, 1}, {0, 2}} {
		s.X.Data[at.row*3+at.col] = math.NaN()
		_, err := Fit(t.Context(), s.X, s.y, Options{Workers: 4})
		var bad *ValueError
		if !errors.As(err, &bad) || bad.Row != at.row || bad.Col != at.col {
			t.Errorf("NaN first at row %d column %d: %v", at.row, at.col, err)
		}
	}
}
