package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/chaos"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

const chaosHelp = `Break a running system at random, mend it, and check that every acknowledged event has exactly one outcome.

It starts 3 nodes, scorers, 2 trainers, 2 monitors and an ingest of its own, in a directory of its own, on ports of
its own, and loads them. Faults come one after the other, in rounds of all that were asked for: killed, frozen and
stopped processes, cut, silent and slow links, full disks, wrong clocks. A seed names the same faults, targets and
times again. Exit status: 0 every promise was kept, 1 one was broken, 2 it could not be done.

Examples:

  riskweir chaos --for 10m
  riskweir chaos --for 2m --seed 7 --faults scorer-kill,all-nodes-kill
  riskweir chaos --each 5 --faults scorer-kill,node-kill,node-stop     # five times each, for figures`

// chaosRun is 'riskweir up' without a screen, and with somebody who breaks it.
type chaosRun struct {
	upRun
	seed     uint64
	length   time.Duration
	each     int
	faults   string
	probes   float64
	json     bool
	keep     bool
	list     bool
	specs    map[string]supervise.Spec // of all children there have been, by name
	roles    map[string]string
	maxStore int64

	lines                 *service.Group // runs the proxies
	cables                chaos.Cables
	wantRoutes, wantLinks bool
	disks                 []chaos.Disk // of nodes alone
}

// bytesAnEvent is more than an event takes on a node: its own, its score's, and their raft logs until they are compacted.
const bytesAnEvent = 2500

// overrun is by how much the last fault of a run may outlast the run's length.
const overrun = 2 * time.Minute

const defaultStore = 10 << 30

func (a *app) chaos(cmd *fisk.CmdClause) {
	c := &chaosRun{}
	c.natsPort, c.httpPort = 24222, 28080
	cmd.Flag("for", "How long to load and break").Default("10m").PlaceHolder("DURATION").DurationVar(&c.length)
	cmd.Flag("each", "Take every fault so many times instead, however long that takes").IntVar(&c.each)
	cmd.Flag("seed", "Of faults, targets and times; 0: a random one").Uint64Var(&c.seed)
	cmd.Flag("faults", "Only these, comma separated; by default all of --list").PlaceHolder("A,B,...").StringVar(&c.faults)
	cmd.Flag("rate", "Events a second").Default("2200").Float64Var(&c.rate)
	cmd.Flag("probes", "Requests for a score a second, with a deadline of 150 ms").Default("10").Float64Var(&c.probes)
	cmd.Flag("scorers", "Scorer processes").Default("3").IntVar(&c.scorers)
	cmd.Flag("lanes", "Lanes of the kind").IntVar(&c.lanes)
	cmd.Flag("dir", "Directory to make a fresh one in; the system's for temporary files by default").PlaceHolder("DIR").StringVar(&c.dir)
	cmd.Flag("keep", "Keep data and logs; they are kept anyway when a promise was broken").UnNegatableBoolVar(&c.keep)
	cmd.Flag("nats-port", "First NATS client port; the next free ones if it is taken").Default("24222").IntVar(&c.natsPort)
	cmd.Flag("http-port", "HTTP ingest port; the next free one if it is taken").Default("28080").IntVar(&c.httpPort)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&c.json)
	cmd.Flag("list", "List the faults").UnNegatableBoolVar(&c.list)
	cmd.Flag("log-level", "Of the services: debug, info, warn or error").Default("info").EnumVar(&c.logLevel, "debug", "info", "warn", "error")
	a.run(cmd, func(ctx context.Context) error {
		c.out, c.status = a.out, a.err
		if c.list {
			for _, t := range chaos.Catalogue() {
				fmt.Fprintln(c.out, t.Name)
			}
			return nil
		}
		return c.run(ctx)
	})
}

func (c *chaosRun) run(ctx context.Context) (err error) {
	c.nodes, c.source, c.maxStore = 3, "sim", defaultStore
	if err := c.validate(); err != nil {
		return err
	}
	for c.seed == 0 {
		c.seed = rand.Uint64() >> 32
	}
	var names []string
	if c.faults != "" {
		names = strings.Split(c.faults, ",")
	}
	terms, err := chaos.Choose(chaos.Catalogue(), names)
	if err != nil {
		return err
	}
	if no := disks(); no != nil {
		able := slices.DeleteFunc(slices.Clone(terms), func(t chaos.Terms) bool { return chaos.NeedsDisk(t.Name) })
		if len(able) < len(terms) && len(names) > 0 {
			return fmt.Errorf("--faults %s: a node cannot be given a disk of its own here: %w", c.faults, no)
		}
		terms = able
	}
	var steps []chaos.Step
	if c.each > 0 {
		steps = chaos.PlanEach(c.seed, c.each, terms)
		c.length = 0
	} else if steps, err = chaos.Plan(c.seed, c.length, terms); err != nil {
		return err
	}
	last := steps[len(steps)-1]
	loaded := 2 * (last.At + last.Hold) // as faults may take longer than planned
	if c.length > 0 {
		loaded = c.length + overrun
	}
	if most := loaded.Seconds() * c.rate * bytesAnEvent; most > defaultStore {
		return fmt.Errorf("--rate %g for so long may take %.0f GB on a node, and a node has %d GB: lower it", c.rate, most/1e9, defaultStore>>30)
	}
	if c.dir != "" {
		if err := os.MkdirAll(c.dir, 0o700); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	if c.dir, err = os.MkdirTemp(c.dir, "riskweir-chaos-"); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if c.layout, err = openLayout(c.dir, false, c.nodes); err != nil {
		return err
	}
	kept := true
	defer func() {
		err = errors.Join(err, c.layout.close())
		if kept {
			fmt.Fprintf(c.status, "data and logs are in %s\n", c.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(c.dir))
	}()
	fmt.Fprintf(c.status, "riskweir %s, seed %d: %d faults of %d kinds in %s at %g events a second\n", version(), c.seed, len(steps), len(terms), (last.At + last.Hold).Round(time.Second), c.rate)
	report, err := c.attack(ctx, terms, steps)
	if err != nil {
		return err
	}
	kept = c.keep || !report.OK
	if c.json {
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = report.Write(c.out)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if !report.OK {
		return errBroken
	}
	return nil
}

// attack starts the system, lets it be broken, and stops it.
func (c *chaosRun) attack(ctx context.Context, terms []chaos.Terms, steps []chaos.Step) (report chaos.Report, err error) {
	exe, err := os.Executable()
	if err != nil {
		return report, fmt.Errorf("find this program: %w", err)
	}
	c.sup = supervise.New(exe)
	c.specs, c.roles = map[string]supervise.Spec{}, map[string]string{}
	// Links outlive an interrupt, as the processes at their ends do.
	lines, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.lines, _ = service.NewGroup(lines)
	defer func() { stop(); err = errors.Join(err, c.lines.Wait()) }()
	c.wantRoutes, c.wantLinks = chaos.NeedsCables(terms)
	c.layout.adjust = func(i int, cfg *embedded.Config) {
		cfg.MaxStore = c.maxStore
		if c.wantLinks {
			cfg.NoAdvertise = true
		}
		if c.wantRoutes {
			c.reroute(i, cfg)
		}
	}
	c.layout.chosen = c.lay

	defer func() {
		c.stopAll()
		for _, d := range c.disks {
			err = errors.Join(err, d.Remove())
		}
	}()
	if err := c.startNodes(ctx); err != nil {
		return report, err
	}
	defer c.conn.Close()
	for i := range c.nodes {
		c.remember(chaos.RoleNode, c.node(i))
	}
	if err := c.applyTopology(ctx); err != nil {
		return report, err
	}
	if err := c.startChildren(ctx); err != nil {
		return report, err
	}
	as := c.layout.connection(topology.RolePublisher)
	as.Name, as.Timeout = "riskweir-chaos-load", 30*time.Second
	publisher, err := as.Connect(ctx, zap.NewNop())
	if err != nil {
		return report, err
	}
	defer publisher.Close()
	token, err := c.layout.token()
	if err != nil {
		return report, err
	}
	trust, err := c.layout.httpTrust()
	if err != nil {
		return report, err
	}
	load, err := chaos.NewLoad(chaos.LoadConfig{
		Token: token, TLS: trust,
		Conn: publisher, Generator: sim.New(sim.Config{Seed: c.seed, Start: time.Now()}), HTTP: c.layout.httpURL(),
		Rate: c.rate, Probes: c.probes, Deadline: 150 * time.Millisecond,
	})
	if err != nil {
		return report, err
	}
	report, err = chaos.Run(ctx, chaos.Config{
		System: c, Conn: c.conn, Load: load, Kind: c.kind, Steps: steps, Cables: c.cables, Length: c.length, Seed: c.seed,
		Note: func(format string, a ...any) { fmt.Fprintf(c.status, format+"\n", a...) },
	})
	if ctx.Err() != nil {
		return report, errors.New("interrupted: nothing was judged")
	}
	return report, err
}

func (c *chaosRun) remember(role string, s supervise.Spec) {
	c.specs[s.Name], c.roles[s.Name] = s, role
}

// spare is the scorer that comes and goes.
const spare = "scorer-spare"

func (c *chaosRun) startChildren(ctx context.Context) error {
	c.remember(chaos.RoleIngest, c.child("ingest", "ingest", c.layout.httpFlags()...))
	for i := range c.scorers {
		s := c.child("scorer-"+strconv.Itoa(i+1), "scorer", c.layout.signed(topology.RoleScorer)...)
		if s.Name == c.cables.Scorer {
			s.Args[slices.Index(s.Args, "--nats")+1] = c.linked()
		}
		c.remember(chaos.RoleScorer, s)
	}
	for _, role := range []string{chaos.RoleTrainer, chaos.RoleMonitor} {
		for i := range 2 {
			c.remember(role, c.child(role+"-"+strconv.Itoa(i+1), role, c.layout.signed(role)...))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.specs)) {
		if c.roles[name] == chaos.RoleNode {
			continue
		}
		if err := c.sup.Start(ctx, c.specs[name]); err != nil {
			return err
		}
	}
	return nil
}

// lay lays the cables, when the ports of the nodes are known.
func (c *chaosRun) lay() error {
	proxy := func(port int) (*chaos.Proxy, error) {
		p, err := chaos.NewProxy(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			c.lines.Go(p.Run)
		}
		return p, err
	}
	ports := c.layout.ports
	if c.wantRoutes {
		c.cables.Routes = map[[2]string][]*chaos.Proxy{}
		for i := range c.nodes {
			for j := i + 1; j < c.nodes; j++ {
				there, err := proxy(ports.cluster[j])
				if err != nil {
					return err
				}
				back, err := proxy(ports.cluster[i])
				if err != nil {
					return err
				}
				c.cables.Routes[[2]string{nodeName(i), nodeName(j)}] = []*chaos.Proxy{there, back}
			}
		}
	}
	if c.wantLinks {
		c.cables.Scorer = "scorer-1"
		for _, port := range ports.client {
			p, err := proxy(port)
			if err != nil {
				return err
			}
			c.cables.Links = append(c.cables.Links, p)
		}
	}
	return nil
}

// linked is the URL list of the nodes for who comes through the proxies.
func (c *chaosRun) linked() string {
	var urls []string
	for _, p := range c.cables.Links {
		urls = append(urls, c.layout.scheme()+"://"+p.Addr())
	}
	return strings.Join(urls, ",")
}

// reroute leads the routes of node i through proxies. Nodes tell each other where they are, which must not lead around
// these: nobody listens where they say.
func (c *chaosRun) reroute(i int, cfg *embedded.Config) {
	cfg.Advertise = "127.0.0.1:1"
	cfg.Routes = []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.ClusterPort))}
	for j := range c.nodes {
		if j == i {
			continue
		}
		pair := c.cables.Routes[[2]string{nodeName(min(i, j)), nodeName(max(i, j))}]
		p := pair[0]
		if i > j {
			p = pair[1]
		}
		cfg.Routes = append(cfg.Routes, p.Addr())
	}
}
