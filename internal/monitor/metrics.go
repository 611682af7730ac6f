package monitor

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/riskweir/riskweir/pkg/events"
)

// collector shows the latest Status. Labels are those of declared kinds and their lanes, so that what is gone does not linger.
type collector struct {
	status func() (Status, bool)
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("riskweir_"+name, help, labels, nil)
}

var (
	descPending  = desc("lane_pending_events", "Events of the lane without an outcome.", "kind", "lane")
	descAge      = desc("lane_oldest_pending_age_seconds", "Age of the lane's oldest event without an outcome; 0: there is none.", "kind", "lane")
	descStalled  = desc("lane_stalled", "1: events wait and the position does not move, or the lane is halted.", "kind", "lane")
	descPosition = desc("lane_position", "Sequence of the lane's last event with an outcome.", "kind", "lane")
	descSeen     = desc("kind_seen", "1: the kind's streams answered at the last look.", "kind")
	descFiring   = desc("alerts_firing", "Incidents that are open.", "severity")
	descLeads    = desc("monitor_leads", "1: this monitor publishes alerts.")
	descLook     = desc("monitor_last_look_timestamp_seconds", "When the monitor last looked at everything.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPending, descAge, descStalled, descPosition, descSeen, descFiring, descLeads, descLook} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	s, ok := c.status()
	if !ok {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, k := range s.Kinds {
		gauge(descSeen, one(k.Error == ""), k.Kind)
		for _, l := range k.Lanes {
			lane := strconv.Itoa(l.Lane)
			gauge(descPending, float64(l.Pending), k.Kind, lane)
			gauge(descAge, l.AgeMS/1000, k.Kind, lane)
			gauge(descStalled, one(l.State == Stalled || l.State == Halted), k.Kind, lane)
			gauge(descPosition, float64(l.Position), k.Kind, lane)
		}
	}
	firing := map[string]int{events.Page: 0, events.Ticket: 0}
	for _, a := range s.Alerts {
		firing[a.Severity]++
	}
	for severity, n := range firing {
		gauge(descFiring, float64(n), severity)
	}
	gauge(descLeads, one(s.Leads))
	gauge(descLook, float64(s.At.UnixMilli())/float64(time.Second/time.Millisecond))
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
