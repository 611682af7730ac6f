package jetstream_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// victims are subjects that no outsider may write, by stream.
var victims = map[string]string{
	"commit.payment.low.x":           "SCORES_payment",
	"position.payment.0":             "SCORES_payment",
	"position.payment.ingest.x":      "EVENTS_payment",
	"known.payment.from.labels":      "EVENTS_payment",
	"$KV.KINDS.payment":              "KV_KINDS",
	"$KV.MODELS.payment.rollout":     "KV_MODELS",
	"$KV.SCORERS.x":                  "KV_SCORERS",
	"$O.MEMORY.M.x":                  "OBJ_MEMORY",
	"alerts.page.x":                  "ALERTS",
	"rescores.payment.v000001.low.x": "RESCORES",
}

// An outsider may name any subject as the reply of what it publishes and asks for, and the server sends its answer there with its own
// rights. In an account of its own the answer stays in that account; within the streams' account it would be stored, which shows
// that the attack is one.
func TestNoAnswerGoesWhereAnOutsiderSays(t *testing.T) {
	for _, outside := range []bool{true, false} {
		t.Run(fmt.Sprintf("outside=%v", outside), func(t *testing.T) {
			var users []embedded.User
			var outsiders []topology.Role
			for _, r := range topology.Roles("payment") {
				users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All, Outside: r.Outside && outside})
				if r.Outside {
					outsiders = append(outsiders, r)
				}
			}
			c, admin := applied(t, payment(), testkit.Users(users...))
			ctx := testkit.Context(t)
			for _, s := range []string{"commit.payment.low.c1", "commit.payment.high.c1"} {
				if _, err := admin.Publish(ctx, s, []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := admin.CreateConsumer(ctx, "SCORES_payment", natsjs.ConsumerConfig{Durable: "x", FilterSubject: "scores.payment.>", AckPolicy: natsjs.AckExplicitPolicy}); err != nil {
				t.Fatal(err)
			}
			live, err := c.Connect(t).SubscribeSync("scores.>")
			if err != nil {
				t.Fatal(err)
			}
			seen := nats.NewInbox()
			witness, err := admin.Conn().SubscribeSync(seen) // where a reply may arrive and be seen by somebody else
			if err != nil {
				t.Fatal(err)
			}
			if err := admin.Conn().Flush(); err != nil {
				t.Fatal(err)
			}
			before := lastSeqs(t, ctx, admin)
			sent := map[string]int{} // by stream
			tries := 0
			for _, r := range outsiders {
				a := as(t, c, r.Name)
				for _, row := range r.Publish {
					subject, body := concrete(row), []byte("{}")
					if strings.HasPrefix(subject, "$JS.API.CONSUMER.CREATE.") {
						body = []byte(`{"stream_name":"SCORES_payment","config":{"name":"x","durable_name":"x","filter_subject":"scores.payment.>","ack_policy":"explicit"}}`)
					}
					if strings.HasPrefix(subject, "$JS.ACK.") || strings.HasPrefix(subject, "$JS.API.CONSUMER.DELETE.") {
						continue // the one is answered only if it says +NXT or so; the other would take the consumer away
					}
					for reply := range victims {
						ask(t, a.nc, subject, reply, body)
						tries++
						sent[streamOf(subject)]++
					}
					for _, reply := range []string{"scores.payment.low.x", seen, "events.payment.y", "labels.payment.y"} {
						ask(t, a.nc, subject, reply, body)
						tries++
						sent[streamOf(subject)]++
					}
				}
				a.nothingRefused(nil)
			}
			// What was asked before an event that is now stored has been answered, or will be: asking all streams takes their answers in turn.
			var after map[string]uint64
			want := map[string]uint64{"EVENTS_payment": before["EVENTS_payment"] + uint64(sent["EVENTS_payment"]), "LABELS": before["LABELS"] + uint64(sent["LABELS"])}
			testkit.Eventually(t, testkit.Deadline, "all that was published is stored", func() (bool, string) {
				after = lastSeqs(t, ctx, admin)
				return after["EVENTS_payment"] >= want["EVENTS_payment"] && after["LABELS"] >= want["LABELS"], fmt.Sprint(after, want)
			})
			if outside {
				// Half a second is a hundred times what an answer takes here.
				if m, err := witness.NextMsg(500 * time.Millisecond); err == nil {
					t.Errorf("an answer reached %s: %s", m.Subject, m.Data)
				}
				if m, err := live.NextMsg(1); err == nil {
					t.Errorf("the live view shows %s: %s", m.Subject, m.Data)
				}
				after = lastSeqs(t, ctx, admin)
				for stream, seq := range after {
					w, ok := want[stream]
					if !ok {
						w = before[stream]
					}
					if seq != w {
						t.Errorf("%s: %d messages more than were published to it", stream, seq-w)
					}
				}
				t.Logf("%d requests of %d roles, none of whose answers went astray", tries, len(outsiders))
				return
			}
			for _, stream := range victims {
				testkit.Eventually(t, testkit.Deadline, "within one account the attack reaches "+stream, func() (bool, string) {
					now := lastSeqs(t, ctx, admin)
					return now[stream] > max(before[stream], want[stream]), fmt.Sprint(now)
				})
			}
		})
	}
}

func ask(t *testing.T, nc *nats.Conn, subject, reply string, body []byte) {
	t.Helper()
	if err := nc.PublishRequest(subject, reply, body); err != nil {
		t.Fatal(err)
	}
}

// streamOf is the stream that stores what is published to a subject; empty: none.
func streamOf(subject string) string {
	switch {
	case strings.HasPrefix(subject, "events."):
		return "EVENTS_payment"
	case strings.HasPrefix(subject, "labels."):
		return "LABELS"
	}
	return ""
}

func lastSeqs(t *testing.T, ctx context.Context, js natsjs.JetStream) map[string]uint64 {
	t.Helper()
	seqs := map[string]uint64{}
	list := js.ListStreams(ctx)
	for s := range list.Info() {
		if s.Config.Name != "ADVISORIES" { // who came, and made a consumer
			seqs[s.Config.Name] = s.State.LastSeq
		}
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	if _, ok := seqs[events.EventsStream("payment")]; !ok {
		t.Fatal("no stream of events")
	}
	return seqs
}
