package events

import (
	"errors"
	"fmt"
	"time"
)

// Label is a claim about an event's outcome in the world. The claim with the latest
// KnownAt wins; ties go to the later one in the stream.
//
//	exactly one of ID != "", Seq != 0
type Label struct {
	ID      string    `json:"id,omitempty" msgpack:"id,omitempty"`   // event id, or
	Seq     uint64    `json:"seq,omitempty" msgpack:"seq,omitempty"` // event sequence
	Label   *int      `json:"label" msgpack:"label"`                 // 1 bad, 0 good, null withdrawn
	KnownAt time.Time `json:"known_at" msgpack:"known_at"`           // zero: when the label was stored
	Source  string    `json:"source,omitempty" msgpack:"source,omitempty"`
}

// Validate says whether the label names one event and a value that labels have.
func (l *Label) Validate() error {
	switch {
	case l.ID == "" && l.Seq == 0:
		return errors.New("label: names no event: want id, or seq")
	case l.ID != "" && l.Seq != 0:
		return errors.New("label: names an event twice: want id or seq, not both")
	case len(l.ID) > MaxIDBytes:
		return fmt.Errorf("label: id has %d bytes: at most %d", len(l.ID), MaxIDBytes)
	case l.Label != nil && *l.Label != 0 && *l.Label != 1:
		return fmt.Errorf("label: is %d: want 1 (bad), 0 (good) or null (withdrawn)", *l.Label)
	}
	return nil
}

// Append writes the label as DecodeLabel reads it. A zero KnownAt is left out.
func (l *Label) Append(dst []byte, enc Encoding) []byte {
	w := writer{dst: dst, enc: enc}
	w.open(1 + set(l.ID != "") + set(l.Seq != 0) + set(!l.KnownAt.IsZero()) + set(l.Source != ""))
	if l.ID != "" {
		w.str("id", l.ID)
	}
	if l.Seq != 0 {
		w.uint("seq", l.Seq)
	}
	if l.Label == nil {
		w.null("label")
	} else {
		w.int("label", int64(*l.Label))
	}
	if !l.KnownAt.IsZero() {
		w.time("known_at", l.KnownAt)
	}
	if l.Source != "" {
		w.str("source", l.Source)
	}
	return w.close()
}

// DecodeLabel reads a label of either encoding. The field label must be there, as 0, 1 or null, with
// exactly one of id (a string or an integer) and seq; known_at must bear a zone, and is
// zero where it is absent or null. A name that stands twice is an error. Other fields are ignored, so
// that an older trainer reads a newer publisher's claims: what can be lost to a misspelt name
// is known_at, which then is the time of storage, later than the truth and so on the safe side.
func DecodeLabel(enc Encoding, body []byte) (Label, error) {
	var l Label
	var labelled bool
	err := eachField(enc, body, func(key string, t *token) (reason string) {
		switch key {
		case "id":
			var scratch, id []byte
			id, reason = t.name(&scratch, MaxIDBytes)
			l.ID = string(id)
		case "seq":
			var ok bool
			if l.Seq, ok = t.uint(); (!ok || l.Seq == 0) && t.kind != kindNull {
				reason = "want an event's sequence, 1 or more"
			}
		case "label":
			labelled = true
			if t.kind != kindNull {
				v, ok := t.uint()
				if !ok || v > 1 {
					return "want 1 (bad), 0 (good) or null (withdrawn)"
				}
				n := int(v)
				l.Label = &n
			}
		case "known_at":
			if t.kind != kindNull {
				l.KnownAt, reason = t.time()
			}
		case "source":
			l.Source, reason = t.str()
		}
		return reason
	})
	switch {
	case err != nil:
		return Label{}, fmt.Errorf("label: %w", err)
	case !labelled:
		return Label{}, errors.New("label: field label is absent: want 1 (bad), 0 (good) or null (withdrawn)")
	}
	if err := l.Validate(); err != nil {
		return Label{}, err
	}
	return l, nil
}
