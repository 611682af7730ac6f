package lr

import (
	"context"
	"fmt"
	"math"
)

// Platt turns scores into probabilities, σ(Intercept + Slope·score) (Platt, Advances in
// Large Margin Classifiers, 1999). For scores that are log-odds already, slope 1 and
// intercept 0 say that they are calibrated; a slope below 1, that they are too extreme.
type Platt struct {
	Slope     float64 `json:"slope"`
	Intercept float64 `json:"intercept"`
	N         int     `json:"n"` // rows of weight above 0 that it was fitted to
	Positives int     `json:"positives"`
}

// Prob returns the probability of label 1 for a score. It allocates nothing.
func (c Platt) Prob(score float64) float64 {
	return Sigmoid(c.Intercept + float64(c.Slope*score))
}

// FitPlatt finds the slope and intercept of greatest likelihood for scores, one a row,
// such as logits of rows that the model was not fitted to, and their labels y. weights
// has one number a row, or is nil.
//
// As Platt prescribes, the labels are not taken for 1 and 0 but for (P+1)/(P+2) and
// 1/(N+2), where P and N are the weights of the positives and negatives: with these an
// optimum exists even if the scores separate the labels.
//
// The error is a [ShapeError], [ValueError], [OptionError] or [OneClassError]; a
// [RankError] if all scores are equal; or wraps the cause of ctx's end.
func FitPlatt(ctx context.Context, scores, y, weights []float64) (Platt, error) {
	rows, err := checkScores(scores, y, weights)
	if err != nil {
		return Platt{}, err
	}
	if err := needBoth(rows.positives, len(rows.y)); err != nil {
		return Platt{}, err
	}
	var positive, negative float64
	for i, label := range rows.y {
		if label == 1 {
			positive += rows.weight(i)
		} else {
			negative += rows.weight(i)
		}
	}
	ofPositive, ofNegative := (positive+1)/(positive+2), 1/(negative+2)

	// A label between 0 and 1 is a row of label 1 and one of label 0 that share its weight.
	n := len(rows.y)
	X := Matrix{Rows: 2 * n, Cols: 1, Data: make([]float64, 2*n)}
	labels, shares := make([]float64, 2*n), make([]float64, 2*n)
	unit := float64(n) / (positive + negative)
	for i, s := range rows.p {
		target := ofNegative
		if rows.y[i] == 1 {
			target = ofPositive
		}
		w := float64(rows.weight(i) * unit)
		X.Data[2*i], X.Data[2*i+1] = s, s
		labels[2*i] = 1
		shares[2*i], shares[2*i+1] = countable(float64(w*target)), countable(float64(w*(1-target)))
	}
	fit, err := Fit(ctx, X, labels, Options{Penalty: None, Weights: shares})
	if err != nil {
		return Platt{}, err
	}
	if !fit.Converged {
		return Platt{}, fmt.Errorf("lr: fit Platt's slope and intercept: %v", fit.Stop)
	}
	return Platt{Slope: fit.Model.Weights[0], Intercept: fit.Model.Intercept, N: n, Positives: rows.positives}, nil
}

// countable is w, or 0 where w is too small for [Fit] to be told from it.
func countable(w float64) float64 {
	if w < smallest {
		return 0
	}
	return w
}

// scoredRows are rows of weight above 0.
type scoredRows struct {
	p, y, weights []float64 // weights nil: 1
	positives     int
}

func (r scoredRows) weight(i int) float64 {
	if r.weights == nil {
		return 1
	}
	return r.weights[i]
}

// checkScores is predictions for scores of any size.
func checkScores(scores, y, weights []float64) (scoredRows, error) {
	if len(y) == 0 {
		return scoredRows{}, &ShapeError{What: "length of y", Got: 0, Want: "at least 1"}
	}
	if len(scores) != len(y) {
		return scoredRows{}, &ShapeError{What: "length of scores", Got: len(scores), Want: fmt.Sprintf("that of y, %d", len(y))}
	}
	if err := checkWeights(weights, len(y)); err != nil {
		return scoredRows{}, err
	}
	rows := scoredRows{p: scores, y: y}
	if weights != nil {
		rows = scoredRows{weights: make([]float64, 0, len(y))}
	}
	for i, label := range y {
		if label != 0 && label != 1 {
			return scoredRows{}, &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		if s := scores[i]; !(math.Abs(s) <= largest) {
			return scoredRows{}, &ValueError{What: "scores", Row: i, Col: -1, Value: s, Want: fmt.Sprintf("finite and at most %g in magnitude", largest)}
		}
		if weights != nil {
			if weights[i] == 0 {
				continue
			}
			rows.p, rows.y, rows.weights = append(rows.p, scores[i]), append(rows.y, label), append(rows.weights, weights[i])
		}
		if label == 1 {
			rows.positives++
		}
	}
	return rows, nil
}
