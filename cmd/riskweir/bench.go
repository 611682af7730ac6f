package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/choria-io/fisk"

	"github.com/riskweir/riskweir/internal/bench"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

const benchHelp = `Measure what Riskweir makes of this machine: against what its broker allows, and against what people write first.

It starts nodes and scorers of its own, in a directory of its own, on ports of its own, and scores the same stored events
again and again, by turns: Riskweir on msgpack and on JSON; the ceiling, the same lanes and commits with nothing
between; and the plain way, a durable consumer with single publishes. Ratios are of samples of the same round.

With --memory it measures instead what memory costs: 0, 10 and 40 features of earlier events, by one key and by two, on the same
events and under the same ceiling.

With --secure it measures what identities, TLS and encryption cost: three systems side by side, open, secured as 'up' is, and encrypted too.

Examples:

  riskweir bench --quick
  riskweir bench --secure --rounds 7
  riskweir bench --json > today.json
  riskweir bench --quick --against today.json
  riskweir bench --quick --against today.json --at-least 0.75
  riskweir bench --memory --entities 1000000 --take-overs 3
  riskweir bench --memory --entities 1000000 --rounds 0 --cases none,40+shop

Exit codes: 0 measured; 1 it could not be measured, or the ratio to the ceiling fell below --at-least of what it was; 2 wrong usage.`

// benchRun is 'riskweir up' without a screen and without sources.
type benchRun struct {
	upRun
	quick   bool
	events  int
	rounds  int
	rates   []int
	span    time.Duration
	json    bool
	against string
	least   float64

	secure bool

	memory    bool
	entities  int
	takeOvers int
	cases     []string

	started []string
}

func (a *app) bench(cmd *fisk.CmdClause) {
	b := &benchRun{}
	b.natsPort, b.httpPort = 34222, 38080
	var rates []string
	cmd.Flag("quick", "The core of it, in less than 90 s").UnNegatableBoolVar(&b.quick)
	cmd.Flag("nodes", "JetStream nodes, and replicas: 1 or 3").Default("3").IntVar(&b.nodes)
	cmd.Flag("scorers", "Scorer processes").Default("1").IntVar(&b.scorers)
	cmd.Flag("lanes", "Lanes of the kinds").Default("8").IntVar(&b.lanes)
	cmd.Flag("events", "Events of a sample; 100,000 by default, 30,000 with --quick").IntVar(&b.events)
	cmd.Flag("rounds", "Rounds in which all samples take turns; with --memory 0 leaves them out").Default("5").IntVar(&b.rounds)
	cmd.Flag("rates", "Events a second at which latency is measured; 200,2000 by default, 200 with --quick").PlaceHolder("A,B,...").SetValue(command.List(&rates))
	cmd.Flag("dir", "Directory to make a fresh one in; the system's for temporary files by default").PlaceHolder("DIR").StringVar(&b.dir)
	cmd.Flag("nats-port", "First NATS client port; the next free ones if it is taken").Default("34222").IntVar(&b.natsPort)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&b.json)
	cmd.Flag("against", "Compare with a report of before").PlaceHolder("FILE").StringVar(&b.against)
	cmd.Flag("at-least", "With --against: fail if the ratio to the ceiling is below this share of what it was").PlaceHolder("SHARE").Float64Var(&b.least)
	cmd.Flag("secure", "Measure what identities, TLS and encryption cost").UnNegatableBoolVar(&b.secure)
	cmd.Flag("memory", "Measure what memory costs").UnNegatableBoolVar(&b.memory)
	cmd.Flag("entities", "With --memory: entities to remember").Default("10000").IntVar(&b.entities)
	cmd.Flag("take-overs", "With --memory: how often one of two scorers is killed").IntVar(&b.takeOvers)
	cmd.Flag("cases", "With --memory: only these of none, 10, 10+shop, 40, 40+shop").PlaceHolder("A,B,...").SetValue(command.List(&b.cases))
	a.run(cmd, func(ctx context.Context) error {
		b.out, b.status = a.out, a.err
		for _, r := range rates {
			n, err := strconv.Atoi(r)
			if err != nil || n < 1 || n > 100_000 {
				return fmt.Errorf("--rates %s: want events a second, 1 to 100000", r)
			}
			b.rates = append(b.rates, n)
		}
		return b.run(ctx)
	})
}

func (b *benchRun) defaults() error {
	b.source, b.logLevel, b.rate = "none", "warn", 1
	b.span = 10 * time.Second
	if b.quick {
		b.span = 5 * time.Second
	}
	if b.events == 0 {
		if b.events = 100_000; b.quick {
			b.events = 30_000
		}
	}
	if b.rates == nil {
		if b.rates = []int{200, 2000}; b.quick {
			b.rates = []int{200}
		}
	}
	for _, c := range b.cases {
		if err := bench.CheckCase(c); err != nil {
			return fmt.Errorf("--cases: %w", err)
		}
	}
	switch {
	case len(b.cases) > 0 && !b.memory:
		return errors.New("--cases: goes with --memory")
	case b.secure && (b.memory || b.against != ""):
		return errors.New("--secure: goes neither with --memory nor with --against")
	case b.events < 5000:
		return fmt.Errorf("--events %d: want at least 5000, for a rate worth the name", b.events)
	case b.rounds < 1 && !(b.memory && b.rounds == 0):
		return fmt.Errorf("--rounds %d: want at least 1", b.rounds)
	case b.lanes < 1:
		return fmt.Errorf("--lanes %d: want at least 1", b.lanes)
	case b.least < 0 || b.least > 1:
		return fmt.Errorf("--at-least %g: want a share, 0 to 1", b.least)
	case b.memory && b.against != "":
		return errors.New("--memory: --against compares reports without it")
	case b.entities < 100 || b.entities > 50_000_000:
		return fmt.Errorf("--entities %d: want 100 to 50000000", b.entities)
	case b.takeOvers < 0:
		return fmt.Errorf("--take-overs %d: want 0 or more", b.takeOvers)
	case b.least > 0 && b.against == "":
		return errors.New("--at-least: want --against FILE too, to say of what")
	}
	return b.validate()
}

func (b *benchRun) run(ctx context.Context) (err error) {
	if err := b.defaults(); err != nil {
		return err
	}
	var old bench.Report
	if b.against != "" {
		text, err := os.ReadFile(b.against)
		if err == nil {
			err = json.Unmarshal(text, &old)
		}
		if err == nil && old.RatioToCeiling <= 0 {
			err = errors.New("it is no report of 'riskweir bench --json'")
		}
		if err != nil {
			return fmt.Errorf("--against %s: %w", b.against, err)
		}
	}
	if b.dir != "" {
		if err := os.MkdirAll(b.dir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	if b.dir, err = os.MkdirTemp(b.dir, "riskweir-bench-"); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.secure {
		return b.compare(ctx)
	}
	if b.layout, err = openLayout(b.dir, false, b.nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.layout.close()) }()
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	b.sup = supervise.New(exe)
	defer b.stopAll()
	if err := b.startNodes(ctx); err != nil {
		return err
	}
	defer b.conn.Close()
	if err := b.applyTopology(ctx); err != nil {
		return err
	}
	cfg := bench.Config{
		System: b, Conn: b.conn, Nodes: b.nodes, Scorers: b.scorers, Lanes: b.lanes, Events: b.events, Rounds: b.rounds, Rates: b.rates, Span: b.span,
		Note: func(format string, a ...any) { fmt.Fprintf(b.status, format+"\n", a...) },
	}
	if b.memory {
		report, err := bench.RunMemory(ctx, bench.MemoryConfig{Config: cfg, Entities: b.entities, TakeOvers: b.takeOvers, Cases: b.cases})
		if err != nil {
			return err
		}
		return b.print(&report)
	}
	report, err := bench.Run(ctx, cfg)
	if err != nil {
		return err
	}
	err = b.print(&report)
	if err == nil && b.against != "" {
		err = errors.Join(report.Compare(b.status, old), report.Fell(old, b.least))
	}
	return err
}

// print is for machines with --json, else for people.
func (b *benchRun) print(report interface{ Write(io.Writer) error }) error {
	if !b.json {
		return report.Write(b.out)
	}
	enc := json.NewEncoder(b.out)
	enc.SetIndent("", "  ")
	return enc.Encode(report)
}

// Start runs a service, or what stands in its place, with the user that it needs.
func (b *benchRun) Start(ctx context.Context, name, what string, args ...string) error {
	role := map[string]string{"scorer": topology.RoleScorer, "bench-ceiling": topology.RoleScorer, "bench-plain": topology.RoleOperator}[what]
	if what == "scorer" {
		args = append([]string{"--unsigned-models"}, args...) // it measures with a model of its own
	}
	s := b.child(name, role, args...)
	s.Args[1] = what
	b.started = append(b.started, name)
	return b.sup.Start(ctx, s)
}

func (b *benchRun) Stop() {
	b.sup.Stop(b.started...)
	b.started = nil
}

func (b *benchRun) Kill(name string) error {
	b.sup.Kill(name)
	return nil
}

// Resident is from /proc, where there is one.
func (b *benchRun) Resident() (bytes int64) {
	for _, c := range b.sup.Status() {
		if c.PID != 0 && slices.Contains(b.started, c.Name) {
			text, err := os.ReadFile("/proc/" + strconv.Itoa(c.PID) + "/statm")
			if f := strings.Fields(string(text)); err == nil && len(f) > 1 {
				pages, _ := strconv.ParseInt(f[1], 10, 64)
				bytes += pages * int64(os.Getpagesize())
			}
		}
	}
	return bytes
}

// CPU is from /proc, where there is one.
func (b *benchRun) CPU() (services, nodes float64, ok bool) {
	for _, c := range b.sup.Status() {
		used, known := cpuSeconds(c.PID)
		if c.PID == 0 || !known {
			continue
		}
		ok = true
		if slices.Contains(b.started, c.Name) {
			services += used
		} else {
			nodes += used
		}
	}
	return services, nodes, ok
}

// ticks of the clock that /proc counts in; Linux shows 100 a second to programs on every architecture.
const ticks = 100

func cpuSeconds(pid int) (float64, bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, false
	}
	_, rest, found := strings.Cut(string(text), ") ") // the name before may hold blanks
	f := strings.Fields(rest)
	if !found || len(f) < 13 {
		return 0, false
	}
	user, err := strconv.ParseFloat(f[11], 64)
	system, err2 := strconv.ParseFloat(f[12], 64)
	return (user + system) / ticks, err == nil && err2 == nil
}
