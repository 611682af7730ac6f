package memory

import (
	"bytes"
	"cmp"
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

// everyTake is a contract with each aggregate over windows and for ever, by the entity, another field, and a pair.
func everyTake(t testing.TB, idle string) *Plan {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "kind: payment\nentity: card\ntime: at\nfields:\n- {name: amount, type: number}\n- {name: shop, type: category}\n- {name: country, type: category}\n- {name: chip, type: bool}\nmemory:\n  idle: %s\n  features:\n", idle)
	n := 0
	for _, x := range []struct {
		key     string
		windows []string
	}{
		{"by: card", []string{"", "window: 1h,", "window: 24h,", "window: 30d,"}},
		{"by: shop", []string{"", "window: 30d,"}},
		{"by: [card, shop]", []string{"window: 24h,"}},
		{"by: shop, for: country", []string{"", "window: 24h,"}},
	} {
		for _, window := range x.windows {
			for _, take := range []string{
				"count", "seen", "new", "since_last", "since_first", "count, where: {field: chip, below: 0.5}", "since_last, where: {field: country, is: [DE, FR]}",
				"sum, field: amount", "mean, field: amount", "min, field: amount", "max, field: amount", "sd, field: amount", "last, field: amount", "ratio, field: amount",
				"sd, field: amount, where: {field: amount, above: 10, below: 60}", "distinct, field: country", "distinct, field: amount, log: true", "distinct, field: card",
				"share, where: {field: country, is: [US]}", "last, field: amount, where: {field: chip, above: 0.5}, empty: -1", "mean, field: amount, log: true",
			} {
				n++
				fmt.Fprintf(&b, "  - {name: f%d, %s, %s take: %s}\n", n, x.key, window, take)
			}
		}
	}
	return compile(t, b.String())
}

func compile(t testing.TB, text string) *Plan {
	t.Helper()
	c, err := events.ParseContract([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// past is one event as the twin keeps it.
type past struct {
	at     int64
	entity string
	values []events.Value
}

// twin keeps every event and works each feature out of all of them.
type twin struct {
	p   *Plan
	all []past
}

func (w *twin) text(e *past, field string) (string, bool) {
	c := &w.p.Schema.Contract
	if field == c.Entity {
		return e.entity, e.entity != ""
	}
	i := slices.IndexFunc(c.Fields, func(f events.Field) bool { return f.Name == field })
	return string(e.values[i].Text), e.values[i].State == events.HasText
}

func (w *twin) value(e *past, field string) events.Value {
	if field == w.p.Schema.Contract.Entity {
		return events.Value{State: events.HasText, Text: []byte(e.entity)}
	}
	i := slices.IndexFunc(w.p.Schema.Contract.Fields, func(f events.Field) bool { return f.Name == field })
	return e.values[i]
}

func (w *twin) feature(f events.MemoryFeature, e past) float64 {
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
	// The key's events since it was last forgotten, and its clock.
	var own []past
	var clock, kind int64
	for i := range w.all {
		o := &w.all[i]
		if i == 0 {
			kind = o.at
		}
		kind = max(kind, o.at)
		same := true
		for j, k := range f.By {
			v, ok := w.text(o, k)
			same = same && ok && v == want[j]
		}
		if !same {
			continue
		}
		if len(own) > 0 && clock <= kind-idle {
			own = nil
		}
		if len(own) == 0 || o.at > clock {
			clock = o.at
		}
		own = append(own, *o)
	}
	if len(own) > 0 && clock <= max(kind, e.at)-idle {
		own = nil
	}
	now := e.at
	if len(own) > 0 {
		now = max(now, clock)
	}
	window := time.Duration(f.Window).Microseconds()
	if window > 0 {
		// A late event that no window reached when it came is in none.
		span := int64(0)
		for _, g := range w.p.Schema.Contract.Memory.Features {
			if slices.Equal(g.By, f.By) {
				span = max(span, time.Duration(g.Window).Microseconds())
			}
		}
		own = slices.DeleteFunc(own, func(o past) bool { return o.at <= now-window })
		slices.SortStableFunc(own, func(a, b past) int { return cmp.Compare(a.at, b.at) })
	}
	met := func(o *past) bool {
		c := f.Where
		if c == nil {
			return true
		}
		v := w.value(o, c.Field)
		switch v.State {
		case events.HasNum:
			return !(c.Below != nil && v.Num >= *c.Below) && !(c.Above != nil && v.Num <= *c.Above)
		case events.HasText:
			return slices.Contains(c.Is, string(v.Text))
		}
		return false
	}
	var xs []float64
	var ts []int64
	known, values := 0, map[string]bool{}
	for i := range own {
		o := &own[i]
		if f.Where != nil && w.value(o, f.Where.Field).State != events.Missing {
			known++
		}
		x := 0.0
		if f.Field != "" {
			v := w.value(o, f.Field)
			if v.State == events.Missing {
				continue
			}
			x = v.Num
			values[fmt.Sprint(v.Num, string(v.Text))] = true
		}
		if met(o) {
			xs, ts = append(xs, x), append(ts, o.at)
		}
	}
	x, ok := twinTake(f, xs, ts, known, len(values), now, e, w)
	switch {
	case !ok && f.Empty != nil:
		return *f.Empty
	case !ok:
		return math.NaN()
	case f.Log:
		return feature.SignedLog1p(x)
	}
	return x
}

func twinTake(f events.MemoryFeature, xs []float64, ts []int64, known, distinct int, now int64, e past, w *twin) (float64, bool) {
	n := float64(len(xs))
	sum := func() float64 { // Neumaier, as documented
		s, lost := 0.0, 0.0
		for _, x := range xs {
			t := s + x
			if math.Abs(s) >= math.Abs(x) {
				lost += (s - t) + x
			} else {
				lost += (x - t) + s
			}
			s = t
		}
		return s + lost
	}
	switch f.Take {
	case events.TakeCount:
		return n, true
	case events.TakeDistinct:
		return float64(distinct), true
	case events.TakeSum:
		return sum(), true
	case events.TakeSeen:
		return min(1, n), true
	case events.TakeNew:
		return 1 - min(1, n), true
	case events.TakeShare:
		return n / float64(known), known > 0
	}
	if n == 0 {
		return 0, false
	}
	switch f.Take {
	case events.TakeMean:
		return sum() / n, true
	case events.TakeMin:
		return slices.Min(xs), true
	case events.TakeMax:
		return slices.Max(xs), true
	case events.TakeSD: // Welford
		mean, m2 := 0.0, 0.0
		for i, x := range xs {
			d := x - mean
			mean += d / float64(i+1)
			m2 += float64(d * (x - mean))
		}
		return math.Sqrt(m2 / n), true
	case events.TakeSinceLast:
		return float64(now-slices.Max(ts)) / 1e6, true
	case events.TakeSinceFirst:
		return float64(now-slices.Min(ts)) / 1e6, true
	case events.TakeRatio:
		v := w.value(&e, f.Field)
		mean := sum() / n
		return v.Num / mean, v.State == events.HasNum && mean != 0
	}
	last := 0
	for i := range ts {
		if ts[i] >= ts[last] {
			last = i
		}
	}
	return xs[last], true
}

type generator struct {
	r     *rand.Rand
	p     *Plan
	clock time.Time
	step  time.Duration
	late  int // one in so many
	cards int
}

func (g *generator) next(rec *events.Record) (at time.Time) {
	g.clock = g.clock.Add(time.Duration(g.r.ExpFloat64() * float64(g.step))).Truncate(time.Microsecond)
	at = g.clock
	if g.late > 0 && g.r.IntN(g.late) == 0 {
		at = at.Add(-time.Duration(g.r.ExpFloat64() * 20 * float64(g.step))).Truncate(time.Microsecond)
	}
	if g.r.IntN(3) == 0 {
		at = at.Truncate(time.Hour) // ties
	}
	rec.Reset(g.p.Schema)
	rec.Time = at
	rec.Entity = fmt.Appendf(nil, "c%d", g.r.IntN(g.cards))
	if g.r.IntN(8) > 0 {
		rec.Values[0] = events.Value{State: events.HasNum, Num: math.Round(g.r.ExpFloat64()*3000) / 100}
		if g.r.IntN(9) == 0 {
			rec.Values[0].Num = -1e12 * g.r.Float64()
		}
	}
	countries := []string{"DE", "FR", "US", "s1"}
	if g.r.IntN(8) > 0 {
		rec.Values[1] = events.Value{State: events.HasText, Text: fmt.Appendf(nil, "s%d", g.r.IntN(3))}
	}
	if g.r.IntN(8) > 0 {
		rec.Values[2] = events.Value{State: events.HasText, Text: []byte(countries[g.r.IntN(4)])}
	}
	if g.r.IntN(2) > 0 {
		rec.Values[3] = events.Value{State: events.HasNum, Num: float64(g.r.IntN(2))}
	}
	return at
}

func same(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b)
}

// Every feature has the bits that keeping all events and working it out anew gives, whatever comes late.
func TestTwin(t *testing.T) {
	for _, idle := range []string{"400d", "30d"} {
		t.Run(idle, func(t *testing.T) {
			p := everyTake(t, idle)
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 5))
			for _, step := range []time.Duration{time.Minute, 5 * time.Hour, 9 * 24 * time.Hour} {
				g := &generator{r: r, p: p, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), step: step, late: 5, cards: 4}
				w, s := &twin{p: p}, New(p)
				var rec events.Record
				out := make([]float64, p.Width())
				for i := range 120 {
					at := g.next(&rec)
					s.Step(Event{Record: &rec}, out)
					e := past{at.UnixMicro(), string(rec.Entity), slices.Clone(rec.Values)}
					for j, f := range p.Schema.Contract.Memory.Features {
						if want := w.feature(f, e); !same(out[j], want) {
							t.Fatalf("step %s, event %d, %+v: %v, twin %v", step, i, f, out[j], want)
						}
					}
					w.all = append(w.all, e)
				}
				if idle == "30d" && step > time.Hour*24 && s.Keys() > 30 {
					t.Errorf("%d keys are kept of which most are idle", s.Keys())
				}
			}
		})
	}
}

// A hot key keeps a bounded state: counts are at most what one pane more than the window holds, and what is for ever stays exact.
func TestHotKey(t *testing.T) {
	p := compile(t, `
kind: payment
entity: card
time: at
fields:
- {name: amount, type: number}
- {name: country, type: category}
memory:
  features:
  - {name: n1h, by: card, take: count, window: 1h}
  - {name: s1h, by: card, take: sum, field: amount, window: 1h}
  - {name: n24h, by: card, take: count, window: 24h}
  - {name: sd24h, by: card, take: sd, field: amount, window: 24h}
  - {name: n, by: card, take: count}
  - {name: d1h, by: card, take: distinct, field: country, window: 1h}
  - {name: d, by: card, take: distinct, field: country}
`)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 6))
	s := New(p)
	var rec events.Record
	out := make([]float64, p.Width())
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var times []int64
	since := func(now, w int64) float64 {
		i, _ := slices.BinarySearch(times, now-w+1)
		return float64(len(times) - i)
	}
	worst, most := 0.0, 0
	last := map[int]int64{}
	worstDistinct := 0.0
	for i := range 40_000 {
		at = at.Add(time.Duration(r.ExpFloat64() * float64(3*time.Second))).Truncate(time.Microsecond)
		rec.Reset(p.Schema)
		rec.Time, rec.Entity = at, []byte("hot")
		rec.Values[0] = events.Value{State: events.HasNum, Num: 1}
		c := r.IntN(3000)
		rec.Values[1] = events.Value{State: events.HasText, Text: fmt.Append(nil, c)}
		s.Step(Event{Record: &rec}, out)
		now := at.UnixMicro()
		for _, x := range []struct {
			got float64
			w   time.Duration
		}{{out[0], time.Hour}, {out[1], time.Hour}, {out[2], 24 * time.Hour}} {
			w := x.w.Microseconds()
			low, high := since(now, w), since(now, w+w/panes)
			if x.got < low || x.got > high {
				t.Fatalf("event %d, window %s: %v, want %v to %v", i, x.w, x.got, low, high)
			}
			if low > 1000 {
				worst = max(worst, x.got/low-1)
			}
		}
		if out[3] > 1e-9 || out[4] != float64(i) {
			t.Fatalf("event %d: sd %v of equal values, %v for ever", i, out[3], out[4])
		}
		if i%1000 == 999 {
			n := 0
			for _, l := range last {
				if l > now-time.Hour.Microseconds() {
					n++
				}
			}
			worstDistinct = max(worstDistinct, math.Abs(out[5]/float64(n)-1), math.Abs(out[6]/float64(len(last))-1))
		}
		last[c] = now
		times = append(times, now)
		most = max(most, s.Bytes())
	}
	if most > 40_000 || worst > 0.06 || worstDistinct > 0.35 {
		t.Errorf("%d bytes, counts off by at most %.3g, distinct by %.3g", most, worst, worstDistinct)
	}
	t.Logf("at most %d bytes of state, counts off by at most %.3g, distinct by %.3g", most, worst, worstDistinct)
}

// Whatever unpacks packs to the same bytes, and nothing panics.
func FuzzUnpack(f *testing.F) {
	p := everyTake(f, "30d")
	g := &generator{r: rand.New(rand.NewPCG(1, 2)), p: p, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), step: time.Hour, late: 5, cards: 2}
	s := New(p)
	var rec events.Record
	out := make([]float64, p.Width())
	for range 60 {
		g.next(&rec)
		s.Step(Event{Record: &rec}, out)
	}
	for i := range s.keys {
		for _, r := range s.keys[i].rows {
			f.Add(uint8(i), r.state)
		}
	}
	f.Fuzz(func(t *testing.T, group uint8, state []byte) {
		gr := &p.groups[int(group)%len(p.groups)]
		var e entry
		if e.unpack(state, gr) != nil {
			return
		}
		if again := e.pack(nil, gr); !bytes.Equal(again, state) {
			t.Fatalf("%x packs to %x", state, again)
		}
	})
}
