package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// An entity goes onto a list and off it by the command, its scores say so, are explained by it and proved with it.
func TestOverrideVerbs(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	c, err := events.ParseContract([]byte(cardContract))
	if err != nil {
		t.Fatal(err)
	}
	c.Reasons = &events.Reasons{Version: 3, Texts: map[string]map[string]string{"de": {"AMOUNT": "Der Betrag ist hoch"}}}
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
	schema, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv)
	if _, err := registry.PublishFit(ctx, schema, cardModel("amount", -4)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := registry.Promote(ctx, "payment", 1, "test", "because"); err != nil {
		t.Fatal(err)
	}
	signing := filepath.Join(t.TempDir(), "models.nk")
	if _, err := model.CreateSigner(signing); err != nil {
		t.Fatal(err)
	}
	step := func(want int, says string, args ...string) string {
		t.Helper()
		out, errOut, code := riskweir(t, append(args, "--nats", cluster.URL())...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
		return out
	}
	key := []string{"--signing-key", signing}
	add := func(want int, says string, args ...string) {
		t.Helper()
		step(want, says, append(append([]string{"override", "add", "payment"}, args...), key...)...)
	}
	step(0, "nobody is on a list", "override", "list", "payment")
	add(2, "say --allow or --deny", "c1", "--reason", "r")
	add(2, "say --allow or --deny", "c1", "--reason", "r", "--allow", "--deny")
	add(2, "is past", "c1", "--reason", "r", "--deny", "--until", "2020-01-01T00:00:00Z")
	add(2, "want a time such as", "c1", "--reason", "r", "--deny", "--until", "soon")
	add(2, "want one line", "c1", "--reason", "two\nlines", "--deny")
	step(2, "--signing-key", "override", "add", "payment", "c1", "--reason", "r", "--deny")
	step(2, "kind claim is not declared", append([]string{"override", "add", "claim", "c1", "--reason", "r", "--deny"}, key...)...)
	add(0, "c1 of payment is on the list deny", "c1", "--reason", "stolen", "--by", "ann", "--deny", "--until", "30d")
	add(0, "c2 of payment is on the list allow", "c2", "--reason", "vendor", "--allow")
	out := step(0, "2 of at most 5000", "override", "list", "payment")
	if !strings.Contains(out, "ann: stolen") || !strings.Contains(out, "for good") {
		t.Errorf("%s", out)
	}

	runScorer(t, cluster)
	for _, entity := range []string{"c1", "c2", "c3"} {
		if _, err := js.Publish(ctx, "events.payment."+entity, []byte(`{"amount":30}`)); err != nil {
			t.Fatal(err)
		}
	}
	scored := func(entity, list string) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "the score of "+entity, func() (bool, string) {
			m, err := js.Stream(ctx, events.ScoresStream("payment"))
			if err != nil {
				return false, err.Error()
			}
			raw, err := m.GetLastMsgForSubject(ctx, "scores.payment.*."+entity)
			if err != nil {
				return false, err.Error()
			}
			s, err := events.DecodeScore(raw.Data)
			return err == nil && s.Override == list, string(raw.Data)
		})
	}
	scored("c1", events.Deny)
	scored("c2", events.Allow)
	scored("c3", "")
	if out := step(0, "the same to the last bit", "explain", "payment/c1"); !strings.Contains(out, "-> decline") || !strings.Contains(out, "deny, by the lists of revision") || !strings.Contains(out, ": ann, stolen, for events stored before") {
		t.Errorf("%s", out)
	}
	step(0, "", "replay", "payment", "--model", "all", "--assert-equal")
	step(0, "AMOUNT Der Betrag ist hoch", "explain", "payment/c3", "--language", "de-CH")
	step(2, "it has texts in [de]", "explain", "payment/c3", "--language", "fr")

	step(0, "on no list any more", append([]string{"override", "remove", "payment", "c1", "--reason", "r"}, key...)...)
	step(2, "is on no list of payment", append([]string{"override", "remove", "payment", "c1", "--reason", "r"}, key...)...)
	step(0, "c1 is on no list any more", "override", "list", "payment", "--history")
	testkit.Eventually(t, testkit.Deadline, "the contract decides again", func() (bool, string) {
		if _, err := js.Publish(ctx, "events.payment.c1", []byte(`{"amount":30}`)); err != nil {
			t.Fatal(err)
		}
		m, err := js.Stream(ctx, events.ScoresStream("payment"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := m.GetLastMsgForSubject(ctx, "scores.payment.*.c1")
		if err != nil {
			return false, err.Error()
		}
		s, err := events.DecodeScore(raw.Data)
		return err == nil && s.Override == "", string(raw.Data)
	})

	// A score that says of a list what the list does not say is found.
	step(0, "the same to the last bit", "explain", "payment/c2")
	add(0, "deny", "c2", "--reason", "r", "--deny")
	step(0, ": "+whoami()+", vendor", "explain", "payment/c2") // as it was then
}
