package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// NewRegistry has the process and runtime collectors; each process has one, made in main.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Admin serves what an operator and a scheduler ask of any process.
type Admin struct {
	Listen  string // host:port; empty: none
	Metrics prometheus.Gatherer
	Ready   func() error // why the process can't do its work now; nil: it can
	Pprof   bool
	// Anywhere allows an address that other machines reach. Metrics tell of kinds, counts and times, and never of an entity.
	Anywhere bool
	Extra    map[string]http.Handler // by pattern
	OnBound  func(addr string)
}

// Run serves until ctx ends. /healthz says that the process lives, also while NATS is away: a scheduler that kills
// it for that would only make the outage longer. /readyz says whether it can do its work.
func (a Admin) Run(ctx context.Context) error {
	if a.Listen == "" {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if a.Ready != nil {
			if err := a.Ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	if a.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	for pattern, h := range a.Extra {
		mux.Handle(pattern, h)
	}
	if !Loopback(a.Listen) {
		if !a.Anywhere {
			return fmt.Errorf("admin address %s can be reached from other machines, and asks nobody who they are: listen on 127.0.0.1, or say --admin-anywhere if the network keeps strangers away", a.Listen)
		}
		if a.Pprof {
			return fmt.Errorf("admin address %s: pprof shows memory, and is served on the loopback interface only", a.Listen)
		}
		return ServeHTTP(ctx, a.Listen, mux, a.OnBound)
	}
	return ServeHTTP(ctx, a.Listen, fromHere(mux), a.OnBound)
}

// Loopback says whether only this machine can reach an address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// fromHere refuses what a page in a browser of this machine asks for under a name of its own that leads here.
func fromHere(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if !Loopback(net.JoinHostPort(strings.Trim(host, "[]"), "0")) {
			http.Error(w, "ask for this by its address", http.StatusForbidden)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}

// ServeHTTP serves h until ctx ends, then lets requests that are under way finish for two seconds.
func ServeHTTP(ctx context.Context, listen string, h http.Handler, onBound func(addr string)) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	if onBound != nil {
		onBound(l.Addr().String())
	}
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("http %s: %w", listen, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err = srv.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-served
	return err
}
