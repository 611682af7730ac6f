package lr_test

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

// Twelve loans: amount and income (standardised), and whether they were repaid (0) or
// not (1).
var (
	loans = lr.Matrix{Rows: 12, Cols: 2, Data: []float64{
		-1.2, 0.3,
		-0.8, 1.1,
		-0.5, -0.4,
		-0.4, 0.9,
		-0.1, 0.2,
		0.0, 1.6,
		0.2, -1.3,
		0.3, -0.2,
		0.5, 0.6,
		0.9, -0.9,
		1.1, -1.2,
		1.6, -0.7,
	}}
	defaults = []float64{0, 0, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1}
)

func ExampleFit() {
	fit, err := lr.Fit(context.Background(), loans, defaults, lr.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(fit.Stop)
	fmt.Printf("objective %.6f\n", fit.Objective)
	fmt.Printf("intercept %.4f\n", fit.Model.Intercept)
	fmt.Printf("weights   %.4f\n", fit.Model.Weights)
	fmt.Printf("a standard deviation more of amount multiplies the odds by %.2f\n", math.Exp(fit.Model.Weights[0]))
	// Output:
	// converged
	// objective 6.429738
	// intercept -0.4848
	// weights   [0.5485 -0.7910]
	// a standard deviation more of amount multiplies the odds by 1.73
}

// Rows can count more than once, or a half.
func ExampleFit_weights() {
	weights := make([]float64, loans.Rows)
	for i := range weights {
		weights[i] = 1
	}
	weights[10], weights[11] = 0.5, 0 // doubtful, and withdrawn
	fit, err := lr.Fit(context.Background(), loans, defaults, lr.Options{Weights: weights, C: 0.5})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f %.4f\n", fit.Model.Intercept, fit.Model.Weights)
	// Output:
	// -0.6634 [0.2030 -0.5283]
}

// Without a penalty the weights need not exist.
func ExampleFit_separated() {
	X := lr.Matrix{Rows: 4, Cols: 2, Data: []float64{
		1, 0,
		2, 1,
		3, 1,
		4, 0,
	}}
	_, err := lr.Fit(context.Background(), X, []float64{0, 0, 1, 1}, lr.Options{Penalty: lr.None})
	fmt.Println(err)
	var separation *lr.SeparationError
	fmt.Println(errors.As(err, &separation))
	// Output:
	// lr: complete separation of 4 rows by column 0: no finite maximum exists; use an L2 penalty, or drop or merge columns
	// true
}

// Yesterday's model is a good place to begin.
func ExampleOptions_warmStart() {
	ctx := context.Background()
	yesterday, err := lr.Fit(ctx, loans, defaults, lr.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	today, err := lr.Fit(ctx, loans, defaults, lr.Options{Start: &yesterday.Model})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(today.Iterations <= yesterday.Iterations, today.Converged)
	// Output:
	// true true
}

func ExampleModel_Prob() {
	m := lr.Model{Intercept: -2, Weights: []float64{0.8, -0.5}}
	x := []float64{1.5, -1}
	fmt.Printf("logit %.3f, probability %.3f\n", m.Logit(x), m.Prob(x))
	fmt.Println(lr.Sigmoid(800), lr.Sigmoid(-800))
	// Output:
	// logit -0.300, probability 0.426
	// 1 0
}

func ExampleModel_Probs() {
	m := lr.Model{Intercept: -2, Weights: []float64{0.8, -0.5}}
	p := make([]float64, 3) // reused from batch to batch
	m.Probs(p, lr.Matrix{Rows: 3, Cols: 2, Data: []float64{
		1.5, -1,
		0, 0,
		4, -3,
	}})
	fmt.Printf("%.3f\n", p)
	// Output:
	// [0.426 0.119 0.937]
}

func ExampleModel_Contributions() {
	m := lr.Model{Intercept: -2, Weights: []float64{0.8, -0.5}}
	names := []string{"amount", "income"}
	usual := []float64{0.2, 0.4} // the mean customer
	x := []float64{1.5, -1}

	c := make([]float64, len(x))
	base := m.Contributions(c, x, usual)
	fmt.Printf("%-7s %+.3f\n", "usual", base)
	sum := base
	for j, name := range names {
		fmt.Printf("%-7s %+.3f\n", name, c[j])
		sum += c[j]
	}
	fmt.Printf("%-7s %+.3f\n", "logit", sum)
	fmt.Println(sum == m.Logit(x))
	// Output:
	// usual   -2.040
	// amount  +1.040
	// income  +0.700
	// logit   -0.300
	// true
}

func ExampleEvaluate() {
	y := []float64{0, 0, 1, 0, 1, 0, 1, 1}
	p := []float64{0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.9}
	m, err := lr.Evaluate(y, p)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d rows, %d positives\n", m.N, m.Positives)
	fmt.Printf("log-loss %.4f, Brier %.4f, ECE %.4f\n", m.LogLoss, m.Brier, m.ECE)
	fmt.Printf("AUC %.4f ± %.4f, AP %.4f, KS %.4f\n", m.AUC, m.AUCSE, m.AP, m.KS)
	// Output:
	// 8 rows, 4 positives
	// log-loss 0.4951, Brier 0.1675, ECE 0.2750
	// AUC 0.8438 ± 0.1510, AP 0.8542, KS 0.5000
}

// Where all labels are alike there is no order to judge; the rest is still measured.
func ExampleEvaluate_oneClass() {
	m, err := lr.Evaluate([]float64{0, 0}, []float64{0.1, 0.3})
	var one *lr.OneClassError
	if errors.As(err, &one) {
		fmt.Printf("Brier %.3f, but %v\n", m.Brier, err)
	}
	// Output:
	// Brier 0.050, but lr: all 2 rows have label 0, want both 0 and 1
}

func ExampleDeLong() {
	y := []float64{0, 0, 1, 0, 1, 0, 1, 1}
	p := []float64{0.1, 0.2, 0.3, 0.3, 0.5, 0.6, 0.7, 0.9}
	auc, se, err := lr.DeLong(y, p)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("AUC %.3f, 95 %% interval %.3f to %.3f\n", auc, max(0, auc-1.96*se), min(1, auc+1.96*se))
	// Output:
	// AUC 0.844, 95 % interval 0.548 to 1.000
}
