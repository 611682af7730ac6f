package tail

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// Whoever may publish can store a message that looks like a word of the server's. It is a message all the same, and what comes behind it
// is read too.
func TestStoredStatusIsAMessage(t *testing.T) {
	c := testkit.Start(t, 1)
	conn := c.Connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log.*"}}); err != nil {
		t.Fatal(err)
	}
	var want []string
	put := func(subject, status, body string) {
		m := &nats.Msg{Subject: subject, Data: []byte(body)}
		if status != "" {
			m.Header = nats.Header{"Status": {status}, "Description": {"Consumer Deleted"}, "Nats-Last-Consumer": {"99"}}
		}
		if _, err := js.PublishMsg(ctx, m); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%s %s %q", subject, status, body))
	}
	put("log.a", "", "first")
	for _, status := range []string{"100", "404", "408", "409", "423", "503", "garbage"} {
		put("log.b", status, "")
		put("log.b", status, "with a body")
	}
	for i := range 2500 { // more than is asked for at once
		put("log.c", "", fmt.Sprint(i))
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var got []string
	var last uint64
	idle := make(chan struct{}, 16)
	r := &Reader{
		JS: js, Stream: "LOG", Filter: "log.*", Name: "test", Owner: "test",
		Begin: func(time.Time) {},
		Take: func(m Message, at *jetstream.MsgMetadata) {
			if at.Sequence.Stream != last+1 {
				t.Errorf("message %d after %d", at.Sequence.Stream, last)
			}
			last = at.Sequence.Stream
			got = append(got, fmt.Sprintf("%s %s %q", m.Subject(), m.Headers().Get("Status"), m.Data()))
			if len(got) == len(want) {
				stop()
			}
		},
		Idle: func() {
			select {
			case idle <- struct{}{}:
			default:
			}
		},
		Trouble: func(err error) { t.Error(err) },
	}
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages, want %d in the order in which they were stored", len(got), len(want))
	}
	select {
	case <-idle:
	default:
		t.Error("the end was reached, and Idle not called")
	}
}

// A consumer that is deleted under the reader costs nothing but another one.
func TestConsumerDeleted(t *testing.T) {
	c := testkit.Start(t, 1)
	js, err := jetstream.New(c.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(testkit.Context(t))
	defer stop()
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log.*"}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	seen := make(chan uint64, n)
	r := &Reader{
		JS: js, Stream: "LOG", Filter: "log.*", Name: "test", Owner: "test",
		Begin: func(time.Time) {}, Idle: func() {},
		Take:    func(_ Message, at *jetstream.MsgMetadata) { seen <- at.Sequence.Stream },
		Trouble: func(err error) { t.Log(err) },
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for i := range uint64(n) {
		if i%10 == 5 {
			for name := range stream.ConsumerNames(ctx).Name() {
				if err := stream.DeleteConsumer(ctx, name); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := js.Publish(ctx, "log.a", []byte("x")); err != nil {
			t.Fatal(err)
		}
		select {
		case seq := <-seen:
			if seq != i+1 {
				t.Fatalf("message %d, want %d", seq, i+1)
			}
		case <-ctx.Done():
			t.Fatalf("message %d did not come", i+1)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
