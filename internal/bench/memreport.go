package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// MemorySample is one measured backlog.
type MemorySample struct {
	Sample
	Ready    float64 `json:"ready_seconds"`            // from the start of the scorers to their first outcome: what there is to remember is read
	Resident int64   `json:"resident_bytes,omitempty"` // of all scorers, as the last event was scored
}

// MemoryLatency is the latency under one contract.
type MemoryLatency struct {
	Name string `json:"name"`
	Latency
}

// MemoryReport of RunMemory.
type MemoryReport struct {
	At       time.Time `json:"at"`
	Version  string    `json:"version"`
	Go       string    `json:"go"`
	Cores    int       `json:"cores"`
	Load     string    `json:"load_average"` // when it began
	Nodes    int       `json:"nodes"`        // and replicas
	Storage  string    `json:"storage"`
	Sync     string    `json:"sync"`
	Scorers  int       `json:"scorers"`
	Lanes    int       `json:"lanes"`
	Events   int       `json:"events"` // scored
	Rounds   int       `json:"rounds"`
	Entities int       `json:"entities"`
	Before   int       `json:"events_remembered_before"`

	Rates     map[string]Spread `json:"rates"`
	Ratios    map[string]Spread `json:"ratios"` // to the ceiling
	Latency   []MemoryLatency   `json:"latency,omitempty"`
	TakeOvers []float64         `json:"take_over_seconds,omitempty"`
	Samples   []MemorySample    `json:"samples"`
}

func (r *MemoryReport) conclude() {
	var samples []Sample
	for _, s := range r.Samples {
		samples = append(samples, s.Sample)
	}
	by := byRound(samples)
	r.Rates, r.Ratios = map[string]Spread{}, map[string]Spread{}
	for name, rounds := range by {
		r.Rates[name] = spreadOf(rounds)
		r.Ratios[name] = ratios(by, name, NameCeiling)
	}
}

// Write is the report for people.
func (r *MemoryReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "riskweir %s, %s, %d cores, load %s, %d nodes R%d %s fsync %s, %d scorer(s), %d lanes, %d events a sample, %d remembered before, %d entities\n\n",
		r.Version, r.Go, r.Cores, r.Load, r.Nodes, r.Nodes, r.Storage, r.Sync, r.Scorers, r.Lanes, r.Events, r.Before, r.Entities)
	fmt.Fprintf(&b, "%-24s %10s %22s %10s %20s %9s %9s %9s %9s\n", "features", "events/s", "min .. max of n", "to ceiling", "min .. max", "ready s", "MB", "p50 ms", "p99 ms")
	names := []string{NameCeiling}
	for _, c := range memoryCases {
		names = append(names, c.name)
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return r.Rates[name].N == 0 && !slices.ContainsFunc(r.Latency, func(l MemoryLatency) bool { return l.Name == name })
	})
	for _, name := range names {
		rate, ratio := r.Rates[name], r.Ratios[name]
		var ready, resident []float64
		for _, s := range r.Samples {
			if s.Name == name {
				ready, resident = append(ready, s.Ready), append(resident, float64(s.Resident)/1e6)
			}
		}
		fmt.Fprintf(&b, "%-24s %10.0f %10.0f .. %.0f of %d %10.2f %12.2f .. %.2f %9.1f %9.0f", name, rate.Median, rate.Min, rate.Max, rate.N, ratio.Median, ratio.Min, ratio.Max, spread(ready).Median, spread(resident).Max)
		for _, l := range r.Latency {
			if l.Name == name {
				fmt.Fprintf(&b, " %9.2f %9.2f", l.P50, l.P99)
			}
		}
		b.WriteByte('\n')
	}
	if n := len(r.TakeOvers); n > 0 {
		s := spread(append([]float64(nil), r.TakeOvers...))
		fmt.Fprintf(&b, "\nkill -9 of one of two scorers, %s: longest wait for a score %.2f s, %.2f .. %.2f of %d\n", memoryCases[len(memoryCases)-1].name, s.Median, s.Min, s.Max, s.N)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
