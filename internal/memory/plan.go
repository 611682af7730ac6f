// Package memory remembers, for the keys that a kind's events name, what earlier events held, and says it of the next one. State is a
// pure function of the events folded, in the order of their sequences; features of an event are a pure function of that
// state and the event. No clock but the events' own is read. The rules for users stand in docs/memory.md.
package memory

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// formVersion is of the rules and the serialised form: state of another version is another function of the log.
const formVersion = 2

const (
	panes       = 64  // of a window, once a key is hot
	exactEvents = 256 // a key is exact up to this many events in its longest window, for each of its windows, and at least minExact
	minExact    = 512
	// maxDistinct values of a set are counted exactly; of more, a sample of that many.
	maxDistinct = 256
	// maxAhead bounds how far an event's own time may be ahead of when it was stored: one with a wrong year must not
	// empty the windows of everyone it names.
	maxAhead = 24 * time.Hour
)

// Plan is a contract's memory made ready. It is safe for concurrent use.
type Plan struct {
	Schema      *events.Schema
	fingerprint string
	idle        int64 // µs
	groups      []group
	lookups     []lookup
	features    []feat
	keys        []int // fields that the memory goes by
}

// group is the state kept by one list of fields.
type group struct {
	by       []int // indices of fields; -1: the entity
	span     int64 // longest window, µs; 0: none
	windows  []int64
	bound    int // items from which on they are put into panes
	ever     []series
	windowed []series
	columns  []int // fields of whose values an item holds a copy
	conds    []cond
	sets     []setDef
	labels   labelPlan
}

// series is what is aggregated: the values of a field, or with field -1 the events themselves, that meet a condition.
type series struct {
	field int
	col   int // in group.columns; -1: none
	cond  int // in group.conds; -1: none
	need  need
}

// need says which parts of an accumulator are kept: state pays for no other.
type need uint8

const (
	needSum need = 1 << iota
	needMoments
	needMin
	needMax
	needFirst
	needLast // time
	needLastValue
)

type cond struct {
	field        int
	below, above float64 // valid where hasBelow, hasAbove
	hasBelow     bool
	hasAbove     bool
	is           []string
	known        bool // met by any value
}

// setDef is a set of distinct values; span 0: for ever.
type setDef struct {
	field int // -1: the entity
	span  int64
}

// lookup reads the state of one group by one list of fields of the present event.
type lookup struct {
	group int
	by    []int
	feats []int
}

type feat struct {
	take     events.Take
	field    int // TakeRatio: of the present event
	window   int64
	delay    int64 // of labels
	series   int   // in ever or, with a window, windowed
	of       int   // TakeShare: the series that it is a share of
	set      int
	empty    float64
	hasEmpty bool
	log      bool
}

// Compile makes the memory of a contract ready; nil if it declares none.
func Compile(s *events.Schema) (*Plan, error) {
	c := &s.Contract
	if c.Memory == nil {
		return nil, nil
	}
	p := &Plan{Schema: s, idle: c.Memory.IdleOrDefault().Microseconds()}
	index := map[string]int{}
	for i, f := range c.Fields {
		index[f.Name] = i
	}
	if c.Entity != "" {
		index[c.Entity] = -1
	}
	p.keys = indices(index, c.KeyFields())
	var err error
	if p.fingerprint, err = fingerprint(c); err != nil {
		return nil, err
	}
	groups, lookups := map[string]int{}, map[string]int{}
	for i, f := range c.Memory.Features {
		by := fmt.Sprintf("%q", []string(f.By))
		g, ok := groups[by]
		if !ok {
			g = len(p.groups)
			groups[by] = g
			p.groups = append(p.groups, group{by: indices(index, f.By)})
		}
		of := f.For
		if len(of) == 0 {
			of = f.By
		}
		at := by + fmt.Sprintf("%q", []string(of))
		l, ok := lookups[at]
		if !ok {
			l = len(p.lookups)
			lookups[at] = l
			p.lookups = append(p.lookups, lookup{group: g, by: indices(index, of)})
		}
		p.lookups[l].feats = append(p.lookups[l].feats, i)
		p.features = append(p.features, p.groups[g].feature(index, f))
	}
	for i := range p.groups {
		g := &p.groups[i]
		slices.Sort(g.windows)
		g.windows = slices.Compact(g.windows)
		for _, w := range g.windows {
			g.span = max(g.span, w)
		}
		g.bound = max(minExact, exactEvents*len(g.windows))
		if 1+len(g.columns)+len(g.conds) > 64 {
			return nil, fmt.Errorf("contract %s: memory: by %v: %d fields and conditions over windows: at most 63", c.Kind, g.by, len(g.columns)+len(g.conds))
		}
	}
	return p, nil
}

// Fingerprint names everything that state is a function of beside the log: what makes an event valid and how its values are
// read, and the memory.
func (p *Plan) Fingerprint() string { return p.fingerprint }

// Width is how many features there are.
func (p *Plan) Width() int { return len(p.features) }

func fingerprint(c *events.Contract) (string, error) {
	if c.Memory == nil {
		return "", errors.New("no memory")
	}
	m := *c.Memory
	m.Idle = events.Duration(m.IdleOrDefault())
	within, ids := m.RepeatsOrDefault()
	m.Repeats = &events.Repeats{Within: (*events.Duration)(&within), IDs: ids}
	text, err := json.Marshal(struct {
		Version                int
		ID, Entity, Time, Kind string
		Label                  *events.LabelColumn
		Fields                 []events.Field
		Memory                 events.Memory
	}{formVersion, c.ID, c.Entity, c.Time, c.Kind, c.Label, c.Fields, m})
	if err != nil {
		return "", fmt.Errorf("contract %s: memory: %w", c.Kind, err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

func indices(index map[string]int, names []string) []int {
	list := make([]int, len(names))
	for i, n := range names {
		list[i] = index[n]
	}
	return list
}

const none = -1

func (g *group) feature(index map[string]int, f events.MemoryFeature) feat {
	x := feat{take: f.Take, field: none, series: none, of: none, set: none, window: time.Duration(f.Window).Microseconds(), log: f.Log}
	if f.Empty != nil {
		x.empty, x.hasEmpty = *f.Empty, true
	}
	if f.Take.OfLabels() {
		x.delay = time.Duration(f.Delay).Microseconds()
		g.labels.add(x.window, x.delay)
		return x
	}
	if x.window > 0 {
		g.windows = append(g.windows, x.window)
	}
	field := none
	if f.Field != "" {
		field = index[f.Field]
	}
	if f.Take == events.TakeDistinct {
		x.set = g.set(field, x.window)
		return x
	}
	where := none
	if f.Where != nil {
		w := cond{field: index[f.Where.Field], is: f.Where.Is}
		if f.Where.Below != nil {
			w.below, w.hasBelow = *f.Where.Below, true
		}
		if f.Where.Above != nil {
			w.above, w.hasAbove = *f.Where.Above, true
		}
		where = g.cond(w)
	}
	var n need
	switch f.Take {
	case events.TakeSum, events.TakeMean:
		n = needSum
	case events.TakeRatio:
		n, x.field = needSum, field
	case events.TakeSD:
		n = needMoments
	case events.TakeMin:
		n = needMin
	case events.TakeMax:
		n = needMax
	case events.TakeLast:
		n = needLast | needLastValue
	case events.TakeSinceLast:
		n = needLast
	case events.TakeSinceFirst:
		n = needFirst
	case events.TakeShare:
		x.of = g.series(none, g.cond(cond{field: g.conds[where].field, known: true}), 0, x.window)
	}
	x.series = g.series(field, where, n, x.window)
	return x
}

func (g *group) cond(c cond) int {
	i := slices.IndexFunc(g.conds, func(d cond) bool {
		return c.field == d.field && c.below == d.below && c.above == d.above && c.hasBelow == d.hasBelow && c.hasAbove == d.hasAbove && c.known == d.known && slices.Equal(c.is, d.is)
	})
	if i < 0 {
		i = len(g.conds)
		g.conds = append(g.conds, c)
	}
	return i
}

func (g *group) series(field, where int, n need, window int64) int {
	list := &g.ever
	if window > 0 {
		list = &g.windowed
	}
	i := slices.IndexFunc(*list, func(s series) bool { return s.field == field && s.cond == where })
	if i < 0 {
		i = len(*list)
		s := series{field: field, cond: where, col: none}
		if window > 0 && field != none {
			if s.col = slices.Index(g.columns, field); s.col < 0 {
				s.col = len(g.columns)
				g.columns = append(g.columns, field)
			}
		}
		*list = append(*list, s)
	}
	(*list)[i].need |= n
	return i
}

func (g *group) set(field int, window int64) int {
	i := slices.IndexFunc(g.sets, func(s setDef) bool { return s.field == field && (s.span == 0) == (window == 0) })
	if i < 0 {
		i = len(g.sets)
		g.sets = append(g.sets, setDef{field: field})
	}
	g.sets[i].span = max(g.sets[i].span, window)
	return i
}

// met says whether the event meets the condition.
func (c *cond) met(rec *events.Record) bool {
	v := &rec.Values[c.field]
	switch {
	case v.State == events.Missing:
		return false
	case c.known:
		return true
	case v.State == events.HasText:
		return slices.Contains(c.is, string(v.Text))
	}
	return (!c.hasBelow || v.Num < c.below) && (!c.hasAbove || v.Num > c.above)
}
