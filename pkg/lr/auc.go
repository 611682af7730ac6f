package lr

import (
	"fmt"
	"math"
)

// AUCEstimate is an AUC with its uncertainty.
type AUCEstimate struct {
	N         int `json:"n"` // rows of weight above 0
	Positives int `json:"positives"`

	AUC float64 `json:"auc"` // see [AUC]

	// SE is its standard error (see [DeLong]), and Low to High the interval AUC ± z·SE, cut
	// to [0, 1], that covers the AUC of the population in about the share Level of samples. They
	// are 0 beside a Lack.
	SE    float64 `json:"se"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Level float64 `json:"level"`
	Lack  Lack    `json:"lack"`
}

// AUCInterval returns the AUC of probabilities (or any scores between 0 and 1) p for
// labels y with DeLong's interval of the given level, such as 0.95. weights has one number
// a row, or is nil; for what they mean to SE see [EvaluateWeighted].
//
// y of one class gives a [OneClassError]. Samples that show no variance are a Lack.
func AUCInterval(y, p, weights []float64, level float64) (AUCEstimate, error) {
	if err := checkLevel(level); err != nil {
		return AUCEstimate{}, err
	}
	y, p, weights, positives, err := predictions(y, p, weights)
	if err != nil {
		return AUCEstimate{}, err
	}
	if err := needBoth(positives, len(y)); err != nil {
		return AUCEstimate{}, err
	}
	r := ranks(y, p, weights, ascending(p))
	e := AUCEstimate{N: len(y), Positives: positives, AUC: r.auc(), Level: level}
	se := r.deLongSE()
	switch {
	case r.positives.rows == 1 || r.negatives.rows == 1:
		e.Lack = LackOneRow
	case !(se > 0):
		e.Lack = LackOverlap
	default:
		e.SE = se
		e.Low, e.High = around(e.AUC, se, quantile(level))
	}
	return e, nil
}

// around returns the interval value ± z·se, cut to [0, 1].
func around(value, se, z float64) (low, high float64) {
	half := float64(z * se)
	return max(value-half, 0), min(value+half, 1)
}

// AUCComparison compares the AUCs of two models on the same rows.
type AUCComparison struct {
	N         int `json:"n"` // rows of weight above 0
	Positives int `json:"positives"`

	AUC [2]float64 `json:"auc"`
	SE  [2]float64 `json:"se"` // see [DeLong]

	Difference float64 `json:"difference"` // AUC[0] - AUC[1]

	// DifferenceSE takes into account that both models are judged by the same rows. Z is
	// Difference/DifferenceSE, P the probability of a |Z| at least as large if the AUCs of the
	// population are equal, and Low to High an interval for their difference. They are 0
	// beside a Lack.
	DifferenceSE float64 `json:"difference_se"`
	Z            float64 `json:"z"`
	P            float64 `json:"p"`
	Low          float64 `json:"low"`
	High         float64 `json:"high"`
	Level        float64 `json:"level"`
	Lack         Lack    `json:"lack"`
}

// CompareAUC tests whether the AUCs of p and q, which two models gave to the same rows,
// differ (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988, equation 5). Each row
// is placed among the other class once by p and once by q; the difference of the two
// placements is one observation, so what is common to the models cancels out. level is that of
// the interval for the difference, such as 0.95. weights has one number a row, or is nil; for
// what they mean here see [EvaluateWeighted].
//
// Two models that place every row alike have the difference 0 and, as nothing varies, the
// Lack LackOverlap. y of one class gives a [OneClassError].
func CompareAUC(y, p, q, weights []float64, level float64) (AUCComparison, error) {
	if err := checkLevel(level); err != nil {
		return AUCComparison{}, err
	}
	if _, err := checkPredictions(y, p); err != nil {
		return AUCComparison{}, err
	}
	if len(q) != len(y) {
		return AUCComparison{}, &ShapeError{What: "length of q", Got: len(q), Want: fmt.Sprintf("that of y, %d", len(y))}
	}
	for i, v := range q {
		if !(v >= 0 && v <= 1) {
			return AUCComparison{}, &ValueError{What: "q", Row: i, Col: -1, Value: v, Want: "between 0 and 1"}
		}
	}
	_, q, _, _, err := predictions(y, q, weights)
	if err != nil {
		return AUCComparison{}, err
	}
	y, p, weights, positives, err := predictions(y, p, weights)
	if err != nil {
		return AUCComparison{}, err
	}
	if err := needBoth(positives, len(y)); err != nil {
		return AUCComparison{}, err
	}

	first, second := place(y, p, weights), place(y, q, weights)
	c := AUCComparison{N: len(y), Positives: positives, Level: level,
		AUC:        [2]float64{first.ranking.auc(), second.ranking.auc()},
		SE:         [2]float64{first.ranking.deLongSE(), second.ranking.deLongSE()},
		Difference: first.ranking.auc() - second.ranking.auc(),
	}
	positive, negative := first.ranking.positives, first.ranking.negatives
	if positive.rows == 1 || negative.rows == 1 {
		c.Lack = LackOneRow
		return c, nil
	}
	var ofPositives, ofNegatives float64
	for i, label := range y {
		d := first.placement[i] - second.placement[i] - c.Difference
		if weights != nil {
			d = float64(weights[i] * d)
		}
		if label == 1 {
			ofPositives += float64(d * d)
		} else {
			ofNegatives += float64(d * d)
		}
	}
	se := math.Sqrt(positive.variance(ofPositives, 0) + negative.variance(ofNegatives, 0))
	// Placements of equal order can still differ in their last bits.
	if !(se > 1e-14) {
		c.Lack = LackOverlap
		return c, nil
	}
	c.DifferenceSE = se
	c.Z = c.Difference / se
	c.P = twoSided(c.Z)
	half := float64(quantile(level) * se)
	c.Low, c.High = max(c.Difference-half, -1), min(c.Difference+half, 1)
	return c, nil
}

// placed is a ranking, and for each row the weighted share of the other class over
// which it stands on the right side, ties half.
type placed struct {
	ranking   ranking
	placement []float64
}

func place(y, p, weights []float64) placed {
	order := ascending(p)
	out := placed{ranking: ranks(y, p, weights, order), placement: make([]float64, len(y))}
	r := out.ranking
	k := 0
	var negativesBelow, positivesBelow float64
	for _, s := range r.steps {
		ofPositive := (negativesBelow + float64(0.5*s.negatives.weight)) / r.negatives.weight
		above := r.positives.weight - positivesBelow - s.positives.weight
		ofNegative := (above + float64(0.5*s.positives.weight)) / r.positives.weight
		for range s.positives.rows + s.negatives.rows {
			i := order[k]
			if y[i] == 1 {
				out.placement[i] = ofPositive
			} else {
				out.placement[i] = ofNegative
			}
			k++
		}
		negativesBelow += s.negatives.weight
		positivesBelow += s.positives.weight
	}
	return out
}
