package feature

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// wildValue is any value that a decoder could make of a field of the type, and some that none would.
func wildValue(rng *rand.Rand, t events.FieldType) events.Value {
	if rng.IntN(8) == 0 {
		return none()
	}
	if t == events.Category {
		return text([]string{"a", "b", "é", "\xff\xfe", "a very long level ", "", "0"}[rng.IntN(7)])
	}
	switch rng.IntN(4) {
	case 0:
		return num([]float64{0, math.Copysign(0, -1), math.MaxFloat64, -math.MaxFloat64, 5e-324, math.Inf(1), math.Inf(-1), math.NaN()}[rng.IntN(8)])
	case 1:
		return num(math.Float64frombits(rng.Uint64()))
	}
	return num(rng.NormFloat64())
}

func wildRecord(rng *rand.Rand, schema *events.Schema, rec *events.Record) {
	rec.Values = rec.Values[:0]
	for _, f := range schema.Contract.Fields {
		rec.Values = append(rec.Values, wildValue(rng, f.Type))
	}
	rec.Time = time.Unix(rng.Int64()>>rng.IntN(40), 0)
}

// wildSpec is inferred from records of every type, with every kind of transform.
func wildSpec(t testing.TB, seed uint64) (*rand.Rand, *events.Schema, Spec) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	var fields []events.Field
	kinds := map[string]Kind{}
	for i, ft := range []events.FieldType{events.Number, events.Money, events.Number, events.Category, events.Category, events.Bool, events.Time} {
		f := events.Field{Name: fmt.Sprintf("f%d", i), Type: ft}
		if ft == events.Money {
			f.Currency = "EUR"
		}
		fields = append(fields, f)
	}
	kinds["f0"], kinds["f1"], kinds["f2"], kinds["f4"] = Numeric, Asinh, Log1p, Hashed
	schema := compile(t, fields...)
	recs := func(yield func(*events.Record) bool) {
		var rec events.Record
		for range 200 {
			wildRecord(rng, schema, &rec)
			for i := range rec.Values { // what Decode promises, and training may rely on
				if v := &rec.Values[i]; v.State == events.HasNum && (math.IsNaN(v.Num) || math.IsInf(v.Num, 0)) {
					v.Num = 1
				}
			}
			if !yield(&rec) {
				return
			}
		}
	}
	spec, err := Infer(schema, recs, Options{Kinds: kinds, Buckets: 16})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	return rng, schema, spec
}

func TestEncodedNumbersAreFinite(t *testing.T) {
	for seed := range uint64(30) {
		rng, schema, spec := wildSpec(t, seed)
		e, err := spec.Compile(schema)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		x, again := make([]float64, e.Dim()), make([]float64, e.Dim())
		var rec events.Record
		for range 1000 {
			wildRecord(rng, schema, &rec)
			e.Encode(x, &rec)
			e.Encode(again, &rec)
			for j, v := range x {
				if !(math.Abs(v) <= MaxMagnitude) {
					t.Fatalf("seed %d: %s of %+v is %v", seed, e.Columns()[j].Name, rec.Values, v)
				}
				if math.Float64bits(v) != math.Float64bits(again[j]) {
					t.Fatalf("seed %d: %s of %+v is %v, then %v", seed, e.Columns()[j].Name, rec.Values, v, again[j])
				}
			}
		}
	}
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	rng, schema, spec := wildSpec(t, 1)
	e, err := spec.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float64, e.Dim())
	var rec events.Record
	wildRecord(rng, schema, &rec)
	if n := testing.AllocsPerRun(100, func() { e.Encode(x, &rec) }); n != 0 {
		t.Errorf("Encode allocates %v times, want 0", n)
	}
}

// FuzzSpec looks for a spec that Validate takes and that then panics or encodes to what is not finite.
func FuzzSpec(f *testing.F) {
	_, schema, spec := wildSpec(f, 5)
	text, err := spec.Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, uint64(1))
	f.Add([]byte(`{"version":1,"fields":[{"field":"f0","kind":"asinh","iqr":5e-324,"sd":5e-324}]}`), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		spec, err := ParseSpec(text)
		if err != nil {
			return
		}
		e, err := spec.Compile(schema)
		if err != nil {
			return
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		x := make([]float64, e.Dim())
		var rec events.Record
		for range 20 {
			wildRecord(rng, schema, &rec)
			e.Encode(x, &rec)
			for j, v := range x {
				if !(math.Abs(v) <= MaxMagnitude) {
					t.Fatalf("%s of %+v is %v", e.Columns()[j].Name, rec.Values, v)
				}
			}
		}
	})
}

func BenchmarkEncode20Fields(b *testing.B) {
	var fields []events.Field
	var row []events.Value
	for i := range 20 {
		f := events.Field{Name: fmt.Sprintf("f%d", i), Type: events.Number}
		v := num(float64(i))
		if i%2 == 1 {
			f.Type, v = events.Category, text(fmt.Sprintf("level-%d", i))
		}
		fields, row = append(fields, f), append(row, v)
	}
	schema := compile(b, fields...)
	spec, err := Infer(schema, records(row), Options{Encoding: AllAsinh})
	if err != nil {
		b.Fatal(err)
	}
	e, err := spec.Compile(schema)
	if err != nil {
		b.Fatal(err)
	}
	x := make([]float64, e.Dim())
	rec := events.Record{Values: row, Time: time.Unix(1e9, 0)}
	b.ReportAllocs()
	for b.Loop() {
		e.Encode(x, &rec)
	}
}
