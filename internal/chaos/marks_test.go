package chaos

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestMarksAgainstMaps(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		var m, o Marks
		have, other := map[uint64]bool{}, map[uint64]bool{}
		for range r.IntN(300) {
			n := r.Uint64N(700)
			if m.Set(n) == have[n] {
				t.Fatalf("Set(%d) with it there: %v", n, have[n])
			}
			have[n] = true
			n = r.Uint64N(500)
			o.Set(n)
			other[n] = true
		}
		var want []uint64
		for n := range uint64(800) {
			if m.Has(n) != have[n] {
				t.Fatalf("Has(%d) = %v", n, m.Has(n))
			}
			if have[n] && !other[n] {
				want = append(want, n)
			}
		}
		if got := slices.Collect(m.Without(&o)); !slices.Equal(got, want) || m.Count() != uint64(len(have)) {
			t.Fatalf("Without: %v, want %v; count %d, want %d", got, want, m.Count(), len(have))
		}
		for n := range m.Without(&o) { // a loop that is left early holds no lock
			_ = n
			break
		}
		m.Set(1000)
	}
}
