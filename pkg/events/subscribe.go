package events

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Outcome is one message of a kind's scores. Exactly one of Score, Invalid, Repeat, Expired and Err is set.
type Outcome struct {
	Kind, Band string
	Entity     string // none of its own, but the lane's name, when Expired
	Seq        uint64 // in SCORES_<kind>; 0 in the live view
	Score      *Score
	Invalid    *Invalid
	Repeat     *Repeat
	Expired    *Expired
	Err        error  // the body could not be read
	Body       []byte // as it came, JSON or msgpack
}

// Subscription says which outcomes of a kind are wanted, and how surely.
type Subscription struct {
	Band   string // empty: all
	Entity string // empty: all
	// Durable names a consumer on SCORES_<kind>: every outcome is handled at least once, also after
	// a crash of the subscriber, and several subscribers of one name share the work. It is made
	// if it does not exist. Empty: the live view, which shows what is committed from now on, and may miss or
	// repeat some when a server changes its role.
	Durable string
	// FromStart begins a new durable at the oldest outcome kept, not with the next.
	FromStart bool
}

// errEnded ends a subscription whose context ended.
var errEnded = errors.New("subscription ended")

// Subscribe calls handle for each outcome, one at a time, in the order of the stream, until ctx ends; then it
// returns nil. An error of handle ends it and is returned; then the outcome at hand of a durable, and those
// delivered ahead of it, come again to whoever subscribes next. A live view whose handler is too slow ends with nats.ErrSlowConsumer.
func (c *Client) Subscribe(ctx context.Context, kind string, s Subscription, handle func(context.Context, Outcome) error) error {
	if err := CheckKind(kind); err != nil {
		return err
	}
	band, token := "*", "*"
	if s.Band != "" {
		band = s.Band
	}
	if s.Entity != "" {
		var err error
		if token, err = EscapeEntity(s.Entity); err != nil {
			return err
		}
	}
	filter := ScoreSubject(kind, band, token)
	var err error
	if s.Durable == "" {
		err = c.live(ctx, filter, handle)
	} else {
		err = c.durable(ctx, kind, filter, s, handle)
	}
	switch {
	case errors.Is(err, errEnded):
		return nil
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return undeclared(kind)
	}
	return err
}

func (c *Client) live(ctx context.Context, filter string, handle func(context.Context, Outcome) error) error {
	allowed, stop := c.refusals().heed(ctx, readers, subscribing(filter))
	defer stop()
	view, err := c.nc.SubscribeSync(filter)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", filter, err)
	}
	defer view.Unsubscribe() // fails only with the connection
	for {
		m, err := view.NextMsgWithContext(allowed)
		switch {
		case ctx.Err() != nil:
			return errEnded
		case allowed.Err() != nil:
			return fmt.Errorf("subscribe to %s: %w", filter, context.Cause(allowed))
		case err != nil:
			return fmt.Errorf("read %s: %w", filter, err)
		}
		// NextMsg alone does not always tell: the next message that finds room hides the ones before that did not.
		if lost, err := view.Dropped(); err != nil || lost > 0 {
			return fmt.Errorf("read %s: %w: %d outcomes missed", filter, nats.ErrSlowConsumer, lost)
		}
		if err := handle(ctx, readOutcome(m.Subject, 0, m.Data)); err != nil {
			return err
		}
	}
}

func readOutcome(subject string, seq uint64, body []byte) Outcome {
	o := Outcome{Seq: seq, Body: body}
	s, err := ParseStoredScore(subject)
	if err != nil {
		o.Err = err
		return o
	}
	o.Kind, o.Band, o.Entity = s.Kind, s.Band, UnescapeEntity(s.Token)
	switch s.Band {
	case BandInvalid:
		var v Invalid
		if v, o.Err = DecodeInvalid(body); o.Err == nil {
			o.Invalid = &v
		}
	case BandRepeat, BandConflict:
		var v Repeat
		if v, o.Err = DecodeRepeat(body); o.Err == nil {
			o.Repeat = &v
		}
	case BandExpired:
		var x Expired
		if x, o.Err = DecodeExpired(body); o.Err == nil {
			o.Expired = &x
		}
	default:
		var v Score
		if v, o.Err = DecodeScore(body); o.Err == nil {
			o.Score = &v
		}
	}
	return o
}

// A reader that hears nothing for twice the heartbeat asks again.
const (
	pullExpiry    = 5 * time.Second
	pullHeartbeat = time.Second
	pullMessages  = 256
	durableAck    = 30 * time.Second
)

func (c *Client) durable(ctx context.Context, kind, filter string, s Subscription, handle func(context.Context, Outcome) error) error {
	cons, err := c.consumer(ctx, kind, filter, s)
	if err != nil {
		if ctx.Err() != nil {
			return errEnded
		}
		return err
	}
	refused := c.refusals()
	msgs, err := cons.Messages(jetstream.PullMaxMessages(pullMessages), jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("durable %s: %w", s.Durable, err)
	}
	defer giveBackRest(msgs)
	for {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		switch {
		case ctx.Err() != nil:
			if err == nil { // ctx ended as it came
				m.Nak() //nolint:errcheck // else it comes again after durableAck
			}
			return errEnded
		case errors.Is(err, jetstream.ErrNoHeartbeat):
			if err := refused.of(readers, asking("CONSUMER.MSG.NEXT."+ScoresStream(kind)+".")); err != nil {
				return fmt.Errorf("durable %s: %w", s.Durable, err)
			}
			continue // its server is away: the iterator asks again by itself
		case err != nil:
			return fmt.Errorf("durable %s: %w", s.Durable, err)
		}
		if strings.HasPrefix(m.Subject(), "position.") { // a consumer made elsewhere, without a filter
			if err := m.Ack(); err != nil {
				return fmt.Errorf("durable %s: ack: %w", s.Durable, err)
			}
			continue
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("durable %s: %w", s.Durable, err)
		}
		if err := handle(ctx, readOutcome(m.Subject(), meta.Sequence.Stream, m.Data())); err != nil {
			return errors.Join(err, m.Nak())
		}
		if err := m.Ack(); err != nil {
			return fmt.Errorf("durable %s: ack: %w", s.Durable, err)
		}
	}
}

// giveBackRest ends the reading. What was delivered ahead goes back at once, not after durableAck.
func giveBackRest(msgs jetstream.MessagesContext) {
	msgs.Drain()
	for {
		m, err := msgs.Next(jetstream.NextMaxWait(pullHeartbeat))
		if err != nil || m.Nak() != nil {
			break
		}
	}
	msgs.Stop()
}

// consumer finds the durable, or makes it.
func (c *Client) consumer(ctx context.Context, kind, filter string, s Subscription) (jetstream.Consumer, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	ctx, stop := c.refusals().heed(ctx, readers, asking("CONSUMER.INFO."+ScoresStream(kind)+"."), asking("CONSUMER.CREATE."+ScoresStream(kind)+"."))
	defer stop()
	cons, err := c.js.Consumer(ctx, ScoresStream(kind), s.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		from := jetstream.DeliverNewPolicy
		if s.FromStart {
			from = jetstream.DeliverAllPolicy
		}
		cons, err = c.js.CreateConsumer(ctx, ScoresStream(kind), jetstream.ConsumerConfig{
			Durable:       s.Durable,
			Description:   "a subscriber of scores",
			FilterSubject: filter,
			DeliverPolicy: from,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       durableAck,
			MaxAckPending: 4 * pullMessages,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("durable %s on %s: %w", s.Durable, ScoresStream(kind), cause(ctx, err))
	}
	have := cons.CachedInfo().Config
	filters := have.FilterSubjects
	if have.FilterSubject != "" {
		filters = []string{have.FilterSubject}
	}
	if (s.Band != "" || s.Entity != "") && !slices.Equal(filters, []string{filter}) {
		return nil, fmt.Errorf("durable %s on %s reads %v, not %s: take another name, or no band and entity", s.Durable, ScoresStream(kind), filters, filter)
	}
	return cons, nil
}
