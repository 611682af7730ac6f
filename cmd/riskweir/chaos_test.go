package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/chaos"
)

// A short one; CI runs 'riskweir chaos' itself for longer, with a fixed seed and with a random one.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	t.Parallel()
	dir := t.TempDir()
	nats, http := freePorts()
	out, errOut, code := riskweir(t, "chaos", "--each", "1", "--seed", "7", "--rate", "200", "--faults", "scorer-kill,consumers-delete,link-reset,poison-undecodable",
		"--json", "--dir", dir, "--nats-port", nats, "--http-port", http)
	if code != 0 {
		t.Fatalf("exit status %d:\n%s%s", code, errOut, out)
	}
	var r chaos.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if !r.OK || r.Faults != 4 || r.Kinds != 4 || len(r.Rows) != 4 || r.Seed != 7 || len(r.Broken) > 0 {
		t.Errorf("%+v", r)
	}
	if r.Stored.Acknowledged < 2000 || r.Verify.Events < r.Stored.Acknowledged || r.Verify.Scored+1 != r.Verify.Events || r.Verify.Invalid != 1 || r.Answer.Asked < 100 {
		t.Errorf("stored %+v, verify %+v, answers %+v", r.Stored, r.Verify, r.Answer)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left of a run that was in order (%v)", left, err)
	}
}

func TestChaosRefusals(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ args, says string }{
		{"--faults scorer-kill,meteor", `no fault "meteor"`},
		{"--faults poison-hang", `no fault "poison-hang"`}, // not in a normal build
		{"--for 5s", "no fault fits into 5s"},
		{"--for 10h --rate 5000", "lower it"},
	} {
		_, errOut, code := riskweir(t, append([]string{"chaos", "--dir", t.TempDir()}, strings.Fields(x.args)...)...)
		if code != 2 || !strings.Contains(errOut, x.says) {
			t.Errorf("%s: exit status %d, %q, want %q", x.args, code, errOut, x.says)
		}
	}
	out, _, code := riskweir(t, "chaos", "--list")
	if n := len(strings.Fields(out)); code != 0 || n < 18 || n != len(chaos.Catalogue()) {
		t.Errorf("exit status %d, %d faults", code, n)
	}
}
