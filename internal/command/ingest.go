package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"go.uber.org/zap"
	"golang.org/x/term"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/ingest"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Ingest is cmd/ingest: the HTTP server.
func Ingest(f Flags) Runner {
	p := newProcess(f, "ingest")
	var listen string
	var ack, deadline time.Duration
	var cert, key, clients, entityKey string
	var open, plain bool
	var perCaller float64
	f.Flag("listen", "Address for HTTP").Default("127.0.0.1:8080").PlaceHolder("HOST:PORT").StringVar(&listen)
	f.Flag("http-cert", "Certificate for HTTP, PEM; read again when it changes").PlaceHolder("FILE").StringVar(&cert)
	f.Flag("http-key", "Its key").PlaceHolder("FILE").StringVar(&key)
	f.Flag("http-client-ca", "Who signs the certificates that callers may show in place of a token").PlaceHolder("FILE").StringVar(&clients)
	f.Flag("plain", "Listen without TLS where other machines reach it: something in between ends TLS").UnNegatableBoolVar(&plain)
	f.Flag("open", "Ask nobody for a token or a certificate").UnNegatableBoolVar(&open)
	f.Flag("entity-key", "Key, for its owner only, of kinds that store entities under a hash (entity_hash)").PlaceHolder("FILE").StringVar(&entityKey)
	f.Flag("caller-rate", "Events and labels a second from each caller; negative: no limit").Default(strconv.Itoa(ingest.DefaultRate)).Float64Var(&perCaller)
	f.Flag("ack-timeout", "How long the broker may take before an event is called not accepted").Default("5s").DurationVar(&ack)
	f.Flag("deadline", "Of POST /v1/score without one").Default("1s").DurationVar(&deadline)
	return func(ctx context.Context) error {
		return p.run(ctx, func(e env) (worker, error) {
			js, err := natsjs.New(e.conn)
			if err != nil {
				return nil, err
			}
			cfg := ingest.ServerConfig{Conn: e.conn, Log: e.log, Metrics: e.metrics, AckTimeout: ack, Deadline: deadline, Open: open, Rate: perCaller}
			switch {
			case cert != "" && key != "":
				cfg.TLS, err = httpTLS(cert, key, clients)
			case cert != "" || key != "":
				err = errors.New("--http-cert and --http-key go together")
			case clients != "":
				err = errors.New("--http-client-ca needs --http-cert and --http-key")
			case !service.Loopback(listen) && !plain:
				err = fmt.Errorf("listen on %s without TLS: give --http-cert and --http-key, or --plain if something before it ends TLS", listen)
			}
			if err != nil {
				return nil, err
			}
			if cfg.EntityKey, err = ingest.ReadEntityKey(entityKey); err != nil {
				return nil, err
			}
			if !open {
				cfg.Callers = access.NewBook(js, func(err error) { e.log.Warn("callers", zap.Error(err)) })
			}
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return nil, fmt.Errorf("listen: %w", err)
			}
			e.log.Info("http", zap.String("listen", l.Addr().String()), zap.Bool("tls", cfg.TLS != nil), zap.Bool("open", open))
			catalog := topology.NewCatalog(js, func(err error) { e.log.Warn("kinds", zap.Error(err)) })
			cfg.Listener, cfg.Contracts = l, catalog
			server, err := ingest.NewServer(cfg)
			if err != nil {
				return nil, errors.Join(err, l.Close())
			}
			return &ingestWorker{catalog, cfg.Callers, server}, nil
		})
	}
}

// httpTLS lets a caller show a certificate in place of a token: one that is shown must be good.
func httpTLS(cert, key, clients string) (*tls.Config, error) {
	pair, err := certs.Follow(cert, key)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	c, err := pair.Server(clients)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	if clients != "" {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.NextProtos = []string{"http/1.1"} // so that a connection is a request at a time, and their number bounds both
	return c, nil
}

// ingestWorker runs the server beside what it takes contracts and callers from.
type ingestWorker struct {
	catalog *topology.Catalog
	callers *access.Book // nil: everybody may call
	server  *ingest.Server
}

func (w *ingestWorker) Run(ctx context.Context) error {
	g, _ := service.NewGroup(ctx)
	g.Go(w.catalog.Run)
	if w.callers != nil {
		g.Go(w.callers.Run)
	}
	g.Go(func(ctx context.Context) error {
		// Who asks earlier waits in the listener's queue, and is not told that a declared kind is none.
		for !w.catalog.Loaded() && ctx.Err() == nil {
			changed := w.catalog.Changed()
			if w.catalog.Loaded() {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
		if w.callers != nil {
			select {
			case <-w.callers.Ready():
			case <-ctx.Done():
			}
		}
		return w.server.Run(ctx)
	})
	return g.Wait()
}

func (w *ingestWorker) Ready() error {
	if !w.catalog.Loaded() {
		return errors.New("the kinds have not been read yet")
	}
	if w.callers != nil && !w.callers.Loaded() {
		return errors.New("the callers have not been read yet")
	}
	return nil
}

// Counters makes the worker beat; what it counts is among its metrics.
func (w *ingestWorker) Counters() map[string]float64 { return nil }

// FileFlags are those that say how a row file is read.
func FileFlags(f Flags, o *source.Options) {
	f.Flag("format", "csv, jsonl, arff or space; found out by default").StringVar((*string)(&o.Format))
	delimiter := f.Flag("delimiter", "Between the cells of a CSV file; found out by default").PlaceHolder("CHAR")
	delimiter.SetValue(&delimiterValue{&o.Delimiter})
	f.Flag("columns", "Names of the columns, for a file without a header").PlaceHolder("A,B,...").SetValue((*listValue)(&o.Columns))
}

// ReadFile is 'riskweir ingest FILE', and the file source of 'riskweir up'.
func ReadFile(cmd interface {
	Flags
	Arg(name, help string) *fisk.ArgClause
}) Runner {
	var connect service.Connection
	var level, name, kind, entityKey string
	var child bool
	cfg := ingest.FileConfig{}
	connect.Flags(cmd)
	cmd.Arg("file", "CSV, JSON lines or ARFF, gzip too; - for stdin").Required().StringVar(&cfg.Path)
	cmd.Flag("kind", "Kind of the events").Required().StringVar(&kind)
	cmd.Flag("labels", "The file holds labels: columns id or seq, label, known_at, and the entity").UnNegatableBoolVar(&cfg.Labels)
	cmd.Flag("history", "The events feed training only; no decision leaves").UnNegatableBoolVar(&cfg.History)
	cmd.Flag("label-delay", "How long after its event a row's label is published; negative: never").Default("0s").DurationVar(&cfg.LabelDelay)
	cmd.Flag("rate", "Rows a second; 0: as fast as they are accepted").Default("0").Float64Var(&cfg.Rate)
	cmd.Flag("strict", "Stop at the first bad row").UnNegatableBoolVar(&cfg.Strict)
	cmd.Flag("invalid", "Where bad rows go; FILE.invalid.jsonl by default").PlaceHolder("FILE").StringVar(&cfg.InvalidPath)
	cmd.Flag("entity-key", "Key, for its owner only, of kinds that store entities under a hash (entity_hash)").PlaceHolder("FILE").StringVar(&entityKey)
	cmd.Flag("source-name", "Under which the position in the file is kept; the file's name by default").PlaceHolder("NAME").StringVar(&cfg.SourceName)
	FileFlags(cmd, &cfg.Format)
	cmd.Flag("name", "Name of this process, as people see it").Default("file").StringVar(&name)
	cmd.Flag("log-level", "debug, info, warn or error").Default("warn").StringVar(&level)
	cmd.Flag("supervised", "End when the parent process ends").Hidden().UnNegatableBoolVar(&child)
	return func(ctx context.Context) error {
		ctx, cancel := supervise.Orphaned(ctx, child)
		defer cancel()
		log, err := service.NewLogger(level, "file", name)
		if err != nil {
			return err
		}
		connect.Name = "riskweir-file/" + name
		if connect.Context == "" {
			connect.Inbox = topology.InboxPrefix(topology.RoleIngest)
		}
		if !child {
			connect.Timeout = 10 * time.Second
		}
		conn, err := connect.Connect(ctx, log)
		if err != nil {
			return err
		}
		defer conn.Close()
		js, err := natsjs.New(conn)
		if err != nil {
			return err
		}
		declared, err := topology.ReadKind(ctx, js, kind)
		if errors.Is(err, natsjs.ErrKeyNotFound) {
			return fmt.Errorf("kind %s is not declared: riskweir kind infer %s --kind %s > %s.yaml, look at it, then riskweir kind apply %s.yaml", kind, cfg.Path, kind, kind, kind)
		}
		if err != nil {
			return err
		}
		if cfg.Schema, err = events.Compile(declared.Contract); err != nil {
			return err
		}
		if cfg.EntityKey, err = ingest.ReadEntityKey(entityKey); err != nil {
			return err
		}
		cfg.Conn, cfg.Log = conn, log
		last := ingest.Progress{}
		show, finish := progressBar(cfg.Path)
		cfg.Progress = func(p ingest.Progress) { last = p; show(p) }
		file, err := ingest.NewFile(cfg)
		if err != nil {
			return err
		}
		err = file.Run(ctx)
		finish()
		fmt.Fprintf(os.Stderr, "%s: %d rows, %d of them bad", cfg.Path, last.Rows, last.Invalid)
		if last.Invalid > 0 {
			fmt.Fprintf(os.Stderr, ": %s says why", file.InvalidPath())
		}
		fmt.Fprintln(os.Stderr)
		if err == nil && last.Rows > 0 && last.Invalid == last.Rows {
			err = fmt.Errorf("%s: every row is bad, nothing was ingested: see %s, and the contract of %s", cfg.Path, file.InvalidPath(), declared.Contract.Kind)
		}
		return err
	}
}

// progressBar shows how far a file has been read, on a terminal.
func progressBar(name string) (show func(ingest.Progress), finish func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(ingest.Progress) {}, func() {}
	}
	bars := mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(40))
	var rows, bad int64
	bar := bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(name+" ")),
		mpb.AppendDecorators(
			decor.Percentage(),
			decor.Any(func(decor.Statistics) string { return fmt.Sprintf("  %d rows, %d bad", rows, bad) }),
		))
	show = func(p ingest.Progress) {
		rows, bad = p.Rows, p.Invalid
		if p.Size > 0 {
			bar.SetTotal(p.Size, false)
			bar.SetCurrent(p.Read)
		}
	}
	return show, func() {
		bar.SetTotal(-1, true)
		bars.Wait()
	}
}
