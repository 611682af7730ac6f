package lr_test

import (
	"context"
	"fmt"
	"math"

	"github.com/riskweir/riskweir/pkg/lr"
)

// Most numbers of a row are 0 when columns are categories: only the others are written.
func ExampleFitSparse() {
	X := lr.Sparse{
		Rows: 6, Cols: 4,
		Ptr:   []int{0, 2, 3, 5, 6, 8, 8}, // the last row is all zeros
		Index: []int32{0, 2, 1, 0, 3, 2, 1, 2},
		Data:  []float64{1, 0.5, 1, 1, 2, 0.7, 1, 0.1},
	}
	fit, err := lr.FitSparse(context.Background(), X, []float64{1, 0, 1, 0, 0, 1}, lr.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.3f %.3f\n", fit.Model.Intercept, fit.Model.Weights)
	index, data := X.Row(2)
	fmt.Printf("logit of row 2 %.3f\n", fit.Model.LogitSparse(index, data))
	// Output:
	// -0.063 [0.594 -0.653 -0.158 0.411]
	// logit of row 2 1.353
}

// Rows that do not fit into memory come in chunks, once for each pass.
func ExampleFitChunks() {
	chunks := func(yield func(lr.Chunk, error) bool) {
		// Here a file would be opened and read from its beginning.
		for lo := 0; lo < loans.Rows; lo += 5 {
			hi := min(lo+5, loans.Rows)
			part := lr.Matrix{Rows: hi - lo, Cols: loans.Cols, Data: loans.Data[lo*loans.Cols : hi*loans.Cols]}
			if !yield(lr.Chunk{X: part, Y: defaults[lo:hi]}, nil) {
				return
			}
		}
	}
	ctx := context.Background()
	fit, err := lr.FitChunks(ctx, loans.Cols, chunks, lr.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	whole, err := lr.Fit(ctx, loans, defaults, lr.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f %.4f\n", fit.Model.Intercept, fit.Model.Weights)
	fmt.Println(fit.Objective == whole.Objective)
	// Output:
	// -0.4848 [0.5485 -0.7910]
	// true
}

// L1 leaves out what gains less than it costs.
func ExampleFit_l1() {
	fit, err := lr.Fit(context.Background(), loans, defaults, lr.Options{Penalty: lr.L1, C: 0.6})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f\n", fit.Model.Weights)
	// Output:
	// [0.0000 -0.5940]
}

// Of the rows without default only a tenth was kept. That moves the odds of what is
// left by a factor of ten, which the offset takes away.
func ExampleFit_offsets() {
	offsets := make([]float64, loans.Rows)
	for i := range offsets {
		offsets[i] = math.Log(10)
	}
	fit, err := lr.Fit(context.Background(), loans, defaults, lr.Options{Offsets: offsets})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f %.4f\n", fit.Model.Intercept, fit.Model.Weights)
	// Output:
	// -2.7874 [0.5485 -0.7910]
}
