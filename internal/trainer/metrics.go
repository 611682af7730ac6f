package trainer

import "github.com/prometheus/client_golang/prometheus"

// measure is one figure of a kind.
type measure struct {
	name    string
	help    string
	counter bool // else a gauge
	of      func(s *kindSnapshot) int
}

// kindSnapshot is a kind's figures at one moment.
type kindSnapshot struct {
	join        joinStats
	counts      kindCounts
	held, early int
	told        int
}

var measures = []measure{
	{"events", "Events taken as possible training data.", true, func(s *kindSnapshot) int { return s.join.events }},
	{"labels", "Labels taken.", true, func(s *kindSnapshot) int { return s.join.labels }},
	{"events_invalid", "Events left out because they break the contract.", true, func(s *kindSnapshot) int { return s.counts.invalid }},
	{"events_probe", "Events left out because they are the monitor's.", true, func(s *kindSnapshot) int { return s.counts.probes }},
	{"events_duplicate", "Events left out because an event before has their id.", true, func(s *kindSnapshot) int { return s.join.duplicate }},
	{"labels_invalid", "Labels that cannot be read.", true, func(s *kindSnapshot) int { return s.counts.badLabels }},
	{"labels_unmatched", "Labels of events that are not held any more.", true, func(s *kindSnapshot) int { return s.join.unmatched }},
	{"labels_told", "Changes of labels that the log has been told, by whichever trainer.", true, func(s *kindSnapshot) int { return s.told }},
	{"known_invalid", "Messages that tell the log of labels, and cannot be read.", true, func(s *kindSnapshot) int { return s.counts.badKnown }},
	{"events_mute", "Labelled events of which memory is not told: their keys are too long.", true, func(s *kindSnapshot) int { return s.counts.mute }},
	{"dropped", "Events and early labels let go for want of room.", true, func(s *kindSnapshot) int { return s.join.dropped }},
	{"rows", "Events held.", false, func(s *kindSnapshot) int { return s.held }},
	{"labels_early", "Labels held whose event has not come.", false, func(s *kindSnapshot) int { return s.early }},
}

func (k *kind) snapshot() kindSnapshot {
	k.mu.Lock()
	defer k.mu.Unlock()
	return kindSnapshot{join: k.join.stats, counts: k.counts, held: len(k.join.rows), early: len(k.join.early), told: k.join.telling.told}
}

// Counters are for the heartbeat: figures of all kinds together. Those of kinds count since their streams were last
// read from the beginning.
func (t *Trainer) Counters() map[string]float64 {
	c := map[string]float64{
		"models":   float64(t.models.Load()),
		"promoted": float64(t.promoted.Load()),
		"refused":  float64(t.refused.Load()),
		"leads":    leadsValue(t.Leads()),
	}
	for _, k := range t.sortedKinds() {
		s := k.snapshot()
		for _, m := range measures {
			c[m.name] += float64(m.of(&s))
		}
	}
	return c
}

func leadsValue(leads bool) float64 {
	if leads {
		return 1
	}
	return 0
}

// collector gives the same figures to Prometheus, those of kinds by kind.
type collector struct{ t *Trainer }

const metricPrefix = "riskweir_trainer_"

// Describe sends nothing: the kinds are not known beforehand.
func (c collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(out chan<- prometheus.Metric) {
	send := func(name, help string, kind prometheus.ValueType, v float64, labels []string, values ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(metricPrefix+name, help, labels, nil), kind, v, values...)
	}
	send("models_total", "Versions published by this trainer.", prometheus.CounterValue, float64(c.t.models.Load()), nil)
	send("promotions_total", "Versions promoted by this trainer.", prometheus.CounterValue, float64(c.t.promoted.Load()), nil)
	send("refusals_total", "Models fitted but stopped by the gate.", prometheus.CounterValue, float64(c.t.refused.Load()), nil)
	send("leads", "1 while this trainer leads.", prometheus.GaugeValue, leadsValue(c.t.Leads()), nil)
	for _, k := range c.t.sortedKinds() {
		s := k.snapshot()
		for _, m := range measures {
			name, kind := m.name, prometheus.GaugeValue
			if m.counter {
				name, kind = name+"_total", prometheus.CounterValue
			}
			send(name, m.help, kind, float64(m.of(&s)), []string{"kind"}, k.name)
		}
	}
}
