package lr

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// The truth about a data set of two integer columns, by trying every line through
// two of its points (Albert and Anderson's definitions). If the columns and the
// constant are independent, then the directions that separate form a cone without a
// line in it; it has an edge wherever it is not empty, and an edge is a line that two
// different points lie on.
func bruteSeparation(points [][2]int, y []float64) (independent, separated, complete bool) {
	inside := make([]int, len(points)) // sum over edges of the rows' margins
	for i, p := range points {
		for _, q := range points[:i] {
			// The line through p and q: a·x + b·y + c = 0.
			a, b := p[1]-q[1], q[0]-p[0]
			if a == 0 && b == 0 {
				continue
			}
			c := -a*p[0] - b*p[1]
			for _, sign := range []int{1, -1} {
				margins := make([]int, len(points))
				least, most := 0, 0
				for k, r := range points {
					margins[k] = sign * (a*r[0] + b*r[1] + c)
					if y[k] == 0 {
						margins[k] = -margins[k]
					}
					least, most = min(least, margins[k]), max(most, margins[k])
				}
				independent = independent || least < 0 || most > 0
				if least == 0 && most > 0 {
					separated = true
					for k, m := range margins {
						inside[k] += m
					}
				}
			}
		}
	}
	// The sum of the edges is inside the cone, so it is on the right side of every row
	// that any direction is on the right side of.
	return independent, separated, separated && !slices.Contains(inside, 0)
}

func TestSeparationAgainstEveryLine(t *testing.T) {
	const seed = 51
	r := rand.New(rand.NewPCG(seed, 0))
	count := map[string]int{}
	for trial := range 4000 {
		n := 4 + r.IntN(12)
		side := 2 + r.IntN(4)
		points := make([][2]int, n)
		s := sample{X: Matrix{Rows: n, Cols: 2}, y: make([]float64, n)}
		for i := range points {
			points[i] = [2]int{r.IntN(side), r.IntN(side)}
			s.X.Data = append(s.X.Data, float64(points[i][0]), float64(points[i][1]))
			if r.IntN(side*2) < points[i][0]+points[i][1] {
				s.y[i] = 1
			}
		}
		if !slices.Contains(s.y, 0) || !slices.Contains(s.y, 1) {
			continue
		}
		independent, separated, complete := bruteSeparation(points, s.y)
		opts := Options{Penalty: None}
		if trial%2 == 1 {
			// Rows of weight 0, of any place and label, must not matter.
			opts.Weights = make([]float64, n, n+5)
			for i := range opts.Weights {
				opts.Weights[i] = 1
			}
			for range 5 {
				s.X.Rows++
				s.X.Data = append(s.X.Data, float64(r.IntN(9)-2), float64(r.IntN(9)-2))
				s.y = append(s.y, float64(r.IntN(2)))
				opts.Weights = append(opts.Weights, 0)
			}
		}
		result, err := Fit(t.Context(), s.X, s.y, opts)
		var separation *SeparationError
		var rank *RankError
		got := "error"
		switch {
		case errors.As(err, &separation):
			got = "quasi-complete separation"
			if separation.Complete {
				got = "complete separation"
			}
		case errors.As(err, &rank):
			got = "lack of rank"
		case err == nil && result.Converged:
			got = "optimum"
		}
		want := "optimum"
		switch {
		case !independent:
			want = "lack of rank"
		case complete:
			want = "complete separation"
		case separated:
			want = "quasi-complete separation"
		}
		count[want]++
		if got != want {
			t.Errorf("trial %d, seed %d: %s, want %s: points %v labels %v: %+v %v", trial, seed, got, want, points, s.y, result, err)
		}
	}
	t.Log(count)
	for _, kind := range []string{"optimum", "lack of rank", "complete separation", "quasi-complete separation"} {
		if count[kind] < 50 {
			t.Errorf("%d trials of %s: too few to say anything", count[kind], kind)
		}
	}
}

func TestSeparationIsNamed(t *testing.T) {
	// Column 2 is 1 in 7 rows, all of label 1: a category that always defaults.
	s := generate(52, 3000, 4)
	marked := 0
	for i := range s.X.Rows {
		s.X.Data[i*4+2] = 0
		if s.y[i] == 1 && marked < 7 {
			s.X.Data[i*4+2] = 1
			marked++
		}
	}
	_, err := Fit(t.Context(), s.X, s.y, Options{Penalty: None})
	var e *SeparationError
	if !errors.As(err, &e) || e.Complete || e.Rows != 7 || !slices.Equal(e.Columns, []int{2}) {
		t.Fatalf("one category of one label: %#v", err)
	}
	if want := "lr: quasi-complete separation of 7 rows by column 2: no finite maximum exists; use an L2 penalty, or drop or merge columns"; err.Error() != want {
		t.Errorf("message %q, want %q", err, want)
	}
	// A tolerance that is met on the way out is no optimum.
	for _, tolerance := range []float64{0.1, 1e-3, 1e-6} {
		if r, err := Fit(t.Context(), s.X, s.y, Options{Penalty: None, Tolerance: tolerance}); !errors.As(err, &e) {
			t.Errorf("tolerance %v: %+v, %v, want a SeparationError", tolerance, r, err)
		}
	}
	// With a penalty, and with one row to the contrary, there is an optimum.
	mustFit(t, s, Options{})
	mustFit(t, s, Options{C: 1e6})
	s.y[slices.Index(s.y, 1)] = 0
	for i := range s.X.Rows {
		if s.X.Data[i*4+2] == 1 && s.y[i] == 0 {
			mustFit(t, s, Options{Penalty: None})
			return
		}
	}
	t.Fatal("no contrary row was made")
}

// A plane through all columns, with rows close to it on both sides.
func TestCompleteSeparationOfManyRows(t *testing.T) {
	for _, rows := range []int{50, 500, 5000} {
		s := generate(56, rows, 5)
		for i := range s.y {
			x := s.X.Row(i)
			s.y[i] = 0
			if x[0]-x[1]+0.5*x[2]-0.1*x[3]+2*x[4] > 0.3 {
				s.y[i] = 1
			}
		}
		r, err := Fit(t.Context(), s.X, s.y, Options{Penalty: None})
		var e *SeparationError
		if !errors.As(err, &e) || !e.Complete || e.Rows != rows || !slices.Equal(e.Columns, []int{0, 1, 2, 3, 4}) {
			t.Errorf("%d rows: %+v, %#v", rows, r, err)
		}
	}
}

// One contrary row of tiny weight keeps the optimum finite, but far out.
func TestNearlySeparatedIsNotSeparated(t *testing.T) {
	s := sample{X: Matrix{Rows: 6, Cols: 1, Data: []float64{0, 0, 0, 1, 1, 1}}, y: []float64{0, 1, 0, 1, 1, 0}}
	for _, w := range []float64{1e-3, 1e-6, 1e-9} {
		r := mustFit(t, s, Options{Penalty: None, Weights: []float64{1, 1, 1, 1, 1, w}})
		// In each group the fitted odds are the observed ones.
		checkClose(t, "intercept", r.Model.Intercept, -0.6931471805599453, 1e-8)
		checkClose(t, "weight", r.Model.Weights[0], Log(2/w)+0.6931471805599453, 1e-6)
	}
}

// A row far out is told from the others by a direction in which these hardly move,
// but they do: the optimum is finite.
func TestAnOutlierIsNotSeparated(t *testing.T) {
	for _, far := range []float64{1e4, 1e6, 1e8} {
		s := generate(55, 400, 1)
		s.X.Data[0], s.y[0] = far, 1
		r := mustFit(t, s, Options{Penalty: None})
		_, gradient := slowObjective(r.Model, s, Options{Penalty: None})
		checkClose(t, "gradient in the outlier's unit", gradient[0]/far, 0, 1e-12)
		checkClose(t, "gradient", gradient[1], 0, 1e-9)
	}
}

func TestLackOfRankIsNamed(t *testing.T) {
	s := generate(53, 2000, 5)
	set := func(f func(row []float64) float64) sample {
		u := sample{X: Matrix{Rows: s.X.Rows, Cols: 5, Data: slices.Clone(s.X.Data)}, y: s.y}
		for i := range u.X.Rows {
			u.X.Row(i)[3] = f(u.X.Row(i))
		}
		return u
	}
	for _, c := range []struct {
		name string
		f    func(row []float64) float64
		want *RankError
	}{
		{"constant", func([]float64) float64 { return 0.1 }, &RankError{Column: 3, Constant: true}},
		{"zero", func([]float64) float64 { return 0 }, &RankError{Column: 3, Constant: true}},
		{"copy", func(r []float64) float64 { return r[1] }, &RankError{Column: 3}},
		{"combination", func(r []float64) float64 { return 3*r[0] - 1e-3*r[2] + 1000 }, &RankError{Column: 3}},
	} {
		u := set(c.f)
		for _, start := range []*Model{nil, {Intercept: -1, Weights: []float64{0.1, 0, 0, 0, 0}}} {
			_, err := Fit(t.Context(), u.X, u.y, Options{Penalty: None, Start: start})
			var e *RankError
			if !errors.As(err, &e) || *e != *c.want {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
		}
		mustFit(t, u, Options{})
	}
	// Nearly a copy is not a copy.
	noise := rand.New(rand.NewPCG(54, 0))
	mustFit(t, set(func(r []float64) float64 { return r[1] + 1e-4*noise.Float64() }), Options{Penalty: None})
}
