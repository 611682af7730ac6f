package events

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// searchBack finds in few steps what a plain scan finds.
func TestSearchBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type msg struct{ stored, event uint64 }
		stored := rapid.SliceOfNDistinct(rapid.Uint64Range(1, 1<<40), 1, 60, rapid.ID).Draw(t, "stored")
		slices.Sort(stored)
		var msgs []msg
		event := uint64(0)
		for _, s := range stored {
			event += rapid.Uint64Range(1, 3).Draw(t, "step")
			msgs = append(msgs, msg{s, event})
		}
		last := msgs[len(msgs)-1]
		seq := rapid.Uint64Range(0, last.event-1).Draw(t, "seq")
		var want *msg
		for i := range msgs {
			if msgs[i].event == seq {
				want = &msgs[i]
			}
		}
		asked := 0
		got, err := searchBack(seq, last.stored, func(from uint64) (uint64, uint64, *msg, error) {
			asked++
			for i := range msgs {
				if msgs[i].stored >= from {
					return msgs[i].stored, msgs[i].event, &msgs[i], nil
				}
			}
			return 0, 0, nil, nil
		})
		if err != nil || got != want {
			t.Fatalf("found %v, %v, want %v", got, err, want)
		}
		if asked > 2*41+2 {
			t.Fatalf("%d questions", asked)
		}
	})
}
