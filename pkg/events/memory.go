package events

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Memory declares what a kind's events remember of the events before them. The rules stand in docs/memory.md.
type Memory struct {
	Idle     Duration        `yaml:"idle,omitempty"` // after which a key that nothing happened to is forgotten; 0: see IdleOrDefault
	Features []MemoryFeature `yaml:"features"`
	Repeats  *Repeats        `yaml:"repeats,omitempty"` // none: RepeatsOrDefault
}

// Repeats says how long the ids of events are known, so that one that comes again is told from a new one.
type Repeats struct {
	Within *Duration `yaml:"within,omitempty"` // by when the events were stored; none: 168h; 0: ids are not looked at
	IDs    int       `yaml:"ids,omitempty"`    // as many are known at most, the latest; 0: 1,000,000
}

// MemoryFeature is one number that earlier events say about this one: an aggregate over those whose By fields hold what this event's
// For fields hold.
type MemoryFeature struct {
	Name   string     `yaml:"name"`
	By     Names      `yaml:"by"`               // fields of the earlier events, of type category, or the entity's
	For    Names      `yaml:"for,omitempty"`    // fields of this event, one for each of By; none: By
	Take   Take       `yaml:"take"`             // the aggregate
	Field  string     `yaml:"field,omitempty"`  // that it is taken of
	Where  *Condition `yaml:"where,omitempty"`  // on the earlier events
	Window Duration   `yaml:"window,omitempty"` // 0: for ever
	// Delay is how old an event must be for its label to count. Of takes of labels only. Left out of JSON where there is none, by which
	// memories of older contracts keep their names.
	Delay Duration `yaml:"delay,omitempty" json:",omitempty"`
	Empty *float64 `yaml:"empty,omitempty"` // where there is nothing to take it of; none: a missing value
	Log   bool     `yaml:"log,omitempty"`   // sign(x) log(1 + |x|) of it

	// As of a Field; what is remembered does not depend on these.
	Sign string `yaml:"sign,omitempty" json:"-"`
	Code string `yaml:"code,omitempty" json:"-"`
}

// Take is an aggregate over earlier events.
type Take string

const (
	TakeCount      Take = "count"
	TakeSum        Take = "sum"
	TakeMean       Take = "mean"
	TakeMin        Take = "min"
	TakeMax        Take = "max"
	TakeSD         Take = "sd"       // of the population
	TakeLast       Take = "last"     // the value of the latest
	TakeDistinct   Take = "distinct" // how many values
	TakeShare      Take = "share"    // of those that meet Where, among those that can be told
	TakeRatio      Take = "ratio"    // this event's value to their mean
	TakeSeen       Take = "seen"     // 1 if there is one, else 0
	TakeNew        Take = "new"      // 0 if there is one, else 1
	TakeSinceLast  Take = "since_last"
	TakeSinceFirst Take = "since_first" // seconds
	TakeKnown      Take = "known"       // how many of them have a label that is known
	TakeBad        Take = "bad"         // how many of those a bad one
	TakeBadShare   Take = "bad_share"   // of those with a known label
)

// OfLabels says whether the aggregate is one of what became known of earlier events.
func (t Take) OfLabels() bool { return t == TakeKnown || t == TakeBad || t == TakeBadShare }

// takes says what each aggregate needs: a field, of which types; whether it may have a condition.
var takes = map[Take]struct{ field, where, mustWhere bool }{
	TakeCount: {where: true}, TakeSeen: {where: true}, TakeNew: {where: true}, TakeSinceLast: {where: true}, TakeSinceFirst: {where: true},
	TakeSum: {field: true, where: true}, TakeMean: {field: true, where: true}, TakeMin: {field: true, where: true},
	TakeMax: {field: true, where: true}, TakeSD: {field: true, where: true}, TakeLast: {field: true, where: true},
	TakeDistinct: {field: true}, TakeRatio: {field: true, where: true}, TakeShare: {where: true, mustWhere: true},
	TakeKnown: {}, TakeBad: {}, TakeBadShare: {},
}

// Condition on one field of an event. An event whose field has no value does not meet it.
type Condition struct {
	Field string   `yaml:"field"`
	Below *float64 `yaml:"below,omitempty"` // of a number
	Above *float64 `yaml:"above,omitempty"`
	Is    []string `yaml:"is,omitempty"` // of a category: one of these
}

// Names is a list that YAML may write as one name.
type Names []string

func (n *Names) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*n = Names{node.Value}
		return nil
	}
	return node.Decode((*[]string)(n))
}

func (n Names) MarshalYAML() (any, error) {
	if len(n) == 1 {
		return n[0], nil
	}
	return []string(n), nil
}

// Bounds of a contract's memory: they bound what a scorer holds and does for each event.
const (
	MaxMemoryFeatures = 200
	MaxMemoryKeys     = 8 // different By
	MaxKeyFields      = 4 // different fields in them: the entity and three others
	MaxMemoryWindows  = 6 // different windows of one By
	MinMemoryWindow   = Duration(time.Second)
	MaxMemoryWindow   = Duration(400 * 24 * time.Hour)
	MaxMemoryIdle     = Duration(36500 * 24 * time.Hour)
	MaxRepeatsWithin  = Duration(400 * 24 * time.Hour)
	MaxRepeatsIDs     = 2_000_000 // the table grows in one step, 0.4 s for as many, while events wait
)

const (
	defaultIdle   = Duration(400 * 24 * time.Hour)
	defaultWithin = Duration(7 * 24 * time.Hour)
	defaultIDs    = 1_000_000
)

// RepeatsOrDefault is how long ids are known, and how many; within is 0 if they are not looked at.
func (m *Memory) RepeatsOrDefault() (within time.Duration, ids int) {
	w, n := defaultWithin, defaultIDs
	if r := m.Repeats; r != nil {
		if r.Within != nil {
			w = *r.Within
		}
		if r.IDs != 0 {
			n = r.IDs
		}
	}
	return time.Duration(w), n
}

// maxDelayWindows bounds the state of a hot key: panes of labels are 1/64 of the window, as far back as the delay.
const maxDelayWindows = 64

// idleAhead is by how much an event's time may be ahead of when it was stored (internal/memory, maxAhead): one such event must not make
// every other key idle.
const idleAhead = Duration(24 * time.Hour)

// IdleOrDefault is Idle, or else 400 days if a feature looks back for ever, and the longest window and a day if none does.
func (m *Memory) IdleOrDefault() time.Duration {
	idle := m.Idle
	if idle == 0 {
		for _, f := range m.Features {
			if f.Window == 0 {
				return time.Duration(defaultIdle)
			}
			idle = max(idle, f.Window+f.Delay+idleAhead)
		}
	}
	return time.Duration(idle)
}

// Inputs are the contract's fields and behind them, as optional numbers, its memory's features: what a Record has values for. A feature of
// a sensitive field is sensitive.
func (c *Contract) Inputs() []Field {
	if c.Memory == nil {
		return c.Fields
	}
	fields := fieldsByName(*c)
	in := slices.Clip(c.Fields)
	for _, m := range c.Memory.Features {
		f := Field{Name: m.Name, Type: Number, Sign: m.Sign, Code: m.Code, Sensitive: fields[m.Field].Sensitive || m.Where != nil && fields[m.Where.Field].Sensitive}
		for _, k := range slices.Concat(m.By, m.For) {
			f.Sensitive = f.Sensitive || fields[k].Sensitive
		}
		in = append(in, f)
	}
	return in
}

func (m *Memory) validate(c *Contract) error {
	var errs []error
	fields := fieldsByName(*c)
	names := map[string]bool{c.ID: true, c.Entity: true, c.Time: true}
	if c.Label != nil {
		names[c.Label.Column] = true
	}
	for _, f := range c.Fields {
		names[f.Name] = true
	}
	keys, keyFields, windows := map[string]bool{}, map[string]bool{}, map[string]map[[2]Duration]bool{}
	if len(m.Features) == 0 || len(m.Features) > MaxMemoryFeatures {
		errs = append(errs, fmt.Errorf("contract %s: memory: %d features: want 1 to %d", c.Kind, len(m.Features), MaxMemoryFeatures))
	}
	for _, f := range m.Features {
		bad := func(format string, a ...any) {
			errs = append(errs, fmt.Errorf("contract %s: memory: feature %s: "+format, append([]any{c.Kind, f.Name}, a...)...))
		}
		switch {
		case f.Name == "" || len(f.Name) > 128 || !utf8.ValidString(f.Name):
			bad("name %q: want 1 to 128 bytes of UTF-8", f.Name)
		case names[f.Name]:
			bad("the name stands twice, or is a field's")
		}
		names[f.Name] = true
		source := func(what, name string) (Field, bool) {
			x, ok := fields[name]
			switch {
			case !ok:
				bad("%s %s is not in the contract", what, name)
			case x.Protected:
				bad("%s %s is protected: no model input may come of it", what, name)
			default:
				return x, true
			}
			return x, false
		}
		for _, list := range []Names{f.By, f.For} {
			for _, k := range list {
				if keyFields[k] = true; k != c.Entity || k == "" {
					if x, ok := source("key", k); ok && x.Type != Category {
						bad("key %s is a %s: want a category, or the entity", k, x.Type)
					}
				}
			}
		}
		if len(f.By) == 0 || len(f.By) > MaxKeyFields || len(f.For) != 0 && len(f.For) != len(f.By) {
			bad("by %v, for %v: want 1 to %d fields, and as many of the one as of the other", []string(f.By), []string(f.For), MaxKeyFields)
		}
		by := fmt.Sprintf("%q", []string(f.By))
		keys[by] = true
		over := by
		if f.Take.OfLabels() {
			over += " of labels"
		}
		if windows[over] == nil {
			windows[over] = map[[2]Duration]bool{}
		}
		if f.Window != 0 || f.Delay != 0 {
			windows[over][[2]Duration{f.Window, f.Delay}] = true
		}
		if f.Delay != 0 && (!f.Take.OfLabels() || f.Delay < MinMemoryWindow || f.Delay > MaxMemoryWindow || f.Delay%Duration(time.Second) != 0) {
			bad("delay %s: want whole seconds, %s to %s, and of known, bad or bad_share only", f.Delay, MinMemoryWindow, MaxMemoryWindow)
		}
		if f.Window != 0 && (f.Window < MinMemoryWindow || f.Window > MaxMemoryWindow || f.Window%Duration(time.Second) != 0) {
			bad("window %s: want whole seconds, %s to %s", f.Window, MinMemoryWindow, MaxMemoryWindow)
		}
		if f.Window != 0 && f.Delay > maxDelayWindows*f.Window {
			bad("delay %s: want at most %d times the window, %s: labels between are kept in parts of the window", f.Delay, maxDelayWindows, f.Window)
		}
		if m.Idle != 0 && f.Window+f.Delay > m.Idle {
			bad("window %s and delay %s are longer than idle, %s", f.Window, f.Delay, m.Idle)
		}
		t, ok := takes[f.Take]
		switch {
		case !ok:
			bad("take %q: want count, sum, mean, min, max, sd, last, distinct, share, ratio, seen, new, since_last, since_first, known, bad or bad_share", f.Take)
		case t.field != (f.Field != ""):
			bad("take %s, field %q: count, share, seen, new and since are of events, known, bad and bad_share of their labels, the others of a field", f.Take, f.Field)
		case f.Take == TakeDistinct && f.Field == c.Entity:
		case t.field:
			if x, ok := source("field", f.Field); ok && (x.Type == Category) != (f.Take == TakeDistinct) && (x.Type == Category || x.Type == Time || x.Type == Bool) {
				bad("take %s of field %s, a %s", f.Take, f.Field, x.Type)
			} else if ok && f.Take == TakeRatio && x.Past {
				bad("take ratio of field %s, which is known only later", f.Field)
			}
		}
		if ok && (f.Where != nil && !t.where || f.Where == nil && t.mustWhere) {
			bad("take %s: a condition is for share, which needs one, and for all others but distinct, known, bad and bad_share", f.Take)
		}
		if w := f.Where; w != nil {
			x, ok := source("where", w.Field)
			numeric := w.Below != nil || w.Above != nil
			switch {
			case !ok:
			case numeric == (len(w.Is) > 0):
				bad("where %s: want below or above, or is", w.Field)
			case numeric == (x.Type == Category):
				bad("where %s: below and above are for numbers, is for categories", w.Field)
			}
			for _, v := range []*float64{w.Below, w.Above} {
				if v != nil && !finite(*v) {
					bad("where %s: %v is not a finite number", w.Field, *v)
				}
			}
		}
		if f.Empty != nil && !finite(*f.Empty) {
			bad("empty %v: want a finite number", *f.Empty)
		}
	}
	if len(keys) > MaxMemoryKeys || len(keyFields) > MaxKeyFields {
		errs = append(errs, fmt.Errorf("contract %s: memory: %d different keys of %d different fields: at most %d of %d", c.Kind, len(keys), len(keyFields), MaxMemoryKeys, MaxKeyFields))
	}
	for _, by := range slices.Sorted(maps.Keys(windows)) {
		if w := windows[by]; len(w) > MaxMemoryWindows {
			errs = append(errs, fmt.Errorf("contract %s: memory: %d different windows by %s: at most %d", c.Kind, len(w), by, MaxMemoryWindows))
		}
	}
	if r := m.Repeats; r != nil {
		if r.Within != nil && (*r.Within < 0 || *r.Within > MaxRepeatsWithin || *r.Within%Duration(time.Second) != 0) {
			errs = append(errs, fmt.Errorf("contract %s: memory: repeats: within %s: want whole seconds, up to %s; 0s: ids are not looked at", c.Kind, *r.Within, MaxRepeatsWithin))
		}
		if r.IDs < 0 || r.IDs > MaxRepeatsIDs {
			errs = append(errs, fmt.Errorf("contract %s: memory: repeats: ids %d: want 1 to %d", c.Kind, r.IDs, MaxRepeatsIDs))
		}
	}
	if m.Idle != 0 && (m.Idle < MinMemoryWindow || m.Idle > MaxMemoryIdle) {
		errs = append(errs, fmt.Errorf("contract %s: memory: idle %s: want %s to %s", c.Kind, m.Idle, MinMemoryWindow, MaxMemoryIdle))
	}
	return errors.Join(errs...)
}
