package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

// The twins read with general libraries, slowly and plainly, what reader reads.

type member struct {
	name  string
	value any // nil, bool, json.Number, string, or a nested value
}

// membersJSON reads a flat object with encoding/json, and then refuses what that lets pass.
func membersJSON(body []byte) ([]member, error) {
	if !utf8.Valid(body) {
		return nil, errors.New("not UTF-8")
	}
	if !json.Valid(body) {
		return nil, errors.New("not JSON")
	}
	if halfPair(body) {
		return nil, errors.New("half a surrogate pair")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, errors.New("not an object")
	}
	var out []member
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return nil, err
		}
		m := member{name: tok.(string)}
		if seen[m.name] {
			return nil, errors.New("twice")
		}
		seen[m.name] = true
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// halfPair finds a \uD800..\uDFFF escape without its other half, in JSON known to be valid.
func halfPair(b []byte) bool {
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			continue
		}
		i++
		if b[i] != 'u' {
			continue
		}
		u, _ := strconv.ParseUint(string(b[i+1:i+5]), 16, 16)
		i += 4
		if u < 0xD800 || u > 0xDFFF {
			continue
		}
		if u >= 0xDC00 || i+6 >= len(b) || b[i+1] != '\\' || b[i+2] != 'u' {
			return true
		}
		low, _ := strconv.ParseUint(string(b[i+3:i+7]), 16, 16)
		if low < 0xDC00 || low > 0xDFFF {
			return true
		}
		i += 6
	}
	return false
}

// membersReader reads the same with reader.
func membersReader(enc Encoding, body []byte) ([]member, *InvalidError) {
	var r reader
	if e := r.open(enc, body); e != nil {
		return nil, e
	}
	var out []member
	var names [][]byte
	for {
		more, e := r.next()
		if e != nil {
			return nil, e
		}
		if !more {
			return out, doubled(names)
		}
		names = append(names, r.key)
		m := member{name: string(r.key)}
		switch t := &r.tok; t.kind {
		case kindNull:
		case kindBool:
			m.value = t.num == 1
		case kindNumber:
			m.value = t.num
		case kindString:
			m.value = string(t.text)
		case kindTime:
			m.value = t.at
		default:
			m.value = t.kind
		}
		out = append(out, m)
	}
}

// depth of nesting below the outermost object.
func depthJSON(b []byte) int {
	dec := json.NewDecoder(bytes.NewReader(b))
	deepest, depth := 0, -1
	for {
		tok, err := dec.Token()
		if err != nil {
			return deepest
		}
		switch tok {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

func compareJSON(t *testing.T, body []byte) {
	want, wantErr := membersJSON(body)
	got, gotErr := membersReader(JSON, body)
	if wantErr == nil && depthJSON(body) > MaxDepth {
		wantErr = errors.New("too deep")
	}
	if (wantErr == nil) != (gotErr == nil) {
		t.Fatalf("%q: reader says %v, encoding/json %v", body, gotErr, wantErr)
	}
	if wantErr != nil {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d fields, want %d", body, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		ok := g.name == w.name
		switch v := w.value.(type) {
		case nil, bool, string:
			ok = ok && g.value == v
		case json.Number:
			f, _ := strconv.ParseFloat(string(v), 64)
			n, isNum := g.value.(float64)
			ok = ok && isNum && math.Float64bits(n) == math.Float64bits(f)
		case []any:
			ok = ok && g.value == kindArray
		case map[string]any:
			ok = ok && g.value == kindObject
		}
		if !ok {
			t.Fatalf("%q: field %d is %q = %v, want %q = %v", body, i, g.name, g.value, w.name, w.value)
		}
	}
}

// compareMsgpack holds what the reader accepted against vmihailenco's decoder, which accepts more.
func compareMsgpack(t *testing.T, body []byte) {
	got, gotErr := membersReader(Msgpack, body)
	if gotErr != nil {
		return
	}
	in := bytes.NewReader(body)
	dec := msgpack.NewDecoder(in)
	n, err := dec.DecodeMapLen()
	if err != nil || n != len(got) {
		t.Fatalf("%x: %d fields, want %d, %v", body, len(got), n, err)
	}
	for i, g := range got {
		name, err := dec.DecodeString()
		if err != nil || name != g.name {
			t.Fatalf("%x: name %d is %q, want %q, %v", body, i, g.name, name, err)
		}
		if k, nested := g.value.(kind); nested {
			if err := dec.Skip(); err != nil {
				t.Fatalf("%x: %q is %v, but: %v", body, g.name, k, err)
			}
			continue
		}
		raw, err := dec.DecodeRaw()
		if err != nil {
			t.Fatalf("%x: %q: %v", body, g.name, err)
		}
		ok := false
		switch v := g.value.(type) {
		case nil:
			ok = len(raw) == 1 && raw[0] == 0xc0
		case bool:
			var b bool
			ok = msgpack.Unmarshal(raw, &b) == nil && b == v
		case string:
			var s string
			ok = msgpack.Unmarshal(raw, &s) == nil && s == v
		case float64:
			ok = sameNumber(raw, v)
		case time.Time:
			at, err := msgpack.NewDecoder(bytes.NewReader(raw)).DecodeTime()
			ok = err == nil && at.Equal(v)
		}
		if !ok {
			t.Fatalf("%x: %q = %v, not what the library reads from %x", body, g.name, g.value, raw)
		}
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Fatalf("%x: something follows the map", body)
	}
}

func sameNumber(raw []byte, v float64) bool {
	var x any
	if msgpack.Unmarshal(raw, &x) != nil {
		return false
	}
	var f float64
	switch n := x.(type) {
	case int8:
		f = float64(n)
	case int16:
		f = float64(n)
	case int32:
		f = float64(n)
	case int64:
		f = float64(n)
	case uint8:
		f = float64(n)
	case uint16:
		f = float64(n)
	case uint32:
		f = float64(n)
	case uint64:
		f = float64(n)
	case float32:
		f = float64(n)
	case float64:
		f = n
	default:
		return false
	}
	return math.Float64bits(f) == math.Float64bits(v) || f != f && v != v
}

// toMsgpack writes a flat JSON object as msgpack with the library, in the same order.
func toMsgpack(tb testing.TB, body []byte) []byte {
	tb.Helper()
	members, err := membersJSON(body)
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	enc.UseCompactInts(true)
	enc.SetSortMapKeys(true)
	fail := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	fail(enc.EncodeMapLen(len(members)))
	for _, m := range members {
		fail(enc.EncodeString(m.name))
		fail(enc.Encode(plainNumbers(m.value)))
	}
	return b.Bytes()
}

func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		if n, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return n
		}
		f, _ := strconv.ParseFloat(string(v), 64)
		return f
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plainNumbers(v[k])
		}
	}
	return v
}

func recordDiff(got, want *Record) string {
	if string(got.ID) != string(want.ID) || string(got.Entity) != string(want.Entity) || !got.Time.Equal(want.Time) || got.Unknown != want.Unknown {
		return fmt.Sprintf("id %q, entity %q, time %v, unknown %d; want %q, %q, %v, %d",
			got.ID, got.Entity, got.Time, got.Unknown, want.ID, want.Entity, want.Time, want.Unknown)
	}
	if len(got.Values) != len(want.Values) {
		return fmt.Sprintf("%d values, want %d", len(got.Values), len(want.Values))
	}
	for i, g := range got.Values {
		w := want.Values[i]
		if g.State != w.State || math.Float64bits(g.Num) != math.Float64bits(w.Num) || string(g.Text) != string(w.Text) {
			return fmt.Sprintf("value %d is {%d %v %q}, want {%d %v %q}", i, g.State, g.Num, g.Text, w.State, w.Num, w.Text)
		}
	}
	return ""
}

// What is written is the shortest form, and what the library reads.
func TestMsgpackIsTheLibrarys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bytes.Buffer
		enc := msgpack.NewEncoder(&b)
		enc.UseCompactInts(true)
		n := rapid.Int64().Draw(t, "n") >> rapid.IntRange(0, 63).Draw(t, "shift")
		u := rapid.Uint64().Draw(t, "u") >> rapid.IntRange(0, 63).Draw(t, "shift")
		f := rapid.Float64().Draw(t, "f")
		text := strings.Repeat("é", rapid.SampledFrom([]int{0, 15, 16, 127, 128, 32767, 32768}).Draw(t, "length"))
		if err := errors.Join(enc.EncodeInt(n), enc.EncodeUint(u), enc.EncodeFloat64(f), enc.EncodeString(text), enc.EncodeMapLen(len(text)), enc.EncodeArrayLen(len(text))); err != nil {
			t.Fatal(err)
		}
		got := appendArray(appendMap(appendStr(appendFloat64(appendUint(appendInt(nil, n), u), f), text), len(text)), len(text))
		if !bytes.Equal(got, b.Bytes()) {
			t.Fatalf("%d, %d, %v, %d bytes: %x, the library writes %x", n, u, f, len(text), got, b.Bytes())
		}
		var r reader
		r.enc, r.b = Msgpack, got
		for _, want := range []string{strconv.FormatInt(n, 10), strconv.FormatUint(u, 10)} {
			if e := r.valueMsgpack(0); e != nil || string(r.tok.appendText(nil)) != want {
				t.Fatalf("%x: read %s, %v, want %s", got, r.tok.appendText(nil), e, want)
			}
		}
	})
}

// Floats are written as encoding/json writes them.
func TestFloatsAreEncodingJSONs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.OneOf(rapid.Float64(), rapid.Float64Range(-1, 1), rapid.SampledFrom([]float64{1e-6, 1e-7, 1e21, 1e20, math.Copysign(0, -1), 5e-324, math.MaxFloat64})).Draw(t, "f")
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendFloat(nil, f); !bytes.Equal(got, want) {
			t.Fatalf("%s, encoding/json writes %s", got, want)
		}
	})
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if got := appendFloat(nil, f); string(got) != "null" {
			t.Errorf("%v is written %s", f, got)
		}
	}
}
