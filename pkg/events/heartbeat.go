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

	// kind -> members of the model that did not vote in its last scores
	Missing map[string][]string     `json:"missing,omitempty"`
	Refused map[string]RefusedModel `json:"refused,omitempty"` // kind, or <kind>/overrides -> what should be in force, and is not taken here
}

// RefusedModel is a revision of a rollout record that a scorer passed over: the champion before goes on.
type RefusedModel struct {
	Model     string `json:"model,omitempty"`     // payment.v000003; empty: the record itself is at fault
	Revision  uint64 `json:"revision"`            // of the record
	Untrusted bool   `json:"untrusted,omitempty"` // it is not what a trusted key signed
	Why       string `json:"why"`
}

// LatencyBucket counts observations of at most Micros and more than the bucket before.
type LatencyBucket struct {
	Micros int64 `json:"us"`
	Count  int64 `json:"n"`
}
