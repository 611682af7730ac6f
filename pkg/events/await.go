package events

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// InvalidOutcome is the error of an event that was stored and cannot be scored.
type InvalidOutcome struct{ Invalid }

func (e *InvalidOutcome) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("event %d of kind %s is invalid: %s", e.Seq, e.Kind, e.Reason)
	}
	return fmt.Sprintf("event %d of kind %s is invalid: field %s: %s", e.Seq, e.Kind, e.Field, e.Reason)
}

// LateError says that an event is stored and its outcome did not come in time. It will come, on
// SCORES_<kind>.
type LateError struct {
	Kind string
	Seq  uint64 // in EVENTS_<kind>
	Err  error  // the context's, or why the outcome could not be looked for
}

func (e *LateError) Error() string {
	return fmt.Sprintf("event %d of kind %s is stored, its score is not here yet: %v", e.Seq, e.Kind, e.Err)
}

func (e *LateError) Unwrap() error { return e.Err }

// Score publishes an event and waits for its committed score. The error is an *InvalidOutcome if
// the event cannot be scored, and a *LateError if ctx ends first. Set a deadline: without one it
// waits for as long as no scorer runs.
func (c *Client) Score(ctx context.Context, kind string, e Event) (Score, error) {
	m, err := e.message(kind)
	if err != nil {
		return Score{}, err
	}
	token, err := EscapeEntity(e.Entity)
	if err != nil {
		return Score{}, err
	}
	// The view is open before the event is out, so that no answer is too early.
	filter := ScoreSubject(kind, "*", token)
	view, err := c.nc.SubscribeSync(filter)
	if err != nil {
		return Score{}, fmt.Errorf("subscribe to %s: %w", filter, err)
	}
	defer view.Unsubscribe() // fails only with the connection
	ack, err := c.publish(ctx, m, EventsStream(kind), kind)
	if err != nil {
		return Score{}, err
	}
	body, band, err := c.outcome(ctx, view, kind, filter, ack)
	if err != nil {
		return Score{}, &LateError{Kind: kind, Seq: ack.Seq, Err: err}
	}
	if band == BandInvalid {
		v, err := DecodeInvalid(body)
		if err != nil {
			return Score{}, err
		}
		return Score{}, &InvalidOutcome{v}
	}
	return DecodeScore(body)
}

// The view is silent for half of the time that is left, within these bounds, before the stream is asked.
const (
	leastSilence = 20 * time.Millisecond
	mostSilence  = time.Second
)

// outcome waits on the live view, which may miss a message, and looks into the stream whenever the view is
// silent for long or has passed the event.
func (c *Client) outcome(ctx context.Context, view *nats.Subscription, kind, filter string, ack Ack) (body []byte, band string, err error) {
	var stream jetstream.Stream
	var lookErr error
	look := ack.Duplicate // then it may have been scored long ago
	for {
		patience := mostSilence
		if end, ok := ctx.Deadline(); ok {
			patience = min(max(time.Until(end)/2, leastSilence), mostSilence)
		}
		if look {
			// Bounded too: a stream without a leader must not keep us from the view.
			wait, cancel := context.WithTimeout(ctx, patience)
			var m *jetstream.RawStreamMsg
			m, lookErr = c.look(wait, &stream, kind, filter, ack.Seq)
			cancel()
			if m != nil {
				return namedOutcome(m.Subject, m.Data)
			}
		}
		wait, cancel := context.WithTimeout(ctx, patience)
		m, err := view.NextMsgWithContext(wait)
		cancel()
		switch {
		case err == nil:
			first, last, err := OutcomeSeq(m.Data)
			if err == nil && first <= ack.Seq && ack.Seq <= last {
				return namedOutcome(m.Subject, m.Data)
			}
			look = err != nil || first > ack.Seq // the entity's outcomes come in the order of its events
		case ctx.Err() != nil:
			return nil, "", errors.Join(ctx.Err(), lookErr)
		case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrSlowConsumer):
			look = true
		default:
			return nil, "", fmt.Errorf("read %s: %w", filter, err)
		}
	}
}

func namedOutcome(subject string, body []byte) ([]byte, string, error) {
	s, err := ParseStoredScore(subject)
	return body, s.Band, err
}

// look finds the outcome of one event among those of its entity, or nil while there is none.
// The answer of a replica may be old: nil is no promise.
func (c *Client) look(ctx context.Context, stream *jetstream.Stream, kind, filter string, seq uint64) (*jetstream.RawStreamMsg, error) {
	if *stream == nil {
		s, err := c.js.Stream(ctx, ScoresStream(kind))
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", ScoresStream(kind), err)
		}
		*stream = s
	}
	last, err := (*stream).GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filter, err)
	}
	at, err := eventOf(last)
	if err != nil {
		return nil, err
	}
	switch {
	case at == seq:
		return last, nil
	case at < seq:
		return nil, nil
	}
	return searchBack(seq, last.Sequence, func(from uint64) (stored, event uint64, m *jetstream.RawStreamMsg, err error) {
		m, err = (*stream).GetMsg(ctx, from, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return 0, 0, nil, nil
		}
		if err != nil {
			return 0, 0, nil, fmt.Errorf("read %s: %w", filter, err)
		}
		event, err = eventOf(m)
		return m.Sequence, event, m, err
	})
}

func eventOf(m *jetstream.RawStreamMsg) (uint64, error) {
	_, last, err := OutcomeSeq(m.Data)
	if err != nil {
		return 0, fmt.Errorf("%s at %d: %w", m.Subject, m.Sequence, err)
	}
	return last, nil
}

// searchBack finds the outcome of event seq among an entity's outcomes, whose events rise with where they are
// stored. The one stored at later is of an event after seq. at(from) is the first outcome stored at from or
// after, and nil if there is none. The steps back double, then halve: some 2 log2 of the distance.
//
//	events of outcomes stored at low or before < seq < event of the one stored at later
func searchBack[M any](seq, later uint64, at func(from uint64) (stored, event uint64, m *M, err error)) (*M, error) {
	low := uint64(0) // nothing is stored at 0
	for step := uint64(1); low+1 < later; {
		from := low + 1
		if low > 0 {
			from = low + (later-low)/2
		} else if step < later {
			from = later - step
		}
		stored, event, m, err := at(from)
		switch {
		case err != nil:
			return nil, err
		case m != nil && event == seq:
			return m, nil
		case m != nil && event < seq:
			low = stored
		default:
			// The next one is of a later event, so nothing that we want stands at from or after.
			later = from
			step *= 2
		}
	}
	return nil, nil
}
