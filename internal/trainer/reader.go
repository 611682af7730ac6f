package trainer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// reader carries the messages of a stream, in order and without a gap, to take. It reads through ephemeral consumers without
// acks: what was lost on the way shows as a gap in the consumer's own sequence, and a new consumer starts behind the
// last message taken.
type reader struct {
	js     jetstream.JetStream
	stream string
	filter string
	owner  string // in the consumer's description
	// begin is called before the first message.
	begin func(incarnation time.Time)
	// take gets every message once.
	take func(msg jetstream.Msg, at *jetstream.MsgMetadata)
	// idle is called when everything that the stream holds has been taken.
	idle func()
	// trouble is told why reading was interrupted; it goes on by itself.
	trouble func(error)

	last        uint64 // sequence in the stream of the last message taken
	incarnation time.Time
}

const (
	readerBatch     = 1000
	readerHeartbeat = time.Second
	readerQuiet     = 10 * time.Second // without a message: ask whether one was lost
	readerInactive  = 30 * time.Second // after which the server removes a consumer that nobody reads
	readerRetryMin  = 100 * time.Millisecond
	readerRetryMax  = 5 * time.Second
	requestTimeout  = 5 * time.Second
)

// errIncarnation: the stream is another one of the same name, and what was taken so far is void.
var errIncarnation = errors.New("the stream was made anew")

// run returns nil when ctx ends, or errIncarnation.
func (r *reader) run(ctx context.Context) error {
	wait := readerRetryMin
	for ctx.Err() == nil {
		before := r.last
		err := r.read(ctx)
		if ctx.Err() != nil {
			return nil
		}
		err = fmt.Errorf("read %s: %w", r.stream, err)
		if errors.Is(err, errIncarnation) {
			return err
		}
		r.trouble(err)
		if r.last > before {
			wait = readerRetryMin
		}
		pause(ctx, wait)
		wait = min(2*wait, readerRetryMax)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
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
func (r *reader) read(ctx context.Context) error {
	if err := r.identify(ctx); err != nil {
		return err
	}
	consumer, err := r.open(ctx)
	if err != nil {
		return err
	}
	defer r.close(ctx, consumer)
	messages, err := consumer.Messages(
		jetstream.PullMaxMessages(readerBatch), jetstream.PullExpiry(5*time.Second), jetstream.PullHeartbeat(readerHeartbeat))
	if err != nil {
		return fmt.Errorf("pull: %w", err)
	}
	defer messages.Stop()
	stopNext := context.AfterFunc(ctx, messages.Stop)
	defer stopNext()
	if consumer.CachedInfo().NumPending == 0 {
		r.idle()
	}
	var taken uint64 // consumer sequence
	for {
		msg, err := messages.Next(jetstream.NextMaxWait(readerQuiet))
		if errors.Is(err, nats.ErrTimeout) {
			if err := missed(ctx, consumer, taken); err != nil {
				return err
			}
			r.idle()
			continue
		}
		if err != nil {
			return fmt.Errorf("next message: %w", err)
		}
		at, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("message metadata: %w", err)
		}
		if at.Sequence.Consumer != taken+1 {
			return fmt.Errorf("message %d of the consumer came after %d: something was lost between", at.Sequence.Consumer, taken)
		}
		taken++
		r.take(msg, at)
		r.last = at.Sequence.Stream
		if at.NumPending == 0 {
			r.idle()
		}
	}
}

// identify compares the stream with the one that was read before.
func (r *reader) identify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	stream, err := r.js.Stream(ctx, r.stream)
	if err != nil {
		return fmt.Errorf("look the stream up: %w", err)
	}
	created := stream.CachedInfo().Created
	switch {
	case r.incarnation.IsZero():
		r.incarnation = created
		r.begin(created)
	case !created.Equal(r.incarnation):
		return errIncarnation
	}
	return nil
}

func (r *reader) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	consumer, err := r.js.CreateConsumer(ctx, r.stream, jetstream.ConsumerConfig{
		Name:              "trainer-" + nuid.Next(),
		Description:       "training data, read by " + r.owner,
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       r.last + 1,
		FilterSubject:     r.filter,
		AckPolicy:         jetstream.AckNonePolicy,
		Replicas:          1,
		MemoryStorage:     true,
		InactiveThreshold: readerInactive,
	})
	if err != nil {
		return nil, fmt.Errorf("create a consumer from %d: %w", r.last+1, err)
	}
	return consumer, nil
}

// missed says whether the consumer has delivered more than was taken.
func missed(ctx context.Context, consumer jetstream.Consumer, taken uint64) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := consumer.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask for the consumer's state: %w", err)
	}
	if info.Delivered.Consumer > taken {
		return fmt.Errorf("%d messages of the consumer came, of %d delivered", taken, info.Delivered.Consumer)
	}
	return nil
}

// close is best effort, also while stopping: a consumer that cannot be deleted now goes away by itself.
func (r *reader) close(ctx context.Context, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.js.DeleteConsumer(ctx, r.stream, consumer.CachedInfo().Name)
}
