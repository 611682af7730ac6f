package lr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// The msgpack form of a [File] is a map of format, version, intercept, weights (an array of
// 64-bit floats), names (an array of strings, empty if there are none) and checksum, in
// this order and each in its shortest encoding (github.com/msgpack/msgpack, spec.md), so it
// is read by position, and anything else is refused.

const fileMembers = 6

// Msgpack returns the file as msgpack. Errors are as those of Check.
func (f File) Msgpack() ([]byte, error) {
	if err := f.Check(); err != nil {
		return nil, err
	}
	payload := f.payload()
	return appendString(appendString(payload, "checksum"), checksum(payload)), nil
}

// payload is the msgpack form up to the checksum.
func (f File) payload() []byte {
	b := make([]byte, 0, 128+9*len(f.Model.Weights))
	b = append(b, 0x80|fileMembers)
	b = appendString(appendString(b, "format"), modelFormat)
	b = append(appendString(b, "version"), modelVersion)
	b = appendFloat(appendString(b, "intercept"), f.Model.Intercept)
	b = appendArray(appendString(b, "weights"), len(f.Model.Weights))
	for _, w := range f.Model.Weights {
		b = appendFloat(b, w)
	}
	b = appendArray(appendString(b, "names"), len(f.Columns))
	for _, name := range f.Columns {
		b = appendString(b, name)
	}
	return b
}

func decodeMsgpack(b []byte) (File, error) {
	r := &msgpackReader{rest: b}
	r.literal([]byte{0x80 | fileMembers})
	r.key("format")
	format := r.text()
	r.key("version")
	version := r.uint()
	if r.err == nil {
		r.err = checkHead(format, version)
	}
	r.key("intercept")
	f := File{Model: Model{Intercept: r.float()}}
	r.key("weights")
	f.Model.Weights = make([]float64, r.array(9))
	for j := range f.Model.Weights {
		f.Model.Weights[j] = r.float()
	}
	r.key("names")
	if n := r.array(1); n > 0 {
		f.Columns = make([]string, n)
		for j := range f.Columns {
			f.Columns[j] = r.text()
		}
	}
	r.key("checksum")
	sum := r.text()
	if r.err != nil {
		return File{}, r.err
	}
	if len(r.rest) > 0 {
		return File{}, &FormatError{Format: modelFile, Problem: "has something behind its end"}
	}
	if err := f.sealedBy(sum); err != nil {
		return File{}, err
	}
	canonical, err := f.Msgpack()
	if err != nil {
		return File{}, err
	}
	if !bytes.Equal(b, canonical) {
		return File{}, &FormatError{Format: modelFile, Problem: "is not in the one form that is written"}
	}
	return f, nil
}

func appendFloat(b []byte, v float64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0xcb), math.Float64bits(v))
}

func appendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 1<<5:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}

func appendArray(b []byte, n int) []byte {
	switch {
	case n < 1<<4:
		return append(b, 0x90|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
	}
}

// msgpackReader reads one value after the other. After an error it reads zero values.
type msgpackReader struct {
	rest []byte
	at   string // the member that is read
	err  error
}

func (r *msgpackReader) fail(problem string) {
	if r.err == nil {
		r.err = &FormatError{Format: modelFile, Where: r.at, Problem: problem}
	}
	r.rest = nil
}

func (r *msgpackReader) take(n uint64) []byte {
	if r.err != nil || uint64(len(r.rest)) < n {
		r.fail("ends too soon")
		return make([]byte, min(n, 8))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *msgpackReader) literal(want []byte) {
	if r.err == nil && !bytes.HasPrefix(r.rest, want) {
		r.fail("does not begin as one")
		return
	}
	r.take(uint64(len(want)))
}

func (r *msgpackReader) key(want string) {
	r.at = want
	if got := r.text(); r.err == nil && got != want {
		r.fail(fmt.Sprintf("was to come, not %q", got))
	}
}

// size reads a big-endian number of n bytes.
func (r *msgpackReader) size(n uint64) uint64 {
	v := uint64(0)
	for _, b := range r.take(n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *msgpackReader) text() string {
	switch kind := r.take(1)[0]; {
	case r.err != nil:
	case kind&0xe0 == 0xa0:
		return string(r.take(uint64(kind & 0x1f)))
	case kind == 0xd9, kind == 0xda, kind == 0xdb:
		return string(r.take(r.size(1 << (kind - 0xd9))))
	default:
		r.fail(fmt.Sprintf("has type byte %#02x, want a string", kind))
	}
	return ""
}

func (r *msgpackReader) uint() uint64 {
	switch kind := r.take(1)[0]; {
	case r.err != nil:
	case kind < 0x80:
		return uint64(kind)
	case kind >= 0xcc && kind <= 0xcf:
		return r.size(1 << (kind - 0xcc))
	default:
		r.fail(fmt.Sprintf("has type byte %#02x, want a whole number", kind))
	}
	return 0
}

func (r *msgpackReader) float() float64 {
	if kind := r.take(1)[0]; r.err == nil && kind != 0xcb {
		r.fail(fmt.Sprintf("has type byte %#02x, want a 64-bit float", kind))
	}
	return math.Float64frombits(r.size(8))
}

// array reads the length of an array whose elements take least bytes or more, of which
// there must be as many.
func (r *msgpackReader) array(least uint64) uint64 {
	n := uint64(0)
	switch kind := r.take(1)[0]; {
	case r.err != nil:
	case kind&0xf0 == 0x90:
		n = uint64(kind & 0x0f)
	case kind == 0xdc, kind == 0xdd:
		n = r.size(2 << (kind - 0xdc))
	default:
		r.fail(fmt.Sprintf("has type byte %#02x, want an array", kind))
	}
	if n > uint64(len(r.rest))/least {
		r.fail(fmt.Sprintf("has %d elements in %d bytes", n, len(r.rest)))
		return 0
	}
	return n
}
