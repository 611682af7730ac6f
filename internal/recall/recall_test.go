package recall

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// ledger of ratings that EVENTS_otc holds, and what remembering them in order says.
type ledger struct {
	cluster *testkit.Cluster
	js      natsjs.JetStream
	plan    *memory.Plan

	later atomic.Int64 // by which the clock of those that follow is ahead
	mu    sync.Mutex
	notes []error
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	text, err := os.ReadFile("../../testdata/kinds/otc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contract, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{cluster: testkit.Start(t, 1)}
	l.js = l.cluster.JetStream(t)
	if l.plan, err = memory.Compile(schema); err != nil {
		t.Fatal(err)
	}
	ctx, o := testkit.Context(t), topology.Options{Replicas: 1}
	if _, err := topology.ApplyShared(ctx, l.js, o); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, l.js, contract, o); err != nil {
		t.Fatal(err)
	}
	return l
}

// publish n ratings of few people; what they say depends on salt.
func (l *ledger) publish(t *testing.T, n, salt int) {
	t.Helper()
	for i := range n {
		body := fmt.Appendf(nil, `{"rater":"%d","ratee":"%d","rating":%d,"at":%q}`, i%7, (i*salt+1)%11, i*salt%19-9, time.Unix(int64(1e9+100*i), 0).UTC().Format(time.RFC3339))
		if _, err := l.js.PublishAsync(fmt.Sprintf("events.otc.%d", i%7), body); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 || i == n-1 {
			select {
			case <-l.js.PublishAsyncComplete():
			case <-time.After(testkit.Deadline):
				t.Fatal("events are not acknowledged")
			}
		}
	}
}

// recomputed is the features of each event that EVENTS holds now, by sequence, folded from the first one.
func (l *ledger) recomputed(t *testing.T) map[uint64][]float64 {
	t.Helper()
	stream, err := l.js.Stream(testkit.Context(t), events.EventsStream("otc"))
	if err != nil {
		t.Fatal(err)
	}
	f, all := Folder{Store: memory.New(l.plan)}, map[uint64][]float64{}
	for seq := stream.CachedInfo().State.FirstSeq; seq <= stream.CachedInfo().State.LastSeq; seq++ {
		m, err := stream.GetMsg(testkit.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		all[seq] = make([]float64, l.plan.Width())
		if _, err := f.Step(seq, m.Subject, m.Header.Get("Content-Type"), m.Data, m.Time, all[seq]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// follow runs a Recall until the test ends, or end is called.
func (l *ledger) follow(t *testing.T, edit func(*Config)) (r *Recall, end func()) {
	t.Helper()
	cfg := Config{JS: l.js, Plan: l.plan, Owner: "test", Note: func(err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.notes = append(l.notes, err)
	}, Now: func() time.Time { return time.Now().Add(time.Duration(l.later.Load())) }}
	edit(&cfg)
	r = New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return r, end
}

// awaitFront lets the time pass in which the memory waits for lanes to ask.
func (l *ledger) awaitFront(t *testing.T, r *Recall, seq uint64) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, "the memory has come to the end", func() (bool, string) {
		l.later.Add(int64(gateLife))
		return r.Front() >= seq, fmt.Sprint(r.Front())
	})
}

// compare reads batch by batch, as a lane does.
func compare(t *testing.T, r *Recall, want map[uint64][]float64, first, last uint64) {
	t.Helper()
	got := make([]float64, len(want[first]))
	for from := first; from <= last; from += 256 {
		till := min(from+255, last)
		if !r.At(0, from, till) {
			if err := r.Await(testkit.Context(t), 0, from, till); err != nil {
				t.Fatal(err)
			}
		}
		for seq := from; seq <= till; seq++ {
			if _, ok := r.Features(seq, got); !ok {
				t.Fatalf("no features of event %d, which was waited for", seq)
			}
			if !slices.EqualFunc(got, want[seq], func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
				t.Fatalf("features of event %d are %v, recomputed %v", seq, got, want[seq])
			}
		}
	}
}

// A lane that is further behind than what is kept gets its features from a replica of its own, from the beginning or from a snapshot, and comes back to the main one.
func TestLaneFarBehind(t *testing.T) {
	const n = 3 * minEvents
	l := newLedger(t)
	l.publish(t, n, 3)
	want := l.recomputed(t)
	r, end := l.follow(t, func(c *Config) {
		c.Bytes, c.SaveEvery, c.Save = 1, time.Millisecond, func() bool { return true }
	})
	l.awaitFront(t, r, n)
	if r.At(0, 1, 10) || !r.At(1, n, n) {
		t.Error("the first events are at hand, or the last is not: nothing is tried here")
	}
	compare(t, r, want, 1, n)
	r.mu.Lock()
	replicas, home := len(r.behind), r.pick(n) == r.main
	r.mu.Unlock()
	if replicas != 1 || !home {
		t.Errorf("%d replicas beside the main one, want 1 that is left again", replicas)
	}
	end()

	again, _ := l.follow(t, func(c *Config) { c.Bytes = 1 })
	l.awaitFront(t, again, n)
	compare(t, again, want, n/2, n)
}

// EVENTS is put back to an older state, under snapshots of events that it does not hold any more: they are passed over, and told of.
func TestEventsPutBack(t *testing.T) {
	const kept, gone = 1000, 2000
	l := newLedger(t)
	ctx, name := testkit.Context(t), events.EventsStream("otc")
	l.publish(t, kept, 3)
	found, err := filepath.Glob(filepath.Join(l.cluster.Dir(0), "*", "*", "streams", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("files of %s: %v, %v", name, found, err)
	}
	dir := found[0]
	backup := t.TempDir()
	aside := func(from, to string) { // as one does who copies files, and not streams
		t.Helper()
		l.cluster.StopNode(t, 0)
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(to, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		l.cluster.RestartNode(t, 0)
	}
	aside(dir, backup)
	l.publish(t, gone, 5)
	saving := func(c *Config) { c.SaveEvery, c.Save = time.Millisecond, func() bool { return true } }
	due := func(salt int) { // a snapshot is, and with so many events it is written
		l.later.Add(int64(saveIdle))
		l.publish(t, 300, salt)
	}
	r, end := l.follow(t, saving)
	l.awaitFront(t, r, kept+gone)
	due(5)
	lib := newLibrary(l.js, l.plan)
	store, err := lib.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	before, err := l.js.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	made := before.CachedInfo().Created.UnixNano()
	books := func() (seqs []uint64) {
		list, err := lib.list(ctx, store, made)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list {
			seqs = append(seqs, b.seq)
		}
		return seqs
	}
	testkit.Eventually(t, testkit.Deadline, "there is a snapshot of an event that will be gone", func() (bool, string) {
		b := books()
		return len(b) > 0 && b[len(b)-1] > kept, fmt.Sprint(b)
	})
	end()
	bad := books()
	bad = bad[len(bad)-1:]

	aside(backup, dir)
	l.publish(t, gone+1000, 8)
	want := l.recomputed(t)
	after, err := l.js.Stream(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if !after.CachedInfo().Created.Equal(before.CachedInfo().Created) {
		t.Fatal("what was put back is another incarnation: nothing is tried here")
	}
	seen := 0
	err = Walk(ctx, l.js, l.plan, bad[0]+10, bad[0]+20, func(error) {}, func(s Seen) error {
		seen++
		if !slices.EqualFunc(s.Features, want[s.Seq], func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
			return fmt.Errorf("features of event %d are %v, recomputed %v", s.Seq, s.Features, want[s.Seq])
		}
		return nil
	})
	if err != nil || seen != 11 {
		t.Errorf("walked over %d events: %v", seen, err)
	}
	for _, n := range events.LaneNumbers(l.plan.Schema.Contract.Lanes) {
		if _, err := topology.Rebase(ctx, l.js, topology.RebaseRequest{Kind: "otc", Lane: n, Seq: bad[0] + 10, By: "test", Reason: "put back", Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	r, _ = l.follow(t, saving)
	l.awaitFront(t, r, kept+gone+1000)
	compare(t, r, want, bad[0]+11, kept+gone+1000)
	l.mu.Lock()
	refused := slices.ContainsFunc(l.notes, func(err error) bool { return errors.Is(err, errAnchor) && strings.Contains(err.Error(), "put back") })
	l.mu.Unlock()
	if !refused {
		t.Error("nobody was told that a snapshot is of events that are gone")
	}
	due(8)
	testkit.Eventually(t, testkit.Deadline, "the snapshot is deleted when another is written", func() (bool, string) {
		b := books()
		return len(b) > 0 && !slices.Contains(b, bad[0]), fmt.Sprint(b)
	})
}

// Without the bucket of snapshots memory is folded from the first event, if EVENTS still holds that.
func TestNoBucket(t *testing.T) {
	l := newLedger(t)
	ctx := testkit.Context(t)
	l.publish(t, 600, 3)
	want := l.recomputed(t)
	if err := l.js.DeleteObjectStore(ctx, events.MemoryBucket); err != nil {
		t.Fatal(err)
	}
	r, _ := l.follow(t, func(*Config) {})
	l.awaitFront(t, r, 600)
	compare(t, r, want, 1, 600)
	stream, err := l.js.Stream(ctx, events.EventsStream("otc"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs, cfg.Discard = 500, natsjs.DiscardOld
	if _, err := l.js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := Begin(ctx, l.js, l.plan, 100, func(error) {}); !errors.Is(err, natsjs.ErrBucketNotFound) || !strings.Contains(err.Error(), "topology apply") {
		t.Errorf("events are gone, and there may have been snapshots: %v", err)
	}
}

// What deleted snapshots and those whose writers died have left is cleared away, once it is old; snapshots are not.
func TestSweep(t *testing.T) {
	l := newLedger(t)
	ctx := testkit.Context(t)
	lib := newLibrary(l.js, l.plan)
	s := memory.New(l.plan)
	for seq := range uint64(8) {
		if err := lib.save(ctx, s.Freeze(), memory.Place{Incarnation: 1, Origin: 1, Seq: seq + 1, Stored: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.js.Publish(ctx, "$O.MEMORY.C.orphan", []byte("part of a snapshot")); err != nil {
		t.Fatal(err)
	}
	left := func() (n int, orphan bool) {
		stream, err := l.js.Stream(ctx, "OBJ_MEMORY")
		if err != nil {
			t.Fatal(err)
		}
		info, err := stream.Info(ctx, natsjs.WithSubjectFilter(">"))
		if err != nil {
			t.Fatal(err)
		}
		return len(info.State.Subjects), info.State.Subjects["$O.MEMORY.C.orphan"] > 0
	}
	if err := lib.thin(ctx, 1, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n, orphan := left(); n != 8+4+1 || !orphan { // four snapshots are kept: the first as one of every so often, and the newest
		t.Errorf("%d subjects, orphan %v: want 8 names, 4 with their parts, and parts that may be being written", n, orphan)
	}
	if err := lib.thin(ctx, 1, time.Now().Add(2*litter), time.Hour); err != nil {
		t.Fatal(err)
	}
	if n, orphan := left(); n != 4+4 || orphan {
		t.Errorf("%d subjects, orphan %v: want 4 snapshots", n, orphan)
	}
	store, err := lib.open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if books, err := lib.list(ctx, store, 1); err != nil || len(books) != 4 {
		t.Errorf("%v, %v", books, err)
	}
	if got, _, err := lib.load(ctx, 1, func(uint64) bool { return true }, false, func(err error) { t.Error(err) }); err != nil || got == nil {
		t.Error(err)
	}
}
