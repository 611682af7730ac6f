package events

import "time"

// Position is how far a lane has been scored. It is stored in the same atomic batch as the
// outcomes up to it, fenced by the sequence of the position before.
//
//	every event of the lane with sequence <= Seq has exactly one outcome; none after it has one
//	a claim raises Epoch by one; nothing lowers it
//	Tries > 0  =>  Trying > Seq
type Position struct {
	Seq         uint64    `json:"seq"`                // EVENTS sequence of the last event with an outcome
	Incarnation time.Time `json:"incarnation"`        // creation time of the EVENTS stream that Seq counts in
	Epoch       uint64    `json:"epoch"`              // claims so far
	Owner       string    `json:"owner,omitempty"`    // instance of the scorer; empty: released
	Attempts    int       `json:"attempts,omitempty"` // claims from another owner since Seq last moved or the lane was idle
	Trying      uint64    `json:"trying,omitempty"`   // the one event that the owner set out to score alone
	Tries       int       `json:"tries,omitempty"`    // how often Trying has been set out upon
	Revision    uint64    `json:"revision"`           // revision of the rollout record that scored up to Seq
}

// SourcePosition is how far a file has been ingested, stored in the same atomic
// batch as the events up to it.
type SourcePosition struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"` // of the file's head and of the options that shape its events
	Offset      int64  `json:"offset"`      // bytes of the (decompressed) file that are in EVENTS
	Rows        int64  `json:"rows"`        // data rows before Offset
	Invalid     int64  `json:"invalid"`     // of those, rows refused
	Done        bool   `json:"done"`
}
