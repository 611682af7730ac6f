package trainer

import (
	"fmt"
	"math"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// How much worse than the champion a new version may be on the same records and still take its place, or a standard error
// of the difference if that is more: it has seen the newer data, which these records cannot reward.
const (
	aucMargin     = 0.01
	logLossMargin = 0.01 // nats
)

// Of the test records, those that the champion was not trained on make the fairer comparison, if there are enough.
const (
	minUnseen      = 100 // records
	minUnseenClass = 10  // of either label
)

// gate says why what was fitted may not be published; "" that it may.
func gate(fit *FitResult) string {
	t := fit.Test
	switch {
	case !fit.Converged:
		return "the fit ended before its optimum: " + fit.Stop
	case fit.OneClass:
		return fmt.Sprintf("the %d later records to measure it by all have the same label", t.N)
	case !(t.AUC > 0.5) || math.IsNaN(t.LogLoss) || math.IsInf(t.LogLoss, 0):
		return fmt.Sprintf("on %d later records (%d bad) it orders no better than chance: auc %.4f, log-loss %.4f", t.N, t.Positives, t.AUC, t.LogLoss)
	case constant(fit.P):
		return fmt.Sprintf("it gives the same probability, %v, to every later record", fit.P[0])
	}
	return ""
}

func constant(p []float64) bool {
	for _, v := range p {
		if v != p[0] {
			return false
		}
	}
	return true
}

// comparison is how the champion and a new version did on the same records.
type comparison struct {
	champion   string // its name
	unseen     bool   // the champion was not trained on any of the records
	was, would lr.Metrics
	lossSE     float64 // standard error of the difference in log-loss, record by record
}

// decide is the promotion policy: the first version is promoted, a later one if it is not worse than the champion by more
// than a margin. compared is nil if the champion cannot be compared, of which the reason is why.
func decide(fit *FitResult, champion int, compared *comparison, why string) (promote bool, reason string) {
	if champion == 0 {
		return true, fmt.Sprintf("first model: auc %.4f, log-loss %.4f on %d later records (%d bad)", fit.Test.AUC, fit.Test.LogLoss, fit.Test.N, fit.Test.Positives)
	}
	if compared == nil {
		return true, fmt.Sprintf("the champion cannot be compared (%s): auc %.4f, log-loss %.4f on %d later records (%d bad)",
			why, fit.Test.AUC, fit.Test.LogLoss, fit.Test.N, fit.Test.Positives)
	}
	was, would := compared.was, compared.would
	auc, loss := would.AUC-was.AUC, would.LogLoss-was.LogLoss
	verdict := "not worse than"
	switch {
	case auc < -max(aucMargin, would.AUCSE) || loss > max(logLossMargin, compared.lossSE):
		verdict = "worse than"
	case auc >= 0 && loss <= 0:
		verdict = "at least as good as"
	}
	records := "records of the test"
	if compared.unseen {
		records = "records that neither has seen"
	}
	return verdict != "worse than", fmt.Sprintf("%s %s on %d %s (%d bad): auc %.4f against %.4f, log-loss %.4f against %.4f",
		verdict, compared.champion, would.N, records, would.Positives, would.AUC, was.AUC, would.LogLoss, was.LogLoss)
}

// compare scores the test records with the champion. seqs are their sequences in EVENTS, p their probabilities by the new
// version.
func compare(data *Dataset, test []int, seqs []uint64, p []float64, champion *model.Artifact) (*comparison, error) {
	predictor, err := model.Compile(champion, data.Schema())
	if err != nil {
		return nil, err
	}
	var y, was, would []float64
	take := func(keep func(i int) bool) {
		y, was, would = nil, nil, nil
		var rec events.Record
		var scratch model.Scratch
		for i, at := range test {
			if keep(i) {
				data.Record(at, &rec)
				y = append(y, data.Label(at))
				was = append(was, predictor.Score(&rec, &scratch).P)
				would = append(would, p[i])
			}
		}
	}
	t := &comparison{champion: champion.Name(), unseen: true}
	take(func(i int) bool { return seqs[i] > champion.Training.LastSeq })
	if bad := count(y); len(y) < minUnseen || bad < minUnseenClass || len(y)-bad < minUnseenClass {
		t.unseen = false
		take(func(int) bool { return true })
	}
	if t.was, err = lr.Evaluate(y, was); err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", t.champion, err)
	}
	if t.would, err = lr.Evaluate(y, would); err != nil {
		return nil, fmt.Errorf("evaluate the new version: %w", err)
	}
	t.lossSE = lossDifferenceSE(y, was, would)
	return t, nil
}

// lossDifferenceSE is sqrt(Σ(dᵢ - d̄)²/(n(n-1))), dᵢ being the difference in log-loss of record i.
func lossDifferenceSE(y, was, would []float64) float64 {
	n := float64(len(y))
	if n < 2 {
		return 0
	}
	d := make([]float64, len(y))
	mean := 0.0
	for i := range d {
		d[i] = loss(y[i], would[i]) - loss(y[i], was[i])
		mean += d[i] / n
	}
	squares := 0.0
	for _, v := range d {
		squares += float64((v - mean) * (v - mean))
	}
	return math.Sqrt(squares / (n * (n - 1)))
}

// loss of one record, in nats; kept finite where a probability is 0 or 1.
func loss(y, p float64) float64 {
	if y == 0 {
		p = 1 - p
	}
	return -math.Log(max(p, 1e-15))
}
