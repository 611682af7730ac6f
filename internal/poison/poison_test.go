//go:build !poison

package poison_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/riskweir/riskweir/internal/poison"
)

// What is shipped has no poison in it: an event that asks for it is an event like any other.
func TestNormalBuildTakesNoPoison(t *testing.T) {
	t.Parallel()
	if poison.Enabled {
		t.Error("poison is enabled")
	}
	var before, after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &before); err != nil {
		t.Fatal(err)
	}
	if err := poison.Confine(); err != nil {
		t.Error(err)
	}
	if err := syscall.Getrlimit(syscall.RLIMIT_AS, &after); err != nil || before != after {
		t.Errorf("the address space is bounded by %+v, and was by %+v (%v)", after, before, err)
	}
	for _, mode := range []string{poison.Panic, poison.Hang, poison.Memory} {
		poison.Take(poison.Entity(mode, "1")) // had it an effect, the test would end here
	}
	out, err := exec.Command("go", "list", "-f", "{{.GoFiles}}", ".").Output()
	if got := strings.TrimSpace(string(out)); err != nil || got != "[off.go poison.go]" {
		t.Errorf("a build without tags compiles %s (%v)", got, err)
	}
}
