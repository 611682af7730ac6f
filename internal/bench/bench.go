// Package bench measures Riskweir against what the broker allows, and against what people write first.
//
// The same events, stored once, are scored again and again: before each sample the lanes' positions are put back to the
// beginning. A sample is a rate between two times at which the server stored outcomes, so that neither the start of
// processes nor the last, partly filled batches count. Samples of what is compared take turns, and only their ratios
// are to be believed: absolute rates are those of one machine on one day.
package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Names of what is measured.
const (
	NameCeiling = "ceiling" // (a) the same lanes and commits, with nothing between
	NameMsgpack = "msgpack" // (b) Riskweir on msgpack events
	NameJSON    = "json"    // (b) Riskweir on JSON events
	NamePlain   = "plain"   // (c) a durable consumer and single publishes, msgpack
)

// System runs the processes that are measured.
type System interface {
	// Start a process called name; what it runs is one of scorer, bench-ceiling, bench-plain, with args.
	Start(ctx context.Context, name, what string, args ...string) error
	// Stop all that Start started, in order.
	Stop()
	// Kill one of them, from one moment to the next, for good.
	Kill(name string) error
	// Resident bytes of all that Start started; 0 where the system does not say.
	Resident() int64
	// CPU seconds that the processes called name, or a node each, have used; false where the system does not say.
	CPU() (services, nodes float64, ok bool)
}

// Config of Run.
type Config struct {
	System  System
	Conn    *nats.Conn // of an operator
	Nodes   int
	Scorers int
	Lanes   int
	Events  int // in the backlog
	Rounds  int
	Rates   []int         // events a second at which latency is measured
	Span    time.Duration // of each
	Note    func(format string, a ...any)
}

const (
	fillBatch  = 500
	trainOn    = 5000
	patience   = 2 * time.Minute // for one sample
	pollEvery  = 20 * time.Millisecond
	from, till = 0.15, 0.85 // of the outcomes, between whose times a rate is taken
)

// bench is one run.
type bench struct {
	Config
	js    natsjs.JetStream
	kind  string // that latency is measured of
	size  int    // of a msgpack outcome, bytes; known after the warm-up
	round int
}

// Run measures. Its report has at least one sample of each name.
func Run(ctx context.Context, cfg Config) (Report, error) {
	js, err := natsjs.New(cfg.Conn, natsjs.WithPublishAsyncMaxPending(fillBatch*8))
	if err != nil {
		return Report{}, fmt.Errorf("jetstream: %w", err)
	}
	b := &bench{Config: cfg, js: js, kind: kindOf(events.Msgpack)}
	report := Report{
		At: time.Now().UTC(), Version: model.CodeVersion(), Go: runtime.Version(), Cores: runtime.NumCPU(), Load: loadAverage(),
		Nodes: cfg.Nodes, Sync: "always", Storage: "file", Scorers: cfg.Scorers, Lanes: cfg.Lanes, Events: cfg.Events, Rounds: cfg.Rounds,
	}
	for _, enc := range []events.Encoding{events.Msgpack, events.JSON} {
		if err := b.provision(ctx, enc); err != nil {
			return report, err
		}
	}
	names := []string{NameMsgpack, NameCeiling, NameJSON, NamePlain} // msgpack first: its warm-up tells the size of an outcome
	for b.round = 0; b.round <= cfg.Rounds; b.round++ {
		for _, name := range names {
			s, err := b.sample(ctx, name)
			if err != nil {
				return report, fmt.Errorf("round %d, %s: %w", b.round, name, err)
			}
			if b.round == 0 {
				continue // a warm-up
			}
			report.Samples = append(report.Samples, s)
			b.Note("round %d of %d  %-8s %8.0f events/s", b.round, cfg.Rounds, name, s.Rate)
		}
	}
	for _, rate := range cfg.Rates {
		l, err := b.latency(ctx, rate)
		if err != nil {
			return report, fmt.Errorf("latency at %d events a second: %w", rate, err)
		}
		f, err := b.floor(ctx, rate)
		if err != nil {
			return report, fmt.Errorf("what the broker takes at %d events a second: %w", rate, err)
		}
		report.Latency, report.Floor = append(report.Latency, l), append(report.Floor, f)
		b.Note("latency at %d/s: p50 %.1f ms, p99 %.1f ms; of the broker alone %.1f and %.1f ms", rate, l.P50, l.P99, f.P50, f.P99)
	}
	report.conclude()
	return report, nil
}

func kindOf(enc events.Encoding) string {
	if enc == events.Msgpack {
		return "bench_msgpack"
	}
	return "bench_json"
}

// provision makes a kind with its model and its backlog.
func (b *bench) provision(ctx context.Context, enc events.Encoding) error {
	c := contract(kindOf(enc), b.Lanes)
	if _, err := topology.ApplyKind(ctx, b.js, c, topology.Options{Replicas: b.Nodes}); err != nil {
		return err
	}
	if err := b.promote(ctx, c); err != nil {
		return err
	}
	return b.fill(ctx, c.Kind, enc)
}

// declare makes a kind without a backlog.
func (b *bench) declare(ctx context.Context, c events.Contract) error {
	_, err := topology.ApplyKind(ctx, b.js, c, topology.Options{Replicas: b.Nodes})
	return err
}

// promote trains a model for the contract, which is declared, and puts it into force.
func (b *bench) promote(ctx context.Context, c events.Contract) error {
	k, err := topology.ReadKind(ctx, b.js, c.Kind)
	if err != nil {
		return err
	}
	artifact, err := fit(ctx, c, model.ContractRef{Version: c.Version, Revision: k.Revision}, trainOn)
	if err != nil {
		return err
	}
	kv, err := b.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	registry := model.NewRegistry(kv)
	version, err := registry.Publish(ctx, artifact)
	if err != nil {
		return err
	}
	if _, _, err := registry.Promote(ctx, c.Kind, version, "bench", "to measure with"); err != nil {
		return err
	}
	return nil
}

// fill stores the backlog.
func (b *bench) fill(ctx context.Context, kind string, enc events.Encoding) error {
	g := newGenerator(1)
	return b.store(ctx, kind, b.Events, func() (*nats.Msg, error) { return g.next(kind, enc) })
}

// store n events in atomic batches.
func (b *bench) store(ctx context.Context, kind string, n int, next func() (*nats.Msg, error)) error {
	to := topology.Committer{Conn: b.Conn, Stream: events.EventsStream(kind), Timeout: 30 * time.Second}
	for n > 0 {
		msgs := make([]*nats.Msg, min(n, fillBatch))
		for i := range msgs {
			var err error
			if msgs[i], err = next(); err != nil {
				return err
			}
		}
		if _, err := to.Commit(ctx, msgs); err != nil {
			return fmt.Errorf("store the backlog: %w", err)
		}
		n -= len(msgs)
	}
	return nil
}

// sample scores the whole backlog once.
func (b *bench) sample(ctx context.Context, name string) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := Sample{Name: name, Round: b.round}
	kind := kindOf(events.Msgpack)
	if name == NameJSON {
		kind = kindOf(events.JSON)
	}
	done, start, err := b.prepare(ctx, name, kind, 0)
	if err != nil {
		return s, err
	}
	first, err := b.lastSeq(ctx, events.ScoresStream(kind))
	if err != nil {
		return s, err
	}
	services, nodes, _ := b.System.CPU()
	if err := start(); err != nil {
		b.System.Stop()
		return s, err
	}
	err = b.wait(ctx, done)
	if services2, nodes2, ok := b.System.CPU(); ok {
		s.CPUServices, s.CPUNodes = services2-services, nodes2-nodes
	}
	b.System.Stop()
	if err != nil {
		return s, err
	}
	last, err := b.lastSeq(ctx, events.ScoresStream(kind))
	if err != nil {
		return s, err
	}
	if _, err := b.rate(ctx, events.ScoresStream(kind), first, last, &s); err != nil {
		return s, err
	}
	if name == NameMsgpack {
		b.size = s.Size
	}
	return s, nil
}

// prepare puts everything back to the event behind seq, and says how to start what is measured and how to see that it is done.
func (b *bench) prepare(ctx context.Context, name, kind string, seq uint64) (done func(context.Context) (bool, error), start func() error, err error) {
	if name == NamePlain {
		c, err := b.js.CreateOrUpdateConsumer(ctx, events.EventsStream(kind), natsjs.ConsumerConfig{
			Durable: plainConsumer, FilterSubject: "events." + kind + ".>", AckPolicy: natsjs.AckExplicitPolicy, MaxAckPending: 20_000, AckWait: 30 * time.Second,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("consumer %s: %w", plainConsumer, err)
		}
		done = func(ctx context.Context) (bool, error) {
			info, err := c.Info(ctx)
			if err != nil || info.NumPending > 0 || info.NumAckPending > 0 {
				return false, err
			}
			return true, b.js.DeleteConsumer(ctx, events.EventsStream(kind), plainConsumer)
		}
		return done, func() error {
			return b.System.Start(ctx, "plain", "bench-plain", "--kind", kind, "--round", strconv.FormatInt(time.Now().UnixNano(), 36))
		}, nil
	}
	ends, err := b.rewind(ctx, kind, seq)
	if err != nil {
		return nil, nil, err
	}
	done = func(ctx context.Context) (bool, error) { return b.passed(ctx, kind, ends) }
	what, args := "scorer", []string(nil)
	if name == NameCeiling {
		what, args = "bench-ceiling", []string{"--kind", kind, "--lanes", strconv.Itoa(b.Lanes), "--size", strconv.Itoa(b.size)}
	}
	return done, func() error {
		for i := range b.Scorers {
			if err := b.System.Start(ctx, what+"-"+strconv.Itoa(i+1), what, args...); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// rewind puts every lane back to the event behind seq and returns the last event of each.
func (b *bench) rewind(ctx context.Context, kind string, seq uint64) (map[int]uint64, error) {
	ends := map[int]uint64{}
	stream, err := b.js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		return nil, err
	}
	for lane := range b.Lanes {
		last, err := stream.GetLastMsgForSubject(ctx, events.LaneFilter(kind, lane))
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("last event of lane %d: %w", lane, err)
		}
		ends[lane] = last.Sequence
		_, err = topology.Rebase(ctx, b.js, topology.RebaseRequest{Kind: kind, Lane: lane, Seq: seq, By: "bench", Reason: "another round", Force: true})
		if err != nil {
			return nil, err
		}
	}
	return ends, nil
}

// passed says that every lane's position is at its last event.
func (b *bench) passed(ctx context.Context, kind string, ends map[int]uint64) (bool, error) {
	var subjects []string
	for lane := range ends {
		subjects = append(subjects, events.PositionSubject(kind, lane))
	}
	all, err := jetstreamext.GetLastMsgsFor(ctx, b.js, events.ScoresStream(kind), subjects)
	if err != nil {
		return false, err
	}
	n := 0
	for m, err := range all {
		if err != nil {
			return false, err
		}
		_, lane, err := events.ParsePositionSubject(m.Subject)
		if err != nil {
			return false, err
		}
		p, err := events.DecodePosition(m.Data)
		if err != nil {
			return false, err
		}
		if p.Seq >= ends[lane] {
			n++
		}
	}
	return n == len(ends), nil
}

func (b *bench) wait(ctx context.Context, done func(context.Context) (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the backlog was not scored in %s: %w", patience, ctx.Err())
		case <-tick.C:
		}
	}
}

func (b *bench) lastSeq(ctx context.Context, stream string) (uint64, error) {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return 0, err
	}
	return s.CachedInfo().State.LastSeq, nil
}

// rate of the messages after first up to last, by the server's clock, and when the first was stored. Positions are among them, one for hundreds of outcomes.
func (b *bench) rate(ctx context.Context, stream string, first, last uint64, s *Sample) (began time.Time, err error) {
	in, err := b.js.Stream(ctx, stream)
	if err != nil {
		return began, err
	}
	n := float64(last - first)
	var at [3]*natsjs.RawStreamMsg
	for i, share := range []float64{0, from, till} {
		seq := first + 1 + uint64(share*n)
		for ; ; seq++ {
			if at[i], err = in.GetMsg(ctx, seq); err != nil {
				return began, fmt.Errorf("outcome %d of %s: %w", seq, stream, err)
			}
			if s, err := events.ParseStoredScore(at[i].Subject); err == nil && s.Kind != "" {
				break
			}
		}
	}
	span := at[2].Time.Sub(at[1].Time)
	if span <= 0 {
		return began, fmt.Errorf("%d outcomes were stored in no time: raise --events", last-first)
	}
	s.Outcomes = last - first
	s.Rate = float64(at[2].Sequence-at[1].Sequence) / span.Seconds() * min(1, float64(b.Events)/n)
	s.Size = len(at[1].Data)
	return at[0].Time, nil
}
