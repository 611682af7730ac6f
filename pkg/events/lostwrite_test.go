package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// A publish loses either half; sent again with the same id, the event is stored once, and the client knows where.
func TestEitherHalfOfAPublishIsLost(t *testing.T) {
	cluster, js, _ := broker(t)
	for _, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			ctx := testkit.Context(t)
			courier := cluster.Courier(t)
			client, err := events.NewClient(courier.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			in, err := js.Stream(ctx, events.EventsStream(kind))
			if err != nil {
				t.Fatal(err)
			}
			before := in.CachedInfo().State.LastSeq
			brief := func(f func(context.Context) error) error {
				ctx, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				return f(ctx)
			}

			one := events.Event{Entity: "one", ID: half.String(), Fields: map[string]any{"amount": 1}}
			courier.Lose("events."+kind+".one", half, 1)
			if err := brief(func(ctx context.Context) error { _, err := client.Publish(ctx, kind, one); return err }); err == nil {
				t.Error("a publish was lost, and the client says that it is stored")
			}
			ack, err := client.Publish(ctx, kind, one)
			if err != nil || ack.Seq != before+1 || ack.Duplicate != (half == testkit.Answer) {
				t.Errorf("again: %+v, %v", ack, err)
			}

			const n = 50
			batch := make([]events.Event, n)
			for i := range batch {
				batch[i] = events.Event{Entity: fmt.Sprintf("many%d", i%5), ID: fmt.Sprint(half, i), Fields: map[string]any{"amount": i}}
			}
			courier.Lose("events."+kind+".many3", half, 4)
			failed := 0
			err = brief(func(ctx context.Context) error {
				results, err := client.PublishBatch(ctx, kind, batch)
				for _, r := range results {
					if r.Err != nil {
						failed++
					}
				}
				return err
			})
			if err == nil || failed != 4 {
				t.Errorf("%d of the batch failed, want 4, %v", failed, err)
			}
			if _, err := client.PublishBatch(ctx, kind, batch); err != nil {
				t.Error(err)
			}
			info, err := in.Info(ctx)
			if err != nil || info.State.LastSeq != before+1+n {
				t.Errorf("EVENTS ends at %d, want %d, %v", info.State.LastSeq, before+1+n, err)
			}

			// A label has no id: the same claim may stand there twice, and says the same.
			yes := 1
			claim := events.Label{ID: one.ID, Label: &yes, KnownAt: time.Unix(1, 0).UTC()}
			courier.Lose("labels."+kind+".one", half, 1)
			if err := brief(func(ctx context.Context) error { _, err := client.Label(ctx, kind, "one", claim); return err }); err == nil {
				t.Error("a label was lost, and the client says that it is stored")
			}
			if _, err := client.Label(ctx, kind, "one", claim); err != nil {
				t.Error(err)
			}
			if courier.Lost() != 6 {
				t.Errorf("lost %d, want 6", courier.Lost())
			}
		})
	}
}

// A subscriber whose request for a durable is lost is told so; when it subscribes again it finds the durable, whether it had been made or
// not, and handles every outcome.
func TestEitherHalfOfADurableIsLost(t *testing.T) {
	cluster, js, client := broker(t)
	score(t, js)
	publishAmounts(t, js, client, 1, 2, 3)
	for i, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			courier := cluster.Courier(t)
			client, err := events.NewClient(courier.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			s := events.Subscription{Durable: fmt.Sprintf("ledger%d", i), FromStart: true}
			courier.Lose("$JS.API.CONSUMER.CREATE.>", half, 1)
			brief, cancel := context.WithTimeout(testkit.Context(t), time.Second)
			defer cancel()
			if err := client.Subscribe(brief, kind, s, func(context.Context, events.Outcome) error { return errors.New("handled") }); err != nil {
				t.Errorf("subscribed, and %v", err)
			}
			_, err = js.Consumer(testkit.Context(t), events.ScoresStream(kind), s.Durable)
			if made := err == nil; made != (half == testkit.Answer) {
				t.Errorf("the durable: %v", err)
			}
			ctx, stop := context.WithCancel(testkit.Context(t))
			defer stop()
			var ids []string
			err = client.Subscribe(ctx, kind, s, func(_ context.Context, o events.Outcome) error {
				if ids = append(ids, o.Score.ID); len(ids) == 3 {
					stop()
				}
				return nil
			})
			if slices.Sort(ids); err != nil || !slices.Equal(ids, []string{"1", "2", "3"}) {
				t.Errorf("handled %v, %v", ids, err)
			}
			if courier.Lost() != 1 {
				t.Errorf("lost %d", courier.Lost())
			}
		})
	}
}

// Whoever looks for an older outcome makes and removes consumers: a lost one is an error or a delay, never another outcome.
func TestEitherHalfOfALookIsLost(t *testing.T) {
	cluster, js, client := broker(t)
	score(t, js)
	publishAmounts(t, js, client, 1, 2, 3, 4)
	for _, subject := range []string{"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>"} {
		for _, half := range testkit.Halves {
			if subject == "$JS.API.CONSUMER.DELETE.>" && half == testkit.Answer {
				continue // nobody waits for one
			}
			t.Run(subject+", "+half.String(), func(t *testing.T) {
				courier := cluster.Courier(t)
				client, err := events.NewClient(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				courier.Lose(subject, half, 1)
				brief, cancel := context.WithTimeout(testkit.Context(t), time.Second)
				defer cancel()
				if body, _, err := client.Outcome(brief, kind, "c1", 1); (err == nil) != (subject == "$JS.API.CONSUMER.DELETE.>") || err == nil && !strings.Contains(string(body), `"id":"1"`) {
					t.Errorf("first: %s, %v", body, err)
				}
				if body, _, err := client.Outcome(testkit.Context(t), kind, "c1", 1); err != nil || !strings.Contains(string(body), `"id":"1"`) {
					t.Errorf("again: %s, %v", body, err)
				}
				testkit.Eventually(t, testkit.Deadline, "the loss", func() (bool, string) { return courier.Lost() == 1, fmt.Sprint(courier.Lost()) })
			})
		}
	}
}
