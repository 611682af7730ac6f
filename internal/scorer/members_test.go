package scorer

import (
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/boost"
	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

const cardText = `
kind: payment
base: 520
scale: {base: 600, odds: 50, pdo: 20}
fields:
  - field: amount
    bins: [{below: 10, points: 12}, {points: -20}]
`

// ensemble has all four members.
func ensemble(tb testing.TB) *model.Artifact {
	tb.Helper()
	body := func(v any) json.RawMessage {
		b, err := json.Marshal(v)
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	a := artifact(-1)
	a.Format, a.Calibration.Method = model.FormatEnsemble, model.CalibrationFusion
	online := model.Online{Slope: 1, Weights: make([]float64, len(a.Weights))}
	online.Weights[0] = 0.4
	trees := boost.Model{Trees: []boost.Tree{{{Column: 0, Cut: 0.5, Left: 1, Right: 2}, {Column: -1, Value: -0.5}, {Column: -1, Value: 0.75}}}}
	card, err := model.ParseScorecard([]byte(cardText))
	if err != nil {
		tb.Fatal(err)
	}
	names := []string{model.KindBatch, model.KindBoost, model.KindOnline, model.KindScorecard}
	e := &model.Ensemble{Forget: 0.999, Members: []model.Member{
		{Kind: names[0]}, {Kind: names[1], Body: body(trees)}, {Kind: names[2], Body: body(online)}, {Kind: names[3], Body: body(card)},
	}}
	for mask := 1; mask < 1<<len(names); mask++ {
		f := model.Fusion{Bias: -float64(mask) / 16}
		for i, n := range names {
			if mask>>i&1 == 1 {
				f.Members, f.Weights = append(f.Members, n), append(f.Weights, 0.25*float64(i+1))
			}
		}
		e.Fusions = append(e.Fusions, f)
	}
	a.Ensemble = e
	return a
}

// faults is what goes wrong in which member, and may change while a scorer runs.
type faults struct {
	mu sync.Mutex
	of map[string]func() float64
}

func (f *faults) set(of map[string]func() float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.of = of
}

func (f *faults) at(member string) float64 {
	f.mu.Lock()
	fault := f.of[member]
	f.mu.Unlock()
	if fault == nil {
		return 0
	}
	return fault()
}

// TestAFaultInAMember, of each kind and in each member, in a scorer on a broker: every event has its score within the deadline, made by
// the others, and its mode says so; with every member gone it is the prior.
func TestAFaultInAMember(t *testing.T) {
	w := newWorld(t)
	broken := &faults{}
	signer, stranger := newSigner(t), newSigner(t)
	trust, err := model.NewTrust(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	a := ensemble(t)
	w.registry = w.registry.Keyed(signer, trust)
	whole, err := model.Compile(a, w.schema)
	if err != nil {
		t.Fatal(err)
	}
	name, _ := w.put(t, a)
	scorer := w.runWith(t, func(s *Scorer) { s.fault, s.cfg.Trust = broken.at, trust })
	const deadline = time.Second
	n := 0
	ask := func(fault string, out ...string) {
		t.Helper()
		n++
		began := time.Now()
		seq := w.publish(t, fmt.Sprintf("events.payment.c%d", n), nil, fmt.Appendf(nil, `{"amount":%d,"channel":"web"}`, n))
		got, err := events.DecodeScore(w.outcomes(t, []uint64{seq})[seq].body)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > deadline && !strings.HasPrefix(fault, "first") {
			t.Errorf("%s: the score came after %s", fault, took)
		}
		if len(out) == len(whole.Members()) {
			if got.Mode != events.ModePrior || got.P != 0.02 || got.Model != "" || got.Decision != w.schema.Contract.Decisions.Prior {
				t.Errorf("%s: %+v, want the prior", fault, got)
			}
			return
		}
		voting, err := whole.Without(out...)
		if err != nil {
			t.Fatal(err)
		}
		var rec events.Record
		if err := w.schema.Decode(events.JSON, fmt.Appendf(nil, `{"amount":%d,"channel":"web"}`, n), &rec); err != nil {
			t.Fatal(err)
		}
		var scratch model.Scratch
		if want := voting.Score(&rec, &scratch); got.Mode != events.Mode(events.ModeModel, out...) || got.P != want.P || got.Model != name {
			t.Errorf("%s: mode %s, p %v by %s; want %s, %v", fault, got.Mode, got.P, got.Model, events.Mode(events.ModeModel, out...), want.P)
		}
		if len(out) > 0 && got.Decision != w.schema.Contract.Decisions.MemberMissing {
			t.Errorf("%s: decision %s, want what the contract says of a missing member", fault, got.Decision)
		}
	}
	testkit.Eventually(t, testkit.Deadline, "the model is in force", func() (bool, string) {
		s := scorer()
		return s.watcher != nil && s.watcher.Live("payment") != nil && s.watcher.Live("payment").Name == name, ""
	})
	ask("first of all")
	for fault, of := range map[string]func() float64{"NaN": math.NaN, "panic": func() float64 { panic("test") }} {
		for _, m := range whole.Members() {
			broken.set(map[string]func() float64{m: of})
			ask(fault+" in "+m, m)
			broken.set(nil)
			ask("after " + fault + " in " + m)
		}
	}
	everybody := map[string]func() float64{}
	for _, m := range whole.Members() {
		everybody[m] = math.NaN
	}
	broken.set(everybody)
	ask("all at once", whole.Members()...)
	broken.set(nil)

	// A member that takes a second for each event is switched off at the first.
	for _, m := range whole.Members() {
		broken.set(map[string]func() float64{m: func() float64 { time.Sleep(time.Second); return 0 }})
		ask("a second in "+m, m)
		ask("and off it stays: "+m, m)
		broken.set(nil)
		s := scorer()
		s.panel.mu.Lock()
		if missing := s.panel.out["payment"]; missing != "-"+m {
			t.Errorf("the heartbeat would say that %q is missing, want %s", missing, m)
		}
		clear(s.panel.off) // as time would
		s.panel.changed.Add(1)
		s.panel.mu.Unlock()
		ask("after a second in " + m)
	}

	// Snapshots: one that is good votes and is named, one that is altered does not, nor does one that is too old.
	online := model.Online{Slope: 1, Weights: make([]float64, len(a.Weights))}
	online.Weights[0] = -0.3
	good := &model.Snapshot{Format: model.SnapshotFormat, Kind: "payment", Version: 1, Labels: 3, Online: online}
	encode := func(by *model.Signer) []byte {
		t.Helper()
		if err := good.Sign(by); err != nil {
			t.Fatal(err)
		}
		body, err := good.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	foreign := encode(stranger)
	body := encode(signer)
	sequence := w.publish(t, events.OnlineSubject("payment"), nil, body)
	testkit.Eventually(t, testkit.Deadline, "the snapshot is seen", func() (bool, string) { return scorer().panel.sequence("payment") == sequence, "" })
	before := whole
	if whole, err = before.With(good, sequence); err != nil {
		t.Fatal(err)
	}
	ask("with a snapshot")
	altered := []byte(strings.Replace(string(body), "-0.3", "-0.4", 1))
	for what, x := range map[string][]byte{"an altered snapshot": altered, "a snapshot that a stranger signed": foreign} {
		sequence = w.publish(t, events.OnlineSubject("payment"), nil, x)
		testkit.Eventually(t, testkit.Deadline, what+" is seen", func() (bool, string) { return scorer().panel.sequence("payment") == sequence, "" })
		ask("with "+what, model.KindOnline)
	}
	sequence = w.publish(t, events.OnlineSubject("payment"), nil, body)
	testkit.Eventually(t, testkit.Deadline, "the good one is seen", func() (bool, string) { return scorer().panel.sequence("payment") == sequence, "" })
	if whole, err = before.With(good, sequence); err != nil {
		t.Fatal(err)
	}
	ask("with a good one again")
	p := scorer().panel
	p.mu.Lock()
	was := p.latest["payment"]
	p.latest["payment"] = received{snapshot: was.snapshot, sequence: was.sequence, at: was.at.Add(-p.lease)}
	p.changed.Add(1)
	p.mu.Unlock()
	ask("with one that is too old", model.KindOnline)
}

// put publishes and promotes an artifact.
func (w *world) put(t *testing.T, a *model.Artifact) (name string, revision uint64) {
	t.Helper()
	version, err := w.registry.Publish(testkit.Context(t), a)
	if err != nil {
		t.Fatal(err)
	}
	_, revision, err = w.registry.Promote(testkit.Context(t), "payment", version, "test", "because")
	if err != nil {
		t.Fatal(err)
	}
	return model.Name("payment", version), revision
}

// TestASlowMemberOfALargeBatch: not one event takes long, but all of them together do.
func TestASlowMemberOfALargeBatch(t *testing.T) {
	s, _ := benchBatches(t)
	a := ensemble(t)
	schema, err := events.Compile(contract())
	if err != nil {
		t.Fatal(err)
	}
	p, err := model.Compile(a, schema)
	if err != nil {
		t.Fatal(err)
	}
	s.kind, s.live = "payment", &model.Live{Predictor: p, Name: a.Name(), Version: 1, Revision: 3, Schema: schema, ContractRevision: 1}
	s.panel = newPanel(time.Hour)
	var off []string
	s.tally.slow = func(_, member string, _ time.Duration) { off = append(off, member) }
	s.scratch.Fault = func(m string) float64 {
		if m == model.KindBoost {
			time.Sleep(5 * time.Millisecond)
		}
		return 0
	}
	l := &laneStage{stage: s}
	l.arrange()
	var batch []lane.Event
	for i := range 600 {
		batch = append(batch, event(uint64(i+1), fmt.Sprintf(`{"amount":%d}`, i)))
	}
	began := time.Now()
	var msgs []*nats.Msg = l.Outcomes(batch)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if !slices.Equal(off, []string{model.KindBoost}) || len(msgs) != len(batch) {
		t.Fatalf("switched off %v, %d outcomes", off, len(msgs))
	}
	for _, m := range msgs {
		if got, err := events.DecodeScore(m.Data); err != nil || got.Mode != "model-boost" {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if d := l.panel.tooSlow("payment", model.KindBoost); d > offAtFirst {
		t.Errorf("found twice at a time it is off for %s", d)
	}
	l.panel.now = func() time.Time { return began.Add(offAtFirst + 10*time.Second) }
	if d := l.panel.tooSlow("payment", model.KindBoost); d != 2*offAtFirst {
		t.Errorf("the second time it is off for %s", d)
	}
}

func newSigner(t *testing.T) *model.Signer {
	t.Helper()
	s, err := model.CreateSigner(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
