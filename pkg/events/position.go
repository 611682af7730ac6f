package events

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// Position is how far a lane has been scored. It is stored in the same atomic batch as the
// outcomes up to it, fenced by the sequence of the position before.
//
//	every event of the lane with sequence <= Seq has exactly one outcome; none after it has one
//	a claim raises Epoch by one; nothing lowers it
//	Tries > 0  =>  Trying > Seq and Taken > 0;   Tries > 1  =>  Taken = 1
//	Until > Seq and Width > 0, or both 0
type Position struct {
	Seq         uint64    `json:"seq"`                // EVENTS sequence of the last event with an outcome
	Incarnation time.Time `json:"incarnation"`        // creation time of the EVENTS stream that Seq counts in
	Epoch       uint64    `json:"epoch"`              // claims so far
	Owner       string    `json:"owner,omitempty"`    // instance of the scorer; empty: released
	Attempts    int       `json:"attempts,omitempty"` // claims from another owner since Seq last moved or the lane was idle
	Trying      uint64    `json:"trying,omitempty"`   // the last of the Taken events behind Seq that the owner set out upon, with nothing else
	Taken       int       `json:"taken,omitempty"`    // how many they are
	Tries       int       `json:"tries,omitempty"`    // how many set out upon them and have not come back
	Trier       string    `json:"trier,omitempty"`    // instance that did so last
	Until       uint64    `json:"until,omitempty"`    // an owner did not come back from a batch that ended here: what it died of is no later
	Width       int       `json:"width,omitempty"`    // up to Until, events to set out upon at once
	Revision    uint64    `json:"revision"`           // revision of the rollout record that scored up to Seq
	Beside      Besides   `json:"beside,omitzero"`    // of the lane's events up to Seq
}

// SourcePosition is how far a file has been ingested, stored in the same atomic
// batch as the events up to it.
type SourcePosition struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"` // of the file's head and of the options that shape its events
	Offset      int64  `json:"offset"`      // bytes of the (decompressed) file that are in EVENTS
	Rows        int64  `json:"rows"`        // data rows before Offset
	Line        int64  `json:"line"`        // line of the file that begins at Offset, from 1
	Invalid     int64  `json:"invalid"`     // of those, rows refused
	Done        bool   `json:"done"`
}

// RescorePosition is how far the rescores of a model version have come, stored in the same atomic batch as those up to it.
//
//	0 < First <= Seq;   each valid event from First to Seq has one rescore
type RescorePosition struct {
	First       uint64    `json:"first"`       // EVENTS sequence
	Seq         uint64    `json:"seq"`         // likewise; inclusive
	Incarnation time.Time `json:"incarnation"` // creation time of the EVENTS stream that they count in
	Run         string    `json:"run"`         // the replay that wrote it
}

// DecodePosition reads a lane's position. Seq, incarnation, epoch and revision must be there: one
// that lost them must not be read as the lane's beginning. Fields that it does not know are passed over.
func DecodePosition(body []byte) (Position, error) {
	var p Position
	err := decodeAs("position", JSON, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "seq":
			p.Seq, reason = t.count()
		case "incarnation":
			p.Incarnation, reason = t.stamp()
		case "epoch":
			p.Epoch, reason = t.count()
		case "owner":
			p.Owner, reason = t.str()
		case "attempts":
			p.Attempts, reason = t.small()
		case "trying":
			p.Trying, reason = t.count()
		case "taken":
			p.Taken, reason = t.small()
		case "width":
			p.Width, reason = t.small()
		case "until":
			p.Until, reason = t.count()
		case "tries":
			p.Tries, reason = t.small()
		case "trier":
			p.Trier, reason = t.str()
		case "revision":
			p.Revision, reason = t.count()
		case "beside":
			if json.Unmarshal(t.text, &p.Beside) != nil {
				reason = "want a list of versions with their counts"
			}
		default:
			return false, ""
		}
		return true, reason
	}, "seq", "incarnation", "epoch", "revision")
	switch {
	case err != nil:
		return Position{}, err
	case p.Attempts < 0 || p.Tries < 0 || p.Taken < 0 || p.Width < 0 || p.Tries > 0 && (p.Trying <= p.Seq || p.Taken == 0) || p.Until > 0 && (p.Until <= p.Seq || p.Width == 0):
		return Position{}, fmt.Errorf("position: seq %d, attempts %d, trying %d, taken %d, tries %d, until %d, width %d cannot be", p.Seq, p.Attempts, p.Trying, p.Taken, p.Tries, p.Until, p.Width)
	}
	return p, nil
}

// DecodeSourcePosition reads how far a file has been ingested.
func DecodeSourcePosition(body []byte) (SourcePosition, error) {
	var p SourcePosition
	err := decodeAs("source position", JSON, body, func(key string, t *token) (known bool, reason string) {
		var n uint64
		switch key {
		case "name":
			p.Name, reason = t.str()
		case "fingerprint":
			p.Fingerprint, reason = t.str()
		case "offset":
			n, reason = t.count()
			p.Offset = int64(n)
		case "rows":
			n, reason = t.count()
			p.Rows = int64(n)
		case "line":
			n, reason = t.count()
			p.Line = int64(n)
		case "invalid":
			n, reason = t.count()
			p.Invalid = int64(n)
		case "done":
			if p.Done = t.num == 1; t.kind != kindBool {
				reason = "want true or false"
			}
		default:
			return false, ""
		}
		if n > math.MaxInt64 {
			reason = "is too large"
		}
		return true, reason
	}, "name", "fingerprint", "offset", "rows", "line", "invalid", "done")
	switch {
	case err != nil:
		return SourcePosition{}, err
	case p.Invalid > p.Rows:
		return SourcePosition{}, fmt.Errorf("source position: %d invalid of %d rows cannot be", p.Invalid, p.Rows)
	}
	return p, nil
}

// DecodeRescorePosition reads how far the rescores of a version have come.
func DecodeRescorePosition(body []byte) (RescorePosition, error) {
	var p RescorePosition
	err := decodeAs("rescore position", JSON, body, func(key string, t *token) (known bool, reason string) {
		switch key {
		case "first":
			p.First, reason = t.count()
		case "seq":
			p.Seq, reason = t.count()
		case "incarnation":
			p.Incarnation, reason = t.stamp()
		case "run":
			p.Run, reason = t.str()
		default:
			return false, ""
		}
		return true, reason
	}, "first", "seq", "incarnation", "run")
	switch {
	case err != nil:
		return RescorePosition{}, err
	case p.First == 0 || p.First > p.Seq:
		return RescorePosition{}, fmt.Errorf("rescore position: events %d to %d cannot be", p.First, p.Seq)
	}
	return p, nil
}
