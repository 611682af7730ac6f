package lr

import "math"

// Reason is what one column has to do with a score.
type Reason struct {
	Column int     `json:"column"`
	Add    float64 `json:"add"` // to the log-odds; see [Model.Contributions]
}

// Direction says which contributions are reasons.
type Direction int

const (
	// Raising: those above 0, the largest first: why the probability is high.
	Raising Direction = iota
	// Lowering: those below 0, the smallest first.
	Lowering
	// Either: all but 0, the largest magnitude first.
	Either
)

// TopReasons returns the k greatest reasons among contributions, which
// [Model.Contributions] made, the greatest first and of equal ones that of the lower column
// first. There are fewer than k if fewer columns contribute in that direction; NaN is
// never a reason.
//
// It writes into dst[:0], and allocates nothing if dst has room for k. Time grows with
// columns times k at worst.
func TopReasons(dst []Reason, contributions []float64, k int, d Direction) []Reason {
	dst = dst[:0]
	for j, c := range contributions {
		size := reasonSize(c, d)
		if !(size > 0) {
			continue
		}
		// A later one goes behind its equals.
		if len(dst) < k {
			dst = append(dst, Reason{})
		} else if k <= 0 || size <= reasonSize(dst[k-1].Add, d) {
			continue
		}
		i := len(dst) - 1
		for ; i > 0 && reasonSize(dst[i-1].Add, d) < size; i-- {
			dst[i] = dst[i-1]
		}
		dst[i] = Reason{Column: j, Add: c}
	}
	return dst
}

func reasonSize(c float64, d Direction) float64 {
	switch d {
	case Lowering:
		return -c
	case Either:
		return math.Abs(c)
	}
	return c
}

// GroupContributions adds up the contributions of columns that belong together, such as
// the levels of one category: dst[group[j]] += contributions[j], after dst is cleared. The
// groups add up to the logit as exactly as the columns do. It panics unless group has the
// length of contributions and numbers from 0 to len(dst)-1.
func GroupContributions(dst, contributions []float64, group []int) {
	if len(group) != len(contributions) {
		panicLength("group", len(group), len(contributions))
	}
	clear(dst)
	for j, c := range contributions {
		dst[group[j]] += c
	}
}
