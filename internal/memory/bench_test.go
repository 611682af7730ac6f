package memory

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// benchPlan has n features over 1h, 24h, 7d and 30d, in turn by each of the keys.
func benchPlan(b *testing.B, n int, keys ...string) *Plan {
	var text strings.Builder
	text.WriteString("kind: payment\nentity: card\ntime: at\nfields:\n- {name: amount, type: number}\n- {name: shop, type: category, key: true}\nmemory:\n  features:\n")
	takes := []string{"count", "sum, field: amount", "mean, field: amount", "max, field: amount", "sd, field: amount"}
	windows := []string{"1h", "24h", "7d", "30d"}
	for i := range n {
		k := i / len(keys)
		fmt.Fprintf(&text, "  - {name: f%d, by: %s, take: %s, window: %s}\n", i, keys[i%len(keys)], takes[k/4%5], windows[k%4])
	}
	return compile(b, text.String())
}

// Of an event that is decoded: reading its features and folding it. Entities are drawn evenly; a twentieth as many shops. RISKWEIR_ENTITIES
// says how many there are.
func BenchmarkStep(b *testing.B) {
	counts := []int{10_000}
	if v := os.Getenv("RISKWEIR_ENTITIES"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			b.Fatal(err)
		}
		counts = []int{n}
	}
	for _, entities := range counts {
		for _, x := range []struct {
			n    int
			keys []string
		}{{10, []string{"card"}}, {40, []string{"card"}}, {40, []string{"card", "shop"}}} {
			b.Run(fmt.Sprintf("entities=%d/features=%d/keys=%d", entities, x.n, len(x.keys)), func(b *testing.B) {
				p := benchPlan(b, x.n, x.keys...)
				s := New(p)
				r := rand.New(rand.NewPCG(1, 2))
				out := make([]float64, p.Width())
				var rec events.Record
				at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
				gap := 30 * 24 * time.Hour / time.Duration(4*entities) // four events of a card in the longest window
				step := func(card int) {
					at = at.Add(gap)
					rec.Reset(p.Schema)
					rec.Time, rec.Entity = at, strconv.AppendInt(nil, int64(card), 10)
					rec.Values[0] = events.Value{State: events.HasNum, Num: float64(r.IntN(100_00)) / 100}
					rec.Values[1] = events.Value{State: events.HasText, Text: strconv.AppendInt(nil, int64(card%(entities/20)), 10)}
					s.Step(Event{Record: &rec}, out)
				}
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				for i := range 5 * entities {
					if i < entities {
						step(i)
						continue
					}
					step(r.IntN(entities))
				}
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ResetTimer()
				for b.Loop() {
					step(r.IntN(entities))
				}
				b.ReportMetric(float64(s.Bytes())/float64(s.Keys()), "state-B/key")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(s.Keys()), "heap-B/key")
			})
		}
	}
}
