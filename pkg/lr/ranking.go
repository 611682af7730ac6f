package lr

import "math"

// AUC returns the area under the ROC curve: the share of pairs of a positive and a
// negative row in which the positive has the larger p, where a tie counts half (Mann
// and Whitney). Only the order of p matters. y of one class gives a [OneClassError].
func AUC(y, p []float64) (float64, error) {
	r, err := rank(y, p)
	if err != nil {
		return 0, err
	}
	return r.auc(), nil
}

// DeLong returns the AUC and its standard error over samples of rows, which takes
// nothing for granted about the distribution of p (DeLong, DeLong and Clarke-Pearson,
// Biometrics 44, 1988; computed from ranks as Sun and Xu, IEEE Signal Processing
// Letters 21, 2014, do). AUC ± 1.96·se is an interval of about 95 % if neither class is
// small.
//
// A class of one row does not show how much its rows vary; the greatest variance
// that is possible, AUC·(1-AUC), is then put in its place. When p separates the classes
// se is 0, which says that this estimate fails, not that the AUC is certain. y of one
// class gives a [OneClassError].
func DeLong(y, p []float64) (auc, se float64, err error) {
	r, err := rank(y, p)
	if err != nil {
		return 0, 0, err
	}
	return r.auc(), r.deLongSE(), nil
}

// HanleyMcNeilSE returns the standard error of an AUC from nothing but its value and
// the size of the classes, under the assumption of exponentially distributed scores
// (Hanley and McNeil, Radiology 143, 1982). [DeLong] is to be preferred where the rows
// are at hand. It is NaN unless both classes have at least one row and auc is between
// 0 and 1.
func HanleyMcNeilSE(auc float64, positives, negatives int) float64 {
	if positives < 1 || negatives < 1 || !(auc >= 0 && auc <= 1) {
		return math.NaN()
	}
	square := float64(auc * auc)
	q1 := auc / (2 - auc)
	q2 := 2 * square / (1 + auc)
	v := float64(auc*(1-auc)) + float64(float64(positives-1)*(q1-square)) + float64(float64(negatives-1)*(q2-square))
	return math.Sqrt(max(v, 0) / (float64(positives) * float64(negatives)))
}

// AveragePrecision returns Σ (recallₖ - recallₖ₋₁)·precisionₖ over the distinct values
// of p from the largest to the smallest, as scikit-learn's average_precision_score:
// the precision that is met on average when the positives are found one by one. It
// is 1 at best, and about the share of positives for p at random. y of one class gives
// a [OneClassError].
func AveragePrecision(y, p []float64) (float64, error) {
	r, err := rank(y, p)
	if err != nil {
		return 0, err
	}
	return r.averagePrecision(), nil
}

// KS returns the Kolmogorov-Smirnov distance between the positives' and the
// negatives' distributions of p, max |true positive rate - false positive rate| over
// all thresholds: 0 if they are alike, 1 if a threshold separates them. y of one class
// gives a [OneClassError].
func KS(y, p []float64) (float64, error) {
	r, err := rank(y, p)
	if err != nil {
		return 0, err
	}
	return r.ks(), nil
}

func rank(y, p []float64) (ranking, error) {
	positives, err := checkPredictions(y, p)
	if err != nil {
		return ranking{}, err
	}
	if err := needBoth(positives, len(y)); err != nil {
		return ranking{}, err
	}
	return ranks(y, p, nil, ascending(p)), nil
}

// ranking adds up the weights of the rows at each distinct value of p, ascending.
// Everything that depends on the order of p alone follows from these sums, ties
// included. Without weights the sums are counts, and exact.
type ranking struct {
	steps                []step
	positives, negatives class
}

// step is what a value of p has of either class.
type step struct{ positives, negatives class }

// class sums up rows of one label.
type class struct {
	rows    int
	weight  float64
	squares float64 // of the weights
}

func (c *class) add(weight float64) {
	c.rows++
	c.weight += weight
	c.squares += float64(weight * weight)
}

// ranks takes nil for weights of 1.
func ranks(y, p, weights []float64, order []int32) ranking {
	var r ranking
	for k, i := range order {
		if k == 0 || p[i] != p[order[k-1]] {
			r.steps = append(r.steps, step{})
		}
		s := &r.steps[len(r.steps)-1]
		weight := 1.0
		if weights != nil {
			weight = weights[i]
		}
		if y[i] == 1 {
			s.positives.add(weight)
			r.positives.add(weight)
		} else {
			s.negatives.add(weight)
			r.negatives.add(weight)
		}
	}
	return r
}

// auc counts half pairs: two for a pair in the right order, one for a tie. Without
// weights that is exact up to 10⁸ rows.
func (r ranking) auc() float64 {
	var below, halves float64 // weight of the negatives below the step
	for _, s := range r.steps {
		halves += float64(s.positives.weight * (float64(2*below) + s.negatives.weight))
		below += s.negatives.weight
	}
	return halves / 2 / (r.positives.weight * r.negatives.weight)
}

// deLongSE takes the variance of each row's placement: the share of the other class
// over which it stands on the right side, ties half. A weighted AUC is a mean of
// placements with weights w, whose variance over samples of n rows is, to first order,
// n/(n-1)·Σ w²(placement - AUC)²/(Σ w)².
func (r ranking) deLongSE() float64 {
	auc := r.auc()
	var ofPositives, ofNegatives float64 // sums of squared deviations from auc
	var negativesBelow, positivesBelow float64
	for _, s := range r.steps {
		d := (negativesBelow+float64(0.5*s.negatives.weight))/r.negatives.weight - auc
		ofPositives += float64(float64(s.positives.squares*d) * d)
		above := r.positives.weight - positivesBelow - s.positives.weight
		d = (above+float64(0.5*s.positives.weight))/r.positives.weight - auc
		ofNegatives += float64(float64(s.negatives.squares*d) * d)
		negativesBelow += s.negatives.weight
		positivesBelow += s.positives.weight
	}
	return math.Sqrt(r.positives.variance(ofPositives, auc) + r.negatives.variance(ofNegatives, auc))
}

// variance is that of a class's weighted mean placement auc, from the sum of squared
// weighted deviations.
func (c class) variance(squares, auc float64) float64 {
	if c.rows == 1 {
		return auc * (1 - auc) // the most a number between 0 and 1 of mean auc can vary
	}
	return squares / float64(c.rows-1) / (float64(c.weight*c.weight) / float64(c.rows))
}

func (r ranking) averagePrecision() float64 {
	var found, taken float64
	sum := 0.0
	for k := len(r.steps) - 1; k >= 0; k-- {
		s := r.steps[k]
		found += s.positives.weight
		taken += s.positives.weight + s.negatives.weight
		sum += float64(s.positives.weight * (found / taken))
	}
	return sum / r.positives.weight
}

func (r ranking) ks() float64 {
	var positives, negatives float64
	most := 0.0
	for _, s := range r.steps {
		positives += s.positives.weight
		negatives += s.negatives.weight
		d := positives/r.positives.weight - negatives/r.negatives.weight
		most = max(most, math.Abs(d))
	}
	return most
}
