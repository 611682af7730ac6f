package model

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// deny puts an entity on the list of payment.
func deny(t *testing.T, r *Registry, entity string, until time.Time) uint64 {
	t.Helper()
	_, _, revision, err := r.ChangeOverrides(testkit.Context(t), "payment", func(l *Overrides) error {
		l.Put(Override{Entity: entity, List: events.Deny, Reason: "r", By: "ann", At: time.Unix(1_700_000_000, 0).UTC(), Until: until})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// listing is Lists that run, and what they reported.
type listing struct {
	*Lists
	mu   sync.Mutex
	said []string
}

func listen(t *testing.T, kv jetstream.KeyValue, trust *Trust) *listing {
	t.Helper()
	l := &listing{}
	l.Lists = NewLists(ListsConfig{KV: kv, Trust: trust, Poll: 50 * time.Millisecond, Kinds: func() []string { return []string{"payment"} }, Report: func(kind string, revision uint64, n int, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.said = append(l.said, fmt.Sprintf("%s %d %d %v", kind, revision, n, err))
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if err := l.AwaitFirst(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listing) await(t *testing.T, revision uint64) *List {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("the list of revision %d", revision), func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.Of("payment") != nil && l.Of("payment").Revision == revision, strings.Join(l.said, "\n")
	})
	return l.Of("payment")
}

func (l *listing) awaitSaid(t *testing.T, what string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, what, func() (bool, string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		all := strings.Join(l.said, "\n")
		return strings.Contains(all, what), all
	})
}

func TestOverrides(t *testing.T) {
	kv := newBucket(t)
	signer, trust := newSigner(t)
	r := NewRegistry(kv).Keyed(signer, trust)
	ctx := testkit.Context(t)
	if l, rev, err := r.Overrides(ctx, "payment"); err != nil || rev != 0 || len(l.Entries) != 0 {
		t.Errorf("before there is one: %+v, %d, %v", l, rev, err)
	}
	before := listen(t, kv, trust)
	if before.Of("payment") != nil || before.Of("payment").Of("c1", time.Now()) != nil || before.Of("payment").Len() != 0 {
		t.Error("somebody is on a list that there is none of")
	}
	until := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	first := deny(t, r, "c1", until)
	second := deny(t, r, "c0", time.Time{})
	list := before.await(t, second)
	for _, x := range []struct {
		entity string
		at     time.Time
		on     bool
	}{{"c1", until.Add(-time.Nanosecond), true}, {"c1", until, false}, {"c0", until.Add(1e6 * time.Hour), true}, {"c2", until, false}} {
		if o := list.Of(x.entity, x.at); (o != nil) != x.on {
			t.Errorf("%s at %s: %+v", x.entity, x.at, o)
		}
	}
	if l := listen(t, kv, trust).Of("payment"); l == nil || l.Revision != second || l.Len() != 2 {
		t.Errorf("who comes later has %+v once the first look is over", l)
	}

	// What may not be used takes no good list's place, and is told of once.
	for _, x := range []struct{ body, want string }{
		{"nonsense", "read as JSON"},
		{`{"kind":"payment","entries":[],"more":1}`, "unknown field"},
		{`{"kind":"claim","entries":[]}`, "of claim"},
		{`{"kind":"payment","entries":[{"entity":"b","list":"deny","reason":"","by":"","at":"2026-01-01T00:00:00Z"},{"entity":"a","list":"deny","reason":"","by":"","at":"2026-01-01T00:00:00Z"}]}`, "ascending"},
		{`{"kind":"payment","entries":[{"entity":"a","list":"maybe","reason":"","by":"","at":"2026-01-01T00:00:00Z"}]}`, "want allow or deny"},
		{`{"kind":"payment","entries":[]}`, "no signature"},
	} {
		rev := put(t, kv, OverridesKey("payment"), x.body)
		before.awaitSaid(t, fmt.Sprintf("payment %d 0 payment.overrides at revision %[1]d: override list refused: ", rev))
		before.awaitSaid(t, x.want)
		if l := before.Of("payment"); l.Revision != second {
			t.Errorf("%s: revision %d is in force", x.body, l.Revision)
		}
		if _, _, err := r.Overrides(ctx, "payment"); !errors.Is(err, ErrOverrides) {
			t.Errorf("%s: read: %v", x.body, err)
		}
	}
	body, err := (&Overrides{Kind: "payment", Entries: list2(t, r, first)}).encode(signer)
	if err != nil {
		t.Fatal(err)
	}
	altered := put(t, kv, OverridesKey("payment"), strings.Replace(string(body), `"deny"`, `"allow"`, 1))
	before.awaitSaid(t, fmt.Sprintf("payment %d 0 payment.overrides", altered))
	before.awaitSaid(t, "altered since")
	if l := before.Of("payment"); l.Of("c1", time.Time{}).List != events.Deny {
		t.Error("an altered list is in force")
	}

	// Put back, it holds again; deleted, nobody is on it.
	again := put(t, kv, OverridesKey("payment"), string(body))
	if l := before.await(t, again); l.Len() != 1 {
		t.Errorf("put back: %d entries", l.Len())
	}
	if err := kv.Delete(ctx, OverridesKey("payment")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "nobody is on the list", func() (bool, string) {
		return before.Of("payment").Len() == 0, fmt.Sprint(before.Of("payment"))
	})
	third := deny(t, r, "c9", time.Time{})
	before.await(t, third)

	if l, err := r.OverridesAt(ctx, "payment", first); err != nil || len(l.Entries) != 1 || l.Of("c1") == nil {
		t.Errorf("as it was at revision %d: %+v, %v", first, l, err)
	}
	if _, err := r.OverridesAt(ctx, "payment", third+100); !errors.Is(err, ErrNoVersion) {
		t.Errorf("at a revision that there was not: %v", err)
	}
	history, err := r.OverrideHistory(ctx, "payment")
	if err != nil || len(history) < 4 || history[0].Changes[0] != "deny c1, by ann: r, until 2026-05-01T00:00:00Z" || history[len(history)-1].Changes[0] != "deny c9, by ann: r" {
		t.Errorf("history %+v, %v", history, err)
	}
}

func list2(t *testing.T, r *Registry, revision uint64) []Override {
	t.Helper()
	l, err := r.OverridesAt(testkit.Context(t), "payment", revision)
	if err != nil {
		t.Fatal(err)
	}
	return l.Entries
}

func TestOverridesAreBounded(t *testing.T) {
	l := &Overrides{Kind: "payment"}
	for i := range MaxOverrides {
		l.Put(Override{Entity: fmt.Sprintf("card-%06d", i), List: events.Allow, Reason: strings.Repeat("x", 30), By: "ann"})
	}
	body, err := l.encode(nil)
	if err != nil {
		t.Fatalf("as many as may be: %v", err)
	}
	t.Logf("%d entries make %d bytes", len(l.Entries), len(body))
	l.Put(Override{Entity: "z", List: events.Deny})
	if _, err := l.encode(nil); !errors.Is(err, ErrOverrides) || !strings.Contains(err.Error(), "at most 5000") {
		t.Errorf("one more: %v", err)
	}
	if !l.Remove("z") || l.Remove("z") || l.Of("card-000007") == nil {
		t.Error("an entity is taken off once")
	}
	for i := range l.Entries {
		l.Entries[i].Reason = strings.Repeat("x", MaxOverrideReason)
	}
	if _, err := l.encode(nil); !errors.Is(err, ErrOverrides) || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("too many bytes: %v", err)
	}
}

// Two who change the list at once both have their say, and a lost answer changes nothing twice.
func TestOverridesRace(t *testing.T) {
	bucket := newBucket(t)
	plain := NewRegistry(bucket)
	deny(t, plain, "c0", time.Time{})
	kv := &faultyKV{KeyValue: bucket, before: func() { deny(t, plain, "c1", time.Time{}) }}
	deny(t, NewRegistry(kv), "c2", time.Time{})
	for _, faults := range [][]fault{{notApplied}, {appliedUnsaid}, {notApplied, appliedUnsaid}} {
		kv.fail(faults...)
		deny(t, NewRegistry(kv), fmt.Sprint("d", len(faults), faults[0]), time.Time{})
	}
	l, _, err := plain.Overrides(testkit.Context(t), "payment")
	if err != nil || len(l.Entries) != 6 {
		t.Errorf("%+v, %v: want c0, c1, c2 and three more", l, err)
	}
}

func BenchmarkOverrideLookup(b *testing.B) {
	o := &Overrides{Kind: "payment"}
	for i := range MaxOverrides {
		o.Put(Override{Entity: fmt.Sprintf("card-%06d", i), List: events.Deny})
	}
	for name, l := range map[string]*List{"none": nil, "empty": newList(&Overrides{}, 1), "5000": newList(o, 1)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			for b.Loop() {
				l.Of("card-004711", now)
			}
		})
	}
}
