package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Sample is one measured backlog.
type Sample struct {
	Name        string  `json:"name"`
	Round       int     `json:"round"`
	Rate        float64 `json:"events_per_second"`
	Outcomes    uint64  `json:"stored"` // messages, with positions
	Size        int     `json:"outcome_bytes"`
	CPUServices float64 `json:"cpu_seconds_services,omitempty"` // from the start of the processes on
	CPUNodes    float64 `json:"cpu_seconds_nodes,omitempty"`
}

// Latency from the time at which an event was to be sent to when its committed score came, in milliseconds.
type Latency struct {
	Rate     int     `json:"events_per_second"`
	N        int     `json:"n"`
	Lost     int     `json:"lost"` // scores that did not come by the live view, which promises none
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
	LateSend float64 `json:"late_send_p99_ms"` // by how much the sender itself was late
}

// Spread of the ratio of two names, round by round.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// Report of Run.
type Report struct {
	At      time.Time `json:"at"`
	Version string    `json:"version"`
	Go      string    `json:"go"`
	Cores   int       `json:"cores"`
	Load    string    `json:"load_average"` // when it began: above the number of cores, figures are of a crowded machine
	Nodes   int       `json:"nodes"`        // and replicas
	Storage string    `json:"storage"`
	Sync    string    `json:"sync"`
	Scorers int       `json:"scorers"`
	Lanes   int       `json:"lanes"`
	Events  int       `json:"events"`
	Rounds  int       `json:"rounds"`

	RatioToCeiling float64           `json:"ratio_to_ceiling"` // msgpack over ceiling, median of rounds
	RatioJSON      float64           `json:"ratio_json_to_ceiling"`
	RatioToPlain   float64           `json:"ratio_to_plain"` // msgpack over plain
	Ratios         map[string]Spread `json:"ratios"`
	Rates          map[string]Spread `json:"rates"`
	Latency        []Latency         `json:"latency,omitempty"`
	Floor          []Latency         `json:"floor,omitempty"` // of the broker alone: two acknowledged publishes, one behind the other
	Samples        []Sample          `json:"samples"`
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	f := strings.Fields(string(text))
	return f[0]
}

func (r *Report) conclude() {
	by := byRound(r.Samples)
	r.Rates, r.Ratios = map[string]Spread{}, map[string]Spread{}
	for name, rounds := range by {
		r.Rates[name] = spreadOf(rounds)
	}
	ratio := func(a, b string) float64 {
		s := ratios(by, a, b)
		r.Ratios[a+"/"+b] = s
		return s.Median
	}
	r.RatioToCeiling = ratio(NameMsgpack, NameCeiling)
	r.RatioJSON = ratio(NameJSON, NameCeiling)
	r.RatioToPlain = ratio(NameMsgpack, NamePlain)
}

// byRound is the rate of each name in each round.
func byRound(samples []Sample) map[string]map[int]float64 {
	by := map[string]map[int]float64{}
	for _, s := range samples {
		if by[s.Name] == nil {
			by[s.Name] = map[int]float64{}
		}
		by[s.Name][s.Round] = s.Rate
	}
	return by
}

func spreadOf(rounds map[int]float64) Spread { return spread(slices.Collect(maps.Values(rounds))) }

// ratios of a to b, round by round.
func ratios(by map[string]map[int]float64, a, b string) Spread {
	var v []float64
	for round, x := range by[a] {
		if y := by[b][round]; y > 0 {
			v = append(v, x/y)
		}
	}
	return spread(v)
}

// spread sorts v.
func spread(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	slices.Sort(v)
	mid := v[len(v)/2]
	if len(v)%2 == 0 {
		mid = (v[len(v)/2-1] + mid) / 2
	}
	return Spread{Median: mid, Min: v[0], Max: v[len(v)-1], N: len(v)}
}

// Write is the report for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "riskweir %s, %s, %d cores, load %s, %d nodes R%d %s fsync %s, %d scorer(s), %d lanes, %d events a sample\n\n",
		r.Version, r.Go, r.Cores, r.Load, r.Nodes, r.Nodes, r.Storage, r.Sync, r.Scorers, r.Lanes, r.Events)
	fmt.Fprintf(&b, "%-22s %12s %26s\n", "", "events/s", "min .. max of n")
	for _, name := range []string{NameCeiling, NameMsgpack, NameJSON, NamePlain} {
		s := r.Rates[name]
		fmt.Fprintf(&b, "%-22s %12.0f %13.0f .. %.0f of %d\n", name, s.Median, s.Min, s.Max, s.N)
	}
	fmt.Fprintf(&b, "\n%-22s %12s\n", "", "ratio")
	for _, name := range []string{NameMsgpack + "/" + NameCeiling, NameJSON + "/" + NameCeiling, NameMsgpack + "/" + NamePlain} {
		s := r.Ratios[name]
		fmt.Fprintf(&b, "%-22s %12.2f %13.2f .. %.2f of %d\n", name, s.Median, s.Min, s.Max, s.N)
	}
	if len(r.Latency) > 0 {
		fmt.Fprintf(&b, "\n%-22s %12s %10s %10s %10s %10s\n", "latency", "n", "p50 ms", "p90 ms", "p99 ms", "max ms")
		for _, l := range r.Latency {
			fmt.Fprintf(&b, "%-22s %12d %10.2f %10.2f %10.2f %10.2f\n", strconv.Itoa(l.Rate)+" events/s", l.N, l.P50, l.P90, l.P99, l.Max)
		}
		for _, l := range r.Floor {
			fmt.Fprintf(&b, "%-22s %12d %10.2f %10.2f %10.2f %10.2f\n", "  the broker alone "+strconv.Itoa(l.Rate), l.N, l.P50, l.P90, l.P99, l.Max)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Compare says how the ratios of r stand against those of an earlier report; "~" where the two spreads overlap.
func (r *Report) Compare(w io.Writer, old Report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-22s %10s %10s\n", "against "+old.Version, "then", "now")
	for _, name := range []string{NameMsgpack + "/" + NameCeiling, NameJSON + "/" + NameCeiling, NameMsgpack + "/" + NamePlain} {
		x, y := old.Ratios[name], r.Ratios[name]
		change := "~"
		if x.N > 0 && (y.Min > x.Max || y.Max < x.Min) {
			change = fmt.Sprintf("%+.0f %%", 100*(y.Median/x.Median-1))
		}
		fmt.Fprintf(&b, "%-22s %10.2f %10.2f  %s\n", name, x.Median, y.Median, change)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Fell is an error if the ratio to the ceiling is below share of that of an earlier report. Only ratios say something of the program: absolute
// rates are the machine's.
func (r *Report) Fell(old Report, share float64) error {
	if least := share * old.RatioToCeiling; r.RatioToCeiling < least {
		return fmt.Errorf("the ratio to the ceiling is %.2f, below %.2f, which is %g of %.2f", r.RatioToCeiling, least, share, old.RatioToCeiling)
	}
	return nil
}

// quantile of sorted v, the nearest rank.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return v[max(0, int(math.Ceil(q*float64(len(v))))-1)]
}
