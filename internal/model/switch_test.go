package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// foreign is a version whose spec reads a field that the contract has not.
func foreign(version int) *Artifact {
	a := testArtifact(5)
	a.Version, a.Spec.Fields = version, a.Spec.Fields[:1]
	a.Spec.Fields[0].Field = "unheard_of"
	a.Fingerprint, a.Weights = a.Spec.Fingerprint(), nil
	for _, c := range a.Spec.Columns("") {
		a.Weights = append(a.Weights, Weight{Column: c.Name, Field: c.Field})
	}
	return a
}

func TestSwitch(t *testing.T) {
	ctx := testkit.Context(t)
	kv := newBucket(t)
	r := NewRegistry(kv)
	s := Switch{Schema: testSchema(t, nil), By: "ann", Reason: "because"}
	if _, err := r.Rollback(ctx, s, 0); !errors.Is(err, ErrNothingBefore) {
		t.Errorf("rollback without a record: %v", err)
	}
	for i := range 3 {
		publish(t, r, float64(i))
	}
	put(t, kv, Name("payment", 4), string(encoded(t, foreign(4))))
	put(t, kv, Name("payment", 5), strings.Replace(string(encoded(t, testArtifact(5))), `"intercept":5`, `"intercept":6`, 1))

	// Each step is one call, and what the record is after it.
	type result struct {
		champion, previous int
		changed            bool
		err                error
		says               string
	}
	promote := func(v int) func() (Switched, error) {
		return func() (Switched, error) { return r.PromoteFit(ctx, s, v) }
	}
	rollback := func(to int) func() (Switched, error) {
		return func() (Switched, error) { return r.Rollback(ctx, s, to) }
	}
	nonsense := func() (Switched, error) {
		put(t, kv, RolloutKey("payment"), `{"champion":"the best"}`)
		return Switched{Changed: true}, nil
	}
	revision := uint64(0)
	for i, x := range []struct {
		do   func() (Switched, error)
		want result
	}{
		{promote(1), result{champion: 1, changed: true}},
		{rollback(0), result{champion: 1, err: ErrNothingBefore, says: "payment.v000001 is in force since revision"}},
		{promote(2), result{champion: 2, previous: 1, changed: true}},
		{promote(2), result{champion: 2, previous: 1}},
		{promote(3), result{champion: 3, previous: 2, changed: true}},
		{promote(9), result{champion: 3, previous: 2, err: ErrNoVersion, says: "payment.v000009"}},
		{promote(4), result{champion: 3, previous: 2, err: ErrUnfit, says: "unheard_of"}},
		{promote(5), result{champion: 3, previous: 2, err: ErrArtifact, says: "checksum"}},
		{rollback(4), result{champion: 3, previous: 2, err: ErrUnfit, says: "unheard_of"}},
		{rollback(0), result{champion: 2, changed: true}},
		{rollback(0), result{champion: 2, err: ErrNothingBefore, says: "payment.v000002 is in force since revision"}},
		{rollback(1), result{champion: 1, changed: true}},
		{rollback(1), result{champion: 1}},
		{nonsense, result{}},
		{rollback(0), result{err: ErrNothingBefore, says: "rollout record refused"}},
		{promote(2), result{champion: 2, previous: 1, changed: true}}, // upon what there was before the nonsense
		{nonsense, result{}},
		{rollback(1), result{champion: 1, previous: 2, changed: true}},
	} {
		before := revision
		done, err := x.do()
		failed := x.want.err != nil || x.want.says != ""
		if (err != nil) != failed || x.want.err != nil && !errors.Is(err, x.want.err) || failed && !strings.Contains(err.Error(), x.want.says) {
			t.Fatalf("step %d: %v, want %v and %q", i, err, x.want.err, x.want.says)
		}
		var read Rollout
		read, revision, err = r.Rollout(ctx, "payment")
		if x.want.champion == 0 {
			if !errors.Is(err, ErrRollout) {
				t.Fatalf("step %d: %+v, %v", i, read, err)
			}
			continue
		}
		if err != nil || read.Champion != x.want.champion || read.Previous != x.want.previous || (revision > before) != x.want.changed {
			t.Fatalf("step %d: %+v at %d after %d, %v, want %+v", i, read, revision, before, err, x.want)
		}
		if !failed && (done.Changed != x.want.changed || done.Revision != revision || done.Now.Champion != read.Champion) {
			t.Fatalf("step %d: %+v, the record is %+v at %d", i, done, read, revision)
		}
	}
}

// Of two that switch from the same record, one does, and the other is told so.
func TestSwitchRace(t *testing.T) {
	ctx := testkit.Context(t)
	bucket := newBucket(t)
	kv := &faultyKV{KeyValue: bucket}
	r := NewRegistry(kv)
	s := Switch{Schema: testSchema(t, nil), By: "ann", Reason: "because"}
	for i := range 3 {
		publish(t, r, float64(i))
	}
	promote(t, bucket, 1)
	promote(t, bucket, 2)
	kv.before = func() { promote(t, bucket, 3) }
	if _, err := r.Rollback(ctx, s, 0); !errors.Is(err, ErrConflict) {
		t.Errorf("rollback: %v, want ErrConflict", err)
	}
	kv.before = func() { promote(t, bucket, 1) }
	if _, err := r.PromoteFit(ctx, s, 2); !errors.Is(err, ErrConflict) {
		t.Errorf("promote: %v, want ErrConflict", err)
	}
	kv.fail(appliedUnsaid)
	if done, err := r.PromoteFit(ctx, s, 2); err != nil || !done.Changed || done.Now.Champion != 2 {
		t.Errorf("promote, with the answer lost: %+v, %v", done, err)
	}
	history, err := r.History(ctx, "payment")
	if err != nil || len(history) != 5 {
		t.Fatalf("%d records, %v", len(history), err)
	}
}

func TestHistory(t *testing.T) {
	ctx := testkit.Context(t)
	kv := newBucket(t)
	r := NewRegistry(kv)
	if h, err := r.History(ctx, "payment"); err != nil || len(h) != 0 {
		t.Fatalf("of an empty bucket: %v, %v", h, err)
	}
	publish(t, r, 1)
	publish(t, r, 2)
	first := promote(t, kv, 1)
	promote(t, kv, 2)
	entry, err := kv.GetRevision(ctx, RolloutKey("payment"), first)
	if err != nil {
		t.Fatal(err)
	}
	reverted := put(t, kv, RolloutKey("payment"), string(entry.Value()))
	put(t, kv, RolloutKey("payment"), "nonsense")
	if err := kv.Delete(ctx, RolloutKey("payment")); err != nil {
		t.Fatal(err)
	}
	promote(t, kv, 2)
	h, err := r.History(ctx, "payment")
	if err != nil || len(h) != 6 {
		t.Fatalf("%+v, %v", h, err)
	}
	for i, champion := range []int{1, 2, 1, 0, 0, 2} {
		x := h[i]
		if x.Rollout.Champion != champion || x.Deleted != (i == 4) || (x.Err != nil) != (i == 3) || x.Stored.IsZero() || i > 0 && x.Revision <= h[i-1].Revision {
			t.Errorf("record %d: %+v, want champion %d", i, x, champion)
		}
		if want := map[bool]uint64{true: first}[x.Revision == reverted]; x.PutBack != want {
			t.Errorf("record %d is put back from %d, want %d", i, x.PutBack, want)
		}
	}
	if !errors.Is(h[3].Err, ErrRollout) {
		t.Errorf("nonsense: %v", h[3].Err)
	}
}

// The story goes back further than the bucket's history, and has the newest change though it may not be copied yet.
func TestStory(t *testing.T) {
	ctx := testkit.Context(t)
	js := testkit.Start(t, 1).JetStream(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRegistry(kv)
	if s, err := r.Story(ctx, js, "payment"); err != nil || len(s) != 0 {
		t.Fatalf("of an empty bucket: %v, %v", s, err)
	}
	publish(t, r, 1)
	publish(t, r, 2)
	const changes = 150
	var revisions []uint64
	for i := range changes {
		revisions = append(revisions, promote(t, kv, 1+i%2))
		if i == 0 { // the server begins to copy within a second of a stream's making
			testkit.Eventually(t, testkit.Deadline, "a copy", func() (bool, string) {
				c, err := copied(ctx, js, "payment")
				return len(c) == 1, fmt.Sprint(err)
			})
		}
	}
	if err := kv.Delete(ctx, RolloutKey("payment")); err != nil {
		t.Fatal(err)
	}
	last := promote(t, kv, 1)
	if h, err := r.History(ctx, "payment"); err != nil || len(h) != 64 {
		t.Fatalf("the bucket has %d, %v", len(h), err)
	}
	var story []Record
	testkit.Eventually(t, testkit.Deadline, "all changes", func() (bool, string) {
		story, err = r.Story(ctx, js, "payment")
		if err != nil {
			t.Fatal(err)
		}
		return len(story) == changes+2, fmt.Sprint(len(story))
	})
	for i, x := range story[:changes] {
		if x.Revision != revisions[i] || x.Rollout.Champion != 1+i%2 || x.Err != nil || x.Deleted || x.PutBack != 0 {
			t.Fatalf("record %d: %+v, want revision %d", i, x, revisions[i])
		}
	}
	if d, l := story[changes], story[changes+1]; !d.Deleted || l.Revision != last {
		t.Errorf("%+v, %+v", d, l)
	}
	if err := js.DeleteStream(ctx, events.RolloutsStream); err != nil {
		t.Fatal(err)
	}
	if story, err = r.Story(ctx, js, "payment"); err != nil || len(story) != 64 {
		t.Errorf("without the stream: %d records, %v", len(story), err)
	}
}

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]int{
		"v3": 3, "3": 3, "v000003": 3, "payment.v000003": 3, "v999999": 999_999,
		"": 0, "v": 0, "v0": 0, "-1": 0, "v1000000": 0, "99999999999999999999": 0, "v3x": 0, "claim.v000003": 0, "vv3": 0, "x": 0, "٣": 0,
	} {
		got, err := ParseVersion("payment", text)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
}

// A lane counts once its own position says so; those that do not are named as they were last seen.
func TestAwaitLanes(t *testing.T) {
	outage := errors.New("no answer")
	reads := map[int]int{}
	ctx, cancel := context.WithCancel(testkit.Context(t))
	defer cancel()
	read := func(ctx context.Context, lane int) (events.Position, bool, error) {
		reads[lane]++
		switch n := reads[lane]; {
		case lane == 0: // is there already
			return events.Position{Revision: 9}, true, nil
		case lane == 1 && n < 3: // comes
			return events.Position{Revision: 6, Owner: "s1"}, true, nil
		case lane == 1:
			return events.Position{Revision: 7, Owner: "s1"}, true, nil
		case lane == 2: // stays
			return events.Position{Revision: 6, Owner: "s2"}, true, nil
		case lane == 3: // was lost
			return events.Position{}, false, nil
		case n == 6:
			cancel()
			return events.Position{}, false, ctx.Err()
		case n == 1:
			return events.Position{Revision: 5, Owner: "s4"}, true, nil
		}
		return events.Position{}, false, outage
	}
	want := []Behind{{Lane: 2, Revision: 6, Owner: "s2"}, {Lane: 3}, {Lane: 4, Revision: 5, Owner: "s4", Err: outage}}
	if got := AwaitLanes(ctx, []int{0, 1, 2, 3, 4}, 7, read); !slices.Equal(got, want) {
		t.Errorf("behind are %+v, want %+v", got, want)
	}
	if reads[0] != 1 || reads[1] != 3 {
		t.Errorf("a lane that had come was read again: %v", reads)
	}
	if got := AwaitLanes(testkit.Context(t), []int{0, 1}, 7, read); len(got) != 0 {
		t.Errorf("behind are %+v, want none", got)
	}
}
