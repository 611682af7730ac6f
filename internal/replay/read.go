package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// patience bounds how long a stream may be read without getting on: an election takes 4 to 9 s.
const patience = 30 * time.Second

const askTimeout = 5 * time.Second

var errRead = errors.New("read to the end")

// ends of a stream, as its leader says.
func ends(ctx context.Context, js jetstream.JetStream, stream string) (first, last uint64, err error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	state := s.CachedInfo().State
	return max(state.FirstSeq, 1), state.LastSeq, nil
}

// firstAt is the sequence of the first message stored at or after t; after last, if there is none.
func firstAt(ctx context.Context, js jetstream.JetStream, stream string, last uint64, t time.Time) (uint64, error) {
	found, err := jetstreamext.GetBatch(ctx, js, stream, 1, jetstreamext.GetBatchStartTime(t))
	if err != nil {
		return 0, fmt.Errorf("look for %s in %s: %w", t.Format(time.RFC3339), stream, err)
	}
	for m, err := range found {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("look for %s in %s: %w", t.Format(time.RFC3339), stream, err)
		}
		return m.Sequence, nil
	}
	return last + 1, nil
}

// impatience ends a reading that does not get on. It is told of each trouble and asked for the sequence that was reached.
func impatience(cancel context.CancelCauseFunc, reached func() uint64) func(error) {
	at, since := uint64(0), time.Now()
	return func(err error) {
		if now := reached(); now != at {
			at, since = now, time.Now()
		}
		if time.Since(since) > patience {
			cancel(fmt.Errorf("it did not get on for %s: %w", patience, err))
		}
	}
}

// holds says whether the stream's leader holds a message from first to last.
func holds(ctx context.Context, js jetstream.JetStream, stream string, first, last uint64) (bool, error) {
	if first > last {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, first))
	if err != nil {
		return false, fmt.Errorf("ask %s for its next message: %w", stream, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return false, fmt.Errorf("answer of %s: %w", stream, err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return false, nil
	case answer.Error != nil:
		return false, fmt.Errorf("ask %s for its next message: %w", stream, answer.Error)
	}
	return answer.Message.Seq <= last, nil
}

// messages hands on those of a stream from first to last, in order.
func messages(ctx context.Context, js jetstream.JetStream, stream string, first, last uint64, each func(tail.Message, *jetstream.MsgMetadata) error) error {
	if first > last {
		return nil
	}
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reader := &tail.Reader{
		JS: js, Name: "replay", Stream: stream, Owner: "who replays", Last: first - 1,
		Begin: func(time.Time) {},
	}
	// What its consumer's replica holds has been read, which may be behind the leader.
	reader.Idle = func() {
		switch more, err := holds(reading, js, stream, reader.Last+1, last); {
		case err != nil:
			reader.Trouble(err)
		case !more:
			cancel(errRead)
		}
	}
	reader.Trouble = impatience(cancel, func() uint64 { return reader.Last })
	reader.Take = func(m tail.Message, at *jetstream.MsgMetadata) {
		seq := at.Sequence.Stream
		switch {
		case reading.Err() != nil:
			return
		case seq <= last:
			if err := each(m, at); err != nil {
				cancel(err)
				return
			}
		}
		if seq >= last {
			cancel(errRead)
		}
	}
	if err := reader.Run(reading); err != nil {
		return err
	}
	if err := context.Cause(reading); !errors.Is(err, errRead) {
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
	walking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	seq := uint64(0)
	err := recall.Walk(walking, js, plan, first, last, impatience(cancel, func() uint64 { return seq }), func(s recall.Seen) error {
		seq = s.Seq
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
	if err != nil && ctx.Err() == nil && walking.Err() != nil {
		err = context.Cause(walking)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", events.EventsStream(plan.Schema.Contract.Kind), err)
	}
	return nil
}
