package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// contract of the tests' kind.
func contract(change func(*events.Contract)) events.Contract {
	c := events.DefaultContract()
	c.Kind, c.ID, c.Entity, c.Time, c.Lanes = "payment", "id", "card", "at", 2
	c.Fields = []events.Field{
		{Name: "amount", Type: events.Number, Required: true},
		{Name: "country", Type: events.Category},
	}
	c.Label = &events.LabelColumn{Column: "fraud", Positive: []string{"yes"}}
	if change != nil {
		change(&c)
	}
	return c
}

// broker is one node that has the tests' kind.
type broker struct {
	*testkit.Cluster
	nc     *nats.Conn
	js     natsjs.JetStream
	schema *events.Schema
}

func start(t *testing.T, change func(*events.Contract)) *broker {
	t.Helper()
	b := &broker{Cluster: testkit.Start(t, 1)}
	b.nc = b.Connect(t)
	var err error
	if b.js, err = natsjs.New(b.nc); err != nil {
		t.Fatal(err)
	}
	if _, err := jetstream.ApplyShared(t.Context(), b.js, jetstream.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	b.declare(t, change)
	return b
}

func (b *broker) declare(t *testing.T, change func(*events.Contract)) {
	t.Helper()
	c := contract(change)
	if _, err := jetstream.ApplyKind(t.Context(), b.js, c, jetstream.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.schema, err = events.Compile(c); err != nil {
		t.Fatal(err)
	}
}

// messages of a stream whose subjects begin so, in order.
func (b *broker) messages(t *testing.T, stream, prefix string) (all []*natsjs.RawStreamMsg) {
	t.Helper()
	s, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(m.Subject, prefix) {
			all = append(all, m)
		}
	}
	return all
}

func (b *broker) events(t *testing.T) []*natsjs.RawStreamMsg {
	return b.messages(t, events.EventsStream(b.schema.Contract.Kind), "events.")
}

func (b *broker) labels(t *testing.T) (all []events.Label) {
	t.Helper()
	for _, m := range b.messages(t, events.LabelsStream, "labels."+b.schema.Contract.Kind+".") {
		l, err := events.DecodeLabel(events.JSON, m.Data)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	return all
}

// id of an event.
func (b *broker) id(t *testing.T, body []byte) string {
	t.Helper()
	var rec events.Record
	enc, err := events.DetectEncoding("", body)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.schema.Decode(enc, body, &rec); err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	return string(rec.ID)
}

// fate is what befalls one remote write.
type fate uint8

const (
	goes      fate = iota
	fails          // not applied, and reported as not known
	loses          // applied, and reported as not known
	diesEarly      // the process is killed before
	diesLate       // the process is killed between the write and its answer
)

var errLost = errors.New("the answer was lost")

// fates makes every remote write meet what next says. It wraps committers and a publisher.
type fates struct {
	next    func() fate
	die     context.CancelFunc
	publish publisher

	mu sync.Mutex // of next
}

func (f *fates) draw() fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next()
}

// fated is a committer under fates.
type fated struct {
	*fates
	committer
}

func (f fated) Commit(ctx context.Context, msgs []*nats.Msg) (uint64, error) {
	x := f.draw()
	switch x {
	case fails:
		return 0, errLost
	case diesEarly:
		f.die()
		return 0, errLost
	}
	seq, err := f.committer.Commit(ctx, msgs)
	switch {
	case x == diesLate:
		f.die()
		return 0, errLost
	case x == loses && err == nil:
		return 0, errLost
	}
	return seq, err
}

func (f *fates) PublishMsgAsync(m *nats.Msg, o ...natsjs.PublishOpt) (natsjs.PubAckFuture, error) {
	x := f.draw()
	if x == fails {
		return lostAck{m}, nil
	}
	ack, err := f.publish.PublishMsgAsync(m, o...)
	if err != nil || x == goes {
		return ack, err
	}
	select { // it is applied first
	case <-ack.Ok():
	case err := <-ack.Err():
		return nil, err
	case <-time.After(testkit.Deadline):
		return nil, fmt.Errorf("no answer")
	}
	return lostAck{m}, nil
}

// lostAck is a future that fails.
type lostAck struct{ m *nats.Msg }

func (l lostAck) Ok() <-chan *natsjs.PubAck { return nil }
func (l lostAck) Msg() *nats.Msg            { return l.m }
func (l lostAck) Err() <-chan error {
	c := make(chan error, 1)
	c <- errLost
	return c
}
