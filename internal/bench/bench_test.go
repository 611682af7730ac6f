package bench

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

// The same seed gives the same events, and both encodings say the same.
func TestEncodingsAgree(t *testing.T) {
	schema, err := events.Compile(contract("bench_json", 8))
	if err != nil {
		t.Fatal(err)
	}
	g, again := newGenerator(3), newGenerator(3)
	for range 200 {
		e, twin := g.event(), again.event()
		if e != twin {
			t.Fatalf("%+v, and from the same seed %+v", e, twin)
		}
		var said []string
		for _, enc := range []events.Encoding{events.JSON, events.Msgpack} {
			body, err := e.body(enc)
			if err != nil {
				t.Fatal(err)
			}
			if found, err := events.DetectEncoding("", body); err != nil || found != enc {
				t.Fatalf("taken for %v, %v: %s", found, err, body)
			}
			var rec events.Record
			if err := schema.Decode(enc, body, &rec); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if rec.Unknown != 0 || len(rec.Values) != numbers+categories {
				t.Fatalf("%d unknown fields, %d values", rec.Unknown, len(rec.Values))
			}
			said = append(said, fmt.Sprintf("%s %s %+v", rec.ID, rec.Entity, rec.Values))
		}
		if said[0] != said[1] {
			t.Fatalf("JSON says\n%s\nand msgpack\n%s", said[0], said[1])
		}
	}
}

// The model that is measured with reads every field, and tells good from bad.
func TestModelOfTheWorkload(t *testing.T) {
	a, err := fit(t.Context(), contract("bench_json", 8), model.ContractRef{Version: 1, Revision: 1}, trainOn)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]bool{}
	for _, w := range a.Weights {
		fields[w.Field] = true
	}
	if len(fields) != numbers+categories {
		t.Errorf("it reads %d fields, want %d", len(fields), numbers+categories)
	}
	if a.Metrics.AUC < 0.75 {
		t.Errorf("AUC %.3f: scores that are all alike would compress too well", a.Metrics.AUC)
	}
}

func samplesOf(rates map[string][]float64) (out []Sample) {
	for name, v := range rates {
		for i, x := range v {
			out = append(out, Sample{Name: name, Round: i + 1, Rate: x})
		}
	}
	return out
}

// A ratio is of samples of one round: a machine that slows down in the middle changes none.
func TestRatiosAreOfOneRound(t *testing.T) {
	r := Report{Samples: samplesOf(map[string][]float64{
		NameCeiling: {100, 10, 50, 40, 20}, NameMsgpack: {90, 9, 45, 36, 10}, NameJSON: {80, 8, 40, 32, 16}, NamePlain: {45, 4.5, 30, 20, 10},
	})}
	r.conclude()
	if r.RatioToCeiling != 0.9 || r.RatioJSON != 0.8 || r.RatioToPlain != 1.8 {
		t.Errorf("%.2f, %.2f, %.2f: want 0.90, 0.80, 1.80", r.RatioToCeiling, r.RatioJSON, r.RatioToPlain)
	}
	if s := r.Ratios[NameMsgpack+"/"+NameCeiling]; s.Min != 0.5 || s.Max != 0.9 || s.N != 5 {
		t.Errorf("spread %+v, want 0.5 to 0.9 of 5", s)
	}
	if s := r.Rates[NameCeiling]; s.Median != 40 || s.Min != 10 || s.Max != 100 {
		t.Errorf("rates %+v", s)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil || !strings.Contains(b.String(), "0.90") {
		t.Errorf("%v: %s", err, &b)
	}
}

func TestCompareSaysNoise(t *testing.T) {
	of := func(low, mid, high float64) map[string]Spread {
		return map[string]Spread{NameMsgpack + "/" + NameCeiling: {Median: mid, Min: low, Max: high, N: 5}}
	}
	for _, x := range []struct {
		now  map[string]Spread
		want string
	}{{of(0.7, 0.8, 0.9), "~"}, {of(0.4, 0.5, 0.6), "-38 %"}, {of(0.95, 1.0, 1.1), "+25 %"}} {
		var b bytes.Buffer
		r := Report{Ratios: x.now}
		if err := r.Compare(&b, Report{Ratios: of(0.75, 0.8, 0.85)}); err != nil {
			t.Fatal(err)
		}
		line := strings.Split(b.String(), "\n")[2]
		if !strings.HasSuffix(line, x.want) {
			t.Errorf("%q: want %s", line, x.want)
		}
	}
}

// The quantile is the nearest rank, as counting says.
func TestQuantileTwin(t *testing.T) {
	for n := 1; n <= 40; n++ {
		v := make([]float64, n)
		for i := range v {
			v[i] = float64((i * 7) % n)
		}
		slices.Sort(v)
		for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
			got, atMost := quantile(v, q), 0
			for _, x := range v {
				if x <= got {
					atMost++
				}
			}
			before := 0
			for _, x := range v {
				if x < got {
					before++
				}
			}
			if float64(atMost) < q*float64(n) || float64(before) >= q*float64(n) {
				t.Fatalf("n %d, q %g: %g has %d at most it, %d below", n, q, got, atMost, before)
			}
		}
	}
}

func TestOutcomeOfSize(t *testing.T) {
	for _, n := range []int{20, 400, 1000} {
		if got := outcomeOfSize(n); len(got) != n {
			t.Errorf("%d bytes, want %d", len(got), n)
		}
	}
}

func TestFell(t *testing.T) {
	old := Report{RatioToCeiling: 0.8}
	for ratio, falls := range map[float64]bool{0.9: false, 0.8: false, 0.61: false, 0.59: true, 0: true} {
		if err := (&Report{RatioToCeiling: ratio}).Fell(old, 0.75); (err != nil) != falls {
			t.Errorf("%g against 0.8: %v", ratio, err)
		}
	}
	if err := (&Report{}).Fell(old, 0); err != nil {
		t.Errorf("without a share: %v", err)
	}
}

// Every contract of the memory benchmark is a newer version of the one before, has the features that its name says, decodes the workload, and has a model.
func TestMemoryContracts(t *testing.T) {
	for i, c := range memoryCases {
		k := memoryContract(c, 8, i+1)
		text, err := k.YAML()
		if err == nil {
			k, err = events.ParseContract(text)
		}
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		schema, err := events.Compile(k)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := len(schema.Inputs) - len(k.Fields); got != c.features {
			t.Errorf("%s: %d features", c.name, got)
		}
		g := newGenerator(5)
		for _, fields := range []int{1, numbers} {
			e := g.event()
			e.shop, e.at = "s1", time.Unix(1e9, 5000)
			body, err := e.msgpackOf(fields)
			if err != nil {
				t.Fatal(err)
			}
			var rec events.Record
			if err := schema.Decode(events.Msgpack, body, &rec); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			if rec.Unknown != 0 || !rec.Time.Equal(e.at) || rec.Values[0].Num != e.n[0] || string(rec.Values[numbers+categories].Text) != "s1" {
				t.Errorf("%s: %d unknown fields, %+v", c.name, rec.Unknown, rec.Values)
			}
		}
		a, err := fit(t.Context(), k, model.ContractRef{Version: i + 1, Revision: 1}, trainOn)
		if err != nil || len(a.Weights) < c.features {
			t.Errorf("%s: a model of %v, %v", c.name, a, err)
		}
	}
}

// What a report concludes is of samples of the same round.
func TestMemoryReport(t *testing.T) {
	r := MemoryReport{Samples: []MemorySample{
		{Sample: Sample{Name: NameCeiling, Round: 1, Rate: 100}}, {Sample: Sample{Name: "10 by account", Round: 1, Rate: 50}, Ready: 2, Resident: 3e6},
		{Sample: Sample{Name: NameCeiling, Round: 2, Rate: 10}}, {Sample: Sample{Name: "10 by account", Round: 2, Rate: 9}, Ready: 4, Resident: 5e6},
	}, TakeOvers: []float64{1.5}}
	r.conclude()
	if s := r.Ratios["10 by account"]; s.Min != 0.5 || s.Max != 0.9 || s.N != 2 {
		t.Errorf("%+v", s)
	}
	var b bytes.Buffer
	if err := r.Write(&b); err != nil || !strings.Contains(b.String(), "0.70") || !strings.Contains(b.String(), "1.50 s") {
		t.Errorf("%v:\n%s", err, b.String())
	}
}

func TestVariantReport(t *testing.T) {
	r := VariantReport{Variants: []string{"open", "secured"}, Rates: map[string]Spread{}, Ratios: map[string]Spread{}, CPU: map[string]Spread{}, Samples: []VariantSample{
		{"open", Scoring, 1, 100, 20}, {"secured", Scoring, 1, 90, 22}, {"open", Scoring, 2, 200, 20}, {"secured", Scoring, 2, 160, 24}, {"secured", Scoring, 3, 1, 1},
		{"open", Publishing, 1, 10, 0}, {"secured", Publishing, 1, 5, 0},
	}}
	r.conclude()
	if got := r.Ratios["scoring secured"]; math.Abs(got.Median-0.85) > 1e-12 || got.N != 2 { // the third round has nothing to compare with
		t.Errorf("%+v", got)
	}
	if got := r.Ratios["publishing secured"]; got.Median != 0.5 || r.Ratios["scoring open"].Median != 1 || r.CPU["open"].Median != 20 || r.CPU["secured"].N != 3 {
		t.Errorf("%+v", r)
	}
	var b strings.Builder
	if err := r.Write(&b); err != nil || !strings.Contains(b.String(), "secured") || strings.Contains(b.String(), "NaN") {
		t.Errorf("%v: %s", err, b.String())
	}
}
