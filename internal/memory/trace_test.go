package memory

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// What explain shows is what features were read from: it says when a set has become a sample, tells nothing of a sensitive
// field, and is JSON whatever the sums have grown to.
func TestTrace(t *testing.T) {
	p := compile(t, `kind: payment
entity: card
time: at
fields:
- {name: amount, type: number}
- {name: income, type: number, sensitive: true}
- {name: shop, type: category}
memory:
  features:
  - {name: least, by: card, take: min, field: amount}
  - {name: sd, by: card, take: sd, field: amount, window: 1h}
  - {name: total, by: card, take: sum, field: amount, window: 1h}
  - {name: rich, by: card, take: sum, field: income}
  - {name: shops, by: card, take: distinct, field: shop, window: 1h}
  - {name: shops_ever, by: card, take: distinct, field: shop}
`)
	s := New(p)
	rec := events.Record{Entity: []byte("c")}
	out := make([]float64, p.Width())
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	step := func(at time.Duration, amount float64, shop string) {
		rec.Time = start.Add(at)
		rec.Values = []events.Value{{State: events.HasNum, Num: amount}, {State: events.HasNum, Num: 777777}, {State: events.HasText, Text: []byte(shop)}}
		s.Step(Event{Record: &rec}, out)
	}
	trace := func() (KeyState, string) {
		k := s.Trace(Event{Record: &rec}, "(withheld)")[0]
		text, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		if all := string(text) + k.String(); strings.Contains(all, "777777") {
			t.Errorf("a sensitive field shows in %s", all)
		}
		return k, k.String()
	}
	step(0, 0, "a")
	step(time.Minute, 4, "b")
	step(2*time.Minute, 2, "a")
	k, text := trace()
	for _, want := range []string{"amount: 3, least 0", "distinct shop in 1h0m0s: 2", "distinct shop: 2", "income: 3;"} {
		if !strings.Contains(text+";", want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if len(k.Recent) != 3 || *k.Recent[1].Sum != 4 || *k.Recent[1].Mean != 4 || *k.Recent[1].SD != 0 {
		t.Errorf("%+v", k.Recent)
	}

	for i := range 3000 {
		step(3*time.Minute, 1, fmt.Sprint(i))
	}
	k, text = trace()
	for i, set := range k.Sets {
		if got := s.Read(Event{Record: &rec}, out); got.Repeated() || set.OneIn < 8 || set.Values != out[4+i] || set.Values < 2000 || set.Values > 4000 {
			t.Errorf("of 3002 values: %+v, the feature is %v", set, out[4+i])
		}
	}
	if !strings.Contains(text, "distinct shop: about ") || !strings.Contains(text, ", by a sample of one in ") {
		t.Errorf("not said to be a sample: %s", text)
	}

	step(4*time.Minute, 1.7e308, "a")
	step(4*time.Minute, 1.7e308, "a")
	step(4*time.Minute, -1.7e308, "a")
	trace()
}

// Those that nothing happened to leave, a few with each event, and give their place to others.
func TestIdleKeysLeave(t *testing.T) {
	p := compile(t, "kind: payment\nentity: card\ntime: at\nfields:\n- {name: amount, type: number}\nmemory:\n  idle: 2d\n  features:\n  - {name: n, by: card, take: count, window: 1d}\n")
	s := New(p)
	rec := events.Record{Values: make([]events.Value, 1)}
	out := make([]float64, p.Width())
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const n = 2000
	for round := range 3 {
		for i := range n {
			rec.Time, rec.Entity = at.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "%d of %d", i, round)
			s.Step(Event{Record: &rec}, out)
		}
		at = at.Add(4 * 24 * time.Hour)
	}
	rec.Entity = []byte("busy")
	for i := range n {
		rec.Time = at.Add(time.Duration(i) * time.Second)
		s.Step(Event{Record: &rec}, out)
	}
	if rows := len(s.keys[0].rows); s.Keys() != 1 || rows > 2*n || s.Bytes() > 20_000 {
		t.Errorf("%d keys in %d places, %d bytes, where one is not idle", s.Keys(), rows, s.Bytes())
	}
}
