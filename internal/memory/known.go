package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"
	"sort"

	"github.com/riskweir/riskweir/pkg/events"
)

// labelPlan is what a group keeps of labels; the zero value: nothing.
type labelPlan struct {
	on    bool
	ever  bool  // a feature looks back for ever
	reach int64 // µs: how long after an event's time its label is kept by itself
	bound int   // spans from which on they are put together
	edges []labelEdge
}

// labelEdge is one feature's window: pane is how much may be put together before it has passed.
type labelEdge struct{ reach, pane int64 }

func (l *labelPlan) add(window, delay int64) {
	l.on = true
	edge := labelEdge{reach: delay + window, pane: window / panes}
	if window == 0 {
		l.ever, edge.pane = true, delay/panes
	}
	if edge.reach > 0 && !slices.Contains(l.edges, edge) {
		l.edges = append(l.edges, edge)
	}
	l.reach = max(l.reach, edge.reach)
	l.bound = max(minExact, exactEvents*len(l.edges))
}

// tally of labels. Whole numbers, so that a label that is taken back leaves no trace, and order none.
//
//	bad <= known
type tally struct{ known, bad uint64 }

// change counts what was Was as Label. Of what was never counted, as of an event before those that memory is of, nothing is taken away.
func (t *tally) change(was, label events.Truth) {
	if was != events.NoLabel {
		if t.known == 0 {
			return
		}
		t.known--
		if was == events.BadLabel && t.bad > 0 {
			t.bad--
		}
	}
	if label != events.NoLabel {
		t.known++
		if label == events.BadLabel {
			t.bad++
		}
	}
	t.bad = min(t.bad, t.known)
}

func (t *tally) plus(u tally) { t.known, t.bad = t.known+u.known, t.bad+u.bad }

// labels of the events of one key, by the events' own times.
//
//	spans ascend and do not overlap; each has known > 0, and last <= entry.clock
//	an event no later than horizon may be one from before the key was forgotten, and its label does not count
type labels struct {
	horizon int64 // µs
	spans   []labelSpan
	gone    tally // of events that every window and delay has passed; for features that look back for ever
}

// labelSpan is the labels of all events of one time, or of several that stand next to each other.
type labelSpan struct {
	first, last int64 // µs
	tally
}

// slide lets go of what no window will reach again.
func (l *labels) slide(p *labelPlan, clock int64) {
	k := 0
	for k < len(l.spans) && l.spans[k].last <= clock-p.reach {
		if p.ever {
			l.gone.plus(l.spans[k].tally)
		}
		k++
	}
	l.spans = slices.Delete(l.spans, 0, k)
}

// know takes what became known of an event of the key at its time, µs.
func (l *labels) know(p *labelPlan, clock, at int64, was, label events.Truth) {
	if at <= l.horizon || at > clock {
		return
	}
	i := sort.Search(len(l.spans), func(i int) bool { return l.spans[i].last >= at })
	switch {
	case i < len(l.spans) && l.spans[i].first <= at:
		if l.spans[i].change(was, label); l.spans[i].known == 0 {
			l.spans = slices.Delete(l.spans, i, i+1)
		}
	case at <= clock-p.reach:
		if p.ever {
			l.gone.change(was, label)
		}
	case was == events.NoLabel:
		s := labelSpan{first: at, last: at}
		s.change(was, label)
		if l.spans = slices.Insert(l.spans, i, s); len(l.spans) > p.bound {
			l.compact(p, clock)
		}
	}
}

// compact puts spans together that stand in the same pane: 1/64 of the shortest window or delay that has not passed yet.
func (l *labels) compact(p *labelPlan, clock int64) {
	out := l.spans[:0]
	for _, b := range l.spans {
		if len(out) > 0 {
			a := &out[len(out)-1]
			if pane := p.pane(clock - b.last); pane > 0 && floorDiv(a.first, pane) == floorDiv(b.last, pane) {
				a.last = b.last
				a.plus(b.tally)
				continue
			}
		}
		out = append(out, b)
	}
	l.spans = out
}

func (p *labelPlan) pane(age int64) int64 {
	pane := int64(0)
	for _, e := range p.edges {
		if age < e.reach && (pane == 0 || e.pane < pane) {
			pane = e.pane
		}
	}
	return pane
}

// sum counts the labels of events with now - delay - window < time <= now - delay; window 0: for ever.
func (l *labels) sum(window, delay, now int64) tally {
	var t tally
	from := 0
	if window == 0 {
		t = l.gone
	} else {
		from = sort.Search(len(l.spans), func(i int) bool { return l.spans[i].last > now-delay-window })
	}
	for _, s := range l.spans[from:] {
		if s.last > now-delay {
			break
		}
		t.plus(s.tally)
	}
	return t
}

// read is a feature of labels; NaN where there is none.
func (l *labels) read(f *feat, now int64) float64 {
	t := l.sum(f.window, f.delay, now)
	switch f.take {
	case events.TakeKnown:
		return float64(t.known)
	case events.TakeBad:
		return float64(t.bad)
	}
	if t.known == 0 {
		return math.NaN()
	}
	return float64(t.bad) / float64(t.known)
}

func (l *labels) pack(dst []byte, p *labelPlan, clock int64) []byte {
	dst = binary.AppendVarint(dst, clock-l.horizon)
	if p.ever {
		dst = binary.AppendUvarint(dst, l.gone.known)
		dst = binary.AppendUvarint(dst, l.gone.bad)
	}
	dst = binary.AppendUvarint(dst, uint64(len(l.spans)))
	before := clock
	for i := len(l.spans) - 1; i >= 0; i-- {
		s := &l.spans[i]
		dst = binary.AppendUvarint(dst, uint64(before-s.last))
		dst = binary.AppendUvarint(dst, uint64(s.last-s.first))
		dst = binary.AppendUvarint(dst, s.known)
		dst = binary.AppendUvarint(dst, s.bad)
		before = s.first
	}
	return dst
}

func (r *parser) labels(l *labels, p *labelPlan, clock int64) {
	l.horizon = clock - r.varint()
	if p.ever {
		l.gone = r.tally()
	}
	n := r.length(4)
	l.spans = slices.Grow(l.spans, n)[:n]
	before := clock
	for i := n - 1; i >= 0 && !r.bad; i-- {
		gap := r.span()
		s := labelSpan{last: before - gap}
		s.first = s.last - r.span()
		s.tally = r.tally()
		r.fail(s.known == 0 || gap == 0 && i < n-1)
		l.spans[i], before = s, s.first
	}
}

func (r *parser) tally() tally {
	t := tally{known: r.uvarint(), bad: r.uvarint()}
	r.fail(t.bad > t.known)
	return t
}

// Know folds what became known of an earlier event. It does not move a key's clock, and what is forgotten it does not bring back.
func (s *Store) Know(k *events.Known) {
	if !s.any {
		return
	}
	s.used = 0
	for i := range s.plan.groups {
		g := &s.plan.groups[i]
		if !g.labels.on {
			continue
		}
		key, ok := s.plan.keyOfKnown(k, g.by)
		if !ok {
			continue
		}
		x := s.load(i, key, s.clock)
		if !x.found {
			continue
		}
		x.entry.labels.know(&g.labels, x.entry.clock, k.At.UnixMicro(), k.Was, k.Label)
		s.scratch = x.entry.pack(s.scratch[:0], g)
		s.put(i, key, s.scratch)
	}
}

func (p *Plan) keyOfKnown(k *events.Known, by []int) (Key, bool) {
	var b []byte
	for _, f := range by {
		text := k.Entity
		if f >= 0 {
			i := slices.IndexFunc(k.Keys, func(x events.KeyValue) bool { return x.Field == p.Schema.Contract.Fields[f].Name })
			if i < 0 {
				return Key{}, false
			}
			text = k.Keys[i].Value
		}
		b = appendKeyPart(b, []byte(text))
	}
	sum := sha256.Sum256(b)
	return Key(sum[:16]), true
}

// Tell makes what is to be known of an event when a label of it is: its time as memory counts it, its entity and its keys. false: its keys
// are too long to be told.
func (p *Plan) Tell(ev Event) (events.Known, bool) {
	k := events.Known{At: when(ev), Entity: string(ev.Entity)}
	if ev.Entity == nil {
		k.Entity = string(ev.Record.Entity)
	}
	size := 0
	for _, f := range p.keys {
		if v := &ev.Record.Values[f]; v.State == events.HasText && len(v.Text) > 0 {
			k.Keys = append(k.Keys, events.KeyValue{Field: p.Schema.Contract.Fields[f].Name, Value: string(v.Text)})
			size += len(v.Text)
		}
	}
	return k, size <= events.MaxKeyBytes
}

// HasLabels says whether a feature is taken of labels.
func (p *Plan) HasLabels() bool { return p.Schema.Contract.Memory.HasLabels() }
