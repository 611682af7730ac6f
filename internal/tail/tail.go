// Package tail reads a stream in order and without a gap, for those that keep no position.
package tail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Reader carries the messages of a stream, in order and without a gap, to take. It reads through ephemeral consumers without
// acks: what was lost on the way shows as a gap in the consumer's own sequence, and a new consumer starts behind the
// last message taken.
type Reader struct {
	JS     jetstream.JetStream
	Stream string
	// Filter is left empty where nearly all is wanted: the server then goes from message to message. Behind a wildcard it may look, for each message, at
	// every subject of the block that it stands in (nats-server 2.15.2, msgBlock.firstMatching: while the block's end is further away than four times
	// its subjects), which a replica that is far behind has no time for. The trainer
	// has a filter all the same: it may read events, and nothing but a filter can say so in a permission for streams of any name.
	Filter string
	Name   string // that its consumers' names begin with
	Owner  string // in the consumer's description
	// Begin is called before the first message.
	Begin func(incarnation time.Time)
	// Take gets every message once.
	Take func(msg Message, at *jetstream.MsgMetadata)
	// Idle is called when everything that the stream holds has been taken.
	Idle func()
	// Trouble is told why reading was interrupted; it goes on by itself.
	Trouble func(error)

	Last        uint64    // sequence in the stream of the last message taken; may be set before Run
	Incarnation time.Time // of the stream; may be set before Run, and Begin is not called then
}

// Message of a stream, as it was stored.
type Message struct{ msg *nats.Msg }

func (m Message) Subject() string      { return m.msg.Subject }
func (m Message) Headers() nats.Header { return m.msg.Header }
func (m Message) Data() []byte         { return m.msg.Data }

const (
	readerBatch     = 1000
	readerHeartbeat = time.Second
	readerQuiet     = 10 * time.Second // without a message: everything has been taken
	readerInactive  = 30 * time.Second // after which the server removes a consumer that nobody reads
	readerRetryMin  = 100 * time.Millisecond
	readerRetryMax  = 5 * time.Second
	requestTimeout  = 5 * time.Second
)

// ErrIncarnation: the stream is another one of the same name, and what was taken so far is void.
var ErrIncarnation = errors.New("the stream was made anew")

// Run returns nil when ctx ends, or ErrIncarnation.
func (r *Reader) Run(ctx context.Context) error {
	wait := readerRetryMin
	for ctx.Err() == nil {
		before := r.Last
		err := r.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		err = fmt.Errorf("read %s: %w", r.Stream, err)
		if errors.Is(err, ErrIncarnation) {
			return err
		}
		r.Trouble(err)
		if r.Last > before {
			wait = readerRetryMin
		}
		Pause(ctx, wait)
		wait = min(2*wait, readerRetryMax)
	}
	return nil
}

// Pause is false if ctx ended first.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// read reads through one consumer until it fails; it never returns nil.
func (r *Reader) read(ctx context.Context) error {
	if err := r.identify(ctx); err != nil {
		return err
	}
	consumer, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer r.close(ctx, consumer)
	p, err := pullFrom(r.JS.Conn(), r.Stream, consumer.CachedInfo().Name)
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	defer p.close()
	if consumer.CachedInfo().NumPending == 0 {
		r.Idle()
	}
	var taken uint64 // consumer sequence
	quiet := time.Now()
	for {
		msg, err := p.next(ctx, taken)
		if err != nil {
			return fmt.Errorf("next message: %w", err)
		}
		if msg == nil { // a sign of life, and nothing was lost
			if time.Since(quiet) >= readerQuiet {
				r.Idle()
				quiet = time.Now()
			}
			continue
		}
		at, err := metadata(msg)
		if err != nil {
			return fmt.Errorf("message metadata: %w", err)
		}
		if at.Sequence.Consumer != taken+1 {
			return fmt.Errorf("message %d of the consumer came after %d: something was lost between", at.Sequence.Consumer, taken)
		}
		taken++
		r.Take(Message{msg}, at)
		r.Last = at.Sequence.Stream
		if quiet = time.Now(); at.NumPending == 0 {
			r.Idle()
		}
	}
}

func metadata(msg *nats.Msg) (*jetstream.MsgMetadata, error) {
	at, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	return &jetstream.MsgMetadata{
		Sequence:   jetstream.SequencePair{Consumer: at.Sequence.Consumer, Stream: at.Sequence.Stream},
		NumPending: at.NumPending, Timestamp: at.Timestamp, Stream: at.Stream, Consumer: at.Consumer, Domain: at.Domain, NumDelivered: at.NumDelivered,
	}, nil
}

// identify compares the stream with the one that was read before.
func (r *Reader) identify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := r.JS.Stream(ctx, r.Stream)
	if err != nil {
		return fmt.Errorf("look the stream up: %w", err)
	}
	info := stream.CachedInfo()
	created := info.Created
	switch {
	case r.Incarnation.IsZero():
		r.Incarnation = created
		r.Begin(created)
	case !created.Equal(r.Incarnation):
		return ErrIncarnation
	case info.State.LastSeq < r.Last:
		return fmt.Errorf("%w: it ends at %d, and was read up to %d", ErrIncarnation, info.State.LastSeq, r.Last)
	}
	return nil
}

func (r *Reader) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := r.JS.CreateConsumer(ctx, r.Stream, jetstream.ConsumerConfig{
		Name:              r.Name + "-" + nuid.Next(),
		Description:       "the whole log, read by " + r.Owner,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       r.Last + 1,
		FilterSubject:     r.Filter,
		AckPolicy:         jetstream.AckNonePolicy,
		Replicas:          1,
		MemoryStorage:     true,
		InactiveThreshold: readerInactive,
	})
	if err != nil {
		return nil, fmt.Errorf("create a consumer from %d: %w", r.Last+1, err)
	}
	return consumer, nil
}

// close is best effort, also while stopping: a consumer that cannot be deleted now goes away by itself.
func (r *Reader) close(ctx context.Context, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.JS.DeleteConsumer(ctx, r.Stream, consumer.CachedInfo().Name)
}
