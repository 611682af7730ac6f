package events

import "time"

// Alert states.
const (
	Firing   = "firing"
	Resolved = "resolved"
)

// Severities of an alert.
const (
	Page   = "page"
	Ticket = "ticket"
)

// Alert is one message of an incident, on alerts.<severity>.<what>.
type Alert struct {
	Incident string            `json:"incident"` // the same from firing to resolved
	State    string            `json:"state"`
	Severity string            `json:"severity"`
	What     string            `json:"what"`
	Kind     string            `json:"kind,omitempty"`
	Lane     *int              `json:"lane,omitempty"`
	Cause    string            `json:"cause"`
	Evidence map[string]string `json:"evidence,omitempty"`
	Action   string            `json:"action,omitempty"`
	At       time.Time         `json:"at"`
}
