package lease

import (
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Unix(1_700_000_000, 0)

func of(instance string) Record[int] { return Record[int]{Holder: Holder{Instance: instance}} }

// stored is a key with compare-and-swap, and all that it ever held.
type stored struct {
	history  []Record[int] // at revision i+1
	revision uint64
}

func (s *stored) write(r Record[int], condition uint64) bool {
	if condition != s.revision {
		return false
	}
	s.history = append(s.history, r)
	s.revision++
	return true
}

// Contenders with clocks that differ, that freeze, whose reads may be of a replica behind, or of one that has nothing, and
// whose writes may take long, be lost, or be stored without an answer. Never do two lead at one time; what is carried
// never goes back; and somebody leads most of the time.
func TestNeverTwoLeaders(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	const term = 5 * time.Second
	type contender struct {
		state[int]
		skew      time.Duration // of its clock
		frozen    time.Time     // until
		carried   int           // as its caller knows it
		write     *Record[int]  // under way
		release   bool          // it is one
		condition uint64
		asked     time.Time // by its clock
		lands     time.Time
	}
	handovers, releases, unanswered, late := 0, 0, 0, 0
	for round := range 200 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		var key stored
		all := make([]*contender, 3)
		for i := range all {
			all[i] = &contender{state: state[int]{self: Holder{Instance: string(rune('a' + i))}, term: term}, skew: time.Duration(r.IntN(1e9)-5e8) * 100}
		}
		now, leading, leader := epoch, 0, ""
		for range 2000 {
			now = now.Add(50 * time.Millisecond)
			c := all[r.IntN(len(all))]
			own := now.Add(c.skew)
			switch {
			case now.Before(c.frozen):
				continue // a write under way still lands, later
			case r.IntN(200) == 0:
				c.frozen = now.Add(time.Duration(r.IntN(12)) * time.Second)
				continue
			case c.write != nil && now.Before(c.lands):
			case c.write != nil:
				took := key.write(*c.write, c.condition)
				if took && len(key.history) > 1 {
					if before := key.history[len(key.history)-2].Carried; c.write.Carried < before {
						t.Fatalf("seed %d, round %d: %s stored %d after %d", seed, round, c.self.Instance, c.write.Carried, before)
					}
				}
				switch {
				case !took || c.release:
				case r.IntN(5) == 0:
					unanswered++
				default:
					c.wrote(*c.write, key.revision, c.asked)
					if c.begins(own) {
						c.carried = c.record.Carried
					} else if !c.leads(own) {
						late++
					}
				}
				c.write, c.release = nil, false
			default:
				behind := uint64(r.IntN(2) * r.IntN(4))
				if at := key.revision - min(key.revision, behind); at == 0 || r.IntN(50) == 0 {
					c.sawNone()
				} else {
					c.saw(key.history[at-1], at, own)
				}
				carried := c.carried
				if c.leads(own) {
					carried += r.IntN(2)
				}
				next := c.next(carried, own)
				release := c.record.Instance == c.self.Instance && r.IntN(40) == 0
				if !release && !c.wants(own, next.Carried != c.record.Carried) {
					break
				}
				if release {
					next, c.release = Record[int]{Carried: next.Carried}, true
					c.resign()
					releases++
				}
				c.carried = carried
				c.write, c.condition, c.asked = &next, c.state.condition(), own
				c.lands = now.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
			}
			leaders := 0
			for _, x := range all {
				if x.leads(now.Add(x.skew)) {
					leaders++
					if leader != x.self.Instance {
						handovers++
					}
					leader = x.self.Instance
				}
			}
			leading += leaders
			if leaders > 1 {
				t.Fatalf("seed %d, round %d: %d lead at %s", seed, round, leaders, now)
			}
		}
		if leading < 200 {
			t.Errorf("seed %d, round %d: somebody led at only %d of 2000 moments, last %s", seed, round, leading, leader)
		}
	}
	t.Logf("%d hand-overs, %d releases, %d writes stored without an answer, %d answered too late", handovers, releases, unanswered, late)
	if handovers < 400 || releases < 100 || unanswered < 400 || late < 20 {
		t.Error("the schedules prove nothing")
	}
}

func TestTakenAfterATermOrAtOnceIfReleased(t *testing.T) {
	s := state[int]{self: Holder{Instance: "b"}, term: time.Second}
	s.saw(of("a"), 5, epoch)
	s.saw(of("a"), 5, epoch.Add(500*time.Millisecond)) // the same again
	if s.wants(epoch.Add(999*time.Millisecond), true) {
		t.Error("takes a lease within its term")
	}
	if !s.wants(epoch.Add(time.Second), false) {
		t.Error("does not take a lease that has not changed for a term")
	}
	s.saw(Record[int]{Carried: 3}, 6, epoch)
	if !s.wants(epoch, false) {
		t.Error("does not take a released lease at once")
	}
	if r := s.next(9, epoch); r.Instance != "b" || r.Carried != 3 || r.Renewals != 1 || !r.Since.Equal(epoch) {
		t.Errorf("takes it with %+v: want what was carried before", r)
	}
}

func TestHolderRenewsAndStopsInTime(t *testing.T) {
	s := state[int]{self: Holder{Instance: "b"}, term: time.Second}
	s.wrote(of("b"), 7, epoch)
	if !s.begins(epoch) || s.begins(epoch) {
		t.Error("does not begin, or more than once")
	}
	at := func(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }
	if !s.leads(at(749)) || s.leads(at(750)) {
		t.Error("does not lead for three quarters of the term")
	}
	if s.wants(at(249), false) || !s.wants(at(249), true) || !s.wants(at(250), false) {
		t.Error("does not renew when a quarter of the term is over, or there is news")
	}
	if r := s.next(9, at(250)); r.Carried != 9 || r.Renewals != 1 {
		t.Errorf("renews with %+v: want what it carries", r)
	}
	// A renewal that was stored without an answer: trust goes on as it was, and it renews again at once.
	s.saw(of("b"), 8, at(300))
	if !s.leads(at(749)) || s.leads(at(750)) || !s.wants(at(300), false) {
		t.Error("an unanswered renewal changes what is trusted, or is not tried again")
	}
	s.saw(of("a"), 9, at(310))
	if s.leads(at(310)) || s.wants(at(310), true) {
		t.Error("leads though another one wrote")
	}
}

// A replica that has not got the key yet, or has an old record, must not make a contender forget since when it has seen the latest.
func TestReplicasBehindResetNothing(t *testing.T) {
	s := state[int]{self: Holder{Instance: "b"}, term: time.Second}
	s.saw(of("a"), 5, epoch)
	half := epoch.Add(500 * time.Millisecond)
	s.sawNone()
	if s.wants(half, true) {
		t.Error("takes a lease because a replica has no such key")
	}
	if s.condition() != 0 {
		t.Errorf("would demand revision %d of a key that is not there", s.condition())
	}
	s.saw(Record[int]{}, 4, half)
	if s.wants(half, true) || s.condition() != 5 {
		t.Error("an old record replaced a newer one")
	}
	s.sawNone()
	s.saw(of("a"), 5, half)
	if s.condition() != 5 || !s.wants(epoch.Add(time.Second), false) {
		t.Error("the term of a record began again with a second look at it")
	}
}

func TestBucketMadeAnew(t *testing.T) {
	s := state[int]{self: Holder{Instance: "b"}, term: time.Second}
	s.saw(of("a"), 5000, epoch)
	at := func(ms int) time.Time { return epoch.Add(time.Duration(ms) * time.Millisecond) }
	s.saw(of("c"), 1, at(1999))
	if s.record.Instance != "a" {
		t.Error("a lower revision is taken at once")
	}
	s.saw(of("c"), 2, at(2000))
	if s.record.Instance != "c" || s.wants(at(2999), true) || !s.wants(at(3000), false) || s.condition() != 2 {
		t.Errorf("%+v: want c's record, to be taken a term later", s)
	}
}
