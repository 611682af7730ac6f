package lr

import "fmt"

// checkWeights judges the weights of n rows; nil stands for 1 for all.
func checkWeights(weights []float64, n int) error {
	if weights == nil {
		return nil
	}
	if len(weights) != n {
		return &ShapeError{What: "length of weights", Got: len(weights), Want: fmt.Sprintf("one a row, %d", n)}
	}
	heavy := false
	for i, w := range weights {
		if w != 0 && !(w >= smallest && w <= largest) {
			return &ValueError{What: "weights", Row: i, Col: -1, Value: w,
				Want: fmt.Sprintf("0 or between %g and %g", smallest, largest)}
		}
		heavy = heavy || w != 0
	}
	if !heavy {
		return &OptionError{Option: "weights", Value: 0, Want: "at least one row of weight above 0"}
	}
	return nil
}

// predictions checks labels, probabilities and weights (nil: 1 for all), and leaves out
// the rows that have no weight.
func predictions(y, p, weights []float64) (wy, wp, ww []float64, positives int, err error) {
	positives, err = checkPredictions(y, p)
	if err != nil || weights == nil {
		return y, p, nil, positives, err
	}
	if err := checkWeights(weights, len(y)); err != nil {
		return nil, nil, nil, 0, err
	}
	positives = 0
	for i, w := range weights {
		if w == 0 {
			continue
		}
		wy, wp, ww = append(wy, y[i]), append(wp, p[i]), append(ww, w)
		if y[i] == 1 {
			positives++
		}
	}
	return wy, wp, ww, positives, nil
}

func totalWeight(weights []float64, n int) float64 {
	if weights == nil {
		return float64(n)
	}
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	return sum
}
