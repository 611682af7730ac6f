package ingest

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of an item.
const (
	resultAccepted    = "accepted"
	resultDuplicate   = "duplicate"
	resultRefused     = "refused"      // the item is at fault
	resultNotAccepted = "not_accepted" // the broker did not take it, or did not say so
)

// Ends of a request for a score.
const (
	endScored      = "scored"
	endInvalid     = "invalid"
	endRepeat      = "repeat"
	endConflict    = "conflict"
	endLate        = "late"
	endNotAccepted = "not_accepted"
	endRefused     = "refused"
)

// metrics of the HTTP side. Kinds are those declared: a closed set.
type metrics struct {
	events   *prometheus.CounterVec // kind, result
	labels   *prometheus.CounterVec
	scores   *prometheus.CounterVec // kind, end
	requests *prometheus.HistogramVec
}

func newMetrics(to prometheus.Registerer) (metrics, error) {
	m := metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_ingest_events_total", Help: "Events over HTTP, by what became of them."}, []string{"kind", "result"}),
		labels: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_ingest_labels_total", Help: "Labels over HTTP, by what became of them."}, []string{"kind", "result"}),
		scores: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "riskweir_ingest_scores_total", Help: "Requests for a score, by how they ended."}, []string{"kind", "end"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "riskweir_ingest_request_seconds", Help: "Time to the answer of a request.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30}}, []string{"endpoint", "status"}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.events, m.labels, m.scores, m.requests} {
		errs = append(errs, to.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return metrics{}, fmt.Errorf("ingest: register metrics: %w", err)
	}
	return m, nil
}

// class of a status: the set of labels stays small.
func class(status int) string {
	switch {
	case status < 300:
		return "2xx"
	case status < 500:
		return "4xx"
	}
	return "5xx"
}
