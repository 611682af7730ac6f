package trainer

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// snapshot is the last of a kind; nil: there is none.
func lastSnapshot(t *testing.T, js jetstream.JetStream, kind string) (*model.Snapshot, uint64) {
	t.Helper()
	s, err := js.Stream(testkit.Context(t), events.OnlineStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(testkit.Context(t), events.OnlineSubject(kind))
	if err != nil {
		return nil, 0
	}
	snapshot, err := model.DecodeSnapshot(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	return snapshot, m.Sequence
}

// TestSnapshotsFollowLabels: a version with a member that learns online is put in force, labels come, and snapshots of that member
// come after each lot; a trainer that takes over goes on to the same weights.
func TestSnapshotsFollowLabels(t *testing.T) {
	h := newHouse(t)
	h.send(t, "payment", 0, 400, all)
	quick := func(c *Config) { c.Snapshots, c.RetrainLabels = 20*time.Millisecond, 1_000_000 }
	first := h.start(t, "a", quick)
	await := func(labels uint64) (s *model.Snapshot) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "a snapshot of the labels so far", func() (bool, string) {
			if s, _ = lastSnapshot(t, h.js, "payment"); s == nil {
				return false, "none"
			}
			return s.Labels == labels && s.Version == 1, s.Checksum
		})
		return s
	}
	was := await(400)
	h.send(t, "payment", 400, 300, all)
	now := await(700)
	if reflect.DeepEqual(was.Weights, now.Weights) || now.Rows < 300 {
		t.Errorf("300 labels changed nothing: %+v, then %+v", was, now)
	}
	first.stop()
	_, before := lastSnapshot(t, h.js, "payment")
	h.start(t, "b", quick)
	var again *model.Snapshot
	testkit.Eventually(t, testkit.Deadline, "a snapshot of the trainer that took over", func() (bool, string) {
		var seq uint64
		again, seq = lastSnapshot(t, h.js, "payment")
		return seq > before, ""
	})
	if !reflect.DeepEqual(again.Weights, now.Weights) || again.Slope != now.Slope || again.Labels != 700 {
		t.Errorf("the trainer that took over came to %+v, the one before to %+v", again, now)
	}
	artifact, err := h.registry.Get(testkit.Context(t), "payment", 1)
	if err != nil {
		t.Fatal(err)
	}
	if artifact.Format != model.FormatEnsemble || len(artifact.Ensemble.Members) != 3 {
		t.Errorf("format %d, %d members", artifact.Format, len(artifact.Ensemble.Members))
	}
}

// Of the snapshots the request or the answer is lost; the next one comes all the same.
func TestEitherHalfOfASnapshotIsLost(t *testing.T) {
	for _, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			t.Parallel()
			cluster, js := newTellers(t, plainNode)
			courier := cluster.Courier(t)
			courier.Lose("online.shop", half, 1)
			o := &onliner{trainer: &Trainer{}, js: nil, kinds: map[string]*taught{}}
			var err error
			if o.js, err = jetstream.New(courier.Connect(t)); err != nil {
				t.Fatal(err)
			}
			l, err := newLearner(3, 0.1)
			if err != nil {
				t.Fatal(err)
			}
			m := &taught{champion: 1, learner: l, changed: true}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			var once sync.Once
			for range 2 {
				err := o.publish(ctx, "shop", m, time.Now())
				once.Do(func() {
					if err == nil || !m.changed {
						t.Errorf("the loss was not noticed: %v", err)
					}
				})
				ctx, cancel = context.WithTimeout(t.Context(), testkit.Deadline)
				defer cancel()
			}
			if s, seq := lastSnapshot(t, js, "shop"); s == nil || s.Version != 1 || m.changed || (seq == 2) != (half == testkit.Answer) {
				t.Errorf("snapshot %d: %+v, still to be published: %t", seq, s, m.changed)
			}
		})
	}
}

// TestNews: what is learned online is what has become known since, in order, once; and where silence means good, what is old enough.
func TestNews(t *testing.T) {
	j := newJoin(joinLimits{100, 100, 100})
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	for i := 1; i <= 6; i++ {
		j.addEvent(&row{seq: uint64(i), stored: at(i)})
	}
	say := func(seq, event uint64, v verdict) {
		j.addLabel(labelMsg{event: event, claim: claim{verdict: v, knownAt: at(int(seq)), seq: seq}, stored: at(10 + int(seq))})
	}
	say(1, 5, bad)
	say(2, 3, good)
	say(3, 4, withdrawn)
	seqs := func(list []example) (out []uint64) {
		for _, e := range list {
			out = append(out, e.seq)
		}
		return out
	}
	list, labels, _ := j.news(at(99), 0, 0, 0, 10)
	if !reflect.DeepEqual(seqs(list), []uint64{5, 3}) || labels != 2 || !list[0].bad || list[1].bad {
		t.Errorf("%v, labels %d", list, labels)
	}
	if list, labels, _ = j.news(at(99), 0, 0, 0, 1); !reflect.DeepEqual(seqs(list), []uint64{5}) || labels != 1 {
		t.Errorf("of one at a time: %v, labels %d", seqs(list), labels)
	}
	say(4, 5, good)
	if list, labels, _ = j.news(at(99), 0, 2, 0, 10); !reflect.DeepEqual(seqs(list), []uint64{5}) || labels != 4 || list[0].bad {
		t.Errorf("a claim that was corrected: %v, labels %d", seqs(list), labels)
	}
	list, _, last := j.news(at(15), 10*time.Second, 0, 1, 10)
	if !reflect.DeepEqual(seqs(list), []uint64{2, 3, 5}) || last != 5 || !list[0].silent || list[0].bad {
		t.Errorf("by maturity: %v up to %d", seqs(list), last)
	}
	if list, _, last = j.news(at(15), 10*time.Second, 0, 5, 10); len(list) != 0 || last != 5 {
		t.Errorf("what is young: %v up to %d", seqs(list), last)
	}
}
