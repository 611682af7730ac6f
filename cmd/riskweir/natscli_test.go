//go:build natscli

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// What a user does with the real nats CLI, whose path is in NATS_CLI:
//
//	go install github.com/nats-io/natscli/nats@v0.5.1
//	NATS_CLI=$(go env GOPATH)/bin/nats go test -tags natscli -run NatsCLI ./cmd/riskweir
func TestNatsCLI(t *testing.T) {
	cli := os.Getenv("NATS_CLI")
	if cli == "" {
		t.Fatal("NATS_CLI does not name the nats CLI")
	}
	u := up(t, upConfig{nodes: 3, source: "sim", dir: t.TempDir()})
	nats := func(args ...string) (out string, code int) {
		t.Helper()
		var b bytes.Buffer
		cmd := exec.Command(cli, slices.Concat([]string{"--context", u.context, "--timeout", "10s"}, args)...)
		cmd.Stdout, cmd.Stderr = &b, &b
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit status is looked at
		return b.String(), cmd.ProcessState.ExitCode()
	}
	champion := awaitChampion(t, u)

	// A score follows an event that was sent by hand.
	var watch console
	sub := exec.Command(cli, "--context", u.context, "sub", "scores.payment.*.by-hand", "--count", "1", "--raw")
	sub.Stdout, sub.Stderr = &watch, &watch
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	subscribed := make(chan error, 1)
	go func() { subscribed <- sub.Wait() }()
	t.Cleanup(func() {
		if sub.ProcessState == nil {
			sub.Process.Signal(syscall.SIGKILL)
			<-subscribed
		}
	})
	out := ""
	testkit.Eventually(t, long, "the score of an event sent by hand", func() (bool, string) {
		var code int
		if out, code = nats("req", "events.payment.by-hand", `{"amount": 12.5}`); code != 0 {
			t.Fatalf("nats req: exit status %d: %s", code, out)
		}
		return strings.Contains(watch.String(), `"entity":"by-hand"`), watch.String()
	})
	if !regexp.MustCompile(`\{"stream":"EVENTS_payment",.*"seq":[0-9]+`).MatchString(out) {
		t.Errorf("nats req shows no ack: %s", out)
	}
	score, err := events.DecodeScore([]byte(strings.TrimSpace(watch.String())))
	if err != nil || score.Entity != "by-hand" || score.Mode != events.ModeModel || score.Model < champion {
		t.Errorf("%s: %+v, %v", watch.String(), score, err)
	}
	if out, code := nats("req", "events.nokind.c1", `{"amount": 12.5}`); !strings.Contains(out, "No responders") && !strings.Contains(out, "no responders") {
		t.Errorf("an undeclared kind: exit status %d: %s", code, out)
	}

	owners := map[string]bool{}
	for _, x := range []struct {
		args string
		code int
		want []string // regular expressions
	}{
		{"sub scores.> --count 5", 0, []string{`Received on "scores\.payment\.(low|medium|high)\.`, `"decision":"(approve|review|decline)"`}},
		{"stream ls", 0, []string{"EVENTS_payment", "SCORES_payment", "events of kind payment as they were accepted, by lane"}},
		{"stream report", 0, []string{"EVENTS_payment", "SCORES_payment", "LABELS", "n1", "n2", "n3"}},
		{"stream info EVENTS_payment", 0, []string{`Replicas: 3`, `events\.payment\.\*`, `riskweir\.lanes: 8`}},
		{"consumer report EVENTS_payment", 0, []string{`lane-0-[0-9]+-scorer-[12]`, `lane-7-[0-9]+-scorer-[12]`}},
		{"kv ls", 0, []string{"MODELS", "KINDS", "SCORERS"}},
		{"kv get MODELS payment.rollout --raw", 0, []string{`"champion": ?[1-9]`, `"reason":`}},
		{"kv get MODELS " + champion + " --raw", 0, []string{`"kind": ?"payment"`, `"weights":`, `"checksum":`}},
		{"kv get KINDS payment --raw", 0, []string{"kind: payment", "lanes: 8"}},
		{"micro ls", 0, []string{"riskweir-ingest", "riskweir-scorer", "riskweir-trainer", "riskweir-monitor", `0\.1\.0`}},
		{"micro info riskweir-scorer", 0, []string{"name: scorer-[12]"}},
		{"micro stats riskweir-trainer", 0, []string{"train"}},
		{"server check stream --stream EVENTS_payment", 0, []string{"^OK"}},
		{"server check stream --stream SCORES_payment", 0, []string{"^OK"}},
		{"server check stream --stream LABELS", 0, []string{"^OK"}},
		{"server check connection", 0, []string{"^OK"}},
		{"server check jetstream", 0, []string{"^OK"}},
		{"stream get SCORES_payment --last-for position.payment.0", 0, []string{`"incarnation"`, `"epoch"`, `"owner"`}},
		{"pub events.payment.c1 hello", 0, []string{"Published"}},
	} {
		out, code := nats(strings.Fields(x.args)...)
		t.Logf("nats %s: exit status %d\n%s", x.args, code, out)
		if code != x.code {
			t.Errorf("nats %s: exit status %d, want %d", x.args, code, x.code)
		}
		for _, want := range x.want {
			if !regexp.MustCompile("(?m)" + want).MatchString(out) {
				t.Errorf("nats %s does not show %q", x.args, want)
			}
		}
		if strings.HasPrefix(x.args, "consumer report") {
			for _, m := range regexp.MustCompile(`lane-[0-9]+-[0-9]+-(scorer-[12])-`).FindAllStringSubmatch(out, -1) {
				owners[m[1]] = true
			}
		}
		if strings.HasPrefix(x.args, "sub ") {
			n := 0
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "{") {
					n++
					if !json.Valid([]byte(line)) {
						t.Errorf("%q is no JSON", line)
					}
				}
			}
			if n != 5 {
				t.Errorf("nats %s shows %d scores", x.args, n)
			}
		}
	}
	if len(owners) != 2 {
		t.Errorf("owners shown: %v", slices.Sorted(maps.Keys(owners)))
	}
	testkit.Eventually(t, long, "what was no event ends as invalid", func() (bool, string) {
		out, code := nats("stream", "get", "SCORES_payment", "--last-for", "scores.payment.invalid.c1")
		return code == 0 && strings.Contains(out, "neither a JSON object nor a msgpack map"), fmt.Sprint(code, out)
	})
}
