package events

import (
	"math"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What search reads on from leads to what a plain scan finds, in few steps.
func TestSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []seen // of the entity
		last := seen{}
		for range rapid.IntRange(1, 20).Draw(t, "runs") {
			gap := rapid.Uint64Range(1, 1<<rapid.IntRange(1, 40).Draw(t, "bits")).Draw(t, "gap")
			steps := rapid.Uint64().Draw(t, "steps")
			for i := range rapid.IntRange(1, 1500).Draw(t, "run") {
				last.event += 1 + steps>>(i%64)&1
				last.stored += gap
				all = append(all, last)
				gap = 1 + gap%7
			}
		}
		for i := range all {
			all[i].left = uint64(len(all) - i)
		}
		first := rapid.Uint64Range(0, all[0].stored).Draw(t, "first")
		seq := rapid.Uint64Range(0, last.event-1).Draw(t, "seq")
		want := slices.IndexFunc(all, func(x seen) bool { return x.event == seq })

		s, asked, got := newSearch(seq, first, last.stored), 0, -1
	search:
		for {
			from := s.next()
			if asked++; from < s.first || from > s.later || asked > bits.Len64(last.stored)+16 {
				t.Fatalf("question %d from %d of %+v", asked, from, s)
			}
			i, _ := slices.BinarySearchFunc(all, from, func(x seen, from uint64) int { return int(int64(x.stored) - int64(from)) })
			at := seen{event: math.MaxUint64}
			if i < len(all) {
				at = all[i]
			}
			if at.event == seq {
				got = i
				break
			}
			switch s.saw(at) {
			case noSuch:
				break search
			case readOn:
				got, _ = slices.BinarySearchFunc(all, s.low.stored, func(x seen, low uint64) int { return int(int64(x.stored) - int64(low)) })
				for read := 0; all[got].event < seq; got++ {
					if read++; read > readOnAt {
						t.Fatalf("%d outcomes read on from %+v", read, s)
					}
				}
				if all[got].event > seq {
					got = -1
				}
				break search
			}
		}
		if got != want {
			t.Fatalf("found number %d, want %d", got, want)
		}
	})
}
