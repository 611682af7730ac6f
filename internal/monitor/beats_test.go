package monitor

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

func beat(service, instance string, latency ...events.LatencyBucket) events.Heartbeat {
	return events.Heartbeat{Service: service, Instance: instance, Name: instance + "-name", Latency: latency, Model: map[string]string{"payment": "payment.v000001"}}
}

func TestLatencyIsOfTheLastSecondsAndOfAllTime(t *testing.T) {
	b, now := newBeats(), epochOfStage
	// A minute of 100 slow ones a second, then 12 s of 100 fast ones.
	var slow, fast int64
	for range 60 {
		now, slow = now.Add(time.Second), slow+100
		b.heard(beat("scorer", "a", events.LatencyBucket{Micros: 900_000, Count: slow}), now)
	}
	for range 12 {
		now, fast = now.Add(time.Second), fast+100
		b.heard(beat("scorer", "a", events.LatencyBucket{Micros: 2000, Count: fast}, events.LatencyBucket{Micros: 900_000, Count: slow}), now)
	}
	l := b.latency(now)
	if l.Count != 1000 || l.P50MS > 2.2 || l.P99MS > 2.2 {
		t.Errorf("recent %+v: want 1000 of about 2 ms", l)
	}
	if l.TotalCount != 7200 || l.TotalP50MS < 800 || l.TotalP99MS < 800 {
		t.Errorf("total %+v: want 7200, most of about 900 ms", l)
	}
	b.forget(now.Add(forgetAfter + time.Second))
	if l := b.latency(now); len(b.last) != 0 || l.TotalCount != 7200 || l.Count != 0 {
		t.Errorf("after a forgets: %+v, want its total and nothing recent", l)
	}
}

func TestSilentServicesAreNotAlive(t *testing.T) {
	b, now := newBeats(), epochOfStage
	b.heard(beat("scorer", "a"), now)
	b.heard(beat("scorer", "b"), now.Add(2*time.Second))
	b.heard(beat("trainer", "c"), now.Add(2*time.Second))
	now = now.Add(4 * time.Second)
	if got := b.beating("scorer", now); !slices.Equal(got, []string{"b"}) {
		t.Errorf("beating %v: want b", got)
	}
	alive := map[string]bool{}
	for _, s := range b.services(now) {
		alive[s.Instance] = s.Alive
	}
	if len(alive) != 3 || alive["a"] || !alive["b"] || !alive["c"] {
		t.Errorf("alive %v", alive)
	}
	if got := b.models("payment", now); !slices.Equal(got, []string{"payment.v000001"}) {
		t.Errorf("models %v", got)
	}
	if a, z := b.name("scorer", "a"), b.name("scorer", "zz"); a != "a-name" || z != "zz" {
		t.Errorf("names %s, %s", a, z)
	}
}

func TestFloodOfInstancesIsBounded(t *testing.T) {
	b := newBeats()
	for i := range 2 * maxServices {
		b.heard(beat("scorer", fmt.Sprint(i)), epochOfStage)
	}
	if len(b.last) != maxServices {
		t.Errorf("%d instances kept", len(b.last))
	}
}

func TestWhatScorersRefuse(t *testing.T) {
	b, now := newBeats(), epochOfStage
	say := func(service, instance, kind, model string, revision uint64, untrusted bool) {
		h := beat(service, instance)
		h.Refused = map[string]events.RefusedModel{kind: {Model: model, Revision: revision, Untrusted: untrusted, Why: "w"}}
		b.heard(h, now)
	}
	say("scorer", "b", "payment", "payment.v000002", 8, true)
	say("scorer", "a", "payment", "payment.v000002", 9, false)
	say("scorer", "c", "claim", "claim.v000001", 3, false)
	say("trainer", "d", "loan", "loan.v000001", 3, true) // no scorer
	got := b.refused(now)
	if len(got) != 2 || got[0].Kind != "claim" || got[1].Model != "payment.v000002" || got[1].Revision != 9 || !got[1].Untrusted || !slices.Equal(got[1].By, []string{"a-name", "b-name"}) {
		t.Errorf("%+v", got)
	}
	if got := b.refused(now.Add(time.Minute)); len(got) != 0 {
		t.Errorf("of scorers that are silent: %+v", got)
	}
	for i := range 2 * maxRefused {
		say("scorer", fmt.Sprint("x", i), fmt.Sprint("k", i), "m", 1, true)
	}
	if got := b.refused(now); len(got) != maxRefused {
		t.Errorf("%d of a flood", len(got))
	}
}

func TestDecodeBeat(t *testing.T) {
	if h, err := decodeBeat([]byte(`{"service":"scorer","instance":"x","counters":{"outcomes":7}}`)); err != nil || h.Counters["outcomes"] != 7 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, body := range []string{"", "{", "[]", `{"service":"scorer"}`, `{"instance":"x"}`} {
		if _, err := decodeBeat([]byte(body)); err == nil {
			t.Errorf("%q: no error", body)
		}
	}
}
