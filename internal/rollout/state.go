package rollout

import (
	"errors"
	"fmt"
	"slices"
)

// Validate returns all that no state may be, joined: what is said of it beside State, and no more champions than one.
func (s *State) Validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	count := map[Stage]int{}
	for i, l := range s.Lives {
		count[l.Stage]++
		switch l.Stage {
		case Candidate, Shadow, Canary, Champion, Retired, Refused, RolledBack:
		default:
			bad("v%d is %q: that is no stage", l.Version, l.Stage)
		}
		if l.Version < 1 || i > 0 && s.Lives[i-1].Version >= l.Version {
			bad("life %d is of v%d: want versions from 1, ascending, each once", i, l.Version)
		}
		if canary := l.Stage == Canary; canary != (l.Share != 0) || !(l.Share >= 0 && l.Share <= 1) {
			bad("v%d is %s with a share of %v", l.Version, l.Stage, l.Share)
		}
	}
	switch {
	case count[Champion] > 1 || count[Canary] > 1:
		bad("%d champions and %d canaries: want at most one of each", count[Champion], count[Canary])
	case count[Champion] == 0 && count[Canary]+count[Shadow] > 0:
		bad("%d canaries and %d shadows, and no champion", count[Canary], count[Shadow])
	}
	if p := s.Of(s.Previous); s.Previous != 0 && (p == nil || p.Stage != Retired) {
		bad("the champion before, v%d, is not retired", s.Previous)
	}
	return errors.Join(errs...)
}

// Bounded is the state without its oldest lives that are over or have not begun, of which it keeps that many. A version that is not in
// the state is a candidate to whoever orders it.
func (s State) Bounded(most int) State {
	idle := func(l Life) bool { return (l.ended() || l.Stage == Candidate) && l.Version != s.Previous }
	n := 0
	for _, l := range s.Lives {
		if idle(l) {
			n++
		}
	}
	s.Lives = slices.DeleteFunc(slices.Clone(s.Lives), func(l Life) bool {
		if n <= most || !idle(l) {
			return false
		}
		n--
		return true
	})
	return s
}
