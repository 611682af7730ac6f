package trainer

import (
	"context"
	"errors"
	"fmt"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/lr"
)

// FitInput is what a model is made from.
type FitInput struct {
	Data *Dataset
	// Train and Test are indices into Data. If both are empty, they are Time80 of Data as it stands; else neither may be.
	Train, Test []int
	Features    feature.Options
	LR          lr.Options // Weights and Start must be nil

	Members bool             // fit the other members of an ensemble too, and fuse them
	Card    *model.Scorecard // one of them; nil: there is none
	Mixed   bool             // the records are in no order of time
}

// FitResult is a model, what it reads, and how good it is.
type FitResult struct {
	Spec     feature.Spec
	Columns  []feature.Column
	Model    lr.Model
	Baseline []float64 // mean of each column over the training records: what reasons are measured against

	Ensemble *model.Ensemble // nil: Model is all
	Later    *Later          // what its members say of the test records; nil likewise

	Train, Test lr.Metrics // of an ensemble without its member online, which does not stand still
	OneClass    bool       // the test records all have the same label, and so no AUC, AP or KS: those are 0
	P           []float64  // probability of each record of Test, in its order

	Objective  float64 // see lr.Result
	Converged  bool
	Stop       string
	Iterations int
}

// ErrTooFewLabels says that there is nothing to learn from yet: no training record with the one label or the other.
var ErrTooFewLabels = errors.New("too few labels")

// Fit infers how to encode records from the training records, fits a logistic regression to them, and evaluates it
// on the test records, which it does not otherwise look at. The result has the same bits for the same input
// whatever the number of workers and whatever the processor.
func Fit(ctx context.Context, in FitInput) (FitResult, error) {
	train, test := in.Train, in.Test
	if len(train) == 0 && len(test) == 0 {
		train, test = Time80(Sequence(in.Data.Len()))
	}
	y := in.Data.targets(train)
	positives := count(y)
	if positives == 0 || positives == len(y) {
		return FitResult{}, fmt.Errorf("%w: %d of %d training records are bad, want some of each", ErrTooFewLabels, positives, len(y))
	}
	spec, err := feature.Infer(in.Data.schema, in.Data.Records(train), in.Features)
	if err != nil {
		return FitResult{}, fmt.Errorf("infer features: %w", err)
	}
	enc, err := spec.Compile(in.Data.schema)
	if err != nil {
		return FitResult{}, fmt.Errorf("compile features: %w", err)
	}
	x := in.Data.encode(enc, train)
	fit, err := lr.Fit(ctx, x, y, in.LR)
	if err != nil {
		return FitResult{}, fmt.Errorf("fit: %w", err)
	}
	res := FitResult{
		Spec: spec, Columns: enc.Columns(), Model: fit.Model, Baseline: means(x),
		Objective: fit.Objective, Converged: fit.Converged, Stop: fit.Stop.String(), Iterations: fit.Iterations,
	}
	p := make([]float64, x.Rows)
	fit.Model.Probs(p, x)
	if res.Train, err = lr.Evaluate(y, p); err != nil {
		return FitResult{}, fmt.Errorf("evaluate on the training records: %w", err)
	}
	if in.Members {
		m := &membersFit{in: in, enc: enc, x: x, y: y, train: train, test: test, batch: fit.Model}
		if err := m.fit(ctx, &res); err != nil {
			return FitResult{}, fmt.Errorf("fit members: %w", err)
		}
	} else {
		res.P = in.Data.predict(enc, fit.Model, test)
	}
	res.Test, err = lr.Evaluate(in.Data.targets(test), res.P)
	if one := (*lr.OneClassError)(nil); errors.As(err, &one) {
		res.OneClass = true
	} else if err != nil {
		return FitResult{}, fmt.Errorf("evaluate on the test records: %w", err)
	}
	return res, nil
}

// Time80 splits indices in time order: the last fifth is test.
func Time80(order []int) (train, test []int) {
	k := len(order) * 4 / 5
	return order[:k], order[k:]
}

// Mod5 splits indices: every fifth, from the fifth, is test.
func Mod5(order []int) (train, test []int) {
	for i, r := range order {
		if i%5 == 4 {
			test = append(test, r)
		} else {
			train = append(train, r)
		}
	}
	return train, test
}

// Sequence is 0, 1, ..., n-1.
func Sequence(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

func (d *Dataset) targets(index []int) []float64 {
	y := make([]float64, len(index))
	for i, r := range index {
		y[i] = d.Label(r)
	}
	return y
}

func (d *Dataset) encode(enc *feature.Encoder, index []int) lr.Matrix {
	x := lr.Matrix{Rows: len(index), Cols: enc.Dim(), Data: make([]float64, len(index)*enc.Dim())}
	i := 0
	for rec := range d.Records(index) {
		enc.Encode(x.Row(i), rec)
		i++
	}
	return x
}

func (d *Dataset) predict(enc *feature.Encoder, m lr.Model, index []int) []float64 {
	p := make([]float64, 0, len(index))
	x := make([]float64, enc.Dim())
	for rec := range d.Records(index) {
		enc.Encode(x, rec)
		p = append(p, m.Prob(x))
	}
	return p
}

func count(y []float64) int {
	n := 0
	for _, v := range y {
		if v == 1 {
			n++
		}
	}
	return n
}

// means of the columns.
func means(x lr.Matrix) []float64 {
	m := make([]float64, x.Cols)
	for i := range x.Rows {
		for j, v := range x.Row(i) {
			m[j] += v
		}
	}
	for j := range m {
		m[j] /= float64(x.Rows)
	}
	return m
}
