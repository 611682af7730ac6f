package impact

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

const bad, good = "payment.v000002", "payment.v000001"

// store writes outcomes and positions as lanes do, in batches.
func store(t *testing.T, js natsjs.JetStream, r *rand.Rand, n int) {
	t.Helper()
	to := topology.Committer{Conn: js.Conn(), Stream: events.ScoresStream("payment"), Timeout: 5 * time.Second}
	var batch []*nats.Msg
	for seq := uint64(1); seq <= uint64(n); seq++ {
		encoding := []events.Encoding{events.JSON, events.Msgpack}[r.IntN(2)]
		s := events.Score{
			ID: fmt.Sprint(seq), Seq: seq, Kind: "payment", Entity: fmt.Sprintf("c%d", r.IntN(9)), P: r.Float64(),
			Band: []string{events.BandLow, events.BandHigh, events.BandHistory}[r.IntN(3)], Decision: []string{events.Approve, events.Decline}[r.IntN(2)],
			Model: []string{bad, good, ""}[r.IntN(3)], Mode: []string{events.ModeModel, events.ModeStale}[r.IntN(2)],
			Revision: 7, Contract: 1, Time: time.Unix(int64(seq), 0).UTC(),
		}
		if r.IntN(5) == 0 { // who reads bytes only would count these
			s.ID = bad
		}
		band, body := s.Band, s.Append(nil, encoding)
		if r.IntN(8) == 0 {
			invalid := events.Invalid{Seq: seq, Kind: "payment", Entity: s.Entity, Reason: "not of " + bad}
			band, body = events.BandInvalid, invalid.Append(nil, encoding)
		}
		batch = append(batch, &nats.Msg{Subject: events.CommitSubject("payment", band, s.Entity), Data: body})
		if len(batch) < 40 && seq < uint64(n) {
			continue
		}
		if r.IntN(2) == 0 {
			batch = append(batch, &nats.Msg{Subject: events.PositionSubject("payment", 0), Data: []byte(`{"owner":"` + bad + `"}`)})
		}
		if _, err := to.Commit(testkit.Context(t), batch); err != nil {
			t.Fatal(err)
		}
		batch = nil
	}
}

// counted asks for every message of SCORES by itself, and takes it for a map.
func counted(t *testing.T, js natsjs.JetStream, model string) (counts map[Count]uint64, seqs []uint64) {
	t.Helper()
	stream, err := js.Stream(testkit.Context(t), events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(testkit.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	counts = map[Count]uint64{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(testkit.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		body := map[string]any{}
		if m.Data[0] == '{' {
			err = json.Unmarshal(m.Data, &body)
		} else {
			err = msgpack.Unmarshal(m.Data, &body)
		}
		if err != nil {
			t.Fatalf("%d %s: %v", seq, m.Subject, err)
		}
		if body["model"] == model {
			counts[Count{Band: body["band"].(string), Decision: body["decision"].(string), Mode: body["mode"].(string)}]++
			seqs = append(seqs, seq)
		}
	}
	return counts, seqs
}

func newStream(t *testing.T, nodes int) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	cluster := testkit.Start(t, nodes)
	js := cluster.JetStream(t)
	c := events.DefaultContract()
	c.Kind, c.Entity, c.Lanes, c.Prior = "payment", "card", 2, 0.02
	c.Fields = []events.Field{{Name: "amount", Type: events.Number, Required: true}}
	ctx := testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: nodes}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, c, topology.Options{Replicas: nodes}); err != nil {
		t.Fatal(err)
	}
	return cluster, js
}

// What is counted, and listed, is what a look at every message by itself finds; also where answers get lost.
func TestImpact(t *testing.T) {
	cluster, js := newStream(t, 1)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	if r, err := Run(testkit.Context(t), Config{JS: js, Kind: "payment", Model: bad}); err != nil || r.Outcomes != 0 || len(r.Counts) != 0 {
		t.Fatalf("of nothing: %+v, %v", r, err)
	}
	store(t, js, rand.New(rand.NewPCG(seed, 6)), 600)
	want, seqs := counted(t, js, bad)
	if len(want) < 8 {
		t.Fatalf("the sample is poor: %v", want)
	}
	check := func(t *testing.T, js natsjs.JetStream) {
		t.Helper()
		var listed []uint64
		report, err := Run(testkit.Context(t), Config{JS: js, Kind: "payment", Model: bad, Each: func(o Outcome) error {
			if o.Model != bad || o.Stored.Before(report0) {
				return fmt.Errorf("%+v is none of %s", o, bad)
			}
			listed = append(listed, o.Seq)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		got, sum := map[Count]uint64{}, uint64(0)
		for i, c := range report.Counts {
			if i > 0 && c.N > report.Counts[i-1].N {
				t.Errorf("the most is not first: %+v", report.Counts)
			}
			n := c.N
			c.N, sum = 0, sum+n
			got[c] += n
		}
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(listed, seqs) || report.Outcomes != sum || sum != uint64(len(seqs)) {
			t.Errorf("%d outcomes\n%v\nlisted %v, want %d\n%v\n%v", report.Outcomes, got, listed, len(seqs), want, seqs)
		}
		if report.First.IsZero() || report.Last.Before(report.First) || report.FromSeq != 1 || !strings.Contains(report.String(), fmt.Sprintf("made %d outcomes", len(seqs))) {
			t.Errorf("%+v\n%s", report, report)
		}
	}
	check(t, js)
	for _, subject := range []string{"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>"} {
		for _, half := range testkit.Halves {
			t.Run(subject+", "+half.String(), func(t *testing.T) {
				t.Parallel()
				courier := cluster.Courier(t)
				js, err := natsjs.New(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				courier.Lose(subject, half, 1)
				check(t, js)
				if courier.Lost() != 1 {
					t.Errorf("lost %d", courier.Lost())
				}
			})
		}
	}

	// Whoever takes the list may end it.
	enough := errors.New("enough")
	taken := 0
	_, err := Run(testkit.Context(t), Config{JS: js, Kind: "payment", Model: bad, Each: func(Outcome) error { taken++; return enough }})
	if !errors.Is(err, enough) || taken != 1 {
		t.Errorf("%v after %d", err, taken)
	}
}

// report0 is before anything that a test stores.
var report0 = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// It is said that what was before has left SCORES.
func TestImpactOfWhatIsLeft(t *testing.T) {
	_, js := newStream(t, 1)
	store(t, js, rand.New(rand.NewPCG(1, 6)), 300)
	ctx := testkit.Context(t)
	stream, err := js.Stream(ctx, events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxMsgs, cfg.Discard = 100, natsjs.DiscardOld
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	want, seqs := counted(t, js, bad)
	report, err := Run(ctx, Config{JS: js, Kind: "payment", Model: bad})
	if err != nil {
		t.Fatal(err)
	}
	got := map[Count]uint64{}
	for _, c := range report.Counts {
		n := c.N
		c.N = 0
		got[c] = n
	}
	if !reflect.DeepEqual(got, want) || report.Outcomes != uint64(len(seqs)) || report.FromSeq <= 1 || report.Since.IsZero() {
		t.Errorf("%+v, want %v", report, want)
	}
	if !strings.Contains(report.String(), "what was before has left it") {
		t.Errorf("it does not say that messages are gone:\n%s", report)
	}
	if _, err := Run(ctx, Config{JS: js, Kind: "nokind", Model: bad}); err == nil || !strings.Contains(err.Error(), "SCORES_nokind") {
		t.Errorf("a kind that is not there: %v", err)
	}
}
