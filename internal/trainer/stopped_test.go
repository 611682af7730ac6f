package trainer

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/testkit"
)

// told sends n events of a kind with their labels, as row says them.
func (h *house) told(t *testing.T, kind string, n int, row func() (amount float64, bad bool)) {
	t.Helper()
	for i := range n {
		amount, bad := row()
		label := 0
		if bad {
			label = 1
		}
		for _, m := range []*nats.Msg{
			{Subject: fmt.Sprintf("events.%s.c%d", kind, i%7), Data: fmt.Appendf(nil, `{"id":"e%d","amount":%g,"channel":"web"}`, i, amount)},
			{Subject: fmt.Sprintf("labels.%s.c%d", kind, i%7), Data: fmt.Appendf(nil, `{"id":"e%d","label":%d}`, i, label)},
		} {
			if _, err := h.js.PublishMsgAsync(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	select {
	case <-h.js.PublishAsyncComplete():
	case <-time.After(testkit.Deadline):
		t.Fatal("no acks")
	}
}

// Whatever is wrong with what was fitted, it is not published, the champion goes on, and what stopped it is on record.
func TestBadFitsAreStopped(t *testing.T) {
	h := newHouse(t)
	var spoil atomic.Pointer[func(*FitResult)]
	tr := h.start(t, "one", func(c *Config) {
		c.RetrainLabels, c.RetrainEvery = 1_000_000, time.Hour // only when asked
		c.spoil = func(f *FitResult) {
			if s := spoil.Load(); s != nil {
				(*s)(f)
			}
		}
	})
	tr.awaitLead()
	h.send(t, "payment", 0, 1000, all)
	h.awaitChampion(t, "payment", 1)
	testkit.Eventually(t, testkit.Deadline, "all is read", func() (bool, string) {
		c := tr.Counters()
		return c["events"] == 1000 && c["labels"] == 1000, fmt.Sprint(c)
	})
	asked := func(kind string) (o Outcome) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "an answer", func() (bool, string) {
			msg, err := h.operator.Request(TrainSubject, []byte(kind), 5*time.Second)
			if err != nil {
				return false, err.Error()
			}
			if fault := msg.Header.Get("Nats-Service-Error"); fault != "" {
				return false, fault
			}
			return json.Unmarshal(msg.Data, &o) == nil && strings.Contains(o.Reason, "gate"), o.Reason
		})
		return o
	}
	stopped := func(name, kind string, champion int, checks ...string) {
		t.Helper()
		o := asked(kind)
		record, _, err := h.registry.Rollout(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		if o.Version != "" || o.Promoted || record.Champion != champion || len(record.Decisions) != 1 {
			t.Fatalf("%s: %+v, %+v", name, o, record)
		}
		d := record.Decisions[0]
		hash, err := d.Evidence.Hash()
		if err != nil || d.Version != 0 || d.To != rollout.Refused || d.By != rollout.Gate || d.Hash != hash {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if failed := d.Evidence.Failed(); len(failed) == 0 || !slices.Contains(checks, failed[0]) {
			t.Errorf("%s: %v failed, want %v: %s", name, failed, checks, d.Reason)
		}
		versions, err := h.registry.List(t.Context(), kind)
		if err != nil || len(versions) != champion {
			t.Errorf("%s: versions %v, %v", name, versions, err)
		}
		t.Logf("%s: %s", name, d.Reason)
	}
	for _, c := range []struct {
		name, check string
		spoil       func(f *FitResult)
	}{
		{"a weight that is no number", "numbers", func(f *FitResult) { f.Model.Weights[0] = math.NaN() }},
		{"of the wrong dimension", "shape", func(f *FitResult) { f.Model.Weights = append(f.Model.Weights, 1) }},
		{"constant", "order", func(f *FitResult) { fill(f.P, func(float64) float64 { return 0.2 }) }},
	} {
		spoil.Store(&c.spoil)
		stopped(c.name, "payment", 1, c.check)
	}
	spoil.Store(nil)

	h.declare(t, "shuffled", 0)
	h.told(t, "shuffled", 3000, func() (float64, bool) { return h.rng.NormFloat64(), h.rng.IntN(5) == 0 })
	stopped("labels shuffled", "shuffled", 0, "order")
	h.declare(t, "leaky", 0)
	h.told(t, "leaky", 3000, func() (float64, bool) {
		bad := h.rng.IntN(5) == 0
		if bad {
			return 5 + h.rng.NormFloat64()/2, bad
		}
		return h.rng.NormFloat64() / 2, bad
	})
	stopped("a field that knows the label", "leaky", 0, "leak")
	if n := tr.Counters()["refused"]; n < 5 {
		t.Errorf("%v are counted as refused", n)
	}
	if o := asked("payment"); o.Version != "payment.v000002" {
		t.Errorf("a sound one: %+v", o)
	}
	h.awaitStage(t, "payment", 2, rollout.Shadow)
}

// A record edited into nonsense is left to whoever edits it: nothing is published over it.
func TestNonsenseIsLeftAlone(t *testing.T) {
	h := newHouse(t)
	tr := h.start(t, "one", nil)
	tr.awaitLead()
	h.send(t, "payment", 0, 400, all)
	h.awaitChampion(t, "payment", 1)
	kv, err := h.js.KeyValue(t.Context(), "MODELS")
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := h.registry.Rollout(t.Context(), "payment")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(t.Context(), "payment.rollout")
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(entry.Value()), `"champion":1`, `"champion":2`, 1) // and the lives say otherwise
	at, err := kv.Put(t.Context(), "payment.rollout", []byte(edited))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "a refusal to train", func() (bool, string) {
		msg, err := h.operator.Request(TrainSubject, []byte("payment"), 5*time.Second)
		if err != nil {
			return false, err.Error()
		}
		fault := msg.Header.Get("Nats-Service-Error")
		return strings.Contains(fault, "do not agree"), fault
	})
	if entry, err = kv.Get(t.Context(), "payment.rollout"); err != nil || entry.Revision() != at {
		t.Errorf("the record is at %d, was edited at %d, %v", entry.Revision(), at, err)
	}
	// Put back, the bytes are those of a record that is sound, and all goes on.
	if _, err := h.registry.SetRollout(t.Context(), "payment", record, at); err != nil {
		t.Fatal(err)
	}
	if o, fault := h.ask(t, "payment"); fault != "" || o.Version != "payment.v000002" {
		t.Errorf("%+v, %s", o, fault)
	}
}

// Two trainers that both believe to lead get a version each, and both are in the record.
func TestTrainersRace(t *testing.T) {
	h := newHouse(t)
	first := h.start(t, "one", nil)
	first.awaitLead()
	h.send(t, "payment", 0, 400, all)
	h.awaitChampion(t, "payment", 1)
	second := h.start(t, "two", nil)
	testkit.Eventually(t, testkit.Deadline, "the second has read all", func() (bool, string) {
		c := second.Counters()
		return c["events"] == 400 && c["labels"] == 400, fmt.Sprint(c)
	})
	ends := make(chan error, 2)
	for _, tr := range []*running{first, second} {
		go func() {
			race := term{trainer: tr.Trainer, registry: h.registry, kinds: map[*kind]*history{}}
			_, err := race.asked(t.Context(), "payment")
			ends <- err
		}()
	}
	for range 2 {
		if err := <-ends; err != nil {
			t.Error(err)
		}
	}
	h.awaitStage(t, "payment", 2, rollout.Shadow)
	h.awaitStage(t, "payment", 3, rollout.Shadow)
}
