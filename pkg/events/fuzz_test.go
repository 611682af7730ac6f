package events

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// seed adds every sample of the wire to the corpus.
func seed(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(wireDir, "*"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no samples in %s: %v", wireDir, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"a":"\ud83d\ude00\u0041","a\u0062":[{"x":[1e5,-0.0]}],"":""}`))
	f.Add([]byte("\x84\xa1a\xd7\xff\x00\x00\x00\x08\x00\x00\x00\x01\xa1b\xca\x3f\x80\x00\x00\xa1c\xc7\x01\x05x\xa1d\xd1\xff\x00"))
}

func FuzzJSON(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) { compareJSON(t, body) })
}

func FuzzMsgpack(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) { compareMsgpack(t, body) })
}

// FuzzDecode: whatever comes, Decode says what is wrong with it or gives finite numbers and bounded ids.
func FuzzDecode(f *testing.F) {
	seed(f)
	s := sampleSchema(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, enc := range []Encoding{JSON, Msgpack} {
			var rec Record
			if s.Decode(enc, body, &rec) != nil {
				continue
			}
			if len(rec.ID) > MaxIDBytes || len(rec.Entity) > MaxEntityBytes || len(rec.Values) != len(s.Contract.Fields) {
				t.Fatalf("%q: id of %d, entity of %d bytes, %d values", body, len(rec.ID), len(rec.Entity), len(rec.Values))
			}
			for i, v := range rec.Values {
				if !finite(v.Num) || v.State == HasText && len(v.Text) == 0 {
					t.Fatalf("%q: value %d is %+v", body, i, v)
				}
			}
		}
	})
}

// FuzzOutcomes: what a decoder of ours accepts it writes so that it reads the same again.
func FuzzOutcomes(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		first, last, seqErr := OutcomeSeq(body)
		again := func(what string, want any, write func(Encoding) []byte, read func(Encoding, []byte) (any, error)) {
			for _, enc := range []Encoding{JSON, Msgpack} {
				b := write(enc)
				got, err := read(enc, b)
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Fatalf("%s %q\nread %+v\nwrote %q\nread again %+v, %v", what, body, want, b, got, err)
				}
			}
		}
		if v, err := DecodeScore(body); err == nil {
			if seqErr != nil || first != v.Seq || last != v.Seq {
				t.Fatalf("%q: OutcomeSeq %d, %d, %v; the score has %d", body, first, last, seqErr, v.Seq)
			}
			if y := v.Time.Year(); y >= 1 && y <= 9999 {
				again("score", v, func(e Encoding) []byte { return v.Append(nil, e) }, func(_ Encoding, b []byte) (any, error) { return DecodeScore(b) })
			}
		}
		if v, err := DecodeInvalid(body); err == nil {
			if seqErr != nil || first != v.Seq || last != v.Seq {
				t.Fatalf("%q: OutcomeSeq %d, %d, %v; the outcome has %d", body, first, last, seqErr, v.Seq)
			}
			again("invalid", v, func(e Encoding) []byte { return v.Append(nil, e) }, func(_ Encoding, b []byte) (any, error) { return DecodeInvalid(b) })
		}
		if v, err := DecodeRepeat(body); err == nil {
			if v.First == 0 || v.First >= v.Seq {
				t.Fatalf("%q: the outcome %+v", body, v)
			}
			again("repeat", v, func(e Encoding) []byte { return v.Append(nil, e) }, func(_ Encoding, b []byte) (any, error) { return DecodeRepeat(b) })
			for _, e := range []Encoding{JSON, Msgpack} {
				if a, b, err := OutcomeSeq(v.Append(nil, e)); err != nil || a != v.Seq || b != v.Seq {
					t.Fatalf("OutcomeSeq of %+v: %d, %d, %v", v, a, b, err)
				}
			}
		}
		if v, err := DecodeExpired(body); err == nil {
			again("expired", v, func(Encoding) []byte { return v.Append(nil) }, func(_ Encoding, b []byte) (any, error) { return DecodeExpired(b) })
		}
		for _, enc := range []Encoding{JSON, Msgpack} {
			if v, err := DecodeLabel(enc, body); err == nil {
				again("label", v, func(e Encoding) []byte { return v.Append(nil, e) }, func(e Encoding, b []byte) (any, error) { return DecodeLabel(e, b) })
			}
		}
		if p, err := DecodePosition(body); err == nil && (p.Tries > 0 && p.Trying <= p.Seq || p.Until > 0 && p.Until <= p.Seq) {
			t.Fatalf("%q: position %+v", body, p)
		}
		if p, err := DecodeRescorePosition(body); err == nil && (p.First == 0 || p.First > p.Seq) {
			t.Fatalf("%+v", p)
		}
		if p, err := DecodeSourcePosition(body); err == nil && (p.Offset < 0 || p.Invalid < 0 || p.Invalid > p.Rows) {
			t.Fatalf("%q: source position %+v", body, p)
		}
	})
}

func FuzzRow(f *testing.F) {
	s := sampleSchema(f)
	f.Add("id,card,at,fraud,amount,fee,age_days,merchant,present,opened,x\n1,c.1,2026-01-31T12:00:00Z,1,12.50,1250,?,1,True,2020-01-01T00:00:00+01:00,y\n")
	f.Add("amount,age_days\n .5,+7.\n")
	f.Fuzz(func(t *testing.T, text string) {
		rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
		if err != nil || len(rows) < 2 {
			return
		}
		for _, cells := range rows[1:] {
			checkSameRecord(t, s, rows[0], cells)
		}
	})
}

func FuzzEntity(f *testing.F) {
	f.Add("c.4711 *", "a%2eb")
	f.Fuzz(func(t *testing.T, a, b string) {
		ta, errA := EscapeEntity(a)
		tb, errB := EscapeEntity(b)
		if errA == nil {
			if got := UnescapeEntity(ta); got != a {
				t.Fatalf("%q becomes %q and comes back as %q", a, ta, got)
			}
			if strings.ContainsAny(ta, ".*> \t\r\n\x00") {
				t.Fatalf("%q becomes the token %q", a, ta)
			}
		}
		if errA == nil && errB == nil && a != b && ta == tb {
			t.Fatalf("%q and %q share the token %q", a, b, ta)
		}
	})
}

func FuzzContract(f *testing.F) {
	f.Add([]byte(sampleContract))
	f.Add([]byte(decodeContract))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseContract(text)
		if err != nil {
			return
		}
		if _, err := Compile(c); err != nil {
			t.Fatalf("%q is valid and does not compile: %v", text, err)
		}
		out, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseContract(out)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%q reads as\n%+v\nand, written again as\n%s\nas %+v, %v", text, c, out, again, err)
		}
	})
}
