package lr

import (
	"fmt"
	"slices"
)

// LiftRow says what is found in the rows of largest probability.
type LiftRow struct {
	Fraction  float64 `json:"fraction"`  // share of the weight that is looked at, from the largest p down
	N         float64 `json:"n"`         // rows looked at; not whole where the fraction ends within equal p
	Threshold float64 `json:"threshold"` // the smallest p among them
	Positives float64 `json:"positives"` // positives among them, likewise
	Precision float64 `json:"precision"` // weighted share of positives among them
	Recall    float64 `json:"recall"`    // weighted share of all positives that is among them, also called gain
	Lift      float64 `json:"lift"`      // Precision over the share of positives in all rows: 1 at random
}

// Lift returns one row for each of the fractions, each above 0 and at most 1, in their
// order. Where a fraction ends within rows of equal p, a like part of each of them is taken:
// the expectation over all orders of the tied rows. weights has one number a row, or is nil.
//
// y without positives gives a [OneClassError].
func Lift(y, p, weights []float64, fractions ...float64) ([]LiftRow, error) {
	for i, f := range fractions {
		if !(f > 0 && f <= 1) {
			return nil, &OptionError{Option: fmt.Sprintf("fractions[%d]", i), Value: f, Want: "above 0 and at most 1"}
		}
	}
	y, p, weights, positives, err := predictions(y, p, weights)
	if err != nil {
		return nil, err
	}
	if positives == 0 {
		return nil, &OneClassError{Class: 0, N: len(y)}
	}
	order := ascending(p)
	r := ranks(y, p, weights, order)
	total := r.positives.weight + r.negatives.weight
	base := r.positives.weight / total

	// The steps need their p, descending.
	values := make([]float64, 0, len(r.steps))
	for k, i := range order {
		if k == 0 || p[i] != p[order[k-1]] {
			values = append(values, p[i])
		}
	}
	table := make([]LiftRow, len(fractions))
	for k, f := range fractions {
		row := LiftRow{Fraction: f}
		want := float64(f * total)
		var taken, found float64
		for s, step := range slices.Backward(r.steps) {
			weight := step.positives.weight + step.negatives.weight
			part := 1.0
			if f < 1 {
				part = min((want-taken)/weight, 1)
			}
			if !(part > 0) {
				break
			}
			row.Threshold = values[s]
			row.N += float64(part * float64(step.positives.rows+step.negatives.rows))
			row.Positives += float64(part * float64(step.positives.rows))
			taken += float64(part * weight)
			found += float64(part * step.positives.weight)
		}
		row.Precision = found / taken
		row.Recall = found / r.positives.weight
		row.Lift = row.Precision / base
		table[k] = row
	}
	return table, nil
}
