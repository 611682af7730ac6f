package scorer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

type metrics struct {
	scored    *prometheus.CounterVec
	commits   *prometheus.CounterVec
	unknown   *prometheus.CounterVec
	panics    *prometheus.CounterVec
	repeats   *prometheus.CounterVec
	slow      *prometheus.CounterVec
	runsEnded *prometheus.CounterVec
	refused   *prometheus.CounterVec
	owned     prometheus.Gauge
	latency   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		scored:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_outcomes_total", Help: "Outcomes committed."}, []string{"kind"}),
		commits:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_commits_total", Help: "Batches of outcomes committed."}, []string{"kind"}),
		unknown:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_unknown_fields_total", Help: "Event fields that the contract does not name."}, []string{"kind"}),
		panics:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_panics_total", Help: "Events that ended as invalid because scoring them panicked."}, []string{"kind"}),
		repeats:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_repeats_total", Help: "Events with the id of an earlier one, with its content (repeat) or another (conflict)."}, []string{"kind", "band"}),
		slow:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_slow_members_total", Help: "Times a member of a model was switched off because it held a batch up."}, []string{"kind"}),
		runsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_restarts_total", Help: "Times a lane began again from its stored position."}, []string{"kind"}),
		refused:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_scorer_models_refused_total", Help: "Rollout revisions not taken: untrusted (what they name is not what a trusted key signed) or unfit (all else)."}, []string{"kind", "why"}),
		owned:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "riskweir_scorer_lanes", Help: "Lanes that this scorer runs."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "riskweir_scorer_latency_seconds", Help: "From event stored to outcome committed, by this machine's clock.",
			Buckets: []float64{.001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	r.MustRegister(m.scored, m.commits, m.unknown, m.panics, m.repeats, m.slow, m.runsEnded, m.refused, m.owned, m.latency)
	return m
}

func (m metrics) unknownFields(kind string, n int) { m.unknown.WithLabelValues(kind).Add(float64(n)) }

func laneName(kind string, n int) string { return fmt.Sprintf("%s/%d", kind, n) }

func (s *Scorer) committed(kind string, _ int, batch []lane.Event, at time.Time) {
	s.metrics.scored.WithLabelValues(kind).Add(float64(len(batch)))
	s.metrics.commits.WithLabelValues(kind).Inc()
	for i := range batch {
		d := at.Sub(batch[i].Stored)
		s.latency.Observe(d)
		s.metrics.latency.Observe(d.Seconds())
	}
	s.mu.Lock()
	s.outcomes += float64(len(batch))
	s.mu.Unlock()
}

func (s *Scorer) phase(kind string, n int, p lane.Phase) {
	name := laneName(kind, n)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == lane.Idle {
		delete(s.lanes, name)
	} else {
		s.lanes[name] = p
	}
	if p == lane.Running {
		delete(s.unlucky, name)
	}
	s.metrics.owned.Set(float64(len(s.lanes)))
}

// note: that a lane begins again is ordinary at a fault, and by itself never harmful.
func (s *Scorer) note(kind string, n int, what string) {
	if n >= 0 {
		s.metrics.runsEnded.WithLabelValues(kind).Inc()
	}
	s.cfg.Log.Info("lane", zap.String("kind", kind), zap.Int("lane", n), zap.String("note", what))
}

func (s *Scorer) halted(kind string, n int, cause string) {
	s.mu.Lock()
	known := s.unlucky[laneName(kind, n)] == cause
	s.unlucky[laneName(kind, n)] = cause
	s.mu.Unlock()
	if !known {
		s.cfg.Log.Error("lane halted", zap.String("kind", kind), zap.Int("lane", n), zap.String("cause", cause))
	}
}

func (s *Scorer) panicked(kind string, seq uint64, what any) {
	s.metrics.panics.WithLabelValues(kind).Inc()
	s.cfg.Log.Error("scoring panicked: the event ends as invalid", zap.String("kind", kind), zap.Uint64("seq", seq), zap.Any("panic", what), zap.Stack("stack"))
}

func (s *Scorer) slow(kind, member string, for_ time.Duration) {
	s.metrics.slow.WithLabelValues(kind).Inc()
	s.cfg.Log.Error("a member holds scoring up: it is switched off", zap.String("kind", kind), zap.String("member", member), zap.Duration("for", for_))
}

// repeated is told again if the commit fails.
func (s *Scorer) repeated(r *events.Repeat) {
	s.metrics.repeats.WithLabelValues(r.Kind, r.Band()).Inc()
	if r.Conflict {
		s.cfg.Log.Warn("one id, two contents: the later event is not scored", zap.String("kind", r.Kind), zap.String("id", r.ID), zap.Uint64("seq", r.Seq), zap.Uint64("first_seq", r.First))
	}
}

func (s *Scorer) modelEvent(e model.Event) {
	if e.Err == nil {
		s.mu.Lock()
		delete(s.refused, e.Kind)
		s.mu.Unlock()
		s.cfg.Log.Info("model in force", zap.String("kind", e.Kind), zap.String("model", e.Live.Name), zap.Uint64("revision", e.Revision))
		return
	}
	if errors.Is(e.Err, model.ErrRefused) {
		r := events.RefusedModel{Revision: e.Revision, Untrusted: errors.Is(e.Err, model.ErrUntrusted), Why: e.Err.Error()}
		if e.Version != 0 {
			r.Model = model.Name(e.Kind, e.Version)
		}
		why := "unfit"
		if r.Untrusted {
			why = "untrusted"
		}
		s.metrics.refused.WithLabelValues(e.Kind, why).Inc()
		s.mu.Lock()
		s.refused[e.Kind] = r
		s.mu.Unlock()
	}
	s.cfg.Log.Error("model not taken", zap.String("kind", e.Kind), zap.Uint64("revision", e.Revision), zap.Error(e.Err))
}

// refusedLists is how a refused override list is told of among refused models.
func refusedLists(kind string) string { return kind + "/overrides" }

func (s *Scorer) listEvent(kind string, revision uint64, entries int, err error) {
	if kind == "" {
		s.cfg.Log.Warn("override lists", zap.Error(err))
		return
	}
	if err == nil {
		s.mu.Lock()
		delete(s.refused, refusedLists(kind))
		s.mu.Unlock()
		s.cfg.Log.Info("override list in force", zap.String("kind", kind), zap.Uint64("revision", revision), zap.Int("entries", entries))
		return
	}
	why := "unfit"
	if errors.Is(err, model.ErrUntrusted) {
		why = "untrusted"
	}
	s.metrics.refused.WithLabelValues(kind, why).Inc()
	s.mu.Lock()
	s.refused[refusedLists(kind)] = events.RefusedModel{Model: model.OverridesKey(kind), Revision: revision, Untrusted: why == "untrusted", Why: err.Error()}
	s.mu.Unlock()
	s.cfg.Log.Error("override list not taken: the one before holds", zap.String("kind", kind), zap.Uint64("revision", revision), zap.Error(err))
}

func (s *Scorer) beat(h *events.Heartbeat) {
	h.Latency = s.latency.Buckets()
	s.mu.Lock()
	defer s.mu.Unlock()
	h.Counters = map[string]float64{"outcomes": s.outcomes, "halted": float64(len(s.unlucky))}
	h.Model, h.Refused = map[string]string{}, maps.Clone(s.refused)
	if s.catalog != nil {
		for _, kind := range s.catalog.Names() {
			if live := s.watcher.Live(kind); live != nil {
				h.Model[kind] = live.Name
			}
		}
	}
	if s.panel != nil {
		h.Missing = s.panel.missing()
	}
	for name, p := range s.lanes {
		if p != lane.Halted {
			h.Lanes = append(h.Lanes, name)
		}
	}
	slices.Sort(h.Lanes)
}
