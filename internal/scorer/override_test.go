package scorer

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// Who is on a list when a scorer starts is decided on by it from the first event on; who comes onto it, from then on; by when an event was stored,
// not by any clock of ours. The score says so, and stays what it is otherwise.
func TestOverridesDecide(t *testing.T) {
	w := newWorld(t)
	signer, err := model.CreateSigner(filepath.Join(t.TempDir(), "models.nk"))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := model.NewTrust(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	unsigned := w.registry
	w.registry = unsigned.Keyed(signer, trust)
	put := func(r *model.Registry, entity, list string, until time.Time) uint64 {
		t.Helper()
		_, _, revision, err := r.ChangeOverrides(testkit.Context(t), "payment", func(l *model.Overrides) error {
			l.Put(model.Override{Entity: entity, List: list, Reason: "r", By: "ann", Until: until})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return revision
	}
	past := time.Now().Add(-time.Hour)
	put(w.registry, "thief", events.Deny, time.Time{})
	put(w.registry, "friend", events.Allow, time.Now().Add(time.Hour))
	atStart := put(w.registry, "over", events.Deny, past)
	seq := func(entity string, header nats.Header) uint64 {
		t.Helper()
		return w.publish(t, "events.payment."+entity, header, []byte(`{"amount": 12}`))
	}
	thief, friend, over, other := seq("thief", nil), seq("friend", nil), seq("over", nil), seq("other", nil)
	old := seq("thief", nats.Header{events.HeaderHistory: {"1"}})
	w.runTrusting(t, trust)
	score := func(seq uint64) events.Score {
		t.Helper()
		o := w.outcomes(t, []uint64{seq})[seq]
		s, err := events.DecodeScore(o.body)
		if err != nil {
			t.Fatalf("%v in %s", err, o.body)
		}
		return s
	}
	plain := score(other)
	if plain.Override != "" || plain.OverrideRevision != 0 {
		t.Errorf("who is on no list: %+v", plain)
	}
	for _, x := range []struct {
		seq            uint64
		list, decision string
		revision       uint64
	}{{thief, events.Deny, events.Decline, atStart}, {friend, events.Allow, events.Approve, atStart}, {over, "", plain.Decision, 0}, {old, "", events.None, 0}} {
		s := score(x.seq)
		if s.Override != x.list || s.Decision != x.decision || s.OverrideRevision != x.revision || s.P != plain.P || s.Points != plain.Points {
			t.Errorf("%s: %+v, want %q, %s at revision %d", s.Entity, s, x.list, x.decision, x.revision)
		}
	}

	later := put(w.registry, "other", events.Deny, time.Time{})
	testkit.Eventually(t, testkit.Deadline, "the new list decides", func() (bool, string) {
		s := score(seq("other", nil))
		return s.OverrideRevision == later && s.Decision == events.Decline, s.Decision
	})
	if s := score(other); s.Override != "" {
		t.Error("what was scored before was scored again")
	}
	// A list that nobody trusted has signed does not open a door.
	forged := strings.NewReplacer(`"deny"`, `"allow"`)
	kv, err := w.js.KeyValue(testkit.Context(t), events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := kv.Get(testkit.Context(t), model.OverridesKey("payment"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(testkit.Context(t), model.OverridesKey("payment"), []byte(forged.Replace(string(entry.Value())))); err != nil {
		t.Fatal(err)
	}
	last := put(unsigned, "thief", events.Allow, time.Time{}) // it, too, has no signature
	_ = last
	if s := score(seq("thief", nil)); s.Decision != events.Decline || s.OverrideRevision != later {
		t.Errorf("by a list that is not trusted: %+v", s)
	}
}
