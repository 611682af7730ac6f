package lr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// slowFTRL is algorithm 1 of McMahan and others as it is printed, over a map, and with
// the intercept as a column of its own.
type slowFTRL struct {
	o    FTRLOptions
	z, n map[int32]float64
}

const slowIntercept = -1

func (f *slowFTRL) weight(j int32) float64 {
	l1, l2 := f.o.L1, f.o.L2
	if j == slowIntercept {
		l1, l2 = 0, 0
	}
	if math.Abs(f.z[j]) <= l1 {
		return 0
	}
	return -(f.z[j] - math.Copysign(l1, f.z[j])) / ((f.o.Beta+math.Sqrt(f.n[j]))/f.o.Alpha + l2)
}

func (f *slowFTRL) learn(index []int32, data []float64, y, weight float64) (p float64) {
	index, data = slices.Clone(index), slices.Clone(data)
	if !f.o.NoIntercept {
		index, data = append(index, slowIntercept), append(data, 1)
	}
	t := 0.0
	for k, j := range index {
		t += f.weight(j) * data[k]
	}
	p = 1 / (1 + math.Exp(-t))
	for k, j := range index {
		w := f.weight(j)
		g := weight * (p - y) * data[k]
		sigma := (math.Sqrt(f.n[j]+g*g) - math.Sqrt(f.n[j])) / f.o.Alpha
		f.z[j] += g - sigma*w
		f.n[j] += g * g
	}
	return p
}

type example struct {
	index     []int32
	data      []float64
	y, weight float64
}

func randomExamples(r *rand.Rand, n, cols int) []example {
	out := make([]example, n)
	for i := range out {
		e := &out[i]
		z := -0.5
		for range 1 + r.IntN(8) {
			j := r.IntN(cols) // now and then twice
			v := 1.0
			if r.IntN(2) == 0 {
				v = r.NormFloat64()
			}
			e.index, e.data = append(e.index, int32(j)), append(e.data, v)
			z += v * float64(j%5-2) / 2
		}
		if r.Float64() < Sigmoid(z) {
			e.y = 1
		}
		e.weight = 1
		if r.IntN(4) == 0 {
			e.weight = float64(r.IntN(3))
		}
	}
	return out
}

func TestFTRLAgainstItsDefinition(t *testing.T) {
	const seed = 401
	r := rand.New(rand.NewPCG(seed, 0))
	for _, o := range []FTRLOptions{
		{Cols: 12, Alpha: 0.1, Beta: 1},
		{Cols: 12, Alpha: 0.5, Beta: 0.3, L1: 0.8, L2: 0.4},
		{Cols: 40, Alpha: 2, Beta: 1, L1: 15, NoIntercept: true},
	} {
		fast, err := NewFTRL(o)
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowFTRL{o: o, z: map[int32]float64{}, n: map[int32]float64{}}
		var judged []example
		var ps []float64
		for i, e := range randomExamples(r, 3000, o.Cols) {
			got, err := fast.Learn(e.index, e.data, e.y, e.weight)
			if err != nil {
				t.Fatal(err)
			}
			want := slow.learn(e.index, e.data, e.y, e.weight)
			if !(math.Abs(got-want) <= 1e-9) {
				t.Fatalf("%+v, seed %d, row %d: p %v, want %v", o, seed, i, got, want)
			}
			if e.weight > 0 {
				judged, ps = append(judged, e), append(ps, got)
			}
		}
		active := 0
		m := fast.Model()
		for j, w := range m.Weights {
			if w != 0 {
				active++
			}
			want := slow.weight(int32(j))
			checkClose(t, "weight", w, want, 1e-9)
			if w == 0 != (want == 0) {
				t.Errorf("weight %d is %v, want %v", j, w, want)
			}
		}
		if fast.Active() != active || o.L1 == 15 && (active > 30 || active == 0) || o.L1 == 0 && active != o.Cols {
			t.Errorf("L1 %v: %d of %d active, %d counted", o.L1, fast.Active(), o.Cols, active)
		}
		checkClose(t, "intercept", m.Intercept, slow.weight(slowIntercept), 1e-9)

		// The progressive measures are those of the predictions that Learn returned.
		y, w := make([]float64, len(judged)), make([]float64, len(judged))
		for i, e := range judged {
			y[i], w[i] = e.y, e.weight
		}
		want, err := EvaluateWeighted(y, ps, w)
		if err != nil {
			t.Fatal(err)
		}
		got := fast.Progressive()
		if got.N != want.N || got.Positives != want.Positives || got.Weight != want.Weight {
			t.Errorf("progressive %+v, want %+v", got, want)
		}
		checkClose(t, "progressive log-loss", got.LogLoss, want.LogLoss, 1e-12)
		checkClose(t, "progressive Brier", got.Brier, want.Brier, 1e-12)
	}
}

// numpy's FTRL, for which the constant is a column like others.
func TestGoldenFTRL(t *testing.T) {
	const set = "german_credit"
	b, err := os.ReadFile(filepath.Join(sharedData, set, "golden.json"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("reference figures are absent: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	type run struct {
		HP     float64 `json:"hp"`
		Train  float64 `json:"train_progressive_logloss"`
		Test   float64 `json:"test_progressive_logloss"`
		AUC    float64 `json:"test_progressive_auc"`
		Frozen float64 `json:"test_frozen_logloss"`
	}
	var g struct {
		Splits map[string]struct {
			Online struct {
				FTRL struct{ Grid []run } `json:"ftrl_proximal_l2_1"`
			}
		}
	}
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	train, test := readDesign(t, set+"/design.mod5.csv.gz")
	grid := g.Splits["mod5"].Online.FTRL.Grid
	if len(grid) == 0 {
		t.Fatalf("%s: no reference", set)
	}
	for _, want := range grid {
		cols := train.X.Cols
		f, err := NewFTRL(FTRLOptions{Cols: cols + 1, Alpha: want.HP, L2: 1, NoIntercept: true})
		if err != nil {
			t.Fatal(err)
		}
		index := make([]int32, cols+1)
		for j := range index {
			index[j] = int32(j)
		}
		// Rows of the raw file in the order that the reference visited them: of each
		// part by splitmix64 of the row index, of which every fifth is test.
		play := func(s sample, isTest bool, learn func(x []float64, y float64)) {
			for _, k := range visits(train.X.Rows+test.X.Rows, isTest) {
				learn(append(slices.Clone(s.X.Row(k)), 1), s.y[k])
			}
		}
		var frozen, testY, testP []float64
		play(train, false, func(x []float64, y float64) {
			if _, err := f.Learn(index, x, y, 1); err != nil {
				t.Fatal(err)
			}
		})
		name := fmt.Sprintf("%s alpha %v", set, want.HP)
		checkClose(t, name+" train", f.Progressive().LogLoss, want.Train, 1e-9)
		play(test, true, func(x []float64, y float64) { frozen = append(frozen, f.Prob(index, x)) })
		play(test, true, func(x []float64, y float64) {
			p, err := f.Learn(index, x, y, 1)
			if err != nil {
				t.Fatal(err)
			}
			testY, testP = append(testY, y), append(testP, p)
		})
		m, err := Evaluate(testY, testP)
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, name+" test", m.LogLoss, want.Test, 1e-9)
		checkClose(t, name+" AUC", m.AUC, want.AUC, 1e-9)
		loss, err := LogLoss(testY, frozen)
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, name+" frozen", loss, want.Frozen, 1e-9)
	}
}

// visits returns the rows of a part of the mod5 split in ascending order of the
// splitmix64 of their index in the whole, as indices in the part.
func visits(rows int, test bool) []int {
	type visit struct {
		hash uint64
		at   int
	}
	var vs []visit
	for i := range rows {
		if (i%5 == 4) != test {
			continue
		}
		h := uint64(i+1) * 0x9e3779b97f4a7c15
		h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
		h = (h ^ h>>27) * 0x94d049bb133111eb
		vs = append(vs, visit{h ^ h>>31, len(vs)})
	}
	slices.SortFunc(vs, func(a, b visit) int {
		if a.hash < b.hash {
			return -1
		}
		return 1
	})
	out := make([]int, len(vs))
	for k, v := range vs {
		out[k] = v.at
	}
	return out
}

func TestFTRLPredictsAsItsModel(t *testing.T) {
	const seed = 402
	r := rand.New(rand.NewPCG(seed, 0))
	f, err := NewFTRL(FTRLOptions{Cols: 20, L1: 0.5, Alpha: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range randomExamples(r, 2000, 20) {
		if _, err := f.Learn(e.index, e.data, e.y, 1); err != nil {
			t.Fatal(err)
		}
	}
	m := f.Model()
	for range 500 {
		index := make([]int32, 0, 20)
		data := make([]float64, 0, 20)
		x := make([]float64, 20)
		for _, j := range r.Perm(20)[:r.IntN(20)] {
			x[j] = r.NormFloat64()
			index, data = append(index, int32(j)), append(data, x[j])
		}
		if got, want := f.Logit(index, data), m.Logit(x); got != want {
			t.Fatalf("seed %d: logit %v, the model's %v", seed, got, want)
		}
	}
}

// A row twice is a row of weight 2 only nearly, since the second sees what the first has
// taught; but a weight scales the gradient.
func TestFTRLWeights(t *testing.T) {
	a, _ := NewFTRL(FTRLOptions{Cols: 1, NoIntercept: true})
	b, _ := NewFTRL(FTRLOptions{Cols: 1, NoIntercept: true})
	if _, err := a.Learn([]int32{0}, []float64{1}, 1, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Learn([]int32{0}, []float64{1}, 1, 1); err != nil {
		t.Fatal(err)
	}
	// At weight 0 the gradient is 1/2 times the weight: w = g/((1+g)/0.1).
	checkClose(t, "weight 3", a.Model().Weights[0], 1.5/(2.5/0.1), 1e-15)
	checkClose(t, "weight 1", b.Model().Weights[0], 0.5/(1.5/0.1), 1e-15)
}

// In the long run one pass comes near the batch optimum.
func TestFTRLComesNearTheOptimum(t *testing.T) {
	s := generate(403, 40_000, 6)
	f, err := NewFTRL(FTRLOptions{Cols: 6})
	if err != nil {
		t.Fatal(err)
	}
	index := []int32{0, 1, 2, 3, 4, 5}
	for i, y := range s.y {
		if _, err := f.Learn(index, s.X.Row(i), y, 1); err != nil {
			t.Fatal(err)
		}
	}
	batch := mustFit(t, s, Options{Penalty: None})
	loss := batch.Objective / float64(s.X.Rows)
	if got := f.Progressive().LogLoss; !(got > loss && got < loss+0.003) {
		t.Errorf("progressive log-loss %v, that of the optimum %v", got, loss)
	}
	for j, w := range f.Model().Weights {
		checkClose(t, "weight", w, batch.Model.Weights[j], 0.06)
	}
}

func TestFTRLStateResumes(t *testing.T) {
	const seed = 404
	r := rand.New(rand.NewPCG(seed, 0))
	for _, o := range []FTRLOptions{{Cols: 30, L1: 1, L2: 0.1, Alpha: 0.7}, {Cols: 9, NoIntercept: true}} {
		f, err := NewFTRL(o)
		if err != nil {
			t.Fatal(err)
		}
		examples := randomExamples(r, 400, o.Cols)
		for i, e := range examples {
			if i%97 == 0 {
				state := mustMarshal(t, f)
				if f, err = DecodeFTRL(state, 30); err != nil {
					t.Fatal(err)
				}
				if again := mustMarshal(t, f); !bytes.Equal(again, state) {
					t.Fatalf("seed %d, row %d: the state is written differently after it was read", seed, i)
				}
			}
			if _, err := f.Learn(e.index, e.data, e.y, e.weight); err != nil {
				t.Fatal(err)
			}
		}
		whole, err := NewFTRL(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range examples {
			if _, err := whole.Learn(e.index, e.data, e.y, e.weight); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(mustMarshal(t, f), mustMarshal(t, whole)) || f.Progressive() != whole.Progressive() || f.Options() != whole.Options() {
			t.Errorf("seed %d: a learner that was stopped and resumed differs from one that was not", seed)
		}
		a, b := f.Model(), whole.Model()
		if bits(append(a.Weights, a.Intercept)...) != bits(append(b.Weights, b.Intercept)...) {
			t.Errorf("seed %d: weights differ in bits", seed)
		}
	}
}

func mustMarshal(t *testing.T, m interface{ MarshalBinary() ([]byte, error) }) []byte {
	t.Helper()
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// With labels delayed the learner is that of the order in which labels came, while
// the measure is of the predictions as they were made.
func TestDelayedLabels(t *testing.T) {
	const seed, most = 405, 50
	r := rand.New(rand.NewPCG(seed, 0))
	o := FTRLOptions{Cols: 15, Alpha: 0.5}
	learner, _ := NewFTRL(o)
	direct, _ := NewFTRL(o)
	d, err := NewDelayed(learner, most)
	if err != nil {
		t.Fatal(err)
	}
	examples := randomExamples(r, 1500, 15)
	predicted := map[uint64]float64{}
	var open []uint64
	var ys, ps, ws []float64
	forgotten := 0
	for i, e := range examples {
		id := uint64(i)*7 + 3
		p, err := d.Predict(id, e.index, e.data)
		if err != nil {
			t.Fatal(err)
		}
		if want := direct.Prob(e.index, e.data); p != want {
			t.Fatalf("seed %d, row %d: predicted %v, want %v", seed, i, p, want)
		}
		predicted[id] = p
		if open = append(open, id); len(open) > most {
			open = open[1:]
			forgotten++
		}
		for r.IntN(40) < len(open) {
			k := r.IntN(len(open))
			id := open[k]
			open = slices.Delete(open, k, k+1)
			e := examples[(id-3)/7]
			p, err := d.Label(id, e.y, e.weight)
			if err != nil || p != predicted[id] {
				t.Fatalf("label of %d: %v, %v, want %v", id, p, err, predicted[id])
			}
			if _, err := direct.Learn(e.index, e.data, e.y, e.weight); err != nil {
				t.Fatal(err)
			}
			if e.weight > 0 {
				ys, ps, ws = append(ys, e.y), append(ps, p), append(ws, e.weight)
			}
		}
		if i%200 == 0 {
			state := mustMarshal(t, d)
			if d, err = DecodeDelayed(state, 15); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(mustMarshal(t, d), state) {
				t.Fatal("the state is written differently after it was read")
			}
		}
		if d.Waiting() != len(open) || d.Expired() != forgotten {
			t.Fatalf("row %d: %d wait, %d forgotten, want %d, %d", i, d.Waiting(), d.Expired(), len(open), forgotten)
		}
	}
	a, b := d.Learner().Model(), direct.Model()
	if bits(append(a.Weights, a.Intercept)...) != bits(append(b.Weights, b.Intercept)...) {
		t.Errorf("seed %d: delayed labels teach something else than the same labels at once", seed)
	}
	want, err := EvaluateWeighted(ys, ps, ws)
	if err != nil {
		t.Fatal(err)
	}
	checkClose(t, "progressive log-loss", d.Learner().Progressive().LogLoss, want.LogLoss, 1e-12)
	if direct.Progressive().LogLoss == d.Learner().Progressive().LogLoss {
		t.Error("the delay does not show")
	}
}

func TestDelayedForgetsTheOldest(t *testing.T) {
	learner, _ := NewFTRL(FTRLOptions{Cols: 2})
	d, err := NewDelayed(learner, 2)
	if err != nil {
		t.Fatal(err)
	}
	x := []float64{1}
	for id := range uint64(3) {
		if _, err := d.Predict(id, []int32{1}, x); err != nil {
			t.Fatal(err)
		}
	}
	x[0] = 9 // the learner has its own copy
	var pending *PendingError
	if _, err := d.Label(0, 1, 1); !errors.As(err, &pending) || *pending != (PendingError{ID: 0}) {
		t.Errorf("label of a forgotten row: %v", err)
	}
	if _, err := d.Predict(2, nil, nil); !errors.As(err, &pending) || !pending.Waiting || err.Error() != "lr: row 2 already waits for its label" {
		t.Errorf("a row twice: %v", err)
	}
	if _, err := d.Label(2, 0.5, 1); err == nil || d.Waiting() != 2 {
		t.Errorf("label 0.5: %v, %d wait", err, d.Waiting())
	}
	if p, err := d.Label(2, 1, 0); err != nil || p != 0.5 || learner.Progressive().N != 0 {
		t.Errorf("a label of no weight: %v, %v", p, err)
	}
	if _, err := d.Label(1, 1, 1); err != nil || learner.Model().Weights[1] != 0.5/(1.5/0.1) {
		t.Errorf("%v, weight %v", err, learner.Model().Weights[1])
	}
	if _, err := NewDelayed(learner, 0); err == nil {
		t.Error("no capacity is no error")
	}
}

func TestFTRLRefusesBadInput(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for _, c := range []struct {
		o    FTRLOptions
		want string
	}{
		{FTRLOptions{}, "lr: Cols is 0, want between 1 and 1073741824"},
		{FTRLOptions{Cols: 1<<30 + 1}, "lr: Cols is 1073741825, want between 1 and 1073741824"},
		{FTRLOptions{Cols: 1, Alpha: -1}, "lr: option Alpha is -1, want 0 or between 1e-30 and 1e+30"},
		{FTRLOptions{Cols: 1, Beta: nan}, "lr: option Beta is NaN, want 0 or between 1e-30 and 1e+30"},
		{FTRLOptions{Cols: 1, L1: inf}, "lr: option L1 is +Inf, want 0 or between 1e-30 and 1e+30"},
		{FTRLOptions{Cols: 1, L2: -0.1}, "lr: option L2 is -0.1, want 0 or between 1e-30 and 1e+30"},
	} {
		if _, err := NewFTRL(c.o); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	f, _ := NewFTRL(FTRLOptions{Cols: 3})
	if _, err := f.Learn([]int32{0, 2}, []float64{1, -2}, 1, 1); err != nil {
		t.Fatal(err)
	}
	before := mustMarshal(t, f)
	for _, c := range []struct {
		index     []int32
		data      []float64
		y, weight float64
		want      string
	}{
		{[]int32{0}, nil, 1, 1, "lr: length of data is 0, want that of index, 1"},
		{[]int32{0, 3}, []float64{1, 1}, 1, 1, "lr: index[1] is 3, want between 0 and 2"},
		{[]int32{-1}, []float64{1}, 1, 1, "lr: index[0] is -1, want between 0 and 2"},
		{[]int32{0, 2}, []float64{1, nan}, 1, 1, "lr: data column 2 is NaN, want finite and at most 1e+90 in magnitude"},
		{[]int32{1}, []float64{-inf}, 1, 1, "lr: data column 1 is -Inf, want finite and at most 1e+90 in magnitude"},
		{[]int32{1}, []float64{1}, 0.5, 1, "lr: y is 0.5, want 0 or 1"},
		{[]int32{1}, []float64{1}, 1, -1, "lr: weight is -1, want 0 or between 1e-30 and 1e+30"},
		{[]int32{1}, []float64{1}, 1, nan, "lr: weight is NaN, want 0 or between 1e-30 and 1e+30"},
	} {
		if _, err := f.Learn(c.index, c.data, c.y, c.weight); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if !bytes.Equal(mustMarshal(t, f), before) {
		t.Error("a refused row has left a trace")
	}
}

func TestStatesAreGuarded(t *testing.T) {
	f, _ := NewFTRL(FTRLOptions{Cols: 8})
	d, _ := NewDelayed(f, 4)
	for _, e := range randomExamples(rand.New(rand.NewPCG(406, 0)), 20, 8) {
		if _, err := f.Learn(e.index, e.data, e.y, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Predict(9, []int32{1, 7}, []float64{1, 0.5}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		state []byte
		read  func([]byte) error
	}{
		{"FTRL", mustMarshal(t, f), func(b []byte) error { _, err := DecodeFTRL(b, 8); return err }},
		{"Delayed", mustMarshal(t, d), func(b []byte) error { _, err := DecodeDelayed(b, 8); return err }},
	} {
		if err := c.read(c.state); err != nil {
			t.Fatal(err)
		}
		for i := range c.state {
			altered := slices.Clone(c.state)
			altered[i] ^= 1 << (i % 8)
			if c.read(altered) == nil {
				t.Fatalf("%s: byte %d was altered and it was read", c.name, i)
			}
			if c.read(c.state[:i]) == nil {
				t.Fatalf("%s: cut at byte %d and it was read", c.name, i)
			}
		}
		if c.read(append(slices.Clone(c.state), 0)) == nil {
			t.Errorf("%s: one byte more and it was read", c.name)
		}
		future := slices.Clone(c.state)
		future[8] = 2
		var version *VersionError
		if err := c.read(future); !errors.As(err, &version) || version.Version != 2 || version.Want != 1 {
			t.Errorf("%s of version 2: %v", c.name, err)
		}
	}
	// Memory is bounded before it is taken.
	var format *FormatError
	if _, err := DecodeFTRL(mustMarshal(t, f), 7); !errors.As(err, &format) || format.Where != "cols" {
		t.Errorf("more columns than wanted: %v", err)
	}
}

// A state that is well sealed but not one that is ever written is refused.
func TestStatesHaveOneForm(t *testing.T) {
	f, _ := NewFTRL(FTRLOptions{Cols: 8})
	if _, err := f.Learn([]int32{2, 5}, []float64{1, -2}, 1, 1); err != nil {
		t.Fatal(err)
	}
	const header = 8 + 15*wordBytes
	state := mustMarshal(t, f)
	body := state[:len(state)-32]
	first, second := body[header:header+columnBytes], body[header+columnBytes:]
	if len(second) != columnBytes {
		t.Fatalf("%d bytes follow the first column", len(second))
	}
	unseen := make([]byte, columnBytes)
	unseen[0] = 7
	at := func(i int, b byte) []byte {
		c := slices.Clone(body)
		c[i] = b
		return c
	}
	for name, b := range map[string][]byte{
		"columns out of order":  slices.Concat(body[:header], second, first),
		"a column twice":        slices.Concat(body[:header], first, first),
		"a column never seen":   slices.Concat(body[:header], first, unseen),
		"a column too far":      at(header+columnBytes, 8),
		"negative n":            at(header+columnBytes-1, 0xbf),
		"NaN for z":             slices.Concat(body[:header], first[:8], []byte{1, 0, 0, 0, 0, 0, 0xf8, 0x7f}, first[16:], second),
		"one column said":       at(header-wordBytes, 1),
		"an unknown flag":       at(8+6*wordBytes, 2),
		"more positives":        at(8+8*wordBytes, 9),
		"alpha 0":               slices.Concat(body[:24], make([]byte, 8), body[32:]),
		"an intercept left out": at(8+6*wordBytes, 1),
	} {
		_, err := DecodeFTRL(sealed(b), 8)
		var format *FormatError
		if !errors.As(err, &format) {
			t.Errorf("%s: %v, want a FormatError", name, err)
		}
	}
}

func TestHashColumn(t *testing.T) {
	// Fixed for ever: models depend on it.
	for _, c := range []struct {
		field, level string
		want         int32
	}{{"", "", 113621}, {"country", "NO", 34599}, {"country", "SE", 564434}, {"amount", "", 808269}} {
		if got := HashColumn(1<<20, c.field, c.level); got != c.want {
			t.Errorf("%q %q: column %d, want %d", c.field, c.level, got, c.want)
		}
	}
	const cols, keys = 1000, 20_000
	var counts [cols]float64
	for i := range keys {
		counts[HashColumn(cols, "f", fmt.Sprint(i))]++
	}
	chi := 0.0
	for _, c := range counts {
		chi += (c - keys/cols) * (c - keys/cols) / (keys / cols)
	}
	if p := chiSquareTail(chi, cols-1); p < 1e-4 || p > 1-1e-4 {
		t.Errorf("columns are not equally likely: chi-square %v, p %v", chi, p)
	}
	if HashColumn(1<<30, "ab", "c") == HashColumn(1<<30, "a", "bc") || HashColumn(1, "x", "y") != 0 {
		t.Error("field and level run together")
	}
}

func FuzzDecodeFTRL(f *testing.F) {
	learner, _ := NewFTRL(FTRLOptions{Cols: 8, L1: 0.1})
	d, _ := NewDelayed(learner, 4)
	f.Add(sealed(nil))
	for _, e := range randomExamples(rand.New(rand.NewPCG(407, 0)), 5, 8) {
		if _, err := learner.Learn(e.index, e.data, e.y, 1); err != nil {
			f.Fatal(err)
		}
		if _, err := d.Predict(uint64(len(e.index)), e.index, e.data); err != nil {
			continue
		}
	}
	for _, m := range []interface{ MarshalBinary() ([]byte, error) }{learner, d} {
		b, err := m.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-32])
	}
	// What is fuzzed is sealed, or the checksum would keep everything out.
	f.Fuzz(func(t *testing.T, body []byte) {
		state := sealed(body)
		if l, err := DecodeFTRL(state, 1000); err == nil {
			if again := mustMarshal(t, l); !bytes.Equal(again, state) {
				t.Errorf("read and written: %x, was %x", again, state)
			}
			if _, err := l.Learn([]int32{0}, []float64{1}, 1, 1); err != nil {
				t.Error(err)
			}
		} else {
			mustBeTyped(t, err)
		}
		if l, err := DecodeDelayed(state, 1000); err == nil {
			if again := mustMarshal(t, l); !bytes.Equal(again, state) {
				t.Errorf("read and written: %x, was %x", again, state)
			}
		} else {
			mustBeTyped(t, err)
		}
	})
}

func BenchmarkFTRL(b *testing.B) {
	const rows, active, cols = 4096, 30, 1 << 20
	r := rand.New(rand.NewPCG(408, 0))
	index, data := make([]int32, rows*active), make([]float64, rows*active)
	y := make([]float64, rows)
	for i := range rows {
		for k := range active {
			// Levels of a field are of very different frequency.
			level := int(1 / (r.Float64() + 1e-4))
			index[i*active+k] = HashColumn(cols, fmt.Sprint(k), fmt.Sprint(level))
			data[i*active+k] = 1
		}
		y[i] = float64(r.IntN(2))
	}
	f, err := NewFTRL(FTRLOptions{Cols: cols, L1: 1, L2: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		i := n % rows
		if _, err := f.Learn(index[i*active:(i+1)*active], data[i*active:(i+1)*active], y[i], 1); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}
