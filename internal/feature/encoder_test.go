package feature

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
	"github.com/vmihailenco/msgpack/v5"
)

// compile makes the schema of a kind with these fields, and a time.
func compile(t testing.TB, fields ...events.Field) *events.Schema {
	t.Helper()
	c := events.DefaultContract()
	c.Kind, c.Time, c.Fields = "test", "at", fields
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func num(x float64) events.Value { return events.Value{State: events.HasNum, Num: x} }
func text(s string) events.Value { return events.Value{State: events.HasText, Text: []byte(s)} }
func none() events.Value         { return events.Value{} }
func numbers(n string) events.Field {
	return events.Field{Name: n, Type: events.Number}
}

func records(rows ...[]events.Value) func(func(*events.Record) bool) {
	return func(yield func(*events.Record) bool) {
		var rec events.Record
		for i, r := range rows {
			rec.Values, rec.Time = r, time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC)
			if !yield(&rec) {
				return
			}
		}
	}
}

func encode(t testing.TB, s Spec, schema *events.Schema, at time.Time, row ...events.Value) []float64 {
	t.Helper()
	e, err := s.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	x := make([]float64, e.Dim())
	e.Encode(x, &events.Record{Values: row, Time: at})
	return x
}

func near(a, b, tolerance float64) bool { return math.Abs(a-b) <= tolerance*max(1, math.Abs(b)) }

func TestInferAndEncode(t *testing.T) {
	schema := compile(t,
		numbers("n"),
		numbers("gone"), // never has a value
		numbers("flat"),
		events.Field{Name: "c", Type: events.Category},
		events.Field{Name: "blank", Type: events.Category},
		events.Field{Name: "b", Type: events.Bool},
		events.Field{Name: "secret", Type: events.Category, Protected: true},
	)
	spec, err := Infer(schema, records(
		[]events.Value{num(1), none(), num(0.1), text("y"), text("p"), num(0), text("m")},
		[]events.Value{num(3), none(), num(0.1), text("x"), none(), num(1), text("f")},
		[]events.Value{none(), none(), num(0.1), text("é"), text("q"), num(0), text("f")},
		[]events.Value{num(5), none(), num(0.1), text("Z"), text("p"), num(1), text("m")},
	), Options{Encoding: Plain})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range spec.Columns("at") {
		names = append(names, c.Name)
	}
	// Levels by code point: Z, x, y, é; "" before p, q. Four days hold two hours' periods and no other's.
	want := "n n__missing flat c=x c=y c=é blank=p blank=q b at:hour_sin at:hour_cos"
	if got := strings.Join(names, " "); got != want {
		t.Fatalf("columns are\n%s, want\n%s", got, want)
	}
	sd := math.Sqrt(8.0 / 3)
	six := time.Date(2026, 5, 1, 6, 59, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		row  []events.Value
		want []float64
	}{
		{"values", []events.Value{num(5), none(), num(0.1), text("é"), text("q"), num(1), text("f")}, []float64{2 / sd, 0, 0, 0, 0, 1, 0, 1, 1, 1, 0}},
		{"missing", []events.Value{none(), none(), none(), none(), none(), none(), none()}, []float64{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0}},
		{"unseen", []events.Value{num(3), num(9), num(1.1), text("new"), text("new"), num(0), none()}, []float64{0, 0, 1, 0, 0, 0, 0, 0, -1, 1, 0}},
		{"first level", []events.Value{num(3), none(), num(0.1), text("Z"), none(), num(0), none()}, []float64{0, 0, 0, 0, 0, 0, 0, 0, -1, 1, 0}},
	} {
		got := encode(t, spec, schema, six, c.row...)
		for i := range c.want {
			if !near(got[i], c.want[i], 1e-15) {
				t.Errorf("%s: %s is %v, want %v", c.name, names[i], got[i], c.want[i])
			}
		}
	}
}

func TestEncodeNumbers(t *testing.T) {
	schema := compile(t, numbers("n"))
	for _, c := range []struct {
		tr      Transform
		x, want float64
	}{
		{Transform{Kind: Numeric, Mean: 10, SD: 2}, 7, -1.5},
		{Transform{Kind: Log1p, Mean: 1, SD: 2}, math.E - 1, 0},
		{Transform{Kind: Log1p, Mean: 1, SD: 2}, 1 - math.E, -1},
		{Transform{Kind: Asinh, Median: 3, IQR: 4, Mean: 1, SD: 0.5}, 11, (math.Asinh(2) - 1) / 0.5},
		{Transform{Kind: Asinh, Median: math.MaxFloat64, IQR: 1e-300, SD: 1}, -math.MaxFloat64, math.Asinh(-math.MaxFloat64)},
		{Transform{Kind: Numeric, Mean: math.MaxFloat64, SD: 1e-300}, -math.MaxFloat64, -MaxMagnitude},
		{Transform{Kind: Numeric, SD: 1}, math.NaN(), 0},
	} {
		c.tr.Field = "n"
		s := Spec{Version: SpecVersion, Fields: []Transform{c.tr}}
		if got := encode(t, s, schema, time.Time{}, num(c.x))[0]; !near(got, c.want, 1e-14) {
			t.Errorf("%s of %v is %v, want %v", c.tr.Kind, c.x, got, c.want)
		}
	}
}

func TestAutoTakesAsinhWhereTailsAreWild(t *testing.T) {
	schema := compile(t, numbers("tame"), numbers("wild"), numbers("mostly_zero"))
	rng := rand.New(rand.NewPCG(1, 2))
	var rows [][]events.Value
	for range 1000 {
		zero := 0.0
		if rng.Float64() < 0.1 {
			zero = rng.Float64() * 50
		}
		rows = append(rows, []events.Value{num(rng.NormFloat64()), num(math.Exp(4 * rng.NormFloat64())), num(zero)})
	}
	kinds := func(o Options) (ks []Kind) {
		spec, err := Infer(schema, records(rows...), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range spec.Fields[:3] {
			ks = append(ks, f.Kind)
		}
		return ks
	}
	for _, c := range []struct {
		o    Options
		want []Kind
	}{
		{Options{}, []Kind{Numeric, Asinh, Numeric}},
		{Options{Encoding: Plain}, []Kind{Numeric, Numeric, Numeric}},
		{Options{Encoding: AllAsinh}, []Kind{Asinh, Asinh, Asinh}},
		{Options{Kinds: map[string]Kind{"wild": Log1p, "tame": Asinh}}, []Kind{Asinh, Log1p, Numeric}},
	} {
		if got := kinds(c.o); !slices.Equal(got, c.want) {
			t.Errorf("%+v: kinds are %v, want %v", c.o, got, c.want)
		}
	}
	if _, err := Infer(schema, records(rows...), Options{Kinds: map[string]Kind{"tame": OneHot, "no": Numeric}}); err == nil {
		t.Error("a kind that does not fit its field was taken")
	}
}

func TestManyLevelsAreHashed(t *testing.T) {
	schema := compile(t, events.Field{Name: "c", Type: events.Category})
	var rows [][]events.Value
	for i := range 30 {
		rows = append(rows, []events.Value{text(fmt.Sprintf("merchant-%d", i))})
	}
	rows = append(rows, []events.Value{none()})
	spec, err := Infer(schema, records(rows...), Options{MaxLevels: 30, Buckets: 8}) // 31 with the level of no value
	if err != nil {
		t.Fatal(err)
	}
	if f := spec.Fields[0]; f.Kind != Hashed || f.Buckets != 8 || !f.Missing {
		t.Fatalf("field is %+v, want it hashed into 8 buckets with a column for missing", f)
	}
	hit := map[int]int{}
	for _, r := range rows[:30] {
		x := encode(t, spec, schema, time.Time{}, r...)[:9] // the hour follows
		i := slices.Index(x, 1)
		if i < 0 || i >= 8 || slices.Max(x) != 1 || slices.Index(x[i+1:], 1) >= 0 {
			t.Fatalf("%s gives %v, want a single 1 among the first 8", r[0].Text, x)
		}
		hit[i]++
	}
	if len(hit) < 6 {
		t.Errorf("30 levels fall into %d of 8 buckets: %v", len(hit), hit)
	}
	if x := encode(t, spec, schema, time.Time{}, none()); slices.Index(x, 1) != 8 {
		t.Errorf("missing gives %v, want 1 in the last column", x)
	}
	// The hash is part of the spec's meaning: another one would be another SpecVersion.
	if a, b := bucket([]byte("merchant-7"), 4096), bucket([]byte("é"), 1000); a != 832 || b != 990 {
		t.Errorf("buckets are %d and %d, want 832 and 990", a, b)
	}
	if spec, err = Infer(schema, records(rows...), Options{MaxLevels: 31}); err != nil || spec.Fields[0].Kind != OneHot {
		t.Errorf("31 levels at a bound of 31: %v, %v, want onehot", spec.Fields, err)
	}
	if spec, err = Infer(schema, records(rows...), Options{MaxLevels: 3, Kinds: map[string]Kind{"c": OneHot}}); err != nil || len(spec.Fields[0].Levels) != 31 {
		t.Errorf("onehot by choice: %v, %v, want 31 levels", spec.Fields, err)
	}
}

// TestLongLevelsAreUnseen: one event with a megabyte for a category must not fill the artifact of every model after it.
func TestLongLevelsAreUnseen(t *testing.T) {
	s := compile(t, events.Field{Name: "country", Type: events.Category})
	long := strings.Repeat("A", maxLevel+1)
	spec, err := Infer(s, records([]events.Value{text("CH")}, []events.Value{text("DE")}, []events.Value{text(long)}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	canonical, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(canonical), "AAAA") || !strings.Contains(string(canonical), "DE") {
		t.Errorf("the spec is %s", canonical)
	}
}

func TestDateParts(t *testing.T) {
	schema := compile(t, events.Field{Name: "opened", Type: events.Time})
	spec := Spec{Version: SpecVersion, Zone: "Asia/Tokyo", Fields: []Transform{
		{Field: "opened", Kind: Date, Missing: true, Parts: []DatePart{{Part: Month}}},
		{Kind: Date, Parts: []DatePart{{Part: Hour, Cyclic: true}, {Part: Weekday}, {Part: DayOfMonth}}},
	}}
	// 2026-03-01 23:30 UTC, a Sunday, is Monday the 2nd, 08:30, in Tokyo.
	at := time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC)
	got := encode(t, spec, schema, at, num(float64(time.Date(2025, 12, 31, 23, 0, 0, 0, time.UTC).Unix())))
	want := []float64{-1, 0, math.Sin(2 * math.Pi * 8 / 24), math.Cos(2 * math.Pi * 8 / 24), -1, 2*1.0/30 - 1}
	for i := range want {
		if !near(got[i], want[i], 1e-15) {
			t.Errorf("%s is %v, want %v", spec.Columns("at")[i].Name, got[i], want[i])
		}
	}
	if got := encode(t, spec, schema, at, none()); got[0] != 0 || got[1] != 1 {
		t.Errorf("no value gives %v, want 0 and 1", got[:2])
	}
	for _, n := range []int{24, 7, 31, 12} {
		for k := range n {
			s, c := sinCosTurn(k, n)
			if x := 2 * math.Pi * float64(k) / float64(n); !near(s, math.Sin(x), 3e-15) || !near(c, math.Cos(x), 3e-15) {
				t.Errorf("turn %d/%d: sine %v, cosine %v, want %v, %v", k, n, s, c, math.Sin(x), math.Cos(x))
			}
		}
	}
}

func TestPortableFunctionsAgreeWithMath(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		x := math.Float64frombits(rng.Uint64())
		if math.IsNaN(x) || math.IsInf(x, 0) {
			continue
		}
		if got, want := asinh(x), math.Asinh(x); math.Abs(got-want) > 4e-16*math.Abs(want) {
			t.Fatalf("asinh(%v) is %v, math has %v", x, got, want)
		}
		if got, want := SignedLog1p(x), math.Copysign(math.Log1p(math.Abs(x)), x); math.Abs(got-want) > 4e-16*math.Abs(want) {
			t.Fatalf("SignedLog1p(%v) is %v, math has %v", x, got, want)
		}
	}
	for x := -20.0; x < 20; x += 0.001 {
		if got, want := asinh(x), math.Asinh(x); math.Abs(got-want) > 4e-16*math.Abs(want) {
			t.Fatalf("asinh(%v) is %v, math has %v", x, got, want)
		}
	}
}

// TestBitsArePinned: what these tests find on one processor must be found on all.
func TestBitsArePinned(t *testing.T) {
	squares := make([]float64, 1000)
	for i := range squares {
		squares[i] = float64(i*i) / 7
	}
	mean, sd := meanSD(squares)
	sin, cos := sinCosTurn(5, 31)
	for i, c := range []struct {
		got  float64
		want uint64
	}{
		{asinh(0.3), 0x3fd2ec4ea565fcc1},
		{asinh(-12345.678), 0xc0243a798976d8c3},
		{asinh(7e200), 0x407cf27f49790469},
		{SignedLog1p(0.3), 0x3fd0ca937be1b9dc},
		{SignedLog1p(-12345.678), 0xc022d79ff745b2fd},
		{SignedLog1p(1e-5), 0x3ee4f8aea9ae7317},
		{mean, 0x40e7377492492492},
		{sd, 0x40e4c6fa1b83d94b},
		{sin, 0x3feb2818007c19e0},
		{cos, 0x3fe0ed45eea3b09e},
		{quantile(squares, 0.3), 0x40c90fbc57c57c58},
	} {
		if got := math.Float64bits(c.got); got != c.want {
			t.Errorf("number %d is %v, %#x, want %#x", i, c.got, got, c.want)
		}
	}
}

func TestMeanSDOfExtremes(t *testing.T) {
	for _, c := range []struct {
		xs       []float64
		mean, sd float64
	}{
		{[]float64{-math.MaxFloat64, math.MaxFloat64}, 0, math.MaxFloat64},
		{[]float64{1e-300, 3e-300}, 2e-300, 1e-300},
		{[]float64{1e15, 1e15 + 1, 1e15 + 2}, 1e15 + 1, math.Sqrt(2.0 / 3)},
		{[]float64{0.1, 0.1, 0.1}, 0.1, 1},
		{[]float64{0, 0, 0, 4}, 1, math.Sqrt(3)},
	} {
		if mean, sd := meanSD(c.xs); !near(mean/c.mean, 1, 1e-15) && mean != c.mean || !near(sd/c.sd, 1, 1e-15) {
			t.Errorf("mean and sd of %v are %v, %v, want %v, %v", c.xs, mean, sd, c.mean, c.sd)
		}
	}
}

func TestQuantileIsNumpys(t *testing.T) {
	xs := []float64{1, 2, 4, 8, 16, 32}
	for q, want := range map[float64]float64{0: 1, 0.25: 2.5, 0.5: 6, 0.75: 14, 1: 32} {
		if got := quantile(xs, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestSpecSurvivesJSONAndMsgpack(t *testing.T) {
	_, _, spec := wildSpec(t, 7)
	text, err := spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := msgpack.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var unpacked Spec
	if err := msgpack.Unmarshal(packed, &unpacked); err != nil {
		t.Fatal(err)
	}
	indented, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	byHand, err := ParseSpec(indented)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Spec{"json": back, "msgpack": unpacked, "indented json": byHand} {
		if got, want := s.Fingerprint(), spec.Fingerprint(); got != want || len(got) != 64 {
			t.Errorf("through %s the fingerprint is %s, was %s", name, got, want)
		}
	}
	other := spec
	other.Fields = slices.Clone(spec.Fields)
	other.Fields[0].Mean = math.Nextafter(other.Fields[0].Mean, 9)
	if other.Fingerprint() == spec.Fingerprint() {
		t.Error("one bit of a mean does not change the fingerprint")
	}
	for _, bad := range []string{`{"version":1,"fields":[],"typo":1}`, `{"version":1,"fields":[]} x`, `{"version":2,"fields":[]}`, `[]`, ``} {
		if _, err := ParseSpec([]byte(bad)); err == nil {
			t.Errorf("ParseSpec took %q", bad)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	schema := compile(t, numbers("n"), events.Field{Name: "c", Type: events.Category}, events.Field{Name: "p", Type: events.Number, Protected: true})
	ok := Transform{Field: "n", Kind: Numeric, SD: 1}
	for want, fields := range map[string][]Transform{
		"not in the contract": {{Field: "gone", Kind: Numeric, SD: 1}},
		"cannot be encoded":   {{Field: "c", Kind: Numeric, SD: 1}},
		"protected":           {{Field: "p", Kind: Numeric, SD: 1}},
		"twice":               {ok, ok},
		"sd":                  {{Field: "n", Kind: Numeric}},
		"finite":              {{Field: "n", Kind: Numeric, SD: 1, Mean: math.NaN()}},
		"iqr":                 {{Field: "n", Kind: Asinh, SD: 1}},
		"ascending":           {{Field: "c", Kind: OneHot, Levels: []string{"b", "a"}}},
		"no levels":           {{Field: "c", Kind: OneHot}},
		"UTF-8":               {{Field: "c", Kind: OneHot, Levels: []string{"\xff"}}},
		"buckets":             {{Field: "c", Kind: Hashed, Buckets: 1 << 30}},
		"date part":           {{Kind: Date, Parts: []DatePart{{Part: "minute"}}}},
		"no date parts":       {{Kind: Date}},
		"names no field":      {{Kind: Numeric, SD: 1}},
		"kind":                {{Field: "n", Kind: "square"}},
	} {
		if _, err := (Spec{Version: SpecVersion, Fields: fields}).Compile(schema); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error is %v, want one that says %q", fields, err, want)
		}
	}
	if _, err := (Spec{Version: SpecVersion, Zone: "Mars/Base", Fields: []Transform{ok}}).Compile(schema); err == nil {
		t.Error("an unknown zone was taken")
	}
	if _, err := (Spec{Version: SpecVersion, Fields: []Transform{ok}}).Compile(schema); err != nil {
		t.Errorf("a good spec was refused: %v", err)
	}
	if _, err := Infer(schema, records(), Options{}); err != ErrNoRecords {
		t.Errorf("no records: %v, want ErrNoRecords", err)
	}
}

func TestSigns(t *testing.T) {
	fields := []events.Field{{Name: "a", Type: events.Number, Sign: "+"}, {Name: "b", Type: events.Number, Sign: "-"}, {Name: "c", Type: events.Category}, {Name: "d", Type: events.Number}}
	s := Spec{Version: SpecVersion, Fields: []Transform{
		{Field: "a", Kind: Numeric, SD: 1, Missing: true}, {Field: "c", Kind: OneHot, Levels: []string{"x", "y"}}, {Field: "b", Kind: Asinh, IQR: 1, SD: 1},
		{Field: "d", Kind: Numeric, SD: 1}, {Kind: Date, Parts: []DatePart{{Part: Hour, Cyclic: true}}},
	}}
	got := s.Signs(compile(t, fields...))
	if want := []int{1, 0, 0, -1, 0, 0, 0}; !slices.Equal(got, want) || len(got) != len(s.Columns("")) {
		t.Errorf("signs %v of columns %v, want %v", got, s.Columns(""), want)
	}
}
