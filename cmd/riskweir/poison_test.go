//go:build poison

package main

import (
	"encoding/json"
	"testing"

	"github.com/riskweir/riskweir/internal/chaos"
)

// Events that kill whoever scores them end as invalid after some deaths, each under its own sequence, and nothing else does.
func TestPoison(t *testing.T) {
	dir := t.TempDir()
	nats, http := freePorts()
	out, errOut, code := riskweir(t, "chaos", "--each", "1", "--seed", "7", "--rate", "200", "--faults", "poison-panic,poison-hang,poison-memory",
		"--json", "--dir", dir, "--nats-port", nats, "--http-port", http)
	if code != 0 {
		t.Fatalf("exit status %d:\n%s%s", code, errOut, out)
	}
	var r chaos.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	if !r.OK || r.Faults != 3 || r.Kinds != 3 || r.Verify.Invalid != 3 || r.Stored.Acknowledged < 2000 {
		t.Errorf("%+v", r)
	}
	for _, row := range r.Rows {
		t.Logf("%s: its own lane %.0f ms, others %.0f ms", row.Fault, row.LongestPauseMS, row.OthersPauseMS)
		if row.LongestPauseMS == 0 {
			t.Errorf("%s held nobody up: it was not taken", row.Fault)
		}
	}
}
