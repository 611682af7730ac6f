package ingest

import (
	"context"
	"errors"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

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
