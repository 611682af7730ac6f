package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// ends of a stream, as its leader says.
func ends(ctx context.Context, js jetstream.JetStream, stream string) (first, last uint64, err error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	state := s.CachedInfo().State
	return max(state.FirstSeq, 1), state.LastSeq, nil
}

// firstAt is the sequence of the first message stored at or after t, as the stream's leader says; after last, if there is none.
func firstAt(ctx context.Context, js jetstream.JetStream, stream string, last uint64, t time.Time) (uint64, error) {
	m, err := tail.FirstSince(ctx, js, stream, t)
	switch {
	case errors.Is(err, tail.ErrNone):
		return last + 1, nil
	case err != nil:
		return 0, fmt.Errorf("look for %s: %w", t.Format(time.RFC3339), err)
	}
	return m.Seq, nil
}

// messages hands on those of a stream from first to last, in order.
func messages(ctx context.Context, js jetstream.JetStream, stream string, first, last uint64, each func(tail.Message, *jetstream.MsgMetadata) error) error {
	reader := &tail.Reader{JS: js, Name: "replay", Stream: stream, Owner: "who replays", Last: first - 1}
	if err := reader.Through(ctx, last, tail.Patience, each); err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	return nil
}

// event is one of EVENTS as a scorer reads it: ready to be scored, unless it repeats an earlier one.
type event struct {
	seq     uint64
	subject string
	history bool
	record  *events.Record // with its time set, and its features of memory; valid until the func returns
	repeats uint64         // the event that has its id; 0: none, or the contract declares no memory
}

// pass hands on the valid events from first to last, in order. The others are told to invalid by their sequence, where the contract declares no
// memory; where it does, they are passed over.
//
// It holds one event at a time, and the memory that the contract declares.
func pass(ctx context.Context, js jetstream.JetStream, schema *events.Schema, first, last uint64, invalid func(uint64), each func(event) error) error {
	plan, err := memory.Compile(schema)
	if err != nil {
		return err
	}
	if plan != nil {
		return remembered(ctx, js, plan, first, last, each)
	}
	var rec events.Record
	return messages(ctx, js, events.EventsStream(schema.Contract.Kind), first, last, func(m tail.Message, at *jetstream.MsgMetadata) error {
		where, err := events.ParseStoredEvent(m.Subject())
		if err != nil {
			return nil // a position
		}
		e := event{seq: at.Sequence.Stream, subject: m.Subject(), history: m.Headers().Get(events.HeaderHistory) == "1", record: &rec}
		if !decode(schema, where, m.Headers().Get("Content-Type"), m.Data(), &rec) {
			invalid(e.seq)
			return nil
		}
		if rec.Time.IsZero() {
			rec.Time = at.Timestamp
		}
		return each(e)
	})
}

// decode says whether the event is one that scorers score.
func decode(schema *events.Schema, where events.StoredEvent, contentType string, body []byte, rec *events.Record) bool {
	if where.Lane == events.StrayLane {
		return false
	}
	enc, err := events.DetectEncoding(contentType, body)
	if err != nil {
		return false
	}
	if err := schema.Decode(enc, body, rec); err != nil {
		return false
	}
	return len(rec.Entity) == 0 || string(rec.Entity) == events.UnescapeEntity(where.Token)
}

// remembered is pass for a contract that declares a memory.
func remembered(ctx context.Context, js jetstream.JetStream, plan *memory.Plan, first, last uint64, each func(event) error) error {
	if first > last {
		return nil
	}
	err := recall.Walk(ctx, js, plan, first, last, func(error) {}, func(s recall.Seen) error {
		e := event{seq: s.Seq, subject: s.Subject, history: s.History, record: s.Event.Record}
		if s.Verdict.Repeated() {
			e.repeats = s.Verdict.First
			return each(e)
		}
		given := e.record.Time // which is what is folded
		if given.IsZero() {
			e.record.Time = s.Event.Stored
		}
		e.record.SetMemory(s.Features)
		err := each(e)
		e.record.Time = given
		return err
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", events.EventsStream(plan.Schema.Contract.Kind), err)
	}
	return nil
}
