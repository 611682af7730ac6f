package lr

import (
	"fmt"
	"math"
	"slices"
)

// Scorecard is a scale of points on which risk is read as credit bureaus write it
// (Siddiqi, Credit Risk Scorecards, 2006, chapter 6):
//
//	points = BasePoints + PDO·log₂(odds/BaseOdds)
//
// where odds = (1-p)/p are those of label 0, the good outcome. Points rise as risk falls:
// at BasePoints the odds are BaseOdds to 1, and PDO points more double them.
type Scorecard struct {
	BasePoints float64 `json:"base_points"`
	BaseOdds   float64 `json:"base_odds"` // of label 0 against label 1, above 0
	PDO        float64 `json:"pdo"`       // points to double the odds, above 0
}

// Check says whether the scale has a meaning.
func (s Scorecard) Check() error {
	switch {
	case !(math.Abs(s.BasePoints) <= maxPoints):
		return &OptionError{Option: "BasePoints", Value: s.BasePoints, Want: fmt.Sprintf("finite and at most %g in magnitude", maxPoints)}
	case !(s.BaseOdds >= smallest && s.BaseOdds <= largest):
		return &OptionError{Option: "BaseOdds", Value: s.BaseOdds, Want: fmt.Sprintf("between %g and %g", smallest, largest)}
	case !(s.PDO >= 1/maxPoints && s.PDO <= maxPoints):
		return &OptionError{Option: "PDO", Value: s.PDO, Want: fmt.Sprintf("between %g and %g", 1/maxPoints, maxPoints)}
	}
	return nil
}

const (
	// maxPoints bounds the scale such that whole points are exact.
	maxPoints = 1e9
	ln2       = 0.693147180559945309417
)

// Points returns the points of log-odds of label 1, not rounded.
func (s Scorecard) Points(logit float64) float64 {
	return s.BasePoints - float64(s.PDO/ln2*(logit+Log(s.BaseOdds)))
}

// Logit returns the log-odds of label 1 that belong to points.
func (s Scorecard) Logit(points float64) float64 {
	return (s.BasePoints-points)/(s.PDO/ln2) - Log(s.BaseOdds)
}

// Split writes the contributions to a logit, and the logit base of the baseline (see
// [Model.Contributions]), as whole points, and returns the points of the baseline and the
// total. The parts add up to the total, which is Points(base + Σ contributions) rounded,
// halves away from 0: a part is its exact points rounded down or up, up for those of largest
// remainder (Hamilton's method), of equal ones first base and then lower columns.
//
// It panics unless dst has the length of contributions. The error is a [ValueError] for a
// part that is not finite or makes more than 10⁹ points.
func (s Scorecard) Split(dst []int, base float64, contributions []float64) (basePoints, total int, err error) {
	if len(dst) != len(contributions) {
		panicLength("dst", len(dst), len(contributions))
	}
	if err := s.Check(); err != nil {
		return 0, 0, err
	}
	type part struct {
		at       int // -1 is base
		fraction float64
	}
	parts := make([]part, 0, len(dst)+1)
	floor := func(what string, at int, points, logit float64) (int, error) {
		if !(math.Abs(points) <= maxPoints) {
			return 0, &ValueError{What: what, Row: -1, Col: at, Value: logit, Want: fmt.Sprintf("at most %g points", maxPoints)}
		}
		down := math.Floor(points)
		parts = append(parts, part{at: at, fraction: points - down})
		return int(down), nil
	}
	if basePoints, err = floor("base", -1, s.Points(base), base); err != nil {
		return 0, 0, err
	}
	sum, logit := basePoints, base
	factor := s.PDO / ln2
	for j, c := range contributions {
		if dst[j], err = floor("contributions", j, float64(-factor*c), c); err != nil {
			return 0, 0, err
		}
		sum += dst[j]
		logit += c
	}
	total = int(math.Round(s.Points(logit)))
	slices.SortStableFunc(parts, func(a, b part) int {
		switch {
		case a.fraction > b.fraction:
			return -1
		case a.fraction < b.fraction:
			return 1
		}
		return 0
	})
	for _, p := range parts[:min(max(total-sum, 0), len(parts))] {
		if p.at < 0 {
			basePoints++
		} else {
			dst[p.at]++
		}
		sum++
	}
	return basePoints, sum, nil
}
