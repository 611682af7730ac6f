package monitor

import (
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestLatestConflictIsSeen(t *testing.T) {
	s := newSite(t)
	look := func() *ConflictSample {
		t.Helper()
		k, err := sampler{s.js}.kind(testkit.Context(t), declared{kind, s.lanes, false, true})
		if err != nil {
			t.Fatal(err)
		}
		return k.Conflict
	}
	put := func(r events.Repeat) {
		t.Helper()
		if _, err := s.js.Publish(testkit.Context(t), events.CommitSubject(kind, r.Band(), "c1"), r.Append(nil, events.Msgpack)); err != nil {
			t.Fatal(err)
		}
	}
	put(events.Repeat{ID: "a", Seq: 2, First: 1, Kind: kind, Entity: "c1"})
	if c := look(); c != nil {
		t.Errorf("a repeat is seen as the conflict %+v", c)
	}
	put(events.Repeat{ID: "a", Seq: 3, First: 1, Kind: kind, Entity: "c1", Conflict: true})
	put(events.Repeat{ID: "a", Seq: 9, First: 1, Kind: kind, Entity: "c1", Conflict: true})
	put(events.Repeat{ID: "a", Seq: 10, First: 1, Kind: kind, Entity: "c1"})
	if c := look(); c == nil || c.Seq != 9 || c.First != 1 || c.Age > testkit.Deadline {
		t.Errorf("%+v", c)
	}
}
