package memory

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Place says which events a state is of.
type Place struct {
	Incarnation int64  // of EVENTS: its creation time, Unix ns
	Origin      uint64 // the state is that of all events from here on: 1, or the first one that the stream still held
	Seq         uint64 // up to here
	Stored      int64  // when that event was stored, Unix ns: of another stream it would be another; 0: no event
}

// Frozen is a store as it was at one moment. It may be written while the store goes on.
type Frozen struct {
	plan  *Plan
	clock int64
	any   bool
	keys  [][]row
	ids   ids
}

// Freeze copies 40 bytes a key, and of ids none. Until Thaw the store replaces every state that changes.
func (s *Store) Freeze() *Frozen {
	s.frozen = true
	f := &Frozen{plan: s.plan, clock: s.clock, any: s.any, ids: s.ids.frozen()}
	for i := range s.keys {
		f.keys = append(f.keys, slices.Clone(s.keys[i].rows))
	}
	return f
}

// Thaw says that what Freeze returned is not used any more.
func (s *Store) Thaw() { s.frozen = false }

const magic = "riskweir memory 2\n"

// Encode writes the one form of a state: the same bytes wherever and however it came about.
//
//	magic, fingerprint (64 hexadecimal digits), incarnation, origin, seq, stored, clock, any
//	for each group: the number of keys, and for each in ascending order key (16 bytes), length and state
//	the clock of ids, their number, and each in the order of the stream: see ids.append
//	SHA-256 of all that
func (f *Frozen) Encode(w io.Writer, at Place) error {
	sum := sha256.New()
	b := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	head := append([]byte(magic), f.plan.fingerprint...)
	head = binary.AppendVarint(head, at.Incarnation)
	head = binary.AppendUvarint(head, at.Origin)
	head = binary.AppendUvarint(head, at.Seq)
	head = binary.AppendVarint(head, at.Stored)
	head = binary.AppendVarint(head, f.clock)
	flag := byte(0)
	if f.any {
		flag = 1
	}
	b.Write(append(head, flag)) // an error of b comes back from Flush
	var buf []byte
	for _, rows := range f.keys {
		rows = slices.DeleteFunc(rows, func(r row) bool {
			clock, _ := binary.Varint(r.state)
			return r.state == nil || clock <= f.clock-f.plan.idle
		})
		slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.key[:], b.key[:]) })
		b.Write(binary.AppendUvarint(buf[:0], uint64(len(rows))))
		for _, r := range rows {
			buf = append(buf[:0], r.key[:]...)
			buf = binary.AppendUvarint(buf, uint64(len(r.state)))
			b.Write(buf)
			b.Write(r.state)
		}
	}
	f.keys = nil
	buf = binary.AppendVarint(buf[:0], f.ids.clock)
	b.Write(binary.AppendUvarint(buf, uint64(f.ids.len())))
	for from := f.ids.first; from < f.ids.next; {
		buf, from = f.ids.append(buf[:0], from)
		b.Write(buf)
	}
	f.ids = ids{}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	return nil
}

// maxState bounds the packed state of one key as it is read back; one has at most some tens of kilobytes.
const maxState = 1 << 22

// Decode reads what Encode wrote of the same plan, and checks every byte.
func Decode(p *Plan, r io.Reader) (*Store, Place, error) {
	d := &decoder{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	s, at := New(p), Place{}
	head := make([]byte, len(magic)+len(p.fingerprint))
	d.full(head)
	if d.err == nil && string(head) != magic+p.fingerprint {
		return nil, at, errors.New("read memory: it is of another form, or of another contract")
	}
	at.Incarnation, at.Origin, at.Seq, at.Stored, s.clock = d.varint(), d.uvarint(), d.uvarint(), d.varint(), d.varint()
	var flag [1]byte
	d.full(flag[:])
	s.any = flag[0] == 1
	var e entry
	for i := range s.keys {
		t := &s.keys[i]
		var before Key
		for j := d.uvarint(); j > 0 && d.err == nil; j-- {
			var x row
			d.full(x.key[:])
			n := d.uvarint()
			if n > maxState || len(t.rows) > 0 && bytes.Compare(before[:], x.key[:]) >= 0 {
				return nil, at, errors.New("read memory: keys out of order, or a state that is too long")
			}
			x.state = make([]byte, n)
			d.full(x.state)
			if d.err == nil && e.unpack(x.state, &p.groups[i]) != nil {
				return nil, at, fmt.Errorf("read memory: key %x: %w", x.key, errState)
			}
			before = x.key
			t.index[x.key] = uint32(len(t.rows))
			t.rows = append(t.rows, x)
		}
	}
	if err := s.ids.read(d, at.Seq); err != nil {
		return nil, at, fmt.Errorf("read memory: %w", err)
	}
	want := d.sum.Sum(nil)
	got := make([]byte, len(want))
	d.full(got)
	switch {
	case d.err != nil:
		return nil, at, fmt.Errorf("read memory: %w", d.err)
	case !bytes.Equal(got, want):
		return nil, at, errors.New("read memory: its SHA-256 is not what it says")
	}
	return s, at, nil
}

// decoder sums up all that it reads. After an error it reads zeros.
type decoder struct {
	r   *bufio.Reader
	sum hash.Hash
	err error
	one [1]byte
}

func (d *decoder) full(b []byte) {
	if d.err == nil {
		if _, d.err = io.ReadFull(d.r, b); d.err == nil {
			d.sum.Write(b)
			return
		}
	}
	clear(b)
}

func (d *decoder) ReadByte() (byte, error) {
	d.full(d.one[:])
	return d.one[0], d.err
}

func (d *decoder) uvarint() uint64 {
	v, err := binary.ReadUvarint(d)
	if d.err == nil {
		d.err = err
	}
	return v
}

func (d *decoder) varint() int64 {
	v, err := binary.ReadVarint(d)
	if d.err == nil {
		d.err = err
	}
	return v
}
