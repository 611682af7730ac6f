package dossier

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// maxInferred bounds columns times columns times records: some seconds of work.
const maxInferred = 4e10

// infer fills in what the regression weighs, and how surely.
func (d *Dossier) infer(ctx context.Context) error {
	a := d.In.Artifact
	encoder, err := a.Spec.Compile(d.In.Schema)
	if err != nil {
		return err
	}
	expected := a.Spec.Signs(d.In.Schema)
	m := lr.Model{Intercept: a.Intercept}
	d.Terms = append(d.Terms, Term{Column: "(intercept)", Weight: a.Intercept})
	for j, w := range a.Weights {
		m.Weights = append(m.Weights, w.Weight)
		d.Terms = append(d.Terms, Term{Column: w.Column, Field: w.Field, Weight: w.Weight, Expected: expected[j]})
	}
	n, cols := len(d.Fitted), len(a.Weights)
	if n == 0 {
		d.NoTerms = "None of the records at hand is one that the version was fitted to, so that there are no standard errors."
		return nil
	}
	if float64(n)*float64(cols)*float64(cols) > maxInferred {
		d.NoTerms = fmt.Sprintf("Standard errors of %d columns on %d records were not computed: it would take too long.", cols, n)
		return nil
	}
	x := encode(encoder, d, cols)
	y := make([]float64, n)
	for k, i := range d.Fitted {
		y[k] = d.scores.y[i]
	}
	for j := range cols {
		d.Terms[j+1].SD = deviation(x, j)
	}
	inf, err := lr.Infer(ctx, x, y, m, lr.Options{}, Level)
	if one := (*lr.OneClassError)(nil); errors.As(err, &one) {
		d.NoTerms = "All records that the version was fitted to, as they are known now, have the same label."
		return nil
	}
	if err != nil {
		return err
	}
	d.Inference = inf
	for k, t := range inf.Terms {
		term := &d.Terms[k]
		term.SE, term.Z, term.P, term.Low, term.High, term.VIF = t.SE, t.Z, t.P, t.Low, t.High, t.VIF
	}
	if len(inf.Terms) == 0 {
		d.NoTerms = fmt.Sprintf("Standard errors cannot be had from these records: %s.", inf.Lack)
	}
	return nil
}

func encode(encoder *feature.Encoder, d *Dossier, cols int) lr.Matrix {
	x := lr.Matrix{Rows: len(d.Fitted), Cols: cols, Data: make([]float64, len(d.Fitted)*cols)}
	var rec events.Record
	for k, i := range d.Fitted {
		d.In.Gathered.Data.Record(i, &rec)
		encoder.Encode(x.Row(k), &rec)
	}
	return x
}

func deviation(x lr.Matrix, j int) float64 {
	var mean, squares float64
	for i := range x.Rows {
		mean += x.Row(i)[j] / float64(x.Rows)
	}
	for i := range x.Rows {
		v := x.Row(i)[j] - mean
		squares += v * v
	}
	return math.Sqrt(squares / float64(x.Rows))
}

// members of the artifact, the regression that its weights are among them, and the say of each where all vote.
func (d *Dossier) members() {
	e := d.In.Artifact.Ensemble
	if e == nil {
		return
	}
	forms := map[string]string{
		model.KindBatch: "logistic regression, the weights above", model.KindBoost: "trees", model.KindScorecard: "a scorecard written by hand",
		model.KindOnline: "a regression that goes on learning; it votes with snapshots, of which the artifact holds none",
	}
	say := map[string]string{}
	for _, f := range e.Fusions {
		if len(f.Members) < len(e.Members) {
			continue
		}
		for i, kind := range f.Members {
			say[kind] = fmt.Sprintf("%.3f of its log-odds, if all vote", f.Weights[i])
		}
	}
	for _, m := range e.Members {
		d.Members = append(d.Members, Member{Name: m.Kind, Form: cmp.Or(forms[m.Kind], "not known to this program"), Weight: say[m.Kind]})
		if m.Kind == model.KindOnline {
			d.Limits = append(d.Limits, "The member online is left out of these figures: they are of the others, fused as where it is missing.")
		}
	}
}
