package trainer

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// verdict is what is claimed of an event.
type verdict int8

const (
	unclaimed verdict = iota
	good
	bad
	withdrawn // the claim was taken back: nothing is known, and that is not silence
)

// claim is a label as it counts.
type claim struct {
	verdict verdict
	knownAt time.Time
	seq     uint64 // in LABELS
}

// beats says whether c counts rather than d: the latest known, of equals the later in the stream.
func (c claim) beats(d claim) bool {
	if d.verdict == unclaimed {
		return true
	}
	if n := c.knownAt.Compare(d.knownAt); n != 0 {
		return n > 0
	}
	return c.seq > d.seq
}

// row is an event that may be trained on. All but claim is fixed.
type row struct {
	seq      uint64 // in EVENTS
	stored   time.Time
	at       int64  // the event's own time, else stored: Unix seconds
	id       string // empty: it gave none, and its sequence is its id
	body     []byte
	encoding events.Encoding
	claim    claim
	// What is remembered of the events before it, and under which contract: see memory.Plan.Fingerprint. Both empty: it declares nothing.
	memory      []float64
	fingerprint string
	told        told
}

// labelMsg is a message of LABELS, decoded.
type labelMsg struct {
	id     string
	event  uint64 // sequence in EVENTS; 0: named by id
	claim  claim
	stored time.Time
}

// joinLimits bound the memory of a join: about 250 bytes and the event's body for each row, 200 for each early claim.
type joinLimits struct {
	labelled int // rows with a claim; of more the newest are kept
	silent   int // rows without; likewise
	early    int // claims whose event has not come
}

// joinStats count what a join has seen since it began.
type joinStats struct {
	events    int // taken
	duplicate int // with the name of an event before: left out, lest it count twice
	labels    int
	unmatched int // labels of an event that is not held, and will not come
	dropped   int // rows and early claims that were let go for want of room
}

// join holds the events of a kind and what is claimed of them. It is a pure fold over the messages of EVENTS and LABELS:
// for events in the order of their sequence and labels in theirs, what rows returns does not depend on how
// the two streams are interleaved, as long as nothing was dropped.
//
//	rows is ascending in seq
//	byName[r.name()] == r  <=>  r in rows
//	len(early) <= limits.early, and len(order) <= 2 limits.early
type join struct {
	limits joinLimits
	rows   []*row
	byName map[string]*row
	early  map[eventName]claim
	order  []eventName // of early, as they came; may name what is gone
	newest time.Time   // stored time of the newest message of either stream
	last   uint64      // sequence of the last event
	whole  uint64      // of the events up to this sequence some without a claim were let go
	labels uint64      // sequence of the last label
	stats  joinStats

	telling telling
}

// eventName is how a label names its event.
type eventName struct {
	id  string
	seq uint64 // 0: by id
}

func newJoin(limits joinLimits) *join {
	return &join{limits: limits, byName: map[string]*row{}, early: map[eventName]claim{}}
}

// addEvent takes the next event. Its sequence is above that of the event before.
func (j *join) addEvent(r *row) {
	j.pass(r.seq, r.stored)
	name := r.name()
	if _, ok := j.byName[name]; ok {
		j.stats.duplicate++
		return
	}
	j.byName[name] = r
	j.stats.events++
	j.rows = append(j.rows, r)
	for _, name := range [...]eventName{{seq: r.seq}, {id: name}} {
		if c, ok := j.early[name]; ok {
			delete(j.early, name)
			if c.beats(r.claim) {
				r.claim = c
			}
		}
	}
	j.telling.consider(r)
	if len(j.rows) > (j.limits.labelled+j.limits.silent)*5/4 {
		j.shrink()
	}
}

// pass notes an event that is no training data.
func (j *join) pass(seq uint64, stored time.Time) {
	j.last = seq
	j.observe(stored)
}

// name is the event's id, or its sequence if it gave none, as scores say it.
func (r *row) name() string {
	if r.id != "" {
		return r.id
	}
	return strconv.FormatUint(r.seq, 10)
}

// addLabel takes the next label.
func (j *join) addLabel(l labelMsg) {
	j.labels = l.claim.seq
	j.stats.labels++
	j.observe(l.stored)
	if r := j.find(l); r != nil {
		if l.claim.beats(r.claim) {
			r.claim = l.claim
			j.telling.consider(r)
		}
		return
	}
	name := eventName{id: l.id}
	if l.event != 0 {
		name = eventName{seq: l.event}
		if l.event <= j.last { // it has passed, and is not held
			j.stats.unmatched++
			return
		}
	}
	if l.claim.beats(j.early[name]) {
		if _, ok := j.early[name]; !ok {
			j.order = append(j.order, name)
		}
		j.early[name] = l.claim
	}
	j.boundEarly()
}

func (j *join) find(l labelMsg) *row {
	if l.event != 0 {
		return j.bySeq(l.event)
	}
	return j.byName[l.id]
}

func (j *join) bySeq(seq uint64) *row {
	i, ok := slices.BinarySearchFunc(j.rows, seq, func(r *row, seq uint64) int { return cmp.Compare(r.seq, seq) })
	if !ok {
		return nil
	}
	return j.rows[i]
}

func (j *join) observe(stored time.Time) {
	if stored.After(j.newest) {
		j.newest = stored
	}
}

// boundEarly lets the oldest early claims go, and forgets the names of those that have found their event.
func (j *join) boundEarly() {
	for len(j.early) > j.limits.early {
		name := j.order[0]
		j.order = j.order[1:]
		if _, ok := j.early[name]; ok {
			delete(j.early, name)
			j.stats.dropped++
		}
	}
	if len(j.order) > 2*j.limits.early {
		j.order = slices.DeleteFunc(slices.Clone(j.order), func(n eventName) bool {
			_, ok := j.early[n]
			return !ok
		})
	}
}

// shrink keeps the newest rows with a claim and the newest without, each within its limit.
func (j *join) shrink() {
	labelled, silent := j.limits.labelled, j.limits.silent
	for i := len(j.rows) - 1; i >= 0; i-- {
		r := j.rows[i]
		left := &silent
		if r.claim.verdict != unclaimed {
			left = &labelled
		}
		if *left > 0 {
			*left--
			continue
		}
		if r.claim.verdict == unclaimed {
			j.whole = max(j.whole, r.seq)
		}
		delete(j.byName, r.name())
		j.rows[i] = nil
		j.stats.dropped++
	}
	j.rows = slices.DeleteFunc(j.rows, func(r *row) bool { return r == nil })
}

// example is a row as it is trained on.
type example struct {
	*row
	bad    bool
	silent bool // good because nothing was heard of it
}

// verdictAt is what r counts as, given that labels are known up to cutoff.
//
// Maturity 0: what is claimed, and silence means nothing. Else an event that was stored less than maturity before does not
// count yet, labelled or not: bad news comes early and good news is silence, so that the young ones with a label are
// nearly all bad (docs/adr/0003). An event that is old enough is what is claimed of it, or good.
func (r *row) verdictAt(cutoff time.Time, maturity time.Duration) (v verdict, silent bool) {
	if maturity == 0 {
		return r.claim.verdict, false
	}
	switch {
	case r.stored.After(cutoff.Add(-maturity)):
		return unclaimed, false
	case r.claim.verdict == unclaimed:
		return good, true
	}
	return r.claim.verdict, false
}

// usable are the rows that may count. Where silence means good, those from a time whose silent ones have been let go, and so
// are all labelled, would be as biased as young ones.
func (j *join) usable(maturity time.Duration) []*row {
	if maturity == 0 {
		return j.rows
	}
	i, _ := slices.BinarySearchFunc(j.rows, j.whole+1, func(r *row, seq uint64) int { return cmp.Compare(r.seq, seq) })
	return j.rows[i:]
}

// examples are the rows that can be trained on, in the order of the events' own time, of equals in that of the stream. Of
// more than most the latest are taken.
func (j *join) examples(cutoff time.Time, maturity time.Duration, most int) []example {
	var list []example
	for _, r := range j.usable(maturity) {
		if v, silent := r.verdictAt(cutoff, maturity); v == good || v == bad {
			list = append(list, example{row: r, bad: v == bad, silent: silent})
		}
	}
	slices.SortFunc(list, func(a, b example) int {
		if n := cmp.Compare(a.at, b.at); n != 0 {
			return n
		}
		return cmp.Compare(a.seq, b.seq)
	})
	return list[max(0, len(list)-most):]
}

// tally counts what there is to train on.
type tally struct {
	good, bad int
	fresh     int // claims later in LABELS than the given sequence
}

func (j *join) tally(cutoff time.Time, maturity time.Duration, since uint64) tally {
	var t tally
	for _, r := range j.usable(maturity) {
		switch v, _ := r.verdictAt(cutoff, maturity); v {
		case good:
			t.good++
		case bad:
			t.bad++
		}
		if r.claim.seq > since {
			t.fresh++
		}
	}
	return t
}
