package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Event is what Step is told of one. Record has been decoded without an error.
type Event struct {
	Record *events.Record
	Entity []byte    // of the subject; nil: Record's
	Stored time.Time // zero: not known, as of a row of a file; Record.Time must be set then
	Seq    uint64    // in the log, ascending; 0: it stands in none, and its id is not looked at
}

// Key names the state of one key without telling it: the first 128 bits of the SHA-256 of the values.
type Key [16]byte

// Store holds the state of all keys. It belongs to one goroutine.
type Store struct {
	plan  *Plan
	clock int64 // highest time of all events, µs: a key is forgotten when its own is idle behind it
	any   bool  // an event has been folded
	keys  []table
	ids   ids
	dead  uint64 // steps until the next look for idle keys

	cache   []loaded // entries of the present event
	used    int
	scratch []byte
	reader  reader
	frozen  bool // packed states are shared with a snapshot: replace them, do not overwrite
}

// table of one group. index[key] is the place in rows; free places have no state.
type table struct {
	index map[Key]uint32
	rows  []row
	free  []uint32
	sweep int // place of the next row to be looked at for idleness
}

type row struct {
	key   Key
	state []byte // packed entry
}

// loaded is the entry of one key of the present event.
type loaded struct {
	group int
	key   Key
	found bool
	entry entry
}

// New is the state before the first event.
func New(p *Plan) *Store {
	s := &Store{plan: p, keys: make([]table, len(p.groups)), ids: newIDs(&p.Schema.Contract)}
	for i := range s.keys {
		s.keys[i].index = map[Key]uint32{}
	}
	return s
}

func (s *Store) Plan() *Plan { return s.plan }

// Keys is how many keys have a state, those that are idle but not yet let go included.
func (s *Store) Keys() int {
	n := 0
	for i := range s.keys {
		n += len(s.keys[i].index)
	}
	return n
}

// Bytes of packed state.
func (s *Store) Bytes() int {
	n := 0
	for i := range s.keys {
		for _, r := range s.keys[i].rows {
			n += len(r.state)
		}
	}
	return n
}

// IDs is how many events' ids are known.
func (s *Store) IDs() int { return s.ids.len() }

// Step puts the event's features into out, len(out) == Plan.Width, NaN for a missing one, and then folds the event. One whose id an earlier
// event has is not folded, and has no features: all are missing.
func (s *Store) Step(ev Event, out []float64) Verdict {
	key, ok := s.ids.idOf(ev)
	if ok {
		v := s.ids.judge(ev, &key)
		if s.ids.pass(ev.Stored); v.Repeated() {
			missing(out)
			return v
		}
		s.ids.add(idEntry{key: key, content: s.ids.contentOf(ev), seq: ev.Seq, stored: s.ids.clock})
	}
	at := s.begin(ev)
	s.read(ev, at, out)
	s.fold(ev, at)
	return Verdict{}
}

// Read puts the features that the event would have now into out, as Step does, and changes nothing.
func (s *Store) Read(ev Event, out []float64) Verdict {
	if key, ok := s.ids.idOf(ev); ok {
		if v := s.ids.judge(ev, &key); v.Repeated() {
			missing(out)
			return v
		}
	}
	at := s.begin(ev)
	s.read(ev, at, out)
	return Verdict{}
}

func missing(out []float64) {
	for i := range out {
		out[i] = math.NaN()
	}
}

func (s *Store) begin(ev Event) int64 {
	s.used = 0
	return when(ev).UnixMicro()
}

// when is the event's time as memory counts it, in whole microseconds.
func when(ev Event) time.Time {
	at := ev.Record.Time
	if at.IsZero() || !ev.Stored.IsZero() && at.Sub(ev.Stored) > maxAhead {
		at = ev.Stored
		if !ev.Record.Time.IsZero() {
			at = at.Add(maxAhead)
		}
	}
	return time.UnixMicro(at.UnixMicro()).UTC()
}

func (s *Store) read(ev Event, at int64, out []float64) {
	p := s.plan
	for i := range p.lookups {
		l := &p.lookups[i]
		key, ok := keyOf(ev, l.by)
		if !ok {
			for _, f := range l.feats {
				out[f] = math.NaN()
			}
			continue
		}
		x := s.load(l.group, key, at)
		e := &x.entry
		if !x.found {
			e = nil
		}
		s.reader.done = s.reader.done[:0]
		for _, f := range l.feats {
			out[f] = s.reader.read(e, &p.groups[l.group], &p.features[f], ev.Record, at)
		}
	}
}

func (s *Store) fold(ev Event, at int64) {
	if !s.any || at > s.clock {
		s.any, s.clock = true, at
	}
	for i := range s.plan.groups {
		g := &s.plan.groups[i]
		if key, ok := keyOf(ev, g.by); ok {
			x := s.load(i, key, at)
			if !x.found {
				x.entry.labels.horizon = s.clock - s.plan.idle
			}
			x.entry.fold(g, ev, at, !x.found)
			s.scratch = x.entry.pack(s.scratch[:0], g)
			s.put(i, key, s.scratch)
		}
	}
	s.sweep()
}

// load unpacks the state of a key. One that has been idle at the present event has none: whether it has been let go yet does
// not matter.
func (s *Store) load(group int, key Key, at int64) *loaded {
	for i := range s.cache[:s.used] {
		if x := &s.cache[i]; x.group == group && x.key == key {
			return x
		}
	}
	if s.used == len(s.cache) {
		s.cache = append(s.cache, loaded{})
	}
	x := &s.cache[s.used]
	s.used++
	x.group, x.key, x.found = group, key, false
	g := &s.plan.groups[group]
	t := &s.keys[group]
	if i, ok := t.index[key]; ok {
		if err := x.entry.unpack(t.rows[i].state, g); err != nil {
			panic(fmt.Sprintf("memory: state of key %x: %v", key, err)) // it was packed here, or checked as a snapshot was read
		}
		now := at
		if s.any {
			now = max(at, s.clock)
		}
		x.found = x.entry.clock > now-s.plan.idle
	}
	if !x.found {
		x.entry.reset(g)
	}
	return x
}

func (s *Store) put(group int, key Key, state []byte) {
	t := &s.keys[group]
	i, ok := t.index[key]
	if !ok {
		if n := len(t.free); n > 0 {
			i, t.free = t.free[n-1], t.free[:n-1]
		} else {
			i = uint32(len(t.rows))
			t.rows = append(t.rows, row{})
		}
		t.index[key] = i
		t.rows[i].key = key
	}
	r := &t.rows[i]
	if s.frozen || cap(r.state) < len(state) || cap(r.state) > 2*len(state)+64 {
		r.state = append(make([]byte, 0, len(state)+len(state)/8), state...)
		return
	}
	r.state = append(r.state[:0], state...)
}

// sweepEvery events four keys of each group are looked at, so that idle ones leave in time without a pause.
const sweepEvery = 2

func (s *Store) sweep() {
	if s.dead++; s.dead%sweepEvery != 0 {
		return
	}
	for i := range s.keys {
		t := &s.keys[i]
		for range min(4, len(t.rows)) {
			if t.sweep++; t.sweep >= len(t.rows) {
				t.sweep = 0
			}
			r := &t.rows[t.sweep]
			if r.state == nil {
				continue
			}
			if clock, _ := binary.Varint(r.state); clock <= s.clock-s.plan.idle {
				delete(t.index, r.key)
				*r = row{}
				t.free = append(t.free, uint32(t.sweep))
			}
		}
	}
}

// entity of the event, as its subject says it; empty if nothing does.
func (ev Event) entity() []byte {
	if ev.Entity == nil {
		return ev.Record.Entity
	}
	return ev.Entity
}

// keyOf is false if one of the fields has no value.
func keyOf(ev Event, by []int) (Key, bool) {
	var buf [256]byte
	b := buf[:0]
	for _, f := range by {
		text := ev.entity()
		if f >= 0 {
			v := &ev.Record.Values[f]
			if v.State != events.HasText {
				return Key{}, false
			}
			text = v.Text
		}
		if len(text) == 0 {
			return Key{}, false
		}
		b = appendKeyPart(b, text)
	}
	sum := sha256.Sum256(b)
	return Key(sum[:16]), true
}

func appendKeyPart(dst, value []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(value))), value...)
}
