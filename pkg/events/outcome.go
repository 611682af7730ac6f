package events

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// writer writes the fields of one JSON object or msgpack map, in the order of the calls.
// Values are what encoding/json would write, or msgpack with times as RFC 3339 strings in both.
type writer struct {
	dst  []byte
	enc  Encoding
	some bool
}

// open begins an object of n fields; msgpack says their number in front.
func (w *writer) open(n int) {
	if w.enc == Msgpack {
		w.dst = appendMap(w.dst, n)
		return
	}
	w.dst = append(w.dst, '{')
	w.some = false
}

func (w *writer) close() []byte {
	if w.enc != Msgpack {
		w.dst = append(w.dst, '}')
	}
	return w.dst
}

// key writes a name, of less than 32 plain letters.
func (w *writer) key(k string) {
	if w.enc == Msgpack {
		w.dst = append(append(w.dst, 0xa0|byte(len(k))), k...)
		return
	}
	if w.some {
		w.dst = append(w.dst, ',')
	}
	w.some = true
	w.dst = append(append(append(w.dst, '"'), k...), '"', ':')
}

func (w *writer) null(k string) {
	w.key(k)
	if w.enc == Msgpack {
		w.dst = append(w.dst, 0xc0)
	} else {
		w.dst = append(w.dst, "null"...)
	}
}

func (w *writer) str(k, v string) {
	w.key(k)
	if w.enc == Msgpack {
		w.dst = appendStr(w.dst, v)
	} else {
		w.dst = appendString(w.dst, v)
	}
}

func (w *writer) uint(k string, v uint64) {
	w.key(k)
	if w.enc == Msgpack {
		w.dst = appendUint(w.dst, v)
	} else {
		w.dst = strconv.AppendUint(w.dst, v, 10)
	}
}

func (w *writer) int(k string, v int64) {
	w.key(k)
	if w.enc == Msgpack {
		w.dst = appendInt(w.dst, v)
	} else {
		w.dst = strconv.AppendInt(w.dst, v, 10)
	}
}

func (w *writer) bool(k string, v bool) {
	w.key(k)
	switch {
	case w.enc != Msgpack:
		w.dst = strconv.AppendBool(w.dst, v)
	case v:
		w.dst = append(w.dst, 0xc3)
	default:
		w.dst = append(w.dst, 0xc2)
	}
}

// float writes v bit for bit, but what is not finite as null, in both encodings.
func (w *writer) float(k string, v float64) {
	w.key(k)
	switch {
	case w.enc != Msgpack:
		w.dst = appendFloat(w.dst, v)
	case finite(v):
		w.dst = appendFloat64(w.dst, v)
	default:
		w.dst = append(w.dst, 0xc0)
	}
}

func (w *writer) time(k string, v time.Time) {
	var buf [len(time.RFC3339Nano)]byte
	w.str(k, bytesString(v.UTC().AppendFormat(buf[:0], time.RFC3339Nano)))
}

func set(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Append writes the score in the order of its fields. Floats keep their bits; a P or Add that is not
// finite becomes null, which DecodeScore refuses. Times are RFC 3339 in UTC in both encodings;
// bytes that are not UTF-8 become U+FFFD.
func (s *Score) Append(dst []byte, enc Encoding) []byte {
	w := writer{dst: dst, enc: enc}
	w.open(12 + set(len(s.Reasons) > 0) + set(s.Model != "") + set(s.Snapshot != 0) + 2*set(s.Override != ""))
	w.str("id", s.ID)
	w.uint("seq", s.Seq)
	w.str("kind", s.Kind)
	w.str("entity", s.Entity)
	w.float("p", s.P)
	w.int("points", int64(s.Points))
	w.str("band", s.Band)
	w.str("decision", s.Decision)
	if len(s.Reasons) > 0 {
		w.key("reasons")
		if enc == Msgpack {
			w.dst = appendArray(w.dst, len(s.Reasons))
		} else {
			w.dst = append(w.dst, '[')
		}
		for i := range s.Reasons {
			if i > 0 && enc != Msgpack {
				w.dst = append(w.dst, ',')
			}
			w.open(2 + set(s.Reasons[i].Code != ""))
			w.str("field", s.Reasons[i].Field)
			w.float("add", s.Reasons[i].Add)
			if s.Reasons[i].Code != "" {
				w.str("code", s.Reasons[i].Code)
			}
			w.close()
		}
		if enc != Msgpack {
			w.dst = append(w.dst, ']')
		}
		w.some = true
	}
	if s.Model != "" {
		w.str("model", s.Model)
	}
	w.uint("revision", s.Revision)
	w.uint("contract", s.Contract)
	w.str("mode", s.Mode)
	if s.Snapshot != 0 {
		w.uint("snapshot", s.Snapshot)
	}
	w.time("time", s.Time)
	if s.Override != "" {
		w.str("override", s.Override)
		w.uint("override_revision", s.OverrideRevision)
	}
	return w.close()
}

// Append writes the outcome; see Score.Append.
func (v *Invalid) Append(dst []byte, enc Encoding) []byte {
	w := writer{dst: dst, enc: enc}
	w.open(5 + set(v.ID != "") + set(v.Field != "") + set(v.Attempts != 0))
	if v.ID != "" {
		w.str("id", v.ID)
	}
	w.uint("seq", v.Seq)
	w.str("kind", v.Kind)
	w.str("entity", v.Entity)
	if v.Field != "" {
		w.str("field", v.Field)
	}
	w.str("reason", v.Reason)
	if v.Attempts != 0 {
		w.int("attempts", int64(v.Attempts))
	}
	w.uint("contract", v.Contract)
	return w.close()
}

// Append writes the outcome; see Score.Append.
func (r *Repeat) Append(dst []byte, enc Encoding) []byte {
	w := writer{dst: dst, enc: enc}
	w.open(6 + set(r.Conflict))
	w.str("id", r.ID)
	w.uint("seq", r.Seq)
	w.uint("first_seq", r.First)
	w.str("kind", r.Kind)
	w.str("entity", r.Entity)
	if r.Conflict {
		w.bool("conflict", true)
	}
	w.uint("contract", r.Contract)
	return w.close()
}

// Append writes the outcome as JSON, whatever the events were written in.
func (x *Expired) Append(dst []byte) []byte {
	w := writer{dst: dst, enc: JSON}
	w.open(4)
	w.uint("first", x.First)
	w.uint("last", x.Last)
	w.str("kind", x.Kind)
	w.int("lane", int64(x.Lane))
	return w.close()
}

// eachField calls f for each field of body, until f gives a reason why it cannot be. The error names the
// field. key and t are valid until f returns.
func eachField(enc Encoding, body []byte, f func(key string, t *token) (reason string)) error {
	var r reader
	if e := r.open(enc, body); e != nil {
		return e
	}
	if e := r.each(f); e != nil {
		return e
	}
	return nil
}

func (r *reader) each(f func(key string, t *token) (reason string)) *InvalidError {
	var keys [][]byte
	for {
		more, e := r.next()
		if e != nil {
			return e
		}
		if !more {
			return doubled(keys)
		}
		if len(keys) == MaxFields {
			return invalidf("more than %d fields", MaxFields)
		}
		keys = append(keys, r.key)
		if reason := f(bytesString(r.key), &r.tok); reason != "" {
			return &InvalidError{Field: clip(r.key), Reason: reason}
		}
	}
}

// field readers for what the services write themselves

func (t *token) str() (string, string) {
	if t.kind != kindString && t.kind != kindNull {
		return "", "want a string"
	}
	if t.kind == kindNull {
		return "", ""
	}
	return string(t.text), ""
}

func (t *token) count() (uint64, string) {
	v, ok := t.uint()
	if !ok {
		return 0, "want an integer of 0 or more"
	}
	return v, ""
}

func (t *token) flag() (bool, string) {
	if t.kind != kindBool {
		return false, "want true or false"
	}
	return t.num == 1, ""
}

func (t *token) small() (int, string) {
	if t.kind != kindNumber || !t.isInt || t.big || t.mag > math.MaxInt32 {
		return 0, "want a small integer"
	}
	if t.neg {
		return -int(t.mag), ""
	}
	return int(t.mag), ""
}

func (t *token) float() (float64, string) {
	if t.kind != kindNumber || !finite(t.num) {
		return 0, "want a finite number"
	}
	return t.num, ""
}

func (t *token) stamp() (at time.Time, reason string) {
	if t.kind == kindTime {
		return t.at, ""
	}
	if t.kind != kindString || at.UnmarshalText(t.text) != nil {
		return time.Time{}, "want an RFC 3339 time"
	}
	return at.UTC(), ""
}

// need says which of the named fields were not among those seen.
func need(seen map[string]bool, names ...string) error {
	var absent []string
	for _, n := range names {
		if !seen[n] {
			absent = append(absent, n)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("no %s", strings.Join(absent, ", "))
	}
	return nil
}

// decodeAs reads what a service wrote. f answers false for a field that it does not know, which is passed over:
// a newer service may write more.
func decodeAs(what string, enc Encoding, body []byte, f func(key string, t *token) (known bool, reason string), required ...string) error {
	seen := make(map[string]bool, 16)
	err := eachField(enc, body, func(key string, t *token) string {
		known, reason := f(key, t)
		if known {
			seen[strings.Clone(key)] = true
		}
		return reason
	})
	if err == nil {
		err = need(seen, required...)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// DecodeScore reads what Score.Append wrote, in either encoding. Fields that it does not know
// are passed over.
func DecodeScore(body []byte) (Score, error) {
	var s Score
	enc, err := DetectEncoding("", body)
	if err != nil {
		return Score{}, fmt.Errorf("score: %w", err)
	}
	err = decodeAs("score", enc, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "id":
			s.ID, reason = t.str()
		case "seq":
			s.Seq, reason = t.count()
		case "kind":
			s.Kind, reason = t.str()
		case "entity":
			s.Entity, reason = t.str()
		case "p":
			s.P, reason = t.float()
		case "points":
			s.Points, reason = t.small()
		case "band":
			s.Band, reason = t.str()
		case "decision":
			s.Decision, reason = t.str()
		case "reasons":
			s.Reasons, reason = decodeReasons(enc, t)
		case "model":
			s.Model, reason = t.str()
		case "revision":
			s.Revision, reason = t.count()
		case "contract":
			s.Contract, reason = t.count()
		case "mode":
			s.Mode, reason = t.str()
		case "snapshot":
			s.Snapshot, reason = t.count()
		case "time":
			s.Time, reason = t.stamp()
		case "override":
			s.Override, reason = t.str()
		case "override_revision":
			s.OverrideRevision, reason = t.count()
		default:
			return false, ""
		}
		return true, reason
	}, "seq", "kind", "entity", "p", "band", "decision", "mode", "time")
	if err != nil {
		return Score{}, err
	}
	return s, nil
}

func decodeReasons(enc Encoding, t *token) ([]Reason, string) {
	if t.kind == kindNull {
		return nil, ""
	}
	if t.kind != kindArray {
		return nil, "want an array"
	}
	var list reader
	list.elements(enc, t)
	var reasons []Reason
	for {
		more, e := list.element()
		if e != nil {
			return nil, e.Error()
		}
		if !more {
			return reasons, ""
		}
		if list.tok.kind != kindObject {
			return nil, "want an array of field and add"
		}
		var one reader
		var x Reason
		one.elements(enc, &list.tok)
		if e := one.each(func(key string, t *token) (reason string) {
			switch key {
			case "field":
				x.Field, reason = t.str()
			case "add":
				x.Add, reason = t.float()
			case "code":
				x.Code, reason = t.str()
			}
			return reason
		}); e != nil {
			return nil, e.Error()
		}
		reasons = append(reasons, x)
	}
}

// DecodeInvalid reads what Invalid.Append wrote, in either encoding.
func DecodeInvalid(body []byte) (Invalid, error) {
	var v Invalid
	enc, err := DetectEncoding("", body)
	if err != nil {
		return Invalid{}, fmt.Errorf("invalid: %w", err)
	}
	err = decodeAs("invalid", enc, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "id":
			v.ID, reason = t.str()
		case "seq":
			v.Seq, reason = t.count()
		case "kind":
			v.Kind, reason = t.str()
		case "entity":
			v.Entity, reason = t.str()
		case "field":
			v.Field, reason = t.str()
		case "reason":
			v.Reason, reason = t.str()
		case "attempts":
			v.Attempts, reason = t.small()
		case "contract":
			v.Contract, reason = t.count()
		default:
			return false, ""
		}
		return true, reason
	}, "seq", "kind", "entity", "reason")
	if err != nil {
		return Invalid{}, err
	}
	return v, nil
}

// DecodeRepeat reads what Repeat.Append wrote, in either encoding.
func DecodeRepeat(body []byte) (Repeat, error) {
	var v Repeat
	enc, err := DetectEncoding("", body)
	if err != nil {
		return Repeat{}, fmt.Errorf("repeat: %w", err)
	}
	err = decodeAs("repeat", enc, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "id":
			v.ID, reason = t.str()
		case "seq":
			v.Seq, reason = t.count()
		case "first_seq":
			v.First, reason = t.count()
		case "kind":
			v.Kind, reason = t.str()
		case "entity":
			v.Entity, reason = t.str()
		case "conflict":
			v.Conflict, reason = t.flag()
		case "contract":
			v.Contract, reason = t.count()
		default:
			return false, ""
		}
		return true, reason
	}, "id", "seq", "first_seq", "kind", "entity")
	switch {
	case err != nil:
		return Repeat{}, err
	case v.First == 0 || v.First >= v.Seq:
		return Repeat{}, fmt.Errorf("repeat: first_seq %d is not before seq %d", v.First, v.Seq)
	}
	return v, nil
}

// DecodeExpired reads what Expired.Append wrote.
func DecodeExpired(body []byte) (Expired, error) {
	var x Expired
	err := decodeAs("expired", JSON, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "first":
			x.First, reason = t.count()
		case "last":
			x.Last, reason = t.count()
		case "kind":
			x.Kind, reason = t.str()
		case "lane":
			x.Lane, reason = t.small()
		default:
			return false, ""
		}
		return true, reason
	}, "first", "last", "kind", "lane")
	switch {
	case err != nil:
		return Expired{}, err
	case x.First > x.Last:
		return Expired{}, fmt.Errorf("expired: first %d is after last %d", x.First, x.Last)
	}
	return x, nil
}

// OutcomeSeq returns the event sequences, first to last, that an outcome of either encoding
// names: one event's for a score, an invalid or a repeat, a range for an expired. It reads no further than it
// must, and does not look at what it passes over but for its form.
func OutcomeSeq(body []byte) (first, last uint64, err error) {
	enc, err := DetectEncoding("", body)
	if err != nil {
		return 0, 0, fmt.Errorf("outcome: %w", err)
	}
	var r reader
	if e := r.open(enc, body); e != nil {
		return 0, 0, fmt.Errorf("outcome: %w", e)
	}
	var haveFirst, haveLast bool
	for {
		more, e := r.next()
		if e != nil {
			return 0, 0, fmt.Errorf("outcome: %w", e)
		}
		if !more {
			return 0, 0, errors.New("outcome: names no event: no seq, nor first and last")
		}
		v, ok := r.tok.uint()
		switch string(r.key) {
		case "seq":
			first, last, haveFirst, haveLast = v, v, ok, ok
		case "first":
			first, haveFirst = v, ok
		case "last":
			last, haveLast = v, ok
		default:
			continue
		}
		switch {
		case !ok:
			return 0, 0, fmt.Errorf("outcome: field %s: want an integer of 0 or more", r.key)
		case haveFirst && haveLast && first > last:
			return 0, 0, fmt.Errorf("outcome: first %d is after last %d", first, last)
		case haveFirst && haveLast:
			return first, last, nil
		}
	}
}
