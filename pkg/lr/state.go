package lr

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
)

// A state is, all numbers little-endian and of 8 bytes if nothing else is said:
//
//	magic (8 bytes), version
//	FTRL:    cols, alpha, beta, l1, l2, 1 if without intercept or 0,
//	         rows judged, positives, weight, Σ loss, Σ square,
//	         z and n of the intercept,
//	         count, and as often: column, z, n, columns ascending, those left out that were never seen
//	Delayed: capacity, expired, count, and as often: id, p, length, and as often: column, value,
//	         the oldest row first; then length and bytes of the learner's state
//	SHA-256 of all before (32 bytes)
//
// There is one way to write a state, and no other is read.
const (
	ftrlFormat, delayedFormat = "FTRL state", "delayed FTRL state"
	ftrlMagic, delayedMagic   = "lr/ftrl\n", "lr/wait\n"
	stateVersion              = 1
	wordBytes                 = 8
	columnBytes               = 3 * wordBytes
	waitingBytes              = 3 * wordBytes
)

// AppendBinary appends the state of the learner to b: what [DecodeFTRL] needs to make one that
// learns and predicts the same bits from here on. Equal states have equal bytes. The
// error is always nil.
func (f *FTRL) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, ftrlMagic...)
	o := f.options
	without := uint64(0)
	if o.NoIntercept {
		without = 1
	}
	b = appendWords(b, stateVersion, uint64(o.Cols))
	b = appendFloats(b, o.Alpha, o.Beta, o.L1, o.L2)
	b = appendWords(b, without, uint64(f.progress.N), uint64(f.progress.Positives))
	b = appendFloats(b, f.progress.Weight, f.losses, f.squares, f.intercept.z, f.intercept.n)
	at := len(b)
	b = appendWords(b, 0)
	count := uint64(0)
	for j := range f.columns {
		if c := &f.columns[j]; c.seen() {
			b = appendWords(b, uint64(j))
			b = appendFloats(b, c.z, c.n)
			count++
		}
	}
	binary.LittleEndian.PutUint64(b[at:], count)
	sum := sha256.Sum256(b[from:])
	return append(b, sum[:]...), nil
}

func (c *coordinate) seen() bool {
	return math.Float64bits(c.z) != 0 || math.Float64bits(c.n) != 0
}

// MarshalBinary is AppendBinary to nothing.
func (f *FTRL) MarshalBinary() ([]byte, error) { return f.AppendBinary(nil) }

// DecodeFTRL reads a learner's state. It takes 32 bytes of memory a column, so a state of
// more than mostCols columns is refused before. The error is a [FormatError], [VersionError],
// [ShapeError] or [OptionError].
func DecodeFTRL(state []byte, mostCols int) (*FTRL, error) {
	r, err := openState(ftrlFormat, ftrlMagic, state)
	if err != nil {
		return nil, err
	}
	cols := r.word()
	o := FTRLOptions{Alpha: r.float(), Beta: r.float(), L1: r.float(), L2: r.float()}
	without := r.word()
	n, positives := r.word(), r.word()
	weight, losses, squares := r.float(), r.float(), r.float()
	intercept := coordinate{z: r.float(), n: r.float()}
	count := r.word()
	switch {
	case r.short:
		return nil, r.fail("", "ends too soon")
	case cols > maxFTRLCols || cols > uint64(max(mostCols, 0)):
		return nil, r.fail("cols", fmt.Sprintf("is %d, want at most %d", cols, min(mostCols, maxFTRLCols)))
	case o.Alpha == 0 || o.Beta == 0:
		return nil, r.fail("alpha or beta", "is 0")
	case without > 1:
		return nil, r.fail("flag", fmt.Sprintf("is %d, want 0 or 1", without))
	case n > math.MaxInt || positives > n:
		return nil, r.fail("rows", fmt.Sprintf("are %d and %d positives", n, positives))
	case !isSum(weight) || !isSum(losses) || !isSum(squares):
		return nil, r.fail("progressive sums", "are not finite numbers of 0 or more")
	case !isState(intercept.z, intercept.n) || without == 1 && intercept.seen():
		return nil, r.fail("intercept", "is not a state")
	case count > cols || uint64(len(r.rest)) != count*columnBytes:
		return nil, r.fail("columns", fmt.Sprintf("are %d of %d, in %d bytes", count, cols, len(r.rest)))
	}
	o.Cols, o.NoIntercept = int(cols), without == 1
	f, err := NewFTRL(o)
	if err != nil {
		return nil, err
	}
	f.progress = Progressive{N: int(n), Positives: int(positives), Weight: weight}
	f.losses, f.squares = losses, squares
	f.intercept = intercept
	next := uint64(0)
	for range count {
		j := r.word()
		c := coordinate{z: r.float(), n: r.float()}
		if j < next || j >= cols || !isState(c.z, c.n) || !c.seen() {
			return nil, r.fail(fmt.Sprintf("column %d", j), "is out of order, out of range or not a state")
		}
		next = j + 1
		f.columns[j] = c
	}
	f.settle()
	return f, nil
}

// isSum tells a finite number of 0 or more, but not -0.
func isSum(v float64) bool { return v >= 0 && v <= math.MaxFloat64 && !math.Signbit(v) }

func isState(z, n float64) bool { return math.Abs(z) <= math.MaxFloat64 && isSum(n) }

// AppendBinary appends the state of the learner and of the rows that wait for labels; see
// [DecodeDelayed]. The error is always nil.
func (d *Delayed) AppendBinary(b []byte) ([]byte, error) {
	from := len(b)
	b = append(b, delayedMagic...)
	b = appendWords(b, stateVersion, uint64(d.capacity), uint64(d.expired), uint64(len(d.rows)))
	for e := d.order.Front(); e != nil; e = e.Next() {
		w := e.Value.(*waiting)
		b = appendWords(b, w.id)
		b = appendFloats(b, w.p)
		b = appendWords(b, uint64(len(w.index)))
		for k, j := range w.index {
			b = appendWords(b, uint64(j))
			b = appendFloats(b, w.data[k])
		}
	}
	at := len(b)
	b = appendWords(b, 0)
	b, err := d.learner.AppendBinary(b)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint64(b[at:], uint64(len(b)-at-wordBytes))
	sum := sha256.Sum256(b[from:])
	return append(b, sum[:]...), nil
}

// MarshalBinary is AppendBinary to nothing.
func (d *Delayed) MarshalBinary() ([]byte, error) { return d.AppendBinary(nil) }

// DecodeDelayed reads the state of a learner and the rows that wait for labels. For mostCols
// and errors see [DecodeFTRL].
func DecodeDelayed(state []byte, mostCols int) (*Delayed, error) {
	r, err := openState(delayedFormat, delayedMagic, state)
	if err != nil {
		return nil, err
	}
	capacity, expired, count := r.word(), r.word(), r.word()
	if r.short {
		return nil, r.fail("", "ends too soon")
	}
	if capacity < 1 || capacity > math.MaxInt || expired > math.MaxInt || count > capacity || count > uint64(len(r.rest))/waitingBytes {
		return nil, r.fail("capacity", fmt.Sprintf("is %d, for %d rows and %d forgotten", capacity, count, expired))
	}
	rows := make([]*waiting, count)
	for i := range rows {
		w := &waiting{id: r.word(), p: r.float()}
		length := r.word()
		if r.short || length > uint64(len(r.rest))/(2*wordBytes) || !(w.p >= 0 && w.p <= 1) || math.Signbit(w.p) {
			return nil, r.fail(fmt.Sprintf("waiting row %d", i), "is cut or not a prediction")
		}
		w.index, w.data = make([]int32, length), make([]float64, length)
		for k := range w.index {
			j := r.word()
			if j > math.MaxInt32 {
				return nil, r.fail(fmt.Sprintf("waiting row %d", i), fmt.Sprintf("has column %d", j))
			}
			w.index[k], w.data[k] = int32(j), r.float()
		}
		rows[i] = w
	}
	if length := r.word(); r.short || length != uint64(len(r.rest)) {
		return nil, r.fail("learner", "has another length than it says")
	}
	learner, err := DecodeFTRL(r.rest, mostCols)
	if err != nil {
		return nil, err
	}
	d, err := NewDelayed(learner, int(capacity))
	if err != nil {
		return nil, err
	}
	d.expired = int(expired)
	for i, w := range rows {
		if err := learner.check(w.index, w.data); err != nil {
			return nil, r.fail(fmt.Sprintf("waiting row %d", i), err.Error())
		}
		if _, ok := d.rows[w.id]; ok {
			return nil, r.fail(fmt.Sprintf("waiting row %d", i), fmt.Sprintf("has the id %d of another", w.id))
		}
		d.rows[w.id] = d.order.PushBack(w)
	}
	return d, nil
}

// stateReader reads words; beyond the end it reads 0 and remembers.
type stateReader struct {
	format string
	rest   []byte
	short  bool
}

// openState judges magic, version and checksum.
func openState(format, magic string, state []byte) (*stateReader, error) {
	r := &stateReader{format: format, rest: state}
	if !bytes.HasPrefix(state, []byte(magic)) {
		return nil, r.fail("", "does not begin as one")
	}
	r.rest = r.rest[len(magic):]
	version := r.word()
	if !r.short && version != stateVersion {
		return nil, &VersionError{Format: format, Version: version, Want: stateVersion}
	}
	if r.short || len(r.rest) < sha256.Size {
		return nil, r.fail("", "ends too soon")
	}
	end := len(state) - sha256.Size
	if sum := sha256.Sum256(state[:end]); !bytes.Equal(sum[:], state[end:]) {
		return nil, r.fail("checksum", "is not that of the content: it was altered or cut")
	}
	r.rest = r.rest[:len(r.rest)-sha256.Size]
	return r, nil
}

func (r *stateReader) word() uint64 {
	if len(r.rest) < wordBytes {
		r.rest, r.short = nil, true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[wordBytes:]
	return v
}

func (r *stateReader) float() float64 { return math.Float64frombits(r.word()) }

func (r *stateReader) fail(where, problem string) error {
	return &FormatError{Format: r.format, Where: where, Problem: problem}
}

func appendWords(b []byte, words ...uint64) []byte {
	for _, w := range words {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

func appendFloats(b []byte, floats ...float64) []byte {
	for _, v := range floats {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return b
}
