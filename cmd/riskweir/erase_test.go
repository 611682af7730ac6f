package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/erase"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// An entity is erased on a broker with a scorer: verify says so, half way too, a replay agrees, and no record names it.
func TestEraseVerb(t *testing.T) {
	t.Parallel()
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
	runScorer(t, cluster)
	for i := range 20 {
		for _, entity := range []string{"secret-1", "secret-2", "kept"} {
			if _, err := js.Publish(ctx, "events.payment."+entity, fmt.Appendf(nil, `{"id":"%s-%d","amount":%d}`, entity, i, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	run := func(want int, says string, args ...string) string {
		t.Helper()
		out, errOut, code := riskweir(t, append(args, "--nats", cluster.URL())...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
		return out
	}
	run(0, "events=60 scored=60", "verify", "payment")
	run(0, "erased 20 events, 20 outcomes, 0 labels, 0 rescores", "erase", "payment/secret-1", "--reason", "request 1")
	run(0, "events=40 scored=40 invalid=0 missing=0 duplicate=0 disorder=0 erased=20", "verify", "payment")

	stop := errors.New("killed")
	_, err = erase.Run(ctx, erase.Config{JS: js, Kind: "payment", Entity: "secret-2", Wait: testkit.Deadline, Step: func(done, _ uint64) error {
		if done == 30 { // all events, and half of the outcomes
			return stop
		}
		return nil
	}})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	run(0, "events=20 scored=20 invalid=0 missing=0 duplicate=0 disorder=0 erased=40", "verify", "payment")
	run(0, "erased 20 events, 20 outcomes", "erase", "payment", "--reason", "go on")
	run(0, "events=20 scored=20 invalid=0 missing=0 duplicate=0 disorder=0 erased=40", "verify", "payment")
	run(0, "nothing of it is stored", "erase", "payment/secret-2", "--reason", "again")
	run(0, "", "replay", "payment", "--model", "all", "--assert-equal")
	run(2, "name an entity", "erase", "payment/", "--reason", "r")
	run(2, "is not declared", "erase", "nokind/x", "--reason", "r")

	// What is really missing is still told.
	in, err := js.Stream(ctx, events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := in.GetMsg(ctx, 1, natsjs.WithGetMsgSubject("scores.payment.*.kept"))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.DeleteMsg(ctx, m.Sequence); err != nil {
		t.Fatal(err)
	}
	run(1, "missing=1", "verify", "payment")

	told, err := audit.Read(ctx, js, audit.Query{What: "erase"})
	if err != nil || len(told) != 4 {
		t.Fatalf("%d records, %v", len(told), err)
	}
	for _, x := range told {
		if text := fmt.Sprintf("%+v %s %s", x, x.Before, x.After); strings.Contains(text, "secret") {
			t.Errorf("the record names the entity: %s", text)
		}
	}
	if told[0].About == "" || !strings.Contains(string(told[0].After), `"events":20`) {
		t.Errorf("%+v", told[0])
	}
}
