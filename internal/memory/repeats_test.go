package memory

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

const repeatsContract = `kind: payment
id: id
entity: card
time: at
fields:
- {name: amount, type: number}
- {name: shop, type: category}
- {name: refund, type: number, past: true}
memory:
  features:
  - {name: n, by: card, take: count}
  - {name: mean, by: shop, take: mean, field: amount, window: 1h}
  repeats: `

// idTwin keeps the ids of events in a list, and goes through all of it each time.
type idTwin struct {
	within time.Duration
	most   int
	clock  time.Time
	list   []idSeen
}

type idSeen struct {
	id, content string
	seq         uint64
	stored      time.Time
}

func (w *idTwin) step(id, content string, seq uint64, stored time.Time) Verdict {
	if id == "" || seq == 0 || w.within == 0 {
		return Verdict{}
	}
	if stored.After(w.clock) {
		w.clock = stored
	}
	w.list = slices.DeleteFunc(w.list, func(x idSeen) bool { return w.clock.Sub(x.stored) >= w.within })
	for _, x := range w.list {
		if x.id == id {
			return Verdict{x.seq, x.content != content}
		}
	}
	if len(w.list) == w.most {
		w.list = w.list[1:]
	}
	w.list = append(w.list, idSeen{id, content, seq, w.clock})
	return Verdict{}
}

// Every event's verdict is the twin's, from whatever snapshot it is told; and what repeats leaves no trace in any feature.
func TestRepeats(t *testing.T) {
	for _, x := range []struct {
		repeats string
		within  time.Duration
		most    int
		pool    int
	}{
		{"{within: 1h, ids: 50}", time.Hour, 50, 60},
		{"{within: 1m, ids: 100000}", time.Minute, 100_000, 300},
		{"{within: 2h, ids: 5000}", 2 * time.Hour, 5000, 9000}, // more than a chunk
		{"{within: 1h, ids: 1}", time.Hour, 1, 2},
		{"{within: 0s}", 0, 0, 5},
	} {
		t.Run(x.repeats, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 3))
			p, off := compile(t, repeatsContract+x.repeats+"\n"), compile(t, repeatsContract+"{within: 0s}\n")
			s, plain := New(p), New(off)
			if r.IntN(2) == 0 { // what stands behind this many ids
				s.ids.first = idPlaces - uint64(r.IntN(2*x.pool))
				s.ids.next = s.ids.first
			}
			w := &idTwin{within: x.within, most: x.most}
			stored := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			out, want, read := make([]float64, p.Width()), make([]float64, p.Width()), make([]float64, p.Width())
			var other *Store
			var rec events.Record
			found := map[Verdict]int{}
			for seq := uint64(1); seq <= 12_000; seq++ {
				switch r.IntN(40) {
				case 0:
					stored = stored.Add(-time.Duration(r.IntN(60)) * time.Second) // another leader's clock
				case 1:
					stored = stored.Add(x.within / 3)
				default:
					stored = stored.Add(time.Duration(r.ExpFloat64() * float64(time.Second)))
				}
				rec.Reset(p.Schema)
				id, shop, amount := "", "", float64(r.IntN(2))
				if r.IntN(20) > 0 {
					id = strconv.Itoa(r.IntN(x.pool))
					rec.ID = []byte(id)
				}
				card := fmt.Sprint("c", len(id))
				rec.Time = time.Date(2026, 1, 1, 0, 0, r.IntN(2), 0, time.UTC)
				rec.Values[0] = events.Value{State: events.HasNum, Num: amount}
				if r.IntN(8) == 0 {
					shop = "s"
					rec.Values[1] = events.Value{State: events.HasText, Text: []byte(shop)}
				}
				ev := Event{Record: &rec, Entity: []byte(card), Stored: stored, Seq: seq}
				if r.IntN(50) == 0 {
					ev.Seq = 0
				}
				looked := s.Read(ev, read)
				v := w.step(id, fmt.Sprint(card, rec.Time, amount, shop), ev.Seq, stored)
				got := s.Step(ev, out)
				if got != v || looked != v {
					t.Fatalf("event %d, id %q: %+v, read %+v, want %+v", seq, id, got, looked, v)
				}
				if other != nil {
					if got := other.Step(ev, read); got != v {
						t.Fatalf("event %d, id %q, from a snapshot: %+v, want %+v", seq, id, got, v)
					}
				}
				if v.Repeated() {
					found[Verdict{1, v.Conflict}]++
					for i := range want {
						want[i] = math.NaN()
					}
				} else {
					plain.Step(ev, want)
				}
				for i := range want {
					if !same(out[i], want[i]) || !same(read[i], want[i]) {
						t.Fatalf("event %d: feature %d is %v, read %v, want %v", seq, i, out[i], read[i], want[i])
					}
				}
				if s.IDs() != len(w.list) {
					t.Fatalf("event %d: %d ids are known, want %d", seq, s.IDs(), len(w.list))
				}
				if r.IntN(2000) == 0 {
					at := Place{1, 1, seq, 9}
					b := encoded(t, s, at)
					if other != nil && !bytes.Equal(b, encoded(t, other, at)) {
						t.Fatalf("event %d: from a snapshot the state is another", seq)
					}
					var err error
					if other, _, err = Decode(p, bytes.NewReader(b)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if x.within > 0 && (found[Verdict{1, false}] == 0 || found[Verdict{1, true}] == 0) {
				t.Errorf("repeats and conflicts: %v", found)
			}
		})
	}
}

// A snapshot is what the ids were as it was taken, though more come and the oldest go while it is written.
func TestIDsFrozen(t *testing.T) {
	p := compile(t, repeatsContract+"{ids: 6000}\n")
	s := New(p)
	var rec events.Record
	out := make([]float64, p.Width())
	step := func(seq uint64) {
		rec.Reset(p.Schema)
		rec.ID, rec.Entity = strconv.AppendUint(nil, seq, 10), []byte("c")
		s.Step(Event{Record: &rec, Stored: time.Unix(int64(seq), 0), Seq: seq}, out)
	}
	for seq := range uint64(7000) {
		step(seq + 1)
	}
	want := encoded(t, s, Place{Seq: 7000})
	f := s.Freeze()
	for seq := range uint64(20_000) {
		step(seq + 7001)
	}
	var b bytes.Buffer
	if err := f.Encode(&b, Place{Seq: 7000}); err != nil || !bytes.Equal(b.Bytes(), want) {
		t.Errorf("what was frozen has changed: %v", err)
	}
	s.Thaw()
	if again, _, err := Decode(p, bytes.NewReader(want)); err != nil || again.IDs() != 6000 {
		t.Errorf("%d ids read back, %v", again.IDs(), err)
	}
}

// What no store could have written is refused, though its digest is right.
func TestIDsRefused(t *testing.T) {
	p := compile(t, repeatsContract+"{within: 10s, ids: 3}\n")
	second := int64(time.Second)
	e := func(key byte, seq uint64, stored int64) idEntry {
		return idEntry{key: Key{key}, seq: seq, stored: stored}
	}
	for _, x := range []struct {
		what  string
		clock int64
		list  []idEntry
		bad   bool
	}{
		{"as it should be", 20 * second, []idEntry{e(1, 1, 11*second), e(2, 5, 11*second), e(3, 9, 20*second)}, false},
		{"too many", 20 * second, []idEntry{e(1, 1, 20*second), e(2, 2, 20*second), e(3, 3, 20*second), e(4, 4, 20*second)}, true},
		{"twice", 20 * second, []idEntry{e(1, 1, 20*second), e(1, 2, 20*second)}, true},
		{"one sequence", 20 * second, []idEntry{e(1, 1, 20*second), e(2, 1, 20*second)}, true},
		{"after the last", 20 * second, []idEntry{e(1, 10, 20*second)}, true},
		{"too old", 20 * second, []idEntry{e(1, 1, 10*second)}, true},
		{"after the clock", 20 * second, []idEntry{e(1, 1, 21*second)}, true},
		{"before 1970", -second, nil, true},
	} {
		s := New(p)
		s.ids.clock = x.clock
		s.ids.chunks = []*[idChunk]idEntry{new([idChunk]idEntry)}
		s.ids.next = uint64(copy(s.ids.chunks[0][:], x.list))
		_, _, err := Decode(p, bytes.NewReader(encoded(t, s, Place{Seq: 9})))
		if errors.Is(err, errIDs) != x.bad || !x.bad && err != nil {
			t.Errorf("%s: %v", x.what, err)
		}
	}
}

// Another encoding, zone or form of a number is the same content; any value, entity or time that differs is another.
func TestRepeatedContent(t *testing.T) {
	p := compile(t, repeatsContract+"{}\n")
	first := `{"id":"a","card":"c","at":"2026-01-01T00:00:00Z","amount":0,"shop":"s"}`
	msgpack := "\x84\xa2id\xa1a\xa2at\xb92026-01-01T01:00:00+01:00\xa6amount\xcb\x80\x00\x00\x00\x00\x00\x00\x00\xa4shop\xa1s" // -0, and no entity
	for _, x := range []struct {
		body, entity string
		conflict     bool
	}{
		{first, "c", false},
		{msgpack, "c", false},
		{`{"amount":0.0,"more":1,"shop":"s","id":"a","at":"2026-01-01T00:00:00.000Z","refund":null}`, "c", false},
		{`{"id":"a","card":"d","at":"2026-01-01T00:00:00Z","amount":0,"shop":"s"}`, "d", true},
		{`{"id":"a","at":"2026-01-01T00:00:01Z","amount":0,"shop":"s"}`, "c", true},
		{`{"id":"a","amount":0,"shop":"s"}`, "c", true},
		{`{"id":"a","at":"2026-01-01T00:00:00Z","amount":1e-9,"shop":"s"}`, "c", true},
		{`{"id":"a","at":"2026-01-01T00:00:00Z","amount":0,"shop":"S"}`, "c", true},
		{`{"id":"a","at":"2026-01-01T00:00:00Z","shop":"s"}`, "c", true},
		{`{"id":"a","at":"2026-01-01T00:00:00Z","amount":0,"shop":"s","refund":0}`, "c", true},
	} {
		s := New(p)
		var rec events.Record
		out := make([]float64, p.Width())
		step := func(seq uint64, body, entity string) Verdict {
			t.Helper()
			enc, err := events.DetectEncoding("", []byte(body))
			if err == nil {
				err = p.Schema.Decode(enc, []byte(body), &rec)
			}
			if err != nil {
				t.Fatal(err)
			}
			return s.Step(Event{Record: &rec, Entity: []byte(entity), Stored: time.Unix(int64(seq), 0), Seq: seq}, out)
		}
		step(1, first, "c")
		if v := step(2, x.body, x.entity); v != (Verdict{1, x.conflict}) {
			t.Errorf("%q: %+v, conflict %t wanted", x.body, v, x.conflict)
		}
	}
}

// What an id costs in memory, and its check in time, while the most that are known by default are.
func BenchmarkIDs(b *testing.B) {
	const n = 1_000_000
	p := compile(b, repeatsContract+"{}\n")
	var rec events.Record
	rec.Reset(p.Schema)
	rec.Values[0] = events.Value{State: events.HasNum, Num: 1}
	rec.Values[1] = events.Value{State: events.HasText, Text: []byte("shop")}
	s := newIDs(&p.Schema.Contract)
	var buf []byte
	step := func(seq uint64) {
		buf = strconv.AppendUint(buf[:0], seq, 10)
		rec.ID, rec.Entity = buf, buf
		ev := Event{Record: &rec, Stored: time.Unix(0, int64(seq)), Seq: seq}
		key, _ := s.idOf(ev)
		s.judge(ev, &key)
		s.pass(ev.Stored)
		s.add(idEntry{key: key, content: s.contentOf(ev), seq: seq, stored: s.clock})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	seq := uint64(0)
	for range n {
		seq++
		step(seq)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ResetTimer()
	for b.Loop() {
		seq++
		step(seq)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "heap-B/id")
	snapshot, _ := s.append(nil, s.next-idChunk)
	b.ReportMetric(float64(len(snapshot))/idChunk, "snapshot-B/id")
}
