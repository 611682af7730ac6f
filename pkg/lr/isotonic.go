package lr

import "sort"

// Isotonic turns scores into probabilities by the rising step function that fits the
// labels best: nothing is assumed but that a larger score does not mean less risk. It takes
// more rows than [Platt], some thousands, before it is the better one (Niculescu-Mizil and
// Caruana, ICML 2005).
type Isotonic struct {
	Blocks    []IsotonicBlock `json:"blocks"` // ascending by score and by P, which no two share
	N         int             `json:"n"`      // rows of weight above 0 that it was fitted to
	Positives int             `json:"positives"`
}

// IsotonicBlock is a range of scores of equal probability.
type IsotonicBlock struct {
	Low    float64 `json:"low"` // smallest score
	High   float64 `json:"high"`
	P      float64 `json:"p"` // weighted share of positives
	N      int     `json:"n"`
	Weight float64 `json:"weight"`
}

// FitIsotonic finds the rising function of the scores, one a row, of least squared
// distance from the labels y, which is also the one of greatest likelihood. weights has
// one number a row, or is nil. One class suffices, but then P is 0 or 1 throughout.
//
// It joins neighbours that are out of order until there are none ("pool adjacent
// violators"; Ayer and others, Annals of Mathematical Statistics 26, 1955). Rows of equal
// score are one from the start. Time is that of sorting.
func FitIsotonic(scores, y, weights []float64) (Isotonic, error) {
	rows, err := checkScores(scores, y, weights)
	if err != nil {
		return Isotonic{}, err
	}
	type pool struct {
		low, high      float64
		n              int
		weight, labels float64
	}
	var pools []pool
	for k, order := 0, ascending(rows.p); k < len(order); {
		at := pool{low: rows.p[order[k]], high: rows.p[order[k]]}
		for ; k < len(order) && rows.p[order[k]] == at.low; k++ {
			i := int(order[k])
			at.n++
			at.weight += rows.weight(i)
			at.labels += float64(rows.weight(i) * rows.y[i])
		}
		// The shares are compared as they are published, so that those are ascending.
		for len(pools) > 0 {
			before := pools[len(pools)-1]
			if before.labels/before.weight < at.labels/at.weight {
				break
			}
			at = pool{low: before.low, high: at.high, n: before.n + at.n,
				weight: before.weight + at.weight, labels: before.labels + at.labels}
			pools = pools[:len(pools)-1]
		}
		pools = append(pools, at)
	}
	f := Isotonic{N: len(rows.y), Positives: rows.positives, Blocks: make([]IsotonicBlock, len(pools))}
	for k, p := range pools {
		f.Blocks[k] = IsotonicBlock{Low: p.low, High: p.high, P: p.labels / p.weight, N: p.n, Weight: p.weight}
	}
	return f, nil
}

// Prob returns the probability for a score: that of its block, between two blocks on the
// line from one to the other, and beyond the blocks that of the nearest. NaN gives NaN. It
// allocates nothing, and panics if there are no blocks.
func (f Isotonic) Prob(score float64) float64 {
	if score != score {
		return score
	}
	k := sort.Search(len(f.Blocks), func(i int) bool { return f.Blocks[i].Low > score }) // the first beyond
	if k == 0 {
		return f.Blocks[0].P
	}
	at := f.Blocks[k-1]
	if score <= at.High || k == len(f.Blocks) {
		return at.P
	}
	next := f.Blocks[k]
	part := (score - at.High) / (next.Low - at.High)
	return min(at.P+float64(part*(next.P-at.P)), next.P)
}
