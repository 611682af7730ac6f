// Package replay scores the stored events of a kind again. It proves that stored scores are what their model version computes, and compares two
// versions on the same events.
package replay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/explain"
	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Bound is an end of the range of events: a sequence in EVENTS, or a time of storage. Both zero: the stream's own.
type Bound struct {
	Seq  uint64
	Time time.Time
}

// ParseBound reads a sequence, or a time as RFC 3339 writes it.
func ParseBound(text string) (Bound, error) {
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil && seq > 0 {
		return Bound{Seq: seq}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return Bound{}, fmt.Errorf("%q: want a sequence of EVENTS, from 1, or a time such as 2026-01-31T12:00:00Z", text)
	}
	return Bound{Time: at}, nil
}

// Config of Run and AssertEqual.
type Config struct {
	JS       jetstream.JetStream
	Kind     string
	From, To Bound // events, both inclusive; a time To is exclusive

	Model   int  // version; for AssertEqual 0 is all of them
	Against int  // version to compare with; 0: none. Run only
	Publish bool // put what Model says of each event into RESCORES. Run only

	// Amount is the field of the event that says what it is worth; empty: the contract's only money. Run with Against only
	Amount string

	// Differences bounds how many are told in full. Default 20. AssertEqual only
	Differences int
	// Labels bounds how many labels are held. Beyond it, those of a share of the events, drawn by a hash of their ids. Default 1,000,000. Run only
	Labels int

	window uint64 // of AssertEqual, set by tests only

	// Progress is called now and then with what is being read and how far; nil: not at all.
	Progress func(what string, done, all uint64)
}

// Range of sequences in EVENTS, both inclusive; empty where Last < First.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// span is the range of events that is asked for, as EVENTS stands now.
func (cfg *Config) span(ctx context.Context) (Range, error) {
	stream := events.EventsStream(cfg.Kind)
	first, last, err := ends(ctx, cfg.JS, stream)
	if err != nil {
		return Range{}, err
	}
	r := Range{first, last}
	switch {
	case cfg.From.Seq > 0:
		r.First = max(r.First, cfg.From.Seq)
	case !cfg.From.Time.IsZero():
		if r.First, err = firstAt(ctx, cfg.JS, stream, last, cfg.From.Time); err != nil {
			return r, err
		}
	}
	switch {
	case cfg.To.Seq > 0:
		r.Last = min(r.Last, cfg.To.Seq)
	case !cfg.To.Time.IsZero():
		end, err := firstAt(ctx, cfg.JS, stream, last, cfg.To.Time)
		if err != nil {
			return r, err
		}
		r.Last = end - 1
	}
	return r, nil
}

// progress reports every 16,384th step.
func (cfg *Config) progress(what string, done, all uint64) {
	if cfg.Progress != nil && done%(1<<14) == 0 {
		cfg.Progress(what, done, all)
	}
}

// Counts of scores by what they would lead to.
type Counts struct {
	Low     uint64 `json:"low"`
	Medium  uint64 `json:"medium"`
	High    uint64 `json:"high"`
	Approve uint64 `json:"approve"`
	Review  uint64 `json:"review"`
	Decline uint64 `json:"decline"`
	None    uint64 `json:"none"`
}

// Summary of the scores of one version.
type Summary struct {
	Model     string  `json:"model"`
	MeanP     float64 `json:"mean_p"`
	MeanLogit float64 `json:"mean_logit"` // log-odds
	Counts    Counts  `json:"counts"`

	sumP, sumLogit float64
	distribution   distribution
}

// Report of Run. Events that were history are scored as if they had come live.
type Report struct {
	Kind      string        `json:"kind"`
	Contract  uint64        `json:"contract"` // revision in KINDS that events are read under: the one in force
	Events    Range         `json:"events"`
	Scored    uint64        `json:"scored"`
	History   uint64        `json:"history"`           // of Scored
	Invalid   *uint64       `json:"invalid,omitempty"` // nil where the contract declares a memory: it is not known
	Repeats   *uint64       `json:"repeats,omitempty"` // nil where it declares none: a repeat is scored as any event is
	Of        Summary       `json:"of"`
	Against   *Comparison   `json:"against,omitempty"`
	Published *Published    `json:"published,omitempty"`
	Elapsed   time.Duration `json:"elapsed_ns"`
}

// scored is what one version says of one event.
type scored struct {
	logit, p       float64
	points         int
	reasons        []events.Reason // valid until the version scores again
	band, decision int             // indices of bands and decisions
	mode           string
}

var (
	bands     = [...]string{events.BandLow, events.BandMedium, events.BandHigh}
	decisions = [...]string{events.Approve, events.Review, events.Decline, events.None}
)

func index(names []string, name string) int {
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return len(names) - 1
}

// side is one version, ready to score.
type side struct {
	predictor *model.Predictor
	scratch   model.Scratch
	summary   *Summary
	mode      string // members that this program cannot use are left out
}

func (s *side) score(c *events.Contract, rec *events.Record) scored {
	r := s.predictor.Score(rec, &s.scratch)
	band := c.Band(r.P)
	x := scored{r.Logit, r.P, r.Points, r.Reasons, index(bands[:], band), index(decisions[:], c.Decide(s.mode, band)), s.mode}
	n := &s.summary.Counts
	*[...]*uint64{&n.Low, &n.Medium, &n.High}[x.band]++
	*[...]*uint64{&n.Approve, &n.Review, &n.Decline, &n.None}[x.decision]++
	s.summary.sumP += x.p
	s.summary.sumLogit += x.logit
	s.summary.distribution.add(x.logit)
	return x
}

func (s *Summary) finish(n uint64) {
	if n > 0 {
		s.MeanP, s.MeanLogit = s.sumP/float64(n), s.sumLogit/float64(n)
	}
}

func (cfg *Config) side(ctx context.Context, schema *events.Schema, version int) (*side, error) {
	name := model.Name(cfg.Kind, version)
	p, err := explain.Predictor(ctx, cfg.JS, name, schema)
	if err != nil {
		return nil, err
	}
	return &side{predictor: p, summary: &Summary{Model: name}, mode: events.ModeModel + p.Out()}, nil
}

// Run scores the events with a version, and with another if there is one to compare with.
//
// It holds one event, the memory that the contract declares and, to compare, at most Labels labels and as many pairs of scores: some 125 bytes a label. To publish, it holds 900 scores.
func Run(ctx context.Context, cfg Config) (Report, error) {
	r, err := run(ctx, cfg)
	if err != nil {
		return Report{}, fmt.Errorf("replay %s: %w", cfg.Kind, err)
	}
	return r, nil
}

func run(ctx context.Context, cfg Config) (Report, error) {
	began := time.Now()
	if cfg.Model == 0 {
		return Report{}, errors.New("say which version")
	}
	kind, err := topology.ReadKind(ctx, cfg.JS, cfg.Kind)
	if err != nil {
		return Report{}, err
	}
	schema, err := events.Compile(kind.Contract)
	if err != nil {
		return Report{}, err
	}
	report := Report{Kind: cfg.Kind, Contract: kind.Revision}
	if report.Events, err = cfg.span(ctx); err != nil {
		return report, err
	}
	one, err := cfg.side(ctx, schema, cfg.Model)
	if err != nil {
		return report, err
	}
	var two *comparing
	if cfg.Against != 0 {
		if two, err = cfg.compareWith(ctx, schema); err != nil {
			return report, err
		}
	}
	var publish *publishing
	if cfg.Publish {
		if publish, err = cfg.publishTo(ctx, one.summary.Model, kind.Revision, report.Events); err != nil {
			return report, err
		}
	}
	var invalid, repeats uint64
	if schema.Contract.Memory == nil {
		report.Invalid = &invalid
	} else {
		report.Repeats = &repeats
	}
	all := report.Events.Last - report.Events.First + 1
	err = pass(ctx, cfg.JS, schema, report.Events.First, report.Events.Last, func(uint64) { invalid++ }, func(e event) error {
		cfg.progress("events", e.seq-report.Events.First+1, all)
		if e.repeats != 0 {
			repeats++
			return nil
		}
		report.Scored++
		if e.history {
			report.History++
		}
		x := one.score(&schema.Contract, e.record)
		if two != nil {
			two.add(x, &schema.Contract, e)
		}
		if publish != nil {
			return publish.add(ctx, e, x)
		}
		return nil
	})
	if err != nil {
		return report, err
	}
	if publish != nil {
		if report.Published, err = publish.finish(ctx, report.Events.Last); err != nil {
			return report, err
		}
	}
	one.summary.finish(report.Scored)
	report.Of = *one.summary
	if two != nil {
		if report.Against, err = two.finish(report.Scored); err != nil {
			return report, err
		}
	}
	report.Elapsed = time.Since(began)
	return report, nil
}
