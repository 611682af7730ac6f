package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// MemoryConfig of RunMemory.
type MemoryConfig struct {
	Config
	Entities  int
	TakeOvers int      // scorers killed
	Cases     []string // shorts of those to measure; empty: all
}

// memoryCase is a contract to be compared with others on the same events.
type memoryCase struct {
	name     string
	short    string // for flags
	features int
	keys     []string
}

var memoryCases = []memoryCase{
	{"none", "none", 0, nil},
	{"10 by account", "10", 10, []string{"account"}},
	{"10 by account and shop", "10+shop", 10, []string{"account", "shop"}},
	{"40 by account", "40", 40, []string{"account"}},
	{"40 by account and shop", "40+shop", 40, []string{"account", "shop"}},
}

const (
	memoryKind   = "bench_memory"
	perShop      = 20 // entities
	longest      = 30 * 24 * time.Hour
	takeOverRate = 200
	takeOverSpan = 12 * time.Second

	memoryPatience = 10 * time.Minute // for one sample, and for scorers to have remembered all
)

// memoryBench is one run of RunMemory.
type memoryBench struct {
	bench
	entities int
	before   int // events that are remembered, and not scored
	version  int
	skip     uint64 // sequence of the last of them
}

// CheckCase says what a name of MemoryConfig.Cases may be, if short is none.
func CheckCase(short string) error {
	var known []string
	for _, c := range memoryCases {
		if c.short == short {
			return nil
		}
		known = append(known, c.short)
	}
	return fmt.Errorf("%q: want some of %s", short, strings.Join(known, ", "))
}

// picked cases; the first of all is sampled in any case, since the ceiling learns the size of an outcome from it.
func (c MemoryConfig) picked() (sampled, timed []memoryCase) {
	for i, one := range memoryCases {
		in := len(c.Cases) == 0 || slices.Contains(c.Cases, one.short)
		if in {
			timed = append(timed, one)
		}
		if in || i == 0 {
			sampled = append(sampled, one)
		}
	}
	return sampled, timed
}

// RunMemory measures what memory costs: the same events are scored under contracts that remember more and more, by turns, and under the
// ceiling. Ahead of them are events that only fill the memory: of each entity at least one.
func RunMemory(ctx context.Context, cfg MemoryConfig) (MemoryReport, error) {
	js, err := natsjs.New(cfg.Conn, natsjs.WithPublishAsyncMaxPending(fillBatch*8))
	if err != nil {
		return MemoryReport{}, fmt.Errorf("jetstream: %w", err)
	}
	m := &memoryBench{bench: bench{Config: cfg.Config, js: js, kind: memoryKind}, entities: cfg.Entities}
	m.before = min(5*m.entities, max(m.entities, 2_000_000))
	r := MemoryReport{
		At: time.Now().UTC(), Version: model.CodeVersion(), Go: runtime.Version(), Cores: runtime.NumCPU(), Load: loadAverage(),
		Nodes: cfg.Nodes, Sync: "always", Storage: "file", Scorers: cfg.Scorers, Lanes: cfg.Lanes, Events: cfg.Events, Rounds: cfg.Rounds,
		Entities: m.entities, Before: m.before,
	}
	if err := m.declare(ctx, memoryCases[0]); err != nil {
		return r, err
	}
	if err := m.fillMemory(ctx); err != nil {
		return r, err
	}
	ceiling := memoryCase{name: NameCeiling}
	sampled, timed := cfg.picked()
	cases := append([]memoryCase{sampled[0], ceiling}, sampled[1:]...)
	for m.round = 1; m.round <= m.Rounds; m.round++ {
		for _, c := range cases {
			s, err := m.sampleMemory(ctx, c)
			if err != nil {
				return r, fmt.Errorf("round %d, %s: %w", m.round, c.name, err)
			}
			r.Samples = append(r.Samples, s)
			m.Note("round %d of %d  %-24s %8.0f events/s, first outcome after %.1f s, %.0f MB", m.round, m.Rounds, c.name, s.Rate, s.Ready, float64(s.Resident)/1e6)
		}
	}
	for _, c := range timed {
		if err := m.declare(ctx, c); err != nil {
			return r, err
		}
		for _, rate := range m.Rates {
			l, err := m.latencyWhenReady(ctx, rate)
			if err != nil {
				return r, fmt.Errorf("latency, %s: %w", c.name, err)
			}
			r.Latency = append(r.Latency, MemoryLatency{Name: c.name, Latency: l})
			m.Note("%-24s latency at %d/s: p50 %.1f ms, p99 %.1f ms", c.name, rate, l.P50, l.P99)
		}
	}
	for i := range cfg.TakeOvers {
		d, err := m.takeOver(ctx)
		if err != nil {
			return r, fmt.Errorf("take-over: %w", err)
		}
		r.TakeOvers = append(r.TakeOvers, d.Seconds())
		m.Note("kill -9 of one of two scorers, %d of %d: every lane commits again within %.2f s", i+1, cfg.TakeOvers, d.Seconds())
	}
	r.conclude()
	return r, nil
}

// memoryContract is that of the other benchmarks, with a time, a shop and the memory of c.
func memoryContract(c memoryCase, lanes, version int) events.Contract {
	k := contract(memoryKind, lanes)
	k.Version, k.Time = version, "time"
	k.Fields = append(k.Fields, events.Field{Name: "shop", Type: events.Category, Key: true})
	takes := []events.Take{events.TakeCount, events.TakeSum, events.TakeMean, events.TakeMax, events.TakeSD}
	windows := []time.Duration{time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, longest}
	for i := range c.features {
		n := i / len(c.keys)
		f := events.MemoryFeature{Name: fmt.Sprintf("m%02d", i+1), By: []string{c.keys[i%len(c.keys)]}, Take: takes[n/len(windows)%len(takes)], Window: events.Duration(windows[n%len(windows)])}
		if f.Take != events.TakeCount {
			f.Field = numberName(0)
		}
		if k.Memory == nil {
			k.Memory = &events.Memory{}
		}
		k.Memory.Features = append(k.Memory.Features, f)
	}
	return k
}

// declare makes c the contract of the kind, and a model for it the one in force.
func (m *memoryBench) declare(ctx context.Context, c memoryCase) error {
	m.version++
	k := memoryContract(c, m.Lanes, m.version)
	if _, err := topology.ApplyKind(ctx, m.js, k, topology.Options{Replicas: m.Nodes}); err != nil {
		return err
	}
	return m.promote(ctx, k)
}

// fillMemory stores the events that are remembered, a few fields of each, and then those that are scored, whole.
func (m *memoryBench) fillMemory(ctx context.Context) error {
	g := newGenerator(1)
	gap := longest / time.Duration(4*m.entities) // four events of an entity in the longest window, were they to go on
	at := time.Now().Add(-time.Duration(m.before+m.Events) * gap)
	n := 0
	next := func() (*nats.Msg, error) {
		e := g.event()
		entity := n
		if n >= m.entities {
			entity = g.r.IntN(m.entities)
		}
		e.account, e.shop, e.at = "a"+strconv.Itoa(entity), "s"+strconv.Itoa(entity/perShop), at
		at = at.Add(gap)
		fields := numbers
		if n < m.before {
			fields = 1
		}
		n++
		body, err := e.msgpackOf(fields)
		if err != nil {
			return nil, err
		}
		subject, err := events.EventSubject(memoryKind, e.account)
		return &nats.Msg{Subject: subject, Data: body}, err
	}
	began := time.Now()
	if err := m.store(ctx, memoryKind, m.before, next); err != nil {
		return err
	}
	m.Note("%d events that fill the memory stored in %.0f s", m.before, time.Since(began).Seconds())
	var err error
	if m.skip, err = m.lastSeq(ctx, events.EventsStream(memoryKind)); err != nil {
		return err
	}
	return m.store(ctx, memoryKind, m.Events, next)
}

// sampleMemory scores the events once.
func (m *memoryBench) sampleMemory(ctx context.Context, c memoryCase) (MemorySample, error) {
	ctx, cancel := context.WithTimeout(ctx, memoryPatience)
	defer cancel()
	s := MemorySample{Sample: Sample{Name: c.name, Round: m.round}}
	if c.name != NameCeiling {
		if err := m.declare(ctx, c); err != nil {
			return s, err
		}
	}
	done, start, err := m.prepare(ctx, c.name, memoryKind, m.skip)
	if err != nil {
		return s, err
	}
	first, err := m.lastSeq(ctx, events.ScoresStream(memoryKind))
	if err != nil {
		return s, err
	}
	services, nodes, _ := m.System.CPU()
	began := time.Now()
	if err := start(); err != nil {
		m.System.Stop()
		return s, err
	}
	err = m.wait(ctx, done)
	if services2, nodes2, ok := m.System.CPU(); ok {
		s.CPUServices, s.CPUNodes = services2-services, nodes2-nodes
	}
	s.Resident = m.System.Resident()
	m.System.Stop()
	if err != nil {
		return s, err
	}
	last, err := m.lastSeq(ctx, events.ScoresStream(memoryKind))
	if err != nil {
		return s, err
	}
	at, err := m.rate(ctx, events.ScoresStream(memoryKind), first, last, &s.Sample)
	if err != nil {
		return s, err
	}
	s.Ready = at.Sub(began).Seconds()
	if c.name == memoryCases[0].name {
		m.size = s.Size
	}
	return s, nil
}

// takeOver is the longest time that an event sent at or after the kill of one of two scorers waited for its score: no less than
// any lane of the dead one was silent for.
func (m *memoryBench) takeOver(ctx context.Context) (time.Duration, error) {
	const victim = "scorer-1"
	for _, name := range []string{victim, "scorer-2"} {
		if err := m.System.Start(ctx, name, "scorer"); err != nil {
			return 0, err
		}
	}
	defer m.System.Stop()
	if err := m.settled(ctx); err != nil {
		return 0, err
	}
	var killed time.Time
	x, err := m.send(ctx, memoryKind, takeOverRate, takeOverSpan, func(at time.Duration) error {
		if at < takeOverSpan/4 || !killed.IsZero() {
			return nil
		}
		killed = time.Now()
		return m.System.Kill(victim)
	})
	if err != nil {
		return 0, err
	}
	var longest time.Duration
	for i := range x.came {
		if x.came[i].IsZero() {
			return 0, fmt.Errorf("event %d of %d had no score %s after the last was sent", i, len(x.came), settle)
		}
		if !x.due[i].Before(killed) {
			longest = max(longest, x.came[i].Sub(x.due[i]))
		}
	}
	return longest, nil
}

// latencyWhenReady is latency with scorers that have read their memory.
func (m *memoryBench) latencyWhenReady(ctx context.Context, rate int) (Latency, error) {
	for i := range m.Scorers {
		if err := m.System.Start(ctx, "scorer-"+strconv.Itoa(i+1), "scorer"); err != nil {
			return Latency{}, err
		}
	}
	defer m.System.Stop()
	if err := m.settled(ctx); err != nil {
		return Latency{}, err
	}
	return m.paced(ctx, memoryKind, rate)
}

// settled waits until an event is scored within a second of its being stored: the scorers have remembered all, and nothing is behind.
func (m *memoryBench) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, memoryPatience)
	defer cancel()
	for {
		x, err := m.send(ctx, memoryKind, 50, time.Second, nil)
		if err != nil {
			return err
		}
		quick := 0
		for i := range x.came {
			if !x.came[i].IsZero() && x.came[i].Sub(x.due[i]) < time.Second {
				quick++
			}
		}
		if quick == len(x.came) {
			return nil
		}
		if ctx.Err() != nil {
			return errors.New("scorers were not up to date in " + memoryPatience.String())
		}
	}
}
