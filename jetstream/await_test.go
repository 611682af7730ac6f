package jetstream_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestAwaitBucket(t *testing.T) {
	js := testkit.Start(t, 1).JetStream(t)
	ctx, cancel := context.WithCancel(testkit.Context(t))
	defer cancel()
	type answer struct {
		kv  natsjs.KeyValue
		err error
	}
	answers := make(chan answer, 1)
	said := make(chan error, 10)
	var tries atomic.Int64
	counted := counting{js, &tries}
	await := func() {
		kv, err := topology.AwaitBucket(ctx, counted, events.ModelsBucket, func(err error) { said <- err })
		answers <- answer{kv, err}
	}

	go await()
	if err := <-said; !errors.Is(err, natsjs.ErrBucketNotFound) {
		t.Errorf("said %v", err)
	}
	testkit.Eventually(t, testkit.Deadline, "it tries again", func() (bool, string) { return tries.Load() >= 3, "" })
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if a := <-answers; a.err != nil || a.kv.Bucket() != events.ModelsBucket {
		t.Errorf("%+v", a)
	}
	if len(said) > 0 {
		t.Errorf("said again for the same reason: %v", <-said)
	}

	if err := js.DeleteKeyValue(ctx, events.ModelsBucket); err != nil {
		t.Fatal(err)
	}
	go await()
	<-said
	cancel()
	if a := <-answers; !errors.Is(a.err, context.Canceled) {
		t.Errorf("%+v: want that it was cancelled", a)
	}
}

// counting counts the attempts to open a bucket.
type counting struct {
	natsjs.JetStream
	tries *atomic.Int64
}

func (c counting) KeyValue(ctx context.Context, bucket string) (natsjs.KeyValue, error) {
	c.tries.Add(1)
	return c.JetStream.KeyValue(ctx, bucket)
}
