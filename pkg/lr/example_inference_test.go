package lr_test

import (
	"context"
	"fmt"

	"github.com/riskweir/riskweir/pkg/lr"
)

func ExampleInfer() {
	ctx := context.Background()
	opts := lr.Options{Penalty: lr.None}
	fit, err := lr.Fit(ctx, loans, defaults, opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	inf, err := lr.Infer(ctx, loans, defaults, fit.Model, opts, 0.95)
	if err != nil {
		fmt.Println(err)
		return
	}
	for j, name := range []string{"intercept", "amount", "income"} {
		t := inf.Terms[j]
		fmt.Printf("%-9s %7.3f  SE %.3f  z %6.3f  p %.3f  [%.2f, %.2f]\n", name, t.Estimate, t.SE, t.Z, t.P, t.Low, t.High)
	}
	fmt.Printf("deviance %.3f of %.3f, AIC %.3f, n %d\n", inf.Deviance, inf.NullDeviance, inf.AIC, inf.N)
	for _, w := range inf.Warnings {
		fmt.Println(w)
	}
	// Output:
	// intercept  -0.604  SE 0.768  z -0.786  p 0.432  [-2.11, 0.90]
	// amount      0.762  SE 1.171  z  0.651  p 0.515  [-1.53, 3.06]
	// income     -1.275  SE 1.097  z -1.162  p 0.245  [-3.43, 0.88]
	// deviance 11.468 of 16.301, AIC 17.468, n 12
	// only 2.5 rows of the rarer label for each column, want 10
}

// Does income add anything to amount?
func ExampleLikelihoodRatio() {
	ctx := context.Background()
	opts := lr.Options{Penalty: lr.None}
	infer := func(X lr.Matrix) *lr.Inference {
		fit, err := lr.Fit(ctx, X, defaults, opts)
		if err != nil {
			fmt.Println(err)
			return nil
		}
		inf, err := lr.Infer(ctx, X, defaults, fit.Model, opts, 0.95)
		if err != nil {
			fmt.Println(err)
			return nil
		}
		return inf
	}
	amount := lr.Matrix{Rows: loans.Rows, Cols: 1}
	for i := range loans.Rows {
		amount.Data = append(amount.Data, loans.Row(i)[0])
	}
	test, err := lr.LikelihoodRatio(infer(amount), infer(loans))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.3f on %d degree of freedom, p %.3f, n %d\n", test.Statistic, test.DF, test.P, test.N)
	// Output:
	// 1.716 on 1 degree of freedom, p 0.190, n 12
}

// Too little data is an answer, not an error.
func ExampleLack() {
	X := lr.Matrix{Rows: 3, Cols: 2, Data: []float64{1, 2, 3, 1, 0, 5}}
	inf, err := lr.Infer(context.Background(), X, []float64{0, 1, 1}, lr.Model{Weights: []float64{0, 0}}, lr.Options{Penalty: lr.None}, 0.95)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(inf.Lack)
	// Output:
	// not enough data: no more rows than parameters
}
