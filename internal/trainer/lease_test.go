package trainer

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestLeaseNeverTwo runs contenders with clocks of their own, answers that get lost, and reads from replicas behind,
// against a key with compare-and-swap: no two of them lead at once.
func TestLeaseNeverTwo(t *testing.T) {
	seed := uint64(20261125)
	t.Logf("seed %d", seed)
	const term = 1000 * time.Millisecond
	type write struct {
		record   leaseRecord
		revision uint64
	}
	terms, handovers := 0, 0
	for round := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, round))
		type contender struct {
			lease
			offset time.Duration // of its clock
			frozen time.Time     // until
			led    bool
		}
		base := time.Unix(1_700_000_000, 0)
		var all []*contender
		for i := range 3 {
			all = append(all, &contender{
				lease:  lease{me: leaseRecord{Instance: string(rune('a' + i))}, term: term},
				offset: time.Duration(r.IntN(1_000_000)) * time.Second,
			})
		}
		history := []write{{}}
		last := ""
		for now := base; now.Before(base.Add(60 * time.Second)); now = now.Add(time.Duration(20+r.IntN(80)) * time.Millisecond) {
			c := all[r.IntN(len(all))]
			if now.Before(c.frozen) {
				continue
			}
			if r.IntN(100) == 0 {
				c.frozen = now.Add(time.Duration(r.IntN(5000)) * time.Millisecond)
			}
			own := now.Add(c.offset)
			// Read, perhaps from a replica behind.
			read := history[max(0, len(history)-1-r.IntN(2)*r.IntN(3))]
			if read.revision == 0 {
				c.absent()
			} else {
				c.saw(read.record, read.revision, own)
			}
			if c.wants(own) {
				record := c.me
				asked := own
				if history[len(history)-1].revision == c.revision {
					rev := c.revision + 1
					history = append(history, write{record, rev})
					if r.IntN(10) > 0 { // else the answer gets lost
						c.wrote(record, rev, asked)
					}
				}
			}
			leaders := 0
			for _, c := range all {
				if leads := c.leads(now.Add(c.offset)); leads {
					leaders++
					if !c.led {
						terms++
						if last != "" && last != c.me.Instance {
							handovers++
						}
						last = c.me.Instance
					}
					c.led = true
				} else {
					c.led = false
				}
			}
			if leaders > 1 {
				t.Fatalf("round %d: %d lead at once", round, leaders)
			}
		}
	}
	t.Logf("%d terms, %d of them after another's", terms, handovers)
	if handovers < 100 {
		t.Errorf("%d hand-overs: the schedules prove nothing", handovers)
	}
}

func TestLeaseReleased(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	l := lease{me: leaseRecord{Instance: "b"}, term: time.Second}
	l.saw(leaseRecord{Instance: "a"}, 5, now)
	if l.wants(now.Add(900 * time.Millisecond)) {
		t.Error("takes a lease over within its term")
	}
	if !l.wants(now.Add(time.Second)) {
		t.Error("does not take an old lease over")
	}
	l.saw(leaseRecord{}, 6, now)
	if !l.wants(now) {
		t.Error("does not take a released lease at once")
	}
	l.wrote(l.me, 7, now)
	if !l.leads(now.Add(700*time.Millisecond)) || l.leads(now.Add(750*time.Millisecond)) {
		t.Error("does not lead for three quarters of the term")
	}
	l.saw(leaseRecord{Instance: "a"}, 8, now)
	if l.leads(now) {
		t.Error("leads though another one wrote")
	}
}
