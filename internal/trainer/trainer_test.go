package trainer

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// house is a node with the topology, the permissions, and a kind.
type house struct {
	cluster  *testkit.Cluster
	operator *nats.Conn
	js       jetstream.JetStream
	registry *model.Registry
	rng      *rand.Rand

	mu      sync.Mutex
	refused []error // by the server, to trainers
}

func newHouse(t *testing.T) *house {
	t.Helper()
	var users []embedded.User
	for _, r := range topology.Roles() {
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All})
	}
	h := &house{cluster: testkit.Start(t, 1, testkit.Users(users...)), rng: rand.New(rand.NewPCG(1, 2))}
	h.operator = h.cluster.ConnectAs(t, topology.RoleOperator)
	var err error
	if h.js, err = jetstream.New(h.operator); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyShared(testkit.Context(t), h.js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	h.declare(t, "payment", 0)
	kv, err := h.js.KeyValue(testkit.Context(t), events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	h.registry = model.NewRegistry(kv)
	t.Cleanup(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, err := range h.refused {
			t.Errorf("the server refused a trainer: %v", err)
		}
	})
	return h
}

func (h *house) declare(t *testing.T, kind string, maturity time.Duration) {
	t.Helper()
	c := events.DefaultContract()
	c.Kind, c.ID, c.Time, c.Lanes, c.Maturity = kind, "id", "at", 2, events.Duration(maturity)
	c.Rollout = &events.Rollout{Mode: events.RolloutGated, Approval: events.ApprovalSolo, MaxShadows: 2}
	c.Fields = []events.Field{{Name: "amount", Type: events.Number, Required: true}, {Name: "channel", Type: events.Category}}
	if _, err := topology.ApplyKind(testkit.Context(t), h.js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
}

// send publishes n events of a kind from the given number on, and the label of each for which labelled is true.
func (h *house) send(t *testing.T, kind string, from, n int, labelled func(i int, bad bool) bool) {
	t.Helper()
	var acks []jetstream.PubAckFuture
	publish := func(subject string, body []byte) {
		ack, err := h.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: body})
		if err != nil {
			t.Fatal(err)
		}
		acks = append(acks, ack)
	}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := from; i < from+n; i++ {
		amount, channel := h.rng.NormFloat64(), []string{"web", "pos"}[h.rng.IntN(2)]
		at := base.Add(time.Duration(i) * time.Minute)
		publish(fmt.Sprintf("events.%s.c%d", kind, i%7), fmt.Appendf(nil, `{"id":"e%d","at":%q,"amount":%g,"channel":%q,"extra":[1]}`, i, at.Format(time.RFC3339), amount, channel))
		if bad := h.rng.Float64() < lr.Sigmoid(3*amount-1); labelled(i, bad) {
			l := events.Label{ID: fmt.Sprintf("e%d", i), Label: new(int), KnownAt: at.Add(time.Hour)}
			if bad {
				*l.Label = 1
			}
			publish(fmt.Sprintf("labels.%s.c%d", kind, i%7), l.Append(nil, events.JSON))
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			t.Fatal(err)
		case <-time.After(testkit.Deadline):
			t.Fatal("no ack")
		}
	}
}

func all(int, bool) bool { return true }

// running is a trainer that runs.
type running struct {
	*Trainer
	t    *testing.T
	stop func()
}

func (h *house) start(t *testing.T, name string, edit func(*Config)) *running {
	t.Helper()
	nc := h.cluster.ConnectAs(t, topology.RoleTrainer, nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.refused = append(h.refused, err)
	}))
	cfg := Config{
		Conn: nc, Logger: zaptest.NewLogger(t), Registerer: prometheus.NewRegistry(), Instance: name, Name: name,
		Lease: 10 * time.Second, RetrainLabels: 100, check: 20 * time.Millisecond, ProbePrefix: "probe-",
	}
	if edit != nil {
		edit(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tr.Run(ctx) }()
	r := &running{Trainer: tr, t: t}
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: Run: %v", name, err)
			}
		case <-time.After(testkit.Deadline):
			t.Errorf("%s does not stop", name)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) awaitLead() {
	r.t.Helper()
	testkit.Eventually(r.t, testkit.Deadline, r.cfg.Name+" leads", func() (bool, string) { return r.Leads(), "it follows" })
}

// awaitChampion returns the rollout record once the version is champion.
func (h *house) awaitChampion(t *testing.T, kind string, version int) model.Rollout {
	t.Helper()
	var record model.Rollout
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%s is champion", model.Name(kind, version)), func() (bool, string) {
		var err error
		record, _, err = h.registry.Rollout(t.Context(), kind)
		return err == nil && record.Champion == version, fmt.Sprintf("%+v, %v", record, err)
	})
	return record
}

// ask asks whoever leads to train; until somebody has read enough to try.
func (h *house) ask(t *testing.T, request string) (o Outcome, fault string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, "an answer to train "+request, func() (bool, string) {
		msg, err := h.operator.Request(TrainSubject, []byte(request), 5*time.Second)
		if err != nil {
			return false, err.Error()
		}
		o, fault = Outcome{}, msg.Header.Get("Nats-Service-Error")
		if fault == "" {
			if err := json.Unmarshal(msg.Data, &o); err != nil {
				t.Fatalf("answer %q: %v", msg.Data, err)
			}
		}
		return o.Version != "" || fault != "", o.Reason
	})
	return o, fault
}

// awaitStage returns the rollout record once the version is there.
func (h *house) awaitStage(t *testing.T, kind string, version int, stage rollout.Stage) model.Rollout {
	t.Helper()
	var record model.Rollout
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%s is %s", model.Name(kind, version), stage), func() (bool, string) {
		var err error
		record, _, err = h.registry.Rollout(t.Context(), kind)
		state := record.State()
		l := state.Of(version)
		return err == nil && l != nil && l.Stage == stage, fmt.Sprintf("%+v, %v", record.Lives, err)
	})
	return record
}

func TestTrainer(t *testing.T) {
	h := newHouse(t)
	first := h.start(t, "one", nil)
	first.awaitLead()
	h.send(t, "payment", 0, 260, func(i int, _ bool) bool { return i < 150 })
	for _, x := range []struct{ subject, body string }{
		{"events.payment.c1", `{"id":"x1","at":"2026-01-01T00:00:00Z"}`}, // no amount
		{"events.payment.c1", `[1]`},
		{"events.payment.probe-1", `{"id":"x2","amount":1}`},
		{"labels.payment.c1", `{"id":"e1","label":7}`},
	} {
		if _, err := h.js.Publish(t.Context(), x.subject, []byte(x.body)); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, testkit.Deadline, "what cannot be used is counted", func() (bool, string) {
		c := first.Counters()
		return c["events"] == 260 && c["events_invalid"] == 2 && c["events_probe"] == 1 && c["labels_invalid"] == 1 && c["labels"] == 150, fmt.Sprint(c)
	})
	if msg, err := h.operator.Request(TrainSubject, []byte("payment"), 5*time.Second); err != nil {
		t.Fatal(err)
	} else if o := (Outcome{}); json.Unmarshal(msg.Data, &o) != nil || o.Version != "" || o.Reason == "" || o.Kind != "payment" {
		t.Errorf("asked with too few labels: %s", msg.Data)
	}

	// Labels of events that were there before make the first model.
	h.send(t, "payment", 260, 60, all)
	record := h.awaitChampion(t, "payment", 1)
	if record.UpdatedBy != rollout.Gate || !strings.HasPrefix(record.Reason, "first model: offline gate: pass") || record.Decisions[0].By != "trainer one" || record.Previous != 0 || record.Reason == "" {
		t.Errorf("rollout %+v", record)
	}
	a, err := h.registry.Get(t.Context(), "payment", 1)
	if err != nil {
		t.Fatal(err)
	}
	if tr := a.Training; tr.Rows < 200 || tr.Rows > 210 || tr.Positives < 20 || tr.Stream != "EVENTS_payment" || tr.LabelsSeq == 0 ||
		tr.FirstSeq != 1 || tr.LastSeq <= 260 || tr.Incarnation.IsZero() || tr.LabelCutoff.IsZero() || tr.DataHash == "" || a.Contract.Revision == 0 || a.Parent != 0 {
		t.Errorf("training %+v, contract %+v", tr, a.Contract)
	}

	// A second trainer follows; enough new labels make the next model, a shadow. While that is being judged none is trained, unless somebody asks.
	second := h.start(t, "two", nil)
	h.send(t, "payment", 320, 110, all)
	h.awaitStage(t, "payment", 2, rollout.Shadow)
	if second.Leads() {
		t.Error("two lead")
	}
	if o, fault := h.ask(t, `{"kind":"payment"}`); fault != "" || o.Version != "payment.v000003" || o.Rows != 320 || o.Promoted {
		t.Errorf("asked to train: %+v, %s", o, fault)
	}
	h.awaitStage(t, "payment", 3, rollout.Shadow)
	if _, fault := h.ask(t, "claim"); fault != `kind "claim" is not declared` {
		t.Errorf("asked for an unknown kind: %q", fault)
	}
	if _, fault := h.ask(t, " "); fault == "" {
		t.Error("asked for no kind: no error")
	}

	// The first stops: the second takes over with what it has read.
	first.stop()
	second.awaitLead()
	if o, fault := h.ask(t, "payment"); fault != "" || o.Version != "payment.v000004" || o.Rows != 320 {
		t.Errorf("asked to train after the hand-over: %+v, %s", o, fault)
	}
	// A kind may come while it runs; here silence is good, and only what is bad gets a label.
	h.declare(t, "claim", time.Millisecond)
	onlyBad := func(_ int, bad bool) bool { return bad }
	h.send(t, "claim", 0, 300, onlyBad)
	h.send(t, "claim", 300, 1, onlyBad) // stored later: by this message's time the others are mature
	h.awaitChampion(t, "claim", 1)
	if a, err := h.registry.Get(t.Context(), "claim", 1); err != nil || a.Training.Silent == 0 || a.Training.Rows-a.Training.Silent != a.Training.Positives {
		t.Errorf("training %+v, %v", a.Training, err)
	}
	second.stop()

	// A restart goes on where it was: nothing is due, and the next version is the fifth.
	third := h.start(t, "three", nil)
	third.awaitLead()
	testkit.Eventually(t, testkit.Deadline, "the third has read all", func() (bool, string) {
		c := third.Counters()
		return c["events"] == 731, fmt.Sprint(c)
	})
	if o, fault := h.ask(t, "payment"); fault != "" || o.Version != "payment.v000005" || o.Rows != 320 {
		t.Errorf("asked to train after the restart: %+v, %s", o, fault)
	}
	fifth, err := h.registry.Get(t.Context(), "payment", 5)
	if err != nil {
		t.Fatal(err)
	}
	fourth, err := h.registry.Get(t.Context(), "payment", 4)
	if err != nil || fourth.Training.DataHash != fifth.Training.DataHash || fourth.Intercept != fifth.Intercept {
		t.Errorf("the same data makes another model after a restart: %+v, %+v, %v", fourth.Training, fifth.Training, err)
	}
}

// TestTrainerTakesOver: a leader that falls silent is replaced when its lease has run out.
func TestTrainerTakesOver(t *testing.T) {
	h := newHouse(t)
	brief := func(c *Config) { c.Lease = time.Second }
	first := h.start(t, "one", brief)
	first.awaitLead()
	second := h.start(t, "two", brief)
	first.cfg.Conn.Close() // as if killed: it cannot release the lease
	second.awaitLead()
	testkit.Eventually(t, testkit.Deadline, "the first believes no more", func() (bool, string) { return !first.Leads(), "it leads" })
}

// TestTrainerStreamMadeAnew: with EVENTS made anew, sequences start again, and so does the join.
func TestTrainerStreamMadeAnew(t *testing.T) {
	h := newHouse(t)
	tr := h.start(t, "one", nil)
	h.send(t, "payment", 0, 30, all)
	held := func(n float64) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%v events are held", n), func() (bool, string) {
			c := tr.Counters()
			return c["rows"] == n && c["labels"] >= n, fmt.Sprint(c)
		})
	}
	held(30)
	stream, err := h.js.Stream(t.Context(), events.EventsStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	if err := h.js.DeleteStream(t.Context(), cfg.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := h.js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	h.send(t, "payment", 100, 7, all)
	held(7)
}

func TestConfigRefused(t *testing.T) {
	nc := &nats.Conn{}
	for _, c := range []Config{
		{},
		{Conn: nc},
		{Conn: nc, Instance: "a", MinLabels: 10, MinClass: 6},
		{Conn: nc, Instance: "a", MaxRows: 100},
		{Conn: nc, Instance: "a", Lease: time.Millisecond},
		{Conn: nc, Instance: "a", RetrainEvery: -1},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	if _, err := New(Config{Conn: nc, Instance: "a"}); err != nil {
		t.Error(err)
	}
	metrics := prometheus.NewRegistry()
	if _, err := New(Config{Conn: nc, Instance: "a", Registerer: metrics}); err != nil {
		t.Error(err)
	}
	if families, err := metrics.Gather(); err != nil || len(families) != 4 {
		t.Errorf("%d metric families before any kind, %v", len(families), err)
	}
}
