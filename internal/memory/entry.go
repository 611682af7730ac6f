package memory

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"
)

// entry is the state of one key, unpacked.
//
//	clock is the highest time of the key's events: its windows end there
//	items ascend in last, and are later than clock - span
//	len(sets[i].members) <= maxDistinct
type entry struct {
	clock int64
	ever  []acc
	items []item
	vals  []float64 // of items that are single events: the columns' values, where present
	accs  []acc     // of panes: one for each windowed series
	sets  []set

	labels labels
}

// item is one event in the windows, or a pane: several that stand next to each other in time.
type item struct {
	first, last int64 // µs
	pane        bool
	mask        uint64 // of an event: columns present, then conditions met
	at          int    // in vals or accs
}

// set of distinct values, by the hash of each. Of a set that has grown past maxDistinct those are kept whose hash begins with level
// zero bits, so that it is a sample of one in 2^level.
type set struct {
	level   uint8
	lost    int64 // clock when a value was last let go; 0 with level 0
	members []member
}

type member struct {
	hash uint64
	last int64
}

func (e *entry) reset(g *group) {
	e.clock = 0
	e.ever = slices.Grow(e.ever[:0], len(g.ever))[:len(g.ever)]
	clear(e.ever)
	e.items, e.vals, e.accs = e.items[:0], e.vals[:0], e.accs[:0]
	e.labels = labels{spans: e.labels.spans[:0]}
	e.sets = slices.Grow(e.sets[:0], len(g.sets))[:len(g.sets)]
	for i := range e.sets {
		e.sets[i] = set{members: e.sets[i].members[:0]}
	}
}

// errState says that bytes are no state of this plan.
var errState = errors.New("not a state of this memory")

// pack appends the one serialised form of e. Times are differences from clock; a float is the bytes of its bits from the last to the
// first as a varint, in which whole numbers are short.
func (e *entry) pack(dst []byte, g *group) []byte {
	dst = binary.AppendVarint(dst, e.clock)
	for i := range e.ever {
		dst = e.ever[i].pack(dst, g.ever[i].need, e.clock)
	}
	if g.span > 0 {
		dst = binary.AppendUvarint(dst, uint64(len(e.items)))
		before := e.clock
		for i := len(e.items) - 1; i >= 0; i-- {
			it := &e.items[i]
			dst = binary.AppendUvarint(dst, uint64(before-it.last))
			before = it.last
			if it.pane {
				dst = binary.AppendUvarint(dst, 1)
				dst = binary.AppendUvarint(dst, uint64(it.last-it.first))
				for j := range g.windowed {
					dst = e.accs[it.at+j].pack(dst, g.windowed[j].need, it.last)
				}
				continue
			}
			dst = binary.AppendUvarint(dst, it.mask<<1)
			for j := range bits.OnesCount64(it.mask & g.columnMask()) {
				dst = packFloat(dst, e.vals[it.at+j])
			}
		}
	}
	for i := range e.sets {
		s := &e.sets[i]
		dst = append(dst, s.level)
		if s.level > 0 {
			dst = binary.AppendUvarint(dst, uint64(e.clock-s.lost))
		}
		dst = binary.AppendUvarint(dst, uint64(len(s.members)))
		for _, m := range s.members {
			dst = binary.LittleEndian.AppendUint64(dst, m.hash)
			if g.sets[i].span > 0 {
				dst = binary.AppendUvarint(dst, uint64(e.clock-m.last))
			}
		}
	}
	if g.labels.on {
		dst = e.labels.pack(dst, &g.labels, e.clock)
	}
	return dst
}

func (g *group) columnMask() uint64 { return 1<<len(g.columns) - 1 }

func packFloat(dst []byte, x float64) []byte {
	if x != x {
		x = math.NaN() // what else it says is the processor's
	}
	return binary.AppendUvarint(dst, bits.ReverseBytes64(math.Float64bits(x)))
}

func (a *acc) pack(dst []byte, need need, clock int64) []byte {
	dst = binary.AppendUvarint(dst, a.n)
	if a.n == 0 {
		return dst
	}
	if need&needSum != 0 {
		dst = packFloat(packFloat(dst, a.sum), a.lost)
	}
	if need&needMoments != 0 {
		dst = packFloat(packFloat(dst, a.mean), a.m2)
	}
	if need&needMin != 0 {
		dst = packFloat(dst, a.min)
	}
	if need&needMax != 0 {
		dst = packFloat(dst, a.max)
	}
	if need&needFirst != 0 {
		dst = binary.AppendUvarint(dst, uint64(clock-a.first))
	}
	if need&needLast != 0 {
		dst = binary.AppendUvarint(dst, uint64(clock-a.last))
	}
	if need&needLastValue != 0 {
		dst = packFloat(dst, a.lastValue)
	}
	return dst
}

// unpack reads what pack wrote; it keeps nothing of b.
func (e *entry) unpack(b []byte, g *group) error {
	e.reset(g)
	r := parser{b: b}
	e.clock = r.varint()
	for i := range e.ever {
		r.acc(&e.ever[i], g.ever[i].need, e.clock)
	}
	if g.span > 0 {
		n := r.length(2)
		e.items = slices.Grow(e.items, n)[:n]
		before := e.clock
		for i := n - 1; i >= 0; i-- {
			it := item{last: before - r.span()}
			before = it.last
			if mask := r.uvarint(); mask&1 != 0 {
				it.pane, it.first, it.at = true, it.last-r.span(), len(e.accs)
				for j := range g.windowed {
					e.accs = append(e.accs, acc{})
					r.acc(&e.accs[it.at+j], g.windowed[j].need, it.last)
				}
				r.fail(mask != 1)
			} else {
				it.mask, it.first, it.at = mask>>1, it.last, len(e.vals)
				r.fail(it.mask>>(len(g.columns)+len(g.conds)) != 0)
				for range bits.OnesCount64(it.mask & g.columnMask()) {
					e.vals = append(e.vals, r.float())
				}
			}
			e.items[i] = it
			if r.bad {
				return errState
			}
		}
	}
	for i := range e.sets {
		s := &e.sets[i]
		if s.level = r.byte(); s.level > 0 {
			s.lost = e.clock - r.span()
		}
		n := r.length(8)
		r.fail(n > maxDistinct || s.level > 63)
		for j := range n {
			m := member{hash: r.fixed()}
			if g.sets[i].span > 0 {
				m.last = e.clock - r.span()
			}
			r.fail(j > 0 && s.members[j-1].hash >= m.hash)
			if r.bad {
				return errState
			}
			s.members = append(s.members, m)
		}
	}
	if g.labels.on {
		r.labels(&e.labels, &g.labels, e.clock)
	}
	if r.bad || len(r.b) > 0 {
		return errState
	}
	return nil
}

// parser reads a packed entry. Once bad it stays so, and reads zeros.
type parser struct {
	b   []byte
	bad bool
}

func (r *parser) fail(bad bool) {
	if bad {
		r.bad, r.b = true, nil
	}
}

func (r *parser) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || n > 1 && r.b[n-1] == 0 { // the form is one: no padding
		r.fail(true)
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *parser) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// maxTime bounds every time and difference, in µs: years 1 to 9999 are well within.
const maxTime = 1 << 60

func (r *parser) span() int64 {
	v := r.uvarint()
	r.fail(v > maxTime)
	if r.bad {
		return 0
	}
	return int64(v)
}

// length of a list whose elements have at least size bytes.
func (r *parser) length(size int) int {
	n := r.uvarint()
	r.fail(n > uint64(len(r.b)/size))
	if r.bad {
		return 0
	}
	return int(n)
}

func (r *parser) byte() byte {
	if len(r.b) == 0 {
		r.fail(true)
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *parser) fixed() uint64 {
	if len(r.b) < 8 {
		r.fail(true)
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

func (r *parser) float() float64 { return math.Float64frombits(bits.ReverseBytes64(r.uvarint())) }

func (r *parser) acc(a *acc, need need, clock int64) {
	*a = acc{n: r.uvarint()}
	if a.n == 0 || r.bad {
		return
	}
	if need&needSum != 0 {
		a.sum, a.lost = r.float(), r.float()
	}
	if need&needMoments != 0 {
		a.mean, a.m2 = r.float(), r.float()
	}
	if need&needMin != 0 {
		a.min = r.float()
	}
	if need&needMax != 0 {
		a.max = r.float()
	}
	if need&needFirst != 0 {
		a.first = clock - r.span()
	}
	if need&needLast != 0 {
		a.last = clock - r.span()
	}
	if need&needLastValue != 0 {
		a.lastValue = r.float()
	}
}
