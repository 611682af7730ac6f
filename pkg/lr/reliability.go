package lr

import (
	"fmt"
	"math"
)

// maxBins bounds the memory that a number of bins asks for.
const maxBins = 1 << 20

// Bins says how [CalibrationTable] and [DecomposeBrier] sort rows by probability.
type Bins struct {
	// Count is the number of bins, at most 2²⁰. 0 gives every distinct probability a bin of its own.
	Count int
	// EqualCount cuts bins of about equal weight instead of equal width. Rows of equal
	// probability stay together, in the bin of the first of them, so that some bins can be
	// larger and others empty.
	EqualCount bool
}

// CalibrationBin compares the probabilities of some rows with what came true.
type CalibrationBin struct {
	N         int     `json:"n"` // rows of weight above 0
	Positives int     `json:"positives"`
	Weight    float64 `json:"weight"`
	MinP      float64 `json:"min_p"` // the smallest and the largest probability of the rows
	MaxP      float64 `json:"max_p"`
	MeanP     float64 `json:"mean_p"`
	Rate      float64 `json:"rate"` // weighted share of positives

	// Low to High is Wilson's interval for the rate of the population (Journal of the
	// American Statistical Association 22, 1927), which stays inside [0, 1] and holds for few
	// rows. With weights the number of rows is Kish's effective one, (Σw)²/Σw².
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// CalibrationTable returns the bins that have rows, in ascending order of p, with
// intervals of the given level, such as 0.95. weights has one number a row, or is nil. One
// class suffices.
func CalibrationTable(y, p, weights []float64, bins Bins, level float64) ([]CalibrationBin, error) {
	if err := checkLevel(level); err != nil {
		return nil, err
	}
	binned, _, err := sortIntoBins(y, p, weights, bins)
	if err != nil {
		return nil, err
	}
	z := quantile(level)
	var table []CalibrationBin
	for _, b := range binned {
		if b.rows == 0 {
			continue
		}
		c := CalibrationBin{N: b.rows, Positives: b.positives, Weight: b.weight, MinP: b.least, MaxP: b.most, MeanP: b.meanP(), Rate: b.rate()}
		c.Low, c.High = wilson(c.Rate, float64(b.weight*b.weight)/b.squares, z)
		table = append(table, c)
	}
	return table, nil
}

// wilson returns the interval of the rates from which one that was observed in n rows
// is at most z standard errors away.
func wilson(rate, n, z float64) (low, high float64) {
	square := float64(z * z)
	mid := (rate + square/(2*n)) / (1 + square/n)
	half := float64(z*math.Sqrt(float64(rate*(1-rate))/n+square/float64(4*float64(n*n)))) / (1 + square/n)
	return min(max(mid-half, 0), rate), max(min(mid+half, 1), rate)
}

// BrierParts is a decomposition of [Brier] (Murphy, Journal of Applied Meteorology 12,
// 1973, with the term for bins by Stephenson, Coelho and Jolliffe, Weather and Forecasting
// 23, 2008):
//
//	Brier = Reliability - Resolution + Uncertainty + Within
//
// With mean probability pₖ and share of positives oₖ in bin k of weight share fₖ, and o in
// all rows:
//
//	Reliability = Σ fₖ(pₖ-oₖ)²   how far the probabilities are from what came true: 0 at best
//	Resolution  = Σ fₖ(oₖ-o)²    how much they tell the bins apart: Uncertainty at best
//	Uncertainty = o(1-o)         what the labels alone amount to
//	Within      = Σ f((p-pₖ)² - 2(p-pₖ)(y-oₖ)) over the rows, what the bins hide; 0 if p does not vary within bins
type BrierParts struct {
	N           int     `json:"n"` // rows of weight above 0
	Positives   int     `json:"positives"`
	Bins        int     `json:"bins"` // that have rows
	Brier       float64 `json:"brier"`
	Reliability float64 `json:"reliability"`
	Resolution  float64 `json:"resolution"`
	Uncertainty float64 `json:"uncertainty"`
	Within      float64 `json:"within"`
}

// DecomposeBrier splits the Brier score. The fewer rows a bin has, the larger
// reliability and resolution both come out by chance. weights has one number a row, or is nil.
// One class suffices.
func DecomposeBrier(y, p, weights []float64, bins Bins) (BrierParts, error) {
	binned, rows, err := sortIntoBins(y, p, weights, bins)
	if err != nil {
		return BrierParts{}, err
	}
	var all bin
	for _, b := range binned {
		all.rows += b.rows
		all.positives += b.positives
		all.weight += b.weight
		all.labels += b.labels
	}
	rate := all.rate()
	d := BrierParts{N: all.rows, Positives: all.positives, Uncertainty: float64(rate * (1 - rate)),
		Brier: brier(rows.y, rows.p, rows.weights) / all.weight}
	for _, b := range binned {
		if b.rows == 0 {
			continue
		}
		d.Bins++
		share := b.weight / all.weight
		apart := b.meanP() - b.rate()
		d.Reliability += float64(share * float64(apart*apart))
		off := b.rate() - rate
		d.Resolution += float64(share * float64(off*off))
	}
	for i, p := range rows.p {
		b := binned[rows.bin[i]]
		w := 1.0
		if rows.weights != nil {
			w = rows.weights[i]
		}
		d.Within += float64(w * float64((p-b.meanP())*(p-b.meanP()-float64(2*(rows.y[i]-b.rate())))))
	}
	d.Within /= all.weight
	return d, nil
}

// bin sums up rows of like probability.
type bin struct {
	rows, positives       int
	weight, squares       float64 // Σw, Σw²
	probabilities, labels float64 // Σwp, Σwy
	least, most           float64
}

func (b *bin) add(y, p, w float64) {
	if b.rows == 0 {
		b.least, b.most = p, p
	}
	b.least, b.most = min(b.least, p), max(b.most, p)
	b.rows++
	if y == 1 {
		b.positives++
	}
	b.weight += w
	b.squares += float64(w * w)
	b.probabilities += float64(w * p)
	b.labels += float64(w * y)
}

// meanP lies between least and most, whatever rounding does to the sums.
func (b *bin) meanP() float64 { return min(max(b.probabilities/b.weight, b.least), b.most) }
func (b *bin) rate() float64  { return min(b.labels/b.weight, 1) }

// binnedRows are the rows of weight above 0 and the bins they are in.
type binnedRows struct {
	y, p, weights []float64
	bin           []int
}

func sortIntoBins(y, p, weights []float64, bins Bins) ([]bin, binnedRows, error) {
	if bins.Count < 0 || bins.Count > maxBins {
		return nil, binnedRows{}, &OptionError{Option: "Bins.Count", Value: float64(bins.Count), Want: fmt.Sprintf("between 0 and %d", maxBins)}
	}
	y, p, weights, _, err := predictions(y, p, weights)
	if err != nil {
		return nil, binnedRows{}, err
	}
	rows := binnedRows{y: y, p: p, weights: weights, bin: make([]int, len(p))}
	n := bins.Count
	switch {
	case n == 0:
		n = rows.byValue()
	case bins.EqualCount:
		rows.byCount(n)
	default:
		for i, v := range p {
			rows.bin[i] = binOf(v, n)
		}
	}
	binned := make([]bin, n)
	for i, v := range p {
		w := 1.0
		if weights != nil {
			w = weights[i]
		}
		binned[rows.bin[i]].add(y[i], v, w)
	}
	return binned, rows, nil
}

// byValue returns the number of distinct probabilities.
func (r binnedRows) byValue() int {
	order := ascending(r.p)
	n := 0
	for k, i := range order {
		if k > 0 && r.p[i] != r.p[order[k-1]] {
			n++
		}
		r.bin[i] = n
	}
	return n + 1
}

// byCount puts a run of equal probabilities into the bin that the weight before it
// falls into.
func (r binnedRows) byCount(n int) {
	order := ascending(r.p)
	total := totalWeight(r.weights, len(r.p))
	before, bin := 0.0, 0
	for k, i := range order {
		if k == 0 || r.p[i] != r.p[order[k-1]] {
			bin = min(int(float64(before*float64(n))/total), n-1)
		}
		r.bin[i] = bin
		if r.weights == nil {
			before++
		} else {
			before += r.weights[i]
		}
	}
}
