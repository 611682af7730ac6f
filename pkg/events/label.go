package events

import "time"

// Label is a claim about an event's outcome in the world. The claim with the latest
// KnownAt wins; ties go to the later one in the stream.
type Label struct {
	ID      string    `json:"id,omitempty" msgpack:"id,omitempty"`   // event id, or
	Seq     uint64    `json:"seq,omitempty" msgpack:"seq,omitempty"` // event sequence
	Label   *int      `json:"label" msgpack:"label"`                 // 1 bad, 0 good, null withdrawn
	KnownAt time.Time `json:"known_at" msgpack:"known_at"`
	Source  string    `json:"source,omitempty" msgpack:"source,omitempty"`
}
