package memory

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// KeyState is the state of one key, as features of an event are read from it.
type KeyState struct {
	By     []string  `json:"by"`             // fields of the earlier events
	For    []string  `json:"for"`            // fields of this event
	Values []string  `json:"values"`         // of those; withheld where the contract says so
	Known  bool      `json:"known"`          // there is a state
	Clock  time.Time `json:"clock,omitzero"` // latest time of the key's events
	Ever   []Summary `json:"ever,omitempty"`
	Sets   []Set     `json:"sets,omitempty"`   // of distinct values
	Recent []Summary `json:"recent,omitempty"` // events in the windows and, of a hot key, panes, the oldest first
	Labels []Labels  `json:"labels,omitempty"` // of the key's events, by the events' time, the oldest first
}

// Labels that are known of the events of one time, of several in a pane or, without times, of all that windows and delays have passed.
type Labels struct {
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Known uint64    `json:"known"`
	Bad   uint64    `json:"bad"`
}

// Summary of one event, of several in a pane, or of all there were. Of the numbers those are there that a feature needs, that are finite, and
// whose field is not sensitive.
type Summary struct {
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
	Field  string    `json:"field,omitempty"`
	Events uint64    `json:"events"`
	Sum    *float64  `json:"sum,omitempty"`
	Mean   *float64  `json:"mean,omitempty"` // of what the standard deviation is of
	SD     *float64  `json:"sd,omitempty"`
	Min    *float64  `json:"min,omitempty"`
	Max    *float64  `json:"max,omitempty"`
	Value  *float64  `json:"value,omitempty"` // the last one
}

// Set of the distinct values of a field, of which hashes are known only.
type Set struct {
	Field  string  `json:"field"`
	Window string  `json:"window,omitempty"` // the longest in which they are counted; none: for ever
	Values float64 `json:"values"`           // in it as this event comes
	OneIn  uint64  `json:"one_in"`           // 1: exact; else there were too many, one in so many values is held, and Values is an estimate
}

// Trace is the state from which the features of an event would be read now.
func (s *Store) Trace(ev Event, withheld string) []KeyState {
	at := s.begin(ev)
	c := &s.plan.Schema.Contract
	var out []KeyState
	for i := range s.plan.lookups {
		l := &s.plan.lookups[i]
		g := &s.plan.groups[l.group]
		k := KeyState{}
		for j, f := range l.by {
			k.By, k.For = append(k.By, fieldName(c, g.by[j])), append(k.For, fieldName(c, f))
			text := string(ev.entity())
			if f >= 0 {
				if text = string(ev.Record.Values[f].Text); c.Fields[f].Sensitive {
					text = withheld
				}
			}
			k.Values = append(k.Values, text)
		}
		if key, ok := keyOf(ev, l.by); ok {
			x := s.load(l.group, key, at)
			if k.Known = x.found; x.found {
				k.describe(c, g, &x.entry, max(at, x.entry.clock))
			}
		}
		out = append(out, k)
	}
	return out
}

func fieldName(c *events.Contract, f int) string {
	if f < 0 {
		return c.Entity
	}
	return c.Fields[f].Name
}

func (k *KeyState) describe(c *events.Contract, g *group, e *entry, now int64) {
	k.Clock = time.UnixMicro(e.clock).UTC()
	name := func(s *series) string {
		text := "events"
		if s.field >= 0 {
			text = c.Fields[s.field].Name
		}
		if s.cond != none {
			text += " where " + g.conds[s.cond].text(c)
		}
		return text
	}
	for i := range e.ever {
		a, need := &e.ever[i], g.ever[i].need
		x := summary(c, a, &g.ever[i])
		x.Field = name(&g.ever[i])
		if a.n > 0 && need&needFirst != 0 {
			x.First = time.UnixMicro(a.first).UTC()
		}
		if a.n > 0 && need&needLast != 0 {
			x.Last = time.UnixMicro(a.last).UTC()
		}
		k.Ever = append(k.Ever, x)
	}
	for i := range e.sets {
		def := &g.sets[i]
		x := Set{Field: fieldName(c, def.field), Values: e.sets[i].count(def.span == 0, now-def.span), OneIn: 1 << e.sets[i].level}
		if def.span > 0 {
			x.Window = events.Duration(time.Duration(def.span) * time.Microsecond).String()
		}
		k.Sets = append(k.Sets, x)
	}
	if gone := e.labels.gone; gone.known > 0 {
		k.Labels = append(k.Labels, Labels{Known: gone.known, Bad: gone.bad})
	}
	for _, s := range e.labels.spans {
		k.Labels = append(k.Labels, Labels{time.UnixMicro(s.first).UTC(), time.UnixMicro(s.last).UTC(), s.known, s.bad})
	}
	for i := range e.items {
		it := &e.items[i]
		for j := range g.windowed {
			var a acc
			if e.into(g, it, j, &a); a.n > 0 {
				x := summary(c, &a, &g.windowed[j])
				x.First, x.Last, x.Field = time.UnixMicro(it.first).UTC(), time.UnixMicro(it.last).UTC(), name(&g.windowed[j])
				k.Recent = append(k.Recent, x)
			}
		}
	}
}

// summary has no numbers of a sensitive field: the sum of one event is its value.
func summary(c *events.Contract, a *acc, of *series) Summary {
	s := Summary{Events: a.n}
	if a.n == 0 || of.field >= 0 && c.Fields[of.field].Sensitive {
		return s
	}
	finite := func(part need, x float64) *float64 {
		if of.need&part == 0 || math.IsNaN(x) || math.IsInf(x, 0) { // which JSON has no word for
			return nil
		}
		return &x
	}
	s.Sum = finite(needSum, a.total())
	s.Mean, s.SD = finite(needMoments, a.mean), finite(needMoments, a.sd())
	s.Min, s.Max = finite(needMin, a.min), finite(needMax, a.max)
	s.Value = finite(needLastValue, a.lastValue)
	return s
}

// String is a line for people.
func (k KeyState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "by %s, for %s = %s: ", strings.Join(k.By, ", "), strings.Join(k.For, ", "), strings.Join(k.Values, ", "))
	if !k.Known {
		b.WriteString("nothing")
		return b.String()
	}
	fmt.Fprintf(&b, "up to %s", k.Clock.Format(time.RFC3339Nano))
	for _, s := range k.Ever {
		fmt.Fprintf(&b, "; %s: %d", s.Field, s.Events)
		for _, x := range []struct {
			name  string
			value *float64
		}{{"sum", s.Sum}, {"mean", s.Mean}, {"sd", s.SD}, {"least", s.Min}, {"most", s.Max}, {"last", s.Value}} {
			if x.value != nil {
				fmt.Fprintf(&b, ", %s %v", x.name, *x.value)
			}
		}
	}
	for _, s := range k.Sets {
		window := ""
		if s.Window != "" {
			window = " in " + s.Window
		}
		if s.OneIn == 1 {
			fmt.Fprintf(&b, "; distinct %s%s: %v", s.Field, window, s.Values)
		} else {
			fmt.Fprintf(&b, "; distinct %s%s: about %v, by a sample of one in %d", s.Field, window, s.Values, s.OneIn)
		}
	}
	recent, names := map[string]uint64{}, []string(nil)
	for _, s := range k.Recent {
		if recent[s.Field] == 0 {
			names = append(names, s.Field)
		}
		recent[s.Field] += s.Events
	}
	for _, name := range names {
		fmt.Fprintf(&b, "; %s in the windows: %d", name, recent[name])
	}
	var t tally
	for _, l := range k.Labels {
		t.plus(tally{l.Known, l.Bad})
	}
	if t.known > 0 {
		fmt.Fprintf(&b, "; labels: %d, of them bad: %d", t.known, t.bad)
	}
	return b.String()
}

// text of the condition, for people.
func (c *cond) text(contract *events.Contract) string {
	name := contract.Fields[c.field].Name
	var parts []string
	if c.known {
		parts = append(parts, name+" is known")
	}
	if c.hasAbove {
		parts = append(parts, name+" > "+strconv.FormatFloat(c.above, 'g', -1, 64))
	}
	if c.hasBelow {
		parts = append(parts, name+" < "+strconv.FormatFloat(c.below, 'g', -1, 64))
	}
	if len(c.is) > 0 {
		parts = append(parts, name+" is one of "+strconv.Itoa(len(c.is)))
	}
	return strings.Join(parts, " and ")
}
