package monitor

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Contenders with clocks that differ, whose reads may be old and whose writes may take long, be lost, or be stored
// without an answer. Never do two lead at one time; and somebody leads again soon after a holder falls silent.
func TestNeverTwoLeaders(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	const term = 5 * time.Second
	type contender struct {
		lease
		skew  time.Duration // of its clock
		until time.Time     // silent
		write *leaseRecord  // under way
		cond  uint64        // on this revision
		asked time.Time     // by its clock
		lands time.Time     // when it reaches the store
	}
	for round := range 300 {
		var stored leaseRecord
		var revision uint64
		type version struct {
			record   leaseRecord
			revision uint64
		}
		history := []version{{}}
		all := make([]*contender, 3)
		for i := range all {
			all[i] = &contender{lease: lease{instance: string(rune('a' + i)), term: term}, skew: time.Duration(r.IntN(1e9)-5e8) * 100}
		}
		now, led, leader := epochOfStage, 0, ""
		for range 2000 {
			now = now.Add(50 * time.Millisecond)
			c := all[r.IntN(len(all))]
			mine := now.Add(c.skew)
			switch {
			case now.Before(c.until):
				continue
			case r.IntN(200) == 0:
				c.until = now.Add(time.Duration(r.IntN(12)) * time.Second) // frozen; a write under way still lands
				continue
			case c.write != nil && now.Before(c.lands):
			case c.write != nil:
				took := revision == c.cond // creation demands that there be none: 0
				if took {
					revision++
					stored = *c.write
					history = append(history, version{stored, revision})
				}
				if took && r.IntN(5) > 0 { // else the answer is lost
					c.wrote(stored, revision, c.asked)
				}
				c.write = nil
			default:
				v := history[max(0, len(history)-1-r.IntN(2))]
				if v.revision == 0 {
					c.sawNone()
				} else {
					c.saw(v.record, v.revision, mine)
				}
				if c.wants(mine, false) {
					c.write, c.cond, c.asked = &leaseRecord{Instance: c.instance}, c.revision, mine
					if c.gone {
						c.cond = 0
					}
					c.lands = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
				}
			}
			leaders := 0
			for _, x := range all {
				if x.leads(now.Add(x.skew)) {
					leaders++
					leader = x.instance
				}
			}
			led += leaders
			if leaders > 1 {
				t.Fatalf("seed %d, round %d: %d lead at %s", seed, round, leaders, now)
			}
		}
		if led < 200 {
			t.Errorf("seed %d, round %d: somebody led at only %d of 2000 moments, last %s", seed, round, led, leader)
		}
	}
}
