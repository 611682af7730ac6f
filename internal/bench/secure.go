package bench

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

// Variant is a system of its own, that is measured against others.
type Variant struct {
	Name string
	Config
	Publisher *nats.Conn // of whoever sends events
}

// VariantSample is one of a variant in a round.
type VariantSample struct {
	Variant string  `json:"variant"`
	What    string  `json:"what"` // scoring a backlog, or publishing
	Round   int     `json:"round"`
	Rate    float64 `json:"events_per_second"`
	CPU     float64 `json:"cpu_us_per_event,omitempty"` // of scorers and nodes together; only of scoring
}

// What is measured of a variant.
const (
	Scoring    = "scoring"
	Publishing = "publishing"
)

// VariantReport of RunVariants. Ratios are to the first variant, of the same round.
type VariantReport struct {
	At       time.Time         `json:"at"`
	Version  string            `json:"version"`
	Go       string            `json:"go"`
	Cores    int               `json:"cores"`
	Load     string            `json:"load_average"`
	Nodes    int               `json:"nodes"`
	Scorers  int               `json:"scorers"`
	Lanes    int               `json:"lanes"`
	Events   int               `json:"events"`
	Rounds   int               `json:"rounds"`
	Variants []string          `json:"variants"`
	Rates    map[string]Spread `json:"rates"`            // by "what variant"
	Ratios   map[string]Spread `json:"ratios"`           // likewise
	CPU      map[string]Spread `json:"cpu_us_per_event"` // of scoring, by variant; from the start of the scorers on
	Samples  []VariantSample   `json:"samples"`
}

// RunVariants scores the same backlog, and publishes as many events, in each variant by turns; who begins changes from round to round. All
// of them are up all the time, and idle but for one: what that costs, it costs each.
func RunVariants(ctx context.Context, variants []Variant) (VariantReport, error) {
	first := variants[0].Config
	report := VariantReport{
		At: time.Now().UTC(), Version: model.CodeVersion(), Go: runtime.Version(), Cores: runtime.NumCPU(), Load: loadAverage(),
		Nodes: first.Nodes, Scorers: first.Scorers, Lanes: first.Lanes, Events: first.Events, Rounds: first.Rounds, Rates: map[string]Spread{}, Ratios: map[string]Spread{}, CPU: map[string]Spread{},
	}
	all := make([]*bench, len(variants))
	for i, v := range variants {
		report.Variants = append(report.Variants, v.Name)
		js, err := natsjs.New(v.Conn, natsjs.WithPublishAsyncMaxPending(fillBatch*8))
		if err != nil {
			return report, fmt.Errorf("jetstream: %w", err)
		}
		all[i] = &bench{Config: v.Config, js: js, kind: kindOf(events.Msgpack)}
		if err := all[i].provision(ctx, events.Msgpack); err != nil {
			return report, fmt.Errorf("%s: %w", v.Name, err)
		}
	}
	sinks := contract(sinkKind, first.Lanes)
	for i := range all {
		if err := all[i].declare(ctx, sinks); err != nil {
			return report, fmt.Errorf("%s: %w", variants[i].Name, err)
		}
	}
	for round := 0; round <= first.Rounds; round++ {
		for k := range variants {
			i := (k + round) % len(variants)
			b, v := all[i], variants[i]
			b.round = round
			s, err := b.sample(ctx, NameMsgpack)
			if err != nil {
				return report, fmt.Errorf("round %d, %s, %s: %w", round, v.Name, Scoring, err)
			}
			published, err := publishRate(ctx, v.Publisher, first.Events/10)
			if err != nil {
				return report, fmt.Errorf("round %d, %s, %s: %w", round, v.Name, Publishing, err)
			}
			if round == 0 {
				continue // a warm-up
			}
			report.Samples = append(report.Samples,
				VariantSample{v.Name, Scoring, round, s.Rate, 1e6 * (s.CPUServices + s.CPUNodes) / float64(b.Events)}, VariantSample{v.Name, Publishing, round, published, 0})
			first.Note("round %d of %d  %-10s scores %8.0f events/s, publishes %8.0f", round, first.Rounds, v.Name, s.Rate, published)
		}
	}
	report.conclude()
	return report, nil
}

// sinkKind takes what is published to see how fast; nobody scores it while that is measured, nor later.
const sinkKind = "bench_sink"

const publishInFlight = 1000

// publishRate publishes n events by one connection, publishInFlight of them under way, until all are acknowledged.
func publishRate(ctx context.Context, conn *nats.Conn, n int) (float64, error) {
	js, err := natsjs.New(conn, natsjs.WithPublishAsyncMaxPending(publishInFlight))
	if err != nil {
		return 0, fmt.Errorf("jetstream: %w", err)
	}
	g := newGenerator(1)
	msgs := make([]*nats.Msg, n)
	for i := range msgs {
		if msgs[i], err = g.next(sinkKind, events.Msgpack); err != nil {
			return 0, err
		}
	}
	acks := make([]natsjs.PubAckFuture, n)
	began := time.Now()
	for i, m := range msgs {
		if acks[i], err = js.PublishMsgAsync(m, natsjs.WithStallWait(30*time.Second), natsjs.WithRetryAttempts(50)); err != nil {
			return 0, err
		}
	}
	for _, a := range acks {
		select {
		case <-a.Ok():
		case err := <-a.Err():
			return 0, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

func (r *VariantReport) conclude() {
	by := map[string]map[int]float64{}
	cpu := map[string][]float64{}
	for _, s := range r.Samples {
		if s.What == Scoring {
			cpu[s.Variant] = append(cpu[s.Variant], s.CPU)
		}
		key := s.What + " " + s.Variant
		if by[key] == nil {
			by[key] = map[int]float64{}
		}
		by[key][s.Round] = s.Rate
	}
	for name, v := range cpu {
		r.CPU[name] = spread(v)
	}
	for key, rounds := range by {
		what, _, _ := strings.Cut(key, " ")
		r.Rates[key] = spreadOf(rounds)
		r.Ratios[key] = ratios(by, key, what+" "+r.Variants[0])
	}
}

// Write is the report for people.
func (r *VariantReport) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "riskweir %s, %s, %d cores, load %s, %d nodes R%d file fsync always, %d scorer(s), %d lanes, %d events a sample\n",
		r.Version, r.Go, r.Cores, r.Load, r.Nodes, r.Nodes, r.Scorers, r.Lanes, r.Events)
	for _, what := range []string{Scoring, Publishing} {
		fmt.Fprintf(&b, "\n%-22s %12s %26s %10s %22s\n", what, "events/s", "min .. max of n", "ratio", "min .. max")
		for _, v := range r.Variants {
			s, q := r.Rates[what+" "+v], r.Ratios[what+" "+v]
			fmt.Fprintf(&b, "%-22s %12.0f %13.0f .. %.0f of %d %12.2f %13.2f .. %.2f\n", v, s.Median, s.Min, s.Max, s.N, q.Median, q.Min, q.Max)
		}
	}
	fmt.Fprintf(&b, "\n%-22s %12s %26s\n", "CPU of scoring", "us/event", "min .. max")
	for _, v := range r.Variants {
		fmt.Fprintf(&b, "%-22s %12.1f %13.1f .. %.1f\n", v, r.CPU[v].Median, r.CPU[v].Min, r.CPU[v].Max)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
