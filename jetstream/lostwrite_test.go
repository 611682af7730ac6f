package jetstream_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Every write of a topology loses either half; whoever then does it again, as an operator would, gets what one in order
// gets: each stream once, as planned, each position once, one revision of the contract.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	if _, err := topology.ApplyShared(testkit.Context(t), js, single); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range []struct{ name, subject string }{ // %s: the kind
		{"create SCORES", "$JS.API.STREAM.CREATE.SCORES_%s"},
		{"create EVENTS", "$JS.API.STREAM.CREATE.EVENTS_%s"},
		{"positions", "position.%s.*"},
		{"declare", "$KV." + events.KindsBucket + ".%s"},
		{"update EVENTS", "$JS.API.STREAM.UPDATE.EVENTS_%s"},
		{"rebase", "position.%s.0"},
		{"record of the rebase", "alerts.>"},
	} {
		for _, half := range testkit.Halves {
			n++
			kind := fmt.Sprintf("k%d", n)
			t.Run(x.name+", "+half.String(), func(t *testing.T) {
				t.Parallel()
				ctx := testkit.Context(t)
				courier := cluster.Courier(t)
				js, err := natsjs.New(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				c := payment()
				c.Kind = kind
				subject := x.subject
				if subject != "alerts.>" {
					subject = fmt.Sprintf(subject, kind)
				}
				// again does f until it succeeds, as whoever is told of a failure does.
				again := func(f func(context.Context) error) {
					t.Helper()
					var err error
					for wait := 500 * time.Millisecond; wait < testkit.Deadline; wait *= 2 {
						try, cancel := context.WithTimeout(ctx, wait)
						err = f(try)
						cancel()
						if err == nil {
							return
						}
						t.Log(err)
					}
					t.Fatal(err)
				}
				apply := func(ctx context.Context) error {
					_, err := topology.ApplyKind(ctx, js, c, single)
					return err
				}
				revisions := 1
				switch x.name {
				case "update EVENTS":
					again(apply)
					c.Version++
					c.Retention.Scores *= 2
					c.Retention.Events *= 2
					revisions++
				case "rebase", "record of the rebase":
					again(apply)
				}
				courier.Lose(subject, half, 1)
				if x.name == "rebase" || x.name == "record of the rebase" {
					again(func(ctx context.Context) error {
						_, err := topology.Rebase(ctx, js, topology.RebaseRequest{Kind: kind, Lane: 0, By: "ann", Reason: "a test", Force: true})
						return err
					})
				} else {
					again(apply)
				}
				if courier.Lost() != 1 {
					t.Errorf("lost %d", courier.Lost())
				}
				if changes, err := topology.PlanKind(ctx, js, c, single); err != nil || len(changes) != 0 {
					t.Errorf("it would still change %v, %v", changes, err)
				}
				stored, err := topology.ReadKind(ctx, js, kind)
				if err != nil || stored.Contract.Version != c.Version {
					t.Errorf("%+v, %v", stored, err)
				}
				kv, err := js.KeyValue(ctx, events.KindsBucket)
				if err != nil {
					t.Fatal(err)
				}
				if history, err := kv.History(ctx, kind); err != nil || len(history) != revisions {
					t.Errorf("%d revisions of the contract, want %d, %v", len(history), revisions, err)
				}
				in := info(t, js, events.EventsStream(kind))
				for _, lane := range events.LaneNumbers(c.Lanes) {
					m := lastOf(t, js, events.ScoresStream(kind), events.PositionSubject(kind, lane))
					if m == nil {
						t.Fatalf("lane %d has no position", lane)
					}
					p, err := events.DecodePosition(m.Data)
					if err != nil || p.Seq != 0 || !p.Incarnation.Equal(in.Created) {
						t.Errorf("lane %d: %+v, %v", lane, p, err)
					}
				}
				if x.name != "rebase" && x.name != "record of the rebase" {
					if got := info(t, js, events.ScoresStream(kind)).State.Msgs; got != uint64(len(events.LaneNumbers(c.Lanes))) {
						t.Errorf("%d messages in SCORES, want one position a lane", got)
					}
				}
			})
		}
	}
}
