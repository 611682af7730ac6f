package scorer

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// contending is a stage in whose contract champion 1 has a canary 2 with a third of the entities, and a shadow 3.
func contending(t *testing.T, lateAfter time.Duration, tried func(version int, rec *events.Record)) *stage {
	t.Helper()
	c := contract()
	c.Rollout = &events.Rollout{LateAfter: events.Duration(lateAfter)}
	schema, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	contender := func(version int, intercept float64) model.Contender {
		p, err := model.Compile(artifact(intercept), schema)
		if err != nil {
			t.Fatal(err)
		}
		return model.Contender{Version: version, Name: model.Name("payment", version), Since: int64(100 + version), Predictor: p}
	}
	all := []model.Contender{contender(1, -1), contender(2, 0), contender(3, 1)}
	running := &sync.WaitGroup{}
	t.Cleanup(running.Wait)
	s := &stage{kind: "payment", beside: &besides{running: running, tried: tried}}
	s.live = &model.Live{
		Predictor: all[0].Predictor, Name: all[0].Name, Version: 1, Revision: 12, Schema: schema, ContractRevision: 7,
		Canary: &model.Canarying{Contender: all[1], Share: rollout.NewShare("payment", 2, 1./3)}, Contenders: all,
	}
	s.beside.adopt(s.live)
	s.arrange()
	return s
}

func batchOf(n int) []lane.Event {
	var batch []lane.Event
	for i := range n {
		batch = append(batch, lane.Event{Seq: uint64(i + 1), Stored: time.Unix(1_700_000_000, 0), Subject: fmt.Sprintf("events.payment.0.c%d", i), Body: []byte(`{"amount":3}`)})
	}
	return batch
}

// served is how many scores of each version are among the outcomes; whatever happens beside, there is one for each event.
func served(t *testing.T, s *stage, batch []lane.Event) map[string]int {
	t.Helper()
	by := map[string]int{}
	msgs := s.Outcomes(batch)
	if len(msgs) != len(batch) {
		t.Fatalf("%d outcomes of %d events", len(msgs), len(batch))
	}
	for i, m := range msgs {
		score, err := events.DecodeScore(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		entity := fmt.Sprintf("c%d", i)
		if score.Model == "payment.v000002" && !s.live.Canary.Share.Has(entity) {
			t.Fatalf("the canary decides for %s, which is not in its share", entity)
		}
		by[score.Model]++
	}
	return by
}

// counted takes batches until each version has been tried on all their events; since a busy machine leaves some out.
func counted(t *testing.T, s *stage, batch []lane.Event, is func(b events.Besides) bool) events.Besides {
	t.Helper()
	var b events.Besides
	testkit.Eventually(t, testkit.Deadline, "the counts", func() (bool, string) {
		served(t, s, batch)
		b = s.Beside(events.Besides{})
		return is(b), fmt.Sprint(b)
	})
	return b
}

func all(b events.Besides, n uint64) bool {
	return !slices.ContainsFunc(b[:3], func(x events.Beside) bool { return x.N != n })
}

func TestCanaryDecidesForItsShare(t *testing.T) {
	const n = 300
	s := contending(t, time.Second, nil)
	batch := batchOf(n)
	by := served(t, s, batch)
	in := 0
	for i := range n {
		if s.live.Canary.Share.Has(fmt.Sprintf("c%d", i)) {
			in++
		}
	}
	if by["payment.v000002"] != in || by["payment.v000001"] != n-in || in < 60 || in > 140 {
		t.Errorf("scores %v, want %d of the canary", by, in)
	}
	b := counted(t, s, batch, func(b events.Besides) bool { return all(b, n) })
	for i, x := range b[:3] {
		if x.Version != i+1 || x.Since != int64(101+i) || x.Failed != 0 || x.Late != 0 {
			t.Errorf("%+v", x)
		}
	}
	// On top of what the position has; what it has of another stage is let go.
	s.Beside(events.Besides{})
	before := events.Besides{{Version: 2, Since: 102, N: 7, Failed: 2}, {Version: 3, Since: 99, N: 5}}
	if got := s.Beside(before); got != (events.Besides{{Version: 1, Since: 101}, {Version: 2, Since: 102, N: 7, Failed: 2}, {Version: 3, Since: 103}}) {
		t.Errorf("%+v", got)
	}
}

// A version that panics harms no outcome: where it was to decide, the champion does.
func TestContenderPanics(t *testing.T) {
	s := contending(t, time.Second, func(int, *events.Record) { panic("test") })
	if by := served(t, s, batchOf(100)); by["payment.v000001"] != 100 {
		t.Errorf("scores %v, want all of the champion", by)
	}
	counted(t, s, batchOf(100), func(b events.Besides) bool {
		return b[1].Failed == b[1].N && b[2].Failed == b[2].N && b[1].N == 100 && b[2].N == 100
	})
}

// A shadow that does not come back holds up no outcome; it is late, on each batch once, and nothing else is scored beside meanwhile.
func TestShadowHangs(t *testing.T) {
	release := make(chan struct{})
	s := contending(t, 50*time.Microsecond, func(version int, _ *events.Record) {
		if version == 3 {
			<-release
		}
	})
	began := time.Now()
	const batches = 50
	var b events.Besides
	for range batches {
		if by := served(t, s, batchOf(10)); by["payment.v000001"]+by["payment.v000002"] != 10 {
			t.Fatalf("scores %v", by)
		}
		b = s.Beside(b)
	}
	if took := time.Since(began); took > 2*time.Second { // each wait would be 1 ms, and there is one; the rest is for a busy machine
		t.Errorf("%d batches took %s", batches, took)
	}
	testkit.Eventually(t, testkit.Deadline, "it is late", func() (bool, string) {
		served(t, s, batchOf(10))
		b = s.Beside(b)
		return b[2].Late > 20, fmt.Sprint(b)
	})
	if b[2].Failed != 0 || b[2].Late != b[2].N {
		t.Errorf("%+v, want it late only", b[2])
	}
	close(release)
	counted(t, s, batchOf(10), func(b events.Besides) bool { return b[2].N == 10 })
}
