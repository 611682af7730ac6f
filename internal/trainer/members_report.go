package trainer

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"

	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// MemberFigures are how one member, or all together, did on the test records, the online one learning as it goes.
type MemberFigures struct {
	Member  string     `json:"member"` // "fused": all
	Metrics lr.Metrics `json:"metrics"`
	ECELow  float64    `json:"ece_low"` // interval of 95 % for the calibration error: see eceInterval
	ECEHigh float64    `json:"ece_high"`

	// Of the others when it is gone; not of "fused".
	Gone    *lr.Metrics `json:"gone,omitempty"`
	Changed float64     `json:"changed,omitempty"` // share of the decisions that are then another
}

// Fused names all members together in figures.
const Fused = "fused"

// figures of an ensemble's members, and of all together, which come last.
func (l *Later) figures(y []float64, c *events.Contract) ([]MemberFigures, error) {
	var out []MemberFigures
	whole := probabilities(l.Fused)
	for i, name := range append(slices.Clone(l.Names), Fused) {
		f := MemberFigures{Member: name}
		p := whole
		if i < len(l.Names) {
			p = probabilities(l.Logits[i])
		}
		var err error
		if f.Metrics, err = lr.Evaluate(y, p); err != nil {
			return nil, err
		}
		f.ECELow, f.ECEHigh = eceInterval(y, p)
		if i < len(l.Names) {
			without := probabilities(l.Gone[i])
			gone, err := lr.Evaluate(y, without)
			if err != nil {
				return nil, err
			}
			f.Gone = &gone
			changed := 0
			for k := range p {
				if c.Band(without[k]) != c.Band(whole[k]) {
					changed++
				}
			}
			f.Changed = float64(changed) / float64(len(p))
		}
		out = append(out, f)
	}
	return out, nil
}

func probabilities(logits []float64) []float64 {
	p := make([]float64, len(logits))
	for i, z := range logits {
		p[i] = lr.Sigmoid(z)
	}
	return p
}

// eceInterval is where the middle 95 of 100 calibration errors of resampled records lie (10 bins of equal width; 400 samples, seed 1).
// It is about the sample's own error, which is above the population's, since noise never makes a bin look better than it is.
func eceInterval(y, p []float64) (low, high float64) {
	const samples = 400
	r := rand.New(rand.NewPCG(1, 1))
	all := make([]float64, samples)
	ys, ps := make([]float64, len(y)), make([]float64, len(p))
	for s := range all {
		for i := range ys {
			at := r.IntN(len(y))
			ys[i], ps[i] = y[at], p[at]
		}
		ece, err := lr.ECE(ys, ps, 10)
		if err != nil {
			return 0, 0
		}
		all[s] = ece
	}
	slices.Sort(all)
	return all[samples/40], all[samples-1-samples/40]
}

// writeMembers writes the figures as a table.
func writeMembers(w io.Writer, figures []MemberFigures) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "test, by member\tAUC\tlog-loss\tECE\t95 %\twithout it: AUC\tECE\tdecisions changed\t\n")
	for _, f := range figures {
		fmt.Fprintf(t, "%s\t%.4f\t%.4f\t%.4f\t%.4f-%.4f\t", f.Member, f.Metrics.AUC, f.Metrics.LogLoss, f.Metrics.ECE, f.ECELow, f.ECEHigh)
		if f.Gone != nil {
			fmt.Fprintf(t, "%.4f\t%.4f\t%.1f %%\t\n", f.Gone.AUC, f.Gone.ECE, 100*f.Changed)
		} else {
			fmt.Fprint(t, "\t\t\t\n")
		}
	}
	t.Flush() // into a buffer whose own Flush returns the error
}

// members fills in the figures of an ensemble; none where the test records all have one label.
func (r *Report) members() error {
	if r.Fit.Later == nil || r.OneClass {
		return nil
	}
	var err error
	r.Members, err = r.Fit.Later.figures(r.labels, &r.Contract)
	if one := (*lr.OneClassError)(nil); errors.As(err, &one) {
		return nil
	}
	return err
}
