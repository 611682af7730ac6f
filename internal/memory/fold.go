package memory

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
)

// fold takes an event of the key at its time, µs; first says that it is the first one.
func (e *entry) fold(g *group, ev Event, at int64, first bool) {
	rec := ev.Record
	if first || at > e.clock {
		e.clock = at
	}
	var met uint64
	for i := range g.conds {
		if g.conds[i].met(rec) {
			met |= 1 << i
		}
	}
	for i := range e.ever {
		s := &g.ever[i]
		x, ok := 0.0, true
		if s.field >= 0 {
			x, ok = rec.Values[s.field].Num, rec.Values[s.field].State == events.HasNum
		}
		if ok && (s.cond == none || met>>s.cond&1 != 0) {
			e.ever[i].add(s.need, at, x)
		}
	}
	for i := range e.sets {
		e.sets[i].expire(g.sets[i].span, e.clock)
		v := &events.Value{}
		if f := g.sets[i].field; f >= 0 {
			v = &rec.Values[f]
		} else if name := ev.entity(); len(name) > 0 {
			v = &events.Value{State: events.HasText, Text: name}
		}
		if v.State != events.Missing && (g.sets[i].span == 0 || at > e.clock-g.sets[i].span) {
			e.sets[i].add(valueHash(v), at, e.clock)
		}
	}
	if g.labels.on {
		e.labels.slide(&g.labels, e.clock)
	}
	if g.span > 0 {
		e.slide(g)
		if at > e.clock-g.span {
			e.insert(g, rec, at, met)
		}
	}
}

// slide lets go of what no window will reach again.
func (e *entry) slide(g *group) {
	k := 0
	for k < len(e.items) && e.items[k].last <= e.clock-g.span {
		k++
	}
	e.items = slices.Delete(e.items, 0, k)
}

// insert puts an event behind all that are not later than it, or into the pane that spans its time.
func (e *entry) insert(g *group, rec *events.Record, at int64, met uint64) {
	k := sort.Search(len(e.items), func(i int) bool { return e.items[i].last > at })
	if k < len(e.items) && e.items[k].pane && e.items[k].first <= at {
		it := &e.items[k]
		for j := range g.windowed {
			s := &g.windowed[j]
			x, ok := 0.0, true
			if s.field >= 0 {
				x, ok = rec.Values[s.field].Num, rec.Values[s.field].State == events.HasNum
			}
			if ok && (s.cond == none || met>>s.cond&1 != 0) {
				e.accs[it.at+j].add(s.need, at, x)
			}
		}
		return
	}
	it := item{first: at, last: at, mask: met << len(g.columns), at: len(e.vals)}
	for c, f := range g.columns {
		if v := &rec.Values[f]; v.State == events.HasNum {
			it.mask |= 1 << c
			e.vals = append(e.vals, v.Num)
		}
	}
	e.items = slices.Insert(e.items, k, it)
	if len(e.items) > g.bound {
		e.compact(g)
	}
}

// compact puts events that stand in the same pane together. A pane is 1/64 of the shortest window that still reaches the newest
// event in it.
func (e *entry) compact(g *group) {
	out := e.items[:0]
	for i := range e.items {
		b := e.items[i]
		if len(out) > 0 && samePane(g, e.clock, &out[len(out)-1], &b) {
			a := &out[len(out)-1]
			e.toPane(g, a)
			for j := range g.windowed {
				e.into(g, &b, j, &e.accs[a.at+j])
			}
			a.last = b.last
			continue
		}
		out = append(out, b)
	}
	e.items = out
}

func samePane(g *group, clock int64, a, b *item) bool {
	for _, w := range g.windows {
		if b.last > clock-w {
			return floorDiv(a.first, w/panes) == floorDiv(b.last, w/panes)
		}
	}
	return false
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func (e *entry) toPane(g *group, it *item) {
	if it.pane {
		return
	}
	at := len(e.accs)
	for range g.windowed {
		e.accs = append(e.accs, acc{})
	}
	for j := range g.windowed {
		e.into(g, it, j, &e.accs[at+j])
	}
	it.pane, it.mask, it.at = true, 0, at
}

// into adds what the item holds of windowed series j to a.
func (e *entry) into(g *group, it *item, j int, a *acc) {
	s := &g.windowed[j]
	if it.pane {
		a.merge(s.need, &e.accs[it.at+j])
		return
	}
	if s.cond != none && it.mask>>(len(g.columns)+s.cond)&1 == 0 {
		return
	}
	x := 0.0
	if s.col != none {
		if it.mask>>s.col&1 == 0 {
			return
		}
		k := it.at
		for c := range s.col {
			k += int(it.mask >> c & 1)
		}
		x = e.vals[k]
	}
	a.add(s.need, it.last, x)
}

// expire lets go of the values that no window reaches again, and finds a set to be whole again when all those have that it had let go.
func (s *set) expire(span, clock int64) {
	if span == 0 {
		return
	}
	s.members = slices.DeleteFunc(s.members, func(m member) bool { return m.last <= clock-span })
	if s.level > 0 && s.lost <= clock-span {
		s.level, s.lost = 0, 0
	}
}

func (s *set) add(hash uint64, at, clock int64) {
	if hash>>(64-s.level) != 0 {
		s.lost = clock
		return
	}
	i, ok := slices.BinarySearchFunc(s.members, hash, func(m member, h uint64) int { return cmp.Compare(m.hash, h) })
	if ok {
		s.members[i].last = max(s.members[i].last, at)
		return
	}
	s.members = slices.Insert(s.members, i, member{hash, at})
	for len(s.members) > maxDistinct {
		s.level++
		s.lost = clock
		s.members = slices.DeleteFunc(s.members, func(m member) bool { return m.hash>>(64-s.level) != 0 })
	}
}

// count of the values later than after.
func (s *set) count(ever bool, after int64) float64 {
	n := 0
	for _, m := range s.members {
		if ever || m.last > after {
			n++
		}
	}
	return math.Ldexp(float64(n), int(s.level))
}

func valueHash(v *events.Value) uint64 {
	var sum [32]byte
	if v.State == events.HasText {
		sum = sha256.Sum256(v.Text)
	} else {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], math.Float64bits(v.Num+0)) // -0 is 0
		sum = sha256.Sum256(b[:])
	}
	return binary.BigEndian.Uint64(sum[:])
}

// reader works out features of one entry; windows that several features share are gone through once.
type reader struct {
	done []windowAcc
}

type windowAcc struct {
	series int
	window int64
	acc    acc
}

func (r *reader) windowed(e *entry, g *group, series int, window, now int64) *acc {
	for i := range r.done {
		if r.done[i].series == series && r.done[i].window == window {
			return &r.done[i].acc
		}
	}
	r.done = append(r.done, windowAcc{series: series, window: window})
	a := &r.done[len(r.done)-1].acc
	from := sort.Search(len(e.items), func(i int) bool { return e.items[i].last > now-window })
	for i := from; i < len(e.items); i++ {
		e.into(g, &e.items[i], series, a)
	}
	return a
}

// read is the feature's value for an event at the time at, NaN for a missing one. e is nil if the key has no state.
func (r *reader) read(e *entry, g *group, f *feat, rec *events.Record, at int64) float64 {
	x := r.raw(e, g, f, rec, at)
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		if f.hasEmpty {
			return f.empty
		}
		return math.NaN()
	case f.log:
		return feature.SignedLog1p(x)
	}
	return x
}

func (r *reader) raw(e *entry, g *group, f *feat, rec *events.Record, at int64) float64 {
	var nothing acc
	a, now := &nothing, at
	if f.take.OfLabels() {
		if e == nil {
			return new(labels).read(f, now)
		}
		return e.labels.read(f, max(at, e.clock))
	}
	if e != nil {
		now = max(at, e.clock)
		switch {
		case f.set != none:
			return e.sets[f.set].count(f.window == 0, now-f.window)
		case f.window > 0:
			a = r.windowed(e, g, f.series, f.window, now)
		default:
			a = &e.ever[f.series]
		}
	}
	n := float64(a.n)
	switch f.take {
	case events.TakeCount:
		return n
	case events.TakeDistinct:
		return 0
	case events.TakeSum:
		return a.total()
	case events.TakeSeen:
		return min(n, 1)
	case events.TakeNew:
		return 1 - min(n, 1)
	}
	if f.take == events.TakeShare && e != nil {
		of := &e.ever
		if f.window == 0 {
			return n / float64((*of)[f.of].n) // 0/0 is NaN
		}
		total := r.windowed(e, g, f.of, f.window, now).n
		return n / float64(total)
	}
	if a.n == 0 {
		return math.NaN()
	}
	switch f.take {
	case events.TakeMean:
		return a.total() / n
	case events.TakeMin:
		return a.min
	case events.TakeMax:
		return a.max
	case events.TakeSD:
		return a.sd()
	case events.TakeLast:
		return a.lastValue
	case events.TakeSinceLast:
		return float64(now-a.last) / 1e6
	case events.TakeSinceFirst:
		return float64(now-a.first) / 1e6
	case events.TakeRatio:
		if v := &rec.Values[f.field]; v.State == events.HasNum {
			return v.Num / (a.total() / n)
		}
	}
	return math.NaN()
}
