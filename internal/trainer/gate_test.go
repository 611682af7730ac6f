package trainer

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func TestPolicyDue(t *testing.T) {
	p := policy{minLabels: 200, minClass: 20, retrainLabels: 1000, retrainEvery: time.Hour}
	now := time.Unix(1_700_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for _, c := range []struct {
		name string
		t    tally
		h    history
		want bool
	}{
		{"nothing yet", tally{}, history{}, false},
		{"too few", tally{good: 170, bad: 29, fresh: 199}, history{}, false},
		{"too few bad", tally{good: 5000, bad: 19, fresh: 5019}, history{}, false},
		{"too few good", tally{good: 19, bad: 500, fresh: 519}, history{}, false},
		{"first", tally{good: 180, bad: 20, fresh: 200}, history{}, true},
		{"first, of silence and what a restart found", tally{good: 180, bad: 20}, history{}, true},
		{"failed, few more", tally{good: 180, bad: 20, fresh: 49}, history{attempted: ago(time.Minute)}, false},
		{"failed, a quarter more", tally{good: 180, bad: 20, fresh: 50}, history{attempted: ago(time.Minute)}, true},
		{"failed for the broker's reasons", tally{good: 180, bad: 20, fresh: 200}, history{notBefore: now.Add(time.Second)}, false},
		{"trained, few more", tally{good: 900, bad: 90, fresh: 999}, history{trained: true, attempted: ago(time.Minute)}, false},
		{"trained, enough more", tally{good: 900, bad: 90, fresh: 1000}, history{trained: true, attempted: ago(time.Minute)}, true},
		{"trained, few more, but long ago", tally{good: 900, bad: 90, fresh: 1}, history{trained: true, attempted: ago(time.Hour)}, true},
		{"trained, none more, long ago", tally{good: 900, bad: 90}, history{trained: true, attempted: ago(time.Hour)}, false},
	} {
		if got := p.due(c.t, c.h, now); got != c.want {
			t.Errorf("%s: due is %t", c.name, got)
		}
	}
}

func TestGate(t *testing.T) {
	sound := func() FitResult {
		return FitResult{Converged: true, Test: lr.Metrics{N: 100, Positives: 9, AUC: 0.7, LogLoss: 0.2}, P: []float64{0.1, 0.2}}
	}
	for _, c := range []struct {
		name string
		edit func(*FitResult)
		want string // "" passes
	}{
		{"sound", func(*FitResult) {}, ""},
		{"not converged", func(r *FitResult) { r.Converged, r.Stop = false, "iterations used up" }, "iterations used up"},
		{"one class", func(r *FitResult) { r.OneClass = true }, "same label"},
		{"chance", func(r *FitResult) { r.Test.AUC = 0.5 }, "chance"},
		{"no log-loss", func(r *FitResult) { r.Test.LogLoss = math.NaN() }, "log-loss NaN"},
		{"constant", func(r *FitResult) { r.P = []float64{0.1, 0.1, 0.1} }, "same probability"},
	} {
		r := sound()
		c.edit(&r)
		if got := gate(&r); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestDecide(t *testing.T) {
	fit := &FitResult{Test: lr.Metrics{N: 100, Positives: 9, AUC: 0.7, LogLoss: 0.2}}
	against := func(auc, loss float64) *comparison {
		return &comparison{champion: "payment.v000004", was: lr.Metrics{AUC: auc, LogLoss: loss}, would: lr.Metrics{N: 80, AUC: 0.7, LogLoss: 0.2}}
	}
	for _, c := range []struct {
		name     string
		champion int
		compared *comparison
		want     bool
		reason   string
	}{
		{"first", 0, nil, true, "first model: auc 0.7000"},
		{"better", 4, against(0.6, 0.3), true, "at least as good as payment.v000004"},
		{"a little worse", 4, against(0.705, 0.195), true, "not worse than payment.v000004"},
		{"orders worse", 4, against(0.72, 0.3), false, "worse than payment.v000004"},
		{"calibrated worse", 4, against(0.6, 0.18), false, "worse than payment.v000004"},
		{"orders worse, within the noise", 4, &comparison{champion: "payment.v000004", was: lr.Metrics{AUC: 0.75, LogLoss: 0.2}, would: lr.Metrics{AUC: 0.7, AUCSE: 0.06, LogLoss: 0.2}}, true, "not worse"},
		{"calibrated worse, within the noise", 4, &comparison{champion: "payment.v000004", was: lr.Metrics{LogLoss: 0.2}, would: lr.Metrics{LogLoss: 0.25}, lossSE: 0.06}, true, "not worse"},
		{"champion broken", 4, nil, true, "the champion cannot be compared (checksum)"},
	} {
		got, reason := decide(fit, c.champion, c.compared, "checksum")
		if got != c.want || !strings.HasPrefix(reason, c.reason) {
			t.Errorf("%s: %t, %q, want %t, %q", c.name, got, reason, c.want, c.reason)
		}
	}
}

// fitted trains on payments made from the seed and returns them with the artifact.
func fitted(t *testing.T, seed uint64, n int) (*Dataset, FitResult, *model.Artifact) {
	t.Helper()
	data := payments(t, seed, n)
	fit, err := Fit(context.Background(), FitInput{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	training := model.Training{Rows: n, DataHash: data.Hash(), LastSeq: uint64(n)}
	a := fit.Artifact("payment", "test", time.Unix(1_700_000_000, 0), 0, model.ContractRef{Version: 1}, training)
	a.Version = 1
	return data, fit, a
}

// TestArtifactScoresAsFitted: what the scorer makes of a record through bucket and back is what Fit made of it, bit for bit.
func TestArtifactScoresAsFitted(t *testing.T) {
	data, fit, a := fitted(t, 1, 600)
	body, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	stored, err := model.Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	p, err := model.Compile(stored, data.Schema())
	if err != nil {
		t.Fatal(err)
	}
	_, test := Time80(Sequence(data.Len()))
	var rec events.Record
	var s model.Scratch
	for i, at := range test {
		data.Record(at, &rec)
		if got := p.Score(&rec, &s).P; math.Float64bits(got) != math.Float64bits(fit.P[i]) {
			t.Fatalf("record %d: %v, fitted %v", at, got, fit.P[i])
		}
	}
}

func TestCompare(t *testing.T) {
	data, fit, champion := fitted(t, 1, 2000)
	_, test := Time80(Sequence(data.Len()))
	seqs := make([]uint64, len(test))
	for i, at := range test {
		seqs[i] = uint64(at + 1)
	}
	c, err := compare(data, test, seqs, fit.P, champion)
	if err != nil {
		t.Fatal(err)
	}
	if c.unseen || c.was != c.would || c.lossSE != 0 || c.would.N != len(test) {
		t.Errorf("a model against itself, on what it knows: %+v", c)
	}
	champion.Training.LastSeq = 1800
	if c, err = compare(data, test, seqs, fit.P, champion); err != nil {
		t.Fatal(err)
	}
	if !c.unseen || c.would.N != 200 {
		t.Errorf("with 200 records unseen: %+v", c)
	}
	for j := range champion.Weights {
		champion.Weights[j].Weight *= -1
	}
	if c, err = compare(data, test, seqs, fit.P, champion); err != nil {
		t.Fatal(err)
	}
	if promote, reason := decide(&fit, 1, c, ""); !promote || c.was.AUC >= 0.5 {
		t.Errorf("against a model turned round: %t, %s", promote, reason)
	}
	champion.Kind = "claim"
	if _, err := compare(data, test, seqs, fit.P, champion); err == nil {
		t.Error("compared with a model of another kind")
	}
}

func TestLossDifferenceSE(t *testing.T) {
	// Of losses 1, 2 and 3 against 0 the differences are 1, 2, 3: standard deviation 1, of the mean 1/sqrt(3).
	would := []float64{math.Exp(-1), 1 - math.Exp(-2), math.Exp(-3)}
	if got := lossDifferenceSE([]float64{1, 0, 1}, []float64{1, 0, 1}, would); math.Abs(got-1/math.Sqrt(3)) > 1e-12 {
		t.Errorf("got %v, want %v", got, 1/math.Sqrt(3))
	}
}

func TestHash(t *testing.T) {
	a, b, c := payments(t, 1, 50), payments(t, 1, 50), payments(t, 2, 50)
	if a.Hash() != b.Hash() {
		t.Error("the same data has two hashes")
	}
	if a.Hash() == c.Hash() {
		t.Error("other data has the same hash")
	}
	b.labels[17] = !b.labels[17]
	if a.Hash() == b.Hash() {
		t.Error("another label has the same hash")
	}
}
