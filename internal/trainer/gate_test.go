package trainer

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
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
		{"failed, few more", tally{good: 180, bad: 20, fresh: 24}, history{attempted: ago(time.Minute)}, false},
		{"failed, an eighth more", tally{good: 180, bad: 20, fresh: 25}, history{attempted: ago(time.Minute)}, true},
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

// Each case is a fit with one thing wrong with it, or nothing, and the checks that stop it.
func TestOfflineGateOfFits(t *testing.T) {
	data, fit, champion := fitted(t, 1, 3000)
	_, test := Time80(Sequence(data.Len()))
	seqs := make([]uint64, data.Len())
	for i := range seqs {
		seqs[i] = uint64(i + 1)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		edit func(f *FitResult)
		want []string // checks that fail
	}{
		{"sound", func(*FitResult) {}, nil},
		{"not converged", func(f *FitResult) { f.Converged, f.Stop = false, "iterations used up" }, []string{"numbers"}},
		{"NaN weight", func(f *FitResult) { f.Model.Weights[0] = math.NaN() }, []string{"numbers"}},
		{"NaN score", func(f *FitResult) { f.P[7] = math.NaN() }, []string{"numbers"}},
		{"wrong dimension", func(f *FitResult) { f.Model.Weights = f.Model.Weights[1:] }, []string{"shape"}},
		{"scores missing", func(f *FitResult) { f.P = f.P[1:] }, []string{"shape"}},
		{"constant", func(f *FitResult) { fill(f.P, func(float64) float64 { return 0.3 }) }, []string{"order"}},
		{"chance", func(f *FitResult) { fill(f.P, func(float64) float64 { return r.Float64() }) }, []string{"order"}},
		{"turned round", func(f *FitResult) { fill(f.P, func(p float64) float64 { return 1 - p }) }, []string{"order"}},
		{"three times too low", func(f *FitResult) { fill(f.P, func(p float64) float64 { return p / 3 }) }, []string{"calibration"}},
		{"wild weight", func(f *FitResult) { f.Model.Weights[0] = 40 }, []string{"weights"}},
		{"leaking", func(f *FitResult) {
			for i, at := range test {
				f.P[i] = 0.01 + 0.9*data.Label(at) + 0.01*r.Float64()
			}
		}, []string{"leak"}},
	} {
		f := fit
		f.P, f.Model.Weights = slices.Clone(fit.P), slices.Clone(fit.Model.Weights)
		c.edit(&f)
		for _, against := range []int{0, 1} {
			j := judged{fit: &f, data: data, test: test, seqs: seqs, kind: "payment", against: against}
			if against != 0 {
				j.champion = champion
			}
			e := j.evidence(rollout.OfflinePolicy{AUCMargin: 0.01})
			if got := e.Failed(); !slices.Equal(got[:min(1, len(got))], c.want) || (e.Verdict() == rollout.Fail) != (c.want != nil) {
				t.Errorf("%s, against v%d: %v failed, want %v first: %s", c.name, against, got, c.want, e.Sentence())
			}
			if e.First != 2401 || e.Last != 3000 {
				t.Errorf("%s: of events %d to %d", c.name, e.First, e.Last)
			}
		}
	}
	// Of the later records those count that the champion has not seen, if there are enough.
	for last, want := range map[uint64]int{3000: 600, 2500: 500, 2950: 600} {
		champion.Training.LastSeq = last
		j := judged{fit: &fit, data: data, test: test, seqs: seqs, kind: "payment", against: 1, champion: champion}
		e := j.evidence(rollout.OfflinePolicy{AUCMargin: 0.01})
		if i := slices.IndexFunc(e.Checks, func(c rollout.Check) bool { return c.Name == "auc" }); i < 0 || e.Checks[i].N != want || e.Verdict() != rollout.Pass {
			t.Errorf("champion trained up to %d: %+v, want %d records", last, e.Checks, want)
		}
	}
	champion.Kind = "claim" // it cannot be compared, and the rest is said all the same
	j := judged{fit: &fit, data: data, test: test, seqs: seqs, kind: "payment", against: 1, champion: champion}
	if e := j.evidence(rollout.OfflinePolicy{}); e.Against != 1 || e.Verdict() != rollout.Pass || slices.ContainsFunc(e.Checks, func(c rollout.Check) bool { return c.Name == "auc" }) {
		t.Errorf("%+v", e)
	}
}

// What the contract expects of a field is held against its weight.
func TestOfflineGateOfSigns(t *testing.T) {
	data, fit, _ := fitted(t, 1, 1000)
	_, test := Time80(Sequence(data.Len()))
	for sign, want := range map[string]rollout.Verdict{events.SignUp: rollout.Pass, events.SignDown: rollout.Fail} {
		data.Schema().Inputs[0].Sign = sign
		j := judged{fit: &fit, data: data, test: test, seqs: make([]uint64, data.Len()), kind: "payment"}
		e := j.evidence(rollout.OfflinePolicy{})
		if i := slices.IndexFunc(e.Checks, func(c rollout.Check) bool { return c.Name == "signs" }); i < 0 || e.Checks[i].Verdict != want {
			t.Errorf("sign %q: %+v, want signs to %s", sign, e.Checks, want)
		}
	}
}

func fill(p []float64, f func(float64) float64) {
	for i := range p {
		p[i] = f(p[i])
	}
}

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
