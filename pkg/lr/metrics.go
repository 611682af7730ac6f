package lr

import (
	"fmt"
	"math"
	"slices"
)

// eceBins is the number of bins that [Evaluate] uses for calibration errors.
const eceBins = 10

// Metrics say how well probabilities p foretold the labels y of the same rows.
type Metrics struct {
	N         int     `json:"n"` // rows; with weights those of weight above 0
	Positives int     `json:"positives"`
	Weight    float64 `json:"weight"` // of the N rows together; N without weights

	LogLoss float64 `json:"log_loss"` // mean, in nats; see [LogLoss]
	Brier   float64 `json:"brier"`    // see [Brier]
	ECE     float64 `json:"ece"`      // 10 bins of equal width; see [ECE]
	ECEMass float64 `json:"ece_mass"` // 10 bins of equal count; see [ECEMass]

	// What follows needs both classes, and is 0 when Evaluate returns a
	// [OneClassError].

	AUC   float64 `json:"auc"`    // see [AUC]
	AUCSE float64 `json:"auc_se"` // its standard error; see [DeLong]
	Gini  float64 `json:"gini"`   // 2·AUC - 1, also called accuracy ratio or Somers' D: 0 at random, 1 at best
	AP    float64 `json:"ap"`     // see [AveragePrecision]
	KS    float64 `json:"ks"`     // see [KS]
}

// Evaluate computes all metrics of labels y, 0 or 1, and probabilities p of label 1.
//
// If y has one class only, it returns the metrics that need no other class
// together with a [OneClassError]. Any other error comes with the zero Metrics.
// Time is that of sorting p.
func Evaluate(y, p []float64) (Metrics, error) {
	return EvaluateWeighted(y, p, nil)
}

// EvaluateWeighted is [Evaluate] for rows that count more or less: weights has one
// number a row, 0 or more, in any unit; nil means 1 for all.
//
// In every metric a row of weight 2 is as good as the row twice, with two exceptions.
// ECEMass cuts its bins by rows, not by weight. AUCSE asks how the AUC varies over samples
// of rows, and there a row of weight 2 was drawn once: it does not depend on the unit of
// the weights, and grows as they become unequal.
func EvaluateWeighted(y, p, weights []float64) (Metrics, error) {
	y, p, weights, positives, err := predictions(y, p, weights)
	if err != nil {
		return Metrics{}, err
	}
	order := ascending(p)
	total := totalWeight(weights, len(y))
	m := Metrics{
		N:         len(y),
		Positives: positives,
		Weight:    total,
		LogLoss:   logLoss(y, p, weights) / total,
		Brier:     brier(y, p, weights) / total,
		ECE:       ece(y, p, weights, eceBins) / total,
		ECEMass:   eceMass(y, p, weights, order, eceBins) / total,
	}
	if err := needBoth(positives, len(y)); err != nil {
		return m, err
	}
	r := ranks(y, p, weights, order)
	m.AUC, m.AUCSE = r.auc(), r.deLongSE()
	m.Gini = 2*m.AUC - 1
	m.AP, m.KS = r.averagePrecision(), r.ks()
	return m, nil
}

// checkPredictions returns the number of positives.
func checkPredictions(y, p []float64) (positives int, err error) {
	if len(y) == 0 {
		return 0, &ShapeError{What: "length of y", Got: 0, Want: "at least 1"}
	}
	if len(p) != len(y) {
		return 0, &ShapeError{What: "length of p", Got: len(p), Want: fmt.Sprintf("that of y, %d", len(y))}
	}
	for i, label := range y {
		switch label {
		case 0:
		case 1:
			positives++
		default:
			return 0, &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		if v := p[i]; !(v >= 0 && v <= 1) {
			return 0, &ValueError{What: "p", Row: i, Col: -1, Value: v, Want: "between 0 and 1"}
		}
	}
	return positives, nil
}

func needBoth(positives, n int) error {
	switch positives {
	case 0:
		return &OneClassError{Class: 0, N: n}
	case n:
		return &OneClassError{Class: 1, N: n}
	}
	return nil
}

// LogLoss returns the mean of -ln(p) over the rows with label 1 and of -ln(1-p)
// over those with label 0, in nats. p is first brought into [10⁻¹⁵, 1-10⁻¹⁵], so
// that one wrong certainty costs 34.5 and not infinity. One class suffices.
func LogLoss(y, p []float64) (float64, error) {
	if _, err := checkPredictions(y, p); err != nil {
		return 0, err
	}
	return logLoss(y, p, nil) / float64(len(y)), nil
}

// logLoss, brier, ece and eceMass are weighted sums over the rows, not yet divided by
// the weight; nil weights mean 1.
func logLoss(y, p, weights []float64) float64 {
	sum := 0.0
	for i, v := range p {
		loss := rowLoss(y[i], v)
		if weights != nil {
			loss = float64(weights[i] * loss)
		}
		sum += loss
	}
	return sum
}

func rowLoss(y, p float64) float64 {
	const clip = 1e-15
	p = min(max(p, clip), 1-clip)
	if y == 1 {
		return -Log(p)
	}
	return -Log1p(-p)
}

// Brier returns the mean of (p-y)² (Brier, Monthly Weather Review 78, 1950): 0 is
// perfect, 0.25 is p = 0.5 throughout. One class suffices.
func Brier(y, p []float64) (float64, error) {
	if _, err := checkPredictions(y, p); err != nil {
		return 0, err
	}
	return brier(y, p, nil) / float64(len(y)), nil
}

func brier(y, p, weights []float64) float64 {
	sum := 0.0
	for i, v := range p {
		d := v - y[i]
		square := float64(d * d)
		if weights != nil {
			square = float64(weights[i] * square)
		}
		sum += square
	}
	return sum
}

// ECE returns the expected calibration error over bins of equal width: rows with
// p in [b/bins, (b+1)/bins) (the last bin includes 1) are one bin, and the distance of a
// bin's mean p from its share of positives counts as often as it has rows (Naeini et
// al., AAAI 2015). bins must be at least 1. One class suffices.
func ECE(y, p []float64, bins int) (float64, error) {
	if _, err := checkBins(y, p, bins); err != nil {
		return 0, err
	}
	return ece(y, p, nil, bins) / float64(len(y)), nil
}

func ece(y, p, weights []float64, bins int) float64 {
	sumP, sumY := make([]float64, bins), make([]float64, bins)
	for i, v := range p {
		b := binOf(v, bins)
		label := y[i]
		if weights != nil {
			v, label = float64(weights[i]*v), float64(weights[i]*label)
		}
		sumP[b] += v
		sumY[b] += label
	}
	// (n_b/n)·|mean p - mean y| = |Σp - Σy|/n.
	total := 0.0
	for b := range bins {
		total += math.Abs(sumP[b] - sumY[b])
	}
	return total
}

// binOf returns which of bins intervals of equal width p lies in.
func binOf(p float64, bins int) int { return min(int(p*float64(bins)), bins-1) }

// ECEMass returns the expected calibration error over bins of equal count: the
// rows in ascending order of p, rows of equal p in their given order, are cut into
// bins of n/bins rows, the first n%bins of them with one more. Unlike in [ECE], rows
// of equal p can fall into two bins. bins must be at least 1; with fewer rows than bins
// some are empty and count nothing. One class suffices.
func ECEMass(y, p []float64, bins int) (float64, error) {
	if _, err := checkBins(y, p, bins); err != nil {
		return 0, err
	}
	return eceMass(y, p, nil, ascending(p), bins) / float64(len(y)), nil
}

func eceMass(y, p, weights []float64, order []int32, bins int) float64 {
	n := len(order)
	total := 0.0
	for b, from := 0, 0; b < bins; b++ {
		to := from + n/bins
		if b < n%bins {
			to++
		}
		sum := 0.0
		for _, i := range order[from:to] {
			d := p[i] - y[i]
			if weights != nil {
				d = float64(weights[i] * d)
			}
			sum += d
		}
		total += math.Abs(sum)
		from = to
	}
	return total
}

func checkBins(y, p []float64, bins int) (positives int, err error) {
	if bins < 1 {
		return 0, &ShapeError{What: "bins", Got: bins, Want: "at least 1"}
	}
	return checkPredictions(y, p)
}

// ascending returns the rows in ascending order of p, those of equal p in their
// given order.
func ascending(p []float64) []int32 {
	order := make([]int32, len(p))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return int(a) - int(b)
	})
	return order
}
