// Package dossier writes down what is known of a model version, on one page that a validator reads: what it is for, what it was learned
// from, what it weighs, how it does, on whom, and since when, who put it in force, and what is not known.
package dossier

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Level of all intervals.
const Level = 0.95

// Small groups are not shown: their figures say little, and may say who is in them.
const (
	MinGroup = 50 // records
	MinClass = 5  // records of either label, for an AUC
)

// Input of a dossier.
type Input struct {
	Artifact *model.Artifact
	Schema   *events.Schema // of the contract that is declared
	State    string         // champion, ...; empty: it has not been in force
	Source   string         // where the records are from, for people
	Gathered trainer.Gathered
	// Train and Test are indices into the records of a file: those that the version was fitted to, and others. Of a stream, where both are
	// nil, the sequences in the artifact say which.
	Train, Test []int
	Signed      string // by whom, and whether it is trusted here
	Log         []Approval
	Now         time.Time
}

// Approval is one change of what is in force that has to do with the version.
type Approval struct {
	Revision uint64
	At       time.Time
	What     string
	By       string
	Reason   string
	Evidence string // hash, and what it says; empty: none is on record
}

// Dossier is all figures of the page.
type Dossier struct {
	In       Input
	Periods  []Period // fitted to, tested on, since
	Fitted   []int    // indices of the records
	Unseen   []int    // that it was not fitted to, which the figures are from
	AllSeen  bool     // there are too few of those: the figures are from all records, and flatter
	SameData bool     // the records of its training are here as they were

	Terms     []Term
	Inference *lr.Inference // nil: there are no records that it was fitted to, or it cannot be had; NoTerms says why
	NoTerms   string
	Members   []Member

	Overall    Measure
	Curve      []Point // ROC
	Bins       []lr.CalibrationBin
	Histogram  Histogram
	Over       []Span
	Protected  []Segmentation
	ScorePSI   *PSI
	Inputs     []PSI
	Exclusions trainer.Exclusions
	Limits     []string

	scores scored
}

// scored are the records' labels and what the version says of them.
type scored struct {
	y, p     []float64
	decision []string
}

// Period of records.
type Period struct {
	Name        string
	Rows, Bad   int
	From, To    time.Time
	First, Last uint64 // sequences; 0: of a file
}

// Term is an input of the regression, or its intercept.
type Term struct {
	Column, Field string
	Weight        float64
	SD            float64 // of the column among the records fitted to; 0: not known
	Expected      int     // -1, 1, or 0: none
	SE, Low, High float64 // 0 all: not known
	Z, P, VIF     float64
}

// Contrary says whether the sign is not the expected one.
func (t Term) Contrary() bool { return float64(t.Expected)*t.Weight < 0 }

// Surely says whether the interval does not hold 0.
func (t Term) Surely() bool { return t.SE > 0 && t.Low*t.High > 0 }

// Member of an ensemble.
type Member struct {
	Name, Form string
	Weight     string
}

// Measure of some records.
type Measure struct {
	N, Bad   int
	OneClass bool
	AUC      lr.AUCEstimate
	Metrics  lr.Metrics
	Expected float64 // sum of the probabilities
	Rate     float64
	RateLow  float64
	RateHigh float64
	BaseLoss float64 // log-loss of saying the records' own rate of all of them
}

// Ratio of bad records to expected ones.
func (m Measure) Ratio() float64 { return float64(m.Bad) / m.Expected }

// Point of the ROC curve.
type Point struct{ FPR, TPR float64 }

// Span is a stretch of time.
type Span struct {
	From, To time.Time
	Measure
	Seen bool // the version was fitted to records of it
}

// Make computes the figures. The same input gives the same dossier.
func Make(ctx context.Context, in Input) (*Dossier, error) {
	p, err := model.Compile(in.Artifact, in.Schema)
	if err != nil {
		return nil, fmt.Errorf("report on %s: %w", in.Artifact.Name(), err)
	}
	d := &Dossier{In: in, Exclusions: in.Gathered.Excluded}
	d.score(p)
	d.divide()
	if err := d.measure(); err != nil {
		return nil, fmt.Errorf("report on %s: %w", in.Artifact.Name(), err)
	}
	if err := d.infer(ctx); err != nil {
		return nil, fmt.Errorf("report on %s: %w", in.Artifact.Name(), err)
	}
	d.members()
	d.segment()
	d.stability()
	d.limits()
	return d, nil
}

func (d *Dossier) score(p *model.Predictor) {
	data := d.In.Gathered.Data
	contract := &d.In.Schema.Contract
	var rec events.Record
	var scratch model.Scratch
	for i := range data.Len() {
		data.Record(i, &rec)
		r := p.Score(&rec, &scratch)
		d.scores.y = append(d.scores.y, data.Label(i))
		d.scores.p = append(d.scores.p, r.P)
		d.scores.decision = append(d.scores.decision, contract.Decide(events.ModeModel, contract.Band(r.P)))
	}
}

// divide says which records the version was fitted to. A trainer fits to the first four fifths of its rows, and tests by the rest.
func (d *Dossier) divide() {
	g, a := d.In.Gathered, d.In.Artifact
	var test, since []int
	fitted := d.In.Train
	switch {
	case d.In.Train != nil || d.In.Test != nil:
		test = d.In.Test
	case g.Seqs != nil && a.Training.Stream == g.Training.Stream && a.Training.Incarnation.Equal(g.Training.Incarnation) && a.Training.LastSeq > 0:
		var window []int
		for i, seq := range g.Seqs {
			switch {
			case seq >= a.Training.FirstSeq && seq <= a.Training.LastSeq:
				window = append(window, i)
			case seq > a.Training.LastSeq:
				since = append(since, i)
			}
		}
		fitted, test = trainer.Time80(window)
		d.SameData = len(window) == a.Training.Rows && len(since) == 0 && a.Training.DataHash == g.Training.DataHash
	default:
		since = trainer.Sequence(g.Data.Len())
	}
	d.Fitted = fitted
	d.Unseen = slices.Concat(test, since)
	for _, x := range []struct {
		name string
		rows []int
	}{{"fitted to", fitted}, {"tested by, at training", test}, {"since then", since}} {
		if len(x.rows) > 0 {
			d.Periods = append(d.Periods, d.period(x.name, x.rows))
		}
	}
	if bad := d.bad(d.Unseen); len(d.Unseen) < MinGroup || bad < MinClass || len(d.Unseen)-bad < MinClass {
		d.AllSeen, d.Unseen = true, trainer.Sequence(g.Data.Len())
	}
}

func (d *Dossier) bad(rows []int) (n int) {
	for _, i := range rows {
		n += int(d.scores.y[i])
	}
	return n
}

func (d *Dossier) period(name string, rows []int) Period {
	g := d.In.Gathered
	p := Period{Name: name, Rows: len(rows), Bad: d.bad(rows)}
	for k, i := range rows {
		t := g.Data.Time(i)
		if k == 0 || t.Before(p.From) {
			p.From = t
		}
		if k == 0 || t.After(p.To) {
			p.To = t
		}
		if g.Seqs != nil {
			if p.First == 0 || g.Seqs[i] < p.First {
				p.First = g.Seqs[i]
			}
			p.Last = max(p.Last, g.Seqs[i])
		}
	}
	return p
}

// of the records: labels and probabilities.
func (d *Dossier) of(rows []int) (y, p []float64) {
	for _, i := range rows {
		y, p = append(y, d.scores.y[i]), append(p, d.scores.p[i])
	}
	return y, p
}

func (d *Dossier) measureOf(rows []int) (Measure, error) {
	y, p := d.of(rows)
	m := Measure{N: len(rows)}
	if m.N == 0 {
		m.OneClass = true
		return m, nil
	}
	for i := range y {
		m.Bad += int(y[i])
		m.Expected += p[i]
	}
	bins, err := lr.CalibrationTable(y, p, nil, lr.Bins{Count: 1}, Level)
	if err != nil {
		return m, err
	}
	m.Rate, m.RateLow, m.RateHigh = bins[0].Rate, bins[0].Low, bins[0].High
	if m.OneClass = m.Bad == 0 || m.Bad == m.N; m.OneClass {
		return m, nil
	}
	m.BaseLoss = -(m.Rate*math.Log(m.Rate) + (1-m.Rate)*math.Log(1-m.Rate))
	if m.Metrics, err = lr.Evaluate(y, p); err != nil {
		return m, err
	}
	m.AUC, err = lr.AUCInterval(y, p, nil, Level)
	return m, err
}

// spans of time that the records are parted into, of about equal number.
const spans = 10

func (d *Dossier) measure() error {
	var err error
	if d.Overall, err = d.measureOf(d.Unseen); err != nil {
		return err
	}
	y, p := d.of(d.Unseen)
	if !d.Overall.OneClass {
		d.Curve = roc(y, p)
	}
	if len(y) > 0 {
		if d.Bins, err = lr.CalibrationTable(y, p, nil, lr.Bins{Count: 10, EqualCount: true}, Level); err != nil {
			return err
		}
		d.Histogram = histogramOf(y, p)
	}
	all := slices.Concat(d.Fitted, d.Unseen)
	if d.AllSeen {
		all = slices.Clone(d.Unseen)
	}
	data := d.In.Gathered.Data
	slices.SortStableFunc(all, func(a, b int) int { return data.Time(a).Compare(data.Time(b)) })
	fitted := map[int]bool{}
	for _, i := range d.Fitted {
		fitted[i] = true
	}
	n := min(spans, len(all)/MinGroup)
	for k := range n {
		rows := all[k*len(all)/n : (k+1)*len(all)/n]
		m, err := d.measureOf(rows)
		if err != nil {
			return err
		}
		s := Span{From: data.Time(rows[0]), To: data.Time(rows[len(rows)-1]), Measure: m}
		for _, i := range rows {
			s.Seen = s.Seen || fitted[i]
		}
		d.Over = append(d.Over, s)
	}
	return nil
}

// roc has a point for each distinct probability, thinned to some hundreds.
func roc(y, p []float64) []Point {
	order := trainer.Sequence(len(y))
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case p[a] > p[b]:
			return -1
		case p[a] < p[b]:
			return 1
		}
		return a - b
	})
	bad := 0.0
	for _, v := range y {
		bad += v
	}
	good := float64(len(y)) - bad
	curve := []Point{{}}
	var tp, fp float64
	for k, i := range order {
		tp += y[i]
		fp += 1 - y[i]
		if k+1 < len(order) && p[order[k+1]] == p[i] {
			continue
		}
		next := Point{fp / good, tp / bad}
		last := curve[len(curve)-1]
		if next.FPR-last.FPR+next.TPR-last.TPR >= 0.005 || k+1 == len(order) {
			curve = append(curve, next)
		}
	}
	return curve
}

// Histogram of log-odds, of good and of bad records, each as shares of its own.
type Histogram struct {
	From, Step float64
	Good, Bad  []float64
}

func histogramOf(y, p []float64) Histogram {
	const bins = 40
	logit := func(p float64) float64 { return min(max(math.Log(p)-math.Log1p(-p), -12), 12) }
	from, to := math.Inf(1), math.Inf(-1)
	for _, v := range p {
		from, to = min(from, logit(v)), max(to, logit(v))
	}
	if !(to-from > 1e-9) {
		from, to = from-1, to+1
	}
	h := Histogram{From: from, Step: (to - from) / bins, Good: make([]float64, bins), Bad: make([]float64, bins)}
	var good, bad float64
	for i, v := range p {
		k := min(bins-1, int((logit(v)-from)/h.Step))
		if y[i] == 1 {
			h.Bad[k]++
			bad++
		} else {
			h.Good[k]++
			good++
		}
	}
	for k := range bins {
		h.Good[k] /= max(good, 1)
		h.Bad[k] /= max(bad, 1)
	}
	return h
}
