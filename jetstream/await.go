package jetstream

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

const (
	awaitTry   = 2 * time.Second // for an answer: a request that comes before there is a leader is never answered
	awaitPause = 250 * time.Millisecond
)

// AwaitBucket opens a bucket, and waits for it until ctx ends, which is its only error: a service may be started before its
// cluster is, or before the bucket is made. said is told why it waits, again when the reason changes.
func AwaitBucket(ctx context.Context, js natsjs.JetStream, name string, said func(error)) (natsjs.KeyValue, error) {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	last := ""
	for {
		kv, err := openBucket(ctx, js, name)
		if err == nil {
			return kv, nil
		}
		if ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			said(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

func openBucket(ctx context.Context, js natsjs.JetStream, name string) (natsjs.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, awaitTry)
	defer cancel()
	kv, err := js.KeyValue(ctx, name)
	if errors.Is(err, natsjs.ErrBucketNotFound) {
		return nil, fmt.Errorf("no bucket %s (riskweir topology apply makes it): %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, err)
	}
	return kv, nil
}
