package lane

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"
)

func instances(r *rand.Rand, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "scorer-" + strconv.FormatUint(r.Uint64(), 36)
	}
	return out
}

func TestAssignIsLevelledAndTheSameForAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		lanes, n := 1+r.IntN(50), 1+r.IntN(12)
		members := instances(r, n)
		owners := Assign("payment", lanes, members)
		load := map[string]int{}
		for _, o := range owners {
			if !slices.Contains(members, o) {
				t.Fatalf("owner %q is no member of %v", o, members)
			}
			load[o]++
		}
		for m, has := range load {
			if limit := (lanes + n - 1) / n; has > limit {
				t.Fatalf("%s owns %d of %d lanes among %d, at most %d is fair", m, has, lanes, n, limit)
			}
		}
		shuffled := slices.Clone(members)
		r.Shuffle(n, func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		shuffled = append(shuffled, members[0]) // named twice
		if again := Assign("payment", lanes, shuffled); !slices.Equal(owners, again) {
			t.Fatalf("members %v: %v, in another order %v", members, owners, again)
		}
	}
	if got := Assign("payment", 3, nil); !slices.Equal(got, []string{"", "", ""}) {
		t.Fatalf("without members: %q", got)
	}
}

// A member that comes or goes must move its own lanes, at most ceil(lanes/members). Levelling moves some more, since it
// gives each lane in turn to the best member with room. The bounds are what 400 draws of each size showed, rounded
// up; without levelling they would be 0, and with lanes dealt out in turn nearly all lanes would move.
func TestAssignMovesFewLanes(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, c := range []struct {
		lanes, members int
		worst          int     // lanes moved beyond those that must
		mean           float64 // the same, on average
	}{{8, 2, 0, 0}, {8, 3, 3, 0.5}, {8, 4, 4, 1}, {16, 3, 4, 1}, {16, 5, 7, 2}, {50, 4, 9, 2.5}, {50, 8, 9, 3}} {
		worst, sum := 0, 0
		const draws = 400
		for range draws {
			members := instances(r, c.members)
			gone := members[r.IntN(c.members)]
			with := Assign("payment", c.lanes, members)
			without := Assign("payment", c.lanes, slices.DeleteFunc(slices.Clone(members), func(m string) bool { return m == gone }))
			more := 0
			for lane := range with {
				if with[lane] != gone && with[lane] != without[lane] {
					more++
				}
			}
			worst, sum = max(worst, more), sum+more
		}
		mean := float64(sum) / draws
		t.Logf("%2d lanes, %d members, one comes or goes: %d lanes more than must move at worst, %.2f on average", c.lanes, c.members, worst, mean)
		if worst > c.worst || mean > c.mean {
			t.Errorf("%d lanes, %d members: %d at worst, %.2f on average moved beyond those that must; want at most %d and %.1f", c.lanes, c.members, worst, mean, c.worst, c.mean)
		}
	}
}

func TestView(t *testing.T) {
	const ttl = 2 * time.Second
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	settled := func() *View { // has announced itself for longer than ttl, and sees a and b
		v := NewView("me", ttl)
		for d := time.Duration(0); d <= 3*time.Second; d += 500 * time.Millisecond {
			v.Renewed(at(d))
			v.Saw([]string{"a", "b", "me"}, at(d))
		}
		return v
	}
	want := func(v *View, members ...string) {
		t.Helper()
		if got := v.Members(); !slices.Equal(got, members) {
			t.Errorf("members %v, want %v", got, members)
		}
	}

	want(NewView("me", ttl), "me")

	v := settled()
	v.Renewed(at(3500 * time.Millisecond))
	v.Saw([]string{"b", "me"}, at(3500*time.Millisecond))
	want(v, "b", "me") // a's key has expired

	v = settled()
	v.Left("a")
	want(v, "b", "me") // it said so
	v.Left("me")
	want(v, "b", "me") // nobody leaves in our name

	v = settled() // the bucket is away for a minute; every key has expired, and we are the first to be back
	v.Renewed(at(time.Minute))
	v.Saw([]string{"me"}, at(time.Minute))
	want(v, "a", "b", "me")
	v.Renewed(at(time.Minute + time.Second))
	v.Saw([]string{"b", "me"}, at(time.Minute+time.Second))
	want(v, "a", "b", "me") // a may be slower
	for d := time.Minute + 1500*time.Millisecond; d <= time.Minute+ttl; d += 500 * time.Millisecond {
		v.Renewed(at(d))
		v.Saw([]string{"b", "me"}, at(d))
	}
	want(v, "b", "me") // it had its time

	v = settled() // one that cannot announce itself drops nobody
	v.Saw([]string{"me"}, at(3*time.Second+ttl+1))
	want(v, "a", "b", "me")
}
