package events

import "time"

// Heartbeat is what a service says of itself once a second on heartbeats.<service>.<instance>.
type Heartbeat struct {
	Service  string             `json:"service"`
	Instance string             `json:"instance"`
	Name     string             `json:"name,omitempty"` // as the operator started it: scorer-1
	Host     string             `json:"host"`
	PID      int                `json:"pid"`
	Started  time.Time          `json:"started"`
	Counters map[string]float64 `json:"counters,omitempty"` // since Started
	Latency  []LatencyBucket    `json:"latency,omitempty"`  // event stored -> score committed, since Started
	Lanes    []string           `json:"lanes,omitempty"`    // <kind>/<lane>, owned
	Model    map[string]string  `json:"model,omitempty"`    // kind -> version in force
}

// LatencyBucket counts observations of at most Micros and more than the bucket before.
type LatencyBucket struct {
	Micros int64 `json:"us"`
	Count  int64 `json:"n"`
}
