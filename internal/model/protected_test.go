package model

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// What the contract protects no model reads: it becomes no version, and a version from before is neither promoted nor gone back to nor served.
func TestProtectedIsNoInput(t *testing.T) {
	kv := newBucket(t)
	r := NewRegistry(kv)
	ctx := testkit.Context(t)
	schema := testSchema(t, func(c *events.Contract) { c.Fields[2].Protected = true })
	refused := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "field age is protected") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := r.PublishFit(ctx, schema, testArtifact(1))
	refused("publish", err)
	if v := versions(t, r); len(v) != 0 {
		t.Errorf("versions %v", v)
	}
	if v, err := r.PublishFit(ctx, testSchema(t, nil), testArtifact(1)); err != nil || v != 1 {
		t.Errorf("under a contract that does not protect it: %d, %v", v, err)
	}
	publish(t, r, 2)
	s := Switch{Schema: schema, By: "ann", Reason: "r"}
	_, err = r.PromoteFit(ctx, s, 1)
	refused("promote", err)
	promote(t, kv, 1)
	promote(t, kv, 2)
	_, err = r.Rollback(ctx, s, 1)
	refused("roll back", err)

	w := watch(t, kv, time.Second)
	w.await(t, 2, promoted(t, kv))
	if err := w.Track(schema, 8); err == nil || !strings.Contains(err.Error(), "field age is protected") {
		t.Errorf("a contract that protects what is read: %v", err)
	}
	other := NewWatcher(WatcherConfig{KV: kv})
	if err := other.Track(schema, 8); err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(ctx, RolloutKey("payment"))
	if err != nil {
		t.Fatal(err)
	}
	other.take(ctx, (*other.kinds.Load())["payment"], entry.Revision(), entry.Operation(), entry.Value())
	if live := other.Live("payment"); !live.Predictor.IsPrior() || other.Refused() != 1 {
		t.Errorf("served: %+v, %d refused", live, other.Refused())
	}
}
