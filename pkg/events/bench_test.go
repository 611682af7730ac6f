package events

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// wide returns a contract of n fields and an event under it: numbers for the most part, every fourth a category.
func wide(n int) (Contract, map[string]any) {
	c := DefaultContract()
	c.Kind, c.ID, c.Entity, c.Time = "payment", "id", "card", "time"
	e := map[string]any{"id": "p-000001", "card": "c-4711", "time": "2026-01-31T12:00:00.25Z"}
	for i := range n - 3 {
		f := Field{Name: fmt.Sprintf("field_%02d", i), Type: Number}
		switch i % 4 {
		case 0:
			e[f.Name] = float64(i) + 0.25
		case 1:
			e[f.Name] = i * 1000
		case 2:
			f.Type = Category
			e[f.Name] = fmt.Sprintf("level %d", i)
		case 3:
			e[f.Name] = -0.001234567 * float64(i)
		}
		c.Fields = append(c.Fields, f)
	}
	return c, e
}

// ordered writes the event with its keys in the contract's order, as a publisher with a struct would.
func ordered(tb testing.TB, c Contract, e map[string]any, enc Encoding) []byte {
	tb.Helper()
	names := []string{c.ID, c.Entity, c.Time}
	for _, f := range c.Fields {
		names = append(names, f.Name)
	}
	var out []byte
	if enc == Msgpack {
		out = appendMap(out, len(names))
		for _, n := range names {
			v, err := msgpack.Marshal(e[n])
			if err != nil {
				tb.Fatal(err)
			}
			out = append(appendStr(out, n), v...)
		}
		return out
	}
	w := writer{enc: JSON}
	w.open(len(names))
	for _, n := range names {
		switch v := e[n].(type) {
		case string:
			w.str(n, v)
		case int:
			w.int(n, int64(v))
		case float64:
			w.float(n, v)
		}
	}
	return w.close()
}

func BenchmarkDecode(b *testing.B) {
	for _, enc := range []Encoding{Msgpack, JSON} {
		for _, n := range []int{20, 35} {
			b.Run(fmt.Sprintf("%s/%d", enc, n), func(b *testing.B) {
				c, e := wide(n)
				s, err := Compile(c)
				if err != nil {
					b.Fatal(err)
				}
				body := ordered(b, c, e, enc)
				var rec Record
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if err := s.Decode(enc, body, &rec); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	// What the general library takes for the same bytes, values only.
	b.Run("vmihailenco/20", func(b *testing.B) {
		c, e := wide(20)
		body := ordered(b, c, e, Msgpack)
		in := bytes.NewReader(body)
		dec := msgpack.NewDecoder(in)
		b.ReportAllocs()
		for b.Loop() {
			in.Reset(body)
			dec.Reset(in)
			n, err := dec.DecodeMapLen()
			if err != nil {
				b.Fatal(err)
			}
			for range n {
				if _, err := dec.DecodeString(); err != nil {
					b.Fatal(err)
				}
				if _, err := dec.DecodeInterfaceLoose(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkScoreAppend(b *testing.B) {
	s := sampleScore()
	for _, enc := range []Encoding{Msgpack, JSON} {
		b.Run(enc.String(), func(b *testing.B) {
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf = s.Append(buf[:0], enc)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func BenchmarkOutcomeSeq(b *testing.B) {
	s := sampleScore()
	for _, enc := range []Encoding{Msgpack, JSON} {
		body := s.Append(nil, enc)
		b.Run(enc.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := OutcomeSeq(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendRow(b *testing.B) {
	c, e := wide(20)
	s, err := Compile(c)
	if err != nil {
		b.Fatal(err)
	}
	columns := []string{"id", "card", "time"}
	for _, f := range c.Fields {
		columns = append(columns, f.Name)
	}
	cells := make([]string, len(columns))
	for i, n := range columns {
		cells[i] = fmt.Sprint(e[n])
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		if buf, err = s.AppendRow(buf[:0], columns, cells); err != nil {
			b.Fatal(err)
		}
	}
}
