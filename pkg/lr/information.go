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

// informationAt takes two passes over the rows, on one goroutine: one for the means of the columns,
// which spare fisher the digits that large means would cost, and one for the derivatives.
func informationAt(ctx context.Context, X Matrix, y []float64, m Model, weights []float64) (*information, error) {
	n := X.Cols + 1
	in := &information{center: make([]float64, X.Cols), gradient: make([]float64, n), fisher: make([]float64, n*n)}
	if err := in.count(X, y, weights); err != nil {
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
		k := 1.0
		if weights != nil {
			k = weights[i]
		}
		if k == 0 {
			continue
		}
		z := m.Intercept + shift
		for j, v := range X.Row(i) {
			x[j+1] = v - in.center[j]
			z += float64(m.Weights[j] * x[j+1])
		}
		if label == 1 {
			in.loss += float64(k * softplus(-z))
		} else {
			in.loss += float64(k * softplus(z))
		}
		e := Exp(-math.Abs(z))
		rare := e / (1 + e) // the probability of the label that is less likely
		p := rare
		if z > 0 {
			p = 1 - rare
		}
		wrong := float64(k * (p - label))
		curve := float64(float64(k*rare) / (1 + e))
		for a, v := range x {
			in.gradient[a] += float64(wrong * v)
			curved := float64(curve * v)
			row := in.fisher[a*n : a*n+a+1]
			for b, u := range x[:a+1] {
				row[b] += float64(curved * u)
			}
		}
	}
	return in, nil
}

// count checks the input, counts the rows that have weight and takes the columns' means.
func (in *information) count(X Matrix, y, weights []float64) error {
	if err := X.check(); err != nil {
		return err
	}
	if len(y) != X.Rows {
		return &ShapeError{What: "length of y", Got: len(y), Want: fmt.Sprintf("one a row of X, %d", X.Rows)}
	}
	if err := checkWeights(weights, X.Rows); err != nil {
		return err
	}
	for i, label := range y {
		if label != 0 && label != 1 {
			return &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		for j, v := range X.Row(i) {
			if !(math.Abs(v) <= largest) {
				return &ValueError{What: "X", Row: i, Col: j, Value: v, Want: fmt.Sprintf("finite and at most %g in magnitude", largest)}
			}
			in.center[j] += v / float64(X.Rows)
		}
		k := 1.0
		if weights != nil {
			k = weights[i]
		}
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

// null is the loss of the best model without columns.
func (in *information) null() float64 {
	negative := in.weight - in.positive
	z := Log(in.positive) - Log(negative)
	return float64(in.positive*softplus(-z)) + float64(negative*softplus(z))
}
