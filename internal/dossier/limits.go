package dossier

import (
	"fmt"
	"time"

	"github.com/riskweir/riskweir/pkg/lr"
)

// limits says what the figures cannot, in sentences.
func (d *Dossier) limits() {
	say := func(format string, a ...any) { d.Limits = append(d.Limits, fmt.Sprintf(format, a...)) }
	a, c := d.In.Artifact, &d.In.Schema.Contract
	if d.AllSeen {
		say("Too few records that the version was not fitted to are at hand, so the figures are from all %d: they flatter it.", len(d.Unseen))
	}
	if n := d.Overall.Bad; n < 100 {
		say("Only %d of the records measured by are bad: figures of groups and of stretches of time are rough.", n)
	}
	if c.Maturity > 0 {
		say("A record without a label counts as good once it is %s old. Bad ones that become known later than that count as good here.", c.Maturity)
	} else {
		say("Only records with a label count. If labels come more often for some events than for others, the figures are of those.")
	}
	if n := d.Exclusions.Unlabeled; n > 0 {
		say("Of %d events nothing is known yet, or they are too young: they are in no figure.", n)
	}
	if n := d.Exclusions.LetGo; n > 0 {
		say("%d older events were let go to bound memory: figures over time begin after them.", n)
	}
	if d.Inference != nil {
		for _, w := range d.Inference.Warnings {
			if w.Kind == lr.WarnVIF {
				continue // they stand in the table
			}
			if w.Kind == lr.WarnNotOptimum {
				say("The weights are %.3g standard errors away from the optimum of the records as they are known now: labels have come since, or records are gone. Standard errors are of the records as they are now.", w.Value)
				continue
			}
			say("Standard errors: %s.", w)
		}
	}
	if d.NoTerms != "" {
		d.Limits = append(d.Limits, d.NoTerms)
	}
	if a.Contract.Version != c.Version {
		say("The version was trained under version %d of the contract, and is measured under version %d, with its thresholds and decisions.", a.Contract.Version, c.Version)
	}
	if c.Memory != nil {
		say("Features of memory are what was remembered when each event came, made again from the log.")
	}
	if a.Training.Stream == "" && a.Origin == "" && len(d.In.Train) == 0 {
		say("It was trained on a file, which is not named in the artifact: which of these records it had seen cannot be told.")
	}
	if len(d.Protected) == 0 {
		say("The contract declares no protected field, so that nothing can be said of groups.")
	}
	say("What is measured is how well bad outcomes are foretold, not whether decisions caused them: a declined event has no outcome unless somebody tells one.")
}

// Finding is what to look at first.
type Finding struct {
	Bad  bool
	Text string
}

// Findings in words, what is worst first.
func (d *Dossier) Findings() []Finding {
	var bad, good []Finding
	note := func(worse bool, format string, a ...any) {
		f := Finding{worse, fmt.Sprintf(format, a...)}
		if worse {
			bad = append(bad, f)
		} else {
			good = append(good, f)
		}
	}
	m := d.Overall
	switch {
	case m.OneClass:
		note(true, "It cannot be measured: all %d records have the same label.", m.N)
	case m.AUC.Low <= 0.5:
		note(true, "It orders records no better than chance, as far as can be told: AUC %.3f (%.3f to %.3f).", m.AUC.AUC, m.AUC.Low, m.AUC.High)
	default:
		note(false, "It orders records better than chance: AUC %.3f (%.3f to %.3f).", m.AUC.AUC, m.AUC.Low, m.AUC.High)
	}
	if m.N > 0 {
		off := m.Expected/float64(m.N) < m.RateLow || m.Expected/float64(m.N) > m.RateHigh
		note(off, "%d bad records for %.1f expected.", m.Bad, m.Expected)
	}
	contrary, surely, expected := 0, 0, 0
	for _, t := range d.Terms {
		if t.Expected != 0 {
			expected++
		}
		if t.Contrary() {
			contrary++
			if t.Surely() {
				surely++
			}
		}
	}
	switch {
	case contrary > 0:
		note(true, "%d of %d weights have another sign than expected, %d of them surely.", contrary, expected, surely)
	case expected > 0:
		note(false, "All %d weights with an expected sign have it.", expected)
	default:
		note(false, "The contract expects no signs.")
	}
	if d.ScorePSI != nil {
		note(d.ScorePSI.Value > 0.1, "Scores have moved since training by PSI %.3f: %s.", d.ScorePSI.Value, map[string]string{"none": "no change to speak of", "some": "some change", "large": "a large change"}[d.ScorePSI.Grade()])
	}
	for _, s := range d.Protected {
		low := 0
		for _, g := range s.Groups {
			if g.Low() {
				low++
			}
		}
		if len(s.Groups) > 0 {
			note(low > 0, "By %s, %d of %d groups are approved less than four fifths as often as the one most approved.", s.Field, low, len(s.Groups))
		}
	}
	return append(bad, good...)
}

func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04")
}
