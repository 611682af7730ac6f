package trainer

import (
	"fmt"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

// Of the later records, those that the champion was not trained on make the fairer comparison, if there are enough.
const (
	minUnseen      = 100 // records
	minUnseenClass = 10  // of either label
)

// aloneAUC is from where on it is asked whether one field knows the label: below, the gate does not look.
const aloneAUC = 0.95

// judged is what the offline gate is asked about: what was fitted, by records later than those that it was fitted to.
type judged struct {
	fit      *FitResult
	data     *Dataset
	test     []int
	seqs     []uint64 // of the records of data, in EVENTS
	kind     string
	champion *model.Artifact // nil: there is none, or it cannot be read
	against  int             // its version; 0: there is none
}

// evidence is what the offline gate says, of a version that has no number yet.
func (j *judged) evidence(p rollout.OfflinePolicy) rollout.Evidence {
	in := rollout.OfflineInput{Against: j.against, Want: len(j.fit.Columns), P: j.fit.P}
	signs := j.fit.Spec.Signs(j.data.Schema())
	for i, w := range j.fit.Model.Weights {
		c := rollout.Column{Name: fmt.Sprintf("column %d", i), Weight: w}
		if i < len(j.fit.Columns) {
			c.Name = j.fit.Columns[i].Name
		}
		if i < len(signs) {
			c.Expect = signs[i]
		}
		in.Columns = append(in.Columns, c)
	}
	if !j.fit.Converged {
		in.Stop = j.fit.Stop
	}
	in.Y = j.data.targets(j.test)
	if len(in.P) == len(in.Y) {
		j.pair(&in)
	}
	if j.fit.Test.AUC > aloneAUC {
		in.Alone = j.alone()
	}
	e := rollout.Offline(p, in)
	for _, i := range j.test {
		if s := j.seqs[i]; e.First == 0 || s < e.First {
			e.First = s
		}
		e.Last = max(e.Last, j.seqs[i])
	}
	return e
}

// pair adds how the champion scores the records. Of these only those stay that it was not trained on, if they are enough.
func (j *judged) pair(in *rollout.OfflineInput) {
	if j.champion == nil {
		return
	}
	predictor, err := model.Compile(j.champion, j.data.Schema())
	if err != nil {
		return
	}
	if predictor.WantsSnapshot() { // what goes on learning is not part of either version
		if predictor, err = predictor.Without(model.KindOnline); err != nil {
			return
		}
	}
	var y, p, q []float64
	take := func(keep func(i int) bool) {
		y, p, q = nil, nil, nil
		var rec events.Record
		var scratch model.Scratch
		for i, at := range j.test {
			if keep(at) {
				j.data.Record(at, &rec)
				y, p, q = append(y, j.data.Label(at)), append(p, j.fit.P[i]), append(q, predictor.Score(&rec, &scratch).P)
			}
		}
	}
	take(func(at int) bool { return j.seqs[at] > j.champion.Training.LastSeq })
	if bad := count(y); len(y) < minUnseen || bad < minUnseenClass || len(y)-bad < minUnseenClass {
		take(func(int) bool { return true })
	}
	in.Y, in.P, in.Q = y, p, q
}

// alone is what each field adds to the log-odds of the records, from which the gate sees whether one knows the label.
func (j *judged) alone() map[string][]float64 {
	fields := map[string][]float64{}
	if len(j.fit.Model.Weights) != len(j.fit.Columns) {
		return nil
	}
	enc, err := j.fit.Spec.Compile(j.data.Schema())
	if err != nil {
		return nil
	}
	x := make([]float64, enc.Dim())
	n := 0
	for rec := range j.data.Records(j.test) {
		enc.Encode(x, rec)
		for _, c := range j.fit.Columns {
			if fields[c.Field] == nil {
				fields[c.Field] = make([]float64, len(j.test))
			}
		}
		for i, c := range j.fit.Columns {
			fields[c.Field][n] += float64(j.fit.Model.Weights[i] * x[i])
		}
		n++
	}
	return fields
}
