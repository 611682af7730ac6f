package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/scorer"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// cardModel is a version that scores cardContract by one field.
func cardModel(field string, intercept float64) *model.Artifact {
	spec := feature.Spec{Version: feature.SpecVersion, Zone: "UTC", Fields: []feature.Transform{{Field: field, Kind: feature.Numeric, Mean: 20, SD: 10}}}
	a := &model.Artifact{
		Format: model.Format, Kind: "payment", Version: 1, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), CreatedBy: "trainer t1", Code: "test",
		Contract: model.ContractRef{Version: 1}, Training: model.Training{Rows: 10, Positives: 2, DataHash: "00"},
		Metrics: model.Metrics{Rows: 10, Positives: 2, AUC: 0.8, AUCSE: 0.02, LogLoss: 0.1, Brier: 0.03},
		Scale:   model.DefaultScale, Calibration: model.Calibration{Method: model.CalibrationNone},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: intercept,
	}
	for _, c := range spec.Columns("") {
		a.Weights = append(a.Weights, model.Weight{Column: c.Name, Field: c.Field, Weight: 0.7})
	}
	return a
}

// The life of a model by the command, on a broker and with a scorer; each step is a command with its exit status.
func TestModelVerbs(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	c, err := events.ParseContract([]byte(cardContract))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv)
	for _, a := range []*model.Artifact{cardModel("amount", -1), cardModel("amount", 2), cardModel("unheard_of", 0)} {
		if _, err := registry.Publish(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Put(ctx, model.Name("payment", 4), []byte(`{"format":1}`)); err != nil {
		t.Fatal(err)
	}
	step := func(want int, says string, args ...string) string {
		t.Helper()
		out, errOut, code := riskweir(t, append([]string{"model", "--nats", cluster.URL()}, args...)...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
		return out
	}
	step(0, "none is in force", "list", "payment")
	step(2, "say which version", "show", "payment")
	step(0, "no version of payment has been in force", "log", "payment")
	step(2, "model list payment", "promote", "payment", "v9", "--reason", "r")
	step(2, "declare the one it was trained under", "promote", "payment", "v3", "--reason", "r")
	step(2, "train and publish another", "promote", "payment", "v4", "--reason", "r")
	step(2, "has no champion", "rollback", "payment", "--reason", "r")
	step(2, "required flag", "promote", "payment", "v1")
	step(2, "kind nokind is not declared", "list", "nokind")

	// Nobody scores: it is in force, and the lanes are named.
	out := step(1, "has no owner: is a scorer running?", "promote", "payment", "v1", "--reason", "the first", "--by", "ann", "--timeout", "50ms")
	if lanes := len(events.LaneNumbers(c.Lanes)); !strings.Contains(out, fmt.Sprintf("%d of %[1]d lanes have not", lanes)) {
		t.Errorf("%s", out)
	}
	runScorer(t, cluster)
	step(0, "nothing was changed\nall", "promote", "payment", "v1", "--reason", "again")
	publish := func(n int) {
		t.Helper()
		for i := range n {
			if _, err := js.Publish(ctx, fmt.Sprintf("events.payment.c%d", i), []byte(`{"amount":30}`)); err != nil {
				t.Fatal(err)
			}
		}
	}
	impactOf := func(version string) (n uint64) {
		t.Helper()
		var r struct {
			Outcomes uint64 `json:"outcomes"`
		}
		if err := json.Unmarshal([]byte(step(0, "", "impact", "payment", version, "--json")), &r); err != nil {
			t.Fatal(err)
		}
		return r.Outcomes
	}
	scored := func(version string, n uint64) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%s has scored %d", version, n), func() (bool, string) {
			got := impactOf(version)
			return got == n, fmt.Sprint(got)
		})
	}
	publish(7)
	scored("v1", 7)
	var s switched
	if err := json.Unmarshal([]byte(step(0, "", "promote", "payment", "v2", "--reason", "better", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	if !s.Changed || s.Before != "payment.v000001" || s.Model != "payment.v000002" || len(s.Behind) != 0 || s.LanesMS < s.StoredMS || s.StoredMS <= 0 {
		t.Errorf("%+v", s)
	}
	publish(5) // after the command has ended: none of them is for v1
	scored("v2", 5)
	if n := impactOf("v1"); n != 7 {
		t.Errorf("v1 scored %d after the promotion of v2 had ended", n-7)
	}
	if lines := strings.Count(step(0, `"model":"payment.v000002"`, "impact", "payment", "v2", "--list"), "\n"); lines != 5 {
		t.Errorf("%d outcomes are listed, want 5", lines)
	}
	step(2, "model list payment", "impact", "payment", "v9")
	out = step(0, "v2       champion", "list", "payment")
	for _, want := range []string{"v1       previous    0.8000 ± 0.0200", "v3       -", "v4       -           cannot serve: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q:\n%s", want, out)
		}
	}
	step(0, "champion", "show", "payment")
	step(1, "cannot serve", "show", "payment", "v3")
	step(2, "train and publish another", "show", "payment", "v4")

	step(0, "payment.v000001 is in force", "rollback", "payment", "--reason", "declines all of Monday")
	step(2, "name one", "rollback", "payment", "--reason", "typed twice")
	publish(3)
	scored("v1", 10)
	scored("v2", 5)

	// Beside the champion, for a share of the entities, and out again; nobody lets what they put forward decide.
	if _, err := registry.Publish(ctx, cardModel("amount", 0.5)); err != nil {
		t.Fatal(err)
	}
	step(0, "payment.v000005 is shadow, revision", "shadow", "payment", "v5", "--reason", "try it", "--by", "bob")
	step(2, "somebody else must let it decide", "canary", "payment", "v5", "--reason", "r", "--by", "bob")
	step(2, "declare the one it was trained under", "rollback", "payment", "v3", "--reason", "r")
	step(0, "payment.v000005 is canary 0.1, revision", "canary", "payment", "v5", "--reason", "did well", "--by", "ann")
	step(2, "v5 is canary: promote it, or roll it back first", "promote", "payment", "v2", "--reason", "r")
	step(0, "v5       canary 0.1", "list", "payment")
	share := rollout.NewShare("payment", 5, 0.1)
	var in, others int
	whose := map[bool]string{}
	for i := 0; in < 3 || others < 3; i++ {
		entity := fmt.Sprintf("card%d", i)
		whose[share.Has(entity)] = entity
		if share.Has(entity) {
			in++
		} else {
			others++
		}
		if _, err := js.Publish(ctx, "events.payment."+entity, []byte(`{"amount":30}`)); err != nil {
			t.Fatal(err)
		}
	}
	scored("v5", uint64(in))
	scored("v1", uint64(10+others))
	// Both kinds of scores can be computed again, at the revision at which both versions decided.
	for canary, version := range map[bool]string{true: "payment.v000005", false: "payment.v000001"} {
		out, errOut, code := riskweir(t, "explain", "payment/"+whose[canary], "--nats", cluster.URL())
		if code != 0 || !strings.Contains(out, version) || !strings.Contains(out, "the same to the last bit") {
			t.Errorf("explain: exit status %d, want %s\n%s%s", code, version, out, errOut)
		}
	}
	if out, errOut, code := riskweir(t, "replay", "payment", "--model", "all", "--assert-equal", "--nats", cluster.URL()); code != 0 || !strings.Contains(out, "payment.v000005") {
		t.Errorf("replay: exit status %d\n%s%s", code, out, errOut)
	}
	step(0, "payment.v000005 is rolled back", "rollback", "payment", "v5", "--reason", "r")

	// As 'nats kv revert' does: the bytes of an earlier revision once more.
	entry, err := kv.GetRevision(ctx, model.RolloutKey("payment"), s.Revision)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, model.RolloutKey("payment"), entry.Value()); err != nil {
		t.Fatal(err)
	}
	step(0, "was in force already", "promote", "payment", "v2", "--reason", "waits only")
	publish(2)
	scored("v2", 7)
	if _, err := kv.Put(ctx, model.RolloutKey("payment"), []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	step(0, "which is in force cannot be read", "list", "payment")
	step(2, "rollout record refused", "rollback", "payment", "--reason", "r")
	publish(4) // the champion goes on
	scored("v2", 11)
	step(0, "payment.v000001 is in force", "rollback", "payment", "v1", "--reason", "out of the nonsense")
	out = step(0, "nats kv revert MODELS payment.rollout", "log", "payment")
	for _, want := range []string{"ann: the first", "declines all of Monday", fmt.Sprintf("put back as it was at revision %d", s.Revision), "scorers passed it over", "out of the nonsense",
		"v5 shadow -> canary 0.1, by ann, without evidence", "v5 canary -> rolled back"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q:\n%s", want, out)
		}
	}
	if rows := regexp.MustCompile(`(?m)^ *[0-9]+  20`).FindAllString(out, -1); len(rows) != 9 {
		t.Errorf("%d records, want 9:\n%s", len(rows), out)
	}
}

// runScorer runs one until the end of the test.
func runScorer(t *testing.T, cluster *testkit.Cluster) {
	t.Helper()
	s, err := scorer.New(scorer.Config{Conn: cluster.Connect(t), Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Instance: "s1-test", Name: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	g, _ := service.NewGroup(t.Context()) // which ends before cleanups begin
	g.Go(s.Run)
	t.Cleanup(func() {
		if err := g.Wait(); err != nil {
			t.Errorf("scorer: %v", err)
		}
	})
}
