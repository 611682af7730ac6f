package sim

import (
	"bytes"
	"encoding/json"
	"math"
	"sort"
	"strconv"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func draw(g *Generator, n int) []Event {
	out := make([]Event, n)
	for i := range out {
		out[i] = g.Next(start.Add(time.Duration(i) * time.Millisecond))
	}
	return out
}

func TestSameConfigSameEvents(t *testing.T) {
	a, b := draw(New(Config{Seed: 7, Start: start}), 2000), draw(New(Config{Seed: 7, Start: start}), 2000)
	for i := range a {
		if !bytes.Equal(a[i].Body, b[i].Body) || a[i].ID != b[i].ID || a[i].Labelled != b[i].Labelled || a[i].LabelDelay != b[i].LabelDelay {
			t.Fatalf("event %d differs:\n%s\n%s", i, a[i].Body, b[i].Body)
		}
	}
}

func TestAnotherRunIsTheSameBankWithOtherPayments(t *testing.T) {
	a, b := New(Config{Seed: 7, Start: start}), New(Config{Seed: 7, Start: start.Add(time.Millisecond)})
	if x, y := a.world.cards[3], b.world.cards[3]; x.logUsual != y.logUsual || x.x != y.x {
		t.Errorf("card 3 has other habits in another run: %+v, %+v", x, y)
	}
	seen := map[string]bool{}
	for _, e := range append(draw(a, 3000), draw(b, 3000)...) {
		if seen[e.ID] {
			t.Fatalf("id %s stands twice", e.ID)
		}
		seen[e.ID] = true
	}
}

func TestBodiesFollowTheContract(t *testing.T) {
	c := Contract()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	roles := map[string]bool{c.ID: true, c.Entity: true, c.Time: true}
	types := map[string]events.FieldType{}
	for _, f := range c.Fields {
		types[f.Name] = f.Type
	}
	for _, e := range draw(New(Config{Seed: 1}), 2000) {
		var m map[string]any
		if err := json.Unmarshal(e.Body, &m); err != nil {
			t.Fatalf("%v in %s", err, e.Body)
		}
		for name := range m {
			if types[name] == "" && !roles[name] {
				t.Fatalf("field %s is not in the contract: %s", name, e.Body)
			}
		}
		if m["id"] != e.ID || m["card"] != e.Entity {
			t.Fatalf("id %v, card %v: want %s, %s", m["id"], m["card"], e.ID, e.Entity)
		}
		at, err := time.Parse(time.RFC3339, m["time"].(string))
		if err != nil || !at.Equal(e.Time.Truncate(time.Millisecond)) {
			t.Fatalf("time %v: want %v (%v)", m["time"], e.Time, err)
		}
		if a, err := strconv.ParseFloat(m["amount"].(string), 64); err != nil || a <= 0 {
			t.Fatalf("amount %v: want a positive decimal (%v)", m["amount"], err)
		}
	}
}

func TestSharesOfFraudAndLabels(t *testing.T) {
	const n = 40_000
	var fraud, fraudLabels, honestLabels, late int
	for _, e := range draw(New(Config{Seed: 3}), n) {
		switch {
		case e.Fraud:
			fraud++
			if e.Labelled {
				fraudLabels++
				if e.LabelDelay > Maturity {
					late++
				}
			}
		case e.Labelled:
			honestLabels++
		}
		if e.Labelled && (e.LabelDelay < time.Second || e.LabelDelay > 2*Maturity) {
			t.Fatalf("label of %s after %s", e.ID, e.LabelDelay)
		}
		if e.Labelled && e.Fraud != (e.Label == 1) {
			t.Fatalf("label %d of %s, fraud %t", e.Label, e.ID, e.Fraud)
		}
	}
	share := func(name string, a, b int, lo, hi float64) {
		if v := float64(a) / float64(b); v < lo || v > hi {
			t.Errorf("%s: %.4f, want %.3f to %.3f", name, v, lo, hi)
		}
	}
	share("fraud", fraud, n, 0.01, 0.02)
	share("labelled fraud", fraudLabels, fraud, 0.8, 0.9)
	share("labelled honest payments", honestLabels, n-fraud, 0.005, 0.015)
	share("fraud labels later than maturity", late, fraudLabels, 0.001, 0.06)
}

// A stolen card is used in a burst, far more often than its owner does.
func TestThievesComeInBursts(t *testing.T) {
	last := map[string]int{}
	gaps := map[bool][]float64{}
	for i, e := range draw(New(Config{Seed: 5}), 60_000) {
		if l, ok := last[e.Entity]; ok {
			gaps[e.Fraud] = append(gaps[e.Fraud], float64(i-l))
		}
		last[e.Entity] = i
	}
	median := func(x []float64) float64 { sort.Float64s(x); return x[len(x)/2] }
	if f, h := median(gaps[true]), median(gaps[false]); f > 0.6*h {
		t.Errorf("median gap to the card's payment before: %.0f events for fraud, %.0f for honest payments", f, h)
	}
}

// A logistic regression on the fields of single payments sees much, but not all: what needs memory is left to find.
func TestLogisticRegressionReachesAUC(t *testing.T) {
	var sum float64
	seeds := []uint64{1, 2}
	for _, seed := range seeds {
		const train, test = 30_000, 15_000
		x, y := vectors(t, draw(New(Config{Seed: seed, Start: start}), train+test))
		w := descend(x[:train], y[:train])
		p := make([]float64, test)
		for i := range p {
			p[i] = dot(w, x[train+i])
		}
		a := auc(p, y[train:])
		t.Logf("seed %d: AUC %.3f", seed, a)
		sum += a
	}
	if mean := sum / float64(len(seeds)); mean < 0.85 || mean > 0.92 {
		t.Errorf("mean AUC over seeds %v: %.3f, want 0.85 to 0.92", seeds, mean)
	}
}

const width = 48

// vectors encodes payments by hand, without the terminal.
func vectors(t *testing.T, evs []Event) (x [][]float64, y []bool) {
	t.Helper()
	levels := map[string]int{}
	for _, e := range evs {
		var b struct {
			Amount       float64 `json:",string"`
			AmountRatio  float64 `json:"amount_ratio"`
			Distance     *float64
			LocalHour    float64 `json:"local_hour"`
			KnownDevice  *bool   `json:"known_device"`
			Category     string
			Channel      string
			Country, Age string
		}
		if err := json.Unmarshal(e.Body, &b); err != nil {
			t.Fatal(err)
		}
		v := make([]float64, width)
		v[0] = 1
		v[1] = math.Log(b.Amount) - 3
		v[2] = math.Log(b.AmountRatio + 0.001)
		v[3] = (b.LocalHour - 12) / 7
		if b.Distance != nil {
			v[4] = math.Asinh(*b.Distance/100) - 1
		}
		if b.KnownDevice != nil && !*b.KnownDevice {
			v[5] = 1
		}
		for _, level := range []string{"category " + b.Category, "channel " + b.Channel, "country " + b.Country, "age " + b.Age} {
			if _, ok := levels[level]; !ok {
				levels[level] = 6 + len(levels)
			}
			v[levels[level]] = 1
		}
		x, y = append(x, v), append(y, e.Fraud)
	}
	return x, y
}

func dot(a, b []float64) (s float64) {
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

// descend fits by AdaGrad.
func descend(x [][]float64, y []bool) []float64 {
	w, squares := make([]float64, width), make([]float64, width)
	for range 3 {
		for i, v := range x {
			g := 1 / (1 + math.Exp(-dot(w, v)))
			if y[i] {
				g--
			}
			for j, xj := range v {
				if xj != 0 {
					squares[j] += g * xj * g * xj
					w[j] -= 0.1 * g * xj / math.Sqrt(squares[j]+1e-9)
				}
			}
		}
	}
	return w
}

// auc is the share of (fraud, honest) pairs that p orders rightly.
func auc(p []float64, y []bool) float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return p[order[a]] < p[order[b]] })
	var ranks, pos float64
	for rank, i := range order {
		if y[i] {
			ranks += float64(rank + 1)
			pos++
		}
	}
	return (ranks - pos*(pos+1)/2) / (pos * (float64(len(p)) - pos))
}
