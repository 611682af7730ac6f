package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/pkg/events"
)

// StatusSubject answers with a Status in JSON. Any monitor that runs may answer.
const StatusSubject = "riskweir.monitor.status"

// States of a lane, from good to bad.
const (
	Idle    = "idle"    // every event has an outcome
	Busy    = "busy"    // events wait, the oldest for less than the objective
	Late    = "late"    // the oldest waits for longer, but the position moves
	Stalled = "stalled" // events wait and the position does not move
	Halted  = "halted"  // its position is lost or counts in another stream: a person must act
	Unknown = "unknown" // not seen for too long to say
)

// Status is all that a monitor knows at one time.
type Status struct {
	At       time.Time       `json:"at"`
	Monitor  string          `json:"monitor"` // the instance that answers
	Leads    bool            `json:"leads"`   // it publishes alerts
	Severity string          `json:"severity,omitempty"`
	Kinds    []KindStatus    `json:"kinds"`
	Services []ServiceStatus `json:"services"`
	Latency  Latency         `json:"latency"`
	Alerts   []events.Alert  `json:"alerts"` // firing
}

// KindStatus of one kind. Rates are events a second, averaged over about five seconds.
type KindStatus struct {
	Kind     string       `json:"kind"`
	Error    string       `json:"error,omitempty"` // why it was not seen; the rest is then as it was last seen
	Stored   uint64       `json:"stored"`          // events in EVENTS
	LastSeq  uint64       `json:"last_seq"`
	Pending  uint64       `json:"pending"` // events without an outcome
	AgeMS    float64      `json:"age_ms"`  // of the oldest of them
	Arriving float64      `json:"arriving"`
	Scoring  float64      `json:"scoring"`
	Models   []string     `json:"models,omitempty"` // in force at the scorers: one, but for moments
	Lanes    []LaneStatus `json:"lanes"`
}

// LaneStatus of one lane.
type LaneStatus struct {
	Lane     int     `json:"lane"`
	State    string  `json:"state"`
	Owner    string  `json:"owner,omitempty"` // name where it is known, else instance
	Position uint64  `json:"position"`
	Epoch    uint64  `json:"epoch"`
	Attempts int     `json:"attempts,omitempty"`
	Pending  uint64  `json:"pending"`
	AgeMS    float64 `json:"age_ms"` // of the oldest event without an outcome
	FrozenMS float64 `json:"frozen_ms,omitempty"`
}

// ServiceStatus of one process, by its heartbeats.
type ServiceStatus struct {
	events.Heartbeat
	Alive    bool    `json:"alive"`
	SilentMS float64 `json:"silent_ms"`
}

// Latency from event stored to outcome committed, as the scorers measure it.
type Latency struct {
	P50MS float64 `json:"p50_ms"` // of the last ten seconds or so
	P99MS float64 `json:"p99_ms"`
	Count int64   `json:"count"`

	TotalP50MS float64 `json:"total_p50_ms"` // of all scorers that this monitor has heard
	TotalP99MS float64 `json:"total_p99_ms"`
	TotalCount int64   `json:"total_count"`
}

// Fetch asks whatever monitor answers first.
func Fetch(ctx context.Context, nc *nats.Conn) (Status, error) {
	var s Status
	m, err := nc.RequestWithContext(ctx, StatusSubject, nil)
	if err != nil {
		return s, fmt.Errorf("ask a monitor: %w", err)
	}
	if text := m.Header.Get("Nats-Service-Error"); text != "" {
		return s, fmt.Errorf("ask a monitor: %s", text)
	}
	if err := json.Unmarshal(m.Data, &s); err != nil {
		return s, fmt.Errorf("ask a monitor: %w", err)
	}
	return s, nil
}
