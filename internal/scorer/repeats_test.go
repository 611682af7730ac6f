package scorer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const repeatsKind = `kind: again
id: id
entity: card
fields:
- {name: amount, type: number, required: true}
- {name: shop, type: category, key: true}
memory:
  features:
  - {name: card_count, by: card, take: count}
  - {name: shop_mean, by: shop, take: mean, field: amount}
  repeats: {ids: 400}
lanes: 4
`

// awaitOutcomes reads the outcomes of the first n events, each of which has exactly one.
func awaitOutcomes(t *testing.T, js natsjs.JetStream, kind string, n int) map[uint64]events.Outcome {
	t.Helper()
	out := map[uint64]events.Outcome{}
	ctx, cancel := context.WithCancel(testkit.Context(t))
	defer cancel()
	client, err := events.NewClient(js.Conn())
	if err != nil {
		t.Fatal(err)
	}
	err = client.Subscribe(ctx, kind, events.Subscription{Durable: "all", FromStart: true}, func(_ context.Context, o events.Outcome) error {
		seq, _, err := events.OutcomeSeq(o.Body)
		if _, twice := out[seq]; twice || err != nil || o.Err != nil {
			return fmt.Errorf("outcome of event %d: %+v, there is one: %t, %w", seq, o, twice, err)
		}
		if out[seq] = o; len(out) == n {
			cancel()
		}
		return nil
	})
	if err != nil || len(out) < n {
		t.Fatalf("%d of %d outcomes: %v", len(out), n, err)
	}
	return out
}

// Events come again by other ways (no Nats-Msg-Id, so that all are stored), with scorers lost in between, and to other lanes: each
// repeated one, and each whose id hides another content, is told by whoever scores it.
func TestRepeatsLive(t *testing.T) {
	contract, err := events.ParseContract([]byte(repeatsKind))
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	cluster := testkit.Start(t, 1)
	js, ctx := cluster.JetStream(t), testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, contract, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	c := &crowd{t: t, cluster: cluster, killed: map[int]func(){}, graceful: map[int]func(){}, observe: func(uint64, []float64) {}, folded: func(int, uint64, *memory.Store) {}}
	defer c.running.Wait()
	defer func() {
		for _, end := range c.graceful {
			end()
		}
	}()
	c.start()
	c.start()

	type first struct {
		seq                uint64
		id, card, shop, at string
	}
	const n = 6000
	var known []first // those that are still known: the latest 400
	want := map[uint64]events.Repeat{}
	for i := range n {
		seq := uint64(i) + 1
		x := first{seq: seq, id: fmt.Sprint("p", i), card: fmt.Sprint("c", r.IntN(50)), shop: fmt.Sprint("s", r.IntN(5)), at: fmt.Sprint(1 + r.IntN(1000))}
		fresh := true
		if len(known) > 0 && r.IntN(5) == 0 {
			before := known[r.IntN(len(known))]
			again := events.Repeat{Seq: seq, First: before.seq, ID: before.id}
			x = before
			switch r.IntN(4) {
			case 0:
				x.at, again.Conflict = x.at+"1", true
			case 1:
				x.card, again.Conflict = x.card+"0", true // and maybe of another lane
			case 2:
				x.at += ".0" // the same number
			}
			again.Entity, fresh = x.card, false
			want[seq] = again
		}
		body := fmt.Sprintf(`{"id":%q,"amount":%s,"shop":%q}`, x.id, x.at, x.shop)
		if r.IntN(40) == 0 { // breaks the contract, and leaves no trace of its id
			body = fmt.Sprintf(`{"id":%q,"amount":"much"}`, x.id)
			fresh = false
			delete(want, seq)
		}
		if fresh {
			if known = append(known, x); len(known) > 400 {
				known = known[1:]
			}
		}
		if _, err := js.PublishAsync("events.again."+x.card, []byte(body)); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			select {
			case <-js.PublishAsyncComplete():
			case <-time.After(testkit.Deadline):
				t.Fatal("events are not acknowledged")
			}
		}
		if i%2000 == 1999 {
			c.lose(r, false)
			c.start()
		}
	}
	got := awaitOutcomes(t, js, "again", n)
	conflicts := 0
	for seq := uint64(1); seq <= n; seq++ {
		w, repeats := want[seq]
		o := got[seq]
		if repeats != (o.Repeat != nil) {
			t.Fatalf("event %d: %+v, want %+v", seq, o, w)
		}
		if !repeats {
			continue
		}
		w.Kind, w.Contract = "again", o.Repeat.Contract
		if *o.Repeat != w || o.Band != w.Band() || o.Entity != w.Entity {
			t.Fatalf("event %d: %+v, want %+v", seq, o.Repeat, w)
		}
		if w.Conflict {
			conflicts++
		}
	}
	if conflicts == 0 || conflicts == len(want) {
		t.Errorf("%d conflicts of %d repeats: one of the two was not tried", conflicts, len(want))
	}
}
