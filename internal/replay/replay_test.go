package replay

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// sameCents allows for amounts that no float64 is.
func sameCents(amount float64, cents int) bool { return math.Abs(amount*100-float64(cents)) < 1e-6 }

// The numbers of a comparison are those of a plain loop over the scores.
func TestAgainst(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.publish()
			var p, q, y []float64
			var label []string
			var cents [4][4]int // by both versions' decisions
			var atStake []int   // of each event
			decided := func(p float64) int {
				return index(decisions[:], b.schema.Contract.Decide(events.ModeModel, b.schema.Contract.Band(p)))
			}
			first := b.events(400, 1, false, func(i int, s *events.Score) bool {
				p = append(p, s.P)
				q = append(q, b.versions[1].Score(&b.rec, &b.scratch).P)
				atStake = append(atStake, int(math.Round(b.rec.Values[0].Num*100)))
				cents[decided(p[i])][decided(q[i])] += atStake[i]
				return true
			})
			var badCents [4][4]int // likewise, of events labelled bad
			for i := range 400 {
				bad := b.rnd.Float64() < 0.3+0.5*q[i]
				truth := 0
				if bad {
					truth = 1
				}
				if i%4 == 3 {
					continue // no label
				}
				name := fmt.Sprintf(`"id":"p1-%d"`, i)
				if i%4 == 1 {
					name = fmt.Sprintf(`"seq":%d`, first+uint64(i))
				}
				label = append(label, fmt.Sprintf(`{%s,"label":%d,"known_at":"2026-01-02T00:00:00Z"}`, name, 1-truth), // which is not the last word
					fmt.Sprintf(`{%s,"label":%d,"known_at":"2026-01-03T00:00:00Z"}`, name, truth))
				if i%4 == 2 {
					label = append(label, fmt.Sprintf(`{%s,"label":null,"known_at":"2026-01-04T00:00:00Z"}`, name))
					continue
				}
				y = append(y, float64(truth))
				badCents[decided(p[i])][decided(q[i])] += truth * atStake[i]
				p[len(y)-1], q[len(y)-1] = p[i], q[i]
			}
			for _, l := range label {
				b.send(&nats.Msg{Subject: "labels.payment.any", Data: []byte(l)})
			}
			b.send(&nats.Msg{Subject: "labels.other.any", Data: []byte(`{"id":"p1-3","label":1}`)})
			b.send(&nats.Msg{Subject: "labels.payment.any", Data: []byte(`nonsense`)})
			b.flush()
			cfg := b.config()
			cfg.Model, cfg.Against = 1, 2
			r, err := Run(testkit.Context(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := r.Against
			if r.Scored != 400 || c == nil || c.Labels == nil || c.Labels.N != len(y) || c.Labels.Share != 1 {
				t.Fatalf("%s", r)
			}
			for i, x := range [][]float64{p[:len(y)], q[:len(y)]} {
				auc, err := lr.AUC(y, x)
				if err != nil {
					t.Fatal(err)
				}
				loss, err := lr.LogLoss(y, x)
				if err != nil {
					t.Fatal(err)
				}
				if c.Labels.AUC.AUC[i] != auc || c.Labels.LogLoss[i] != loss {
					t.Errorf("version %d: AUC %v, log-loss %v: want %v, %v", i+1, c.Labels.AUC.AUC[i], c.Labels.LogLoss[i], auc, loss)
				}
			}
			sum, moved := uint64(0), uint64(0)
			for i, row := range c.Bands {
				for j, n := range row {
					sum += n
					if i != j {
						moved += n
					}
				}
			}
			if sum != 400 || moved != c.Moved || moved == 0 {
				t.Errorf("bands %v, moved %d", c.Bands, c.Moved)
			}
			if d := c.Against.MeanLogit - r.Of.MeanLogit; math.Abs(d-c.Shift) > 1e-9 || c.Shift == 0 || c.ShiftSD == 0 {
				t.Errorf("shift %v, means differ by %v, deviation %v", c.Shift, d, c.ShiftSD)
			}
			all, movedCents := 0, 0
			for i, row := range cents {
				for j, n := range row {
					if all += n; i != j {
						movedCents += n
					}
					if stake := c.Stake; !sameCents(stake.Decisions[i][j], n) || !sameCents(stake.Bad[i][j], badCents[i][j]) {
						t.Errorf("%s to %s: %v, of it bad %v: want %d and %d cents", decisions[i], decisions[j], stake.Decisions[i][j], stake.Bad[i][j], n, badCents[i][j])
					}
				}
			}
			if s := c.Stake; movedCents == 0 || !sameCents(s.All, all) || !sameCents(s.Moved, movedCents) || s.Without != 0 || s.Field != "amount" || s.Unit != "EUR" {
				t.Errorf("at stake %+v: want %d of %d cents", s, movedCents, all)
			}
			var pic bytes.Buffer
			if err := r.SVG(&pic); err != nil {
				t.Fatal(err)
			}
			for dec := xml.NewDecoder(&pic); ; {
				if _, err := dec.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("the picture is no XML: %v", err)
				}
			}
			for _, want := range []string{"payment.v000001", "bands moved", "decisions moved", "AUC", "log-loss", fmt.Sprintf("at stake, amount of the events whose decision moved: %d.%02d of ", movedCents/100, movedCents%100), "of it labelled bad"} {
				if !strings.Contains(r.String(), want) {
					t.Errorf("no %q in\n%s", want, r)
				}
			}

			cfg.Labels = 60
			if r, err = Run(testkit.Context(t), cfg); err != nil {
				t.Fatal(err)
			}
			if l := r.Against.Labels; l == nil || l.Share > 0.25 || l.N == 0 || l.N >= 60 {
				t.Errorf("with 60 labels at most: %+v", l)
			}
			cfg.Against = cfg.Model
			if r, err = Run(testkit.Context(t), cfg); err != nil || r.Against.Moved != 0 || r.Against.Shift != 0 || r.Against.Labels.LogLoss[0] != r.Against.Labels.LogLoss[1] {
				t.Errorf("against itself: %v\n%s", err, r)
			}
		})
	}
}

// behind is a cluster where a consumer finds nothing on its replica as it is made, which catches up later.
type behind struct{ natsjs.JetStream }

type consumerBehind struct {
	natsjs.Consumer
	info natsjs.ConsumerInfo
}

func (c consumerBehind) CachedInfo() *natsjs.ConsumerInfo { return &c.info }

func (b behind) CreateConsumer(ctx context.Context, stream string, cfg natsjs.ConsumerConfig) (natsjs.Consumer, error) {
	c, err := b.JetStream.CreateConsumer(ctx, stream, cfg)
	if err != nil {
		return nil, err
	}
	info := *c.CachedInfo()
	info.NumPending = 0
	return consumerBehind{c, info}, nil
}

// What a replica has not got yet is not left out.
func TestReplicaBehind(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.events(300, 1, false, nil)
			cfg := b.config()
			cfg.JS, cfg.Model, cfg.Against = behind{b.js}, 1, 1
			r, err := Run(testkit.Context(t), cfg)
			if err != nil || r.Scored != 300 || r.Against.Bands[0][0]+r.Against.Bands[1][1]+r.Against.Bands[2][2] != 300 {
				t.Errorf("%v\n%s", err, r)
			}
			cfg.Against = 0
			if e := b.assert(cfg); !e.OK() || e.Compared != 300 {
				t.Errorf("%s", e)
			}
		})
	}
}

func TestRangeByTime(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	first := b.events(20, 1, false, nil)
	stream, err := b.js.Stream(testkit.Context(t), "EVENTS_payment")
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.GetMsg(testkit.Context(t), first+8)
	if err != nil {
		t.Fatal(err)
	}
	cfg := b.config()
	cfg.Model = 1
	for _, x := range []struct {
		from, to Bound
		want     uint64
	}{
		{Bound{Time: m.Time}, Bound{}, 12},
		{Bound{}, Bound{Time: m.Time}, 8},
		{Bound{Time: m.Time}, Bound{Seq: first + 9}, 2},
		{Bound{Time: m.Time.Add(time.Hour)}, Bound{}, 0},
		{Bound{Seq: 5}, Bound{Seq: 4}, 0},
		{Bound{Seq: 1 << 50}, Bound{}, 0},
	} {
		cfg.From, cfg.To = x.from, x.to
		r, err := Run(testkit.Context(t), cfg)
		if err != nil || r.Scored != x.want {
			t.Errorf("%+v to %+v: %d scored, %v: want %d", x.from, x.to, r.Scored, err, x.want)
		}
	}
}

func TestCannotBeDone(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	b.events(3, 1, false, nil)
	cfg := b.config()
	cfg.Model = 7
	if _, err := Run(testkit.Context(t), cfg); !errors.Is(err, model.ErrNoVersion) {
		t.Errorf("version 7: %v, want ErrNoVersion", err)
	}
	cfg.Model, cfg.Against = 1, 7
	if _, err := Run(testkit.Context(t), cfg); !errors.Is(err, model.ErrNoVersion) {
		t.Errorf("against version 7: %v, want ErrNoVersion", err)
	}
	cfg.Against = 1
	for _, x := range [][2]string{{"income", "sensitive"}, {"channel", "category"}, {"nothing", "no field nothing"}} {
		cfg.Amount = x[0]
		if _, err := Run(testkit.Context(t), cfg); err == nil || !strings.Contains(err.Error(), x[1]) {
			t.Errorf("amount %s: %v, want %s", x[0], err, x[1])
		}
	}
	cfg.Kind = "nothing"
	if _, err := AssertEqual(testkit.Context(t), cfg); err == nil {
		t.Error("a kind that is not there: no error")
	}
	for _, bad := range []string{"", "0", "yesterday", "-4"} {
		if _, err := ParseBound(bad); err == nil {
			t.Errorf("bound %q: no error", bad)
		}
	}
}
