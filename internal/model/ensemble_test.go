package model

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/boost"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

const cardText = `
kind: payment
base: 520
scale: {base: 600, odds: 50, pdo: 20}
fields:
  - field: amount
    bins: [{below: 10, points: 12}, {below: 100, points: 3}, {points: -20}]
    missing: -4
  - field: channel
    levels: {branch: 15, phone: -10}
    other: 1
  - field: age
    bins: [{below: 25, points: -8}, {points: 5}]
`

func testCard(t testing.TB) *Scorecard {
	t.Helper()
	c, err := ParseScorecard([]byte(cardText))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func body(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testEnsemble is testArtifact with members whose numbers are drawn.
func testEnsemble(t testing.TB, r *rand.Rand) *Artifact {
	t.Helper()
	a := testArtifact(-2)
	a.Format, a.Calibration.Method = FormatEnsemble, CalibrationFusion
	online := Online{Slope: 0.9, Shift: 0.1}
	for j := range a.Weights {
		a.Weights[j].Weight, a.Weights[j].Baseline = r.NormFloat64(), r.NormFloat64()
		online.Weights = append(online.Weights, r.NormFloat64())
	}
	var trees boost.Model
	for range 10 {
		v := func() float64 { return math.Round(r.NormFloat64()*64) / 64 }
		c := func() int { return r.IntN(len(a.Weights)) }
		trees.Trees = append(trees.Trees, boost.Tree{{Column: c(), Cut: v(), Left: 1, Right: 2, Value: v()}, {Column: -1, Value: v()},
			{Column: c(), Cut: v(), Left: 3, Right: 4, Value: v()}, {Column: -1, Value: v()}, {Column: -1, Value: v()}})
	}
	e := &Ensemble{Forget: 0.999, Members: []Member{
		{Kind: KindBatch}, {Kind: KindBoost, Body: body(t, trees)}, {Kind: KindOnline, Body: body(t, online)}, {Kind: KindScorecard, Body: body(t, testCard(t))},
	}}
	e.Fusions = testFusions(r, KindBatch, KindBoost, KindOnline, KindScorecard)
	a.Ensemble = e
	return a
}

func testFusions(r *rand.Rand, names ...string) (all []Fusion) {
	for mask := 1; mask < 1<<len(names); mask++ {
		f := Fusion{Bias: r.NormFloat64()}
		for i, n := range names {
			if mask>>i&1 == 1 {
				f.Members, f.Weights = append(f.Members, n), append(f.Weights, r.Float64())
			}
		}
		all = append(all, f)
	}
	return all
}

// TestFusedReasonsAreTheFusedLogit, bit for bit and in any order, for every set of members and records however wild; and the logit is
// the fusion's formula to rounding, where nothing is held.
func TestFusedReasonsAreTheFusedLogit(t *testing.T) {
	seed := uint64(20261201)
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	a := testEnsemble(t, r)
	schema := testSchema(t, nil)
	whole := compiled(t, a, schema)
	if got := whole.Members(); !slices.Equal(got, []string{"batch", "boost", "online", "scorecard"}) || len(whole.Unusable()) > 0 {
		t.Fatalf("members %v, unusable %v", got, whole.Unusable())
	}
	var s Scratch
	logits, wild := make([]float64, 4), 0
	for i := range 1500 {
		text := randomBody(r)
		if i%10 == 0 {
			text = `{"channel":"web<&>","amount":1e300,"income":-1e300,"speed":1e200}`
		}
		rec := decodeRecord(t, schema, text)
		whole.Logits(logits, rec, &s)
		f := a.Ensemble.Fusions[r.IntN(len(a.Ensemble.Fusions))]
		var out []string
		for _, m := range whole.Members() {
			if !slices.Contains(f.Members, m) {
				out = append(out, m)
			}
		}
		p, err := whole.Without(out...)
		if err != nil {
			t.Fatal(err)
		}
		got := p.Score(rec, &s)
		want := f.Bias
		for k, m := range f.Members {
			want += f.Weights[k] * logits[slices.Index(whole.Members(), m)]
		}
		if slices.Contains(f.Members, KindOnline) {
			want = 0.9*want + 0.1
		}
		if math.IsNaN(got.P) || got.Prior || got.Out != strings.Join(append([]string{""}, out...), "-") {
			t.Fatalf("%s by %v: p %v, prior %t, out %q", text, f.Members, got.P, got.Prior, got.Out)
		}
		parts := p.Explain(rec)
		held := slices.ContainsFunc(parts, func(x events.Reason) bool { return math.Abs(x.Add) >= maxPart })
		if held {
			wild++
		} else if math.Abs(got.Logit-want) > 1e-9 {
			t.Fatalf("%s by %v: logit %v, want %v", text, f.Members, got.Logit, want)
		}
		r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
		sum := 0.0
		for _, x := range parts {
			sum += x.Add
		}
		if sum += p.Base(); sum != got.Logit {
			t.Fatalf("%s by %v: base and contributions make %v, the logit is %v", text, f.Members, sum, got.Logit)
		}
	}
	if wild < 50 || wild > 1000 {
		t.Errorf("%d records were wild", wild)
	}
}

// TestAMemberThatFailsIsLeftOut, by whatever way it fails, and the score is that of the others; with none the prior answers.
func TestAMemberThatFailsIsLeftOut(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	schema := testSchema(t, nil)
	p := compiled(t, testEnsemble(t, r), schema)
	rec := decodeRecord(t, schema, randomBody(r))
	for name, fault := range map[string]func() float64{
		"NaN":      math.NaN,
		"infinite": func() float64 { return math.Inf(-1) },
		"panic":    func() float64 { panic("test") },
	} {
		for _, member := range p.Members() {
			var s, clean Scratch
			s.Fault = func(m string) float64 {
				if m == member {
					return fault()
				}
				return 0
			}
			others, err := p.Without(member)
			if err != nil {
				t.Fatal(err)
			}
			got, want := p.Score(rec, &s), others.Score(rec, &clean)
			if got.Logit != want.Logit || got.Out != "-"+member || !slices.Equal(got.Reasons, want.Reasons) {
				t.Errorf("%s of %s: %v (%s), want %v", name, member, got, got.Out, want)
			}
			if s.Working.Load() != 0 {
				t.Errorf("%s of %s: it counts as still at work", name, member)
			}
		}
	}
	s := Scratch{}
	s.Fault = func(string) float64 { panic("all") }
	if got := p.Score(rec, &s); !got.Prior || got.P != 0.02 || got.Out != "-batch-boost-online-scorecard" || len(got.Reasons) != 0 {
		t.Errorf("with every member gone: %+v, want the prior", got)
	}
}

// TestAMemberThatCannotBeReadIsLeftOut when the artifact is compiled, and the rest of it serves.
func TestAMemberThatCannotBeReadIsLeftOut(t *testing.T) {
	schema := testSchema(t, nil)
	for name, x := range map[string]struct {
		member string
		body   string
	}{
		"trees of other columns": {KindBoost, `{"intercept":0,"trees":[[{"c":99,"l":1,"r":2,"v":0},{"c":-1,"v":0},{"c":-1,"v":0}]]}`},
		"no number":              {KindBoost, `{"intercept":1e999,"trees":[]}`},
		"no JSON of the kind":    {KindBoost, `[]`},
		"too few weights":        {KindOnline, `{"intercept":0,"weights":[1],"slope":1,"shift":0,"covariance":[0,0,0]}`},
		"no slope":               {KindOnline, `{}`},
		"a card of another kind": {KindScorecard, `{"kind":"loan","base":0,"scale":{"base":600,"odds":50,"pdo":20},"fields":[{"field":"amount","bins":[{"points":1}]}]}`},
	} {
		a := testEnsemble(t, rand.New(rand.NewPCG(8, 8)))
		whole := compiled(t, a, schema)
		a.Ensemble.Members[a.Ensemble.index(x.member)].Body = json.RawMessage(x.body)
		encoded, err := a.Encode()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		back, err := Decode(encoded)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := compiled(t, back, schema)
		if p.Out() != "-"+x.member || len(p.Unusable()) != 1 || !strings.HasPrefix(p.Unusable()[0], x.member+": ") {
			t.Errorf("%s: out %q, unusable %v", name, p.Out(), p.Unusable())
		}
		var s Scratch
		rec := decodeRecord(t, schema, `{"channel":"phone","amount":4,"age":30,"income":10}`)
		others, _ := whole.Without(x.member)
		if got, want := p.Score(rec, &s).Logit, others.Score(rec, &s).Logit; got != want {
			t.Errorf("%s: logit %v, want %v", name, got, want)
		}
		if _, err := p.Only(nil); err == nil {
			t.Errorf("%s: it claims that all can vote", name)
		}
	}
	a := testEnsemble(t, rand.New(rand.NewPCG(8, 8)))
	a.Ensemble.Members[3] = Member{Kind: "zebra", Body: json.RawMessage(`{"stripes":2}`)}
	a.Ensemble.Fusions = testFusions(rand.New(rand.NewPCG(9, 9)), KindBatch, KindBoost, KindOnline, "zebra")
	if p := compiled(t, a, schema); p.Out() != "-zebra" {
		t.Errorf("out is %q: want the kind that no program knows", p.Out())
	}
}

func TestEnsembleSurvivesEncoding(t *testing.T) {
	a := testEnsemble(t, rand.New(rand.NewPCG(10, 1)))
	schema := testSchema(t, nil)
	text, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	rec := decodeRecord(t, schema, `{"channel":"branch","amount":70,"age":20}`)
	var s Scratch
	if got, want := compiled(t, back, schema).Score(rec, &s).Logit, compiled(t, a, schema).Score(rec, &s).Logit; got != want {
		t.Errorf("logit %v, was %v", got, want)
	}
	for name, spoil := range map[string]func(a *Artifact){
		"a set without a fusion": func(a *Artifact) { a.Ensemble.Fusions = a.Ensemble.Fusions[1:] },
		"one that stands twice":  func(a *Artifact) { a.Ensemble.Fusions[0] = a.Ensemble.Fusions[1] },
		"a weight below 0":       func(a *Artifact) { a.Ensemble.Fusions[2].Weights[0] = -0.1 },
		"a stranger":             func(a *Artifact) { a.Ensemble.Fusions[0].Members[0] = "zebra" },
		"members out of order":   func(a *Artifact) { m := a.Ensemble.Members; m[0], m[1] = m[1], m[0] },
		"format 1":               func(a *Artifact) { a.Format = Format },
		"no ensemble":            func(a *Artifact) { a.Ensemble = nil },
		"forgetting more":        func(a *Artifact) { a.Ensemble.Forget = 1.5 },
		"calibration":            func(a *Artifact) { a.Calibration.Method = CalibrationNone },
	} {
		a := testEnsemble(t, rand.New(rand.NewPCG(10, 1)))
		spoil(a)
		if _, err := a.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func TestSnapshots(t *testing.T) {
	a := testEnsemble(t, rand.New(rand.NewPCG(11, 1)))
	schema := testSchema(t, nil)
	p := compiled(t, a, schema)
	s := &Snapshot{Format: SnapshotFormat, Kind: "payment", Version: 1, Labels: 12, Online: Online{Slope: 1, Weights: make([]float64, len(a.Weights))}}
	s.Weights[0] = 2
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeSnapshot(text)
	if err != nil {
		t.Fatal(err)
	}
	next, err := p.With(back, 41)
	if err != nil {
		t.Fatal(err)
	}
	var scratch Scratch
	rec := decodeRecord(t, schema, `{"channel":"branch","amount":70}`)
	before, after := p.Score(rec, &scratch), next.Score(rec, &scratch)
	if before.Snapshot != 0 || after.Snapshot != 41 || before.Logit == after.Logit {
		t.Errorf("snapshot %d then %d, logit %v then %v", before.Snapshot, after.Snapshot, before.Logit, after.Logit)
	}
	without, _ := next.Without(KindOnline)
	if got := without.Score(rec, &scratch); got.Snapshot != 0 {
		t.Errorf("without it the score names snapshot %d", got.Snapshot)
	}
	for i := range text {
		if text[i] != '2' {
			continue
		}
		altered := slices.Clone(text)
		altered[i] = '3'
		if _, err := DecodeSnapshot(altered); err == nil {
			t.Errorf("%s was taken", altered)
		}
		break
	}
	s.Version = 2
	if _, err := p.With(s, 42); err == nil {
		t.Error("a snapshot of another version was taken")
	}
	s.Version, s.Weights = 1, s.Weights[1:]
	if _, err := p.With(s, 42); err == nil {
		t.Error("a snapshot of too few columns was taken")
	}
	s.Weights[0] = math.NaN()
	if _, err := s.Encode(); err == nil {
		t.Error("NaN was encoded")
	}
}

func TestScorecard(t *testing.T) {
	schema := testSchema(t, nil)
	c := testCard(t)
	if err := c.Check(schema); err != nil {
		t.Fatal(err)
	}
	logit, err := c.Logit(schema)
	if err != nil {
		t.Fatal(err)
	}
	for text, points := range map[string]float64{
		`{"channel":"branch","amount":9.99,"age":24}`: 520 + 12 + 15 - 8,
		`{"channel":"phone","amount":10,"age":25}`:    520 + 3 - 10 + 5,
		`{"channel":"web","amount":100,"age":80}`:     520 - 20 + 1 + 5,
		`{}`: 520 - 4, // a card says nothing of what is missing, unless it says so
	} {
		want := lr.Scorecard{BasePoints: 600, BaseOdds: 50, PDO: 20}.Logit(points)
		if got := logit(decodeRecord(t, schema, text)); math.Abs(got-want) > 1e-12 {
			t.Errorf("%s: logit %v, want %v for %v points", text, got, want, points)
		}
	}
	for name, text := range map[string]string{
		"unknown member": strings.Replace(cardText, "base: 520", "bass: 520", 1),
		"two documents":  cardText + "---\nkind: x\n",
	} {
		if _, err := ParseScorecard([]byte(text)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for name, change := range map[string][2]string{
		"another kind":         {"kind: payment", "kind: loan"},
		"unknown field":        {"field: amount", "field: amont"},
		"twice":                {"field: age", "field: amount"},
		"bounds out of order":  {"below: 100", "below: 5"},
		"last with a bound":    {"{points: -20}", "{below: 1000, points: -20}"},
		"levels of a number":   {"field: channel", "field: speed"},
		"no points, but a lot": {"points: 12", "points: 1e9"},
		"no pdo":               {"pdo: 20", "pdo: 0"},
	} {
		c, err := ParseScorecard([]byte(strings.Replace(cardText, change[0], change[1], 1)))
		if err != nil {
			t.Fatal(err)
		}
		if c.Check(schema) == nil {
			t.Errorf("%s: taken", name)
		}
	}
	protected := testSchema(t, func(c *events.Contract) { c.Fields[2].Protected = true })
	if c.Check(protected) == nil {
		t.Error("a card that reads a protected field was taken")
	}
}

func TestEnsembleScoresWithoutAllocating(t *testing.T) {
	r := rand.New(rand.NewPCG(12, 1))
	schema := testSchema(t, nil)
	p := compiled(t, testEnsemble(t, r), schema)
	rec := decodeRecord(t, schema, randomBody(r))
	var s Scratch
	if n := testing.AllocsPerRun(100, func() { p.Score(rec, &s) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// BenchmarkMembers is one record, encoded and scored with reasons.
func BenchmarkMembers(b *testing.B) {
	r := rand.New(rand.NewPCG(13, 1))
	schema := testSchema(b, nil)
	rec := decodeRecord(b, schema, randomBody(r))
	for name, a := range map[string]*Artifact{"one": testArtifact(-2), "four": testEnsemble(b, r)} {
		b.Run("members="+name, func(b *testing.B) {
			p := compiled(b, a, schema)
			var s Scratch
			b.ReportAllocs()
			for b.Loop() {
				p.Score(rec, &s)
			}
		})
	}
}
