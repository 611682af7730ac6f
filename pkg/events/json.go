package events

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON is read by RFC 8259, more strictly than encoding/json: bytes that are not UTF-8
// and half surrogate pairs are errors.

func (r *reader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return
		}
	}
}

// more stops before the next entry of an object or array, or behind its closing bracket.
func (r *reader) more(closing byte) (bool, *InvalidError) {
	r.space()
	if r.i >= len(r.b) {
		return false, r.syntax("want %q", closing)
	}
	first := r.left == 0
	r.left = 1
	switch c := r.b[r.i]; {
	case c == closing:
		r.i++
		return false, nil
	case first:
	case c == ',':
		r.i++
		r.space()
		if r.i < len(r.b) && r.b[r.i] == closing {
			return false, r.syntax("nothing between ',' and %q", closing)
		}
	default:
		return false, r.syntax("want ',' or %q", closing)
	}
	return true, nil
}

func (r *reader) memberJSON() *InvalidError {
	key, err := r.stringJSON()
	if err != nil {
		return err
	}
	r.key = key
	r.space()
	if r.i >= len(r.b) || r.b[r.i] != ':' {
		return r.syntax("want ':' behind a name")
	}
	r.i++
	r.space()
	return r.valueJSON(0)
}

// valueJSON reads one value into r.tok. Arrays and objects are checked, and kept as they stand.
func (r *reader) valueJSON(depth int) (err *InvalidError) {
	if r.i >= len(r.b) {
		return r.syntax("want a value")
	}
	t := &r.tok
	switch c := r.b[r.i]; c {
	case '"':
		t.kind = kindString
		t.text, err = r.stringJSON()
		return err
	case '{', '[':
		start := r.i
		if err := r.skipJSON(depth + 1); err != nil {
			return err
		}
		t.kind, t.text = kindArray, r.b[start:r.i]
		if c == '{' {
			t.kind = kindObject
		}
		return nil
	case 't':
		t.kind, t.num = kindBool, 1
		return r.word("true")
	case 'f':
		t.kind, t.num = kindBool, 0
		return r.word("false")
	case 'n':
		t.kind = kindNull
		return r.word("null")
	}
	end := scanNumber(r.b, r.i, t)
	if end < 0 {
		return r.syntax("want a value")
	}
	r.i = end
	return nil
}

func (r *reader) word(w string) *InvalidError {
	if len(r.b)-r.i < len(w) || string(r.b[r.i:r.i+len(w)]) != w {
		return r.syntax("want %s", w)
	}
	r.i += len(w)
	return nil
}

// skipJSON checks the array or object that starts here and moves behind it. Names that stand
// twice in it are nobody's concern.
func (r *reader) skipJSON(depth int) *InvalidError {
	if depth > MaxDepth {
		return r.syntax("nested deeper than %d", MaxDepth)
	}
	closing := r.b[r.i] + 2 // '{' + 2 = '}', '[' + 2 = ']'
	r.i++
	outer := r.left
	r.left = 0
	for {
		more, err := r.more(closing)
		if !more || err != nil {
			r.left = outer
			return err
		}
		if closing == '}' {
			if _, err := r.stringJSON(); err != nil {
				return err
			}
			if r.space(); r.i >= len(r.b) || r.b[r.i] != ':' {
				return r.syntax("want ':' behind a name")
			}
			r.i++
			r.space()
		}
		if err := r.valueJSON(depth); err != nil {
			return err
		}
	}
}

// stops are the bytes at which a plain run of a JSON string ends.
var stops = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

func (r *reader) stringJSON() ([]byte, *InvalidError) {
	if r.i >= len(r.b) || r.b[r.i] != '"' {
		return nil, r.syntax("want a string")
	}
	r.i++
	start := r.i
	b, i := r.b, r.i
	for i < len(b) && !stops[b[i]] {
		i++
	}
	r.i = i
	if i < len(b) && b[i] == '"' {
		r.i++
		return b[start:i:i], nil
	}
	return r.unescape(start)
}

// unescape reads on from the first byte that does not stand for itself.
func (r *reader) unescape(start int) ([]byte, *InvalidError) {
	from := len(r.scratch)
	out := append(r.scratch, r.b[start:r.i]...)
	for r.i < len(r.b) {
		c := r.b[r.i]
		switch {
		case c == '"':
			r.i++
			r.scratch = out
			return out[from:len(out):len(out)], nil
		case c < 0x20:
			return nil, r.syntax("control character in a string")
		case c != '\\':
			n := 1
			for r.i+n < len(r.b) && !stops[r.b[r.i+n]] {
				n++
			}
			out = append(out, r.b[r.i:r.i+n]...)
			r.i += n
			continue
		}
		if r.i+1 >= len(r.b) {
			r.i++
			break
		}
		if e := r.b[r.i+1]; e != 'u' {
			k := bytes.IndexByte([]byte(`"\/bfnrt`), e)
			if k < 0 {
				return nil, r.syntax("unknown escape")
			}
			out = append(out, "\"\\/\b\f\n\r\t"[k])
			r.i += 2
			continue
		}
		u := r.hex4(r.i + 2)
		if u < 0 {
			return nil, r.syntax("want four hexadecimal digits behind \\u")
		}
		n := 6
		if utf16.IsSurrogate(u) {
			low := rune(-1)
			if r.i+7 < len(r.b) && r.b[r.i+6] == '\\' && r.b[r.i+7] == 'u' {
				low = r.hex4(r.i + 8)
			}
			if u = utf16.DecodeRune(u, low); u == utf8.RuneError {
				return nil, r.syntax("half a surrogate pair")
			}
			n = 12
		}
		out = utf8.AppendRune(out, u)
		r.i += n
	}
	return nil, r.syntax("string without an end")
}

func (r *reader) hex4(i int) rune {
	if i+4 > len(r.b) {
		return -1
	}
	u := rune(0)
	for _, c := range r.b[i : i+4] {
		switch {
		case isDigit(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		u = u<<4 | rune(c)
	}
	return u
}

// appendString writes s as a JSON string. Each byte that is not UTF-8 becomes U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if !stops[c] {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\n':
				dst = append(dst, '\\', 'n')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		u, n := utf8.DecodeRuneInString(s[i:])
		if u == utf8.RuneError && n == 1 {
			dst = append(dst, s[start:i]...)
			dst = utf8.AppendRune(dst, utf8.RuneError)
			start = i + 1
		}
		i += n
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
