package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/pkg/events"
)

// Contracts knows the declared kinds; a jetstream.Catalog does.
type Contracts interface {
	// Schema of a kind, and the revision of its contract in KINDS.
	Schema(kind string) (*events.Schema, uint64, bool)
	// Names of the declared kinds, sorted.
	Names() []string
}

// ServerConfig of the HTTP side. Zero durations take the defaults.
type ServerConfig struct {
	Conn      *nats.Conn
	Listener  net.Listener // Run closes it
	Contracts Contracts
	Log       *zap.Logger
	Metrics   prometheus.Registerer

	// Callers are let in, each to what it may do; one of Callers and Open is given. Run does not run it.
	Callers *access.Book
	Open    bool        // everybody who reaches the listener may do everything
	TLS     *tls.Config // nil: none

	EntityKey []byte // for kinds whose contract has entity_hash; nil: they are not taken

	Rate       float64       // events and labels a second, of each caller that has none of its own; DefaultRate. Negative: no limit
	AckTimeout time.Duration // until an event is called not accepted; 5 s
	Deadline   time.Duration // of POST /v1/score without one; 1 s
	Grace      time.Duration // for requests under way when Run is to end; 3 s
}

// Limits of a request. A peer that is slow or sends much costs a connection, not the service.
const (
	MaxBody      = 8 << 20
	MaxItems     = 10_000
	MaxDeadline  = 30 * time.Second
	maxLabel     = 60 << 10 // LABELS takes 64 KiB with headers
	maxHeaders   = 32 << 10
	maxInFlight  = 256 << 20 // bytes of bodies held at once
	maxPending   = 16_384    // events on their way to the broker
	headerWithin = 5 * time.Second
	bodyWithin   = 30 * time.Second
	idleWithin   = 2 * time.Minute
)

// publisher is a JetStream, or one that loses answers.
type publisher interface {
	PublishMsgAsync(msg *nats.Msg, opts ...natsjs.PublishOpt) (natsjs.PubAckFuture, error)
}

// Server takes events and labels in over HTTP:
//
//	POST /v1/events/{kind}                   one or many; answers when the broker has them
//	POST /v1/labels/{kind}                   likewise
//	POST /v1/score/{kind}?deadline=150ms     one event; answers with its committed score, or in time without it
//
// A body is a JSON object or an array of them (application/json), JSON lines (application/x-ndjson), or a msgpack
// map or an array of them (application/msgpack). Whom an event is about stands in the contract's entity field, in ?entity= or
// in the header Riskweir-Entity; else the event's id is its entity.
//
//	202  all are stored                       400  none is: the body, or every item, is at fault
//	200  some are, the others are at fault    404  the kind is not declared
//	503  some or all were not accepted by the broker; send those again
//	401  nobody is known by that token or certificate; 403 it may not do that; 429 too often: Retry-After says when
type Server struct {
	cfg     ServerConfig
	js      publisher
	client  *events.Client // looks for outcomes that the view did not show
	view    view
	metrics metrics
	guard   *guard

	records  sync.Pool // of *events.Record
	held     atomic.Int64
	handlers sync.WaitGroup
}

// NewServer checks cfg and registers metrics. It does no I/O.
func NewServer(cfg ServerConfig) (*Server, error) {
	if (cfg.Callers == nil) != cfg.Open {
		return nil, errors.New("ingest: callers, or that it is open to everybody, must be said")
	}
	if cfg.Conn == nil || cfg.Listener == nil || cfg.Contracts == nil || cfg.Log == nil || cfg.Metrics == nil {
		return nil, errors.New("ingest: a connection, a listener, contracts, a logger and metrics are needed")
	}
	for _, d := range []struct {
		v  *time.Duration
		by time.Duration
	}{{&cfg.AckTimeout, 5 * time.Second}, {&cfg.Deadline, time.Second}, {&cfg.Grace, 3 * time.Second}} {
		if *d.v == 0 {
			*d.v = d.by
		}
	}
	js, err := natsjs.New(cfg.Conn, natsjs.WithPublishAsyncTimeout(cfg.AckTimeout), natsjs.WithPublishAsyncMaxPending(maxPending))
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	client, err := events.NewClient(cfg.Conn)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	if cfg.Rate == 0 {
		cfg.Rate = DefaultRate
	}
	s := &Server{cfg: cfg, js: js, client: client, view: newView(cfg.Conn), guard: newGuard(cfg.Callers, max(cfg.Rate, 0))}
	s.records.New = func() any { return new(events.Record) }
	if s.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves until ctx ends; then it takes no more requests, answers those under way, and after the
// grace gives them up. It returns when none is left. What nats.go keeps for acks ends with the connection: its
// CleanupPublisher, called before its own goroutine has run, leaves that behind for ever (nats.go 1.55, publish.go).
func (s *Server) Run(ctx context.Context) error {
	// Requests outlive ctx by the grace.
	requests, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	server := &http.Server{
		Handler:           harden(s.routes()),
		ReadHeaderTimeout: headerWithin,
		ReadTimeout:       bodyWithin,
		WriteTimeout:      bodyWithin + MaxDeadline + s.cfg.AckTimeout,
		IdleTimeout:       idleWithin,
		MaxHeaderBytes:    maxHeaders,
		ErrorLog:          zap.NewStdLog(s.cfg.Log.WithOptions(zap.IncreaseLevel(zap.WarnLevel))),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	served := make(chan error, 1)
	var listener net.Listener = newNarrow(s.cfg.Listener, maxConns)
	if s.cfg.TLS != nil {
		listener = tls.NewListener(listener, s.cfg.TLS)
	}
	go func() { served <- server.Serve(listener) }()
	defer s.view.close()
	select {
	case err := <-served:
		giveUp()
		server.Close()
		s.handlers.Wait()
		return fmt.Errorf("serve http on %s: %w", s.cfg.Listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(requests, s.cfg.Grace)
	defer cancel()
	err := server.Shutdown(grace)
	giveUp()
	server.Close()
	<-served
	s.handlers.Wait()
	if err != nil {
		return fmt.Errorf("stop http: requests were given up after %s: %w", s.cfg.Grace, err)
	}
	return nil
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/events/{kind}", s.handle("events", access.Publish, s.acceptEvents))
	mux.Handle("POST /v1/labels/{kind}", s.handle("labels", access.Label, s.acceptLabels))
	mux.Handle("POST /v1/score/{kind}", s.handle("score", access.Score, s.score))
	return mux
}

// request is one that names a declared kind.
type request struct {
	*http.Request
	started  time.Time
	caller   access.Caller
	kind     string
	schema   *events.Schema
	revision uint64 // of the contract
}

// handle does what all endpoints have in common. What it is given returns the answer.
func (s *Server) handle(endpoint, what string, serve func(http.ResponseWriter, *request) answer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.Add(1)
		defer s.handlers.Done()
		q := &request{Request: r, started: time.Now(), kind: r.PathValue("kind")}
		var ok bool
		var a answer
		var refused *answer
		if q.caller, refused = s.guard.admit(r, what, q.kind); refused != nil {
			a = *refused
		} else if q.schema, q.revision, ok = s.cfg.Contracts.Schema(q.kind); !ok {
			a = s.undeclared(q.kind)
		} else {
			a = serve(w, q)
		}
		a.write(w)
		s.metrics.requests.WithLabelValues(endpoint, class(a.status)).Observe(time.Since(q.started).Seconds())
	})
}

func (s *Server) undeclared(kind string) answer {
	names := s.cfg.Contracts.Names()
	a := refuse(http.StatusNotFound, "", fmt.Sprintf("kind %q is not declared; declare it with riskweir kind apply", clip(kind)))
	a.body.Kinds = &names
	return a
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
