// Package chaos breaks a running system at seeded times, mends it, and checks that every acknowledged event has
// exactly one outcome.
//
//	Load ──► NATS, HTTP ──► the system ◄── faults, one after the other, by Plan
//	  └ acknowledged ids                       │ all mended, lanes drained
//	            └──────────► audit of both streams, verify ──► Report
//
// It knows the system by the interface System alone, which whoever runs the processes implements.
package chaos

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Terms of a fault in a plan.
type Terms struct {
	Name  string
	Least time.Duration // that it is held before it is mended; 0: it is over once it is done
	Most  time.Duration
	Quiet time.Duration // at least, after it is mended, until the next one: for the system to come back
}

// Step of a plan: inject at At, mend at At + Hold.
type Step struct {
	At     time.Duration // from the beginning
	Fault  string
	Choice uint64 // picks the target among those that there are then
	Hold   time.Duration
}

const (
	warmUp = 4 * time.Second // without a fault, first
	spread = 4 * time.Second // by which a pause between faults varies
)

// Plan draws which faults come when. It is a function of its arguments alone. The faults come in rounds, each a new
// order of all of them, so that none is left out for long:
//
//	step[i].At + step[i].Hold + quiet of its fault <= step[i+1].At, and <= length at the last
//
// An error: not even one fault fits.
func Plan(seed uint64, length time.Duration, faults []Terms) ([]Step, error) {
	steps := draw(seed, faults, length, 1<<20)
	if len(steps) == 0 {
		return nil, fmt.Errorf("no fault fits into %s: make it longer", length)
	}
	return steps, nil
}

// PlanEach draws a plan of n rounds, however long that takes.
func PlanEach(seed uint64, n int, faults []Terms) []Step {
	return draw(seed, faults, math.MaxInt64, n)
}

func draw(seed uint64, faults []Terms, length time.Duration, rounds int) []Step {
	r := rand.New(rand.NewPCG(seed, 0x636861_6f73))
	between := func(least, most time.Duration) time.Duration {
		if most <= least {
			return least
		}
		return least + time.Duration(r.Int64N(int64(most-least)+1))
	}
	var steps []Step
	at := warmUp
	for misses := 0; misses < len(faults) && rounds > 0; rounds-- {
		misses = 0
		round := slices.Clone(faults)
		r.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		for _, f := range round {
			s := Step{At: at + between(0, spread), Fault: f.Name, Choice: r.Uint64(), Hold: between(f.Least, f.Most)}
			end := s.At + s.Hold + f.Quiet
			if end > length {
				misses++
				continue // a shorter one may fit
			}
			steps = append(steps, s)
			at = end
		}
	}
	return steps
}

// Choose returns the terms of the named faults, in the order of all; names empty: all.
func Choose(all []Terms, names []string) ([]Terms, error) {
	if len(names) == 0 {
		return all, nil
	}
	var out []Terms
	for _, name := range names {
		if !slices.ContainsFunc(all, func(t Terms) bool { return t.Name == name }) {
			known := make([]string, len(all))
			for i, t := range all {
				known[i] = t.Name
			}
			return nil, fmt.Errorf("no fault %q: there are %s", name, strings.Join(known, ", "))
		}
	}
	for _, t := range all {
		if slices.Contains(names, t.Name) {
			out = append(out, t)
		}
	}
	return out, nil
}
