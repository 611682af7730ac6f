package replay

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// Scores of three versions, of the prior and of history, in another order than their events, are what their version computes. RISKWEIR_REPLAY says
// how many, for a long run.
func TestStoredScoresAreEqual(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			n := 3000
			if s := os.Getenv("RISKWEIR_REPLAY"); s != "" {
				var err error
				if n, err = strconv.Atoi(s); err != nil {
					t.Fatal(err)
				}
			}
			b := newBank(t, text)
			b.events(100, 0, false, nil)
			want := map[string]uint64{prior: 100}
			for v := range 3 {
				b.publish()
				if v == 2 { // the same events under another revision
					b.declare(strings.NewReplacer("version: 1", "version: 2", "prior: 0.02", "prior: 0.03\nthresholds: {medium: 0.03, high: 0.7}").Replace(text))
				}
				part := (n + 2) / 3
				b.events(part, v+1, v == 1, nil)
				want[model.Name("payment", v+1)] = uint64(part)
			}
			began := time.Now()
			e := b.assert(b.config())
			t.Logf("%d compared in %s", e.Compared, time.Since(began).Round(time.Millisecond))
			total := uint64(0)
			for name, n := range want {
				total += n
				if m := e.Models[name]; m == nil || m.Equal != n || m.Stored != n {
					t.Errorf("%s: %+v, want %d equal", name, m, n)
				}
			}
			if !e.OK() || e.Compared != total || e.Not != 0 || len(e.Differences) > 0 {
				t.Errorf("%s\nwant %d equal", e, total)
			}
			cfg := b.config()
			if cfg.window = 64; n <= 3000 {
				if e := b.assert(cfg); !e.OK() || e.Compared != total {
					t.Errorf("by windows of 64: %s", e)
				}
			}
			cfg.window, cfg.Model = 0, 2
			if e := b.assert(cfg); !e.OK() || e.Compared != want["payment.v000002"] || len(e.Models) != 1 {
				t.Errorf("of version 2: %s", e)
			}
			cfg.Model, cfg.From.Seq, cfg.To.Seq = 0, 51, 150
			if e := b.assert(cfg); !e.OK() || e.Compared != 100 || e.Models[prior].Equal != 50 {
				t.Errorf("of events 51 to 150: %s", e)
			}
		})
	}
}

// One bit of each part of a score is found, and named.
func TestFindsWhatIsAltered(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			alter := map[int]func(*events.Score){
				17: func(s *events.Score) { s.P = math.Float64frombits(math.Float64bits(s.P) ^ 1) },
				40: func(s *events.Score) { s.Points ^= 1 },
				41: func(s *events.Score) { s.Band = events.BandHistory },
				77: func(s *events.Score) {
					s.Decision = map[bool]string{true: events.Approve, false: events.Decline}[s.Decision == events.Decline]
				},
				130: func(s *events.Score) { s.ID += "x" },
				131: func(s *events.Score) { s.Model = "nonsense" },
				132: func(s *events.Score) { s.Seq = 1 << 40 },
				133: func(s *events.Score) { s.Seq += 300 },
				134: func(s *events.Score) { s.Time = s.Time.Add(time.Nanosecond) },
				135: func(s *events.Score) { s.Kind = "loan" },
				136: func(s *events.Score) {
					// Neither band nor decision say so: what is decided on a prior is as if it had been that.
					s.Mode, s.Decision = events.ModePrior, b.schema.Contract.Decisions.Prior
				},
				210: func(s *events.Score) {
					s.Reasons = slices.Clone(s.Reasons)
					if len(s.Reasons) == 0 {
						s.Reasons = []events.Reason{{Field: "amount", Add: 1}}
						return
					}
					s.Reasons[0].Add = math.Float64frombits(math.Float64bits(s.Reasons[0].Add) ^ 1)
				},
			}
			want := map[int]string{17: "p", 40: "points", 41: "band", 77: "decision", 130: "id", 131: "it names the model", 132: "EVENTS never held its event", 133: "EVENTS never held its event", 134: "time", 135: "kind", 136: "mode", 210: "reasons"}
			first := b.events(300, 1, false, func(i int, s *events.Score) bool {
				if f := alter[i]; f != nil {
					f(s)
				}
				return true
			})
			e := b.assert(b.config())
			if e.OK() || e.Different != uint64(len(alter)) || e.Equal != 300-uint64(len(alter)) || len(e.Differences) != len(alter) {
				t.Fatalf("%s\nwant %d different", e, len(alter))
			}
			for _, d := range e.Differences {
				i := int(d.Event - first)
				switch {
				case d.Event == 1<<40:
					i = 132
				case i > 300:
					i -= 300
				}
				if len(d.What) != 1 || !strings.HasPrefix(d.What[0], want[i]) || d.Outcome == 0 {
					t.Errorf("event %d: %+v, want %q", i, d, want[i])
				}
			}
			if text := e.String(); !strings.Contains(text, fmt.Sprintf("of event %d, p1-17 of", first+17)) || !strings.Contains(text, fmt.Sprintf("different=%d ", len(alter))) {
				t.Errorf("the text does not name it:\n%s", text)
			}
			cfg := b.config()
			cfg.window, cfg.Differences = 7, 2
			if e := b.assert(cfg); len(e.Differences) != 2 || !strings.Contains(e.String(), fmt.Sprintf("... and %d more", len(alter)-2)) {
				t.Errorf("two of the differences: %s", e)
			}
		})
	}
}

// What a score names may be gone: then it is neither equal nor different.
func TestNotComparable(t *testing.T) {
	for name, text := range map[string]string{"plain": contractText, "memory": memoryText} {
		t.Run(name, func(t *testing.T) {
			b := newBank(t, text)
			b.publish()
			b.publish()
			first := b.events(200, 1, false, func(i int, s *events.Score) bool {
				if i == 190 {
					s.Contract = 4000 // which KINDS does not hold
				}
				return true
			})
			b.events(50, 2, false, nil)
			last := b.events(1, 1, false, nil)
			// The last of its card, so that no other event's memory is of it.
			b.delete("EVENTS_payment", last)
			kv, err := b.js.KeyValue(testkit.Context(t), events.ModelsBucket)
			if err == nil {
				err = kv.Delete(testkit.Context(t), "payment.v000002")
			}
			if err != nil {
				t.Fatal(err)
			}
			cfg := b.config()
			cfg.window = 16
			e := b.assert(cfg)
			one, two := e.Models["payment.v000001"], e.Models["payment.v000002"]
			if !e.OK() || e.Not != 52 || one.Equal != 199 || one.Not[whyLeft] != 1 || one.Not[whyContract] != 1 || two.Not[whyGone] != 50 {
				t.Fatalf("%s", e)
			}
			cfg.Model = 2
			if e := b.assert(cfg); e.OK() || e.Compared != 0 || !strings.Contains(e.String(), "proves nothing") {
				t.Errorf("nothing to compare: %s", e)
			}
			if b.store != nil {
				return // what is remembered of the first ones is gone with them
			}
			for i := range uint64(101) {
				b.delete("EVENTS_payment", first+i)
			}
			if e := b.assert(b.config()); !e.OK() || e.Models["payment.v000001"].Not[whyLeft] != 102 || e.Models["payment.v000001"].Equal != 98 {
				t.Errorf("after half of EVENTS had left: %s", e)
			}
		})
	}
}

// A score of an event that breaks the contract, or repeats another, is a difference.
func TestScoresThatShouldNotBe(t *testing.T) {
	b := newBank(t, memoryText)
	b.publish()
	var s events.Score
	b.events(1, 1, false, func(_ int, x *events.Score) bool { s = *x; return true })
	for i, body := range []string{`{"id":"bad"}`, ""} {
		if body == "" { // the first once more
			stream, err := b.js.Stream(testkit.Context(t), "EVENTS_payment")
			if err != nil {
				t.Fatal(err)
			}
			m, err := stream.GetMsg(testkit.Context(t), s.Seq)
			if err != nil {
				t.Fatal(err)
			}
			body = string(m.Data)
		}
		subject, err := events.EventSubject("payment", s.Entity)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := b.js.Publish(testkit.Context(t), subject, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		again := s
		again.Seq = ack.Sequence
		token, err := events.EscapeEntity(s.Entity)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.js.Publish(testkit.Context(t), events.CommitSubject("payment", again.Band, token), again.Append(nil, events.JSON)); err != nil {
			t.Fatal(err)
		}
		e := b.assert(b.config())
		if want := []string{"its event is not one", "its event repeats event"}[i]; e.Different != uint64(i+1) || !strings.HasPrefix(e.Differences[i].What[0], want) {
			t.Errorf("%s\nwant %q", e, want)
		}
	}
}

// What one replica did not find is gone only if the leader says so.
func TestIsGone(t *testing.T) {
	here := tail.Held{Subject: "$KV.MODELS.payment.v000001", Seq: 7}
	deleted, other := here, here
	deleted.Header = nats.Header{"KV-Operation": {"DEL"}}
	other.Subject = "$KV.MODELS.payment.v000002"
	for _, x := range []struct {
		name string
		held tail.Held
		err  error
		want string
	}{
		{"none", tail.Held{}, tail.ErrNone, ""},
		{"deleted", deleted, nil, ""},
		{"another key", other, nil, ""},
		{"there", here, nil, "MODELS has payment.v000001 at revision 7, and a replica that is behind did not: try again"},
		{"no answer", tail.Held{}, errors.New("no answer"), "no answer"},
	} {
		if err := isGone(x.held, x.err, "MODELS", "payment.v000001"); (err == nil) != (x.want == "") || err != nil && err.Error() != x.want {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

// What readers are told by a score's subject is compared, too.
func TestSubjectOfAnotherBand(t *testing.T) {
	b := newBank(t, contractText)
	b.publish()
	var s events.Score
	b.events(1, 1, false, func(_ int, x *events.Score) bool { s = *x; return false })
	other := map[bool]string{true: events.BandHigh, false: events.BandLow}[s.Band == events.BandLow]
	token, err := events.EscapeEntity(s.Entity)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.js.Publish(testkit.Context(t), events.CommitSubject("payment", other, token), s.Append(nil, events.JSON)); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("subject: its band is %s, the score says %s", other, s.Band)
	if e := b.assert(b.config()); e.Different != 1 || !slices.Equal(e.Differences[0].What, []string{want}) {
		t.Errorf("%s\nwant %q", e, want)
	}
}
