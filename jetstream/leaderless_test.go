package jetstream_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
)

// leaderless is a JetStream whose buckets answer each first request of a sort as one does whose leader is on its way.
type leaderless struct{ natsjs.JetStream }

func (l leaderless) KeyValue(ctx context.Context, bucket string) (natsjs.KeyValue, error) {
	kv, err := l.JetStream.KeyValue(ctx, bucket)
	return &leaderlessKV{KeyValue: kv}, err
}

type leaderlessKV struct {
	natsjs.KeyValue
	got, created, updated bool
}

func (l *leaderlessKV) Get(ctx context.Context, key string) (natsjs.KeyValueEntry, error) {
	if !l.got {
		l.got = true
		return nil, nats.ErrNoResponders
	}
	return l.KeyValue.Get(ctx, key)
}

func (l *leaderlessKV) Create(ctx context.Context, key string, value []byte, opts ...natsjs.KVCreateOpt) (uint64, error) {
	if !l.created {
		l.created = true
		return 0, natsjs.ErrNoStreamResponse
	}
	return l.KeyValue.Create(ctx, key, value, opts...)
}

func (l *leaderlessKV) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if !l.updated {
		l.updated = true
		return 0, natsjs.ErrNoStreamResponse
	}
	return l.KeyValue.Update(ctx, key, value, revision)
}

// A bucket without a leader, as right after a start, is asked again: by who declares a kind, replaces its contract, reads it.
func TestKindsHasNoLeaderYet(t *testing.T) {
	ctx := testkit.Context(t)
	js := testkit.Start(t, 1).JetStream(t)
	if _, err := topology.ApplyShared(ctx, js, single); err != nil {
		t.Fatal(err)
	}
	c := payment()
	for i := range 2 {
		done, err := topology.ApplyKind(ctx, leaderless{js}, c, single)
		if err != nil || !done.Declared {
			t.Fatalf("contract version %d: %+v, %v", c.Version, done, err)
		}
		read, err := topology.ReadKind(ctx, leaderless{js}, c.Kind)
		if err != nil || read.Revision != done.Kind.Revision || read.Contract.Version != c.Version {
			t.Fatalf("read %d: %+v, %v, want revision %d", i, read, err, done.Kind.Revision)
		}
		c.Version++
		c.Retention.Scores *= 2
	}
}
