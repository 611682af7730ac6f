package tail

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
)

// A reader whose request to make or to remove a consumer, or to be sent messages, is lost reads every message once all the same, and goes
// on where the one before it stopped. Of a request for messages there is no answer that could be lost alone: that would be the messages.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	c := testkit.Start(t, 1)
	js := c.JetStream(t)
	if _, err := js.CreateStream(testkit.Context(t), jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log.*"}}); err != nil {
		t.Fatal(err)
	}
	const n = 1500
	for i := range n {
		if _, err := js.Publish(testkit.Context(t), "log.a", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	type lost struct {
		subject string
		half    testkit.Half
	}
	for _, l := range []lost{
		{"$JS.API.CONSUMER.CREATE.>", testkit.Request}, {"$JS.API.CONSUMER.CREATE.>", testkit.Answer},
		{"$JS.API.CONSUMER.DELETE.>", testkit.Request}, {"$JS.API.CONSUMER.DELETE.>", testkit.Answer},
		{"$JS.API.CONSUMER.MSG.NEXT.>", testkit.Request},
	} {
		t.Run(l.subject+", "+l.half.String(), func(t *testing.T) {
			t.Parallel()
			courier := c.Courier(t)
			js, err := jetstream.New(courier.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			courier.Lose(l.subject, l.half, 1)
			var taken uint64
			for _, end := range []uint64{n / 2, n} { // two readers, so that one is closed and another goes on
				ctx, stop := context.WithCancel(testkit.Context(t))
				r := &Reader{
					JS: js, Stream: "LOG", Name: "test", Owner: "test", Last: taken,
					Begin: func(time.Time) {}, Idle: func() {},
					Trouble: func(err error) { t.Log(err) },
					Take: func(m Message, at *jetstream.MsgMetadata) {
						if ctx.Err() != nil {
							return // came with the last one that was wanted
						}
						if taken++; at.Sequence.Stream != taken || string(m.Data()) != fmt.Sprint(taken-1) {
							t.Errorf("message %d came as number %d", at.Sequence.Stream, taken)
						}
						if taken == end {
							stop()
						}
					},
				}
				if err := r.Run(ctx); err != nil {
					t.Fatal(err)
				}
				stop()
			}
			if taken != n || courier.Lost() != 1 {
				t.Errorf("%d messages, want %d; %d requests or answers lost, want 1", taken, n, courier.Lost())
			}
		})
	}
}
