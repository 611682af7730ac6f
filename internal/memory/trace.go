package memory

import (
	"fmt"
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
	Recent []Summary `json:"recent,omitempty"` // events in the windows and, of a hot key, panes, the oldest first
}

// Summary of one event, of several in a pane, or of all there were.
type Summary struct {
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
	Field  string    `json:"field,omitempty"`
	Events uint64    `json:"events"`
	Sum    float64   `json:"sum,omitempty"`
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
			text := string(ev.Entity)
			if f >= 0 {
				if text = string(ev.Record.Values[f].Text); c.Fields[f].Sensitive {
					text = withheld
				}
			} else if ev.Entity == nil {
				text = string(ev.Record.Entity)
			}
			k.Values = append(k.Values, text)
		}
		if key, ok := keyOf(ev, l.by); ok {
			x := s.load(l.group, key, at)
			if k.Known = x.found; x.found {
				k.describe(c, g, &x.entry)
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

func (k *KeyState) describe(c *events.Contract, g *group, e *entry) {
	k.Clock = time.UnixMicro(e.clock).UTC()
	name := func(s *series, i int) string {
		text := "events"
		if s.field >= 0 {
			text = c.Fields[s.field].Name
		}
		if s.cond != none {
			text += " where " + c.Fields[g.conds[s.cond].field].Name
		}
		return text + "#" + strconv.Itoa(i)
	}
	for i := range e.ever {
		k.Ever = append(k.Ever, Summary{Field: name(&g.ever[i], i), Events: e.ever[i].n, Sum: e.ever[i].total()})
	}
	for i := range e.items {
		it := &e.items[i]
		for j := range g.windowed {
			var a acc
			if e.into(g, it, j, &a); a.n > 0 {
				k.Recent = append(k.Recent, Summary{First: time.UnixMicro(it.first).UTC(), Last: time.UnixMicro(it.last).UTC(), Field: name(&g.windowed[j], j), Events: a.n, Sum: a.total()})
			}
		}
	}
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
		if s.Sum != 0 {
			fmt.Fprintf(&b, ", sum %v", s.Sum)
		}
	}
	n := uint64(0)
	for _, s := range k.Recent {
		n += s.Events
	}
	if n > 0 {
		fmt.Fprintf(&b, "; in the windows %d, since %s", n, k.Recent[0].First.Format(time.RFC3339Nano))
	}
	return b.String()
}
