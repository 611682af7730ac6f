package events

import (
	"strings"
	"testing"
	"time"
)

func TestRolloutOfContract(t *testing.T) {
	base := "kind: payment\nfields: [{name: amount, type: number}]\n"
	c, err := ParseContract([]byte(base))
	if err != nil || c.Rollout != nil {
		t.Fatalf("%+v, %v", c.Rollout, err)
	}
	strict := Rollout{}.WithDefaults()
	if strict.Mode != RolloutManual || strict.Approval != ApprovalTwo || len(strict.Steps) != 1 || strict.Patience == 0 || strict.Watch == 0 || strict.LateAfter == 0 {
		t.Errorf("what is left out is %+v", strict)
	}
	for _, x := range []struct{ yaml, says string }{
		{"mode: gated", ""},
		{"{mode: gated, approval: solo, steps: [0.1, 0.5, 1], max_shadows: 4, patience: 1s, watch: 1s, late_after: 1us}", ""},
		{"mode: wild", "mode"},
		{"approval: three", "approval"},
		{"steps: [0.5, 0.1]", "ascending"},
		{"steps: [0]", "above 0"},
		{"steps: [1.5]", "at most 1"},
		{"max_shadows: 5", "max_shadows"},
		{"max_shadows: -1", "max_shadows"},
		{"auc_margin: 0.6", "auc_margin"},
		{"auc_margin: -0.1", "auc_margin"},
		{"max_ratio: 1", "max_ratio"},
		{"max_shift: 1.1", "max_shift"},
		{"max_psi: .nan", "max_psi"},
		{"patience: 1ms", "patience"},
		{"late_after: 2s", "late_after"},
		{"modus: gated", "modus"},
	} {
		_, err := ParseContract([]byte(base + "rollout: " + strings.ReplaceAll("\n  "+x.yaml, "\n  {", " {") + "\n"))
		if (err == nil) != (x.says == "") || err != nil && !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", x.yaml, err, x.says)
		}
	}
	if err := PlaygroundRollout().validate(&c); err != nil {
		t.Error(err)
	}
	if p := PlaygroundRollout().WithDefaults(); p.Watch != Duration(24*time.Hour) {
		t.Errorf("%+v", p)
	}
}
