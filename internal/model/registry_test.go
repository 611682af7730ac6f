package model

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// newBucket makes MODELS, as it is made in production as far as these tests go, on a node of its own.
func newBucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	js := testkit.Start(t, 1).JetStream(t)
	kv, err := js.CreateKeyValue(testkit.Context(t), jetstream.KeyValueConfig{Bucket: events.ModelsBucket, History: 64})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// faultyKV fails writes: before they are done, or after.
type faultyKV struct {
	jetstream.KeyValue

	mu     sync.Mutex
	faults []fault // of the writes to come; then none
	before func()  // called once, before the next write
}

type fault int

const (
	none fault = iota
	notApplied
	appliedUnsaid
)

var errFault = errors.New("injected: no answer")

func (f *faultyKV) next() fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if before := f.before; before != nil {
		f.before = nil
		before()
	}
	if len(f.faults) == 0 {
		return none
	}
	x := f.faults[0]
	f.faults = f.faults[1:]
	return x
}

func (f *faultyKV) fail(faults ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = faults
}

func (f *faultyKV) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return f.write(func() (uint64, error) { return f.KeyValue.Update(ctx, key, value, revision) })
}

func (f *faultyKV) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return f.write(func() (uint64, error) { return f.KeyValue.Create(ctx, key, value, opts...) })
}

func (f *faultyKV) write(do func() (uint64, error)) (uint64, error) {
	fault := f.next()
	if fault == notApplied {
		return 0, errFault
	}
	rev, err := do()
	if fault == appliedUnsaid && err == nil {
		return 0, errFault
	}
	return rev, err
}

func publish(t *testing.T, r *Registry, intercept float64) int {
	t.Helper()
	a := testArtifact(intercept)
	v, err := r.Publish(testkit.Context(t), a)
	if err != nil {
		t.Fatal(err)
	}
	if a.Version != 1 {
		t.Errorf("Publish changed the caller's artifact to version %d", a.Version)
	}
	return v
}

func versions(t *testing.T, r *Registry) (list []int) {
	t.Helper()
	entries, err := r.List(testkit.Context(t), "payment")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Version)
	}
	return list
}

func TestRegistry(t *testing.T) {
	ctx := testkit.Context(t)
	kv := newBucket(t)
	r := NewRegistry(kv)

	if list := versions(t, r); len(list) != 0 {
		t.Fatalf("an empty bucket lists %v", list)
	}
	if record, rev, err := r.Rollout(ctx, "payment"); err != nil || rev != 0 || record.Champion != 0 {
		t.Fatalf("rollout of an empty bucket: %+v at %d, %v", record, rev, err)
	}
	if _, err := r.Get(ctx, "payment", 1); !errors.Is(err, ErrNoVersion) {
		t.Fatalf("get of what is not there: %v", err)
	}
	for want := 1; want <= 2; want++ {
		if v := publish(t, r, float64(want)); v != want {
			t.Fatalf("published as %d, want %d", v, want)
		}
	}
	a, err := r.Get(ctx, "payment", 2)
	if err != nil || a.Intercept != 2 || a.Version != 2 {
		t.Fatalf("version 2: %+v, %v", a, err)
	}

	t.Run("a deleted version is not used again", func(t *testing.T) {
		if err := kv.Delete(ctx, Name("payment", 2)); err != nil {
			t.Fatal(err)
		}
		if v := publish(t, r, 3); v != 3 {
			t.Errorf("published as %d, want 3", v)
		}
		if _, err := r.Get(ctx, "payment", 2); !errors.Is(err, ErrNoVersion) {
			t.Errorf("get of what was deleted: %v", err)
		}
	})
	t.Run("promote", func(t *testing.T) {
		_, first, err := r.Promote(ctx, "payment", 1, "ann", "first")
		if err != nil {
			t.Fatal(err)
		}
		record, second, err := r.Promote(ctx, "payment", 3, "ben", "better")
		if err != nil || record.Champion != 3 || record.Previous != 1 || record.UpdatedBy != "ben" || record.Reason != "better" || second <= first {
			t.Fatalf("%+v at %d after %d, %v", record, second, first, err)
		}
		read, rev, err := r.Rollout(ctx, "payment")
		if err != nil || rev != second || read.Champion != 3 || !read.At.Equal(record.At) {
			t.Errorf("%+v at %d, %v", read, rev, err)
		}
		if _, rev, err := r.Promote(ctx, "payment", 3, "ann", "again"); err != nil || rev != second {
			t.Errorf("promoting the champion: revision %d, %v, want %d", rev, err, second)
		}
		if _, _, err := r.Promote(ctx, "payment", 9, "ann", "?"); !errors.Is(err, ErrNoVersion) {
			t.Errorf("promoting what is not there: %v", err)
		}
	})
	t.Run("set at another revision", func(t *testing.T) {
		record, rev, err := r.Rollout(ctx, "payment")
		if err != nil {
			t.Fatal(err)
		}
		next := Rollout{Champion: 1, Previous: record.Champion, UpdatedBy: "ann", Reason: "back", At: time.Now()}
		for _, wrong := range []uint64{0, rev - 1} {
			if _, err := r.SetRollout(ctx, "payment", next, wrong); !errors.Is(err, ErrConflict) {
				t.Errorf("at %d: %v, want ErrConflict", wrong, err)
			}
		}
		if _, err := r.SetRollout(ctx, "payment", Rollout{}, rev); !errors.Is(err, ErrRollout) {
			t.Errorf("a record without a champion: %v", err)
		}
	})
	t.Run("a record edited into nonsense", func(t *testing.T) {
		for _, body := range []string{"", "v3", `{"champion":"3"}`, `{"champion":0}`, `{"champion":3,"canary":{"version":1,"share":2}}`, `{"champion":3,"champoin":4}`} {
			if _, err := kv.Put(ctx, RolloutKey("payment"), []byte(body)); err != nil {
				t.Fatal(err)
			}
			if _, rev, err := r.Rollout(ctx, "payment"); !errors.Is(err, ErrRollout) || rev == 0 {
				t.Errorf("%q: revision %d, %v, want ErrRollout", body, rev, err)
			}
		}
		if record, _, err := r.Promote(ctx, "payment", 1, "ann", "repair"); err != nil || record.Champion != 1 {
			t.Errorf("promote over it: %+v, %v", record, err)
		}
	})
	t.Run("a record deleted", func(t *testing.T) {
		if err := kv.Delete(ctx, RolloutKey("payment")); err != nil {
			t.Fatal(err)
		}
		if record, rev, err := r.Rollout(ctx, "payment"); err != nil || rev != 0 {
			t.Errorf("%+v at %d, %v", record, rev, err)
		}
		if record, _, err := r.Promote(ctx, "payment", 1, "ann", "repair"); err != nil || record.Champion != 1 {
			t.Errorf("promote: %+v, %v", record, err)
		}
	})
	t.Run("an artifact altered", func(t *testing.T) {
		entry, err := kv.Get(ctx, Name("payment", 3))
		if err != nil {
			t.Fatal(err)
		}
		altered := strings.Replace(string(entry.Value()), `"intercept":3`, `"intercept":4`, 1)
		if _, err := kv.Put(ctx, Name("payment", 3), []byte(altered)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := r.Promote(ctx, "payment", 3, "ann", "?"); !errors.Is(err, ErrArtifact) {
			t.Errorf("promote: %v, want ErrArtifact", err)
		}
		if _, err := kv.Put(ctx, Name("payment", 3), encoded(t, testArtifact(1))); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(ctx, "payment", 3); !errors.Is(err, ErrArtifact) {
			t.Errorf("version 1 under the key of 3: %v, want ErrArtifact", err)
		}
	})
}

// TestRegistryLostAnswers: whatever became of a write, one version and one record come of one call.
func TestRegistryLostAnswers(t *testing.T) {
	ctx := testkit.Context(t)
	kv := &faultyKV{KeyValue: newBucket(t)}
	r := NewRegistry(kv)
	for i, faults := range [][]fault{{notApplied}, {appliedUnsaid}, {notApplied, appliedUnsaid}, {notApplied, notApplied}} {
		kv.fail(faults...)
		if v := publish(t, r, float64(i)); v != i+1 {
			t.Errorf("faults %v: published as %d, want %d", faults, v, i+1)
		}
		kv.fail(faults...)
		record, rev, err := r.Promote(ctx, "payment", i+1, "ann", "next")
		if err != nil || record.Champion != i+1 || record.Previous != i {
			t.Errorf("faults %v: promoted %+v, %v", faults, record, err)
		}
		if read, at, err := r.Rollout(ctx, "payment"); err != nil || at != rev || read.Champion != i+1 {
			t.Errorf("faults %v: record %+v at %d, want revision %d, %v", faults, read, at, rev, err)
		}
	}
	if list := versions(t, r); len(list) != 4 {
		t.Errorf("versions %v, want 4", list)
	}
	history, err := kv.History(ctx, RolloutKey("payment"))
	if err != nil || len(history) != 4 {
		t.Errorf("%d rollout records, want 4, %v", len(history), err)
	}
	kv.fail(notApplied, notApplied, notApplied, notApplied, notApplied)
	if _, err := r.Publish(ctx, testArtifact(9)); !errors.Is(err, errFault) || !strings.Contains(err.Error(), "not known whether") {
		t.Errorf("a write that never succeeds: %v", err)
	}
}

// TestRegistryRace: trainers that race get a version each; of those that promote from the same revision, one does.
func TestRegistryRace(t *testing.T) {
	ctx := testkit.Context(t)
	bucket := newBucket(t)
	kv := &faultyKV{KeyValue: bucket}
	r := NewRegistry(kv)
	kv.before = func() { publish(t, NewRegistry(bucket), 100) }
	if v := publish(t, r, 1); v != 2 {
		t.Errorf("the loser published as %d, want 2", v)
	}
	kv.before = func() {
		if _, _, err := NewRegistry(bucket).Promote(ctx, "payment", 1, "ann", "first"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := r.Promote(ctx, "payment", 2, "ben", "mine"); !errors.Is(err, ErrConflict) {
		t.Errorf("the loser's promotion: %v, want ErrConflict", err)
	}
	if record, _, err := r.Rollout(ctx, "payment"); err != nil || record.Champion != 1 {
		t.Errorf("%+v, %v, want champion 1", record, err)
	}

	const racers = 6
	got := make([]int, racers)
	var running sync.WaitGroup
	for i := range racers {
		running.Go(func() {
			v, err := NewRegistry(bucket).Publish(ctx, testArtifact(float64(i)))
			if err != nil {
				t.Error(err)
			}
			got[i] = v
		})
	}
	running.Wait()
	seen := map[int]bool{}
	for i, v := range got {
		a, err := r.Get(ctx, "payment", v)
		if err != nil || a.Intercept != float64(i) || seen[v] {
			t.Errorf("racer %d got version %d, which is %+v, %v", i, v, a, err)
		}
		seen[v] = true
	}
}
