package lr

import (
	"fmt"
	"math"
	"sort"
)

// WOEBin is one bin of a binned feature.
type WOEBin struct {
	N         int     `json:"n"` // rows of weight above 0
	Positives int     `json:"positives"`
	Weight    float64 `json:"weight"`
	Share     float64 `json:"share"` // of all weight
	Rate      float64 `json:"rate"`  // weighted share of positives; 0 for an empty bin

	// WOE and IV are 0 beside a Lack: LackOneClass, which also stands for an empty bin.
	WOE  float64 `json:"woe"`
	IV   float64 `json:"iv"` // what the bin adds to the information value
	Lack Lack    `json:"lack"`
}

// WOETable says how a binned feature tells the labels apart.
type WOETable struct {
	N         int      `json:"n"`
	Positives int      `json:"positives"`
	Bins      []WOEBin `json:"bins"`
	IV        float64  `json:"iv"`   // of the bins that have one
	Lack      Lack     `json:"lack"` // LackOneClass if a bin with rows has no IV, so that IV is not the whole
}

// WeightOfEvidence measures a feature that was cut into bins, bin[i] being that of row
// i, between 0 and bins-1 (Siddiqi, Credit Risk Scorecards, 2006, chapter 6; Good, Probability
// and the Weighing of Evidence, 1950). With gₖ and bₖ the shares of all rows of label 0 (good)
// and of label 1 (bad) that bin k holds:
//
//	WOE = ln(gₖ/bₖ), in nats: above 0 where the risk is below average
//	IV  = (gₖ - bₖ)·WOE, summed up: Kullback and Leibler's divergence in both directions
//
// As a rule of thumb an IV below 0.02 says nothing, 0.1 little, 0.3 much, and one above 0.5 is
// too good to be true. The WOE of its bin in place of the feature gives a model by itself the
// weight -1.
//
// add is put to both labels of every bin before shares are taken, such as 0.5, so that a bin
// of one label has a finite WOE; with 0 it has a Lack. weights has one number a row, or is nil.
// y of one class gives a [OneClassError].
func WeightOfEvidence(bin []int, bins int, y, weights []float64, add float64) (WOETable, error) {
	if bins < 1 || bins > maxBins {
		return WOETable{}, &ShapeError{What: "bins", Got: bins, Want: fmt.Sprintf("between 1 and %d", maxBins)}
	}
	if !(add >= 0 && add <= largest) {
		return WOETable{}, &OptionError{Option: "add", Value: add, Want: fmt.Sprintf("between 0 and %g", largest)}
	}
	if len(y) == 0 {
		return WOETable{}, &ShapeError{What: "length of y", Got: 0, Want: "at least 1"}
	}
	if len(bin) != len(y) {
		return WOETable{}, &ShapeError{What: "length of bin", Got: len(bin), Want: fmt.Sprintf("that of y, %d", len(y))}
	}
	if err := checkWeights(weights, len(y)); err != nil {
		return WOETable{}, err
	}
	t := WOETable{Bins: make([]WOEBin, bins)}
	good, bad := make([]float64, bins), make([]float64, bins)
	for i, label := range y {
		if label != 0 && label != 1 {
			return WOETable{}, &ValueError{What: "y", Row: i, Col: -1, Value: label, Want: "0 or 1"}
		}
		b := bin[i]
		if b < 0 || b >= bins {
			return WOETable{}, &ValueError{What: "bin", Row: i, Col: -1, Value: float64(b), Want: fmt.Sprintf("between 0 and %d", bins-1)}
		}
		w := 1.0
		if weights != nil {
			w = weights[i]
		}
		if w == 0 {
			continue
		}
		t.N++
		t.Bins[b].N++
		if label == 1 {
			t.Positives++
			t.Bins[b].Positives++
			bad[b] += w
		} else {
			good[b] += w
		}
	}
	if err := needBoth(t.Positives, t.N); err != nil {
		return WOETable{}, err
	}
	var weight, goods, bads float64
	for b := range bins {
		t.Bins[b].Weight = good[b] + bad[b]
		weight += t.Bins[b].Weight
		goods += good[b] + add
		bads += bad[b] + add
	}
	for b := range bins {
		at := &t.Bins[b]
		at.Share = at.Weight / weight
		if at.N > 0 {
			at.Rate = bad[b] / at.Weight
		}
		g, f := (good[b]+add)/goods, (bad[b]+add)/bads
		if g == 0 || f == 0 {
			at.Lack = LackOneClass
			if at.N > 0 {
				t.Lack = LackOneClass
			}
			continue
		}
		at.WOE = Log(g) - Log(f)
		at.IV = float64((g - f) * at.WOE)
		t.IV += at.IV
	}
	return t, nil
}

// Cuts returns at most bins-1 ascending numbers that cut values into bins of about
// equal count, for [BinOf]. Equal values are never cut apart, so that there are fewer cuts
// where one value is frequent. NaN is a missing value, and left out.
func Cuts(values []float64, bins int) ([]float64, error) {
	if bins < 1 || bins > maxBins {
		return nil, &ShapeError{What: "bins", Got: bins, Want: fmt.Sprintf("between 1 and %d", maxBins)}
	}
	sorted := make([]float64, 0, len(values))
	for i, v := range values {
		if math.IsInf(v, 0) {
			return nil, &ValueError{What: "values", Row: i, Col: -1, Value: v, Want: "finite, or NaN for a missing value"}
		}
		if v == v {
			sorted = append(sorted, v)
		}
	}
	sort.Float64s(sorted)
	var cuts []float64
	for b := 1; b < bins && len(sorted) > 0; b++ {
		v := sorted[int64(b)*int64(len(sorted))/int64(bins)]
		if v > sorted[0] && (len(cuts) == 0 || v > cuts[len(cuts)-1]) {
			cuts = append(cuts, v)
		}
	}
	return cuts, nil
}

// BinOf returns the bin of v: the number of cuts, ascending, that are not above it. That
// is 0 to len(cuts), and len(cuts)+1 for NaN, the missing value; so there are len(cuts)+2
// bins.
func BinOf(cuts []float64, v float64) int {
	if v != v {
		return len(cuts) + 1
	}
	return sort.Search(len(cuts), func(i int) bool { return cuts[i] > v })
}
