//go:build poison

package poison

import (
	"fmt"
	"strings"
	"syscall"
	"time"
)

// Enabled says whether this build has poison in it.
const Enabled = true

// most is the address space of a confined process, in bytes: several times what a scorer maps.
const most = 3 << 30

// Take does to this process what the entity names.
func Take(entity string) {
	rest, ok := strings.CutPrefix(entity, prefix)
	if !ok {
		return
	}
	switch mode, _, _ := strings.Cut(rest, "-"); mode {
	case Panic:
		panic("poison")
	case Hang:
		time.Sleep(Hanging)
	case Memory:
		for hoard := []byte{1}; ; { // written to, so that the pages are there
			hoard = append(hoard, hoard...)
		}
	}
}

// Confine bounds the memory of this process, which dies when it wants more.
func Confine() error {
	limit := syscall.Rlimit{Cur: most, Max: most}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
		return fmt.Errorf("confine the memory: %w", err)
	}
	return nil
}
