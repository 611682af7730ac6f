package events_test

import (
	"context"
	"fmt"
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
