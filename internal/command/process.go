// Package command turns flags into a Config and a Config into a Run, once for each service: the commands cmd/<service>
// and the children of 'riskweir up' are the same code.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Exit codes of every command.
const (
	ExitOK     = 0
	ExitBroken = 1 // the work was done, and what it found is not as it should be
	ExitFailed = 2 // the work could not be done
)

// Flags is what flags can be added to: a command, or an application without commands.
type Flags interface {
	Flag(name, help string) *fisk.FlagClause
}

// Runner does the work once the flags have been read.
type Runner func(ctx context.Context) error

// process is what every service process has.
type process struct {
	service string
	connect service.Connection
	level   string
	listen  string
	pprof   bool
	open    bool // the admin address may be one that other machines reach
	name    string
	child   bool // of a supervisor, whose end is ours
}

// env is a process made ready.
type env struct {
	conn     *nats.Conn
	log      *zap.Logger
	metrics  *prometheus.Registry
	micro    micro.Service // riskweir-<service>; a worker may add endpoints
	instance string
	name     string
}

func newProcess(f Flags, name string) *process {
	p := &process{service: name}
	p.connect.Flags(f)
	f.Flag("name", "Name of this process, as people see it").Default(name).StringVar(&p.name)
	f.Flag("log-level", "debug, info, warn or error").Default("info").EnumVar(&p.level, "debug", "info", "warn", "error")
	f.Flag("admin", "Address for /metrics, /healthz and /readyz; empty: none").Default("127.0.0.1:0").PlaceHolder("HOST:PORT").StringVar(&p.listen)
	f.Flag("admin-anywhere", "Let --admin be an address that other machines reach; it asks nobody who they are").UnNegatableBoolVar(&p.open)
	f.Flag("pprof", "Serve /debug/pprof/ beside the metrics").UnNegatableBoolVar(&p.pprof)
	f.Flag("supervised", "End when the parent process ends").Hidden().UnNegatableBoolVar(&p.child)
	return p
}

// worker is a service that has been made.
type worker interface {
	Run(ctx context.Context) error
}

// readier is a worker that can say why it can't do its work now.
type readier interface{ Ready() error }

func (e env) ready(w worker) func() error {
	return func() error {
		if !e.conn.IsConnected() {
			return errors.New("NATS is away")
		}
		if r, ok := w.(readier); ok {
			return r.Ready()
		}
		return nil
	}
}

// counted is a worker whose heartbeat is made here.
type counted interface{ Counters() map[string]float64 }

// run serves what an operator asks from the start, connects, makes the worker and runs it until ctx ends. It is alive, and not
// ready, while there is no cluster yet.
//
//	supervisor's pipe ─┐
//	signals ───────────┴► ctx ─┬► connect ─► worker ─► micro.Stop
//	                           └► admin: /metrics /healthz /readyz
func (p *process) run(ctx context.Context, build func(env) (worker, error)) error {
	ctx, cancel := supervise.Orphaned(ctx, p.child)
	defer cancel()
	e := env{instance: instanceOf(p.name), name: p.name, metrics: service.NewRegistry()}
	var err error
	if e.log, err = service.NewLogger(p.level, p.service, p.name); err != nil {
		return err
	}
	var ready atomic.Pointer[func() error] // nil until there is a worker
	g, _ := service.NewGroup(ctx)
	g.Go(service.Admin{
		Listen: p.listen, Metrics: e.metrics, Pprof: p.pprof, Anywhere: p.open,
		Ready: func() error {
			if f := ready.Load(); f != nil {
				return (*f)()
			}
			return errors.New("not connected to NATS yet")
		},
		OnBound: func(addr string) { e.log.Info("admin", zap.String("listen", addr)) },
	}.Run)
	g.Go(func(ctx context.Context) error {
		defer cancel()
		return p.work(ctx, e, build, func(f func() error) { ready.Store(&f) })
	})
	return g.Wait()
}

// work is run without the admin server.
func (p *process) work(ctx context.Context, e env, build func(env) (worker, error), ready func(func() error)) (err error) {
	p.connect.Name = "riskweir-" + p.service + "/" + p.name
	p.connect.Inbox = topology.InboxPrefix(p.service)
	if e.conn, err = p.connect.Connect(ctx, e.log); err != nil {
		return err
	}
	defer e.conn.Close()
	e.micro, err = service.Micro(e.conn, "riskweir-"+p.service, Version(), "Riskweir "+p.service, map[string]string{"name": p.name, "instance": e.instance}, nil)
	if err != nil {
		return err
	}
	w, err := build(e)
	if err != nil {
		return err
	}
	ready(e.ready(w))
	e.log.Info("started", zap.String("version", Version()), zap.String("id", e.instance), zap.String("server", e.conn.ConnectedUrlRedacted()))
	started := time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	g, _ := service.NewGroup(ctx)
	g.Go(func(ctx context.Context) error { defer stop(); return w.Run(ctx) })
	if c, ok := w.(counted); ok {
		g.Go(func(ctx context.Context) error {
			return service.Beat(ctx, e.conn, events.Heartbeat{Service: p.service, Instance: e.instance, Name: e.name, Started: started},
				func(h *events.Heartbeat) { h.Counters = c.Counters() })
		})
	}
	err = g.Wait()
	if e.conn.IsConnected() {
		if stop := e.micro.Stop(); stop != nil && !errors.Is(stop, nats.ErrConnectionClosed) {
			e.log.Info("micro service", zap.Error(stop))
		}
	}
	e.log.Info("stopped")
	return err
}

// instanceOf is unique to this process, and begins as its name does. It stands in subjects, keys and consumer names.
func instanceOf(name string) string {
	safe := strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, name)
	return safe[:min(len(safe), 32)] + "-" + nuid.Next()[:8]
}

// Version is the module's, or what the build knows of the commit.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "0.0.0"
	}
	revision := ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			revision = "+" + s.Value[:12]
		}
	}
	return "0.1.0" + revision
}

// Main is the whole of a service's command.
func Main(name, help string, define func(Flags) Runner) int {
	app := fisk.New(name, help)
	app.Version(Version())
	app.HelpFlag.Short('h')
	run := define(app)
	if _, err := app.Parse(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v (try --help)\n", name, UsageError(app, os.Args[1:], err))
		return ExitFailed
	}
	return Exit(name, Signalled(run))
}

// Signalled runs f until it returns or the first SIGINT or SIGTERM ends its context; the second ends the process.
func Signalled(f Runner) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return f(ctx)
}

// ErrBroken is the error of work that was done and found something broken; it has been printed already.
var ErrBroken = errors.New("not as it should be")

// Exit prints an error as a person can act on it, and returns the exit code.
func Exit(name string, err error) int {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return ExitOK
	case errors.Is(err, ErrBroken):
		return ExitBroken
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	return ExitFailed
}
