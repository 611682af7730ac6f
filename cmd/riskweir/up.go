package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/supervise"
	"github.com/riskweir/riskweir/internal/verify"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// upConfig is what 'riskweir up' is told.
type upConfig struct {
	nodes, scorers, lanes int
	dir                   string
	fresh                 bool
	natsPort, httpPort    int
	source                string // sim, none or a file
	contract              string // file; for a source file without one it is inferred
	infer                 inferFlags
	labelDelay            time.Duration
	rate                  float64
	seed                  uint64
	duration              time.Duration // 0: until interrupted
	untilDone             bool
	summary               string // text or json
	context               string
	noTLS, mutual         bool
	keyFile, cipher       string // of what is stored
	logLevel              string
}

const upHelp = `Start everything on this machine: the JetStream cluster, ingest, scorers, trainer and monitor.

Every node and service is a process of its own: kill -9 one and watch it come back. What is there is
kept in --dir, and the next start goes on where this one ended.

Examples:

  riskweir up                                   # with simulated card payments
  riskweir up --for 30s --rate 3000 --fresh     # half a minute, then a verified summary
  riskweir up --source none --nodes 1           # empty, for your own events
  riskweir up --source loans.csv --label default --rate 500`

func (a *app) up(cmd *fisk.CmdClause) {
	c := &upConfig{}
	cmd.Flag("nodes", "JetStream nodes: 1 or 3").Default("3").IntVar(&c.nodes)
	cmd.Flag("scorers", "Scorer processes").Default("2").IntVar(&c.scorers)
	cmd.Flag("lanes", "Lanes of a new kind; fixed once it is made").IntVar(&c.lanes)
	cmd.Flag("dir", "Data directory").Default(defaultDir()).StringVar(&c.dir)
	cmd.Flag("fresh", "Throw away what the data directory holds").UnNegatableBoolVar(&c.fresh)
	cmd.Flag("nats-port", "First NATS client port; the next free ones if it is taken").Default("4222").IntVar(&c.natsPort)
	cmd.Flag("http-port", "HTTP ingest port; the next free one if it is taken").Default("8080").IntVar(&c.httpPort)
	cmd.Flag("source", "Where events come from: sim, none, or a file").Default("sim").PlaceHolder("sim|FILE|none").StringVar(&c.source)
	cmd.Flag("contract", "Contract of the events in the file (YAML); inferred if none is given").PlaceHolder("FILE").StringVar(&c.contract)
	c.infer.flags(cmd)
	cmd.Flag("label-delay", "How long after its event a label of the file arrives").Default("3s").DurationVar(&c.labelDelay)
	cmd.Flag("rate", "Events a second").Default("500").Float64Var(&c.rate)
	cmd.Flag("seed", "Seed of the simulation").Default("1").Uint64Var(&c.seed)
	cmd.Flag("for", "Stop after so long, drain, verify and print the summary").PlaceHolder("DURATION").DurationVar(&c.duration)
	cmd.Flag("until-done", "Stop when the file has been read, its labels published and all of it scored").UnNegatableBoolVar(&c.untilDone)
	cmd.Flag("summary", "Summary as text or json").Default("text").EnumVar(&c.summary, "text", "json")
	cmd.Flag("context-name", "NATS context to write; empty: none").Default("riskweir").StringVar(&c.context)
	cmd.Flag("no-tls", "Speak NATS in clear: to measure what TLS costs").UnNegatableBoolVar(&c.noTLS)
	cmd.Flag("mutual-tls", "Clients must show a certificate, beside what they sign with").UnNegatableBoolVar(&c.mutual)
	cmd.Flag("encryption-key-file", "Encrypt what nodes store with the key in this file; with the one in $"+embedded.EncryptionKeyEnv+" if that is set").PlaceHolder("FILE").Envar("RISKWEIR_ENCRYPTION_KEY_FILE").StringVar(&c.keyFile)
	cmd.Flag("cipher", "To encrypt by: chacha or aes").Default("chacha").EnumVar(&c.cipher, "chacha", "aes")
	cmd.Flag("log-level", "Of the services: debug, info, warn or error").Default("info").EnumVar(&c.logLevel, "debug", "info", "warn", "error")
	a.run(cmd, func(ctx context.Context) error {
		if err := c.validate(); err != nil {
			return err
		}
		return (&upRun{upConfig: *c, out: os.Stdout, status: os.Stderr}).run(ctx)
	})
}

func (c *upConfig) validate() error {
	switch {
	case c.nodes != 1 && c.nodes != 3:
		return fmt.Errorf("--nodes %d: 1, or 3 for a cluster that survives the loss of one", c.nodes)
	case c.scorers < 1 || c.scorers > 64:
		return fmt.Errorf("--scorers %d: want 1 to 64", c.scorers)
	case c.lanes < 0 || c.lanes > events.MaxLanes:
		return fmt.Errorf("--lanes %d: want 1 to %d", c.lanes, events.MaxLanes)
	case !(c.rate > 0 && c.rate <= 1e6): // NaN too
		return fmt.Errorf("--rate %v: want more than 0 and at most a million events a second", c.rate)
	case c.untilDone && (c.source == "sim" || c.source == "none"):
		return errors.New("--until-done needs a file as --source: the others never end")
	case c.mutual && c.noTLS:
		return errors.New("--mutual-tls: does not go with --no-tls")
	case c.duration < 0:
		return fmt.Errorf("--for %s: want a duration such as 30s", c.duration)
	}
	if c.source != "sim" && c.source != "none" {
		if _, err := os.Stat(c.source); err != nil {
			return fmt.Errorf("--source: %w (a file, or one of sim and none)", err)
		}
	}
	return nil
}

// upRun is one life of the whole system.
//
//	                     ┌── n1 n2 n3        JetStream nodes
//	supervisor ── starts ┼── ingest  scorer-1 .. scorer-N  trainer  monitor
//	     ▲               └── source          sim, or the ingest of a file
//	     └── heartbeats, the monitor's status ── operator connection ──► screen, summary
type upRun struct {
	upConfig
	out    io.Writer // the summary
	status io.Writer // all else

	layout *layout
	sup    *supervise.Supervisor
	conn   *nats.Conn
	js     natsjs.JetStream
	kind   string
	pulse  *pulse
	began  time.Time // of the source
	ended  time.Time
	over   time.Time // after a Ctrl-C all must have ended by then; zero: it takes its time
}

func (u *upRun) run(ctx context.Context) (err error) {
	if u.layout, err = openLayout(u.dir, u.fresh, u.nodes); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.layout.close()) }()
	u.layout.noTLS, u.layout.mutual = u.noTLS, u.mutual
	if u.layout.encryption, err = u.atRest(); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	u.sup = supervise.New(exe)
	defer func() {
		if ctx.Err() != nil && u.over.IsZero() {
			u.over = time.Now().Add(interruptWithin) // interrupted before it was up
		}
		u.stopAll()
	}()
	if err := u.startNodes(ctx); err != nil {
		return err
	}
	defer u.conn.Close()
	if err := u.applyTopology(ctx); err != nil {
		return err
	}
	u.pulse = newPulse(u.conn)
	if err := u.pulse.listen(); err != nil {
		return err
	}
	if err := u.startServices(ctx); err != nil {
		return err
	}
	u.began = time.Now()
	if err := u.startSource(ctx); err != nil {
		return err
	}
	interrupted := u.watch(ctx)
	u.ended = time.Now()
	if interrupted {
		u.over = u.ended.Add(interruptWithin)
	}
	u.stop(forVerify+forSummary+forServices+forNodes, "source")
	// The work of stopping must outlive the Ctrl-C that asks for it.
	final := context.WithoutCancel(ctx)
	return u.finish(final, interrupted)
}

// atRest is how nodes are to encrypt, which children of another working directory must find.
func (c *upConfig) atRest() (*embedded.Encryption, error) {
	if c.keyFile == "" && os.Getenv(embedded.EncryptionKeyEnv) == "" {
		return nil, nil
	}
	e := &embedded.Encryption{Cipher: c.cipher}
	if c.keyFile != "" {
		file, err := filepath.Abs(c.keyFile)
		if err != nil {
			return nil, fmt.Errorf("--encryption-key-file: %w", err)
		}
		e.KeyFile = file
	}
	return e, nil
}

func (u *upRun) startNodes(ctx context.Context) error {
	l := u.layout
	if err := l.choosePorts(u.natsPort, u.httpPort); err != nil {
		return err
	}
	users, err := l.users()
	if err != nil {
		return err
	}
	if err := l.certify(time.Now()); err != nil {
		return err
	}
	if err := l.writeNodes(users); err != nil {
		return err
	}
	for i := range u.nodes {
		if err := u.sup.Start(ctx, u.node(i)); err != nil {
			return err
		}
	}
	as := l.connection(operatorUser)
	as.Name, as.Timeout = "riskweir-up", 30*time.Second
	u.conn, err = as.Connect(ctx, zap.NewNop())
	if err != nil {
		return fmt.Errorf("the nodes did not come up: %w; see %s", err, filepath.Join(l.dir, "logs"))
	}
	u.js, err = natsjs.New(u.conn)
	return err
}

func (u *upRun) applyTopology(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o := topology.Options{Replicas: u.nodes}
	if err := topology.ApplyAudit(ctx, u.js, o); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	return audit.Do(ctx, u.js, audit.Action{What: "up"}, func(on *audit.Entry) error { return u.applyAll(ctx, o, on) })
}

func (u *upRun) applyAll(ctx context.Context, o topology.Options, on *audit.Entry) error {
	if _, err := topology.ApplyShared(ctx, u.js, o); err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	if err := u.sign(ctx); err != nil {
		return fmt.Errorf("keys of models: %w", err)
	}
	if err := u.layout.admitLocal(ctx, u.js); err != nil {
		return err
	}
	contract, err := u.sourceContract()
	if err != nil || contract.Kind == "" {
		return err
	}
	u.kind = contract.Kind
	on.Kind(u.kind)
	// A kind that is there keeps its contract; another number of lanes is refused, with the reason.
	stored, err := topology.ReadKind(ctx, u.js, contract.Kind)
	switch {
	case err == nil:
		contract = stored.Contract
	case !errors.Is(err, natsjs.ErrKeyNotFound):
		return fmt.Errorf("kind %s: %w", contract.Kind, err)
	}
	if u.lanes != 0 {
		contract.Lanes = u.lanes
	}
	if contract.Rollout == nil && err != nil { // a new kind, for whoever typed 'up': the default is for a house with more than one person
		contract.Rollout = events.PlaygroundRollout()
	}
	done, err := topology.ApplyKind(ctx, u.js, contract, o)
	if err != nil {
		return fmt.Errorf("kind %s: %w", contract.Kind, err)
	}
	on.After(map[string]any{"declared": done.Declared, "streams": changed(done.Changes)})
	return nil
}

// sourceContract is the contract of what the source sends; its kind is empty if there is no source.
func (u *upRun) sourceContract() (events.Contract, error) {
	switch u.source {
	case "none":
		return events.Contract{}, nil
	case "sim":
		return sim.Contract(), nil
	}
	if u.contract != "" {
		text, err := os.ReadFile(u.contract)
		if err != nil {
			return events.Contract{}, fmt.Errorf("--contract: %w", err)
		}
		c, err := events.ParseContract(text)
		if err != nil {
			return c, fmt.Errorf("--contract %s: %w", u.contract, err)
		}
		return c, nil
	}
	c, notes, err := inferFile(u.source, u.infer)
	for _, n := range notes {
		fmt.Fprintln(u.status, "note:", n)
	}
	return c, err
}

func (u *upRun) node(i int) supervise.Spec {
	return supervise.Spec{
		Name: nodeName(i), Log: u.layout.logFile(nodeName(i)), Stop: 5 * time.Second,
		Args: []string{"run", "node", "--supervised", "--config", u.layout.nodeFile(i)},
	}
}

func (u *upRun) child(name, role string, args ...string) supervise.Spec {
	return supervise.Spec{
		Name: name, Log: u.layout.logFile(name), Stop: 4 * time.Second,
		Args: slices.Concat([]string{"run", role, "--supervised", "--name", name, "--log-level", u.logLevel}, u.layout.flags(role), args),
	}
}

func (u *upRun) startServices(ctx context.Context) error {
	specs := []supervise.Spec{u.child("ingest", "ingest", u.layout.httpFlags()...)}
	for i := range u.scorers {
		specs = append(specs, u.child("scorer-"+strconv.Itoa(i+1), "scorer", u.layout.signed(topology.RoleScorer)...))
	}
	specs = append(specs, u.child("trainer", "trainer", append(u.layout.signed(topology.RoleTrainer), "--retrain-every", "30s")...), u.child("monitor", "monitor"))
	for _, s := range specs {
		if err := u.sup.Start(ctx, s); err != nil {
			return err
		}
	}
	context := ""
	if u.context != "" {
		file, before, err := u.layout.writeContext(u.context)
		if err != nil {
			return err
		}
		context = u.context
		if before != "" {
			fmt.Fprintf(u.status, "note: the nats context %s was for '%s', and is for this one now; --context-name names another\n", u.context, before)
		}
		defer fmt.Fprintf(u.status, "context  %s\n\n", file)
	}
	u.banner(context)
	return nil
}

func (u *upRun) banner(context string) {
	l := u.layout
	fmt.Fprintf(u.status, "Riskweir %s: %d node(s), %d scorer(s)\n\n", version(), u.nodes, u.scorers)
	fmt.Fprintf(u.status, "data     %s\n", l.dir)
	fmt.Fprintf(u.status, "nats     %s\n", l.servers())
	fmt.Fprintf(u.status, "http     curl -K %s %s/v1/events/KIND\n", l.curlFile(), l.httpURL())
	if l.ports.client[0] != u.natsPort || l.ports.http != u.httpPort {
		fmt.Fprintf(u.status, "         (the usual ports are taken)\n")
	}
	if context != "" {
		fmt.Fprintf(u.status, "look     nats --context %s sub 'scores.>'\n", context)
		fmt.Fprintf(u.status, "         nats --context %s stream report\n", context)
		fmt.Fprintf(u.status, "         riskweir status --context %s\n", context)
	}
}

func (u *upRun) startSource(ctx context.Context) error {
	rate := strconv.FormatFloat(u.rate, 'g', -1, 64)
	switch u.source {
	case "none":
		return nil
	case "sim":
		s := u.child("source", "publisher", "--rate", rate, "--seed", strconv.FormatUint(u.seed, 10))
		s.Args[1] = "sim"
		return u.sup.Start(ctx, s)
	}
	file, err := filepath.Abs(u.source)
	if err != nil {
		return fmt.Errorf("--source: %w", err)
	}
	s := u.child("source", "ingest", "--kind", u.kind, "--rate", rate, "--label-delay", u.labelDelay.String(),
		"--invalid", filepath.Join(u.layout.dir, filepath.Base(file)+".invalid.jsonl"), file)
	s.Args[1] = "file"
	s.Once, s.Tries = true, sourceTries
	return u.sup.Start(ctx, s)
}

// watch shows the status until the run is over, and says whether it was interrupted.
func (u *upRun) watch(ctx context.Context) (interrupted bool) {
	var over <-chan time.Time
	if u.duration > 0 {
		t := time.NewTimer(u.duration)
		defer t.Stop()
		over = t.C
	}
	screen := newScreen(u.status, isTerminal(u.status))
	defer screen.leave()
	tick := time.NewTicker(screen.every())
	defer tick.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	renew := time.NewTicker(time.Hour)
	defer renew.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case <-over:
			return false
		case <-tick.C:
			screen.draw(u.look(ctx))
		case <-look.C:
		case <-renew.C:
			if err := u.layout.certify(time.Now()); err != nil {
				fmt.Fprintf(u.status, "note: certificates were not renewed: %v\n", err)
			}
		}
		if end := u.sourceState(); u.untilDone && (end == supervise.Finished || end == supervise.Failed) {
			return false
		}
	}
}

// sourceTries of a file that cannot be read through: 6 s of back-off, and while a stream has no leader each try takes seconds.
const sourceTries = 7

// sourceState is empty if there is no source.
func (u *upRun) sourceState() supervise.State {
	for _, s := range u.sup.Status() {
		if s.Name == "source" {
			return s.State
		}
	}
	return ""
}

// sourceError is why the source was given up, in its own last words, or nil.
func (u *upRun) sourceError() error {
	if u.sourceState() != supervise.Failed {
		return nil
	}
	file := u.layout.logFile("source")
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the source failed: %w", err)
	}
	reason := "see " + file
	for line := range strings.Lines(string(text)) {
		if said, ok := strings.CutPrefix(line, "riskweir: "); ok {
			reason = strings.TrimSpace(said)
		}
	}
	return fmt.Errorf("the source failed: %s", reason)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

const (
	verifyFor       = 15 * time.Minute // on a busy machine half a million events took two
	drainFor        = time.Minute      // at the end of --for: lanes may have a backlog
	settleHeartbeat = 1200 * time.Millisecond

	// A Ctrl-C ends within five seconds, also where the machine is so busy that children have to be killed. What one
	// step leaves of its time goes to the next.
	interruptWithin = 4800 * time.Millisecond
	forVerify       = 1200 * time.Millisecond
	forSummary      = 300 * time.Millisecond
	forServices     = time.Second
	forNodes        = 1500 * time.Millisecond
)

// stop ends children. After a Ctrl-C it kills those that would take of the time kept for what comes then.
func (u *upRun) stop(kept time.Duration, names ...string) {
	if u.over.IsZero() {
		u.sup.Stop(names...)
		return
	}
	u.sup.StopBy(u.over.Add(-kept), names...)
}

// finish drains, verifies, prints the summary and stops everything in order: services before nodes.
func (u *upRun) finish(ctx context.Context, interrupted bool) error {
	if u.kind == "" {
		u.kind = u.onlyKind(ctx)
	}
	s := summary{again: u.again(), Kind: u.kind, Seconds: u.ended.Sub(u.began).Seconds()}
	if u.kind != "" {
		fmt.Fprintln(u.status, "draining ...")
		if err := u.verify(ctx, &s, interrupted); err != nil {
			return err
		}
	}
	if !interrupted {
		// The last outcomes' latencies arrive with the scorers' next heartbeat.
		select {
		case <-time.After(settleHeartbeat):
		case <-ctx.Done():
		}
	}
	within := 2 * time.Second
	if interrupted {
		within = time.Until(u.over.Add(-forServices - forNodes))
	}
	bounded, cancel := context.WithTimeout(ctx, within)
	u.fillSummary(bounded, &s)
	cancel()
	u.stopAll()
	if err := s.write(u.out, u.summary); err != nil {
		return err
	}
	if s.Verified && !s.OK {
		return errBroken
	}
	return u.sourceError()
}

// verify fills in the summary. That a Ctrl-C leaves no time for a lane's backlog is no fault of the lane's.
func (u *upRun) verify(ctx context.Context, s *summary, interrupted bool) error {
	wait, within := drainFor, drainFor+2*time.Minute
	if interrupted {
		within = time.Until(u.over.Add(-forSummary - forServices - forNodes))
		wait = within * 3 / 4
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	report, err := verify.Run(ctx, verify.Config{JS: u.js, Kind: u.kind, Wait: wait})
	switch backlog := report.Missing > 0 && report.Duplicate+report.Disorder == 0; {
	case err == nil && !(interrupted && backlog):
		s.take(report)
	case err != nil && !interrupted:
		return fmt.Errorf("verify: %w", err)
	}
	return nil
}

// onlyKind is the one kind that was declared while nothing was fed; empty if there is none, or more than one.
func (u *upRun) onlyKind(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	kinds, err := topology.Kinds(ctx, u.js)
	if err != nil || len(kinds) != 1 {
		return ""
	}
	return kinds[0].Contract.Kind
}

// again is the command that verifies what is in the data directory, once this run is over.
func (u *upRun) again() string {
	return fmt.Sprintf("riskweir up --source none --for 1s --nodes %d --dir %s", u.nodes, u.layout.dir)
}

// stopAll stops whatever runs: the source, then the services, then the nodes.
func (u *upRun) stopAll() {
	var services, nodes []string
	for _, s := range u.sup.Status() {
		if strings.HasPrefix(s.Name, "n") && len(s.Name) == 2 {
			nodes = append(nodes, s.Name)
		} else {
			services = append(services, s.Name)
		}
	}
	u.stop(forServices+forNodes, "source")
	u.stop(forNodes, services...)
	u.stop(0, nodes...)
}
