package monitor

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

const (
	aliveFor      = 3500 * time.Millisecond // without a heartbeat; they come once a second
	forgetAfter   = 10 * time.Minute        // of silence
	latencyWindow = 10 * time.Second
	maxRefused    = 64   // likewise
	maxMissing    = 64   // likewise
	maxServices   = 4096 // heartbeats are open to every service: a flood of instances must not fill memory
)

// beats keeps what the services say of themselves. It is pure: times are handed in.
type beats struct {
	last map[string]*pulse // by service/instance
	gone histogram         // of scorers forgotten
}

type pulse struct {
	beat  events.Heartbeat
	heard time.Time
	past  []snapshot // of the latency, rising; the first is latencyWindow old or the oldest there is
}

type snapshot struct {
	at   time.Time
	hist histogram
}

// histogram counts by microseconds, as events.LatencyBucket.
type histogram map[int64]int64

func (h histogram) add(o histogram, sign int64) {
	for us, n := range o {
		h[us] += sign * n
	}
}

func newBeats() *beats { return &beats{last: map[string]*pulse{}, gone: histogram{}} }

func (b *beats) heard(h events.Heartbeat, now time.Time) {
	key := h.Service + "/" + h.Instance
	p := b.last[key]
	if p == nil {
		if len(b.last) >= maxServices {
			return
		}
		p = &pulse{}
		b.last[key] = p
	}
	p.beat, p.heard = h, now
	hist := histogram{}
	for _, l := range h.Latency {
		hist[l.Micros] += l.Count
	}
	p.past = append(p.past, snapshot{now, hist})
	for len(p.past) > 2 && now.Sub(p.past[1].at) >= latencyWindow {
		p.past = p.past[1:]
	}
}

// forget drops what has been silent for long.
func (b *beats) forget(now time.Time) {
	for key, p := range b.last {
		if now.Sub(p.heard) > forgetAfter {
			b.gone.add(p.past[len(p.past)-1].hist, 1)
			delete(b.last, key)
		}
	}
}

// services in the order of their names.
func (b *beats) services(now time.Time) []ServiceStatus {
	out := make([]ServiceStatus, 0, len(b.last))
	for _, p := range b.last {
		h := p.beat
		h.Latency = nil // merged in latency; too long to repeat
		silent := now.Sub(p.heard)
		out = append(out, ServiceStatus{Heartbeat: h, Alive: silent < aliveFor, SilentMS: ms(silent)})
	}
	slices.SortFunc(out, func(a, b ServiceStatus) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Instance, b.Instance)
	})
	return out
}

// beating are the instances of a service whose heart beats.
func (b *beats) beating(service string, now time.Time) []string {
	var out []string
	for _, p := range b.last {
		if p.beat.Service == service && now.Sub(p.heard) < aliveFor {
			out = append(out, p.beat.Instance)
		}
	}
	slices.Sort(out)
	return out
}

// name of an instance as its operator gave it.
func (b *beats) name(service, instance string) string {
	if p := b.last[service+"/"+instance]; p != nil && p.beat.Name != "" {
		return p.beat.Name
	}
	return instance
}

// models in force for a kind at the services that are alive.
func (b *beats) models(kind string, now time.Time) []string {
	seen := map[string]bool{}
	for _, p := range b.last {
		if m := p.beat.Model[kind]; m != "" && now.Sub(p.heard) < aliveFor {
			seen[m] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// refused by the scorers that are alive: one of each kind and model.
func (b *beats) refused(now time.Time) []RefusedSample {
	var out []RefusedSample
	for _, p := range b.last {
		if now.Sub(p.heard) >= aliveFor || p.beat.Service != scorerService {
			continue
		}
		for key, r := range p.beat.Refused {
			kind, _, _ := strings.Cut(key, "/") // payment/overrides: its lists
			i := slices.IndexFunc(out, func(x RefusedSample) bool { return x.Kind == kind && x.Model == r.Model })
			if i < 0 {
				if i = len(out); i == maxRefused {
					continue
				}
				out = append(out, RefusedSample{Kind: kind, RefusedModel: r})
			}
			out[i].Revision = max(out[i].Revision, r.Revision)
			out[i].Untrusted = out[i].Untrusted || r.Untrusted
			out[i].Why = max(out[i].Why, r.Why)
			out[i].By = append(out[i].By, cmp.Or(p.beat.Name, p.beat.Instance))
		}
	}
	for _, x := range out {
		slices.Sort(x.By)
	}
	slices.SortFunc(out, func(a, b RefusedSample) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Model, b.Model))
	})
	return out
}

// missing from the last scores of the scorers that are alive: one of each kind and member.
func (b *beats) missing(now time.Time) []MissingSample {
	var out []MissingSample
	for _, p := range b.last {
		if now.Sub(p.heard) >= aliveFor || p.beat.Service != scorerService {
			continue
		}
		for kind, members := range p.beat.Missing {
			for _, m := range members {
				i := slices.IndexFunc(out, func(x MissingSample) bool { return x.Kind == kind && x.Member == m })
				if i < 0 {
					if i = len(out); i == maxMissing {
						continue
					}
					out = append(out, MissingSample{Kind: kind, Member: m})
				}
				out[i].By = append(out[i].By, cmp.Or(p.beat.Name, p.beat.Instance))
			}
		}
	}
	for _, x := range out {
		slices.Sort(x.By)
	}
	slices.SortFunc(out, func(a, b MissingSample) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Member, b.Member))
	})
	return out
}

func (b *beats) latency(now time.Time) Latency {
	recent, total := histogram{}, histogram{}
	total.add(b.gone, 1)
	for _, p := range b.last {
		newest := p.past[len(p.past)-1].hist
		total.add(newest, 1)
		if now.Sub(p.heard) < latencyWindow && len(p.past) > 1 {
			recent.add(newest, 1)
			recent.add(p.past[0].hist, -1)
		}
	}
	var l Latency
	l.P50MS, l.P99MS, l.Count = quantiles(recent)
	l.TotalP50MS, l.TotalP99MS, l.TotalCount = quantiles(total)
	return l
}

func quantiles(h histogram) (p50, p99 float64, n int64) {
	for _, k := range h {
		n += k
	}
	a, _ := service.Quantile(0.5, h)
	b, _ := service.Quantile(0.99, h)
	return ms(a), ms(b), n
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
