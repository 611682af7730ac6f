package lr_test

import (
	"fmt"
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

func ExampleTopReasons() {
	names := []string{"amount", "income", "age", "country"}
	m := lr.Model{Intercept: -2, Weights: []float64{0.8, -0.5, 0.1, 0.8}}
	contributions := make([]float64, 4)
	m.Contributions(contributions, []float64{1.5, -1, 0.2, 1.5}, nil)
	for _, r := range lr.TopReasons(nil, contributions, 3, lr.Raising) {
		fmt.Printf("%s %+.2f\n", names[r.Column], r.Add)
	}
	// Output:
	// amount +1.20
	// country +1.20
	// income +0.50
}

// 600 points are odds of 50 to 1 that the loan is repaid; 20 more double them.
func ExampleScorecard() {
	card := lr.Scorecard{BasePoints: 600, BaseOdds: 50, PDO: 20}
	m := lr.Model{Intercept: -4, Weights: []float64{0.8, -0.5}}
	x, usual := []float64{1.5, -1}, []float64{0.2, 0.4}
	contributions := make([]float64, 2)
	base := m.Contributions(contributions, x, usual)
	points := make([]int, 2)
	start, total, err := card.Split(points, base, contributions)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("usual %d, amount %+d, income %+d: %d points (%.2f), odds %.1f to 1\n",
		start, points[0], points[1], total, card.Points(m.Logit(x)), math.Exp(-m.Logit(x)))
	// Output:
	// usual 603, amount -30, income -20: 553 points (553.49), odds 10.0 to 1
}

func ExampleWeightOfEvidence() {
	income := []float64{1, 1, 2, 2, 2, 3, 4, 4, 5, 6, 7, math.NaN(), math.NaN(), 8, 9, 9}
	late := []float64{1, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 1, 0}
	cuts, err := lr.Cuts(income, 3)
	if err != nil {
		fmt.Println(err)
		return
	}
	bins := make([]int, len(income))
	for i, v := range income {
		bins[i] = lr.BinOf(cuts, v)
	}
	t, err := lr.WeightOfEvidence(bins, len(cuts)+2, late, nil, 0.5)
	if err != nil {
		fmt.Println(err)
		return
	}
	for k, name := range []string{"below 2", "2 to 6", "from 6", "missing"} {
		b := t.Bins[k]
		fmt.Printf("%-8s n %d, rate %.2f, WOE %+.3f\n", name, b.N, b.Rate, b.WOE)
	}
	fmt.Printf("cuts %v, information value %.3f, n %d\n", cuts, t.IV, t.N)
	// Output:
	// below 2  n 2, rate 1.00, WOE -1.810
	// 2 to 6   n 7, rate 0.43, WOE +0.051
	// from 6   n 5, rate 0.20, WOE +0.898
	// missing  n 2, rate 0.50, WOE -0.201
	// cuts [2 6], information value 0.645, n 16
}

func ExampleFile() {
	f := lr.File{Model: lr.Model{Intercept: -2, Weights: []float64{0.8, -0.5}}, Columns: []string{"amount", "income"}}
	text, err := f.JSON()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(string(text))
	read, err := lr.DecodeFile(text)
	fmt.Println(read.Columns, read.Model.Weights, err)
	// Output:
	// {
	//   "format": "lr-model",
	//   "version": 1,
	//   "intercept": -2,
	//   "columns": [
	//     {"name": "amount", "weight": 0.8},
	//     {"name": "income", "weight": -0.5}
	//   ],
	//   "checksum": "sha256:ac1a7efd97b8f1c3fc611e58cb8c9b946e0961842c91e4adfebd5cd8d3bde028"
	// }
	// [amount income] [0.8 -0.5] <nil>
}
