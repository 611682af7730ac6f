package jetstream_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jsm.go/api"
	natsjs "github.com/nats-io/nats.go/jetstream"

	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// payment is a small contract.
func payment() events.Contract {
	c := events.DefaultContract()
	c.Kind = "payment"
	c.Fields = []events.Field{{Name: "amount", Type: events.Number}}
	return c
}

func rendered(t *testing.T, replicas int) []topology.File {
	t.Helper()
	shared, err := topology.SharedFiles(replicas)
	if err != nil {
		t.Fatal(err)
	}
	kind, err := topology.KindFiles(payment(), replicas)
	if err != nil {
		t.Fatal(err)
	}
	return append(shared, kind...)
}

// The nats CLI reads its --config into jsm's type, without a word on what it does not know.
func TestRenderedFilesAreStreamConfigsOfTheCLI(t *testing.T) {
	for _, f := range rendered(t, 3) {
		var cfg api.StreamConfig
		dec := json.NewDecoder(bytes.NewReader(f.JSON))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&cfg); err != nil {
			t.Errorf("%s: %v\n%s", f.Name, err, f.JSON)
		}
		if cfg.Name != f.Name || cfg.Description == "" || cfg.Metadata["riskweir.runbook"] == "" {
			t.Errorf("%s: name %q, description %q, metadata %v", f.Name, cfg.Name, cfg.Description, cfg.Metadata)
		}
		if got := cfg.Metadata["io.nats.monitor.peer-expect"]; got != "3" {
			t.Errorf("%s: expects %q peers, want 3", f.Name, got)
		}
		if strings.Contains(string(f.JSON), "[[") {
			t.Errorf("%s: a delimiter is left:\n%s", f.Name, f.JSON)
		}
	}
	for _, f := range rendered(t, 1) {
		if strings.Contains(string(f.JSON), "peer-expect") {
			t.Errorf("%s: on one node it expects peers, and `nats server check stream` would be red", f.Name)
		}
	}
}

// What the design demands of the two streams on which "exactly one outcome" rests.
func TestSettingsThatMatter(t *testing.T) {
	c := payment()
	c.Lanes, c.Retention.Events, c.Retention.Scores = 5, events.Duration(time.Hour), events.Duration(2*time.Hour)
	cfgs, err := topology.ForKind(c, 3)
	if err != nil {
		t.Fatal(err)
	}
	if cfgs[0].Name != "SCORES_payment" || cfgs[1].Name != "EVENTS_payment" {
		t.Fatalf("made in the order %s, %s: want SCORES before EVENTS", cfgs[0].Name, cfgs[1].Name)
	}
	for _, s := range cfgs {
		if s.AllowRollup || !s.DenyPurge {
			t.Errorf("%s: rollup %v, deny purge %v: a publisher could empty it", s.Name, s.AllowRollup, s.DenyPurge)
		}
		if s.MaxBytes > 0 || s.MaxMsgs > 0 || s.MaxMsgsPerSubject > 0 {
			t.Errorf("%s: limited by size: an event could be dropped unscored, or a position lost", s.Name)
		}
		if s.Discard != natsjs.DiscardNew {
			t.Errorf("%s: discard %v: should somebody set a limit by hand, it would drop silently", s.Name, s.Discard)
		}
		if !s.AllowAtomicPublish || !s.AllowDirect || s.Storage != natsjs.FileStorage || s.Replicas != 3 || s.Retention != natsjs.LimitsPolicy {
			t.Errorf("%s: %+v", s.Name, s)
		}
	}
	if cfgs[0].MaxAge != 2*time.Hour || cfgs[1].MaxAge != time.Hour {
		t.Errorf("max age %s, %s", cfgs[0].MaxAge, cfgs[1].MaxAge)
	}
	if got := cfgs[1].SubjectTransform.Destination; got != "events.payment.{{partition(5,1)}}.{{wildcard(1)}}" {
		t.Errorf("transform to %s", got)
	}
}

func TestRenderRefuses(t *testing.T) {
	if _, err := topology.SharedFiles(2); err == nil {
		t.Error("2 replicas were accepted")
	}
	c := payment()
	c.Lanes = events.MaxLanes + 1
	if _, err := topology.KindFiles(c, 3); err == nil {
		t.Error("too many lanes were accepted")
	}
}
