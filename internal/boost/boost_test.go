package boost

import (
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/riskweir/riskweir/pkg/lr"
)

// crossed are rows whose label follows the signs of two columns together, which no sum over columns can tell.
func crossed(seed uint64, rows int) (lr.Matrix, []float64) {
	r := rand.New(rand.NewPCG(seed, 1))
	x, y := lr.Matrix{Rows: rows, Cols: 4, Data: make([]float64, 4*rows)}, make([]float64, rows)
	for i := range rows {
		row := x.Row(i)
		for j := range row {
			row[j] = r.NormFloat64()
		}
		row[3] = float64(r.IntN(2))
		p := 0.1
		if row[0]*row[1] < 0 {
			p = 0.9
		}
		if r.Float64() < p {
			y[i] = 1
		}
	}
	return x, y
}

func TestFitSeesWhatColumnsMeanTogether(t *testing.T) {
	x, y := crossed(1, 4000)
	m, err := Fit(context.Background(), x, y, Options{Depth: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	later, labels := crossed(2, 4000)
	p := make([]float64, later.Rows)
	for i := range p {
		p[i] = lr.Sigmoid(m.Logit(later.Row(i)))
	}
	e, err := lr.Evaluate(labels, p)
	if err != nil {
		t.Fatal(err)
	}
	if e.AUC < 0.88 || e.ECE > 0.1 { // 0.9 is the most that can be had
		t.Errorf("AUC %.4f, calibration error %.4f: want 0.88 and 0.1", e.AUC, e.ECE)
	}
	if err := m.Check(4); err != nil {
		t.Error(err)
	}
}

func TestFitIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	x, y := crossed(3, 1500)
	var first *Model
	for _, workers := range []int{1, 2, 7} {
		m, err := Fit(context.Background(), x, y, Options{Trees: 20, Workers: workers}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = m
		} else if !reflect.DeepEqual(m, first) {
			t.Errorf("with %d workers the model is another", workers)
		}
	}
}

// TestContributionsAreTheLogit: by groups, in any order, to the last bit; and the compiled trees are those that were fitted.
func TestContributionsAreTheLogit(t *testing.T) {
	x, y := crossed(4, 1500)
	m, err := Fit(context.Background(), x, y, Options{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := m.Compile([]int{2, 0, 0, 1})
	r := rand.New(rand.NewPCG(5, 5))
	groups := make([]float64, 3)
	for i := range x.Rows {
		clear(groups)
		row := x.Row(i)
		if i%7 == 0 {
			row[i%4] = math.Inf(1 - 2*(i%2))
		}
		s.Contributions(groups, row)
		r.Shuffle(3, func(i, j int) { groups[i], groups[j] = groups[j], groups[i] })
		sum := groups[0]
		sum += groups[1]
		sum += s.Base()
		sum += groups[2]
		if want := m.Logit(row); sum != want {
			t.Fatalf("row %d: contributions make %v, the logit is %v", i, sum, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Contributions(groups, x.Row(0)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCheckRefuses(t *testing.T) {
	good := func() *Model {
		return &Model{Trees: []Tree{{{Column: 0, Left: 1, Right: 2}, {Column: -1, Value: 1}, {Column: -1, Value: -1}}}}
	}
	if err := good().Check(1); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(m *Model){
		"column":    func(m *Model) { m.Trees[0][0].Column = 1 },
		"loop":      func(m *Model) { m.Trees[0][0].Left = 0 },
		"way out":   func(m *Model) { m.Trees[0][0].Right = 3 },
		"no number": func(m *Model) { m.Trees[0][1].Value = math.NaN() },
		"cut":       func(m *Model) { m.Trees[0][0].Cut = math.NaN() },
		"wild":      func(m *Model) { m.Trees[0][2].Value = 65 },
		"intercept": func(m *Model) { m.Intercept = math.Inf(1) },
		"empty":     func(m *Model) { m.Trees[0] = nil },
		"many":      func(m *Model) { m.Trees = make([]Tree, MaxTrees+1) },
	} {
		m := good()
		spoil(m)
		if m.Check(1) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFitErrors(t *testing.T) {
	x, y := crossed(6, 100)
	if _, err := Fit(context.Background(), x, make([]float64, 100), Options{}, nil); err == nil {
		t.Error("rows of one label were taken")
	}
	if _, err := Fit(context.Background(), x, y[:99], Options{}, nil); err == nil {
		t.Error("too few labels were taken")
	}
	if _, err := Fit(context.Background(), x, y, Options{Depth: MaxDepth + 1}, nil); err == nil {
		t.Error("trees too deep were taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fit(ctx, x, y, Options{}, nil); err == nil {
		t.Error("it went on after the end of its context")
	}
}
