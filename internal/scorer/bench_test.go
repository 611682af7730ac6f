package scorer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

// The events of 'riskweir bench', but that a third of the numbers are amounts, which are encoded as asinh.
const (
	benchNumbers    = 30
	benchCategories = 5
	benchBatch      = 500
)

// benchBatches are the same events in both encodings, and a stage with a model of them.
func benchBatches(tb testing.TB) (*stage, map[events.Encoding][]lane.Event) {
	tb.Helper()
	c := events.DefaultContract()
	c.Kind, c.Lanes, c.ID, c.Entity = "bench", 8, "id", "account"
	for i := range benchNumbers {
		c.Fields = append(c.Fields, events.Field{Name: fmt.Sprintf("n%02d", i+1), Type: events.Number})
	}
	for i := range benchCategories {
		c.Fields = append(c.Fields, events.Field{Name: fmt.Sprintf("c%d", i+1), Type: events.Category})
	}
	schema, err := events.Compile(c)
	if err != nil {
		tb.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	batches := map[events.Encoding][]lane.Event{}
	var records []*events.Record
	names := append([]string{"id", "account"}, fieldNames(c)...)
	for seq := range uint64(benchBatch) {
		account := "a" + strconv.Itoa(r.IntN(10_000))
		values := []any{"e" + strconv.FormatUint(seq, 10), account}
		for i := range benchNumbers {
			v := r.NormFloat64()
			if i%3 == 0 {
				v = math.Exp(4 + 2*v)
			}
			values = append(values, math.Round(v*1e4)/1e4)
		}
		for range benchCategories {
			values = append(values, "L"+strconv.Itoa(r.IntN(8)))
		}
		e := lane.Event{Seq: seq + 1, Stored: time.Date(2026, 1, 2, 3, 4, 5, int(seq)*1e6+789, time.UTC), Subject: "events.bench.3." + account}
		for _, enc := range []events.Encoding{events.JSON, events.Msgpack} {
			e.Body = ordered(tb, names, values, enc)
			batches[enc] = append(batches[enc], e)
		}
		rec := new(events.Record)
		if err := schema.Decode(events.Msgpack, e.Body, rec); err != nil {
			tb.Fatal(err)
		}
		records = append(records, rec)
	}
	spec, err := feature.Infer(schema, slices.Values(records), feature.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	a := artifact(-1)
	a.Kind, a.Spec, a.Fingerprint, a.Weights = c.Kind, spec, spec.Fingerprint(), nil
	for _, col := range spec.Columns("") {
		a.Weights = append(a.Weights, model.Weight{Column: col.Name, Field: col.Field, Weight: 0.3 * r.NormFloat64(), Baseline: 0.1 * r.NormFloat64()})
	}
	p, err := model.Compile(a, schema)
	if err != nil {
		tb.Fatal(err)
	}
	s := &stage{kind: c.Kind, predictor: p, live: &model.Live{Predictor: p, Name: a.Name(), Version: 1, Revision: 12, Schema: schema, ContractRevision: 7}}
	return s, batches
}

func fieldNames(c events.Contract) (names []string) {
	for _, f := range c.Fields {
		names = append(names, f.Name)
	}
	return names
}

// ordered writes an event with its keys in this order, as a publisher with a struct would.
func ordered(tb testing.TB, names []string, values []any, enc events.Encoding) []byte {
	tb.Helper()
	var out []byte
	if enc == events.Msgpack {
		out = append(out, 0xde, byte(len(names)>>8), byte(len(names)))
		for i, n := range names {
			for _, x := range []any{n, values[i]} {
				b, err := msgpack.Marshal(x)
				if err != nil {
					tb.Fatal(err)
				}
				out = append(out, b...)
			}
		}
		return out
	}
	for i, n := range names {
		sep := ","
		if i == 0 {
			sep = "{"
		}
		out = fmt.Appendf(out, "%s%q:", sep, n)
		switch v := values[i].(type) {
		case string:
			out = strconv.AppendQuote(out, v)
		case float64:
			out = strconv.AppendFloat(out, v, 'f', -1, 64)
		}
	}
	return append(out, '}')
}

// BenchmarkOutcomes is scoring without a broker: batches decoded, encoded into features, scored with reasons, and written as the
// messages of a commit. ns/event and allocs/event are what docs/performance.md speaks of.
func BenchmarkOutcomes(b *testing.B) {
	for _, enc := range []events.Encoding{events.Msgpack, events.JSON} {
		for _, size := range []int{benchBatch, 1} {
			b.Run(fmt.Sprintf("%s/batch=%d", enc, size), func(b *testing.B) {
				s, batches := benchBatches(b)
				batch := batches[enc]
				n := 0
				b.ReportAllocs()
				for b.Loop() {
					at := n % (len(batch) - size + 1)
					s.Outcomes(batch[at : at+size])
					n += size
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
			})
		}
	}
}
