package trainer

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Report is what Offline found. It is the same, to the byte in JSON, for the same file and settings.
type Report struct {
	File       string           `json:"file"`
	Format     source.Format    `json:"format"`
	Rows       int              `json:"rows"`    // in the file
	Invalid    int              `json:"invalid"` // malformed, or against the contract: left out
	Unlabelled int              `json:"unlabelled"`
	Faults     []string         `json:"faults,omitempty"` // the first few of Invalid
	Label      string           `json:"label"`
	Positive   []string         `json:"positive"`
	Split      string           `json:"split"`
	Encoding   feature.Encoding `json:"encoding"`
	Features   int              `json:"features"` // inputs of the model
	Asinh      []string         `json:"asinh,omitempty"`
	Hashed     []string         `json:"hashed,omitempty"`
	Spec       string           `json:"spec"` // fingerprint

	Objective float64    `json:"objective"` // see lr.Result
	Converged bool       `json:"converged"`
	Stop      string     `json:"stop"`
	BaseRate  float64    `json:"base_rate_log_loss"` // on the test rows, of the training rows' share of positives
	Train     lr.Metrics `json:"train"`
	Test      lr.Metrics `json:"test"`
	OneClass  bool       `json:"one_class,omitempty"` // see FitResult

	Members []MemberFigures `json:"members,omitempty"` // of an ensemble; all together last

	Contract events.Contract `json:"-"`
	Fit      FitResult       `json:"-"`

	rows   []int     // test rows, by place in the order, as Fit.P has them
	labels []float64 // of the test rows
}

func (r *Report) refuse(fault error) {
	r.Invalid++
	if len(r.Faults) < maxExamples {
		r.Faults = append(r.Faults, fault.Error())
	}
}

// fill takes over what Fit found.
func (r *Report) fill(in FitInput) {
	f := &r.Fit
	r.Features, r.Spec = len(f.Columns), f.Spec.Fingerprint()
	r.Objective, r.Converged, r.Stop = f.Objective, f.Converged, f.Stop
	r.Train, r.Test, r.OneClass = f.Train, f.Test, f.OneClass
	for _, t := range f.Spec.Fields {
		switch t.Kind {
		case feature.Asinh:
			r.Asinh = append(r.Asinh, t.Field)
		case feature.Hashed:
			r.Hashed = append(r.Hashed, t.Field)
		}
	}
	share := float64(f.Train.Positives) / float64(f.Train.N)
	good, bad := float64(f.Test.N-f.Test.Positives), float64(f.Test.Positives)
	r.BaseRate = -(float64(bad*lr.Log(share)) + float64(good*lr.Log(1-share))) / float64(f.Test.N)
	r.labels = in.Data.targets(in.Test)
	_, r.rows = partition(r.Split, Sequence(in.Data.Len()))
}

// WriteText writes the report for people.
func (r Report) WriteText(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s: %d rows (%s)", r.File, r.Rows, r.Format)
	if r.Unlabelled > 0 {
		fmt.Fprintf(b, ", %d without a label", r.Unlabelled)
	}
	if r.Invalid > 0 {
		fmt.Fprintf(b, ", %d invalid", r.Invalid)
	}
	fmt.Fprintf(b, "\nlabel %s, bad is %s; split %s; encoding %s; %d features\n", r.Label, quoted(r.Positive), r.Split, r.Encoding, r.Features)
	for _, f := range r.Faults {
		fmt.Fprintf(b, "invalid: %s\n", f)
	}
	if len(r.Asinh) > 0 {
		fmt.Fprintf(b, "asinh: %s\n", quoted(r.Asinh))
	}
	if len(r.Hashed) > 0 {
		fmt.Fprintf(b, "hashed: %s\n", quoted(r.Hashed))
	}
	fmt.Fprintf(b, "objective %.12g, %s\n\n", r.Objective, r.Stop)
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\trows\tbad\tlog-loss\tAUC\t±SE\tAP\tBrier\tKS\tECE\t\n")
	line := func(name string, m lr.Metrics, ranked bool) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.4f\t", name, m.N, m.Positives, m.LogLoss)
		if ranked {
			fmt.Fprintf(t, "%.4f\t%.4f\t%.4f\t%.4f\t%.4f\t", m.AUC, m.AUCSE, m.AP, m.Brier, m.KS)
		} else {
			fmt.Fprintf(t, "-\t-\t-\t%.4f\t-\t", m.Brier)
		}
		fmt.Fprintf(t, "%.4f\t\n", m.ECE)
	}
	line("train", r.Train, true)
	test := "test"
	if r.Fit.Ensemble != nil {
		test = "test, as it is" // without what it goes on learning
	}
	line(test, r.Test, !r.OneClass)
	fmt.Fprintf(t, "test, base rate\t%d\t%d\t%.4f\t\t\t\t\t\t\t\n", r.Test.N, r.Test.Positives, r.BaseRate)
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if len(r.Members) > 0 {
		fmt.Fprintln(b)
		writeMembers(b, r.Members)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func quoted(names []string) string {
	var b []byte
	for i, n := range names {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = strconv.AppendQuote(b, n)
	}
	return string(b)
}

// WritePredictions writes CSV: row (place in the order before the split, from 0), y (1: bad), p (the shortest text that
// reads back to the same bits), for the test rows.
func (r Report) WritePredictions(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "row,y,p")
	var line []byte
	for i, p := range r.Fit.P {
		line = strconv.AppendInt(line[:0], int64(r.rows[i]), 10)
		line = strconv.AppendInt(append(line, ','), int64(r.labels[i]), 10)
		line = strconv.AppendFloat(append(line, ','), p, 'g', -1, 64)
		b.Write(append(line, '\n'))
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write predictions: %w", err)
	}
	return nil
}
