package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// watching is a Watcher that runs, and what it reported.
type watching struct {
	*Watcher
	mu     sync.Mutex
	events []Event
}

func watch(t *testing.T, kv jetstream.KeyValue, poll time.Duration) *watching {
	t.Helper()
	return watchTrusting(t, kv, poll, nil)
}

func watchTrusting(t *testing.T, kv jetstream.KeyValue, poll time.Duration, trust *Trust) *watching {
	t.Helper()
	w := &watching{}
	w.Watcher = NewWatcher(WatcherConfig{KV: kv, Trust: trust, Poll: poll, Report: func(e Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	}})
	if err := w.Track(testSchema(t, nil), 7); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

// reported says whether an event at revision tells of the text, in its error or the name of its model.
func (w *watching) reported(revision uint64, text string) (bool, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, e := range w.events {
		s := fmt.Sprint(e.Err)
		if e.Live != nil {
			s = e.Live.Name
		}
		if e.Revision == revision && strings.Contains(s, text) {
			return true, s
		}
		all = append(all, fmt.Sprintf("%d: %s", e.Revision, s))
	}
	return false, strings.Join(all, "\n")
}

func (w *watching) awaitReport(t *testing.T, revision uint64, text string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("a report at revision %d of %q", revision, text), func() (bool, string) {
		return w.reported(revision, text)
	})
}

func (w *watching) await(t *testing.T, version int, revision uint64) *Live {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("version %d at revision %d in force", version, revision), func() (bool, string) {
		l := w.Live("payment")
		return l.Version == version && l.Revision == revision, fmt.Sprintf("version %d at %d", l.Version, l.Revision)
	})
	return w.Live("payment")
}

func promote(t *testing.T, kv jetstream.KeyValue, version int) uint64 {
	t.Helper()
	_, rev, err := NewRegistry(kv).Promote(testkit.Context(t), "payment", version, "test", "because")
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// promoted is the revision of the record.
func promoted(t *testing.T, kv jetstream.KeyValue) uint64 {
	t.Helper()
	_, rev, err := NewRegistry(kv).Rollout(testkit.Context(t), "payment")
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(t *testing.T, kv jetstream.KeyValue, key, body string) uint64 {
	t.Helper()
	rev, err := kv.Put(testkit.Context(t), key, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func TestWatcher(t *testing.T) {
	kv := newBucket(t)
	r := NewRegistry(kv)
	w := watch(t, kv, time.Second)

	live := w.Live("payment")
	if live == nil || !live.Predictor.IsPrior() || live.Name != "" || live.Schema.Contract.Kind != "payment" || live.ContractRevision != 7 {
		t.Fatalf("before the first model: %+v", live)
	}
	if w.Live("claim") != nil || w.Changed("claim") != nil {
		t.Error("a kind that is not tracked is live")
	}
	testkit.Eventually(t, testkit.Deadline, "the registry is seen", func() (bool, string) { return !w.Seen().IsZero(), "never" })
	if w.Stale() {
		t.Error("stale, though just seen")
	}

	changed := w.Changed("payment")
	publish(t, r, 1)
	publish(t, r, 2)
	first := promote(t, kv, 1)
	if err := w.WaitRevision(testkit.Context(t), "payment", first); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("the model changed, and the channel is not closed")
	}
	if live := w.Live("payment"); live.Name != "payment.v000001" || live.Revision != first || live.Predictor.IsPrior() {
		t.Errorf("live is %+v", live)
	}
	second := promote(t, kv, 2)
	w.await(t, 2, second)

	// An older version at a newer revision is a rollback, as 'nats kv revert' makes one.
	entry, err := kv.GetRevision(testkit.Context(t), RolloutKey("payment"), first)
	if err != nil {
		t.Fatal(err)
	}
	reverted := put(t, kv, RolloutKey("payment"), string(entry.Value()))
	good := w.await(t, 1, reverted)

	// Nothing of what follows may serve; the champion stays.
	refused := w.Refused()
	for _, body := range []string{"", "nonsense", `{"champion":0}`} {
		rev := put(t, kv, RolloutKey("payment"), body)
		w.awaitReport(t, rev, "refused")
	}
	broken := strings.Replace(string(encoded(t, testArtifact(5))), `"intercept":5`, `"intercept":6`, 1)
	put(t, kv, Name("payment", 3), broken)
	atBroken := put(t, kv, RolloutKey("payment"), `{"champion":3}`)
	w.awaitReport(t, atBroken, "checksum")
	if err := w.WaitRevision(testkit.Context(t), "payment", atBroken); !errors.Is(err, ErrRefused) || !errors.Is(err, ErrArtifact) {
		t.Errorf("wait for a refused revision: %v, want ErrRefused", err)
	}
	other := testArtifact(5)
	other.Version, other.Spec.Fields = 4, other.Spec.Fields[:1]
	other.Spec.Fields[0].Field = "unheard_of"
	other.Fingerprint, other.Weights = other.Spec.Fingerprint(), nil
	for _, c := range other.Spec.Columns("") {
		other.Weights = append(other.Weights, Weight{Column: c.Name, Field: c.Field})
	}
	put(t, kv, Name("payment", 4), string(encoded(t, other)))
	w.awaitReport(t, put(t, kv, RolloutKey("payment"), `{"champion":4}`), "unheard_of")
	if err := kv.Delete(testkit.Context(t), RolloutKey("payment")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "the deletion is refused", func() (bool, string) {
		return w.Refused() == refused+6, fmt.Sprintf("%d refused", w.Refused()-refused)
	})
	if live := w.Live("payment"); live != good {
		t.Errorf("live is %+v, was %+v", live, good)
	}

	// A record may come before its model.
	early := put(t, kv, RolloutKey("payment"), `{"champion":5}`)
	w.awaitReport(t, early, "waits for its model")
	fifth := testArtifact(7)
	fifth.Version = 5
	put(t, kv, Name("payment", 5), string(encoded(t, fifth)))
	w.await(t, 5, early)

	// The wait ends with its context.
	ctx, cancel := context.WithCancelCause(testkit.Context(t))
	cause := errors.New("enough")
	cancel(cause)
	if err := w.WaitRevision(ctx, "payment", early+1); !errors.Is(err, cause) {
		t.Errorf("wait for a revision to come: %v", err)
	}

	// A contract that the model does not fit is refused; one that it fits comes into force with it.
	if err := w.Track(testSchema(t, func(c *events.Contract) { c.Fields = c.Fields[1:] }), 8); err == nil || !strings.Contains(err.Error(), "amount") {
		t.Errorf("a contract without a field that the model reads: %v", err)
	}
	if live := w.Live("payment"); live.ContractRevision != 7 {
		t.Errorf("the contract in force is at %d, want 7", live.ContractRevision)
	}
	more := testSchema(t, func(c *events.Contract) { c.Fields = append(c.Fields, events.Field{Name: "new", Type: events.Bool}) })
	if err := w.Track(more, 9); err != nil {
		t.Fatal(err)
	}
	if live := w.Live("payment"); live.ContractRevision != 9 || live.Schema != more || live.Version != 5 || live.Revision != early {
		t.Errorf("live is %+v", live)
	}
}

// What serves beside the champion is loaded behind it. One that is missing, broken or does not fit is left out, told of once, and harms nothing; one that
// comes later is taken then; and the champion before is at hand, so that going back to it needs nothing of the bucket but the record.
func TestWatcherKeepsContendersReady(t *testing.T) {
	bucket := newBucket(t)
	kv := &countingKV{KeyValue: bucket, gets: map[string]int{}}
	r := NewRegistry(bucket)
	w := watch(t, kv, 50*time.Millisecond)
	for i := range 3 {
		publish(t, r, float64(i))
	}
	put(t, bucket, Name("payment", 4), strings.Replace(string(encoded(t, testArtifact(5))), `"intercept":5`, `"intercept":6`, 1))
	other := foreign(5)
	put(t, bucket, Name("payment", 5), string(encoded(t, other)))
	first := promote(t, bucket, 1)
	second := promote(t, bucket, 2)
	w.await(t, 2, second)

	record := Rollout{Champion: 2, Previous: 1, Shadow: []int{4, 5, 6}, Canary: &Canary{3, 0.25}, UpdatedBy: "ann", Reason: "r", At: time.Unix(1_700_000_000, 123e6)}
	at, err := r.SetRollout(testkit.Context(t), "payment", record, second)
	if err != nil {
		t.Fatal(err)
	}
	w.await(t, 2, at)
	w.awaitReport(t, at, "payment.v000004 is left out beside the champion")
	w.awaitReport(t, at, "payment.v000005 is left out beside the champion")
	w.awaitReport(t, at, "payment.v000006 is left out beside the champion")
	contenders := func(want ...int) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("contenders %v", want), func() (bool, string) {
			var got []int
			for _, c := range w.Live("payment").Contenders {
				got = append(got, c.Version)
				if c.Predictor == nil || c.Since != 1_700_000_000_123 || c.Name != Name("payment", c.Version) {
					t.Fatalf("%+v", c)
				}
			}
			return slices.Equal(got, want), fmt.Sprint(got)
		})
	}
	contenders(2, 3)
	if l := w.Live("payment"); l.Canary == nil || l.Canary.Version != 3 || l.Canary.Share != rollout.NewShare("payment", 3, 0.25) || l.Version != 2 || l.Revision != at {
		t.Errorf("%+v", l)
	}
	late := testArtifact(9)
	late.Version = 6
	put(t, bucket, Name("payment", 6), string(encoded(t, late)))
	contenders(2, 3, 6)
	w.mu.Lock()
	n := 0
	for _, e := range w.events {
		if strings.Contains(fmt.Sprint(e.Err), "payment.v000006 is left out") {
			n++
		}
	}
	w.mu.Unlock()
	if n != 1 {
		t.Errorf("told %d times that v6 is missing", n)
	}

	before := kv.of(Name("payment", 1))
	if _, _, err := r.Promote(testkit.Context(t), "payment", 1, "ann", "back"); !errors.Is(err, rollout.ErrOrder) { // there is a canary
		t.Fatal(err)
	}
	entry, err := bucket.GetRevision(testkit.Context(t), RolloutKey("payment"), first)
	if err != nil {
		t.Fatal(err)
	}
	w.await(t, 1, put(t, bucket, RolloutKey("payment"), string(entry.Value())))
	if n := kv.of(Name("payment", 1)); n != before {
		t.Errorf("the champion before was read %d times more when it came back", n-before)
	}
	contenders()
}

// countingKV counts what is read.
type countingKV struct {
	jetstream.KeyValue
	mu   sync.Mutex
	gets map[string]int
}

func (c *countingKV) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	c.mu.Lock()
	c.gets[key]++
	c.mu.Unlock()
	return c.KeyValue.Get(ctx, key)
}

func (c *countingKV) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gets[key]
}

// deafKV watches nothing: its watches fail, or end at once.
type deafKV struct {
	jetstream.KeyValue
	watches chan struct{} // one a Watch
}

func (d *deafKV) Watch(ctx context.Context, keys string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w, err := d.KeyValue.Watch(ctx, keys, opts...)
	if err != nil {
		return nil, err
	}
	select {
	case d.watches <- struct{}{}:
		return w, w.Stop()
	default:
		EndWatch(w)
		return nil, errFault
	}
}

// TestWatcherWithoutWatch: with the watch gone for good, polls still bring what is new, and the watch is tried again.
func TestWatcherWithoutWatch(t *testing.T) {
	kv := newBucket(t)
	deaf := &deafKV{KeyValue: kv, watches: make(chan struct{}, 1)}
	w := watch(t, deaf, 20*time.Millisecond)
	w.awaitReport(t, 0, "it ended")
	w.awaitReport(t, 0, errFault.Error())
	publish(t, NewRegistry(kv), 1)
	w.await(t, 1, promote(t, kv, 1))
}

// TestWatcherStale: a registry that does not answer is not seen, and the model stays.
func TestWatcherStale(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js, err := jetstream.New(cluster.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(testkit.Context(t), jetstream.KeyValueConfig{Bucket: events.ModelsBucket})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, NewRegistry(kv), 1)
	w := watch(t, kv, 20*time.Millisecond)
	w.await(t, 1, promote(t, kv, 1))
	testkit.Eventually(t, testkit.Deadline, "the registry is seen", func() (bool, string) { return !w.Seen().IsZero(), "never" })
	cluster.StopNode(t, 0)
	w.awaitReport(t, 0, "ask for the state")
	seen := w.Seen()
	testkit.Eventually(t, testkit.Deadline, "time goes on", func() (bool, string) {
		return time.Since(seen) > 100*time.Millisecond, fmt.Sprint(time.Since(seen))
	})
	if !w.Seen().Equal(seen) {
		t.Error("seen again, with the node stopped")
	}
	if live := w.Live("payment"); live.Version != 1 {
		t.Errorf("live is %+v, want version 1", live)
	}
	w.cfg.Lease = 100 * time.Millisecond // of Stale only, which no other goroutine calls here
	if !w.Stale() {
		t.Error("not stale after the lease")
	}
	cluster.RestartNode(t, 0)
	testkit.Eventually(t, testkit.Deadline, "the registry is seen again", func() (bool, string) { return w.Seen().After(seen), fmt.Sprint(w.Seen()) })
}
