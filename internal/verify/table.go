package verify

import "hash/fnv"

// table knows of each event its lane, a hash of its entity and whether it has an outcome, in
// 4 bytes a sequence: 40 MB for ten million.
//
//	bit 31     has an outcome
//	bits 24-30 lane + 1; 0: EVENTS holds no event here
//	bits 0-23  hash of the entity
type table struct {
	first, last uint64 // sequences, both inclusive; first > last: empty
	chunks      []*[chunkLen]uint32
	before      seqSet // outcomes of events older than first
}

const (
	chunkLen  = 1 << 16
	hashBits  = 24
	hasResult = 1 << 31
	maxLane   = 125
)

func newTable(first, last uint64) *table {
	t := &table{first: first, last: last, before: seqSet{}}
	if first <= last {
		t.chunks = make([]*[chunkLen]uint32, (last-first)/chunkLen+1)
	}
	return t
}

func entityHash(token string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(token))
	v := h.Sum32()
	return (v ^ v>>hashBits) & (1<<hashBits - 1)
}

func (t *table) cell(seq uint64) *uint32 {
	if seq < t.first || seq > t.last {
		return nil
	}
	i := seq - t.first
	c := t.chunks[i/chunkLen]
	if c == nil {
		c = new([chunkLen]uint32)
		t.chunks[i/chunkLen] = c
	}
	return &c[i%chunkLen]
}

// event enters an event of EVENTS. first <= seq <= last, lane <= maxLane.
func (t *table) event(seq uint64, lane int, token string) {
	*t.cell(seq) = uint32(lane+1)<<hashBits | entityHash(token)
}

// lane of an event; ok is false where EVENTS holds none.
func (t *table) lane(seq uint64) (lane int, ok bool) {
	c := t.cell(seq)
	if c == nil {
		return 0, false
	}
	lane = int(*c>>hashBits&127) - 1
	return lane, lane >= 0
}

// named says whether token is the entity of the event, up to one error in 2^24.
func (t *table) named(seq uint64, token string) bool {
	return *t.cell(seq)&(1<<hashBits-1) == entityHash(token)
}

// outcome marks an event as having one, and says whether it had one already.
func (t *table) outcome(seq uint64) (already bool) {
	if seq < t.first {
		return t.before.add(seq)
	}
	c := t.cell(seq)
	already = *c&hasResult != 0
	*c |= hasResult
	return already
}

// missing yields the events without an outcome, in order.
func (t *table) missing(yield func(seq uint64, lane int) bool) {
	for i, c := range t.chunks {
		if c == nil {
			continue
		}
		for j, v := range c {
			if lane := int(v >> hashBits & 127); lane > 0 && v&hasResult == 0 {
				if !yield(t.first+uint64(i)*chunkLen+uint64(j), lane-1) {
					return
				}
			}
		}
	}
}

// seqSet has a bit for each sequence, by seq / chunkLen.
type seqSet map[uint64]*[chunkLen / 64]uint64

// add says whether it was there already.
func (s seqSet) add(seq uint64) (already bool) {
	b := s[seq/chunkLen]
	if b == nil {
		b = new([chunkLen / 64]uint64)
		s[seq/chunkLen] = b
	}
	word, bit := &b[seq%chunkLen/64], uint64(1)<<(seq%64)
	already = *word&bit != 0
	*word |= bit
	return already
}

func (s seqSet) has(seq uint64) bool {
	b := s[seq/chunkLen]
	return b != nil && b[seq%chunkLen/64]&(1<<(seq%64)) != 0
}
