package lane

import (
	"context"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Every write of a scorer's lanes loses either half, again and again, while its events are scored: claims and commits (the
// position is the message that is answered), the making and removing of runs' consumers, and the announcements.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	for _, x := range []struct {
		name, subject string
		answered      bool
	}{
		{"claim and commit", "position." + testKind + ".*", true},
		{"outcome of a batch", "commit." + testKind + ".>", false}, // only the last message of a batch is answered
		{"create a run's consumer", "$JS.API.CONSUMER.CREATE." + events.EventsStream(testKind) + ".>", true},
		{"delete a run's consumer", "$JS.API.CONSUMER.DELETE." + events.EventsStream(testKind) + ".>", false}, // nobody waits for it
		{"announce", "$KV." + events.ScorersBucket + ".>", true},
	} {
		for _, half := range testkit.Halves {
			if half == testkit.Answer && !x.answered {
				continue
			}
			t.Run(x.name+", "+half.String(), func(t *testing.T) {
				t.Parallel()
				b := newBroker(t)
				courier := b.Courier(t)
				conn := courier.Connect(t)
				js, err := natsjs.New(conn)
				if err != nil {
					t.Fatal(err)
				}
				const rounds, each = 4, 100
				kinds := make(chan []Kind, 1)
				// live is one life of a scorer, which ends in order once work has returned.
				live := func(name string, work func()) {
					p := NewPool(Config{
						Conn: conn, JS: js, Self: Member{Instance: name, Name: name}, Limits: DefaultLimits(), Kinds: kinds,
						Stage:      func(Kind, int) Stage { return sequences{} },
						APITimeout: 300 * time.Millisecond,
						Committer: func(kind string) Committer {
							return &topology.Committer{Conn: conn, Stream: events.ScoresStream(kind), Timeout: 300 * time.Millisecond}
						},
					})
					kinds <- []Kind{{Name: testKind, Lanes: testLanes}}
					ctx, stop := context.WithCancel(t.Context())
					done := make(chan error, 1)
					go func() { done <- p.Run(ctx) }()
					defer func() {
						courier.Lose(x.subject, half, 2)
						stop()
						if err := <-done; err != nil {
							t.Error(err)
						}
					}()
					work()
				}
				courier.Lose(x.subject, half, 3)
				live("first", func() {
					for range rounds {
						b.publish(t, each)
						courier.Lose(x.subject, half, 3)
					}
					b.await(t, rounds*each)
				})
				live("second", func() {
					b.publish(t, each)
					b.await(t, (rounds+1)*each)
				})
				b.verify(t, (rounds+1)*each)
				if courier.Lost() < 3 {
					t.Errorf("lost %d: the test needs more", courier.Lost())
				}
				t.Logf("lost %d", courier.Lost())
			})
		}
	}
}
