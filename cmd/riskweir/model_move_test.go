package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// A version goes out and comes in again, altered or not, signed or not; each step is a command with its exit status. What is in force stays.
func TestVersionsAreMoved(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	c, err := events.ParseContract([]byte(cardContract))
	if err != nil {
		t.Fatal(err)
	}
	c.Fields = append(c.Fields, events.Field{Name: "age", Type: events.Number, Protected: true}, events.Field{Name: "speed", Type: events.Number, Sign: events.SignUp})
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
	dir := t.TempDir()
	ours, err := model.CreateSigner(filepath.Join(dir, "ours.nk"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := model.CreateSigner(filepath.Join(dir, "theirs.nk"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := model.NewTrust(ours.Public())
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv).Keyed(ours, trust)
	first := cardModel("amount", -1)
	first.Training.Stream, first.Training.LabelsSeq = "EVENTS_payment", 77 // of another cluster
	if _, err := registry.Publish(ctx, first); err != nil {
		t.Fatal(err)
	}
	if _, _, err := registry.Promote(ctx, "payment", 1, "test", "because"); err != nil {
		t.Fatal(err)
	}
	step := func(want int, says string, args ...string) string {
		t.Helper()
		out, errOut, code := riskweir(t, append([]string{"model", "--nats", cluster.URL(), "--signing-key", filepath.Join(dir, "ours.nk")}, args...)...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
		return out
	}
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	body := step(0, `"signature":`, "export", "payment", "v1")
	v1 := write("v1.json", body)
	step(0, "payment.v000002 is there, a candidate; it was payment.v000001", "import", v1)
	second, err := registry.Get(ctx, "payment", 2)
	if err != nil {
		t.Fatal(err)
	}
	if second.Parent != 1 || !strings.Contains(second.Origin, "signed by "+ours.Public()) || second.Training.Stream != "" || second.Training.LabelsSeq != 0 || second.Training.Rows != 10 {
		t.Errorf("imported: %+v", second)
	}
	if r, _, err := registry.Rollout(ctx, "payment"); err != nil || r.Champion != 1 {
		t.Errorf("in force is version %d (%v), want 1 still", r.Champion, err)
	}

	// made is a file that says that it is version 1, signed or not.
	made := func(name, field string, signer *model.Signer, edit func(*model.Artifact)) string {
		t.Helper()
		a := cardModel(field, -2)
		if signer != nil {
			if err := a.Sign(signer); err != nil {
				t.Fatal(err)
			}
		}
		if edit != nil {
			edit(a)
		}
		text, err := a.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return write(name, string(text))
	}
	step(0, "it was payment.v000001", "import", made("theirs.json", "amount", theirs, nil))
	third, err := registry.Get(ctx, "payment", 3)
	if err != nil || !strings.Contains(third.Origin, "signed by "+theirs.Public()) {
		t.Errorf("%+v, %v", third, err)
	}
	step(0, "unsigned", "import", made("plain.json", "speed", nil, nil))
	step(2, "if you altered it, take its signature out", "import", made("altered.json", "amount", ours, func(a *model.Artifact) { a.Intercept = 9 }))
	step(2, "altered or cut", "import", write("cut.json", strings.Replace(body, `"intercept":-1`, `"intercept":-3`, 1)))
	step(2, "field age is protected by the contract of payment", "import", made("protected.json", "age", nil, nil))
	step(2, "unheard_of is not in the contract", "import", made("foreign.json", "unheard_of", nil, nil))
	step(2, "kind claim is not declared", "import", made("claim.json", "amount", nil, func(a *model.Artifact) { a.Kind = "claim" }))
	step(2, "no such file", "import", filepath.Join(dir, "none.json"))
	step(2, "read as JSON", "import", write("nonsense.json", "nonsense"))
	if out, errOut, code := riskweir(t, "model", "--nats", cluster.URL(), "import", v1); code != 2 || !strings.Contains(errOut, "--signing-key") {
		t.Errorf("without a key: %d %s%s", code, out, errOut)
	}
	if entries, err := registry.List(ctx, "payment"); err != nil || len(entries) != 4 {
		t.Errorf("%d versions (%v), want 4: what was refused is none", len(entries), err)
	}

	if out := step(0, "inputs   the same", "diff", "payment", "v1", "v3"); !strings.Contains(out, "intercept") || !strings.Contains(out, "-1 -> -2") {
		t.Errorf("%s", out)
	}
	step(0, "only in the first: amount", "diff", "payment", "v1", "v4")
	var d versionDiff
	if err := json.Unmarshal([]byte(step(0, "", "diff", "payment", "v1", "v4", "--json")), &d); err != nil || len(d.OnlyA) != 1 || len(d.OnlyB) != 1 || d.OnlyB[0] != "speed" {
		t.Errorf("%+v, %v", d, err)
	}
	step(2, "model list payment", "diff", "payment", "v1", "v9")
}

func TestDiffVersions(t *testing.T) {
	a, b := cardModel("amount", -1), cardModel("amount", -1)
	b.Version = 2
	d, err := diffVersions(a, b)
	if err != nil || len(d.OnlyA)+len(d.OnlyB)+len(d.Moved)+len(d.Others) != 0 {
		t.Errorf("two of the same: %+v, %v", d, err)
	}
	b.Weights[0].Weight *= -2
	b.Spec.Fields[0].Mean = 21
	b.Metrics.AUC = 0.9
	d, err = diffVersions(a, b)
	if err != nil || len(d.Moved) != 1 || len(d.Others) != 2 || d.Others[0].What != "metrics.auc" || d.Others[1] != (valueMoved{"spec.fields[amount].mean", "20", "21"}) {
		t.Errorf("%+v, %v", d, err)
	}
	if page := d.page(false); !strings.Contains(page, "the sign has turned") || strings.Contains(page, "spec.fields") {
		t.Errorf("%s", page)
	}
	if page := d.page(true); !strings.Contains(page, "spec.fields[amount].mean") {
		t.Errorf("%s", page)
	}
}
