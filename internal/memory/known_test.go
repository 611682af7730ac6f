package memory

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
)

// labelTakes is a contract with each aggregate of labels, over windows and for ever, with and without a delay, and one of events.
func labelTakes(t testing.TB, idle string) *Plan {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "kind: payment\nentity: card\ntime: at\nfields:\n- {name: amount, type: number}\n- {name: shop, type: category}\n- {name: country, type: category}\n- {name: chip, type: bool}\nmemory:\n  idle: %s\n  features:\n", idle)
	n := 0
	for _, key := range []string{"by: card", "by: shop", "by: [card, shop]", "by: shop, for: country"} {
		for _, over := range []string{"", "window: 1h,", "window: 24h, delay: 1h,", "delay: 10d,", "window: 7d, delay: 7d,"} {
			if strings.HasPrefix(key, "by: [") && !strings.Contains(over, "window") {
				continue // a group that has nothing for ever
			}
			for _, take := range []string{"known", "bad", "bad_share", "bad_share, empty: -1", "known, log: true"} {
				n++
				fmt.Fprintf(&b, "  - {name: f%d, %s, %s take: %s}\n", n, key, over, take)
			}
		}
	}
	b.WriteString("  - {name: n, by: card, take: count, window: 24h}\n")
	return compile(t, b.String())
}

// told is one thing of the log as the twin keeps it: an event, or what became known of one.
type told struct {
	past
	seq   uint64
	known bool
	label events.Truth
}

// labelTwin keeps the log and works each feature out of all of it.
type labelTwin struct {
	twin
	log []told
}

func (w *labelTwin) feature(f events.MemoryFeature, e past) float64 {
	of := f.For
	if len(of) == 0 {
		of = f.By
	}
	var want []string
	for _, k := range of {
		v, ok := w.text(&e, k)
		if !ok {
			return math.NaN()
		}
		want = append(want, v)
	}
	idle := w.p.Schema.Contract.Memory.IdleOrDefault().Microseconds()
	alive, any := false, false
	var clock, kind, horizon int64
	labels, times := map[uint64]events.Truth{}, map[uint64]int64{}
	for i := range w.log {
		o := &w.log[i]
		if !o.known && (!any || o.at > kind) {
			any, kind = true, o.at
		}
		if alive && clock <= kind-idle {
			alive = false
			clear(labels)
		}
		same := true
		for j, k := range f.By {
			v, ok := w.text(&o.past, k)
			same = same && ok && v == want[j]
		}
		switch {
		case !same:
		case !o.known && !alive:
			alive, clock, horizon = true, o.at, kind-idle
			if clock <= kind-idle {
				alive = false
			}
		case !o.known:
			clock = max(clock, o.at)
		case alive && o.at > horizon:
			labels[o.seq], times[o.seq] = o.label, o.at
		}
	}
	if alive && clock <= max(kind, e.at)-idle {
		alive = false
	}
	now, known, bad := e.at, 0.0, 0.0
	if alive {
		now = max(now, clock)
		for seq, label := range labels {
			upTo := now - time.Duration(f.Delay).Microseconds()
			if label == events.NoLabel || times[seq] > upTo || f.Window > 0 && times[seq] <= upTo-time.Duration(f.Window).Microseconds() {
				continue
			}
			known++
			if label == events.BadLabel {
				bad++
			}
		}
	}
	x := map[events.Take]float64{events.TakeKnown: known, events.TakeBad: bad, events.TakeBadShare: bad / known}[f.Take]
	switch {
	case math.IsNaN(x) && f.Empty != nil:
		return *f.Empty
	case math.IsNaN(x):
		return x
	case f.Log:
		return feature.SignedLog1p(x)
	}
	return x
}

// teller makes labels of events that there were, some of which are taken back or changed.
type teller struct {
	r      *rand.Rand
	log    []told
	labels map[uint64]events.Truth
	plan   *Plan
}

func (l *teller) next() (events.Known, told) {
	for {
		o := l.log[l.r.IntN(len(l.log))]
		was := l.labels[o.seq]
		label := events.Truth(l.r.IntN(3))
		if o.known || label == was {
			continue
		}
		l.labels[o.seq] = label
		k, ok := l.plan.Tell(Event{Record: &events.Record{Values: o.values, Time: time.UnixMicro(o.at)}, Entity: []byte(o.entity)})
		if !ok {
			panic("it cannot be told")
		}
		k.Seq, k.Claim, k.Was, k.Label = o.seq, 1, was, label
		return k, told{past: o.past, seq: o.seq, known: true, label: label}
	}
}

// Every feature of labels has the bits that keeping the whole log and working it out anew gives, also from snapshots, which have the
// bytes of having been there.
func TestLabelTwin(t *testing.T) {
	for _, idle := range []string{"400d", "20d"} {
		t.Run(idle, func(t *testing.T) {
			p := labelTakes(t, idle)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 5))
			for _, step := range []time.Duration{10 * time.Minute, 5 * time.Hour, 4 * 24 * time.Hour} {
				g := &generator{r: r, p: p, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), step: step, late: 5, cards: 4}
				w, s := &labelTwin{twin: twin{p: p}}, New(p)
				l := &teller{r: r, labels: map[uint64]events.Truth{}, plan: p}
				var rec events.Record
				out := make([]float64, p.Width())
				counted := 0.0
				var others []*Store
				for i := range 250 {
					if i > 0 && r.IntN(2) == 0 {
						k, o := l.next()
						if list, err := events.DecodeKnown(events.AppendKnown(nil, []events.Known{k})); err != nil || list[0].At != k.At {
							t.Fatalf("%+v: %+v, %v", k, list, err)
						}
						for _, x := range append(others, s) {
							x.Know(&k)
						}
						w.log = append(w.log, o)
						l.log = w.log
						continue
					}
					at := g.next(&rec)
					e := past{at.UnixMicro(), string(rec.Entity), slices.Clone(rec.Values)}
					s.Step(Event{Record: &rec}, out)
					for j, f := range p.Schema.Contract.Memory.Features {
						if !f.Take.OfLabels() {
							continue
						}
						if want := w.feature(f, e); !same(out[j], want) {
							t.Fatalf("step %s, event %d, %+v: %v, twin %v", step, i, f, out[j], want)
						} else if want > 0 {
							counted++
						}
					}
					for _, x := range others {
						x.Step(Event{Record: &rec}, make([]float64, p.Width()))
					}
					w.log = append(w.log, told{past: e, seq: uint64(i) + 1})
					l.log = w.log
					if i%60 == 7 {
						x, _, err := Decode(p, bytes.NewReader(encoded(t, s, Place{Seq: uint64(i)})))
						if err != nil {
							t.Fatal(err)
						}
						others = append(others, x)
					}
				}
				if counted < 50 {
					t.Errorf("step %s: only %v features counted a label", step, counted)
				}
				want := encoded(t, s, Place{})
				for i, x := range others {
					if !bytes.Equal(encoded(t, x, Place{}), want) {
						t.Errorf("step %s: from snapshot %d the state is another", step, i)
					}
				}
			}
		})
	}
}

// Labels of a hot key are put together: state is bounded, counts are at most a pane off at either edge, those for ever are exact, and
// what is taken back leaves nothing.
func TestHotLabels(t *testing.T) {
	p := compile(t, `
kind: payment
entity: card
time: at
fields:
- {name: amount, type: number}
memory:
  features:
  - {name: k1h, by: card, take: known, window: 1h, delay: 2h}
  - {name: b24h, by: card, take: bad, window: 24h, delay: 1h}
  - {name: k, by: card, take: known}
  - {name: b, by: card, take: bad}
`)
	s := New(p)
	var rec events.Record
	out := make([]float64, p.Width())
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const n, behind = 30_000, 700
	at := func(i int) time.Time { return start.Add(time.Duration(i) * 3 * time.Second) }
	known := func(i int, was, label events.Truth) {
		s.Know(&events.Known{Seq: uint64(i) + 1, Claim: 1, At: at(i), Entity: "hot", Was: was, Label: label})
	}
	truth := func(i int) events.Truth {
		if i%3 == 0 {
			return events.BadLabel
		}
		return events.GoodLabel
	}
	most := 0
	for i := range n {
		rec.Reset(p.Schema)
		rec.Time, rec.Entity = at(i), []byte("hot")
		s.Step(Event{Record: &rec}, out)
		told := max(0, i-behind)
		in := func(from, to time.Duration) float64 { // labels of events in (now - from, now - to]
			low, high := int(math.Floor(float64(i)-from.Seconds()/3))+1, int(math.Floor(float64(i)-to.Seconds()/3))
			return float64(max(0, min(high+1, told)-max(low, 0)))
		}
		if got, low, high := out[0], in(3*time.Hour-time.Minute, 2*time.Hour+time.Minute), in(3*time.Hour+time.Minute, 2*time.Hour); got < low || got > high {
			t.Fatalf("event %d: %v, want %v to %v", i, got, low, high)
		}
		if got, low, high := out[1], in(25*time.Hour-23*time.Minute, time.Hour+time.Minute)/3-1, in(25*time.Hour+23*time.Minute, time.Hour)/3+1; got < low || got > high {
			t.Fatalf("event %d: %v bad, want %v to %v", i, got, low, high)
		}
		if out[2] != float64(told) || out[3] != float64((told+2)/3) {
			t.Fatalf("event %d: %v known and %v bad for ever, want %d and %d", i, out[2], out[3], told, (told+2)/3)
		}
		if i >= behind {
			known(i-behind, events.NoLabel, truth(i-behind))
		}
		most = max(most, s.Bytes())
	}
	if most > 12_000 {
		t.Errorf("%d bytes of state", most)
	}
	t.Logf("at most %d bytes of state", most)
	for i := range n - behind {
		known(i, truth(i), events.NoLabel)
	}
	rec.Time = at(n)
	s.Step(Event{Record: &rec}, out)
	if out[0] != 0 || out[1] != 0 || out[2] != 0 || out[3] != 0 {
		t.Errorf("all is taken back, and %v are left", out)
	}
}

// Whatever unpacks packs to the same bytes, and whatever is then told of labels, nothing panics.
func FuzzUnpackLabels(f *testing.F) {
	p := labelTakes(f, "30d")
	g := &generator{r: rand.New(rand.NewPCG(1, 2)), p: p, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), step: time.Hour, late: 5, cards: 2}
	l := &teller{r: g.r, labels: map[uint64]events.Truth{}, plan: p}
	s := New(p)
	var rec events.Record
	out := make([]float64, p.Width())
	for i := range 60 {
		at := g.next(&rec)
		s.Step(Event{Record: &rec}, out)
		l.log = append(l.log, told{past: past{at.UnixMicro(), string(rec.Entity), slices.Clone(rec.Values)}, seq: uint64(i) + 1})
		k, _ := l.next()
		s.Know(&k)
	}
	for i := range s.keys {
		for _, r := range s.keys[i].rows {
			f.Add(uint8(i), r.state, int64(1))
		}
	}
	f.Fuzz(func(t *testing.T, group uint8, state []byte, back int64) {
		gr := &p.groups[int(group)%len(p.groups)]
		var e entry
		if e.unpack(state, gr) != nil {
			return
		}
		if again := e.pack(nil, gr); !bytes.Equal(again, state) {
			t.Fatalf("%x packs to %x", state, again)
		}
		for i := range int64(9) {
			e.labels.know(&gr.labels, e.clock, e.clock-(back&(1<<40-1))*i, events.Truth(i%3), events.Truth((i+1)%3))
		}
		packed := e.pack(nil, gr)
		if err := e.unpack(packed, gr); err != nil || !bytes.Equal(e.pack(nil, gr), packed) {
			t.Fatalf("%x, told of labels, is %x: %v", state, packed, err)
		}
	})
}

// What explain shows of labels is what is kept.
func TestTraceLabels(t *testing.T) {
	p := compile(t, "kind: payment\nentity: card\ntime: at\nfields:\n- {name: amount, type: number}\nmemory:\n  features:\n  - {name: b, by: card, take: bad, delay: 1d}\n")
	s := New(p)
	rec := events.Record{Values: make([]events.Value, 1), Entity: []byte("c")}
	out := make([]float64, 1)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, day := range []int{0, 3, 4} {
		rec.Time = start.AddDate(0, 0, day)
		s.Step(Event{Record: &rec}, out)
		s.Know(&events.Known{At: rec.Time, Entity: "c", Label: events.BadLabel})
	}
	s.Know(&events.Known{At: start, Entity: "c", Was: events.BadLabel, Label: events.GoodLabel})
	trace := s.Trace(Event{Record: &rec}, "")[0]
	day := func(n int) time.Time { return start.AddDate(0, 0, n) }
	if want := []Labels{{Known: 2, Bad: 1}, {day(4), day(4), 1, 1}}; !slices.Equal(trace.Labels, want) || !strings.HasSuffix(trace.String(), "; labels: 3, of them bad: 2") {
		t.Errorf("%+v\n%s", trace, trace)
	}
}

// BenchmarkKnow tells of labels: what it costs where the keys have three windows of them.
func BenchmarkKnow(b *testing.B) {
	p := compile(b, "kind: payment\nentity: card\ntime: at\nfields:\n- {name: shop, type: category}\nmemory:\n  features:\n  - {name: a, by: card, take: bad, window: 1d}\n  - {name: b, by: card, take: bad, window: 30d}\n  - {name: c, by: shop, take: bad_share, window: 28d, delay: 7d}\n  - {name: d, by: shop, take: bad, window: 1d}\n")
	s := New(p)
	rec := events.Record{Values: make([]events.Value, 1)}
	out := make([]float64, p.Width())
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const cards, shops = 10_000, 500
	step := 30 * 24 * time.Hour / (4 * cards)
	event := func(i int) events.Known {
		rec.Time = start.Add(time.Duration(i) * step)
		rec.Entity = fmt.Appendf(rec.Entity[:0], "c%d", i*7919%cards)
		rec.Values[0] = events.Value{State: events.HasText, Text: fmt.Appendf(nil, "s%d", i*7919%shops)}
		k, _ := p.Tell(Event{Record: &rec})
		k.Label = events.BadLabel
		return k
	}
	i := 0
	for ; i < 4*cards; i++ {
		k := event(i)
		s.Step(Event{Record: &rec}, out)
		s.Know(&k)
	}
	bytes := float64(s.Bytes()) / float64(s.Keys())
	b.ReportAllocs()
	for b.Loop() {
		i++
		k := event(i)
		b.StopTimer()
		s.Step(Event{Record: &rec}, out)
		b.StartTimer()
		s.Know(&k)
	}
	b.ReportMetric(bytes, "state-B/key")
}
