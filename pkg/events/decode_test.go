package events

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const decodeContract = `kind: payment
id: id
entity: card
time: at
label: {column: fraud, positive: ["1"]}
fields:
  - {name: n, type: number, missing: ["999", "?"]}
  - {name: m, type: money, currency: EUR, missing: ["-1"]}
  - {name: c, type: money, currency: EUR, minor: 2}
  - {name: k, type: category, missing: ["?", "7"]}
  - {name: b, type: bool}
  - {name: t, type: time}
  - {name: s, type: number, sensitive: true}
`

func schemaOf(tb testing.TB, text string) *Schema {
	tb.Helper()
	c, err := ParseContract([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Compile(c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// show draws a record by what it holds.
func show(s *Schema, rec *Record) string {
	var out []string
	add := func(k, v string) { out = append(out, k+"="+v) }
	if len(rec.ID) > 0 {
		add("id", string(rec.ID))
	}
	if len(rec.Entity) > 0 {
		add("entity", string(rec.Entity))
	}
	if !rec.Time.IsZero() {
		add("time", rec.Time.Format("2006-01-02T15:04:05.999999999Z07:00"))
	}
	for i, v := range rec.Values {
		switch v.State {
		case HasNum:
			add(s.Contract.Fields[i].Name, strconv.FormatFloat(v.Num, 'g', -1, 64))
		case HasText:
			add(s.Contract.Fields[i].Name, strconv.Quote(string(v.Text)))
		}
	}
	if rec.Unknown > 0 {
		add("unknown", strconv.Itoa(rec.Unknown))
	}
	return strings.Join(out, " ")
}

func TestDecodeJSON(t *testing.T) {
	s := schemaOf(t, decodeContract)
	var rec Record
	for _, x := range []struct{ body, want, err string }{
		{body: `{}`},
		{body: " \r\n\t{ \"n\" : 1.5 , \"k\" : \"a\" } \n", want: `n=1.5 k="a"`},
		{body: `{"id":"a","card":"b"}`, want: `id=a entity=b`},
		{body: `{"id":12345678901234567890123,"card":-7}`, want: `id=12345678901234567890123 entity=-7`},
		{body: `{"id":1.0}`, err: "field id: is a number: want a string or an integer"},
		{body: `{"id":true}`, err: "field id: is a boolean: want a string or an integer"},
		{body: `{"id":"","card":null}`},
		{body: `{"id":"` + strings.Repeat("x", 257) + `"}`, err: "field id: has 257 bytes: at most 256"},
		{body: `{"at":"2026-01-31T13:00:00.5+01:00"}`, want: "time=2026-01-31T12:00:00.5Z"},
		{body: `{"at":"2026-01-31 13:00:00z"}`, want: "time=2026-01-31T13:00:00Z"},
		{body: `{"at":"2026-01-31T13:00:00"}`, err: `field at: has no time zone: want RFC 3339 such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":"2026-01-31 13:00"}`, err: `field at: has no time zone: want RFC 3339 such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":"2026-01-31"}`, err: `field at: has no time zone: want RFC 3339 such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":"yesterday"}`, err: `field at: is not an RFC 3339 time such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":"2026-02-30T00:00:00Z"}`, err: `field at: is not an RFC 3339 time such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":1700000000}`, err: `field at: is a number: want a time such as "2026-01-31T12:00:00Z"`},
		{body: `{"at":"0000-06-01T00:00:00Z"}`, err: "field at: has a year outside 1 to 9999"},
		{body: `{"at":"9999-12-31T23:59:59-01:00"}`, err: "field at: has a year outside 1 to 9999"},
		{body: `{"at":"0001-01-01T00:00:00Z"}`, err: "field at: is the zero time: leave it out where there is none"},
		{body: `{"t":"1970-01-01T00:00:01.25Z"}`, want: "t=1.25"},

		{body: `{"n":-0.0}`, want: "n=-0"},
		{body: `{"n":9007199254740993}`, want: "n=9.007199254740992e+15"},
		{body: `{"n":5e-324}`, want: "n=5e-324"},
		{body: `{"n":1e-999}`, want: "n=0"},
		{body: `{"n":1e309}`, err: "field n: is not a finite number"},
		{body: `{"n":999}`}, {body: `{"n":999.0}`}, {body: `{"n":"?"}`}, {body: `{"n":"999"}`}, {body: `{"n":null}`},
		{body: `{"n":"12"}`, err: `field n: is the string "12": want a number`},
		{body: `{"n":""}`, err: `field n: is the string "": want a number`},
		{body: `{"n":true}`, err: "field n: is true: want a number"},
		{body: `{"n":[1]}`, err: "field n: is an array: want a number"},
		{body: `{"n":{"n":1}}`, err: "field n: is an object: want a number"},
		{body: `{"s":"4711"}`, err: "field s: is a string: want a number"},
		{body: `{"s":true}`, err: "field s: is a boolean: want a number"},

		{body: `{"m":"12.50","c":1250}`, want: "m=12.5 c=12.5"},
		{body: `{"m":12.5,"c":"1250"}`, want: "m=12.5 c=12.5"},
		{body: `{"m":-1}`}, {body: `{"m":"-1.00"}`},
		{body: `{"m":"12,50"}`, err: `field m: is the string "12,50": want a decimal such as "12.50"`},
		{body: `{"m":"1e3"}`, err: `field m: is the string "1e3": want a decimal such as "12.50"`},
		{body: `{"m":"12.50 EUR"}`, err: `field m: is the string "12.50 EUR": want a decimal such as "12.50"`},
		{body: `{"m":"` + strings.Repeat("9", 400) + `"}`, err: "field m: is not a finite number"},
		{body: `{"m":false}`, err: "field m: is a boolean: want an amount of EUR"},
		{body: `{"c":12.5}`, err: "field c: is the number 12.5: want an integer, of 10^-2 EUR"},
		{body: `{"c":1e2}`, err: "field c: is the number 1e2: want an integer, of 10^-2 EUR"},
		{body: `{"c":900719925474099301}`, want: "c=9.007199254740994e+15"},

		{body: `{"k":""}`}, {body: `{"k":"?"}`}, {body: `{"k":7}`}, {body: `{"k":"7"}`},
		{body: `{"k":7.0}`, want: `k="7.0"`},
		{body: `{"k":false}`, want: `k="false"`},
		{body: `{"k":1e999}`, want: `k="1e999"`},
		{body: `{"k":["a"]}`, err: "field k: is an array: want a string"},
		{body: `{"k":"a\"\\\/\b\f\n\r\té😀"}`, want: `k="a\"\\/\b\f\n\r\té😀"`},

		{body: `{"b":true}`, want: "b=1"}, {body: `{"b":0}`, want: "b=0"}, {body: `{"b":-0.0}`, want: "b=0"}, {body: `{"b":1.0}`, want: "b=1"},
		{body: `{"b":2}`, err: "field b: is the number 2: want true or false"},
		{body: `{"b":"true"}`, err: `field b: is the string "true": want true or false`},

		{body: `{"fraud":{"any":[1]},"x":[{"y":null}],"z":1e999}`, want: "unknown=2"},
		{body: `{"n":1,"n":2}`, err: "field n: stands twice"},
		{body: `{"n":1,"\u006e":2}`, err: "field n: stands twice"},
		{body: `{"x":1,"y":1,"x":2}`, err: "field x: stands twice"},
		{body: `{"n":true,"k":[],"id":"a","card":"b"}`, want: "id=a entity=b", err: "field n: is true: want a number"},

		{body: ``, err: "not JSON: it ends at byte 0: want an object"},
		{body: `[]`, err: "not JSON at byte 0: want an object"},
		{body: `{"n":1}x`, err: "not JSON at byte 7: something follows the object"},
		{body: `{"n":1}{}`, err: "not JSON at byte 7: something follows the object"},
		{body: `{"n":1,}`, err: "not JSON at byte 7: nothing between ',' and '}'"},
		{body: `{,"n":1}`, err: "not JSON at byte 1: want a string"},
		{body: `{"n" 1}`, err: "not JSON at byte 5: want ':' behind a name"},
		{body: `{"n":1 "k":2}`, err: "not JSON at byte 7: want ',' or '}'"},
		{body: `{"n":NaN}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":Infinity}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":nul}`, err: "not JSON at byte 5: want null"},
		{body: `{"n":01}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":1.}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":+1}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":.5}`, err: "not JSON at byte 5: want a value"},
		{body: `{"n":0x10}`, err: "not JSON at byte 6: want ',' or '}'"},
		{body: `{"k":"a`, err: "not JSON: it ends at byte 7: string without an end"},
		{body: "{\"k\":\"a\nb\"}", err: "not JSON at byte 7: control character in a string"},
		{body: `{"k":"\x"}`, err: "not JSON at byte 6: unknown escape"},
		{body: `{"k":"\u12g4"}`, err: "not JSON at byte 6: want four hexadecimal digits behind \\u"},
		{body: `{"k":"\ud800"}`, err: "not JSON at byte 6: half a surrogate pair"},
		{body: `{"k":"\ud800\u0041"}`, err: "not JSON at byte 6: half a surrogate pair"},
		{body: "{\"k\":\"\xff\"}", err: "not JSON: byte 6 is not UTF-8"},
		{body: `{"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, want: "unknown=1"},
		{body: `{"x":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, err: "not JSON at byte 69: nested deeper than 64"},
		{body: "{\"x\":\"" + strings.Repeat("a", MaxEventBytes) + "\"}", err: fmt.Sprintf("body has %d bytes: at most %d", MaxEventBytes+8, MaxEventBytes)},
	} {
		err := s.Decode(JSON, []byte(x.body), &rec)
		checkDecode(t, s, &rec, err, clip(x.body), x.want, x.err)
	}
}

func checkDecode(t *testing.T, s *Schema, rec *Record, err error, body, want, wantErr string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
		if e, ok := errors.AsType[*InvalidError](err); !ok || e == nil {
			t.Errorf("%s: error is %T, want *InvalidError", body, err)
		}
	}
	if got != wantErr {
		t.Errorf("%s: error %q, want %q", body, got, wantErr)
	}
	if wantErr == "" || want != "" {
		if got := show(s, rec); got != want {
			t.Errorf("%s: record %s, want %s", body, got, want)
		}
	}
}

func TestDecodeMsgpack(t *testing.T) {
	s := schemaOf(t, decodeContract)
	var rec Record
	one := func(name, value string) string { return "\x81" + string(appendStr(nil, name)) + value }
	f64 := func(f float64) string { return string(appendFloat64(nil, f)) }
	for _, x := range []struct{ body, want, err string }{
		{body: "\x80"},
		{body: "\xde\x00\x01\xa1n\x05", want: "n=5"},
		{body: "\xdf\x00\x00\x00\x01\xd9\x01n\x05", want: "n=5"},
		{body: one("n", "\xff"), want: "n=-1"}, {body: one("n", "\xd0\x80"), want: "n=-128"}, {body: one("n", "\xd1\x80\x00"), want: "n=-32768"},
		{body: one("n", "\xd2\x80\x00\x00\x00"), want: "n=-2.147483648e+09"}, {body: one("n", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), want: "n=-9.223372036854776e+18"},
		{body: one("n", "\xcc\xff"), want: "n=255"}, {body: one("n", "\xcd\xff\xff"), want: "n=65535"}, {body: one("n", "\xce\xff\xff\xff\xff"), want: "n=4.294967295e+09"},
		{body: one("n", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), want: "n=1.8446744073709552e+19"},
		{body: one("n", "\xca\x3f\x00\x00\x00"), want: "n=0.5"}, {body: one("n", f64(0.1)), want: "n=0.1"},
		{body: one("n", f64(999))}, {body: one("n", "\xcd\x03\xe7")}, {body: one("n", "\xa1?")}, {body: one("n", "\xc0")},
		{body: one("n", f64(math.NaN())), err: "field n: is not a finite number"},
		{body: one("n", f64(math.Inf(-1))), err: "field n: is not a finite number"},
		{body: one("n", "\xca\x7f\x80\x00\x00"), err: "field n: is not a finite number"},
		{body: one("m", f64(math.NaN())), err: "field m: is not a finite number"},
		{body: one("k", f64(math.NaN())), err: "field k: is not a finite number"},
		{body: one("b", f64(math.NaN())), err: "field b: is a number that is not finite: want true or false"},
		{body: one("n", "\x91\x01"), err: "field n: is an array: want a number"},
		{body: one("n", "\x81\xa1n\x01"), err: "field n: is an object: want a number"},
		{body: one("n", "\xc4\x01a"), err: "field n: is binary: want a number"},
		{body: one("n", "\xd4\x05a"), err: "field n: is binary: want a number"},
		{body: one("c", "\xcd\x04\xe2"), want: "c=12.5"},
		{body: one("c", f64(1250)), err: "field c: is the number 1250: want an integer, of 10^-2 EUR"},
		{body: one("c", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), want: "c=-9.223372036854776e+16"},
		{body: one("m", "\xa512.50"), want: "m=12.5"},
		{body: one("k", "\xcc\xff"), want: `k="255"`}, {body: one("k", "\xe0"), want: `k="-32"`}, {body: one("k", f64(0.25)), want: `k="0.25"`},
		{body: one("k", f64(8)), want: `k="8"`}, {body: one("k", "\xc3"), want: `k="true"`}, {body: one("k", "\x07")},
		{body: one("k", "\xc4\x01a"), err: "field k: is binary: want a string"},
		{body: one("b", "\xc2"), want: "b=0"}, {body: one("b", "\x01"), want: "b=1"},
		{body: one("id", "\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), want: "id=-9223372036854775808"},
		{body: one("at", "\xd6\xff\x00\x00\x00\x01"), want: "time=1970-01-01T00:00:01Z"},
		{body: one("at", "\xd7\xff"+string(binary.BigEndian.AppendUint64(nil, 500e6<<34|2))), want: "time=1970-01-01T00:00:02.5Z"},
		{body: one("at", "\xc7\x0c\xff"+string(binary.BigEndian.AppendUint64([]byte{0, 0, 0, 1}, 1<<64-1))), want: "time=1969-12-31T23:59:59.000000001Z"},
		{body: one("t", "\xd6\xff\x00\x00\x00\x01"), want: "t=1"},
		{body: one("at", "\xc7\x0c\xff"+string(binary.BigEndian.AppendUint64([]byte{0, 0, 0, 1}, 1<<60))), err: "field at: has a year outside 1 to 9999"},
		{body: one("at", "\xd7\xff"+string(binary.BigEndian.AppendUint64(nil, 1e9<<34))), err: "not msgpack at byte 6: timestamp with 1000000000 nanoseconds"},
		{body: one("at", "\xd5\xff\x00\x00"), err: "not msgpack at byte 6: timestamp of 2 bytes: want 4, 8 or 12"},
		{body: "\x82\xa1n\x01\xa1n\x02", err: "field n: stands twice"},
		{body: "\x82\xa1x\x01\xa1x\x02", err: "field x: stands twice"},
		{body: "\x82\xa1x\x93\x01\xa1a\x81\x01\xc0\xa1k\xa1v", want: `k="v" unknown=1`},

		{body: "", err: "not msgpack: it ends at byte 0: want a map"},
		{body: "\x91\x01", err: "not msgpack at byte 0: want a map"},
		{body: "\x81", err: "not msgpack: it ends at byte 1: want a name"},
		{body: "\x81\xa1", err: "not msgpack at byte 1: string is cut short"},
		{body: "\x81\xa1n", err: "not msgpack: it ends at byte 3: want a value"},
		{body: "\x81\xa1n\xcb\x00", err: "not msgpack: it ends at byte 5: value is cut short"},
		{body: "\x81\xa1k\xdb\xff\xff\xff\xff", err: "not msgpack: it ends at byte 8: string is cut short"},
		{body: "\x81\x01\x01", err: "not msgpack at byte 2: name of a field is a number: want a string"},
		{body: "\x81\xc4\x01n\x01", err: "not msgpack at byte 4: name of a field is binary: want a string"},
		{body: "\x80\x00", err: "not msgpack at byte 1: something follows the map"},
		{body: one("k", "\xa1\xff"), err: "not msgpack at byte 4: string is not UTF-8"},
		{body: "\x81\xa1\xff\x01", err: "not msgpack at byte 1: name is not UTF-8"},
		{body: one("n", "\xc1"), err: "not msgpack at byte 3: byte 0xc1 is never used"},
		{body: one("x", "\xdd\xff\xff\xff\xff"), err: "not msgpack: it ends at byte 8: length of an array or map"},
		{body: one("x", "\xdf\x7f\xff\xff\xff\x01"), err: "not msgpack: it ends at byte 9: want a value"},
		{body: one("x", strings.Repeat("\x91", 64)+"\x01"), want: "unknown=1"},
		{body: one("x", strings.Repeat("\x91", 65)+"\x01"), err: "not msgpack at byte 67: nested deeper than 64"},
	} {
		err := s.Decode(Msgpack, []byte(x.body), &rec)
		checkDecode(t, s, &rec, err, strconv.QuoteToASCII(clip([]byte(x.body))), x.want, x.err)
	}
}

func TestDecodeRequired(t *testing.T) {
	s := schemaOf(t, "kind: k\nfields:\n  - {name: a, type: number, required: true, missing: ['-1']}\n  - {name: b, type: category}\n")
	var rec Record
	for _, body := range []string{`{}`, `{"b":"x"}`, `{"a":null}`, `{"a":-1}`} {
		err := s.Decode(JSON, []byte(body), &rec)
		if want := "field a: is required and has no value"; err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", body, err, want)
		}
	}
}

func TestDecodeTooManyFields(t *testing.T) {
	s := schemaOf(t, decodeContract)
	body := func(n int) []byte {
		w := writer{enc: JSON}
		w.open(n)
		for i := range n {
			w.null(strconv.Itoa(i))
		}
		return w.close()
	}
	var rec Record
	if err := s.Decode(JSON, body(MaxFields), &rec); err != nil || rec.Unknown != MaxFields {
		t.Errorf("%d fields: %v, %d unknown", MaxFields, err, rec.Unknown)
	}
	if err := s.Decode(JSON, body(MaxFields+1), &rec); err == nil {
		t.Errorf("%d fields were let pass", MaxFields+1)
	}
}

// One field may be both id and entity: each event is an entity of its own.
func TestDecodeIDIsEntity(t *testing.T) {
	s := schemaOf(t, "kind: k\nid: id\nentity: id\nfields:\n  - {name: a, type: number}\n")
	var rec Record
	err := s.Decode(JSON, []byte(`{"id":5,"a":1}`), &rec)
	checkDecode(t, s, &rec, err, "id", "id=5 entity=5 a=1", "")
}

// A record that goes from schema to schema and event to event holds only the last event.
func TestRecordIsReused(t *testing.T) {
	a, b := schemaOf(t, decodeContract), sampleSchema(t)
	bodies := []string{
		`{"n":1,"k":"\u0061bc","id":"x","card":"y","at":"2026-01-31T12:00:00Z","x":1,"y":2}`,
		`{"k":"\u0061","n":2}`, `{"id":7}`, `{`, `{"n":"no"}`, sampleEvent,
	}
	rapid.Check(t, func(t *rapid.T) {
		var used Record
		for range rapid.IntRange(1, 6).Draw(t, "events") {
			s := rapid.SampledFrom([]*Schema{a, b}).Draw(t, "schema")
			body := []byte(rapid.SampledFrom(bodies).Draw(t, "body"))
			var fresh Record
			gotErr, wantErr := s.Decode(JSON, body, &used), s.Decode(JSON, body, &fresh)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || show(s, &used) != show(s, &fresh) {
				t.Fatalf("%s: used record %v %s, fresh one %v %s", body, gotErr, show(s, &used), wantErr, show(s, &fresh))
			}
		}
	})
}

func TestNumbersAreParseFloat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lit := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?`).Draw(t, "literal")
		var tok token
		if end := scanNumber([]byte(lit), 0, &tok); end != len(lit) {
			t.Fatalf("%s: read %d of %d bytes", lit, end, len(lit))
		}
		want, _ := strconv.ParseFloat(lit, 64) // out of range: an infinity in both
		if math.Float64bits(tok.num) != math.Float64bits(want) {
			t.Fatalf("%s: %v, ParseFloat %v", lit, tok.num, want)
		}
		if u, err := strconv.ParseUint(lit, 10, 64); err == nil {
			if got, ok := tok.uint(); !ok || got != u {
				t.Fatalf("%s: integer %d, %v, ParseUint %d", lit, got, ok, u)
			}
		}
	})
}

// An amount in minor units is the amount as a decimal, to the bit.
func TestMinorUnitsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "units")
		minor := rapid.IntRange(1, 4).Draw(t, "minor")
		var tok token
		scanNumber(strconv.AppendInt(nil, n, 10), 0, &tok)
		want, err := strconv.ParseFloat(fmt.Sprintf("%de-%d", n, minor), 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := minorUnits(&tok, minor, pow10[minor]); math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%d of 10^-%d is %v, want %v", n, minor, got, want)
		}
	})
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	c, e := wide(20)
	s, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, enc := range []Encoding{JSON, Msgpack} {
		body := ordered(t, c, e, enc)
		var rec Record
		n := testing.AllocsPerRun(100, func() {
			if err := s.Decode(enc, body, &rec); err != nil {
				t.Fatal(err)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations an event, want none", enc, n)
		}
	}
}
