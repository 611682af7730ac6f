package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/internal/trainer"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

const lifeContract = `
kind: payment
id: id
fields:
  - {name: amount, type: number, required: true}
  - {name: channel, type: category}
lanes: 2
prior: 0.3
maturity: 50ms
thresholds: {medium: 0.5, high: 0.8}
rollout: {mode: gated, approval: solo, auc_margin: 0.03, max_shift: 0.1, max_psi: 0.5, steps: [0.2, 0.5]}
`

// living is a broker with a scorer and a trainer, and a world that sends payments with their labels.
type living struct {
	t        *testing.T
	cluster  *testkit.Cluster
	js       natsjs.JetStream
	registry *model.Registry
	r        *rand.Rand
	sent     int
	turned   bool // what was a good sign is a bad one
}

func newLiving(t *testing.T) *living {
	t.Helper()
	w := &living{t: t, cluster: testkit.Start(t, 1), r: rand.New(rand.NewPCG(20260105, 1))}
	w.js = w.cluster.JetStream(t)
	ctx := testkit.Context(t)
	c, err := events.ParseContract([]byte(lifeContract))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyShared(ctx, w.js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, w.js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	kv, err := w.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	w.registry = model.NewRegistry(kv)
	runScorer(t, w.cluster)
	return w
}

// train runs a trainer until stop is called, or the end of the test.
func (w *living) train(name string) (stop func()) {
	w.t.Helper()
	conn := w.cluster.Connect(w.t)
	tr, err := trainer.New(trainer.Config{
		Conn: conn, Logger: zap.NewNop(), Instance: name, Name: name, MinLabels: 1000, RetrainLabels: 1_000_000, RetrainEvery: time.Hour, Lease: time.Second,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	g, _ := service.NewGroup(w.t.Context())
	g.Go(tr.Run)
	w.t.Cleanup(func() {
		if err := g.Wait(); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
	})
	return conn.Close // as if killed: it cannot hand over
}

// send n payments. Amount tells the risk; channel does until the world turns, and the contrary then.
func (w *living) send(n int) {
	w.t.Helper()
	for range n {
		amount, channel := w.r.NormFloat64(), w.r.IntN(2)
		effect := 1.5
		if w.turned {
			effect = -1.5
		}
		label := 0
		if w.r.Float64() < lr.Sigmoid(1.2*amount+effect*float64(2*channel-1)-0.8) {
			label = 1
		}
		for _, m := range []*nats.Msg{
			{Subject: fmt.Sprintf("events.payment.c%d", w.sent%997), Data: fmt.Appendf(nil, `{"id":"e%d","amount":%.6f,"channel":%q}`, w.sent, amount, []string{"pos", "web"}[channel])},
			{Subject: fmt.Sprintf("labels.payment.c%d", w.sent%997), Data: fmt.Appendf(nil, `{"id":"e%d","label":%d}`, w.sent, label)},
		} {
			if _, err := w.js.PublishMsgAsync(m); err != nil {
				w.t.Fatal(err)
			}
		}
		w.sent++
	}
	select {
	case <-w.js.PublishAsyncComplete():
	case <-time.After(testkit.Deadline):
		w.t.Fatal("no acks")
	}
}

// until sends payments until the version is in the stage, and returns the record.
func (w *living) until(version int, stage rollout.Stage, share float64) model.Rollout {
	w.t.Helper()
	var record model.Rollout
	testkit.Eventually(w.t, 2*testkit.Deadline, fmt.Sprintf("v%d is %s %v", version, stage, share), func() (bool, string) {
		w.send(200)
		var err error
		record, _, err = w.registry.Rollout(w.t.Context(), "payment")
		if err != nil {
			return false, err.Error()
		}
		state := record.State()
		l := state.Of(version)
		return l != nil && l.Stage == stage && l.Share == share, fmt.Sprintf("%d sent; %s", w.sent, record.Reason)
	})
	return record
}

func (w *living) ask() {
	w.t.Helper()
	testkit.Eventually(w.t, testkit.Deadline, "an answer to train", func() (bool, string) {
		msg, err := w.js.Conn().Request(trainer.TrainSubject, []byte("payment"), 10*time.Second)
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(string(msg.Data), `"version":"payment.`), string(msg.Data)
	})
}

// A version comes into force by the gates alone, over both steps, though the trainer that judges it is killed on the way; the next one, good while a
// shadow, turns bad as a canary, and is rolled back by itself.
func TestLifeByGates(t *testing.T) {
	w := newLiving(t)
	kill := w.train("one")
	w.until(1, rollout.Champion, 0)
	w.ask()
	w.until(2, rollout.Canary, 0.2)
	w.train("two")
	kill()
	w.until(2, rollout.Canary, 0.5)
	record := w.until(2, rollout.Champion, 0)
	if record.Previous != 1 || record.UpdatedBy != rollout.Gate || len(record.Decisions) != 2 || !strings.HasPrefix(record.Reason, "online gate: pass") {
		t.Errorf("%+v", record)
	}
	for _, d := range record.Decisions {
		if hash, err := d.Evidence.Hash(); err != nil || hash != d.Hash || d.Evidence.Verdict() != rollout.Pass || d.Evidence.Last <= d.Evidence.First {
			t.Errorf("%+v, %v", d, err)
		}
	}

	// A version that goes by the channel more than the champion does is as good as that while the channel says what it did.
	champion, err := w.registry.Get(t.Context(), "payment", 2)
	if err != nil {
		t.Fatal(err)
	}
	eager := *champion
	eager.CreatedBy, eager.Weights = "ann", slices.Clone(champion.Weights)
	for i, x := range eager.Weights {
		if x.Field == "channel" {
			eager.Weights[i].Weight *= 1.15
		}
	}
	version, err := w.registry.Publish(t.Context(), &eager)
	if err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := riskweir(t, "model", "--nats", w.cluster.URL(), "shadow", "payment", fmt.Sprint(version), "--reason", "eager"); code != 0 {
		t.Fatal(errOut)
	}
	w.until(version, rollout.Canary, 0.2)
	w.turned = true
	began, first := time.Now(), w.sent
	record = w.until(version, rollout.RolledBack, 0)
	took := time.Since(began)
	d := record.Decisions[0]
	if record.Champion != 2 || d.By != rollout.Gate || d.From != rollout.Canary || d.Evidence.Verdict() != rollout.Fail {
		t.Errorf("%+v", record)
	}
	t.Logf("v%d was rolled back %s and %d events after the world had turned: %s", version, took.Round(10*time.Millisecond), w.sent-first, d.Reason)
	out, errOut, code := riskweir(t, "model", "--nats", w.cluster.URL(), "log", "payment")
	for _, want := range []string{"v2 candidate -> shadow, by gate", "v2 shadow -> canary 0.2, by gate", "v2 canary -> canary 0.5, by gate", "v2 canary -> champion, by gate", fmt.Sprintf("v%d canary -> rolled back, by gate", version)} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("no %q:\n%s%s", want, out, errOut)
		}
	}
}
