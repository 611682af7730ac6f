package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

// pulse keeps the last heartbeat of every process there has been, dead ones included: their counts are part of the sum.
type pulse struct {
	conn *nats.Conn

	mu    sync.Mutex
	beats map[string]beat // by instance
}

type beat struct {
	events.Heartbeat
	at time.Time
}

func newPulse(conn *nats.Conn) *pulse { return &pulse{conn: conn, beats: map[string]beat{}} }

func (p *pulse) listen() error {
	_, err := p.conn.Subscribe("heartbeats.>", func(m *nats.Msg) {
		var h events.Heartbeat
		if json.Unmarshal(m.Data, &h) != nil || h.Instance == "" {
			return // a stranger's message is no heartbeat
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.beats[h.Instance] = beat{h, time.Now()}
	})
	if err != nil {
		return fmt.Errorf("listen to heartbeats: %w", err)
	}
	return nil
}

// outcomes committed by all scorers since 'up' began.
func (p *pulse) outcomes() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0.0
	for _, b := range p.beats {
		if b.Service == "scorer" {
			n += b.Counters["outcomes"]
		}
	}
	return n
}

// latency of all outcomes since 'up' began: quantile q.
func (p *pulse) latency(q float64) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[int64]int64{}
	for _, b := range p.beats {
		for _, x := range b.Latency {
			all[x.Micros] += x.Count
		}
	}
	return service.Quantile(q, all)
}

const aliveFor = 3 * time.Second

// alive returns the processes heard of lately, by name.
func (p *pulse) alive() []events.Heartbeat {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []events.Heartbeat
	for _, b := range p.beats {
		if time.Since(b.at) < aliveFor {
			out = append(out, b.Heartbeat)
		}
	}
	slices.SortFunc(out, func(a, b events.Heartbeat) int { return strings.Compare(a.Name, b.Name) })
	return out
}
