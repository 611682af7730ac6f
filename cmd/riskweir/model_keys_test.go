package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// A data directory from before models were signed: its versions are signed at the first start, and nothing is at the next.
func TestUpSignsWhatWasThereBefore(t *testing.T) {
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
	plain := model.NewRegistry(kv)
	for range 2 {
		if _, err := plain.Publish(ctx, cardModel("amount", -1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kv.Put(ctx, model.Name("payment", 3), []byte(`{"format":1}`)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	u := &upRun{layout: &layout{dir: dir}, js: js, status: &said}
	if err := u.sign(ctx); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), "2 version(s) of payment") {
		t.Errorf("said %q", said.String())
	}
	trust, err := model.ReadTrust(u.layout.trustKey())
	if err != nil {
		t.Fatal(err)
	}
	trusting := plain.Keyed(nil, trust)
	for v := 1; v <= 2; v++ {
		if _, err := trusting.Get(ctx, "payment", v); err != nil {
			t.Errorf("v%d: %v", v, err)
		}
	}
	if _, err := plain.Publish(ctx, cardModel("amount", 5)); err != nil { // by somebody else, later
		t.Fatal(err)
	}
	said.Reset()
	if err := u.sign(ctx); err != nil || said.Len() > 0 {
		t.Errorf("the next start: %v, said %q", err, said.String())
	}
	if _, err := trusting.Get(ctx, "payment", 4); err == nil {
		t.Error("what somebody else published is signed at the next start")
	}

	// The operator's commands find the keys beside the seed that the context names, and need no word about them.
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	if err := os.MkdirAll(filepath.Join(config, "nats", "context"), 0o700); err != nil {
		t.Fatal(err)
	}
	seed := u.layout.seedFile(operatorUser)
	if _, err := model.CreateSigner(seed); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(map[string]string{"nkey": seed})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "nats", "context", "there.json"), settings, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []service.Connection{{Context: "there"}, {NKey: seed}, {NKey: seed, Context: "elsewhere"}} {
		var k command.Keys
		keysBeside(&k, c)
		if signer, beside, err := k.Signer(); err != nil || signer.Public() != trust.Keys()[0] || len(beside.Keys()) != 1 {
			t.Errorf("%+v: %v, %v, %v", c, signer, beside.Keys(), err)
		}
	}
	var none command.Keys
	keysBeside(&none, service.Connection{Context: "elsewhere"})
	if beside, err := none.IfAny(); beside != nil || err != nil {
		t.Errorf("a context that there is none of: %v, %v", beside.Keys(), err)
	}

	step := func(want int, says string, args ...string) {
		t.Helper()
		out, errOut, code := riskweir(t, append([]string{"model", "--nats", cluster.URL(), "--trust-key", u.layout.trustKey(), "--signing-key", u.layout.signingKey()}, args...)...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
	}
	step(2, "'riskweir model sign payment vN' signs it", "promote", "payment", "v4", "--reason", "r")
	step(0, "cannot serve: payment.v000004", "list", "payment")
	step(1, "it has no signature", "show", "payment", "v4")
	step(0, "signed by    "+trust.Keys()[0], "show", "payment", "v1")
	step(2, "say which version, or --all", "sign", "payment")
	step(0, "payment.v000004 is signed by "+trust.Keys()[0], "sign", "payment", "v4")
	step(1, "payment.v000003 is not signed", "sign", "payment", "--all")
	step(1, "has no owner", "promote", "payment", "v4", "--reason", "r", "--timeout", "10ms")
	out, errOut, code := riskweir(t, "model", "key", filepath.Join(dir, "other.nk"))
	if code != 0 || !strings.HasPrefix(out, "U") || !strings.Contains(errOut, "keep it secret") {
		t.Errorf("%d %s %s", code, out, errOut)
	}
	if again, _, _ := riskweir(t, "model", "key", filepath.Join(dir, "other.nk")); again != out {
		t.Errorf("again: %s, want %s", again, out)
	}
}
