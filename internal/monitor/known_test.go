package monitor

import (
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// What EVENTS is told of labels counts for no event: neither stored, nor arriving, nor waiting, nor scored.
func TestToldOfLabelsIsNoEvent(t *testing.T) {
	s := newSite(t)
	s.publish(5)
	s.scoreAll("s")
	tell := func() {
		if _, err := s.js.Publish(testkit.Context(t), events.KnownSubject(kind), []byte("whatever it says")); err != nil {
			t.Fatal(err)
		}
	}
	r := newRules(DefaultLimits())
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	look := func() KindStatus {
		k, err := sampler{s.js}.kind(testkit.Context(t), declared{kind, s.lanes, true, false})
		if err != nil {
			t.Fatal(err)
		}
		at = at.Add(time.Second)
		r.step(Sample{At: at, Kinds: []KindSample{k}, Members: []string{"s"}, Beating: []string{"s"}})
		return r.status(at)[0]
	}
	look()
	for range 3 {
		tell()
	}
	if k := look(); k.Stored != 5 || k.Pending != 0 || k.Arriving != 0 || k.Scoring != 0 {
		t.Errorf("%+v", k)
	}
	s.publish(4)
	tell()
	if k := look(); k.Stored != 9 || k.Pending != 4 || k.Arriving == 0 || k.Scoring != 0 {
		t.Errorf("%+v", k)
	}
}
