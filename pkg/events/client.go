package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Headers of an event.
const (
	HeaderContentType = "Content-Type"
	HeaderHistory     = "Riskweir-History" // 1: it feeds training, and no decision leaves
)

var (
	// ErrUndeclaredKind says that the kind has no streams.
	ErrUndeclaredKind = errors.New("kind is not declared")
	// ErrNotAccepted says that the message was not stored, and may be by another try.
	ErrNotAccepted = errors.New("not accepted")
)

// Client publishes events and labels, and reads what became of them. It is safe for concurrent use. The
// connection stays the caller's: to close, and to open with reconnects without end.
type Client struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// The roles of NATS users that may do what the client does.
const (
	senders = "publisher or caller"
	readers = "subscriber or caller"
)

// NewClient does no I/O. Where permissions are in force, the connection's user needs the role publisher for Publish,
// PublishBatch and Label, subscriber for Subscribe and Outcome, caller for all of that and Score; and the
// connection needs the inbox prefix of that role, nats.CustomInboxPrefix("_INBOX_<role>"). What the server refuses ends
// with an error that wraps nats.ErrPermissionViolation.
func NewClient(nc *nats.Conn) (*Client, error) {
	// What was sent and never acknowledged must not hold memory for ever.
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, fmt.Errorf("events client: %w", err)
	}
	return &Client{nc: nc, js: js}, nil
}

const (
	ackTimeout   = 10 * time.Second // for an ack that the caller's context does not bound
	publishPause = 250 * time.Millisecond
	batchWindow  = 512 // events of a batch on their way at once
)

// Event is one to publish. Exactly one of Body and Fields is given.
type Event struct {
	Entity  string         // whom or what it is about: not empty, at most MaxEntityBytes
	ID      string         // two events of one ID within the stream's duplicate window are stored once; empty: no check
	Body    []byte         // a JSON object or a msgpack map
	Fields  map[string]any // written as JSON
	History bool           // feeds training only
}

// Ack says where an event or label is stored, on a majority of the replicas.
type Ack struct {
	Seq       uint64 // in EVENTS_<kind>, or LABELS
	Duplicate bool   // it had been stored before, at Seq
}

func (e *Event) message(kind string) (*nats.Msg, error) {
	if err := CheckKind(kind); err != nil {
		return nil, err
	}
	subject, err := EventSubject(kind, e.Entity)
	if err != nil {
		return nil, err
	}
	body, enc := e.Body, JSON
	switch {
	case (body != nil) == (e.Fields != nil):
		return nil, errors.New("event: want one of Body and Fields")
	case body == nil:
		if body, err = json.Marshal(e.Fields); err != nil {
			return nil, fmt.Errorf("event: fields: %w", err)
		}
	default:
		if enc, err = DetectEncoding("", body); err != nil {
			return nil, fmt.Errorf("event: %w", err)
		}
	}
	if len(body) > MaxEventBytes {
		return nil, fmt.Errorf("event: body has %d bytes: at most %d", len(body), MaxEventBytes)
	}
	m := nats.NewMsg(subject)
	m.Data = body
	m.Header.Set(HeaderContentType, enc.ContentType())
	if e.ID != "" {
		m.Header.Set(jetstream.MsgIDHeader, MessageID(e.ID))
	}
	if e.History {
		m.Header.Set(HeaderHistory, "1")
	}
	return m, nil
}

// Publish stores an event and returns when a majority of the replicas has it. While the stream has no leader
// it tries again until ctx ends; so it does with an undeclared kind, if the user may not see which streams there are. When ctx ends first, whether the event was stored is unknown:
// publish it again with the same ID.
func (c *Client) Publish(ctx context.Context, kind string, e Event) (Ack, error) {
	m, err := e.message(kind)
	if err != nil {
		return Ack{}, err
	}
	return c.publish(ctx, m, EventsStream(kind), kind)
}

// Label stores a claim about the outcome of one of the entity's events.
func (c *Client) Label(ctx context.Context, kind, entity string, l Label) (Ack, error) {
	if err := CheckKind(kind); err != nil {
		return Ack{}, err
	}
	if err := l.Validate(); err != nil {
		return Ack{}, err
	}
	subject, err := LabelSubject(kind, entity)
	if err != nil {
		return Ack{}, err
	}
	m := nats.NewMsg(subject)
	m.Data = l.Append(nil, JSON)
	m.Header.Set(HeaderContentType, ContentTypeJSON)
	return c.publish(ctx, m, LabelsStream, kind)
}

func (c *Client) publish(ctx context.Context, m *nats.Msg, stream, kind string) (Ack, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	ctx, stop := c.refusals().heed(ctx, senders, publishing(m.Subject))
	defer stop()
	for ask := true; ; {
		ack, err := c.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
		if err == nil {
			return Ack{Seq: ack.Sequence, Duplicate: ack.Duplicate}, nil
		}
		if !errors.Is(err, jetstream.ErrNoStreamResponse) {
			return Ack{}, publishError(m, cause(ctx, err))
		}
		if ask {
			var absent bool
			if absent, ask = c.absent(ctx, stream); absent {
				return Ack{}, undeclared(kind)
			}
		}
		pause := time.NewTimer(publishPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return Ack{}, publishError(m, err)
		}
	}
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, ackTimeout)
}

// absent tells, after nobody took a message, whether the stream does not exist, rather than having no leader just now;
// and whether it is of use to ask again: most publishers may not ask.
func (c *Client) absent(ctx context.Context, stream string) (absent, ask bool) {
	ctx, cancel := context.WithTimeout(ctx, mostSilence)
	defer cancel()
	ctx, stop := c.refusals().heed(ctx, senders, asking("STREAM.INFO."+stream))
	defer stop()
	_, err := c.js.Stream(ctx, stream)
	return errors.Is(err, jetstream.ErrStreamNotFound), !errors.Is(cause(ctx, err), nats.ErrPermissionViolation)
}

func undeclared(kind string) error {
	return fmt.Errorf("%w: %s: declare it with riskweir kind apply", ErrUndeclaredKind, kind)
}

func publishError(m *nats.Msg, err error) error {
	switch api, ok := errors.AsType[*jetstream.APIError](err); {
	case ok:
		return fmt.Errorf("publish to %s: %w: %w", m.Subject, ErrNotAccepted, api)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("publish to %s: %w: its kind is not declared, or its stream has no leader now: %w", m.Subject, ErrNotAccepted, err)
	case errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), string(publishing(m.Subject))):
		return fmt.Errorf("publish to %s: %w: %w", m.Subject, ErrNotAccepted, err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, jetstream.ErrAsyncPublishTimeout), errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("publish to %s: no ack came, it may be stored or not; publish it again with the same id: %w", m.Subject, err)
	}
	return fmt.Errorf("publish to %s: %w", m.Subject, err)
}

// Result is what became of one event of a batch.
type Result struct {
	Ack Ack
	Err error
}

// PublishBatch stores many events, several at a time, and returns one result for each, in their order, when
// all are known. The error is nil if all were stored; else it counts those that were not and names the
// first. Events of one entity that are all stored keep their order; after an error, what was not
// stored may be published again with the same IDs. The first refusal by the server ends the batch.
func (c *Client) PublishBatch(ctx context.Context, kind string, batch []Event) ([]Result, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	ctx, stop := c.refusals().heed(ctx, senders, publishing("events."+kind+".").prefix())
	defer stop()
	results := make([]Result, len(batch))
	msgs := make([]*nats.Msg, len(batch))
	futures := make([]jetstream.PubAckFuture, len(batch))
	await := func(i int) {
		f := futures[i]
		if f == nil {
			return
		}
		var ack *jetstream.PubAck
		select {
		case ack = <-f.Ok():
		case err := <-f.Err():
			results[i].Err = publishError(msgs[i], err)
		case <-ctx.Done():
			select {
			case ack = <-f.Ok():
			default:
				results[i].Err = publishError(msgs[i], context.Cause(ctx))
			}
		}
		if ack != nil {
			results[i].Ack = Ack{Seq: ack.Sequence, Duplicate: ack.Duplicate}
		}
	}
	for i := range batch {
		if i >= batchWindow {
			await(i - batchWindow)
		}
		m, err := batch[i].message(kind)
		if err == nil && ctx.Err() != nil {
			err = fmt.Errorf("publish to %s: %w: %w", m.Subject, ErrNotAccepted, context.Cause(ctx))
		}
		if err == nil {
			msgs[i] = m
			if futures[i], err = c.js.PublishMsgAsync(m, jetstream.WithStallWait(ackTimeout)); err != nil {
				err = publishError(m, err)
			}
		}
		results[i].Err = err
	}
	for i := max(0, len(batch)-batchWindow); i < len(batch); i++ {
		await(i)
	}
	return results, c.summary(ctx, kind, results)
}

// summary makes one error of many, after a look at whether the kind exists at all.
func (c *Client) summary(ctx context.Context, kind string, results []Result) error {
	failed, first := 0, -1
	none := false
	for i, r := range results {
		if r.Err != nil {
			if failed++; first < 0 {
				first = i
			}
			none = none || errors.Is(r.Err, jetstream.ErrNoStreamResponse)
		}
	}
	if failed == 0 {
		return nil
	}
	if none {
		if absent, _ := c.absent(ctx, EventsStream(kind)); absent {
			for i := range results {
				if errors.Is(results[i].Err, jetstream.ErrNoStreamResponse) {
					results[i].Err = undeclared(kind)
				}
			}
		}
	}
	return fmt.Errorf("%d of %d events not stored; the first is number %d: %w", failed, len(results), first, results[first].Err)
}
