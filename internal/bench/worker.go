package bench

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

// Ceiling is a scorer without scoring: the same lanes, runs, batches and commits, bytes in and prepared bytes out.
type Ceiling struct {
	Conn     *nats.Conn
	Instance string
	Kind     string
	Lanes    int
	Size     int // of an outcome, bytes
}

// Run owns lanes until ctx ends.
func (c Ceiling) Run(ctx context.Context) error {
	js, err := natsjs.New(c.Conn)
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	kinds := make(chan []lane.Kind, 1)
	kinds <- []lane.Kind{{Name: c.Kind, Lanes: c.Lanes, Refresh: time.Hour}}
	return lane.NewPool(lane.Config{
		Conn: c.Conn, JS: js, Limits: lane.DefaultLimits(), Kinds: kinds,
		Self:  lane.Member{Instance: c.Instance, Name: c.Instance, Host: service.Hostname(), Started: time.Now()},
		Stage: func(k lane.Kind, _ int) lane.Stage { return prepared{kind: k.Name, body: outcomeOfSize(c.Size)} },
	}).Run(ctx)
}

func outcomeOfSize(n int) []byte {
	const frame = `{"seq":1,"pad":""}`
	return []byte(frame[:len(frame)-2] + strings.Repeat("x", max(0, n-len(frame))) + frame[len(frame)-2:])
}

// prepared answers every event with the same bytes.
type prepared struct {
	kind string
	body []byte
}

func (prepared) Adopt() uint64                                    { return 0 }
func (prepared) Await(context.Context, uint64) error              { return nil }
func (prepared) Prepare([]lane.Event) func(context.Context) error { return nil }

func (p prepared) Outcomes(batch []lane.Event) []*nats.Msg {
	msgs := make([]*nats.Msg, len(batch))
	for i := range batch {
		s := batch[i].Subject
		msgs[i] = &nats.Msg{Subject: events.CommitSubject(p.kind, events.BandLow, s[strings.LastIndexByte(s, '.')+1:]), Data: p.body}
	}
	return msgs
}

func (p prepared) Unread(e lane.Event, _ int) *nats.Msg { return p.Outcomes([]lane.Event{e})[0] }

func (p prepared) Beside(before events.Besides) events.Besides { return before }

func (p prepared) Expired(first, last uint64) *nats.Msg {
	return &nats.Msg{Subject: events.CommitSubject(p.kind, events.BandExpired, "lane"), Data: fmt.Appendf(nil, "%d-%d", first, last)}
}

// Plain is what people write first: one durable consumer, explicit acknowledgements, every score published by itself, asynchronously,
// with a message id, and its event acknowledged when it is stored. It decodes and scores as Riskweir does. It has no
// order per entity once something is delivered again, and its scores are exactly one only within the dedupe window.
type Plain struct {
	Conn  *nats.Conn
	Kind  string
	Round string // makes the message ids of a round its own
}

// plainConsumer is made by the driver.
const plainConsumer = "plain"

const plainInFlight = 4096

// Run consumes until ctx ends.
func (p Plain) Run(ctx context.Context) error {
	js, err := natsjs.New(p.Conn, natsjs.WithPublishAsyncMaxPending(plainInFlight))
	if err != nil {
		return fmt.Errorf("jetstream: %w", err)
	}
	predictor, schema, err := p.load(ctx, js)
	if err != nil {
		return err
	}
	consumer, err := js.Consumer(ctx, events.EventsStream(p.Kind), plainConsumer)
	if err != nil {
		return fmt.Errorf("consumer %s: %w", plainConsumer, err)
	}
	type pending struct {
		ack natsjs.PubAckFuture
		msg natsjs.Msg
	}
	published := make(chan pending, plainInFlight)
	failed := make(chan error, 1)
	acked := make(chan struct{})
	go func() {
		defer close(acked)
		for x := range published {
			select {
			case <-x.ack.Ok():
				if err := x.msg.Ack(); err != nil {
					fail(failed, fmt.Errorf("acknowledge: %w", err))
				}
			case err := <-x.ack.Err():
				fail(failed, fmt.Errorf("publish a score: %w", err))
			case <-ctx.Done():
			}
		}
	}()
	var rec events.Record
	var scratch model.Scratch
	c, err := consumer.Consume(func(m natsjs.Msg) {
		out, err := p.score(m, schema, predictor, &rec, &scratch)
		if err == nil {
			var ack natsjs.PubAckFuture
			if ack, err = js.PublishMsgAsync(out, natsjs.WithStallWait(10*time.Second)); err == nil {
				published <- pending{ack, m}
				return
			}
		}
		fail(failed, err)
	}, natsjs.PullMaxMessages(2700))
	if err != nil {
		return fmt.Errorf("consume: %w", err)
	}
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
	}
	c.Stop()
	<-c.Closed()
	close(published)
	<-acked
	return err
}

func fail(to chan<- error, err error) {
	select {
	case to <- err:
	default: // the first is told
	}
}

func (p Plain) load(ctx context.Context, js natsjs.JetStream) (*model.Predictor, *events.Schema, error) {
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return nil, nil, fmt.Errorf("models: %w", err)
	}
	artifact, err := model.NewRegistry(kv).Get(ctx, p.Kind, 1)
	if err != nil {
		return nil, nil, err
	}
	info, err := js.Stream(ctx, events.EventsStream(p.Kind))
	if err != nil {
		return nil, nil, err
	}
	lanes, err := strconv.Atoi(info.CachedInfo().Config.Metadata["riskweir.lanes"])
	if err != nil {
		return nil, nil, fmt.Errorf("lanes of %s: %w", p.Kind, err)
	}
	schema, err := events.Compile(contract(p.Kind, lanes))
	if err != nil {
		return nil, nil, err
	}
	predictor, err := model.Compile(artifact, schema)
	return predictor, schema, err
}

func (p Plain) score(m natsjs.Msg, schema *events.Schema, predictor *model.Predictor, rec *events.Record, scratch *model.Scratch) (*nats.Msg, error) {
	enc, err := events.DetectEncoding("", m.Data())
	if err != nil {
		return nil, err
	}
	if err := schema.Decode(enc, m.Data(), rec); err != nil {
		return nil, err
	}
	at, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	stored, err := events.ParseStoredEvent(m.Subject())
	if err != nil {
		return nil, err
	}
	r := predictor.Score(rec, scratch)
	band := schema.Contract.Band(r.P)
	s := events.Score{
		ID: string(rec.ID), Seq: at.Sequence.Stream, Kind: p.Kind, Entity: events.UnescapeEntity(stored.Token), P: r.P, Points: r.Points, Band: band,
		Decision: schema.Contract.Decide(events.ModeModel, band), Reasons: r.Reasons, Model: model.Name(p.Kind, 1), Mode: events.ModeModel, Time: at.Timestamp,
	}
	return &nats.Msg{Subject: events.CommitSubject(p.Kind, band, stored.Token), Data: s.Append(nil, enc),
		Header: nats.Header{natsjs.MsgIDHeader: {p.Round + "-" + s.ID}}}, nil
}
