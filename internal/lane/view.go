package lane

import (
	"slices"
	"time"
)

// View is who competes for lanes, as one member sees it. It is pure; Membership carries it. A wrong view costs time
// only: two owners of a lane fence each other.
//
//	me ∈ members;  a member that was seen is kept until it has been away for TTL while our own announcements went through
type View struct {
	me      string
	ttl     time.Duration
	seen    map[string]time.Time // member -> last seen, by our clock
	renewed time.Time            // our own announcement last went through
	since   time.Time            // and has gone through without a gap of ttl since
}

func NewView(me string, ttl time.Duration) *View {
	return &View{me: me, ttl: ttl, seen: map[string]time.Time{}}
}

// Renewed notes that our announcement was stored.
func (v *View) Renewed(now time.Time) {
	if now.Sub(v.renewed) > v.ttl {
		v.since = now
	}
	v.renewed = now
}

// Saw notes the members that the bucket holds now. One that is missing is dropped at once, unless the bucket itself was
// away: after an outage every key has expired, and who is first to renew must not take all lanes.
func (v *View) Saw(present []string, now time.Time) {
	for _, m := range present {
		v.seen[m] = now
	}
	if now.Sub(v.renewed) > v.ttl || now.Sub(v.since) < v.ttl {
		return
	}
	for m := range v.seen {
		if !slices.Contains(present, m) {
			delete(v.seen, m)
		}
	}
}

// Left drops a member that said goodbye.
func (v *View) Left(member string) { delete(v.seen, member) }

// Members returns the view, sorted.
func (v *View) Members() []string {
	members := []string{v.me}
	for m := range v.seen {
		if m != v.me {
			members = append(members, m)
		}
	}
	slices.Sort(members)
	return members
}
