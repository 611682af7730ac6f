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

// RepeatOutcome is the error of an event whose id an earlier one has. First has the outcome that counts.
type RepeatOutcome struct{ Repeat }

func (e *RepeatOutcome) Error() string {
	if e.Conflict {
		return fmt.Sprintf("event %d of kind %s has the id of event %d, and other content: give it an id of its own, or find out who sent it", e.Seq, e.Kind, e.First)
	}
	return fmt.Sprintf("event %d of kind %s repeats event %d, whose outcome counts", e.Seq, e.Kind, e.First)
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
// the event cannot be scored, a *RepeatOutcome if its id has been seen before, and a *LateError if ctx ends first. Set a deadline: without one it
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
	refused := c.refusals()
	view, err := c.nc.SubscribeSync(filter)
	if err != nil {
		return Score{}, fmt.Errorf("subscribe to %s: %w", filter, err)
	}
	defer view.Unsubscribe() // fails only with the connection
	ack, err := c.publish(ctx, m, EventsStream(kind), kind)
	if err != nil {
		return Score{}, err
	}
	// A refusal of the view has come before the ack.
	blind := refused.of("caller", subscribing(filter))
	body, band, err := c.outcome(ctx, view, blind, kind, filter, ack)
	if err != nil {
		return Score{}, &LateError{Kind: kind, Seq: ack.Seq, Err: err}
	}
	switch band {
	case BandRepeat, BandConflict:
		v, err := DecodeRepeat(body)
		if err != nil {
			return Score{}, err
		}
		return Score{}, &RepeatOutcome{v}
	case BandInvalid:
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
// silent for long or has passed the event. blind is why the view shows nothing.
func (c *Client) outcome(ctx context.Context, view *nats.Subscription, blind error, kind, filter string, ack Ack) (body []byte, band string, err error) {
	var stream jetstream.Stream
	var lookErr error
	look := ack.Duplicate || blind != nil // a duplicate may have been scored long ago
	for {
		patience := mostSilence
		if end, ok := ctx.Deadline(); ok {
			patience = min(max(time.Until(end)/2, leastSilence), mostSilence)
		}
		if look {
			// Bounded too: a stream without a leader must not keep us from the view.
			wait, cancel := context.WithTimeout(ctx, patience)
			var m *outcomeMsg
			m, lookErr = c.look(wait, &stream, kind, filter, ack.Seq)
			cancel()
			if m != nil {
				return namedOutcome(m.subject, m.body)
			}
			if blind != nil && errors.Is(lookErr, nats.ErrPermissionViolation) {
				return nil, "", blind
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
			return nil, "", errors.Join(ctx.Err(), blind, lookErr)
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
