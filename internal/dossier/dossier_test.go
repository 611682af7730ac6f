package dossier

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// input is of n records, one an hour, of which the version was made from the first 500 of EVENTS, and moved says by how much x is larger in those after.
func input(t *testing.T, n int, moved float64) Input {
	t.Helper()
	c := events.DefaultContract()
	c.Kind, c.Version = "loan", 2
	c.Fields = []events.Field{{Name: "x", Type: events.Number, Sign: events.SignDown}, {Name: "group", Type: events.Category, Protected: true}}
	schema, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	made := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := trainer.Gathered{Data: trainer.NewDataset(schema), Training: model.Training{Stream: "EVENTS_loan", Incarnation: made}}
	r := rand.New(rand.NewPCG(1, 2))
	var rec events.Record
	for i := range n {
		x, group := r.NormFloat64(), "ab"[i%2:i%2+1]
		if i >= 500 {
			x += moved
		}
		if i%40 == 0 {
			group = "rare"
		}
		rec.Reset(schema)
		rec.Time = made.Add(time.Duration(i) * time.Hour)
		rec.Values[0] = events.Value{State: events.HasNum, Num: x}
		rec.Values[1] = events.Value{State: events.HasText, Text: []byte(group)}
		g.Data.Append(&rec, r.Float64() < lr.Sigmoid(x-0.5))
		g.Seqs = append(g.Seqs, uint64(10+i))
	}
	spec := feature.Spec{Version: feature.SpecVersion, Fields: []feature.Transform{{Field: "x", Kind: feature.Numeric, SD: 1}}}
	a := &model.Artifact{
		Format: model.Format, Kind: "loan", Version: 3, Contract: model.ContractRef{Version: 1}, Scale: model.DefaultScale, Calibration: model.Calibration{Method: model.CalibrationNone},
		Training:    model.Training{Stream: "EVENTS_loan", Incarnation: made, FirstSeq: 10, LastSeq: 509, Rows: 500},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: -0.5, Weights: []model.Weight{{Column: "x", Field: "x", Weight: 1}},
	}
	return Input{Artifact: a, Schema: schema, Gathered: g, Now: made}
}

func TestMake(t *testing.T) {
	d, err := Make(t.Context(), input(t, 1500, 0))
	if err != nil {
		t.Fatal(err)
	}
	var periods []string
	for _, p := range d.Periods {
		periods = append(periods, fmt.Sprintf("%s %d: %d to %d", p.Name, p.Rows, p.First, p.Last))
	}
	if got, want := strings.Join(periods, "; "), "fitted to 400: 10 to 409; tested by, at training 100: 410 to 509; since then 1000: 510 to 1509"; got != want {
		t.Errorf("periods %s, want %s", got, want)
	}
	if d.AllSeen || d.Overall.N != 1100 {
		t.Errorf("measured on %d (all seen %v), want the 1100 that it was not fitted to", d.Overall.N, d.AllSeen)
	}
	y, p := d.of(d.Unseen)
	auc, err := lr.AUC(y, p)
	if err != nil {
		t.Fatal(err)
	}
	area := 0.0
	for i := 1; i < len(d.Curve); i++ {
		area += (d.Curve[i].FPR - d.Curve[i-1].FPR) * (d.Curve[i].TPR + d.Curve[i-1].TPR) / 2
	}
	if math.Abs(area-auc) > 0.01 || d.Overall.AUC.AUC != auc {
		t.Errorf("area under the drawn curve %.4f, AUC %.4f, said %.4f", area, auc, d.Overall.AUC.AUC)
	}
	x := d.Terms[1]
	if x.Column != "x" || x.Expected != -1 || !x.Contrary() || !x.Surely() || math.Abs(x.SD-1) > 0.15 || x.SE < 0.08 || x.SE > 0.18 || d.NoTerms != "" {
		t.Errorf("%+v %s", x, d.NoTerms)
	}
	if len(d.Over) != spans || d.Over[0].N != 150 || !d.Over[0].Seen || d.Over[9].Seen {
		t.Errorf("over time: %+v", d.Over)
	}
	// 28 records of the 1100 are rare: to leave that group out alone would tell of it by subtraction, so that the next goes with it.
	s := d.Protected[0]
	if s.Field != "group" || len(s.Groups) != 1 || s.Suppressed != 2 {
		t.Errorf("%+v", s)
	}
	if d.ScorePSI.Value > 0.1 || len(d.Inputs) != 1 || d.ScorePSI.Grade() != "none" {
		t.Errorf("stability %+v %+v", d.ScorePSI, d.Inputs)
	}
	if f := d.Findings(); !f[0].Bad || !strings.Contains(f[0].Text, "1 of 1 weights have another sign than expected, 1 of them surely") {
		t.Errorf("%+v", f)
	}

	d, err = Make(t.Context(), input(t, 1500, 1))
	if err != nil || d.ScorePSI.Value < 0.25 || d.Inputs[0].Name != "x" || d.Inputs[0].Grade() != "large" {
		t.Errorf("x moved by a standard deviation: %+v, %v", d.ScorePSI, err)
	}
	one, two := new(strings.Builder), new(strings.Builder)
	again, err := Make(t.Context(), input(t, 1500, 1))
	if err != nil || d.WriteHTML(one) != nil || again.WriteHTML(two) != nil || one.String() != two.String() {
		t.Errorf("the same input gave another page (%v)", err)
	}
}

// Where little is known, the page says so, and claims nothing.
func TestMakeOfLittle(t *testing.T) {
	for name, edit := range map[string]func(*Input){
		"ten records":            func(in *Input) { *in = input(t, 10, 0) },
		"one record":             func(in *Input) { *in = input(t, 1, 0) },
		"another incarnation":    func(in *Input) { in.Artifact.Training.Incarnation = time.Time{} },
		"all that it was fitted": func(in *Input) { *in = input(t, 400, 0) },
		"a file, fitted to all":  func(in *Input) { in.Train, in.Test = trainer.Sequence(in.Gathered.Data.Len()), []int{} },
	} {
		in := input(t, 800, 0)
		edit(&in)
		d, err := Make(t.Context(), in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var page strings.Builder
		if err := d.WriteHTML(&page); err != nil || strings.Contains(page.String(), "NaN") || strings.Contains(page.String(), "Inf") {
			t.Errorf("%s: %v, or a number that is none", name, err)
		}
		if name == "another incarnation" && (len(d.Fitted) != 0 || d.NoTerms == "" || d.ScorePSI != nil) {
			t.Errorf("%s: %d fitted, %q", name, len(d.Fitted), d.NoTerms)
		}
		if name == "a file, fitted to all" && (!d.AllSeen || !strings.Contains(page.String(), "they flatter it")) {
			t.Errorf("%s: all seen %v", name, d.AllSeen)
		}
	}
}

func TestPSI(t *testing.T) {
	// Shares 0.5, 0.5 against 0.25, 0.75: 0.25 ln 1.5 + 0.25 ln 2 = 0.2747, of many records.
	if p := psi("x", []float64{5e5, 5e5, 0}, []float64{25e4, 75e4, 0}); math.Abs(p.Value-0.27465) > 1e-4 || p.Bins != 2 || p.Grade() != "large" {
		t.Errorf("%+v", p)
	}
	if p := psi("x", []float64{10, 0}, []float64{0, 10}); !(p.Value > 1 && p.Value < 100) {
		t.Errorf("nothing in common: %+v", p)
	}
	if p := numbersPSI("x", []float64{1, 2, 3, math.NaN()}, []float64{math.NaN(), math.NaN()}); !(p.Value > 0) {
		t.Errorf("%+v", p)
	}
}

func TestMembersAreListed(t *testing.T) {
	in := input(t, 10, 0)
	a := *in.Artifact
	a.Ensemble = &model.Ensemble{
		Members: []model.Member{{Kind: model.KindBatch}, {Kind: model.KindOnline}},
		Fusions: []model.Fusion{{Members: []string{model.KindBatch}, Weights: []float64{1}}, {Members: []string{model.KindBatch, model.KindOnline}, Weights: []float64{0.25, 0.75}}},
	}
	in.Artifact = &a
	d := &Dossier{In: in}
	d.members()
	if len(d.Members) != 2 || d.Members[1].Name != model.KindOnline || !strings.HasPrefix(d.Members[1].Weight, "0.750") || len(d.Limits) != 1 {
		t.Errorf("%+v %v", d.Members, d.Limits)
	}
}
