package lr

import (
	"context"
	"fmt"
	"math"
)

// information is what rows say about the parameters of a model: the log-likelihood and
// its first two derivatives, by the intercept and the weights of columns shifted by center.
type information struct {
	rows, positives int     // of weight above 0
	weight          float64 // of the rows together
	positive        float64 // of those of label 1
	center          []float64
	loss            float64   // -log-likelihood, in nats
	gradient        []float64 // of the loss
	fisher          []float64 // XᵀVX, the lower triangle of a square of stride len(gradient)
}

// informationAt takes two passes over the rows, on one goroutine: one for the means of the
// columns, which spare fisher the digits that large means would cost, and one for the
// derivatives. Of opts, Weights, ClassWeights and Offsets count.
func informationAt(ctx context.Context, X Matrix, y []float64, m Model, opts Options) (*information, error) {
	n := X.Cols + 1
	in := &information{center: make([]float64, X.Cols), gradient: make([]float64, n), fisher: make([]float64, n*n)}
	if err := in.count(X, y, opts); err != nil {
		return nil, err
	}
	shift := 0.0
	for j, c := range in.center {
		shift += float64(m.Weights[j] * c)
	}
	x := make([]float64, n)
	x[0] = 1
	for i, label := range y {
		if i%blockRows == 0 && ctx.Err() != nil {
			return nil, fmt.Errorf("lr: measure the model's information: %w", context.Cause(ctx))
		}
		k := opts.weightOf(i, label)
		if k == 0 {
			continue
		}
		z := m.Intercept + shift + opts.offsetOf(i)
		for j, v := range X.Row(i) {
			x[j+1] = v - in.center[j]
			z += float64(m.Weights[j] * x[j+1])
		}
		loss, slope, curve := lossAt(z, label)
		in.loss += float64(k * loss)
		slope, curve = float64(k*slope), float64(k*curve)
		for a, v := range x {
			in.gradient[a] += float64(slope * v)
			curved := float64(curve * v)
			row := in.fisher[a*n : a*n+a+1]
			for b, u := range x[:a+1] {
				row[b] += float64(curved * u)
			}
		}
	}
	return in, nil
}

// lossAt returns the loss of a row at log-odds z, and its derivatives by z, without
// cancellation in the loss and the curvature.
func lossAt(z, label float64) (loss, slope, curve float64) {
	e := Exp(-math.Abs(z))
	rare := e / (1 + e) // the probability of the label that is less likely
	p := rare
	if z > 0 {
		p = 1 - rare
	}
	if label == 1 {
		z = -z
	}
	return softplus(z), p - label, rare / (1 + e)
}

// weightOf is what row i of this label counts.
func (o *Options) weightOf(i int, label float64) float64 {
	k := 1.0
	if o.Weights != nil {
		k = o.Weights[i]
	}
	if o.ClassWeights != [2]float64{} {
		k = float64(k * o.ClassWeights[int(label)])
	}
	return k
}

func (o *Options) offsetOf(i int) float64 {
	if o.Offsets == nil {
		return 0
	}
	return o.Offsets[i]
}

// count checks the input, counts the rows that have weight and takes the columns' means.
func (in *information) count(X Matrix, y []float64, opts Options) error {
	if err := X.check(); err != nil {
		return err
	}
	perRow := fmt.Sprintf("one a row of X, %d", X.Rows)
	if len(y) != X.Rows {
		return &ShapeError{What: "length of y", Got: len(y), Want: perRow}
	}
	if opts.Offsets != nil && len(opts.Offsets) != X.Rows {
		return &ShapeError{What: "length of Offsets", Got: len(opts.Offsets), Want: perRow}
	}
	if err := checkWeights(opts.Weights, X.Rows); err != nil {
		return err
	}
	for label, w := range opts.ClassWeights {
		if opts.ClassWeights != [2]float64{} && !(w >= 1e-30 && w <= 1e30) {
			return &ValueError{What: fmt.Sprintf("ClassWeights[%d]", label), Row: -1, Col: -1, Value: w, Want: "between 1e-30 and 1e30"}
		}
	}
	want := fmt.Sprintf("finite and at most %g in magnitude", largest)
	for i, label := range y {
		if label != 0 && label != 1 {
			return &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		if o := opts.offsetOf(i); !(math.Abs(o) <= largest) {
			return &ValueError{What: "Offsets", Row: i, Col: -1, Value: o, Want: want}
		}
		for j, v := range X.Row(i) {
			if !(math.Abs(v) <= largest) {
				return &ValueError{What: "X", Row: i, Col: j, Value: v, Want: want}
			}
			in.center[j] += v / float64(X.Rows)
		}
		k := opts.weightOf(i, label)
		if k == 0 {
			continue
		}
		in.rows++
		in.weight += k
		if label == 1 {
			in.positives++
			in.positive += k
		}
	}
	return needBoth(in.positives, in.rows)
}

// null is the least loss of a model without columns, whose intercept is found by Newton's
// method between bounds: at the log-odds of the labels less the largest offset it is too
// low, and less the smallest too high.
func (in *information) null(y []float64, opts Options) float64 {
	z := Log(in.positive) - Log(in.weight-in.positive)
	if opts.Offsets == nil {
		return float64(in.positive*softplus(-z)) + float64((in.weight-in.positive)*softplus(z))
	}
	low, high := math.Inf(1), math.Inf(-1)
	for _, o := range opts.Offsets {
		low, high = min(low, z-o), max(high, z-o)
	}
	b := min(max(z, low), high)
	for {
		var loss, slope, curve float64
		for i, label := range y {
			l, s, c := lossAt(b+opts.Offsets[i], label)
			k := opts.weightOf(i, label)
			loss += float64(k * l)
			slope += float64(k * s)
			curve += float64(k * c)
		}
		if slope < 0 {
			low = b
		} else {
			high = b
		}
		next := b - slope/curve
		if !(next > low && next < high) {
			next = low + float64(0.5*(high-low))
		}
		if math.Abs(next-b) <= 1e-9*(1+math.Abs(b)) || next <= low || next >= high {
			return loss // less than 1e-18 of the rows' curvature above the least
		}
		b = next
	}
}
