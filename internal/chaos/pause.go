package chaos

import (
	"slices"
	"time"
)

// Pause of a lane: events were waiting and nothing was committed.
type Pause struct {
	Lane     int
	From, To time.Time
}

func (p Pause) Length() time.Duration { return p.To.Sub(p.From) }

// history of the lanes, from what the server stored: 5 bytes an event. Times are the stream leader's clock, in ms
// since begin.
//
//	stored[i], lane[i]: of the event with sequence first+i; lane none where there is no event
type history struct {
	begin  time.Time
	first  uint64
	stored []uint32
	lane   []uint8

	next  map[int]uint64    // by lane: first sequence not yet looked at
	pos   map[int]uint64    // by lane: position last committed
	last  map[int]time.Time // and when
	pause []Pause
}

const none = 0xff

func newHistory(begin time.Time, first uint64) *history {
	return &history{begin: begin, first: first, next: map[int]uint64{}, pos: map[int]uint64{}, last: map[int]time.Time{}}
}

// event notes one, in the order of sequences.
func (h *history) event(seq uint64, lane int, at time.Time) {
	for h.first+uint64(len(h.lane)) < seq { // the stream's gaps, and its other subjects
		h.stored, h.lane = append(h.stored, 0), append(h.lane, none)
	}
	h.stored, h.lane = append(h.stored, uint32(max(0, at.Sub(h.begin)/time.Millisecond))), append(h.lane, uint8(lane))
}

// at is when an event was stored.
func (h *history) at(seq uint64) (time.Time, bool) {
	if seq < h.first || seq-h.first >= uint64(len(h.lane)) || h.lane[seq-h.first] == none {
		return time.Time{}, false
	}
	return h.begin.Add(time.Duration(h.stored[seq-h.first]) * time.Millisecond), true
}

// committed notes that the lane's position was stored at a time; positions come in the order of the stream. A position that has
// not moved, a claim or a release, commits no event. Pauses shorter than least are dropped.
//
//	a pause ends when events are committed, and began with the later of the commit before and the storing of the first of them
func (h *history) committed(lane int, seq uint64, at time.Time, least time.Duration) {
	if seq <= h.pos[lane] {
		return
	}
	from, waited := h.waiting(lane, h.pos[lane]+1, seq)
	h.pos[lane] = seq
	if !waited { // a position may pass events of other lanes
		return
	}
	if l := h.last[lane]; l.After(from) {
		from = l
	}
	h.last[lane] = at
	if p := (Pause{Lane: lane, From: from, To: at}); p.Length() >= least {
		h.pause = append(h.pause, p)
	}
}

// waiting returns when the first event of the lane in [from, to] was stored.
func (h *history) waiting(lane int, from, to uint64) (time.Time, bool) {
	seq := max(h.next[lane], from, h.first)
	for ; seq <= to && seq-h.first < uint64(len(h.lane)); seq++ {
		if h.lane[seq-h.first] == uint8(lane) {
			t, _ := h.at(seq)
			h.next[lane] = to + 1
			return t, true
		}
	}
	h.next[lane] = seq
	return time.Time{}, false
}

// begun returns those pauses that became one in [from, to): that had lasted for least then.
func begun(all []Pause, from, to time.Time, least time.Duration) []Pause {
	var out []Pause
	for _, p := range all {
		if at := p.From.Add(least); !at.Before(from) && at.Before(to) {
			out = append(out, p)
		}
	}
	return out
}

// quantile of durations; 0 of none.
func quantile(q float64, d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
