package events

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"
)

// Decode reads an event under the contract into rec, whatever rec held before. Any error is an
// *InvalidError. An error of one field does not stop it: it reads on, so that rec.ID and rec.Entity
// are known where the body has them, and returns the first error.
//
// The event is one flat JSON object or msgpack map:
//
//	number    a finite number
//	money     Minor 0: a number of major units, or a decimal string such as "12.50";
//	          Minor n: an integer of units of 10^-n, or a string of one
//	category  a string, "" being missing; a number or a boolean is taken by its text: in JSON
//	          the literal, in msgpack the decimal integer, or the float as JSON would write it
//	bool      true or false, or a number that is 1 or 0
//	time      an RFC 3339 string with a zone, or msgpack's timestamp; years 1 to 9999
//	id        a string or an integer of at most MaxIDBytes; entity likewise, MaxEntityBytes
//
// Null is missing, and so is a string that is one of Field.Missing, or a number (money: as it is
// written, before it is divided) equal to one of them. A name that stands twice is an error. A
// field that the contract does not name is checked for its form only, and may be nested.
func (s *Schema) Decode(enc Encoding, body []byte, rec *Record) error {
	if e := s.decode(enc, body, rec); e != nil {
		return e
	}
	return nil
}

func (s *Schema) decode(enc Encoding, body []byte, rec *Record) *InvalidError {
	rec.Reset(s)
	r := &rec.r
	if e := r.open(enc, body); e != nil {
		return e
	}
	var first *InvalidError
	for k := 0; ; k++ {
		if enc == Msgpack {
			k = s.usual(rec, k)
		}
		more, e := r.next()
		if e != nil {
			return orFirst(first, e)
		}
		if !more {
			break
		}
		if k == MaxFields {
			return orFirst(first, invalidf("more than %d fields", MaxFields))
		}
		slot := s.find(rec, k)
		if slot < 0 {
			rec.Unknown++
			rec.others = append(rec.others, r.key)
			continue
		}
		if rec.mark(slot) {
			e = twice(r.key)
		} else {
			e = s.set(rec, slot, &r.tok)
		}
		if first == nil {
			first = e
		}
	}
	if first == nil {
		first = doubled(rec.others)
	}
	if first == nil {
		first = s.check(rec)
	}
	return first
}

// usual reads msgpack entries from the k-th on as long as they are what nearly all are: a field at its place of the event before,
// with a float64 for a number or a short string for a category, and none of them possibly a missing one. It returns the place of the
// first that is not, which has not been touched: what to do with it is left to those who know all cases.
func (s *Schema) usual(rec *Record, k int) int {
	r := &rec.r
	b, i := r.b, r.i
	for ; r.left > 0 && k < len(rec.order) && rec.order[k] >= 0; k++ {
		slot := int(rec.order[k])
		x := &s.slots[slot]
		n := len(x.Name)
		at := i + 1 + n // of the value
		if !x.usual || n > 31 || at >= len(b) || b[i] != 0xa0|byte(n) || string(b[i+1:at]) != x.Name {
			break
		}
		w, bit := slot>>6, uint64(1)<<(slot&63)
		if rec.seen[w]&bit != 0 {
			break
		}
		v, c := &rec.Values[slot], b[at]
		if x.Type == Category {
			end := at + 1 + int(c&0x1f)
			if c&0xe0 != 0xa0 || end > len(b) || end == at+1 || !validText(b[at+1:end]) {
				break
			}
			v.State, v.Text = HasText, b[at+1:end:end]
			i = end
		} else {
			if c != 0xcb || at+9 > len(b) {
				break
			}
			num := math.Float64frombits(binary.BigEndian.Uint64(b[at+1:]))
			if !finite(num) {
				break
			}
			v.State, v.Num = HasNum, num
			i = at + 9
		}
		rec.seen[w] |= bit
		r.left--
	}
	r.i = i
	return k
}

func orFirst(first, e *InvalidError) *InvalidError {
	if first != nil {
		return first
	}
	return e
}

// find returns the slot of the k-th key, or -1.
func (s *Schema) find(rec *Record, k int) int {
	key := rec.r.key
	if k < len(rec.order) {
		if g := rec.order[k]; g >= 0 && s.slots[g].Name == string(key) {
			return int(g)
		}
	} else {
		rec.order = append(rec.order, -1)
	}
	slot, ok := s.index[string(key)]
	if !ok {
		slot = -1
	}
	rec.order[k] = int32(slot)
	return slot
}

func twice(name []byte) *InvalidError {
	return &InvalidError{Field: clip(name), Reason: "stands twice"}
}

// doubled finds a name that stands twice. It reorders names.
func doubled(names [][]byte) *InvalidError {
	if len(names) <= 8 {
		for i, a := range names {
			for _, b := range names[:i] {
				if bytes.Equal(a, b) {
					return twice(a)
				}
			}
		}
		return nil
	}
	slices.SortFunc(names, bytes.Compare)
	for i := 1; i < len(names); i++ {
		if bytes.Equal(names[i-1], names[i]) {
			return twice(names[i])
		}
	}
	return nil
}

// set gives a slot of rec the value of t.
func (s *Schema) set(rec *Record, i int, t *token) *InvalidError {
	x := &s.slots[i]
	var reason string
	switch x.role {
	case roleField:
		reason = x.value(&rec.Values[i], t, &rec.r.scratch)
	case roleID:
		rec.ID, reason = t.name(&rec.r.scratch, MaxIDBytes)
	case roleEntity:
		rec.Entity, reason = t.name(&rec.r.scratch, MaxEntityBytes)
	case roleIDEntity:
		rec.ID, reason = t.name(&rec.r.scratch, min(MaxIDBytes, MaxEntityBytes))
		rec.Entity = rec.ID
	case roleTime:
		if t.kind != kindNull {
			rec.Time, reason = t.time()
		}
	case roleLabel:
	}
	if reason != "" {
		return &InvalidError{Field: x.Name, Reason: reason}
	}
	return nil
}

// value reads t as the field says. On a reason, v is left missing.
func (x *slot) value(v *Value, t *token, scratch *[]byte) (reason string) {
	if t.kind == kindNull || x.isMissing(t) {
		return ""
	}
	var num float64
	switch x.Type {
	case Category:
		switch t.kind {
		case kindString:
			if len(t.text) > 0 {
				v.State, v.Text = HasText, t.text
			}
			return ""
		case kindNumber, kindBool:
			if t.kind == kindNumber && t.text == nil && !finite(t.num) {
				return "is not a finite number"
			}
			v.State, v.Text = HasText, t.alias(scratch)
			return ""
		}
		return fmt.Sprintf("is %s: want a string", t.kind)
	case Number:
		if t.kind != kindNumber {
			return fmt.Sprintf("is %s: want a number", x.describe(t))
		}
		num = t.num
	case Money:
		var missing bool
		if num, missing, reason = x.money(t); missing || reason != "" {
			return reason
		}
	case Bool:
		if t.kind != kindBool && !(t.kind == kindNumber && (t.num == 0 || t.num == 1)) {
			return fmt.Sprintf("is %s: want true or false", x.describe(t))
		}
		num = math.Abs(t.num) // -0 is false too
	case Time:
		at, reason := t.time()
		if reason != "" {
			return reason
		}
		num = float64(at.Unix()) + float64(at.Nanosecond())/1e9
	}
	if !finite(num) {
		return "is not a finite number"
	}
	v.State, v.Num = HasNum, num
	return ""
}

// isMissing says whether t is one of the field's missing texts.
func (x *slot) isMissing(t *token) bool {
	if len(x.Missing) == 0 {
		return false
	}
	var buf [64]byte
	text := t.text
	switch t.kind {
	case kindString:
	case kindNumber, kindBool:
		if x.Type != Category {
			return t.kind == kindNumber && slices.Contains(x.missingNums, t.num)
		}
		text = t.appendText(buf[:0])
	default:
		return false
	}
	for _, m := range x.Missing {
		if m == string(text) {
			return true
		}
	}
	return false
}

// money returns the amount in major units. A decimal string may be a missing number otherwise written.
func (x *slot) money(t *token) (amount float64, missing bool, reason string) {
	var n token
	switch t.kind {
	case kindNumber:
	case kindString:
		if end := scanNumber(t.text, 0, &n); end != len(t.text) || bytes.ContainsAny(t.text, "eE") {
			return 0, false, fmt.Sprintf("is %s: want a decimal such as \"12.50\"", x.describe(t))
		}
		t = &n
		missing = slices.Contains(x.missingNums, n.num)
	default:
		return 0, false, fmt.Sprintf("is %s: want an amount of %s", t.kind, x.Currency)
	}
	switch {
	case missing:
	case x.Minor == 0:
		amount = t.num
	case t.isInt:
		amount = minorUnits(t, x.Minor, x.div)
	default:
		return 0, false, fmt.Sprintf("is %s: want an integer, of 10^-%d %s", x.describe(t), x.Minor, x.Currency)
	}
	return amount, missing, ""
}

// describe tells a scalar as a message may: nothing of a sensitive field's value.
func (x *slot) describe(t *token) string {
	if x.Sensitive {
		return t.kind.String()
	}
	switch t.kind {
	case kindString:
		return fmt.Sprintf("the string %q", clip(t.text))
	case kindNumber:
		if !finite(t.num) {
			return "a number that is not finite"
		}
		return "the number " + clip(t.appendText(nil))
	case kindBool:
		return string(t.appendText(nil))
	}
	return t.kind.String()
}

// alias is the token's text, in the body where it stands there, else in scratch.
func (t *token) alias(scratch *[]byte) []byte {
	if t.kind != kindBool && t.text != nil {
		return t.text
	}
	from := len(*scratch)
	*scratch = t.appendText(*scratch)
	return (*scratch)[from:len(*scratch):len(*scratch)]
}

// name reads an id: a string, or an integer by its text.
func (t *token) name(scratch *[]byte, most int) ([]byte, string) {
	var text []byte
	switch {
	case t.kind == kindNull:
		return nil, ""
	case t.kind == kindString:
		text = t.text
	case t.kind == kindNumber && t.isInt:
		text = t.alias(scratch)
	default:
		return nil, fmt.Sprintf("is %s: want a string or an integer", t.kind)
	}
	if len(text) > most {
		return nil, fmt.Sprintf("has %d bytes: at most %d", len(text), most)
	}
	return text, ""
}

func (t *token) time() (time.Time, string) {
	at := t.at
	switch t.kind {
	case kindTime:
	case kindString:
		var reason string
		if at, reason = parseTime(t.text); reason != "" {
			return time.Time{}, reason
		}
	default:
		return time.Time{}, fmt.Sprintf("is %s: want a time such as %q", t.kind, exampleTime)
	}
	if y := at.Year(); y < 1 || y > 9999 {
		return time.Time{}, "has a year outside 1 to 9999"
	}
	if at.IsZero() {
		return time.Time{}, "is the zero time: leave it out where there is none"
	}
	return at, ""
}

const exampleTime = "2026-01-31T12:00:00Z"

// parseTime reads RFC 3339 with a zone. The 'T' may be a space and letters may be small,
// as the RFC allows.
func parseTime(text []byte) (time.Time, string) {
	var at time.Time
	if err := at.UnmarshalText(text); err == nil {
		return at.UTC(), ""
	}
	// The longest: 2006-01-02T15:04:05.999999999+07:00
	if len(text) >= len("2006-01-02") && len(text) < 64 {
		var buf [64]byte
		b := bytes.ToUpper(append(buf[:0], text...))
		if len(b) > 10 && b[10] == ' ' {
			b[10] = 'T'
		}
		if at.UnmarshalText(b) == nil {
			return at.UTC(), ""
		}
		if at.UnmarshalText(append(b, 'Z')) == nil || len(b) == 10 && at.UnmarshalText(append(b, "T00:00:00Z"...)) == nil ||
			len(b) == 16 && at.UnmarshalText(append(b, ":00Z"...)) == nil {
			return time.Time{}, fmt.Sprintf("has no time zone: want RFC 3339 such as %q", exampleTime)
		}
	}
	return time.Time{}, fmt.Sprintf("is not an RFC 3339 time such as %q", exampleTime)
}

func finite(f float64) bool { return math.Abs(f) <= math.MaxFloat64 }
