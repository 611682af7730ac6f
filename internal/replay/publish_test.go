package replay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// rescores of a version, as RESCORES holds them.
func (b *bank) rescores(version string) (all []events.Score, position events.RescorePosition) {
	b.t.Helper()
	c, err := b.js.OrderedConsumer(testkit.Context(b.t), "RESCORES", natsjs.OrderedConsumerConfig{FilterSubjects: []string{"rescores.payment." + version + ".>"}})
	if err != nil {
		b.t.Fatal(err)
	}
	info, err := c.Info(testkit.Context(b.t))
	if err != nil {
		b.t.Fatal(err)
	}
	for n := info.NumPending; n > 0; n-- {
		m, err := c.Next()
		if err != nil {
			b.t.Fatal(err)
		}
		if strings.HasSuffix(m.Subject(), ".position") {
			if position, err = events.DecodeRescorePosition(m.Data()); err != nil {
				b.t.Fatal(err)
			}
			continue
		}
		s, err := events.DecodeScore(m.Data())
		if err != nil {
			b.t.Fatal(err)
		}
		token, err := events.EscapeEntity(s.Entity)
		if err != nil || m.Subject() != "rescores.payment."+version+"."+s.Band+"."+token {
			b.t.Errorf("%s holds %+v, %v", m.Subject(), s, err)
		}
		all = append(all, s)
	}
	return all, position
}

// isOnceEach says that the rescores are those of n events from first on, in order and once each.
func isOnceEach(t *testing.T, all []events.Score, first uint64, n int) {
	t.Helper()
	if len(all) != n {
		t.Errorf("%d rescores, want %d", len(all), n)
	}
	for i, s := range all {
		if s.Seq != first+uint64(i) {
			t.Fatalf("rescore %d is of event %d, want %d", i, s.Seq, first+uint64(i))
		}
	}
}

func (b *bank) run(cfg Config) (Report, error) {
	b.t.Helper()
	return Run(testkit.Context(b.t), cfg)
}

// What is published is, but for the rollout's revision, the score that scorers gave, once for each event, however often it is published.
func TestPublish(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.publish()
			var want []events.Score
			b.events(2000, 1, false, func(_ int, s *events.Score) bool { want = append(want, *s); return true })
			before := b.stored("SCORES_payment")
			cfg := b.config()
			cfg.Model, cfg.Publish, cfg.To.Seq = 1, true, 1000
			for _, x := range []struct{ to, n, before, last uint64 }{{1000, 1000, 0, 1000}, {1000, 0, 1000, 1000}, {0, 1000, 1000, 2000}, {50, 0, 50, 2000}} {
				cfg.To.Seq = x.to
				r, err := b.run(cfg)
				if err != nil || r.Published.N != x.n || r.Published.Before != x.before || r.Published.All != (Range{1, x.last}) {
					t.Fatalf("to %d: %v, %+v: want %d more", x.to, err, r.Published, x.n)
				}
				if !strings.Contains(r.String(), fmt.Sprintf("published=%d before=%d: rescores.payment.v000001.> has the rescores of events 1 to %d", x.n, x.before, x.last)) {
					t.Errorf("the text says\n%s", r)
				}
			}
			all, position := b.rescores("v000001")
			isOnceEach(t, all, 1, 2000)
			for i, s := range all {
				if got, want := string(s.Append(nil, events.JSON)), string(want[i].Append(nil, events.JSON)); got != want {
					t.Fatalf("rescore\n%s\nscore\n%s", got, want)
				}
			}
			if position.First != 1 || position.Seq != 2000 {
				t.Errorf("position %+v", position)
			}
			if n := b.stored("SCORES_payment"); n != before {
				t.Errorf("SCORES has grown from %d to %d", before, n)
			}
			cfg.Model, cfg.To.Seq = 2, 0
			if r, err := b.run(cfg); err != nil || r.Published.N != 2000 {
				t.Errorf("of another version: %+v, %v", r.Published, err)
			}
		})
	}
}

func (b *bank) stored(stream string) uint64 {
	b.t.Helper()
	s, err := b.js.Stream(testkit.Context(b.t), stream)
	if err != nil {
		b.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

// No range leaves a hole between rescores, none begins before them, and what is of another EVENTS is not mixed with this one's.
func TestPublishRefusesHoles(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	b.events(60, 1, false, nil)
	cfg := b.config()
	cfg.Model, cfg.Publish = 1, true
	for _, x := range []struct {
		from, to uint64
		want     string // error
	}{
		{11, 20, ""},
		{22, 30, "begin at 21, so that none is left out"},
		{10, 30, "begin at 11, or take them away first, nats stream purge RESCORES --subject 'rescores.payment.v000001.>'"},
		{0, 30, "begin at 11"},
		{21, 30, ""},
		{15, 40, ""},
		{50, 45, "none is left out"},
	} {
		cfg.From.Seq, cfg.To.Seq = x.from, x.to
		if _, err := b.run(cfg); (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%d to %d: %v, want %q", x.from, x.to, err, x.want)
		}
	}
	all, _ := b.rescores("v000001")
	isOnceEach(t, all, 11, 30)

	// Events that left EVENTS leave no hole that anyone could fill.
	for seq := uint64(1); seq <= 45; seq++ {
		b.delete("EVENTS_payment", seq)
	}
	cfg.From, cfg.To = Bound{}, Bound{}
	if r, err := b.run(cfg); err != nil || r.Published.N != 15 || r.Published.All != (Range{11, 60}) {
		t.Errorf("after 45 events had left: %+v, %v", r.Published, err)
	}
	rescores, err := b.js.Stream(testkit.Context(t), "RESCORES")
	if err != nil {
		t.Fatal(err)
	}
	if err := rescores.Purge(testkit.Context(t), natsjs.WithPurgeSubject("rescores.payment.v000001.>")); err != nil {
		t.Fatal(err)
	}
	if r, err := b.run(cfg); err != nil || r.Published.N != 15 || r.Published.All != (Range{46, 60}) {
		t.Errorf("after they were taken away: %+v, %v", r.Published, err)
	}
	if _, err := b.js.Publish(testkit.Context(t), "rescores.payment.v000001.position", []byte(`{"first":1,"seq":3,"incarnation":"2001-01-01T00:00:00Z","run":"x"}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run(cfg); err == nil || !strings.Contains(err.Error(), "are of another EVENTS_payment, made at 2001-01-01T00:00:00Z") {
		t.Errorf("of another EVENTS: %v", err)
	}
	if err := b.js.DeleteStream(testkit.Context(t), "RESCORES"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.run(cfg); err == nil || !strings.Contains(err.Error(), "there is no stream RESCORES: riskweir topology apply") {
		t.Errorf("without RESCORES: %v", err)
	}
}

// Whichever half of a commit is lost, and wherever a replay ends, each event has one rescore at last.
func TestEitherHalfOfARescoreIsLost(t *testing.T) {
	for _, l := range []struct {
		subject string
		half    testkit.Half
	}{
		{"rescores.payment.v000001.position", testkit.Request},
		{"rescores.payment.v000001.position", testkit.Answer},
		{"rescores.payment.v000001.low.>", testkit.Request}, // one in the middle of a batch
	} {
		t.Run(l.subject+", "+l.half.String(), func(t *testing.T) {
			t.Parallel()
			b := newBank(t, contractText)
			b.publish()
			b.events(2000, 1, false, nil)
			courier := b.cluster.Courier(t)
			js, err := natsjs.New(courier.Connect(t))
			if err != nil {
				t.Fatal(err)
			}
			courier.Lose(l.subject, l.half, 1)
			cfg := b.config()
			cfg.JS, cfg.Model, cfg.Publish = js, 1, true
			r, err := b.run(cfg)
			if err != nil || r.Published.N != 2000 || courier.Lost() != 1 {
				t.Errorf("%+v, %v, %d lost", r.Published, err, courier.Lost())
			}
			all, _ := b.rescores("v000001")
			isOnceEach(t, all, 1, 2000)
		})
	}
}

// A replay that ends between two batches is gone on with.
func TestPublishCutOff(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	b.events(3000, 1, false, nil)
	cfg := b.config()
	cfg.Model, cfg.Publish = 1, true
	ctx, stop := context.WithCancel(testkit.Context(t))
	defer stop()
	commits := 0
	positions, err := b.js.Conn().Subscribe("rescores.payment.v000001.position", func(*nats.Msg) {
		if commits++; commits == 2 {
			stop()
		}
	})
	if err == nil {
		err = b.js.Conn().Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	if err := positions.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	r, err := b.run(cfg)
	if err != nil && strings.Contains(err.Error(), "meanwhile: try again") {
		r, err = b.run(cfg) // the server decided on what was cut off only now
	}
	if err != nil || r.Published.N+r.Published.Before != 3000 || r.Published.Before != rescoreBatch && r.Published.Before != 2*rescoreBatch {
		t.Errorf("%+v, %v", r.Published, err)
	}
	all, _ := b.rescores("v000001")
	isOnceEach(t, all, 1, 3000)
}

// Of two that publish the same at a time, one is refused, and nothing is doubled.
func TestTwoPublish(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	b.events(100, 1, false, nil)
	cfg := b.config()
	cfg.Model, cfg.Publish = 1, true
	name := "payment.v000001"
	late, err := cfg.publishTo(testkit.Context(t), name, b.revision, Range{1, 100})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.run(cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := late.finish(testkit.Context(t), 100); err == nil || !strings.Contains(err.Error(), "has published rescores of payment.v000001 to event 100 meanwhile") {
		t.Errorf("the later one: %v", err)
	}
	all, _ := b.rescores("v000001")
	isOnceEach(t, all, 1, 100)
}
