package lr

import (
	"fmt"
	"math"
)

// FTRLOptions are the settings of an [FTRL] learner.
type FTRLOptions struct {
	// Cols is the number of columns, at most 2³⁰. With features hashed by [HashColumn] it
	// is the size of the table: the larger, the fewer share a weight. A column takes 32
	// bytes, seen or not.
	Cols int

	// Alpha is the learning rate: a column's weight first moves by about Alpha for a
	// gradient of 1. 0 means 0.1; the best is found by trial, and lies with the size of the
	// features.
	Alpha float64
	// Beta keeps a column's first steps small: the rate is Alpha/(Beta + √Σg²) after
	// gradients g. 0 means 1, which suits almost all.
	Beta float64
	// L1 makes the weights of columns exactly 0 that have not earned more, and L2 draws all
	// towards 0. Both count against the sum of the losses, not their mean. The intercept
	// is exempt.
	L1, L2 float64
	// NoIntercept leaves out the intercept.
	NoIntercept bool
}

// FTRL learns a logistic regression from rows that come one at a time and are not kept:
// "follow the regularised leader, proximally" (McMahan and others, Ad Click Prediction: a View
// from the Trenches, KDD 2013, algorithm 1). After gradients g₁, ..., g_t = (pᵢ-yᵢ)xᵢ of a
// column, with n = Σgᵢ², its weight is that of least
//
//	z·w + L1·|w| + ½(L2 + (Beta+√n)/Alpha)w²,  zₜ = zₜ₋₁ + gₜ - wₜ₋₁(√nₜ - √nₜ₋₁)/Alpha
//
// which is 0 if |z| <= L1, and otherwise -(z - sign(z)·L1)/((Beta+√n)/Alpha + L2). So
// each column has its own rate, that falls with the information it has had: frequent
// ones are settled while rare ones still learn.
//
// A row is given by its columns that are not 0 and their values, in any order, as in
// [Sparse]. A column named twice counts as two features that share a weight: their values
// add up in the logit, and each moves the weight in turn.
//
// What is learned depends on the rows and their order only, to the last bit and on
// every CPU. An FTRL must not be used by two goroutines at a time.
type FTRL struct {
	options FTRLOptions // defaults filled in
	inverse float64     // 1/Alpha

	intercept coordinate
	columns   []coordinate
	progress  Progressive
	losses    float64 // Σ weight·loss of progress
	squares   float64 // Σ weight·(p-y)²
}

// coordinate is the state of a weight. root and weight follow from z and n, and spare
// Predict the root and the quotient.
type coordinate struct {
	z, n   float64
	root   float64 // √n
	weight float64
}

// Progressive is how well an online learner foretold each label before it learned from
// it, over all rows so far: an honest measure that needs no rows held back (Blum, Kalai and
// Langford, COLT 1999).
type Progressive struct {
	N         int     `json:"n"` // rows of weight above 0
	Positives int     `json:"positives"`
	Weight    float64 `json:"weight"`
	LogLoss   float64 `json:"log_loss"` // weighted mean, in nats; 0 while N is 0
	Brier     float64 `json:"brier"`    // weighted mean; 0 while N is 0
}

const (
	maxFTRLCols = 1 << 30
	// minRate bounds Alpha, Beta, L1 and L2, so that no rate underflows.
	minRate, maxRate = 1e-30, 1e30
)

// NewFTRL makes a learner whose weights are all 0. The error is a [ShapeError] or an
// [OptionError].
func NewFTRL(o FTRLOptions) (*FTRL, error) {
	if o.Cols < 1 || o.Cols > maxFTRLCols {
		return nil, &ShapeError{What: "Cols", Got: o.Cols, Want: fmt.Sprintf("between 1 and %d", maxFTRLCols)}
	}
	if o.Alpha == 0 {
		o.Alpha = 0.1
	}
	if o.Beta == 0 {
		o.Beta = 1
	}
	for _, c := range []struct {
		name  string
		value float64
		zero  bool
	}{{"Alpha", o.Alpha, false}, {"Beta", o.Beta, false}, {"L1", o.L1, true}, {"L2", o.L2, true}} {
		if c.zero && c.value == 0 {
			continue
		}
		if !(c.value >= minRate && c.value <= maxRate) {
			return nil, &OptionError{Option: c.name, Value: c.value, Want: fmt.Sprintf("0 or between %g and %g", minRate, maxRate)}
		}
	}
	return &FTRL{options: o, inverse: 1 / o.Alpha, columns: make([]coordinate, o.Cols)}, nil
}

// Options returns the settings, with what 0 stood for.
func (f *FTRL) Options() FTRLOptions { return f.options }

// Logit returns the log-odds of label 1 for the row that has data[k] in column index[k].
// It has the same bits as [Model.Logit] of f.Model() for the row written out, while all terms
// together stay below 8192 in magnitude. It allocates nothing, and panics if the lengths
// differ or a column is not one of Cols.
func (f *FTRL) Logit(index []int32, data []float64) float64 {
	if len(data) != len(index) {
		panicLength("data", len(data), len(index))
	}
	z := quantise(f.intercept.weight)
	for k, j := range index {
		z += quantise(float64(f.columns[j].weight * data[k]))
	}
	return z
}

// Prob returns the probability of label 1, Sigmoid(Logit(index, data)).
func (f *FTRL) Prob(index []int32, data []float64) float64 {
	return Sigmoid(f.Logit(index, data))
}

// Learn predicts a row and then learns its label y, 0 or 1. It returns the probability
// from before. weight multiplies the gradient and counts in [FTRL.Progressive]: 1 is usual,
// and 0 only predicts. If rows were left out by chance, weight is one over the chance of being
// kept.
//
// It allocates nothing. An error, a [ShapeError] or [ValueError], leaves f as it was.
func (f *FTRL) Learn(index []int32, data []float64, y, weight float64) (p float64, err error) {
	if err := f.check(index, data); err != nil {
		return 0, err
	}
	if err := checkExample(y, weight); err != nil {
		return 0, err
	}
	p = f.Prob(index, data)
	if weight == 0 {
		return p, nil
	}
	f.judge(p, y, weight)
	f.update(index, data, float64(weight*(p-y)))
	return p, nil
}

func (f *FTRL) check(index []int32, data []float64) error {
	if len(data) != len(index) {
		return &ShapeError{What: "length of data", Got: len(data), Want: fmt.Sprintf("that of index, %d", len(index))}
	}
	for k, j := range index {
		if uint(j) >= uint(len(f.columns)) {
			return &ValueError{What: fmt.Sprintf("index[%d]", k), Row: -1, Col: -1, Value: float64(j), Want: fmt.Sprintf("between 0 and %d", len(f.columns)-1)}
		}
		if v := data[k]; !(v >= -largest && v <= largest) {
			return &ValueError{What: "data", Row: -1, Col: int(j), Value: v, Want: fmt.Sprintf("finite and at most %g in magnitude", largest)}
		}
	}
	return nil
}

// maxGain bounds an example's weight such that no squared gradient overflows.
const maxGain = 1e30

func checkExample(y, weight float64) error {
	if y != 0 && y != 1 {
		return &ValueError{What: "y", Row: -1, Col: -1, Value: y, Want: "0 or 1"}
	}
	if weight != 0 && !(weight >= 1/maxGain && weight <= maxGain) {
		return &ValueError{What: "weight", Row: -1, Col: -1, Value: weight, Want: fmt.Sprintf("0 or between %g and %g", 1/maxGain, maxGain)}
	}
	return nil
}

// judge counts a prediction, of which the label has come.
func (f *FTRL) judge(p, y, weight float64) {
	f.progress.N++
	f.progress.Weight += weight
	if y == 1 {
		f.progress.Positives++
	}
	f.losses += float64(weight * rowLoss(y, p))
	d := p - y
	f.squares += float64(weight * float64(d*d))
}

// Progressive returns how well the labels so far were foretold.
func (f *FTRL) Progressive() Progressive {
	p := f.progress
	if p.N > 0 {
		p.LogLoss, p.Brier = f.losses/p.Weight, f.squares/p.Weight
	}
	return p
}

// update moves the weights of a row, for which the loss has the derivative slope by the
// logit.
func (f *FTRL) update(index []int32, data []float64, slope float64) {
	if !f.options.NoIntercept {
		f.intercept.add(slope, f.inverse)
		f.intercept.settle(f.options.Beta, 0, 0, f.inverse)
	}
	beta, l1, l2, inverse := f.options.Beta, f.options.L1, f.options.L2, f.inverse
	for k, j := range index {
		c := &f.columns[j]
		c.add(float64(slope*data[k]), inverse)
		c.settle(beta, l1, l2, inverse)
	}
}

// settle computes weight from z and root.
func (c *coordinate) settle(beta, l1, l2, inverse float64) {
	c.weight = shrunk(c.z, l1) / (float64((beta+c.root)*inverse) + l2)
}

// add counts gradient g in; inverse is 1/Alpha.
func (c *coordinate) add(g, inverse float64) {
	n := c.n + float64(g*g)
	root := math.Sqrt(n)
	c.z += g - float64(float64((root-c.root)*inverse)*c.weight)
	c.n, c.root = n, root
}

// shrunk returns -(z - sign(z)·l1), and 0 where |z| <= l1.
func shrunk(z, l1 float64) float64 {
	switch {
	case z > l1:
		return l1 - z
	case z < -l1:
		return -(z + l1)
	}
	return 0
}

// settle computes again what follows from z and n.
func (f *FTRL) settle() {
	o := f.options
	f.intercept.root = math.Sqrt(f.intercept.n)
	f.intercept.settle(o.Beta, 0, 0, f.inverse)
	for j := range f.columns {
		if c := &f.columns[j]; c.seen() {
			c.root = math.Sqrt(c.n)
			c.settle(o.Beta, o.L1, o.L2, f.inverse)
		}
	}
}

// Model returns the weights as they are now, one a column.
func (f *FTRL) Model() Model {
	m := Model{Intercept: f.intercept.weight, Weights: make([]float64, len(f.columns))}
	for j := range f.columns {
		m.Weights[j] = f.columns[j].weight
	}
	return m
}

// Active returns how many columns have a weight other than 0.
func (f *FTRL) Active() int {
	n := 0
	for j := range f.columns {
		if f.columns[j].weight != 0 {
			n++
		}
	}
	return n
}

// HashColumn returns a column between 0 and cols-1 for a level of a field, so that
// categories need no dictionary: the levels that fall together share a weight (Weinberger and
// others, ICML 2009). For a field that is a number, level is "" and the number goes into
// data. cols must be between 1 and 2³¹-1.
//
// The hash is FNV-1a of field, the byte 0xff, which UTF-8 does not have, and level, mixed by
// the last steps of MurmurHash3; its upper bits choose the column. It will not change.
func HashColumn(cols int, field, level string) int32 {
	if cols < 1 || cols > math.MaxInt32 {
		panic(fmt.Sprintf("lr: cols is %d, want between 1 and %d", cols, math.MaxInt32))
	}
	const prime = 1099511628211
	h := uint64(14695981039346656037)
	for i := range len(field) {
		h = (h ^ uint64(field[i])) * prime
	}
	h = (h ^ 0xff) * prime
	for i := range len(level) {
		h = (h ^ uint64(level[i])) * prime
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return int32((h >> 32) * uint64(cols) >> 32)
}
