package memory

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Verdict is what its id says of an event. The zero value: no earlier event has it, or none that is still known.
type Verdict struct {
	First    uint64 // sequence of the event that had the id; 0: there is none
	Conflict bool   // the content of that one was another
}

// Repeated says that an earlier event had the id.
func (v Verdict) Repeated() bool { return v.First != 0 }

// ids are those of the latest events, in the order of the stream. Time is when events were stored, and never runs back.
//
//	entries stand at positions first to next-1, position p in chunks[p/idChunk - first/idChunk]
//	seq ascends from entry to entry, stored does not descend; stored > clock - within
//	next - first <= most
//	table holds each entry's position once, nowhere behind a free place from where its key belongs
type ids struct {
	within int64 // ns; 0: ids are not looked at
	most   int
	fields int   // of the contract, which come first among a record's values
	clock  int64 // ns: the latest time at which an event was stored
	first  uint64
	next   uint64
	chunks []*[idChunk]idEntry
	table  []uint32 // see place; 0: free. Its length is a power of two.
}

const idChunk = 1 << 12

// idEntry is written once, and so may be read by a snapshot while more come.
type idEntry struct {
	key     Key
	content uint64
	seq     uint64
	stored  int64 // ns, or the clock if that was later
}

func newIDs(c *events.Contract) ids {
	within, most := c.Memory.RepeatsOrDefault()
	return ids{within: int64(within), most: most, fields: len(c.Fields), table: make([]uint32, 64)}
}

func (s *ids) len() int { return int(s.next - s.first) }

func (s *ids) entry(pos uint64) *idEntry { return &s.chunks[pos/idChunk-s.first/idChunk][pos%idChunk] }

// positions are told modulo this in table, and one more, so that 0 is free. most is far less.
const idPlaces = math.MaxUint32

func place(pos uint64) uint32 { return uint32(pos%idPlaces) + 1 }

func (s *ids) position(place uint32) uint64 {
	return s.first + (uint64(place-1)+idPlaces-s.first%idPlaces)%idPlaces
}

func home(k *Key) uint64 { return binary.LittleEndian.Uint64(k[:]) }

// find is the entry with the key, or nil; i is its place in table, or the free one where it belongs.
func (s *ids) find(key *Key) (e *idEntry, i uint64) {
	mask := uint64(len(s.table) - 1)
	for i = home(key) & mask; s.table[i] != 0; i = (i + 1) & mask {
		if e := s.entry(s.position(s.table[i])); e.key == *key {
			return e, i
		}
	}
	return nil, i
}

// at is the time that counts for an event stored then; zero, as of a row of a file: the clock stands.
func (s *ids) at(stored time.Time) int64 {
	if stored.IsZero() {
		return s.clock
	}
	return max(s.clock, stored.UnixNano())
}

// judge says what the event's id says of it, and changes nothing.
func (s *ids) judge(ev Event, key *Key) Verdict {
	e, _ := s.find(key)
	if e == nil || e.stored <= s.at(ev.Stored)-s.within {
		return Verdict{}
	}
	return Verdict{First: e.seq, Conflict: e.content != s.contentOf(ev)}
}

// pass lets go of what is too old once an event is stored then.
func (s *ids) pass(stored time.Time) {
	s.clock = s.at(stored)
	for s.first < s.next && s.entry(s.first).stored <= s.clock-s.within {
		s.drop()
	}
}

// add enters an id that is not known.
func (s *ids) add(x idEntry) {
	if s.len() >= s.most {
		s.drop()
	}
	if 4*(s.len()+1) > 3*len(s.table) {
		s.table = make([]uint32, 2*len(s.table))
		for pos := s.first; pos < s.next; pos++ {
			_, i := s.find(&s.entry(pos).key)
			s.table[i] = place(pos)
		}
	}
	if s.next/idChunk-s.first/idChunk == uint64(len(s.chunks)) {
		s.chunks = append(s.chunks, new([idChunk]idEntry))
	}
	_, i := s.find(&x.key)
	*s.entry(s.next) = x
	s.table[i] = place(s.next)
	s.next++
}

// drop lets the oldest go, and moves those back in table that had to give way to it.
func (s *ids) drop() {
	mask := uint64(len(s.table) - 1)
	_, free := s.find(&s.entry(s.first).key)
	for i := (free + 1) & mask; s.table[i] != 0; i = (i + 1) & mask {
		from := home(&s.entry(s.position(s.table[i])).key)
		if (i-from)&mask >= (i-free)&mask {
			s.table[free], free = s.table[i], i
		}
	}
	s.table[free] = 0
	if s.first++; s.first%idChunk == 0 {
		s.chunks[0] = nil
		s.chunks = s.chunks[1:]
	}
}

// idOf is false if the event gives none, or stands in no log, or ids are not looked at.
func (s *ids) idOf(ev Event) (Key, bool) {
	if s.within == 0 || ev.Seq == 0 || len(ev.Record.ID) == 0 {
		return Key{}, false
	}
	sum := sha256.Sum256(ev.Record.ID)
	return Key(sum[:16]), true
}

// contentOf is of what the contract reads: entity, time if the event gives one, and the fields' values, however they were written.
func (s *ids) contentOf(ev Event) uint64 {
	var buf [512]byte
	b := appendKeyPart(buf[:0], ev.entity())
	if t := ev.Record.Time; t.IsZero() {
		b = append(b, 0)
	} else {
		b = append(b, 1)
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Unix()))
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Nanosecond()))
	}
	for i := range ev.Record.Values[:s.fields] {
		v := &ev.Record.Values[i]
		b = append(b, byte(v.State))
		switch v.State {
		case events.HasNum:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Num+0)) // -0 is 0
		case events.HasText:
			b = appendKeyPart(b, v.Text)
		}
	}
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// frozen is what ids hold at this moment. More may be added to them, and the oldest dropped.
func (s *ids) frozen() ids {
	f := *s
	f.chunks, f.table = append([]*[idChunk]idEntry(nil), s.chunks...), nil
	return f
}

// append writes the ids from position from on, as many as make a good write:
//
//	for each: key, content (8 bytes), seq and stored as differences to those of the one before
func (s *ids) append(dst []byte, from uint64) ([]byte, uint64) {
	var seq uint64
	var stored int64
	if from > s.first {
		e := s.entry(from - 1)
		seq, stored = e.seq, e.stored
	}
	end := min(from+idChunk, s.next)
	for ; from < end; from++ {
		e := s.entry(from)
		dst = append(dst, e.key[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, e.content)
		dst = binary.AppendUvarint(dst, e.seq-seq)
		dst = binary.AppendUvarint(dst, uint64(e.stored-stored))
		seq, stored = e.seq, e.stored
	}
	return dst, end
}

var errIDs = errors.New("ids that cannot be: too many, too old, twice or out of order")

// read reads clock, number and ids of events up to last.
func (s *ids) read(d *decoder, last uint64) error {
	s.clock = d.varint()
	n := d.uvarint()
	if d.err == nil && (s.clock < 0 || n > uint64(s.most) || s.within == 0 && (n > 0 || s.clock != 0)) {
		return errIDs
	}
	var x idEntry
	var content [8]byte
	for ; n > 0 && d.err == nil; n-- {
		d.full(x.key[:])
		d.full(content[:])
		x.content = binary.LittleEndian.Uint64(content[:])
		more, later := d.uvarint(), d.uvarint()
		if d.err != nil {
			break
		}
		known, _ := s.find(&x.key)
		if more == 0 || more > last-x.seq || later > uint64(s.clock-x.stored) || known != nil {
			return errIDs
		}
		if x.seq, x.stored = x.seq+more, x.stored+int64(later); x.stored <= s.clock-s.within {
			return errIDs
		}
		s.add(x)
	}
	return nil
}
