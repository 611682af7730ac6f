package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/choria-io/fisk"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// looking are the verbs that change nothing which others see, and why. A new verb is added here, or to the
// changes of TestEveryChangeIsOnRecord.
var looking = map[string]string{
	"audit": "reads AUDIT", "status": "asks the monitor", "verify": "reads", "doctor": "reads", "explain": "reads", "decode": "reads stdin", "features": "reads",
	"kind infer": "reads a file", "kind list": "reads", "kind show": "reads", "kind diff": "reads", "topology plan": "reads", "topology show": "reads",
	"token list": "reads", "model list": "reads", "model show": "reads", "model log": "reads", "model impact": "reads",
	"override list": "reads", "model diff": "reads", "model report": "reads, and writes a file here", "model export": "reads", "certs": "makes files here", "model key": "makes a file here",
	"subscriber list": "reads", "permissions": "prints",
	"ingest": "publishes events and labels, as anybody may whose role is publisher; how far is kept beside them",
	"chaos":  "breaks a system of its own", "bench": "measures a system of its own",
	"up":       "starts a system; what it applies is on record, see TestUpIsOnRecord",
	"run node": "is a service", "run scorer": "is a service", "run ingest": "is a service", "run trainer": "is a service", "run monitor": "is a service", "run sim": "is a source",
	"run file": "is a source", "run bench-ceiling": "measures", "run bench-plain": "measures",
}

// verbs of the command, by their full names, without those that have verbs of their own.
func verbs() []string {
	var out []string
	var walk func(prefix string, g *fisk.CmdGroupModel)
	walk = func(prefix string, g *fisk.CmdGroupModel) {
		for _, c := range g.Commands {
			name := strings.TrimSpace(prefix + " " + c.Name)
			if len(c.Commands) > 0 {
				walk(name, c.CmdGroupModel)
				continue
			}
			if name != "help" && !strings.HasPrefix(name, "cheat") {
				out = append(out, name)
			}
		}
	}
	walk("", newApp(io.Discard, io.Discard).Model().CmdGroupModel)
	return out
}

// Every verb that changes something is run, and leaves a record that says so; every other one stands in the table above.
func TestEveryChangeIsOnRecord(t *testing.T) {
	t.Parallel()
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	contract := file("payment.yaml", cardContract)
	rows := "at,amount,fraud\n"
	for i := range 400 {
		rows += fmt.Sprintf("2026-01-01T00:%02d:%02dZ,%d,%d\n", i/60, i%60, i%100, i%100/60)
	}
	data := file("rows.csv", rows)
	labelled := file("labelled.yaml", strings.Replace(cardContract, "\nfields:", "\nlabel: {column: fraud, positive: [\"1\"]}\nfields:", 1))
	publishModels := func() {
		kv, err := js.KeyValue(ctx, events.ModelsBucket)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := model.NewRegistry(kv).Publish(ctx, cardModel("amount", -1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	signing, exported := filepath.Join(t.TempDir(), "models.nk"), ""
	if _, err := model.CreateSigner(signing); err != nil {
		t.Fatal(err)
	}
	exported = file("v3.json", "")
	exportModel := func() {
		out, errOut, code := riskweir(t, "model", "export", "payment", "v3", "--nats", cluster.URL())
		if code != 0 {
			t.Fatal(errOut)
		}
		file("v3.json", out)
	}
	// In an order in which they can be done. The exit status 1 is of lanes that nobody owns.
	changes := []struct {
		verb   string
		before func()
		args   []string
		code   int
		about  string
	}{
		{verb: "topology apply"},
		{verb: "kind apply", args: []string{contract}, about: "payment version 1"},
		{verb: "lane rebase", args: []string{"payment", "0", "--at", "0", "--force", "--reason", "r"}, about: "payment lane 0"},
		{verb: "model promote", before: publishModels, args: []string{"payment", "v1", "--reason", "r", "--timeout", "10ms"}, code: 1, about: "payment.v000001"},
		{verb: "model promote", args: []string{"payment", "v2", "--reason", "r", "--timeout", "10ms"}, code: 1, about: "payment.v000002"},
		{verb: "model rollback", args: []string{"payment", "--reason", "r", "--timeout", "10ms"}, code: 1, about: "payment.v000001"},
		{verb: "train", args: []string{data, "--label", "fraud", "--contract", labelled, "--publish", "--unsigned-models"}, about: "payment.v000003"},
		{verb: "override add", args: []string{"payment", "c1", "--deny", "--reason", "r", "--signing-key", signing}, about: "payment c1"},
		{verb: "override remove", args: []string{"payment", "c1", "--reason", "r", "--signing-key", signing}, about: "payment c1"},
		{verb: "model sign", args: []string{"payment", "v3", "--signing-key", signing}, about: "payment.v000003"},
		{verb: "model import", before: exportModel, args: []string{exported, "--signing-key", signing}, about: "payment.v000004"},
		{verb: "model shadow", args: []string{"payment", "v2", "--reason", "r", "--timeout", "10ms", "--by", "bob"}, code: 1, about: "payment.v000002"},
		{verb: "model canary", args: []string{"payment", "v2", "--reason", "r", "--timeout", "10ms", "--by", "ann"}, code: 1, about: "payment.v000002"},
		{verb: "model retire", args: []string{"payment", "v3", "--reason", "r", "--timeout", "10ms"}, code: 1, about: "payment.v000003"},
		{verb: "erase", args: []string{"payment/nobody", "--reason", "r"}},
		{verb: "token add", args: []string{"shop", "--may", "score", "--kind", "payment"}, about: "shop"},
		{verb: "token revoke", args: []string{"shop", "--reason", "r"}, about: "shop"},
		{verb: "subscriber add", args: []string{"casework", "--filter", "scores.payment.high.*", "--creds", filepath.Join(dir, "casework.nk")}, about: "casework"},
		{verb: "subscriber remove", args: []string{"casework", "--kind", "payment"}, about: "casework"},
		{verb: "replay", args: []string{"payment", "--model", "v1", "--publish"}, about: "payment.v000001"},
	}
	tested := map[string]bool{}
	for _, x := range changes {
		tested[x.verb] = true
		if x.before != nil {
			x.before()
		}
		count := func() int {
			told, err := audit.Read(ctx, js, audit.Query{})
			if err != nil && !strings.Contains(err.Error(), "there is no stream") {
				t.Fatal(err)
			}
			return len(told)
		}
		had := count()
		words := strings.Fields(x.verb)
		out, errOut, code := riskweir(t, slices.Concat(words, x.args, []string{"--nats", cluster.URL()})...)
		if code != x.code {
			t.Fatalf("%s: exit status %d\n%s%s", x.verb, code, out, errOut)
		}
		told, err := audit.Read(ctx, js, audit.Query{})
		if err != nil {
			t.Fatal(err)
		}
		if len(told) != had+1 {
			t.Errorf("%s: %d records, and %d before: use app.changes", x.verb, len(told), had)
			continue
		}
		r := told[len(told)-1]
		if r.What != x.verb || r.State != audit.Done || r.About != x.about || len(r.Sequences) != 2 || !strings.Contains(r.Who, "@") {
			t.Errorf("%s: %+v", x.verb, r)
		}
	}
	for _, verb := range verbs() {
		switch {
		case !tested[verb] && looking[verb] == "":
			t.Errorf("'riskweir %s' is new: does it change anything? Then through app.changes, and into the list here; else into looking", verb)
		case tested[verb] && looking[verb] != "":
			t.Errorf("'riskweir %s' is said to change things and to look at them", verb)
		}
	}
	all := verbs()
	for _, verb := range slices.Concat(slices.Collect(maps.Keys(tested)), slices.Collect(maps.Keys(looking))) {
		if !slices.Contains(all, verb) {
			t.Errorf("there is no 'riskweir %s' any more", verb)
		}
	}

	// And it can be asked.
	out, errOut, code := riskweir(t, "audit", "--nats", cluster.URL(), "--about", "payment.v2", "--what", "promote")
	if code != 0 || !strings.Contains(out, "model promote payment payment.v000002") || !strings.Contains(out, "before  {\"champion\":1") {
		t.Errorf("exit status %d\n%s%s", code, out, errOut)
	}
	if out, _, code := riskweir(t, "audit", "--nats", cluster.URL(), "--who", "nobody at all"); code != 1 || out != "" {
		t.Errorf("exit status %d\n%s", code, out)
	}
	out, _, _ = riskweir(t, "audit", "--nats", cluster.URL(), "--json", "--limit", "1")
	var last audit.Told
	if err := json.Unmarshal([]byte(out), &last); err != nil || last.What != "replay" {
		t.Errorf("%s: %v", out, err)
	}
	if _, _, code := riskweir(t, "audit", "--nats", cluster.URL(), "--since", "yesterday"); code != 2 {
		t.Errorf("exit status %d", code)
	}
}

// What 'up' applies is on record, the first time and the next.
func TestUpIsOnRecord(t *testing.T) {
	t.Parallel()
	js := testkit.Start(t, 1).JetStream(t)
	dir := t.TempDir()
	for range 2 {
		u := &upRun{upConfig: upConfig{nodes: 1, source: "sim"}, js: js, layout: &layout{dir: dir, noTLS: true}, status: io.Discard}
		if err := u.applyTopology(testkit.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	told, err := audit.Read(testkit.Context(t), js, audit.Query{What: "up"})
	if err != nil || len(told) != 2 || told[0].Kind != "payment" || !strings.Contains(string(told[0].After), "create EVENTS_payment") || told[1].State != audit.Done {
		t.Errorf("%+v, %v", told, err)
	}
}

// A verb that fails says so on record, and one that cannot be recorded changes nothing.
func TestFailuresAreOnRecord(t *testing.T) {
	t.Parallel()
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	out, errOut, code := riskweir(t, "model", "promote", "payment", "v1", "--reason", "r", "--nats", cluster.URL())
	if code != 2 || !strings.Contains(errOut, "nothing was changed, for it could not be recorded") {
		t.Errorf("exit status %d\n%s%s", code, out, errOut)
	}
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := riskweir(t, "model", "promote", "payment", "v1", "--reason", "r", "--nats", cluster.URL()); code != 2 {
		t.Errorf("exit status %d\n%s%s", code, out, errOut)
	}
	told, err := audit.Read(ctx, js, audit.Query{})
	if err != nil || len(told) != 1 || told[0].State != audit.Failed || !strings.Contains(told[0].Error, "no kind is declared") {
		t.Errorf("%+v, %v", told, err)
	}
}
