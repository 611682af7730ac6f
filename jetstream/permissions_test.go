package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// guarded is a cluster with the permission table in force.
func guarded(t *testing.T, kinds ...string) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	var users []embedded.User
	for _, r := range topology.Roles(kinds...) {
		if testkit.InboxPrefix(r.Name) != topology.InboxPrefix(r.Name) {
			t.Fatalf("inbox prefix of %s", r.Name)
		}
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All, Outside: r.Outside})
	}
	return applied(t, payment(), testkit.Users(users...))
}

// actor is a connection of one role that keeps what the server refused it.
type actor struct {
	t  *testing.T
	nc *nats.Conn
	js natsjs.JetStream

	mu      sync.Mutex
	refused []string // "Publish a.b", "Subscription c.>"
}

var violation = regexp.MustCompile(`Permissions Violation for (Publish|Subscription) (?:to|using queue "[^"]*" to)? ?"([^"]+)"`)

func as(t *testing.T, c *testkit.Cluster, role string) *actor {
	t.Helper()
	a := &actor{t: t}
	a.nc = c.ConnectAs(t, role, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if m := violation.FindStringSubmatch(err.Error()); m != nil {
			a.refused = append(a.refused, m[1]+" "+m[2])
			return
		}
		a.refused = append(a.refused, err.Error())
	}))
	var err error
	if a.js, err = natsjs.New(a.nc); err != nil {
		t.Fatal(err)
	}
	return a
}

// settle waits until every refusal so far has been told, and forgets them.
func (a *actor) settle() []string {
	a.t.Helper()
	const sentinel = "forbidden.to.all"
	if err := a.nc.Publish(sentinel, nil); err != nil {
		a.t.Fatal(err)
	}
	var got []string
	testkit.Eventually(a.t, testkit.Deadline, "the server refuses "+sentinel, func() (bool, string) {
		a.mu.Lock()
		defer a.mu.Unlock()
		i := slices.Index(a.refused, "Publish "+sentinel)
		if i < 0 {
			return false, strings.Join(a.refused, ", ")
		}
		got, a.refused = a.refused[:i:i], a.refused[i+1:]
		return true, ""
	})
	return got
}

// nothingRefused checks that all that was done so far was allowed.
func (a *actor) nothingRefused(err error) {
	a.t.Helper()
	if err != nil {
		a.t.Error(err)
	}
	if got := a.settle(); len(got) > 0 {
		a.t.Errorf("refused: %s", strings.Join(got, ", "))
	}
}

func (a *actor) mayPublish(subjects ...string) {
	a.t.Helper()
	for _, s := range subjects {
		if err := a.nc.Publish(s, nil); err != nil {
			a.t.Fatal(err)
		}
	}
	a.nothingRefused(nil)
}

// mayNot checks that each publish and each subscription is refused.
func (a *actor) mayNot(publish, subscribe []string) {
	a.t.Helper()
	var want []string
	for _, s := range publish {
		if err := a.nc.Publish(s, nil); err != nil {
			a.t.Fatal(err)
		}
		want = append(want, "Publish "+s)
	}
	for _, s := range subscribe {
		if _, err := a.nc.SubscribeSync(s); err != nil {
			a.t.Fatal(err)
		}
		want = append(want, "Subscription "+s)
	}
	got := a.settle()
	for _, w := range want {
		if !slices.Contains(got, w) {
			a.t.Errorf("was allowed: %s", w)
		}
	}
}

func (a *actor) mayListen(subjects ...string) {
	a.t.Helper()
	for _, s := range subjects {
		if _, err := a.nc.SubscribeSync(s); err != nil {
			a.t.Fatal(err)
		}
	}
	a.nothingRefused(nil)
}

// readAll pulls n messages through a consumer of its own.
func readAll(ctx context.Context, js natsjs.JetStream, stream string, cfg natsjs.ConsumerConfig, n int) error {
	cons, err := js.CreateConsumer(ctx, stream, cfg)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	batch, err := cons.Fetch(n, natsjs.FetchMaxWait(5*time.Second))
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	got := 0
	for m := range batch.Messages() {
		got++
		if cfg.AckPolicy == natsjs.AckExplicitPolicy {
			if err := m.DoubleAck(ctx); err != nil {
				return fmt.Errorf("ack: %w", err)
			}
		}
	}
	if err := batch.Error(); err != nil || got != n {
		return fmt.Errorf("%d messages of %d: %w", got, n, err)
	}
	if _, err := cons.Info(ctx); err != nil {
		return fmt.Errorf("info: %w", err)
	}
	return js.DeleteConsumer(ctx, stream, cons.CachedInfo().Name)
}

func readBucket(ctx context.Context, js natsjs.JetStream, bucket, key string) error {
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return err
	}
	entry, err := kv.Get(ctx, key)
	if err != nil {
		return err
	}
	if _, err := kv.GetRevision(ctx, key, entry.Revision()); err != nil {
		return err
	}
	w, err := kv.WatchAll(ctx)
	if err != nil {
		return err
	}
	select {
	case e := <-w.Updates():
		if e == nil || e.Key() != key {
			return fmt.Errorf("watch of %s: %v", bucket, e)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return w.Stop()
}

const unfiltered = "$JS.API.CONSUMER.CREATE.SCORES_payment.x"

// Everything that only a scorer, or nobody but the operator, may do.
var (
	scorersOnly = []string{"commit.payment.low.c1", "position.payment.0", "$KV.SCORERS.x"}
	nobody      = []string{
		"scores.payment.low.c1", // would look committed
		"rescores.payment.v000001.low.c1",
		"events.payment.0.c1",
		"$KV.KINDS.payment",
		"$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.UPDATE.EVENTS_payment", "$JS.API.STREAM.DELETE.EVENTS_payment",
		"$JS.API.STREAM.PURGE.SCORES_payment", "$JS.API.STREAM.MSG.DELETE.SCORES_payment",
		"$JS.API.STREAM.SNAPSHOT.EVENTS_payment", "$JS.API.STREAM.RESTORE.EVENTS_payment",
		unfiltered,
		"$JS.API.CONSUMER.CREATE.SCORES_payment",                // unnamed
		"$JS.API.CONSUMER.DURABLE.CREATE.EVENTS_payment.x",      // legacy
		"$JS.API.CONSUMER.CREATE.LABELS.x.>",                    // filtered by everything
		"$JS.API.CONSUMER.CREATE.KV_MODELS.x.$KV.KINDS.payment", // another bucket's filter
		"$SYS.REQ.SERVER.PING",
	}
	othersInboxes = []string{"_INBOX.>", "_INBOX_operator.>", ">"}
)

func TestScorerMay(t *testing.T) {
	c, admin := guarded(t)
	ctx := testkit.Context(t)
	if _, err := admin.Publish(ctx, "events.payment.c1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	store(t, admin, events.ModelsBucket, "payment.rollout")
	s := as(t, c, topology.RoleScorer)

	s.nothingRefused(readAll(ctx, s.js, "EVENTS_payment", natsjs.ConsumerConfig{
		Name: "lane-1-1-x", FilterSubject: events.LaneFilter("payment", 1), AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1,
	}, 1))
	_, err := s.js.CreateConsumer(ctx, "EVENTS_payment", natsjs.ConsumerConfig{
		Name: "lane-50-1-x", FilterSubjects: events.StrayFilters("payment"), AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1,
	})
	s.nothingRefused(err)
	_, err = s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.SCORES_payment", []byte(`{"last_by_subj":"position.payment.1"}`))
	s.nothingRefused(err)
	p := lastOf(t, s.js, "SCORES_payment", "position.payment.1")
	out, pos := nats.NewMsg("commit.payment.low.c1"), nats.NewMsg("position.payment.1")
	topology.Fence(pos, p.Sequence)
	_, err = (&topology.Committer{Conn: s.nc, Stream: "SCORES_payment", Timeout: 5 * time.Second}).Commit(ctx, []*nats.Msg{out, pos})
	s.nothingRefused(err)
	s.nothingRefused(topology.NewCatalog(s.js, nil).Load(ctx))
	s.nothingRefused(readBucket(ctx, s.js, events.KindsBucket, "payment"))
	s.nothingRefused(readBucket(ctx, s.js, events.ModelsBucket, "payment.rollout"))
	_, err = s.js.Publish(ctx, "$KV.SCORERS.scorer-1", []byte("{}"))
	s.nothingRefused(err)
	s.nothingRefused(readBucket(ctx, s.js, events.ScorersBucket, "scorer-1"))
	_, err = s.js.AccountInfo(ctx)
	s.nothingRefused(err)
	s.mayPublish("heartbeats.scorer.1", "members.scorer")
	s.mayListen("members.scorer")

	// Of any stream, while kinds are yet to come: with kinds named, see TestRolesOfOneKind.
	nobodyElse := slices.DeleteFunc(slices.Clone(nobody), func(s string) bool { return s == unfiltered })
	s.mayNot(slices.Concat(nobodyElse, []string{
		"known.payment.from.labels", "events.payment.c1", "labels.payment.c1", "position.payment.ingest.file", "alerts.page.x", "heartbeats.trainer.1",
		"$KV.MODELS.payment.rollout",
		"$JS.API.CONSUMER.CREATE.SCORES_payment.x.scores.>", "$JS.API.CONSUMER.CREATE.LABELS.x.labels.>",
	}), append([]string{"scores.>", "commit.>", "events.>", "heartbeats.>"}, othersInboxes...))
}

// A service answers the operator and the monitor, by the micro protocol and at its own endpoints.
func TestServicesAnswer(t *testing.T) {
	c, _ := guarded(t)
	for _, role := range []string{topology.RoleIngest, topology.RoleScorer, topology.RoleTrainer, topology.RoleMonitor} {
		a := as(t, c, role)
		svc, err := micro.AddService(a.nc, micro.Config{Name: role, Version: "1.0.0"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = svc.Stop() })
		if err := svc.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) }), micro.WithEndpointSubject("riskweir."+role+".echo")); err != nil {
			t.Fatal(err)
		}
		a.nothingRefused(a.nc.Flush())
		for _, asker := range []string{topology.RoleOperator, topology.RoleMonitor} {
			nc := c.ConnectAs(t, asker)
			for _, subject := range []string{"$SRV.PING." + role, "$SRV.STATS." + role, "riskweir." + role + ".echo"} {
				if _, err := nc.RequestWithContext(testkit.Context(t), subject, []byte("hello")); err != nil {
					t.Errorf("%s asks %s: %v", asker, subject, err)
				}
			}
		}
		a.nothingRefused(nil)
	}
}

func TestIngestMay(t *testing.T) {
	c, admin := guarded(t)
	ctx := testkit.Context(t)
	a := as(t, c, topology.RoleIngest)
	a.mayListen("scores.payment.>", "scores.>")
	batch := []*nats.Msg{nats.NewMsg("events.payment.c1"), nats.NewMsg("position.payment.ingest.file")}
	topology.Fence(batch[1], 0)
	_, err := (&topology.Committer{Conn: a.nc, Stream: "EVENTS_payment", Timeout: 5 * time.Second}).Commit(ctx, batch)
	a.nothingRefused(err)
	if lastOf(t, a.js, "EVENTS_payment", "position.payment.ingest.file") == nil {
		t.Error("no position of the file")
	}
	_, err = a.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.EVENTS_payment", []byte(`{"last_by_subj":"position.payment.ingest.file"}`))
	a.nothingRefused(err)
	_, err = a.js.Publish(ctx, "labels.payment.c1", []byte("{}"))
	a.nothingRefused(err)
	if _, err := admin.Publish(ctx, "commit.payment.low.c1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	a.nothingRefused(readAll(ctx, a.js, "SCORES_payment", natsjs.ConsumerConfig{FilterSubject: "scores.payment.*.c1", AckPolicy: natsjs.AckNonePolicy}, 1))
	if lastOf(t, a.js, "SCORES_payment", "scores.payment.low.c1") == nil {
		t.Error("no score")
	}
	a.nothingRefused(topology.NewCatalog(a.js, nil).Load(ctx))
	_, err = a.js.AccountInfo(ctx)
	a.nothingRefused(err)
	a.mayPublish("heartbeats.ingest.1")

	a.mayNot(slices.Concat(nobody, scorersOnly, []string{
		"known.payment.from.labels", "$KV.MODELS.payment.rollout", "alerts.page.x", "heartbeats.scorer.1", "members.scorer",
		"$JS.API.DIRECT.GET.KV_MODELS", "$JS.API.CONSUMER.CREATE.EVENTS_payment.x.events.>",
	}), append([]string{"events.>", "commit.>", "heartbeats.>", "alerts.>"}, othersInboxes...))
}

func TestTrainerMay(t *testing.T) {
	c, admin := guarded(t)
	ctx := testkit.Context(t)
	for _, s := range []string{"events.payment.c1", "labels.payment.c1"} {
		if _, err := admin.Publish(ctx, s, []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	a := as(t, c, topology.RoleTrainer)
	read := natsjs.ConsumerConfig{AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1}
	read.FilterSubject = "events.payment.*.*"
	a.nothingRefused(readAll(ctx, a.js, "EVENTS_payment", read, 1))
	_, err := a.js.Publish(ctx, "known.payment.from.labels", []byte("{}"))
	a.nothingRefused(err)
	read.FilterSubject = "*.payment.*.*"
	a.nothingRefused(readAll(ctx, a.js, "EVENTS_payment", read, 2))
	read.FilterSubject = "labels.payment.*"
	a.nothingRefused(readAll(ctx, a.js, "LABELS", read, 1))
	kv, err := a.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	rev, err := kv.Create(ctx, "payment.v000001", []byte("{}"))
	a.nothingRefused(err)
	_, err = kv.Update(ctx, "payment.v000001", []byte("{ }"), rev)
	a.nothingRefused(err)
	a.nothingRefused(readBucket(ctx, a.js, events.ModelsBucket, "payment.v000001"))
	a.nothingRefused(topology.NewCatalog(a.js, nil).Load(ctx))
	_, err = a.js.Stream(ctx, "LABELS")
	a.nothingRefused(err)
	a.mayPublish("heartbeats.trainer.1")
	_, found, err := topology.GlimpsePosition(ctx, a.nc, "payment", 1)
	if a.nothingRefused(err); !found {
		t.Error("lane 1 has no position")
	}
	_, found, err = topology.GlimpsePosition(ctx, a.nc, "payment", 49)
	if a.nothingRefused(err); found {
		t.Error("lane 49 has a position")
	}

	a.mayNot(slices.Concat(nobody, scorersOnly, []string{
		"events.payment.c1", "labels.payment.c1", "position.payment.ingest.file", "alerts.page.x",
		"$JS.API.STREAM.MSG.GET.SCORES_payment", "$JS.API.CONSUMER.CREATE.SCORES_payment.x.scores.>",
	}), append([]string{"scores.>", "commit.>", "heartbeats.>"}, othersInboxes...))
}

func TestMonitorMay(t *testing.T) {
	c, admin := guarded(t)
	ctx := testkit.Context(t)
	store(t, admin, events.ModelsBucket, "payment.rollout")
	a := as(t, c, topology.RoleMonitor)
	a.mayListen("heartbeats.>", "alerts.>", "scores.>", "$JS.EVENT.>")
	_, err := a.js.Publish(ctx, "alerts.page.lag", []byte("{}"))
	a.nothingRefused(err)
	streams := a.js.ListStreams(ctx)
	n := 0
	for range streams.Info() {
		n++
	}
	a.nothingRefused(streams.Err())
	shared, err := topology.Shared(1)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(shared) + 2; n != want { // EVENTS and SCORES of a kind
		t.Errorf("sees %d streams, want %d", n, want)
	}
	s, err := a.js.Stream(ctx, "EVENTS_payment")
	if err != nil {
		t.Fatal(err)
	}
	consumers := s.ListConsumers(ctx)
	for range consumers.Info() {
		t.Error("a consumer?")
	}
	a.nothingRefused(consumers.Err())
	if lastOf(t, a.js, "SCORES_payment", "position.payment.0") == nil {
		t.Error("no position")
	}
	a.nothingRefused(readBucket(ctx, a.js, events.ModelsBucket, "payment.rollout"))
	kv, err := a.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kv.Create(ctx, "monitor.leader", []byte("{}"))
	a.nothingRefused(err)
	kinds, err := topology.Kinds(ctx, a.js)
	a.nothingRefused(err)
	if len(kinds) != 1 {
		t.Errorf("sees %d kinds", len(kinds))
	}
	a.mayPublish("heartbeats.monitor.1")

	a.mayNot(slices.Concat(nobody, scorersOnly, []string{
		"known.payment.from.labels", "events.payment.c1", "labels.payment.c1", "$KV.MODELS.payment.rollout",
		"$JS.API.CONSUMER.DELETE.EVENTS_payment.x", "$JS.API.CONSUMER.MSG.NEXT.EVENTS_payment.x", "$JS.ACK.EVENTS_payment.x.1.1.1.1.0",
	}), append([]string{"commit.>", "events.>", "labels.>"}, othersInboxes...))
}

func TestPublisherSubscriberAndCallerMay(t *testing.T) {
	c, admin := guarded(t)
	ctx := testkit.Context(t)

	p := as(t, c, topology.RolePublisher)
	_, err := p.js.Publish(ctx, "events.payment.c1", []byte("{}"))
	p.nothingRefused(err)
	_, err = p.js.Publish(ctx, "labels.payment.c1", []byte("{}"))
	p.nothingRefused(err)
	p.mayNot(slices.Concat(nobody, scorersOnly, []string{"known.payment.from.labels", "position.payment.ingest.file", "$JS.API.INFO", "alerts.page.x"}),
		append([]string{"scores.>", "events.>", "$SRV.>"}, othersInboxes...))

	s := as(t, c, topology.RoleSubscriber)
	s.mayListen("scores.>", "scores.payment.high.*")
	if _, err := admin.Publish(ctx, "commit.payment.high.c1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.nothingRefused(readAll(ctx, s.js, "SCORES_payment", natsjs.ConsumerConfig{
		Durable: "sink", FilterSubject: "scores.payment.high.*", AckPolicy: natsjs.AckExplicitPolicy,
	}, 1))
	if lastOf(t, s.js, "SCORES_payment", "scores.payment.high.c1") == nil {
		t.Error("no score")
	}
	s.mayPublish("$JS.ACK.SCORES_payment.sink.1.1.1.1.0", "$JS.ACK.hub.hash.SCORES_payment.sink.1.1.1.1.0") // both shapes
	s.mayNot(slices.Concat(nobody, scorersOnly, []string{
		"events.payment.c1", "labels.payment.c1", "alerts.page.x",
		"$JS.API.CONSUMER.CREATE.EVENTS_payment.x.events.>", "$JS.API.CONSUMER.CREATE.SCORES_payment.x.position.>", "$JS.API.DIRECT.GET.KV_MODELS",
	}), append([]string{"events.>", "commit.>", "position.>"}, othersInboxes...))

	call := as(t, c, topology.RoleCaller)
	call.mayListen("scores.payment.>")
	_, err = call.js.Publish(ctx, "events.payment.c2", []byte("{}"))
	call.nothingRefused(err)
	call.mayNot(slices.Concat(nobody, scorersOnly), append([]string{"commit.>"}, othersInboxes...))
}

// With kinds given, another kind and other streams are out of reach.
func TestRolesOfOneKind(t *testing.T) {
	c, admin := guarded(t, "payment")
	ctx := testkit.Context(t)
	if _, err := admin.Publish(ctx, "events.payment.c1", []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	s := as(t, c, topology.RoleScorer)
	s.nothingRefused(readAll(ctx, s.js, "EVENTS_payment", natsjs.ConsumerConfig{FilterSubject: events.LaneFilter("payment", 1)}, 1))
	s.mayNot(slices.Concat(nobody, []string{
		"commit.claim.low.c1", "position.claim.0", "$JS.API.CONSUMER.CREATE.EVENTS_claim.x.events.claim.0.*",
		"$JS.API.CONSUMER.DELETE.SCORES_payment.sink", "$JS.API.CONSUMER.MSG.NEXT.SCORES_payment.sink",
		"$JS.API.STREAM.MSG.GET.LABELS", "$JS.ACK.SCORES_payment.sink.1.1.1.1.0",
	}), nil)
	i := as(t, c, topology.RoleIngest)
	i.mayNot([]string{"events.claim.c1", "$JS.API.STREAM.MSG.GET.SCORES_payment", "$JS.API.STREAM.MSG.GET.KV_MODELS"}, []string{"scores.>"})
	p := as(t, c, topology.RolePublisher)
	p.mayNot([]string{"events.claim.c1"}, nil)
	sub := as(t, c, topology.RoleSubscriber)
	sub.mayNot([]string{"$JS.API.CONSUMER.MSG.NEXT.EVENTS_payment.lane-1-1-x"}, []string{"scores.>", "scores.claim.>"})
}

func store(t *testing.T, js natsjs.JetStream, bucket, key string) {
	t.Helper()
	kv, err := js.KeyValue(t.Context(), bucket)
	if err == nil {
		_, err = kv.Put(t.Context(), key, []byte("{}"))
	}
	if err != nil && !errors.Is(err, natsjs.ErrKeyExists) {
		t.Fatal(err)
	}
}
