package chaos

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestPauses(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ms int) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	h := newHistory(begin, 1)
	for _, e := range []struct{ seq, lane, ms int }{{1, 0, 0}, {2, 1, 10}, {4, 0, 500}, {5, 0, 3000}, {6, 1, 3100}} {
		h.event(uint64(e.seq), e.lane, at(e.ms))
	}
	const least = 100 * time.Millisecond
	h.committed(0, 1, at(5), least)    // 5 ms after its event
	h.committed(0, 1, at(2000), least) // a claim: no event
	h.committed(0, 4, at(2500), least) // waited from 500, though the last commit was at 5
	h.committed(1, 2, at(2600), least) // from 10
	h.committed(0, 5, at(3050), least) // from 3000
	h.committed(1, 5, at(3060), least) // passes what is not its own
	h.committed(1, 6, at(3400), least) // from 3100
	want := []Pause{{0, at(500), at(2500)}, {1, at(10), at(2600)}, {1, at(3100), at(3400)}}
	if !slices.Equal(h.pause, want) {
		t.Errorf("%v\nwant %v", h.pause, want)
	}
	// The second began at 10 and so was one from 110 on.
	for _, x := range []struct{ from, to, lane int }{{100, 120, 1}, {500, 700, 0}, {3100, 3201, 1}} {
		if got := begun(h.pause, at(x.from), at(x.to), least); len(got) != 1 || got[0].Lane != x.lane {
			t.Errorf("begun in %d to %d: %v", x.from, x.to, got)
		}
	}
	if got := begun(h.pause, at(111), at(600), least); len(got) > 0 {
		t.Errorf("begun: %v", got)
	}
	if _, ok := h.at(3); ok {
		t.Error("event 3, which there is not, was stored")
	}
	if when, ok := h.at(4); !ok || !when.Equal(at(500)) {
		t.Errorf("event 4 at %s, %v", when, ok)
	}
}

// The twin looks at every event of a lane at every commit.
func TestPausesAgainstTwin(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	type event struct {
		seq  uint64
		lane int
		at   time.Time
	}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		h := newHistory(begin, 5)
		var evs []event
		pos, last := map[int]uint64{}, map[int]time.Time{}
		var want []Pause
		now, seq := begin, uint64(4)
		for range 300 {
			now = now.Add(time.Duration(r.IntN(400)) * time.Millisecond)
			if r.IntN(2) == 0 {
				seq += 1 + r.Uint64N(2)
				e := event{seq, r.IntN(3), now}
				evs = append(evs, e)
				h.event(e.seq, e.lane, e.at)
				continue
			}
			lane := r.IntN(3)
			to := pos[lane] + r.Uint64N(max(seq, pos[lane])-pos[lane]+1)
			for _, e := range evs {
				if e.lane == lane && e.seq > pos[lane] && e.seq <= to {
					from := e.at
					if last[lane].After(from) {
						from = last[lane]
					}
					if now.Sub(from) >= time.Second {
						want = append(want, Pause{lane, from, now})
					}
					last[lane] = now
					break
				}
			}
			pos[lane] = max(pos[lane], to)
			h.committed(lane, to, now, time.Second)
		}
		if !slices.Equal(h.pause, want) {
			t.Fatalf("seed %d:\n%v\nwant\n%v", seed, h.pause, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	d := []time.Duration{5, 1, 4, 2, 3}
	if quantile(.5, d) != 3 || quantile(1, d) != 5 || quantile(.5, nil) != 0 {
		t.Error(quantile(.5, d), quantile(1, d), quantile(.5, nil))
	}
}
