package embedded

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A user outside, who comes by a reload, reaches what is imported.
func TestReloadOfAUserOutside(t *testing.T) {
	admin, adminKey := userKey(t)
	guest, guestKey := userKey(t)
	all := []User{{Name: "admin", PublicKey: adminKey, All: true}}
	n, _ := run(t, Config{
		Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, Users: all,
		Imports: Imports{Publish: []string{"events.*", "$JS.API.INFO", "$JS.API.CONSUMER.INFO.*.*"}, Many: []string{"$JS.API.CONSUMER.MSG.NEXT.*.*"}, Live: []string{"scores.>"}},
	})
	nc, err := nats.Connect(n.ClientURL(), nats.Nkey(adminKey, admin.Sign))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"events.*"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "S", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckNonePolicy}); err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // and once more, after it was gone
		if err := n.Reload(append(all, User{Name: "guest", PublicKey: guestKey, Outside: true,
			Publish: []string{"events.a", "$JS.API.CONSUMER.INFO.S.c", "$JS.API.CONSUMER.MSG.NEXT.S.c"}, Subscribe: []string{"_INBOX.>", "scores.>"}})); err != nil {
			t.Fatal(err)
		}
		g, err := nats.Connect(n.ClientURL(), nats.Nkey(guestKey, guest.Sign), nats.NoReconnect())
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		gs, err := jetstream.New(g)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := gs.Publish(t.Context(), "events.a", []byte("x")); err != nil {
			t.Errorf("round %d: publish: %v", round, err)
		}
		live, err := g.SubscribeSync("scores.>")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := nc.Publish("scores.1", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := live.NextMsg(5 * time.Second); err != nil {
			t.Errorf("round %d: live: %v", round, err)
		}
		c, err := gs.Consumer(t.Context(), "S", "c")
		if err != nil {
			t.Fatalf("round %d: consumer: %v", round, err)
		}
		if m, err := c.Next(); err != nil || m.Subject() != "events.a" {
			t.Errorf("round %d: next: %v, %v", round, m, err)
		}
		if err := n.Reload(all); err != nil {
			t.Fatal(err)
		}
	}
}
