package trainer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func rememberingSchema(t *testing.T, feature string, version int) *events.Schema {
	t.Helper()
	c, err := events.ParseContract(fmt.Appendf(nil, `
kind: rating
version: %d
rollout: {mode: gated, approval: solo}
id: id
entity: rater
time: at
lanes: 2
fields:
- {name: ratee, type: category, key: true}
- {name: rating, type: number, past: true}
memory:
  features:
  - %s
`, version, feature))
	if err != nil {
		t.Fatal(err)
	}
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The service trains on what the events remember, bit for bit as it is folded from the log; and anew when the contract declares another
// memory.
func TestTrainsOnMemory(t *testing.T) {
	h := newHouse(t)
	schema := rememberingSchema(t, "{name: mean, by: ratee, take: mean, field: rating, window: 30d}", 1)
	apply := func(s *events.Schema) {
		t.Helper()
		if _, err := topology.ApplyKind(testkit.Context(t), h.js, s.Contract, topology.Options{Replicas: 1}); err != nil {
			t.Fatal(err)
		}
	}
	apply(schema)
	repeats := func(i int) bool { return i%70 == 69 && i%50 != 49 } // another event, with its id
	var bodies [][]byte
	r := rand.New(rand.NewPCG(7, 8))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 600 {
		at = at.Add(time.Duration(r.IntN(3000)) * time.Second)
		ratee := r.IntN(12)
		rating, bad := 3, 0
		if ratee < 4 && r.IntN(4) > 0 {
			rating, bad = -5, 1
		}
		body := fmt.Appendf(nil, `{"id":"e%d","rater":"u%d","ratee":"v%d","rating":%d,"at":%q}`, i, i%9, ratee, rating, at.Format(time.RFC3339))
		if i%50 == 49 {
			body = []byte(`{"rating":"broken"}`) // leaves no trace
		}
		rater := i % 9
		if repeats(i) {
			body, rater = bodies[i-31], (i-31)%9 // as little
		}
		bodies = append(bodies, body)
		label := fmt.Appendf(nil, `{"id":"e%d","label":%d}`, i, bad)
		for subject, b := range map[string][]byte{fmt.Sprintf("events.rating.u%d", rater): body, fmt.Sprintf("labels.rating.u%d", i%9): label} {
			if _, err := h.js.Publish(testkit.Context(t), subject, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(k *kind, s *events.Schema) (bool, string) {
		k.mu.Lock()
		whole, current := k.eventsRead && k.labelsRead && k.join.labels >= 600 && len(k.join.rows) == 588-7, fingerprint(s) == k.memory.fingerprint()
		k.mu.Unlock()
		if !whole || !current {
			return false, fmt.Sprintf("whole %v, current %v", whole, current)
		}
		data, seqs, _ := k.material(1000).dataset()
		plan, err := memory.Compile(s)
		if err != nil {
			t.Fatal(err)
		}
		store, out := memory.New(plan), make([]float64, plan.Width())
		var rec, got events.Record
		n := 0
		for i, body := range bodies {
			if repeats(i) || s.Decode(events.JSON, body, &rec) != nil {
				continue
			}
			store.Step(memory.Event{Record: &rec}, out)
			if n >= len(seqs) || seqs[n] != uint64(i)+1 {
				t.Fatalf("record %d is not of event %d", n, i+1)
			}
			data.Record(n, &got)
			v := got.Values[len(got.Values)-1]
			if (v.State == events.Missing) != math.IsNaN(out[0]) || v.State != events.Missing && math.Float64bits(v.Num) != math.Float64bits(out[0]) {
				t.Fatalf("event %d: trained on %+v, folded %v", i+1, v, out[0])
			}
			n++
		}
		return n == len(seqs), fmt.Sprint(n)
	}
	tr := h.start(t, "one", nil)
	testkit.Eventually(t, testkit.Deadline, "all is read", func() (bool, string) {
		k := tr.kind("rating")
		if k == nil {
			return false, "no such kind yet"
		}
		return check(k, schema)
	})
	h.awaitChampion(t, "rating", 1)
	a, err := h.registry.Get(t.Context(), "rating", 1)
	if err != nil || a.Weights[0].Field != "mean" || a.Metrics.AUC < 0.8 {
		t.Errorf("%+v, %v", a, err)
	}
	next := rememberingSchema(t, "{name: mean, by: ratee, take: mean, field: rating}", 2)
	apply(next)
	testkit.Eventually(t, testkit.Deadline, "all is read under the other contract", func() (bool, string) { return check(tr.kind("rating"), next) })
}
