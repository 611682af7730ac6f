package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/verify"
)

// Config of Run.
type Config struct {
	System System
	Conn   *nats.Conn // of an operator
	Load   *Load
	Kind   string
	Steps  []Step
	Cables Cables
	Length time.Duration // of the load; 0: until the last step is over
	Seed   uint64        // that the steps were drawn from, for the report

	Note func(format string, a ...any) // progress; nil: none
}

const (
	recovery   = 90 * time.Second // for the nodes to catch up after a fault; else that is a broken promise
	drain      = 3 * time.Minute  // for the lanes, at the end
	leastPause = 250 * time.Millisecond
	lookEvery  = 2 * time.Second
)

// Occurrence is one fault as it happened.
type Occurrence struct {
	Fault    string    `json:"fault"`
	Target   string    `json:"target"`
	Injected time.Time `json:"injected"` // when it began to be done
	Mended   time.Time `json:"mended"`   // when that was over; where nothing is to be mended, when it was done
	Until    time.Time `json:"until"`    // what happened up to then is put down to it
	Trouble  string    `json:"trouble,omitempty"`

	Events         uint64  `json:"events"` // acknowledged from Injected to Until
	LongestPauseMS float64 `json:"longest_pause_ms"`
	RecoverMS      float64 `json:"recover_ms"`
	Lane           *int    `json:"lane,omitempty"`  // of the event that had to end as invalid, if there was one
	OthersPauseMS  float64 `json:"others_pause_ms"` // the longest of the other lanes; without Lane of all
	Missing        uint64  `json:"missing"`         // of those that verify names
	Duplicate      uint64  `json:"duplicate"`
	Disorder       uint64  `json:"disorder"`
}

// Run loads the system, takes the steps, and judges. The error says that it could not be done; what was broken stands in the report.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if cfg.Note == nil {
		cfg.Note = func(string, ...any) {}
	}
	js, err := jetstream.New(cfg.Conn)
	if err != nil {
		return Report{}, err
	}
	r := &runner{Config: cfg, env: &env{System: cfg.System, conn: cfg.Conn, js: js, kind: cfg.Kind, cables: cfg.Cables}}
	if err := until(ctx, recovery, cfg.System.Healthy); err != nil {
		return Report{}, fmt.Errorf("the system did not come up: %w", err)
	}
	loading, stop := context.WithCancel(ctx)
	defer stop()
	loaded := make(chan error, 1)
	go func() { loaded <- cfg.Load.Run(loading) }()
	watched := make(chan struct{})
	go func() { defer close(watched); r.watch(loading) }()
	r.began = time.Now()
	r.take(ctx)
	stop()
	r.ended = time.Now()
	cfg.Note("%6s  waiting for the last acknowledgements", r.clock())
	err = <-loaded
	<-watched
	if err = errors.Join(ctx.Err(), err); err != nil {
		return Report{}, err
	}
	return r.judge(ctx)
}

type runner struct {
	Config
	env          *env
	began, ended time.Time
	happened     []Occurrence
	broken       []string

	rss, disk int64 // most seen; owned by watch until it has ended
}

func (r *runner) clock() time.Duration { return time.Since(r.began).Round(100 * time.Millisecond) }

// take takes the steps, none before its time. A step that takes longer than planned puts the others off.
func (r *runner) take(ctx context.Context) {
	all := catalogue()
	for _, s := range r.Steps {
		i := slices.IndexFunc(all, func(f fault) bool { return f.Name == s.Fault })
		if i < 0 {
			r.broken = append(r.broken, fmt.Sprintf("no fault %q", s.Fault))
			continue
		}
		if r.Length > 0 && time.Since(r.began) > r.Length {
			r.Note("%6s  the time is up", r.clock())
			break
		}
		pause(ctx, time.Until(r.began.Add(s.At)))
		if ctx.Err() != nil {
			return
		}
		o := r.step(ctx, all[i], s)
		if n := len(r.happened); n > 0 {
			r.happened[n-1].Until = o.Injected
		}
		r.happened = append(r.happened, o)
	}
	if r.Length > 0 {
		pause(ctx, time.Until(r.began.Add(r.Length)))
	}
	if n := len(r.happened); n > 0 {
		r.happened[n-1].Until = time.Now()
	}
}

func (r *runner) step(ctx context.Context, f fault, s Step) Occurrence {
	o := Occurrence{Fault: f.Name, Injected: time.Now()}
	before := r.Load.acks.Count()
	trouble := func(what string, err error) {
		if err == nil || ctx.Err() != nil {
			return
		}
		o.Trouble = what + ": " + err.Error()
		r.broken = append(r.broken, fmt.Sprintf("%s %s: %s", f.Name, o.Target, o.Trouble))
		r.Note("%6s  %-22s %s", r.clock(), f.Name, o.Trouble)
	}
	r.env.lane = nil
	target, mend, err := f.inject(ctx, r.env, s.Choice)
	o.Target, o.Lane = target, r.env.lane
	trouble("inject", err)
	r.Note("%6s  %-22s %s", r.clock(), f.Name, target)
	if err == nil {
		pause(ctx, s.Hold)
	}
	if mend != nil {
		trouble("mend", mend(ctx))
	}
	o.Mended = time.Now()
	trouble("nodes have not caught up", until(ctx, recovery, r.System.Healthy))
	pause(ctx, f.Quiet)
	o.Events = r.Load.acks.Count() - before
	return o
}

// watch samples what the system takes.
func (r *runner) watch(ctx context.Context) {
	for ctx.Err() == nil {
		rss, disk := r.System.Usage()
		r.rss, r.disk = max(r.rss, rss), max(r.disk, disk)
		pause(ctx, lookEvery)
	}
}

// judge waits for the lanes, verifies, and compares what was acknowledged.
func (r *runner) judge(ctx context.Context) (Report, error) {
	if err := until(ctx, recovery, r.System.Healthy); err != nil {
		r.broken = append(r.broken, "at the end: "+err.Error())
	}
	r.Note("%6s  draining, then verifying", r.clock())
	checked, err := verify.Run(ctx, verify.Config{JS: r.env.js, Kind: r.Kind, Wait: drain})
	if err != nil {
		return Report{}, err
	}
	r.Note("%6s  %s", r.clock(), checked)
	stored, h, err := audit(ctx, r.env.js, r.Kind, r.Load, leastPause)
	if err != nil {
		return Report{}, err
	}
	return r.report(checked, stored, h), nil
}
