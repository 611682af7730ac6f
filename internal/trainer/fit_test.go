package trainer

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func paymentSchema(t testing.TB) *events.Schema {
	t.Helper()
	c := events.DefaultContract()
	c.Kind, c.Time = "payment", "at"
	c.Fields = []events.Field{
		{Name: "amount", Type: events.Number},
		{Name: "channel", Type: events.Category},
		{Name: "new", Type: events.Bool},
	}
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// payments of which those of large amount, by web, are bad more often; some values are missing.
func payments(t testing.TB, seed uint64, n int) *Dataset {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	d := NewDataset(paymentSchema(t))
	rec := events.Record{Values: make([]events.Value, 3)}
	for i := range n {
		amount, web := rng.NormFloat64(), rng.IntN(2)
		rec.Time = time.Unix(1_700_000_000+int64(i)*3600, int64(i))
		rec.Values[0] = events.Value{State: events.HasNum, Num: amount}
		rec.Values[1] = events.Value{State: events.HasText, Text: []byte([]string{"pos", "web"}[web])}
		rec.Values[2] = events.Value{}
		if rng.IntN(4) == 0 {
			rec.Values[2] = events.Value{State: events.HasNum, Num: 1}
		}
		if rng.IntN(10) == 0 {
			rec.Values[1] = events.Value{}
		}
		d.Append(&rec, rng.Float64() < lr.Sigmoid(2*amount+float64(web)-1))
		rec.Values[0].Num = math.Inf(1) // what the caller does with it afterwards is of no account
	}
	return d
}

func TestDatasetGivesBackWhatItTook(t *testing.T) {
	schema := paymentSchema(t)
	d := NewDataset(schema)
	rows := [][]events.Value{
		{{State: events.HasNum, Num: math.Copysign(0, -1)}, {State: events.HasText, Text: []byte("web")}, {}},
		{{}, {}, {State: events.HasNum, Num: 1}},
		{{State: events.HasNum, Num: math.MaxFloat64}, {State: events.HasText, Text: []byte("")}, {}},
		{{State: events.HasNum, Num: 5e-324}, {State: events.HasText, Text: []byte("web")}, {}},
	}
	at := []time.Time{time.Unix(12, 0), {}, time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)}
	for i, r := range rows {
		d.Append(&events.Record{Values: r, Time: at[i], ID: []byte("x")}, i == 1)
	}
	if d.Len() != 4 || d.Schema() != schema {
		t.Fatalf("%d records", d.Len())
	}
	rec := events.Record{ID: []byte("old"), Unknown: 3}
	for _, i := range []int{2, 0, 3, 1} {
		d.Record(i, &rec)
		for j, want := range rows[i] {
			got := rec.Values[j]
			if got.State != want.State || math.Float64bits(got.Num) != math.Float64bits(want.Num) || string(got.Text) != string(want.Text) {
				t.Errorf("record %d field %d is %+v, was %+v", i, j, got, want)
			}
		}
		if !rec.Time.Equal(at[i]) || rec.Time.IsZero() != at[i].IsZero() || rec.ID != nil || rec.Unknown != 0 {
			t.Errorf("record %d has time %v, was %v; id %q, %d unknown", i, rec.Time, at[i], rec.ID, rec.Unknown)
		}
		if got, want := d.Label(i), map[bool]float64{true: 1}[i == 1]; got != want {
			t.Errorf("record %d has label %v, want %v", i, got, want)
		}
	}
}

func TestFitLearnsAndIsTheSameForAnyNumberOfWorkers(t *testing.T) {
	d := payments(t, 1, 4000)
	var results []FitResult
	for _, workers := range []int{1, 2, 5} {
		r, err := Fit(context.Background(), FitInput{Data: d, LR: lr.Options{Workers: workers}})
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	r := results[0]
	for _, other := range results[1:] {
		if !reflect.DeepEqual(r, other) {
			t.Error("the result depends on the number of workers")
		}
	}
	if r.Train.N != 3200 || r.Test.N != 800 || len(r.P) != 800 || r.OneClass || !r.Converged {
		t.Errorf("%d training and %d test records, %d predictions, one class %t, %s", r.Train.N, r.Test.N, len(r.P), r.OneClass, r.Stop)
	}
	if r.Test.AUC < 0.85 {
		t.Errorf("AUC is %v, want at least 0.85: the labels follow the fields", r.Test.AUC)
	}
	// The dumb way: encode row by row, average.
	enc, err := r.Spec.Compile(d.Schema())
	if err != nil {
		t.Fatal(err)
	}
	x, mean := make([]float64, enc.Dim()), make([]float64, enc.Dim())
	var rec events.Record
	for i := range 3200 {
		d.Record(i, &rec)
		enc.Encode(x, &rec)
		for j := range x {
			mean[j] += x[j] / 3200
		}
	}
	for j, c := range r.Columns {
		if math.Abs(mean[j]-r.Baseline[j]) > 1e-12 {
			t.Errorf("baseline of %s is %v, the mean is %v", c.Name, r.Baseline[j], mean[j])
		}
	}
	d.Record(3200, &rec)
	enc.Encode(x, &rec)
	if got := r.Model.Prob(x); got != r.P[0] {
		t.Errorf("the first test record has probability %v, then %v", r.P[0], got)
	}
}

func TestFitLooksAtTrainingRecordsOnly(t *testing.T) {
	d := payments(t, 2, 1000)
	before, err := Fit(context.Background(), FitInput{Data: d})
	if err != nil {
		t.Fatal(err)
	}
	for i := 800; i < 1000; i++ {
		d.fields[0].numbers[i] = 1e12
		d.labels[i] = true
	}
	after, err := Fit(context.Background(), FitInput{Data: d})
	if err != nil {
		t.Fatal(err)
	}
	if before.Spec.Fingerprint() != after.Spec.Fingerprint() || !reflect.DeepEqual(before.Model, after.Model) || !reflect.DeepEqual(before.Baseline, after.Baseline) {
		t.Error("test records changed the model")
	}
	if !after.OneClass || after.Test.Positives != 200 || after.Test.AUC != 0 {
		t.Errorf("all test records are bad, but one class is %t, positives %d, AUC %v", after.OneClass, after.Test.Positives, after.Test.AUC)
	}
}

func TestFitErrors(t *testing.T) {
	d := payments(t, 3, 100)
	for i := range 80 {
		d.labels[i] = false
	}
	if _, err := Fit(context.Background(), FitInput{Data: d}); !errors.Is(err, ErrTooFewLabels) {
		t.Errorf("one label in training: %v, want ErrTooFewLabels", err)
	}
	if _, err := Fit(context.Background(), FitInput{Data: NewDataset(paymentSchema(t))}); !errors.Is(err, ErrTooFewLabels) {
		t.Errorf("no records: %v, want ErrTooFewLabels", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fit(ctx, FitInput{Data: payments(t, 4, 100)}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
	if _, err := Fit(context.Background(), FitInput{Data: payments(t, 4, 100), Features: feature.Options{Encoding: "rot13"}}); err == nil {
		t.Error("an unknown encoding was taken")
	}
}

func TestSplits(t *testing.T) {
	order := []int{9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10}
	train, test := Time80(order)
	if !reflect.DeepEqual(train, []int{9, 8, 7, 6, 5, 4, 3, 2}) || !reflect.DeepEqual(test, []int{1, 0, 10}) {
		t.Errorf("time80 is %v, %v", train, test)
	}
	train, test = Mod5(order)
	if !reflect.DeepEqual(train, []int{9, 8, 7, 6, 4, 3, 2, 1, 10}) || !reflect.DeepEqual(test, []int{5, 0}) {
		t.Errorf("mod5 is %v, %v", train, test)
	}
}
