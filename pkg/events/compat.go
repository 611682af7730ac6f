package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Compatible says why next may not replace old, all reasons joined, or nil. reads tells whether a model
// that serves, or may be switched to without training, reads a field; nil: there is none.
//
//	always refused          another kind; another number of lanes
//	refused while one serves  another id, entity, time or zone; a field it reads that goes, becomes
//	                        protected, or changes its type, currency or minor unit
//	compatible              all else: a field more, one less that nobody reads, policy, retention
//
// A field that becomes required is compatible in this sense, though events without it become invalid.
func Compatible(old, next Contract, reads func(field string) bool) error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("contract %s version %d: "+format, append([]any{old.Kind, next.Version}, a...)...))
	}
	if old.Kind != next.Kind {
		bad("is of another kind, %s", next.Kind)
	}
	if old.Lanes != next.Lanes {
		bad("lanes %d: the kind was made with %d, and another number would part entities from their past: declare a new kind and switch", next.Lanes, old.Lanes)
	}
	if old.EntityHash != next.EntityHash {
		bad("entity_hash %t: it is %t, and every entity would be parted from its past: declare a new kind and switch", next.EntityHash, old.EntityHash)
	}
	if reads == nil {
		return errors.Join(errs...)
	}
	for _, x := range []struct{ what, old, next string }{
		{"id", old.ID, next.ID}, {"entity", old.Entity, next.Entity}, {"time", old.Time, next.Time}, {"zone", old.Zone, next.Zone},
	} {
		if x.old != x.next {
			bad("%s %s: it is %s, and a model serves that was trained so", x.what, quoted(x.next), quoted(x.old))
		}
	}
	after := fieldsByName(next)
	before, now := memoryByName(old), memoryByName(next)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if n, ok := now[name]; reads(name) && (!ok || n != before[name]) {
			bad("memory feature %s is gone or another, and a model that serves reads it", name)
		}
	}
	if old.Memory != nil && next.Memory != nil && old.Memory.IdleOrDefault() != next.Memory.IdleOrDefault() {
		for name := range before {
			if reads(name) {
				bad("memory: idle %s: it is %s for a model that serves", Duration(next.Memory.IdleOrDefault()), Duration(old.Memory.IdleOrDefault()))
				break
			}
		}
	}
	for _, f := range old.Fields {
		if !reads(f.Name) {
			continue
		}
		n, ok := after[f.Name]
		switch {
		case !ok:
			bad("field %s is gone, and a model that serves reads it", f.Name)
		case n.Type != f.Type:
			bad("field %s: type %s: it is %s for a model that serves", f.Name, n.Type, f.Type)
		case n.Currency != f.Currency || n.Minor != f.Minor:
			bad("field %s: %s in units of 10^-%d: it is %s in units of 10^-%d for a model that serves", f.Name, n.Currency, n.Minor, f.Currency, f.Minor)
		case n.Protected && !f.Protected:
			bad("field %s: protected: a model that serves reads it", f.Name)
		case n.Past && !f.Past || n.Key && !f.Key:
			bad("field %s: key or past: a model that serves reads it", f.Name)
		}
	}
	return errors.Join(errs...)
}

func quoted(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func fieldsByName(c Contract) map[string]Field {
	m := make(map[string]Field, len(c.Fields))
	for _, f := range c.Fields {
		m[f.Name] = f
	}
	return m
}

// DiffContracts says for people, a line each, what changes from old to next: settings first, then
// fields, those of next in their order and then those that go.
func DiffContracts(old, next Contract) []string {
	var out []string
	setting := func(name string, a, b any) {
		x, y := quoted(fmt.Sprint(a)), quoted(fmt.Sprint(b))
		if x != y {
			out = append(out, fmt.Sprintf("%s: %s -> %s", name, x, y))
		}
	}
	setting("kind", old.Kind, next.Kind)
	setting("version", old.Version, next.Version)
	setting("description", old.Description, next.Description)
	setting("id", old.ID, next.ID)
	setting("entity", old.Entity, next.Entity)
	setting("entity_hash", old.EntityHash, next.EntityHash)
	setting("time", old.Time, next.Time)
	setting("zone", old.Zone, next.Zone)
	setting("label", labelText(old.Label), labelText(next.Label))
	setting("maturity", old.Maturity, next.Maturity)
	setting("prior", old.Prior, next.Prior)
	setting("thresholds.medium", old.Thresholds.Medium, next.Thresholds.Medium)
	setting("thresholds.high", old.Thresholds.High, next.Thresholds.High)
	setting("decisions.low", old.Decisions.Low, next.Decisions.Low)
	setting("decisions.medium", old.Decisions.Medium, next.Decisions.Medium)
	setting("decisions.high", old.Decisions.High, next.Decisions.High)
	setting("decisions.prior", old.Decisions.Prior, next.Decisions.Prior)
	setting("decisions.stale", old.Decisions.Stale, next.Decisions.Stale)
	setting("decisions.late", old.Decisions.Late, next.Decisions.Late)
	setting("lanes", old.Lanes, next.Lanes)
	setting("retention.events", old.Retention.Events, next.Retention.Events)
	setting("retention.scores", old.Retention.Scores, next.Retention.Scores)

	mOld, mNext := memoryByName(old), memoryByName(next)
	for _, name := range slices.Sorted(maps.Keys(mOld)) {
		if _, ok := mNext[name]; !ok {
			out = append(out, fmt.Sprintf("memory feature %s: removed", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(mNext)) {
		if f, ok := mOld[name]; !ok {
			out = append(out, fmt.Sprintf("memory feature %s: added", name))
		} else if f != mNext[name] {
			out = append(out, fmt.Sprintf("memory feature %s: %s -> %s", name, f, mNext[name]))
		}
	}
	if old.Memory != nil && next.Memory != nil {
		setting("memory.idle", old.Memory.Idle, next.Memory.Idle)
		within, ids := old.Memory.RepeatsOrDefault()
		withinNext, idsNext := next.Memory.RepeatsOrDefault()
		setting("memory.repeats.within", Duration(within), Duration(withinNext))
		setting("memory.repeats.ids", ids, idsNext)
	}

	out = append(out, diffReasons(old, next)...)

	before, after := fieldsByName(old), fieldsByName(next)
	for _, n := range next.Fields {
		o, ok := before[n.Name]
		if !ok {
			line := fmt.Sprintf("field %s: added, %s", n.Name, n.Type)
			if n.Required {
				line += ", required: events without it become invalid"
			}
			out = append(out, line)
			continue
		}
		name := "field " + n.Name
		setting(name+" type", o.Type, n.Type)
		setting(name+" required", o.Required, n.Required)
		setting(name+" unit", o.Unit, n.Unit)
		setting(name+" currency", o.Currency, n.Currency)
		setting(name+" minor", o.Minor, n.Minor)
		setting(name+" missing", strings.Join(o.Missing, " "), strings.Join(n.Missing, " "))
		setting(name+" sensitive", o.Sensitive, n.Sensitive)
		setting(name+" protected", o.Protected, n.Protected)
		setting(name+" key", o.Key, n.Key)
		setting(name+" past", o.Past, n.Past)
		setting(name+" sign", o.Sign, n.Sign)
		setting(name+" code", o.Code, n.Code)
	}
	for _, o := range old.Fields {
		if _, ok := after[o.Name]; !ok {
			out = append(out, fmt.Sprintf("field %s: removed", o.Name))
		}
	}
	order := func(c Contract, in map[string]Field) (names []string) {
		for _, f := range c.Fields {
			if _, ok := in[f.Name]; ok {
				names = append(names, f.Name)
			}
		}
		return names
	}
	if a, b := order(old, after), order(next, before); !slices.Equal(a, b) {
		out = append(out, "fields: stand in another order")
	}
	return out
}

// memoryByName has each feature as the one line of JSON that tells it apart from any other.
func memoryByName(c Contract) map[string]string {
	m := map[string]string{}
	if c.Memory == nil {
		return m
	}
	for _, f := range c.Memory.Features {
		text, err := json.Marshal(f)
		if err != nil { // Validate has refused numbers that JSON does not know
			text = fmt.Append(nil, f)
		}
		m[f.Name] = string(text)
	}
	return m
}

func labelText(l *LabelColumn) string {
	if l == nil {
		return ""
	}
	return fmt.Sprintf("%s, positive %s", l.Column, strings.Join(l.Positive, " "))
}
