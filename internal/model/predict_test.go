package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func compiled(t testing.TB, a *Artifact, s *events.Schema) *Predictor {
	t.Helper()
	p, err := Compile(a, s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func randomBody(r *rand.Rand) string {
	channel := []string{"branch", "web<&>", "phone"}[r.IntN(3)]
	var b strings.Builder
	fmt.Fprintf(&b, `{"channel":%q,"age":%d,"income":%g`, channel, 18+r.IntN(70), 3000*r.NormFloat64())
	if r.IntN(4) > 0 {
		fmt.Fprintf(&b, `,"amount":%g`, 50*r.ExpFloat64())
	}
	for _, f := range []string{"count", "speed", "distance"} {
		if r.IntN(8) > 0 {
			fmt.Fprintf(&b, `,%q:%g`, f, 20*r.NormFloat64())
		}
	}
	b.WriteString("}")
	return b.String()
}

// TestScore holds the predictor against what it must equal, the library's own logit, and against slow and plain ways to
// the reasons.
func TestScore(t *testing.T) {
	seed := uint64(20261123)
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	schema := testSchema(t, nil)
	a := testArtifact(-3.5)
	for j := range a.Weights {
		a.Weights[j].Weight, a.Weights[j].Baseline = r.NormFloat64(), r.NormFloat64()
	}
	p := compiled(t, a, schema)
	enc, err := a.Spec.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	m := lr.Model{Intercept: a.Intercept}
	for _, w := range a.Weights {
		m.Weights = append(m.Weights, w.Weight)
	}
	x := make([]float64, enc.Dim())
	var s Scratch
	for range 2000 {
		body := randomBody(r)
		rec := decodeRecord(t, schema, body)
		enc.Encode(x, rec)
		got := p.Score(rec, &s)
		if math.Float64bits(got.Logit) != math.Float64bits(m.Logit(x)) || math.Float64bits(got.P) != math.Float64bits(m.Prob(x)) {
			t.Fatalf("%s: logit %v, p %v, want %v, %v", body, got.Logit, got.P, m.Logit(x), m.Prob(x))
		}
		if want := slowReasons(a, schema, m, x); !slices.Equal(got.Reasons, want) {
			t.Fatalf("%s: reasons %v, want %v", body, got.Reasons, want)
		}
		parts := p.Explain(rec)
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		sum := p.Base()
		for _, part := range parts {
			sum += part.Add
		}
		if sum != got.Logit {
			t.Fatalf("%s: base and contributions make %v, the logit is %v", body, sum, got.Logit)
		}
	}
}

// slowReasons sums by name, sorts, and cuts.
func slowReasons(a *Artifact, s *events.Schema, m lr.Model, x []float64) []events.Reason {
	baseline, parts := make([]float64, len(x)), make([]float64, len(x))
	for j, w := range a.Weights {
		baseline[j] = w.Baseline
	}
	m.Contributions(parts, x, baseline)
	sums := map[string]float64{}
	for j, w := range a.Weights {
		name := w.Field
		for _, f := range s.Contract.Fields {
			if f.Name == name && f.Sensitive {
				name = Withheld
			}
		}
		sums[name] += parts[j]
	}
	var all []events.Reason
	for name, add := range sums {
		if add > 0 {
			all = append(all, events.Reason{Field: name, Add: add})
		}
	}
	slices.SortFunc(all, func(a, b events.Reason) int {
		if a.Add != b.Add {
			if a.Add > b.Add {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Field, b.Field)
	})
	return all[:min(len(all), 4)]
}

func TestReasons(t *testing.T) {
	schema := testSchema(t, nil)
	for _, c := range []struct {
		name    string
		weights map[string]float64 // by column; the rest 0
		body    string
		want    string
	}{
		{"nothing raised the risk", map[string]float64{"count": -1}, `{"count":7}`, "[]"},
		{"largest first, four at most", map[string]float64{"amount": 1, "count": 1, "speed": 1, "distance": 1, "channel=branch": 9},
			`{"amount":20,"count":9,"speed":1.25,"distance":31,"channel":"branch"}`, "[{channel 9} {count 3} {distance 3} {speed 0.5}]"},
		{"ties by name", map[string]float64{"speed": 1, "count": 1}, `{"count":7,"speed":2}`, "[{count 2} {speed 2}]"},
		{"sensitive fields are one, and nameless", map[string]float64{"age": 1, "income": 1, "count": 1},
			`{"age":64,"income":2900,"count":5}`, "[{(withheld) 3} {count 1}]"},
		{"sensitive fields that cancel are no reason", map[string]float64{"age": 1, "income": -2}, `{"age":52,"income":2900}`, "[]"},
		{"missing raises it", map[string]float64{"amount__missing": 2}, `{}`, "[{amount 2}]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := testArtifact(0)
			for j := range a.Weights {
				w := &a.Weights[j]
				w.Weight, w.Baseline = c.weights[w.Column], 0
			}
			var s Scratch
			got := compiled(t, a, schema).Score(decodeRecord(t, schema, c.body), &s)
			if text := strings.ReplaceAll(fmt.Sprint(got.Reasons), " }", "}"); text != c.want { // without codes
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
}

func TestPoints(t *testing.T) {
	// 600 points at 50:1, 20 more at 100:1, 20 fewer at 25:1.
	schema := testSchema(t, nil)
	for _, c := range []struct {
		odds float64 // good to bad
		want int
	}{{50, 600}, {100, 620}, {25, 580}, {1, 487}, {1e30, MaxPoints}, {1e-30, MinPoints}} {
		a := testArtifact(-math.Log(c.odds))
		for j := range a.Weights {
			a.Weights[j].Weight = 0
		}
		var s Scratch
		if got := compiled(t, a, schema).Score(decodeRecord(t, schema, `{}`), &s).Points; got != c.want {
			t.Errorf("odds %v: %d points, want %d", c.odds, got, c.want)
		}
	}
}

func TestPrior(t *testing.T) {
	schema := testSchema(t, nil)
	var s Scratch
	for _, prior := range []float64{0, 0.02, 0.5, 1} {
		schema.Contract.Prior = prior
		p := Prior(&schema.Contract)
		got := p.Score(decodeRecord(t, schema, `{"amount":1e9}`), &s)
		if got.P != prior || len(got.Reasons) != 0 || !p.IsPrior() || math.IsInf(got.Logit, 0) {
			t.Errorf("prior %v: %+v", prior, got)
		}
		if got.Points < MinPoints || got.Points > MaxPoints {
			t.Errorf("prior %v: %d points", prior, got.Points)
		}
	}
}

// TestScoreOfWildEvents: whatever an event holds, the answer is a probability.
func TestScoreOfWildEvents(t *testing.T) {
	schema := testSchema(t, nil)
	a := testArtifact(maxWeight)
	for j := range a.Weights {
		a.Weights[j].Weight, a.Weights[j].Baseline = maxWeight*float64(1-2*(j%2)), 1e9
	}
	p := compiled(t, a, schema)
	var s Scratch
	for _, body := range []string{`{"amount":1.7e308,"age":-1.7e308,"income":1.7e308,"count":1.7e308}`, `{"count":-1.7e308,"speed":5e-324}`, `{}`} {
		got := p.Score(decodeRecord(t, schema, body), &s)
		if math.IsNaN(got.Logit) || !(got.P >= 0 && got.P <= 1) || got.Points < MinPoints || got.Points > MaxPoints {
			t.Errorf("%s: %+v", body, got)
		}
	}
}

func TestScoreDoesNotAllocate(t *testing.T) {
	schema := testSchema(t, nil)
	p := compiled(t, testArtifact(-3.5), schema)
	rec := decodeRecord(t, schema, `{"amount":900,"channel":"branch","age":70,"count":9}`)
	var s Scratch
	if n := testing.AllocsPerRun(100, func() { p.Score(rec, &s) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*events.Contract)
		want string
	}{
		{"field removed", func(c *events.Contract) { c.Fields = c.Fields[1:] }, "amount"},
		{"field retyped", func(c *events.Contract) { c.Fields[4].Type = events.Category }, "count"},
		{"field protected", func(c *events.Contract) { c.Fields[2].Protected = true }, "age"},
		{"another kind", func(c *events.Contract) { c.Kind = "claim" }, "not of claim"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Compile(testArtifact(1), testSchema(t, c.edit))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
	// A field more changes nothing.
	more := testSchema(t, func(c *events.Contract) {
		c.Fields = append([]events.Field{{Name: "new", Type: events.Number}}, c.Fields...)
	})
	var s Scratch
	before := compiled(t, testArtifact(1), testSchema(t, nil)).Score(decodeRecord(t, testSchema(t, nil), `{"count":7}`), &s)
	after := compiled(t, testArtifact(1), more).Score(decodeRecord(t, more, `{"count":7,"new":3}`), &s)
	if before.Logit != after.Logit {
		t.Errorf("logit %v became %v with a field that the model does not read", before.Logit, after.Logit)
	}
}

func BenchmarkScore(b *testing.B) {
	schema := testSchema(b, nil)
	p := compiled(b, testArtifact(-3.5), schema)
	rec := decodeRecord(b, schema, `{"amount":900,"channel":"branch","age":70,"count":9}`)
	var s Scratch
	b.ReportAllocs()
	for b.Loop() {
		p.Score(rec, &s)
	}
}
