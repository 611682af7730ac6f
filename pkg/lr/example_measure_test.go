package lr_test

import (
	"context"
	"fmt"

	"github.com/riskweir/riskweir/pkg/lr"
)

// Sixteen loans, what two models thought of them, and what came true.
var (
	outcomes   = []float64{0, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1}
	challenger = []float64{0.02, 0.05, 0.1, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.45, 0.5, 0.6, 0.7, 0.7, 0.8, 0.9}
	champion   = []float64{0.3, 0.1, 0.2, 0.1, 0.6, 0.1, 0.3, 0.4, 0.2, 0.3, 0.7, 0.5, 0.4, 0.6, 0.9, 0.8}
)

func ExampleEvaluateWeighted() {
	weights := make([]float64, len(outcomes))
	for i := range weights {
		weights[i] = 1
		if outcomes[i] == 0 {
			weights[i] = 10 // one good loan in ten was kept
		}
	}
	m, err := lr.EvaluateWeighted(outcomes, challenger, weights)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d rows of weight %g: log-loss %.3f, AUC %.3f, Gini %.3f\n", m.N, m.Weight, m.LogLoss, m.AUC, m.Gini)
	// Output:
	// 16 rows of weight 97: log-loss 0.402, AUC 0.778, Gini 0.556
}

func ExampleAUCInterval() {
	e, err := lr.AUCInterval(outcomes, challenger, nil, 0.95)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("AUC %.3f, 95 %% interval %.3f to %.3f, n %d\n", e.AUC, e.Low, e.High, e.N)
	// Output:
	// AUC 0.778, 95 % interval 0.534 to 1.000, n 16
}

// Is the challenger better than the champion, or was it lucky with these rows?
func ExampleCompareAUC() {
	c, err := lr.CompareAUC(outcomes, challenger, champion, nil, 0.95)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.3f and %.3f: %+.3f ± %.3f, p %.3f, n %d\n", c.AUC[0], c.AUC[1], c.Difference, c.DifferenceSE, c.P, c.N)
	// Output:
	// 0.778 and 0.627: +0.151 ± 0.088, p 0.087, n 16
}

func ExampleCalibrationTable() {
	table, err := lr.CalibrationTable(outcomes, challenger, nil, lr.Bins{Count: 3, EqualCount: true}, 0.9)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range table {
		fmt.Printf("%.2f to %.2f: %.3f foretold, %.3f came true [%.2f, %.2f], n %d\n", b.MinP, b.MaxP, b.MeanP, b.Rate, b.Low, b.High, b.N)
	}
	// Output:
	// 0.02 to 0.20: 0.103 foretold, 0.167 came true [0.04, 0.50], n 6
	// 0.25 to 0.50: 0.380 foretold, 0.400 came true [0.14, 0.73], n 5
	// 0.60 to 0.90: 0.740 foretold, 0.800 came true [0.44, 0.95], n 5
}

func ExampleDecomposeBrier() {
	d, err := lr.DecomposeBrier(outcomes, champion, nil, lr.Bins{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("Brier %.4f = reliability %.4f - resolution %.4f + uncertainty %.4f, n %d in %d bins\n", d.Brier, d.Reliability, d.Resolution, d.Uncertainty, d.N, d.Bins)
	// Output:
	// Brier 0.2506 = reliability 0.1360 - resolution 0.1315 + uncertainty 0.2461, n 16 in 9 bins
}

func ExampleLift() {
	table, err := lr.Lift(outcomes, challenger, nil, 0.125, 0.25, 0.5)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range table {
		fmt.Printf("top %4.1f %%: p from %.2f, %g rows, precision %.2f, recall %.2f, lift %.2f\n", 100*r.Fraction, r.Threshold, r.N, r.Precision, r.Recall, r.Lift)
	}
	// Output:
	// top 12.5 %: p from 0.80, 2 rows, precision 1.00, recall 0.29, lift 2.29
	// top 25.0 %: p from 0.70, 4 rows, precision 0.75, recall 0.43, lift 1.71
	// top 50.0 %: p from 0.40, 8 rows, precision 0.62, recall 0.71, lift 1.43
}

func ExampleFitPlatt() {
	logits := []float64{-9, -7, -6, -6, -5, -2, 0, 1, 2, 4, 6, 8}
	labels := []float64{0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1}
	c, err := lr.FitPlatt(context.Background(), logits, labels, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("slope %.3f: the logits are too extreme; at 8 the probability is %.2f, not %.4f\n", c.Slope, c.Prob(8), lr.Sigmoid(8))
	// Output:
	// slope 0.112: the logits are too extreme; at 8 the probability is 0.67, not 0.9997
}

func ExampleFitIsotonic() {
	scores := []float64{1, 2, 3, 4, 5, 6}
	labels := []float64{0, 1, 0, 0, 1, 1}
	f, err := lr.FitIsotonic(scores, labels, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, b := range f.Blocks {
		fmt.Printf("%g to %g: %.3f, n %d\n", b.Low, b.High, b.P, b.N)
	}
	fmt.Printf("between: %.3f\n", f.Prob(4.5))
	// Output:
	// 1 to 1: 0.000, n 1
	// 2 to 4: 0.333, n 3
	// 5 to 6: 1.000, n 2
	// between: 0.667
}

// The model was fitted to all frauds and to one in a hundred of the other payments.
func ExampleKeptShift() {
	m := lr.Model{Intercept: -0.7, Weights: []float64{1.2}}
	shift, err := lr.KeptShift(1, 0.01)
	if err != nil {
		fmt.Println(err)
		return
	}
	x := []float64{0.5}
	fmt.Printf("%.3f in the sample, %.4f among all payments\n", m.Prob(x), m.Shift(shift).Prob(x))
	// Output:
	// 0.475 in the sample, 0.0090 among all payments
}
