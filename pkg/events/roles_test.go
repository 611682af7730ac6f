package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// deaf is a caller who does not see the live view.
const deaf = "deaf"

// guarded is broker with the permission table in force, for the kinds or for all.
func guarded(t testing.TB, kinds ...string) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	var users []embedded.User
	for _, r := range topology.Roles(kinds...) {
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All, Outside: r.Outside})
		if r.Name == topology.RoleCaller {
			users = append(users, embedded.User{Name: deaf, Publish: r.Publish, Subscribe: []string{testkit.InboxPrefix(deaf) + ".>"}, Outside: r.Outside})
		}
	}
	return node(t, testkit.Users(users...))
}

// user is a client of one role.
type user struct {
	*events.Client
	t  testing.TB
	nc *nats.Conn

	mu      sync.Mutex
	refused []string
}

func as(t testing.TB, cluster *testkit.Cluster, role string, opts ...nats.Option) *user {
	t.Helper()
	u := &user{t: t}
	u.nc = cluster.ConnectAs(t, role, append(opts, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.refused = append(u.refused, err.Error())
	}))...)
	var err error
	if u.Client, err = events.NewClient(u.nc); err != nil {
		t.Fatal(err)
	}
	return u
}

// refusals so far: they come before the answer to a ping.
func (u *user) refusals() []string {
	u.t.Helper()
	if err := u.nc.FlushWithContext(testkit.Context(u.t)); err != nil {
		u.t.Fatal(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.refused)
}

func (u *user) nothingRefused() {
	u.t.Helper()
	if got := u.refusals(); len(got) > 0 {
		u.t.Errorf("refused: %s", strings.Join(got, "\n"))
	}
}

// refusedWith checks an error that must have come from the server's refusal, and not from the end of the time.
func refusedWith(t *testing.T, err error, want ...string) {
	t.Helper()
	if !errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want a refusal", err)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %v, want it to contain %s", err, w)
		}
	}
}

func amount(entity, id string, x int) events.Event {
	return events.Event{Entity: entity, ID: id, Fields: map[string]any{"id": id, "amount": x}}
}

func TestClientAsPublisher(t *testing.T) {
	for _, kinds := range [][]string{nil, {kind}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			cluster, _ := guarded(t, kinds...)
			ctx := testkit.Context(t)
			p := as(t, cluster, topology.RolePublisher)
			for _, duplicate := range []bool{false, true} {
				if ack, err := p.Publish(ctx, kind, amount("c1", "p 1", 5)); err != nil || ack.Seq != 1 || ack.Duplicate != duplicate {
					t.Errorf("publish: %+v, %v", ack, err)
				}
			}
			if results, err := p.PublishBatch(ctx, kind, []events.Event{amount("c1", "p 1", 5), amount("c2", "p 2", 5)}); err != nil || !results[0].Ack.Duplicate || results[1].Ack.Seq != 2 {
				t.Errorf("batch: %+v, %v", results, err)
			}
			bad := 1
			if _, err := p.Label(ctx, kind, "c1", events.Label{ID: "p 1", Label: &bad}); err != nil {
				t.Errorf("label: %v", err)
			}
			p.nothingRefused()

			_, err := p.Score(ctx, kind, amount("c1", "p 3", 5))
			refusedWith(t, err, "event 3 of kind payment is stored", "needs the role caller", `Subscription to "scores.payment.*.c1"`)
			_, _, err = p.Outcome(ctx, kind, "c1", 1)
			refusedWith(t, err, "look for the outcome of event 1", "subscriber or caller", "STREAM.INFO.SCORES_payment")
			refusedWith(t, p.Subscribe(ctx, kind, events.Subscription{}, nil), "subscribe to scores.payment.*.*", "subscriber or caller")
			refusedWith(t, p.Subscribe(ctx, kind, events.Subscription{Durable: "sink"}, nil), "durable sink on SCORES_payment", "subscriber or caller")

			short, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
			defer cancel()
			if kinds == nil { // a publisher does not see what streams there are
				_, err = p.Publish(short, "other", amount("c1", "p 1", 5))
				if !errors.Is(err, events.ErrNotAccepted) || !strings.Contains(err.Error(), "its kind is not declared, or its stream has no leader now") {
					t.Errorf("undeclared kind: %v", err)
				}
				return
			}
			_, err = p.Publish(ctx, "other", amount("c1", "p 1", 5))
			refusedWith(t, err, "publish to events.other.c1: not accepted", "publisher or caller")
			results, err := p.PublishBatch(ctx, "other", []events.Event{amount("c1", "p 1", 5)})
			refusedWith(t, err, "1 of 1 events not stored")
			refusedWith(t, results[0].Err, "publish to events.other.c1: not accepted", "publisher or caller")
		})
	}
}

func TestClientAsCaller(t *testing.T) {
	for _, kinds := range [][]string{nil, {kind}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			cluster, js := guarded(t, kinds...)
			score(t, js)
			ctx := testkit.Context(t)
			c := as(t, cluster, topology.RoleCaller)
			for i := range 9 {
				if s, err := c.Score(ctx, kind, amount("c1", fmt.Sprint(i), i)); err != nil || s.ID != fmt.Sprint(i) {
					t.Errorf("event %d: %+v, %v", i, s, err)
				}
			}
			// Scored long ago, and not the entity's last: the view shows nothing.
			if s, err := c.Score(ctx, kind, amount("c1", "2", 2)); err != nil || s.ID != "2" {
				t.Errorf("scored before: %+v, %v", s, err)
			}
			if body, band, err := c.Outcome(ctx, kind, "c1", 4); err != nil || band != events.BandLow || !strings.Contains(string(body), `"id":"3"`) {
				t.Errorf("outcome: %s, %s, %v", body, band, err)
			}
			if _, err := c.PublishBatch(ctx, kind, []events.Event{amount("c2", "b", 5)}); err != nil {
				t.Error(err)
			}
			noConsumerStays(t, js)
			c.nothingRefused()

			// The view shows nothing at all.
			d := as(t, cluster, deaf)
			for i := range 3 {
				if s, err := d.Score(ctx, kind, amount("c3", fmt.Sprint("d", i), 200)); err != nil || s.ID != fmt.Sprint("d", i) || s.Band != events.BandHigh {
					t.Errorf("without the view: %+v, %v", s, err)
				}
			}
			for _, r := range d.refusals() {
				if !strings.Contains(r, `Subscription to "scores.payment.*.c3"`) {
					t.Errorf("refused: %s", r)
				}
			}
		})
	}
}

func noConsumerStays(t *testing.T, js natsjs.JetStream) {
	t.Helper()
	scores, err := js.Stream(t.Context(), events.ScoresStream(kind))
	if err != nil {
		t.Fatal(err)
	}
	// Sooner than the server forgets them by itself.
	testkit.Eventually(t, 5*time.Second, "the search has left no consumer", func() (bool, string) {
		info, err := scores.Info(t.Context())
		return err == nil && info.State.Consumers == 0, fmt.Sprint(info, err)
	})
}

func TestClientAsSubscriber(t *testing.T) {
	for _, kinds := range [][]string{nil, {kind}} {
		t.Run(fmt.Sprint(kinds), func(t *testing.T) {
			cluster, js := guarded(t, kinds...)
			score(t, js)
			ctx := testkit.Context(t)
			s := as(t, cluster, topology.RoleSubscriber)
			admin, err := events.NewClient(cluster.Connect(t))
			if err != nil {
				t.Fatal(err)
			}

			viewed, viewing := make(chan events.Outcome, 10), make(chan error, 1)
			view, cancel := context.WithCancel(ctx)
			defer cancel()
			go func() {
				viewing <- s.Subscribe(view, kind, events.Subscription{Entity: "c1"}, func(_ context.Context, o events.Outcome) error {
					viewed <- o
					return nil
				})
			}()
			testkit.Eventually(t, testkit.Deadline, "the view is open", func() (bool, string) {
				return s.nc.NumSubscriptions() > 0 && s.nc.Flush() == nil, "no subscription"
			})
			publishAmounts(t, js, admin, 1, 2, 3)
			for _, want := range []string{"1", "2", "3"} {
				if o := <-viewed; o.Score == nil || o.Score.ID != want {
					t.Errorf("view shows %+v, want %s", o, want)
				}
			}
			cancel()
			if err := <-viewing; err != nil {
				t.Errorf("view: %v", err)
			}
			// A durable is made, then found; what was acknowledged does not come again.
			for _, want := range [][]string{{"1", "2"}, {"3"}} {
				var ids []string
				part, cancel := context.WithCancel(ctx)
				err := s.Subscribe(part, kind, events.Subscription{Durable: "ledger", FromStart: true}, func(_ context.Context, o events.Outcome) error {
					if ids = append(ids, o.Score.ID); len(ids) == len(want) {
						cancel()
					}
					return nil
				})
				cancel()
				if err != nil || !slices.Equal(ids, want) {
					t.Errorf("durable: %v, %v, want %v", ids, err, want)
				}
			}
			if body, _, err := s.Outcome(ctx, kind, "c1", 2); err != nil || !strings.Contains(string(body), `"id":"2"`) {
				t.Errorf("outcome: %s, %v", body, err)
			}
			s.nothingRefused()

			_, err = s.Publish(ctx, kind, amount("c\"1", "p", 5)) // the server quotes what it refuses
			refusedWith(t, err, "not accepted", "publisher or caller")
			if !errors.Is(err, events.ErrNotAccepted) {
				t.Errorf("publish: %v", err)
			}
			_, err = s.Score(ctx, kind, amount("c1", "p", 5))
			refusedWith(t, err, "publish to events.payment.c1: not accepted", "publisher or caller")
			results, err := s.PublishBatch(ctx, kind, []events.Event{amount("c1", "p", 5), amount("c2", "q", 5)})
			refusedWith(t, err, "2 of 2 events not stored", "publisher or caller")
			for _, r := range results { // either refusal may be seen first, and then stands for both
				refusedWith(t, r.Err, "publish to events.payment.", "publisher or caller")
			}
			bad := 1
			_, err = s.Label(ctx, kind, "c1", events.Label{ID: "p", Label: &bad})
			refusedWith(t, err, "publish to labels.payment.c1: not accepted", "publisher or caller")
			if kinds != nil {
				refusedWith(t, s.Subscribe(ctx, "other", events.Subscription{}, nil), "subscribe to scores.other.*.*")
			} else if err := s.Subscribe(ctx, "other", events.Subscription{Durable: "sink"}, nil); !errors.Is(err, events.ErrUndeclaredKind) {
				t.Errorf("undeclared kind: %v", err)
			}
		})
	}
}

// Among thousands of an entity's outcomes, and of others', each is found.
func TestClientFindsTheOutcome(t *testing.T) {
	cluster, js := guarded(t)
	ctx := testkit.Context(t)
	s := as(t, cluster, topology.RoleSubscriber)
	const n = 3_000
	bulk, err := natsjs.New(cluster.Connect(t), natsjs.WithPublishAsyncMaxPending(n))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= n; i++ {
		entity, band := "lane-0", events.BandLow // an entity may have a lane's name
		if i%3 == 0 || i < n/4 && i%500 != 0 {
			entity = "c2"
		}
		body := (&events.Score{Seq: 2 * i, Kind: kind, Entity: entity, Band: band, ID: fmt.Sprint(i)}).Append(nil, events.JSON)
		if i%1000 == 0 {
			band, body = events.BandExpired, (&events.Expired{First: 1, Last: n / 2, Kind: kind}).Append(nil)
		}
		if _, err := bulk.PublishAsync(events.CommitSubject(kind, band, entity), body); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-bulk.PublishAsyncComplete():
	case <-ctx.Done():
		t.Fatal("the outcomes are not stored")
	}
	for _, i := range []uint64{1, 500, 999, n/2 - 1, n/2 + 1, n - 1024, n} {
		ctx := testkit.Context(t)
		for _, entity := range []string{"lane-0", "c2"} {
			want := ""
			if whose := i%3 == 0 || i < n/4 && i%500 != 0; i%1000 != 0 && whose == (entity == "c2") {
				want = fmt.Sprintf(`"id":"%d"`, i)
			}
			body, _, err := s.Outcome(ctx, kind, entity, 2*i)
			if err != nil || want == "" != (body == nil) || !strings.Contains(string(body), want) {
				t.Errorf("outcome of event %d of %s: %s, %v, want %s", 2*i, entity, body, err, want)
			}
		}
		if body, _, err := s.Outcome(ctx, kind, "lane-0", 2*i-1); err != nil || body != nil {
			t.Errorf("outcome of no event: %s, %v", body, err)
		}
	}
	gone, cancel := context.WithTimeout(ctx, time.Millisecond) // it leaves nothing either
	defer cancel()
	if _, _, err := s.Outcome(gone, kind, "lane-0", 1000); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	noConsumerStays(t, js)
	s.nothingRefused()
}

// A connection that forgot its inbox prefix gets no answers: it must be told why.
func TestClientWithoutInboxPrefix(t *testing.T) {
	cluster, _ := guarded(t)
	ctx := testkit.Context(t)
	c := as(t, cluster, topology.RoleCaller, nats.CustomInboxPrefix("_INBOX"))
	for range 2 {
		_, err := c.Publish(ctx, kind, amount("c1", "p", 5))
		refusedWith(t, err, "it may be stored or not", `nats.CustomInboxPrefix("_INBOX_<role>")`)
		if errors.Is(err, events.ErrNotAccepted) {
			t.Errorf("%v: it may be stored", err)
		}
	}
	_, _, err := c.Outcome(ctx, kind, "c1", 1)
	refusedWith(t, err, "nats.CustomInboxPrefix")
}
