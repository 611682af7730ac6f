package ingest

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
)

// publishAll publishes msgs in their order, and returns when all of them are acknowledged, or else the first
// error: then some may be stored. The publisher bounds the wait for an acknowledgement.
func publishAll(ctx context.Context, to publisher, msgs []*nats.Msg) error {
	acks := make([]natsjs.PubAckFuture, 0, len(msgs))
	var first error
	for _, m := range msgs {
		ack, err := to.PublishMsgAsync(m)
		if err != nil {
			first = err
			break
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		if _, err := await(ctx, ack); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// await returns an acknowledgement, or why there is none.
func await(ctx context.Context, ack natsjs.PubAckFuture) (*natsjs.PubAck, error) {
	select {
	case a := <-ack.Ok():
		return a, nil
	default:
	}
	select {
	case a := <-ack.Ok():
		return a, nil
	case err := <-ack.Err():
		if err == nil {
			err = errors.New("no acknowledgement")
		}
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
