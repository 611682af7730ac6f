package jetstream_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func subscriber(t *testing.T, name, filter string) topology.Subscriber {
	t.Helper()
	s, err := topology.NewSubscriber(name, filter)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNamesAndFiltersOfSubscribers(t *testing.T) {
	for _, filter := range []string{"scores.payment.high.*", "scores.payment.*.c1", "scores.payment.*.*", "scores.payment.>", "scores.payment.high.>"} {
		if s := subscriber(t, "case-work_1", filter); s.Kind != "payment" {
			t.Errorf("%+v", s)
		}
	}
	for _, filter := range []string{"", "scores", "scores.>", "scores.*.high.*", "scores.payment", "scores.payment.high", "events.payment.c1", "position.payment.>", "scores.payment.high.c1.x",
		"scores.payment.>.c1", "scores.payment.h*.c1", "scores.payment.high.c 1", "scores.payment..c1", "scores.Pay ment.>", "commit.payment.>", "scores.payment.high.c1\r\nPUB"} {
		if s, err := topology.NewSubscriber("x", filter); err == nil {
			t.Errorf("%q was taken: %+v", filter, s)
		}
	}
	for _, name := range []string{"", "a.b", "a b", "*", ">", "é", "../x", strings.Repeat("x", 33)} {
		if _, err := topology.NewSubscriber(name, "scores.payment.>"); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}

// Two parties, each with its filter: each reads its own, as a durable and live, by the public client too, and nothing of the other.
func TestASubscriberReadsItsFilterOnly(t *testing.T) {
	risky, one := subscriber(t, "risky", "scores.payment.high.*"), subscriber(t, "one", "scores.payment.*.c1")
	var users []embedded.User
	for _, s := range []topology.Subscriber{risky, one} {
		r := s.Role()
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, Outside: r.Outside})
	}
	c, admin := applied(t, payment(), testkit.Users(users...))
	ctx := testkit.Context(t)
	for _, s := range []topology.Subscriber{risky, one} {
		if err := topology.AddSubscriber(ctx, admin, s, true); err != nil {
			t.Fatal(err)
		}
	}
	a := as(t, c, risky.User())
	a.mayListen("scores.payment.high.*")
	live, err := a.nc.SubscribeSync("scores.payment.high.*")
	if err != nil {
		t.Fatal(err)
	}
	a.nothingRefused(nil)
	score := []byte(`{"id":"x"}`)
	for _, s := range []string{"commit.payment.low.c1", "commit.payment.high.c2", "commit.payment.low.c3"} {
		if _, err := admin.Publish(ctx, s, score); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := live.NextMsg(5 * time.Second); err != nil || m.Subject != "scores.payment.high.c2" {
		t.Errorf("live: %v, %v", m, err)
	}
	for user, want := range map[string]string{risky.User(): "scores.payment.high.c2", one.User(): "scores.payment.low.c1"} {
		a := as(t, c, user)
		cons, err := a.js.Consumer(ctx, "SCORES_payment", user)
		if err != nil {
			t.Fatal(err)
		}
		batch, err := cons.Fetch(10, natsjs.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for m := range batch.Messages() {
			got = append(got, m.Subject())
			a.nothingRefused(m.DoubleAck(ctx))
		}
		if !slices.Equal(got, []string{want}) {
			t.Errorf("%s reads %v, want %s", user, got, want)
		}
		a.nothingRefused(nil)
	}
	all, err := topology.Subscribers(ctx, admin)
	if err != nil || len(all) != 2 || all[0].Name != "one" || all[1].Subscriber != risky || all[1].Waiting+uint64(all[1].UnderWay) != 0 {
		t.Errorf("%+v, %v", all, err)
	}

	// By the public client.
	b := as(t, c, one.User())
	client, err := events.NewClient(b.nc)
	if err != nil {
		t.Fatal(err)
	}
	sub, stop := context.WithCancel(ctx)
	defer stop()
	if _, err := admin.Publish(ctx, "commit.payment.high.c1", score); err != nil {
		t.Fatal(err)
	}
	seen := ""
	if err := client.Subscribe(sub, "payment", events.Subscription{Durable: one.User()}, func(_ context.Context, o events.Outcome) error {
		seen = o.Band + "." + o.Entity
		stop()
		return nil
	}); err != nil || seen != "high.c1" {
		t.Errorf("by the client: %q, %v", seen, err)
	}
	b.nothingRefused(nil)

	a.mayNot(slices.Concat(nobody, scorersOnly, []string{
		"events.payment.c1", "labels.payment.c1", "known.payment.from.labels", "$JS.API.INFO", "$JS.API.STREAM.INFO.SCORES_payment", "$JS.API.STREAM.NAMES",
		"$JS.API.CONSUMER.CREATE.SCORES_payment.x.scores.payment.high.*", "$JS.API.CONSUMER.DELETE.SCORES_payment." + risky.User(),
		"$JS.API.CONSUMER.MSG.NEXT.SCORES_payment." + one.User(), "$JS.API.CONSUMER.INFO.SCORES_payment." + one.User(), "$JS.ACK.SCORES_payment." + one.User() + ".1.1.1.1.0",
		"$JS.API.DIRECT.GET.SCORES_payment.scores.payment.high.c2", "$JS.API.STREAM.MSG.GET.SCORES_payment",
	}), append([]string{"scores.>", "scores.payment.>", "scores.payment.low.*", "scores.*.high.*", "commit.>", "events.>", "_INBOX_" + one.User() + ".>"}, othersInboxes...))
}

// A tenant is an account with a Riskweir of its own: the same subjects, streams and names, and nothing in common.
func TestTenantsShareNothing(t *testing.T) {
	c := testkit.Start(t, 1, testkit.Tenants("BLUE", "GREEN"))
	ctx := testkit.Context(t)
	of := map[string]natsjs.JetStream{}
	for _, tenant := range []string{"BLUE", "GREEN"} {
		js, err := natsjs.New(c.ConnectAs(t, tenant))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := topology.ApplyShared(ctx, js, single); err != nil {
			t.Fatal(err)
		}
		if _, err := topology.ApplyKind(ctx, js, payment(), single); err != nil {
			t.Fatal(err)
		}
		of[tenant] = js
	}
	ear, err := of["GREEN"].Conn().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := of["GREEN"].Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := of["BLUE"].Publish(ctx, "events.payment.c1", []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := of["BLUE"].Publish(ctx, "commit.payment.low.c1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	store(t, of["BLUE"], events.ModelsBucket, "payment.rollout")
	for tenant, want := range map[string]uint64{"BLUE": 3, "GREEN": 0} {
		if got := info(t, of[tenant], "EVENTS_payment").State.Msgs; got != want {
			t.Errorf("%s has %d events, want %d", tenant, got, want)
		}
	}
	if got := info(t, of["GREEN"], "KV_"+events.ModelsBucket).State.Msgs; got != 0 {
		t.Errorf("GREEN has %d models of BLUE's", got)
	}
	for { // what GREEN itself asked is heard, too
		m, err := ear.NextMsg(200 * time.Millisecond)
		if err != nil {
			break
		}
		if !strings.HasPrefix(m.Subject, "$JS.API.") && !strings.HasPrefix(m.Subject, "$JS.EVENT.") && !strings.HasPrefix(m.Subject, "_INBOX_GREEN.") &&
			!strings.HasPrefix(m.Subject, "$JSC.R.") && !strings.HasPrefix(m.Subject, "$JS.S.") { // ROLLOUTS copies from GREEN's own MODELS
			t.Errorf("GREEN hears %s", m.Subject)
		}
	}
}

func TestEitherHalfOfASubscriberIsLost(t *testing.T) {
	c, admin := applied(t, payment())
	for _, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			ctx := testkit.Context(t)
			courier := c.Courier(t)
			js, err := natsjs.New(courier.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			s := subscriber(t, "casework", "scores.payment.high.*")
			again := func(f func(context.Context) error) {
				t.Helper()
				var err error
				for range 5 {
					try, cancel := context.WithTimeout(ctx, 2*time.Second)
					err = f(try)
					cancel()
					if err == nil {
						return
					}
					t.Log(err)
				}
				t.Fatal(err)
			}
			courier.Lose("$JS.API.CONSUMER.CREATE.SCORES_payment.>", half, 1)
			again(func(ctx context.Context) error { return topology.AddSubscriber(ctx, js, s, false) })
			again(func(ctx context.Context) error { return topology.AddSubscriber(ctx, js, s, true) }) // stays where it is
			if all, err := topology.Subscribers(ctx, admin); err != nil || len(all) != 1 || all[0].Subscriber != s {
				t.Errorf("%+v, %v", all, err)
			}
			other := subscriber(t, "casework", "scores.payment.low.*")
			if err := topology.AddSubscriber(ctx, js, other, false); err == nil || !strings.Contains(err.Error(), "reads scores.payment.high.*") {
				t.Errorf("another filter: %v", err)
			}
			courier.Lose("$JS.API.CONSUMER.DELETE.SCORES_payment.>", half, 1)
			again(func(ctx context.Context) error { return topology.RemoveSubscriber(ctx, js, s) })
			if all, err := topology.Subscribers(ctx, admin); err != nil || len(all) != 0 {
				t.Errorf("%+v, %v", all, err)
			}
			if courier.Lost() != 2 {
				t.Errorf("lost %d", courier.Lost())
			}
		})
	}
	if err := topology.AddSubscriber(testkit.Context(t), admin, subscriber(t, "x", "scores.nokind.>"), false); err == nil || !strings.Contains(err.Error(), "not declared") {
		t.Errorf("an undeclared kind: %v", err)
	}
}
