package lr_test

import (
	"fmt"

	"github.com/riskweir/riskweir/pkg/lr"
)

// Payments come one at a time; countries and merchants need no dictionary.
func ExampleFTRL() {
	const cols = 1 << 16
	learner, err := lr.NewFTRL(lr.FTRLOptions{Cols: cols, Alpha: 0.5, L1: 0.1})
	if err != nil {
		fmt.Println(err)
		return
	}
	row := func(country string, amount float64) (index []int32, data []float64) {
		return []int32{lr.HashColumn(cols, "country", country), lr.HashColumn(cols, "amount", "")},
			[]float64{1, amount}
	}
	for i := range 400 {
		country, amount, fraud := "NO", float64(i%7)/10, 0.0
		if i%4 == 0 {
			country, amount = "XX", 1.5
			if i%8 == 0 {
				fraud = 1
			}
		}
		index, data := row(country, amount)
		if _, err := learner.Learn(index, data, fraud, 1); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Printf("NO %.2f, XX %.2f\n", learner.Prob(row("NO", 0.3)), learner.Prob(row("XX", 1.5)))
	p := learner.Progressive()
	fmt.Printf("%d rows, %d positives, foretold with a log-loss of %.3f, by %d weights\n", p.N, p.Positives, p.LogLoss, learner.Active())
	// Output:
	// NO 0.01, XX 0.47
	// 400 rows, 50 positives, foretold with a log-loss of 0.226, by 3 weights
}

// The state of a learner goes to disk, and learns on from there as if it had not.
func ExampleDecodeFTRL() {
	learner, err := lr.NewFTRL(lr.FTRLOptions{Cols: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := learner.Learn([]int32{2, 5}, []float64{1, 0.5}, 1, 1); err != nil {
		fmt.Println(err)
		return
	}
	state, err := learner.MarshalBinary()
	if err != nil {
		fmt.Println(err)
		return
	}
	resumed, err := lr.DecodeFTRL(state, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	x, v := []int32{5}, []float64{2}
	fmt.Println(resumed.Prob(x, v) == learner.Prob(x, v))
	state[20] ^= 1
	_, err = lr.DecodeFTRL(state, 1<<20)
	fmt.Println(err)
	// Output:
	// true
	// lr: FTRL state: checksum is not that of the content: it was altered or cut
}

// Whether a payment was fraud is known days later, and in another order.
func ExampleDelayed() {
	learner, err := lr.NewFTRL(lr.FTRLOptions{Cols: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	pending, err := lr.NewDelayed(learner, 1000)
	if err != nil {
		fmt.Println(err)
		return
	}
	for id := range uint64(3) {
		if _, err := pending.Predict(id, []int32{int32(id)}, []float64{1}); err != nil {
			fmt.Println(err)
			return
		}
	}
	if _, err := pending.Label(2, 1, 1); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(pending.Waiting(), "wait,", learner.Progressive().N, "learned")
	_, err = pending.Label(2, 1, 1)
	fmt.Println(err)
	// Output:
	// 2 wait, 1 learned
	// lr: row 2 does not wait for a label: it was never predicted, has its label, or was forgotten
}
