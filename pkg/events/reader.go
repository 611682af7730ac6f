package events

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindTime   // the msgpack timestamp extension
	kindBinary // msgpack bin, or an extension other than the timestamp
	kindArray
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a timestamp", "binary", "an array", "an object"}[k]
}

// token is one value. Only what belongs to its kind is set.
type token struct {
	kind  kind
	text  []byte  // string: its text; number in JSON: its literal; array, object: as it stands in the body
	num   float64 // number; bool as 0 or 1
	isInt bool    // an integer in JSON's grammar, or one of msgpack's; its value is ±mag unless big
	neg   bool
	big   bool // beyond 64 bits
	mag   uint64
	at    time.Time
}

// appendText writes a number or a boolean as text: in JSON the literal; in msgpack the
// decimal integer, or the float as JSON would write it.
func (t *token) appendText(dst []byte) []byte {
	switch {
	case t.kind == kindBool:
		return strconv.AppendBool(dst, t.num != 0)
	case t.text != nil:
		return append(dst, t.text...)
	case t.isInt:
		if t.neg {
			dst = append(dst, '-')
		}
		return strconv.AppendUint(dst, t.mag, 10)
	}
	return appendFloat(dst, t.num)
}

// uint says whether the token is an integer in [0, 2^64).
func (t *token) uint() (uint64, bool) {
	if t.kind != kindNumber || !t.isInt || t.big || t.neg && t.mag != 0 {
		return 0, false
	}
	return t.mag, true
}

// reader walks the fields of one JSON object or msgpack map, or the elements of an array.
type reader struct {
	enc     Encoding
	b       []byte
	i       int
	left    int // msgpack: entries to come. JSON: 0 before the first entry, then 1
	key     []byte
	tok     token
	scratch []byte // strings with escapes, unescaped; old ones stay valid when it grows
}

// open begins to read body, which must be an object.
func (r *reader) open(enc Encoding, body []byte) *InvalidError {
	r.enc, r.b, r.i, r.left = enc, body, 0, 0
	if len(body) > MaxEventBytes {
		return invalidf("body has %d bytes: at most %d", len(body), MaxEventBytes)
	}
	switch enc {
	case JSON:
		if !utf8.Valid(body) {
			return invalidf("not JSON: byte %d is not UTF-8", firstInvalid(body))
		}
		r.space()
		if r.i >= len(body) || body[r.i] != '{' {
			return r.syntax("want an object")
		}
		r.i++
		return nil
	case Msgpack:
		n, ok := r.mapHeader()
		if !ok {
			return r.syntax("want a map")
		}
		r.left = n
		return nil
	}
	return invalidf("encoding %d is neither JSON nor msgpack", enc)
}

// next reads a key and its value into r.key and r.tok. It returns false behind the last,
// when it has made sure that nothing follows the object.
func (r *reader) next() (bool, *InvalidError) {
	if r.enc == JSON {
		more, err := r.more('}')
		if !more || err != nil {
			if err == nil {
				if r.space(); r.i != len(r.b) {
					err = r.syntax("something follows the object")
				}
			}
			return false, err
		}
		return true, r.memberJSON()
	}
	if r.left == 0 {
		if r.i != len(r.b) {
			return false, r.syntax("something follows the map")
		}
		return false, nil
	}
	r.left--
	return true, r.memberMsgpack()
}

// elements begins to read an array or object value that another reader kept as it stood.
func (r *reader) elements(enc Encoding, t *token) {
	r.enc, r.b, r.i, r.left = enc, t.text, 1, 0
	if enc == Msgpack {
		r.i = 0
		if t.kind == kindArray {
			r.left, _ = r.arrayHeader()
		} else {
			r.left, _ = r.mapHeader()
		}
	}
}

// element reads the next element of an array into r.tok.
func (r *reader) element() (bool, *InvalidError) {
	if r.enc == JSON {
		more, err := r.more(']')
		if !more || err != nil {
			return false, err
		}
		return true, r.valueJSON(0)
	}
	if r.left == 0 {
		return false, nil
	}
	r.left--
	return true, r.valueMsgpack(0)
}

func (r *reader) syntax(format string, a ...any) *InvalidError {
	name := "JSON"
	if r.enc == Msgpack {
		name = "msgpack"
	}
	what := fmt.Sprintf(format, a...)
	if r.i >= len(r.b) {
		return invalidf("not %s: it ends at byte %d: %s", name, len(r.b), what)
	}
	return invalidf("not %s at byte %d: %s", name, r.i, what)
}

func firstInvalid(b []byte) int {
	i := 0
	for i < len(b) {
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n <= 1 {
			break
		}
		i += n
	}
	return i
}

// clip shortens what came from outside so that it fits into a message.
func clip[T string | []byte](s T) string {
	const most = 48
	if len(s) <= most {
		return string(s)
	}
	n := most
	for n > most-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return string(s[:n]) + "…"
}
