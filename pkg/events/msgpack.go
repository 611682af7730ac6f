package events

import (
	"encoding/binary"
	"math"
	"time"
	"unicode/utf8"
)

// Msgpack is read by the format's specification
// (https://github.com/msgpack/msgpack/blob/master/spec.md) as strictly as JSON: strings are
// UTF-8, names of fields are strings, nothing follows the map.

// take returns the next n bytes, or nil where there are fewer.
func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b)-r.i {
		return nil
	}
	b := r.b[r.i : r.i+n : r.i+n]
	r.i += n
	return b
}

// size reads a big-endian length of n bytes, or -1.
func (r *reader) size(n int) int {
	b := r.take(n)
	if b == nil {
		return -1
	}
	switch n {
	case 1:
		return int(b[0])
	case 2:
		return int(binary.BigEndian.Uint16(b))
	}
	if v := binary.BigEndian.Uint32(b); v <= math.MaxInt32 {
		return int(v)
	}
	return -1
}

func (r *reader) mapHeader() (int, bool) {
	n := -1
	if c := r.take(1); c != nil {
		switch {
		case c[0]&0xf0 == 0x80:
			n = int(c[0] & 0x0f)
		case c[0] == 0xde:
			n = r.size(2)
		case c[0] == 0xdf:
			n = r.size(4)
		default:
			r.i--
		}
	}
	return n, n >= 0
}

func (r *reader) arrayHeader() (int, bool) {
	n := -1
	if c := r.take(1); c != nil {
		switch {
		case c[0]&0xf0 == 0x90:
			n = int(c[0] & 0x0f)
		case c[0] == 0xdc:
			n = r.size(2)
		case c[0] == 0xdd:
			n = r.size(4)
		default:
			r.i--
		}
	}
	return n, n >= 0
}

func (r *reader) memberMsgpack() *InvalidError {
	if r.i >= len(r.b) {
		return r.syntax("want a name")
	}
	c := r.b[r.i]
	if c&0xe0 == 0xa0 { // a string of less than 32 bytes, as names are
		n := int(c & 0x1f)
		if n >= len(r.b)-r.i {
			return r.syntax("string is cut short")
		}
		r.key = r.b[r.i+1 : r.i+1+n : r.i+1+n]
		if !validText(r.key) {
			return r.syntax("name is not UTF-8")
		}
		r.i += 1 + n
		return r.valueMsgpack(0)
	}
	if err := r.valueMsgpack(0); err != nil {
		return err
	}
	if r.tok.kind != kindString {
		return r.syntax("name of a field is %s: want a string", r.tok.kind)
	}
	r.key = r.tok.text
	return r.valueMsgpack(0)
}

// valueMsgpack reads one value into r.tok. Arrays and maps are checked, and kept as they stand.
func (r *reader) valueMsgpack(depth int) *InvalidError {
	if r.i >= len(r.b) {
		return r.syntax("want a value")
	}
	t := &r.tok
	start := r.i
	c := r.b[r.i]
	r.i++
	switch {
	case c < 0x80:
		t.uintMsgpack(uint64(c))
		return nil
	case c >= 0xe0:
		t.intMsgpack(int64(int8(c)))
		return nil
	case c&0xe0 == 0xa0:
		return r.stringMsgpack(int(c & 0x1f))
	case c < 0xa0, c >= 0xdc:
		return r.nestedMsgpack(start, depth+1)
	}
	switch c {
	case 0xc0:
		t.kind = kindNull
		return nil
	case 0xc2, 0xc3:
		t.kind, t.num = kindBool, float64(c-0xc2)
		return nil
	case 0xca:
		if b := r.take(4); b != nil {
			t.floatMsgpack(float64(math.Float32frombits(binary.BigEndian.Uint32(b))))
			return nil
		}
	case 0xcb:
		if b := r.take(8); b != nil {
			t.floatMsgpack(math.Float64frombits(binary.BigEndian.Uint64(b)))
			return nil
		}
	case 0xcc:
		if b := r.take(1); b != nil {
			t.uintMsgpack(uint64(b[0]))
			return nil
		}
	case 0xcd:
		if b := r.take(2); b != nil {
			t.uintMsgpack(uint64(binary.BigEndian.Uint16(b)))
			return nil
		}
	case 0xce:
		if b := r.take(4); b != nil {
			t.uintMsgpack(uint64(binary.BigEndian.Uint32(b)))
			return nil
		}
	case 0xcf:
		if b := r.take(8); b != nil {
			t.uintMsgpack(binary.BigEndian.Uint64(b))
			return nil
		}
	case 0xd0:
		if b := r.take(1); b != nil {
			t.intMsgpack(int64(int8(b[0])))
			return nil
		}
	case 0xd1:
		if b := r.take(2); b != nil {
			t.intMsgpack(int64(int16(binary.BigEndian.Uint16(b))))
			return nil
		}
	case 0xd2:
		if b := r.take(4); b != nil {
			t.intMsgpack(int64(int32(binary.BigEndian.Uint32(b))))
			return nil
		}
	case 0xd3:
		if b := r.take(8); b != nil {
			t.intMsgpack(int64(binary.BigEndian.Uint64(b)))
			return nil
		}
	case 0xd9, 0xda, 0xdb:
		return r.stringMsgpack(r.size(1 << (c - 0xd9)))
	case 0xc4, 0xc5, 0xc6:
		t.kind = kindBinary
		if r.take(r.size(1<<(c-0xc4))) != nil {
			return nil
		}
	case 0xc7, 0xc8, 0xc9:
		return r.extMsgpack(r.size(1 << (c - 0xc7)))
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return r.extMsgpack(1 << (c - 0xd4))
	case 0xc1:
		r.i = start
		return r.syntax("byte 0xc1 is never used")
	}
	r.i = len(r.b)
	return r.syntax("value is cut short")
}

func (t *token) uintMsgpack(v uint64) {
	t.kind, t.text, t.isInt, t.neg, t.big, t.mag, t.num = kindNumber, nil, true, false, false, v, float64(v)
}

func (t *token) intMsgpack(v int64) {
	if v >= 0 {
		t.uintMsgpack(uint64(v))
		return
	}
	t.kind, t.text, t.isInt, t.neg, t.big, t.mag, t.num = kindNumber, nil, true, true, false, -uint64(v), float64(v)
}

func (t *token) floatMsgpack(v float64) {
	t.kind, t.text, t.isInt, t.num = kindNumber, nil, false, v
}

func (r *reader) stringMsgpack(n int) *InvalidError {
	b := r.take(n)
	if b == nil {
		return r.syntax("string is cut short")
	}
	if !validText(b) {
		r.i -= n
		return r.syntax("string is not UTF-8")
	}
	r.tok.kind, r.tok.text = kindString, b
	return nil
}

// validText is utf8.Valid, quicker on the short ASCII strings that events are made of.
func validText(b []byte) bool {
	const high = 0x8080808080808080
	n := len(b)
	switch {
	case n >= 8:
		var or uint64
		for i := 0; i < n-8; i += 8 {
			or |= binary.LittleEndian.Uint64(b[i:])
		}
		if (or|binary.LittleEndian.Uint64(b[n-8:]))&high == 0 {
			return true
		}
	case n >= 4:
		if (binary.LittleEndian.Uint32(b)|binary.LittleEndian.Uint32(b[n-4:]))&(high>>32) == 0 {
			return true
		}
	case n > 0: // n / 2 is the middle of 3, and the last of fewer
		if b[0]|b[n/2]|b[n-1] < utf8.RuneSelf {
			return true
		}
	}
	return utf8.Valid(b)
}

// extMsgpack reads an extension of n bytes. Type -1 is a timestamp, in three lengths.
func (r *reader) extMsgpack(n int) *InvalidError {
	typ := r.take(1)
	b := r.take(n)
	if typ == nil || b == nil {
		return r.syntax("extension is cut short")
	}
	t := &r.tok
	if typ[0] != 0xff {
		t.kind = kindBinary
		return nil
	}
	var sec int64
	var nsec uint32
	switch n {
	case 4:
		sec = int64(binary.BigEndian.Uint32(b))
	case 8:
		v := binary.BigEndian.Uint64(b)
		sec, nsec = int64(v&(1<<34-1)), uint32(v>>34)
	case 12:
		nsec, sec = binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint64(b[4:]))
	default:
		r.i -= n
		return r.syntax("timestamp of %d bytes: want 4, 8 or 12", n)
	}
	if nsec > 999_999_999 {
		r.i -= n
		return r.syntax("timestamp with %d nanoseconds", nsec)
	}
	t.kind, t.at = kindTime, time.Unix(sec, int64(nsec)).UTC()
	return nil
}

// nestedMsgpack checks the array or map that starts at start and moves behind it.
func (r *reader) nestedMsgpack(start, depth int) *InvalidError {
	r.i = start
	if depth > MaxDepth {
		return r.syntax("nested deeper than %d", MaxDepth)
	}
	what := kindArray
	n, ok := r.arrayHeader()
	if !ok {
		what = kindObject
		if n, ok = r.mapHeader(); !ok {
			return r.syntax("length of an array or map")
		}
		n *= 2
	}
	for range n {
		if err := r.valueMsgpack(depth); err != nil {
			return err
		}
	}
	r.tok.kind, r.tok.text = what, r.b[start:r.i]
	return nil
}

// appendMap and the functions after it write msgpack. Integers take their shortest form.
func appendMap(dst []byte, n int) []byte { return appendHeader(dst, n, 0x80, 0xde) }

func appendArray(dst []byte, n int) []byte { return appendHeader(dst, n, 0x90, 0xdc) }

func appendHeader(dst []byte, n int, fix, long byte) []byte {
	switch {
	case n < 16:
		return append(dst, fix|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, long), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, long+1), uint32(n))
}

// appendStr writes s; each byte that is not UTF-8 becomes U+FFFD.
func appendStr(dst []byte, s string) []byte {
	if !validText(stringBytes(s)) {
		s = string([]rune(s))
	}
	switch n := len(s); {
	case n < 32:
		dst = append(dst, 0xa0|byte(n))
	case n <= math.MaxUint8:
		dst = append(dst, 0xd9, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, 0xda), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, 0xdb), uint32(n))
	}
	return append(dst, s...)
}

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 128:
		return append(dst, byte(v))
	case v <= math.MaxUint8:
		return append(dst, 0xcc, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xcf), v)
}

func appendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return appendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, 0xd0, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(v))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(v))
}

func appendFloat64(dst []byte, f float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(f))
}
