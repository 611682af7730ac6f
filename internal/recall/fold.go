package recall

import (
	"errors"
	"fmt"
	"time"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/pkg/events"
)

// Folder folds the messages of EVENTS_<kind> into a store. Whether an event is valid, and so remembered, is told exactly as where it is
// scored, whatever else becomes of it there.
type Folder struct {
	Store *memory.Store
	rec   events.Record
}

// Step puts the features of the event at seq into out and folds it. An event that breaks the contract is an error, and leaves no trace; neither
// does one whose id an earlier one has, as the verdict says: it has no features. What became known of earlier events is folded too, and is
// an error, since it is no event.
func (f *Folder) Step(seq uint64, subject, contentType string, body []byte, stored time.Time, out []float64) (v memory.Verdict, err error) {
	defer func() {
		if r := recover(); r != nil { // the event's own doing: everyone who folds it meets the same
			err = fmt.Errorf("folding it panicked: %v", r)
		}
	}()
	if events.IsKnown(subject) {
		return v, f.know(body)
	}
	ev, err := f.decode(seq, subject, contentType, body, stored)
	if err != nil {
		return v, err
	}
	return f.Store.Step(ev, out), nil
}

// Peek puts the features of an event into out and changes nothing.
func (f *Folder) Peek(seq uint64, subject, contentType string, body []byte, stored time.Time, out []float64) (v memory.Verdict, err error) {
	ev, err := f.decode(seq, subject, contentType, body, stored)
	if err == nil {
		v = f.Store.Read(ev, out)
	}
	return v, err
}

func (f *Folder) decode(seq uint64, subject, contentType string, body []byte, stored time.Time) (memory.Event, error) {
	where, err := events.ParseStoredEvent(subject)
	if err != nil {
		return memory.Event{}, err
	}
	if where.Lane == events.StrayLane { // invalid where it is scored, and not read where it is trained on
		return memory.Event{}, fmt.Errorf("published to %s: a wildcard where an entity should be", subject)
	}
	enc, err := events.DetectEncoding(contentType, body)
	if err != nil {
		return memory.Event{}, err
	}
	if err := f.Store.Plan().Schema.Decode(enc, body, &f.rec); err != nil {
		return memory.Event{}, err
	}
	entity := events.UnescapeEntity(where.Token)
	if len(f.rec.Entity) > 0 && string(f.rec.Entity) != entity {
		return memory.Event{}, errors.New("its entity is not that of its subject")
	}
	return memory.Event{Record: &f.rec, Entity: []byte(entity), Stored: stored, Seq: seq}, nil
}
