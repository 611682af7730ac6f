package scorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

func contract() events.Contract {
	c := events.DefaultContract()
	c.Kind, c.ID, c.Entity, c.Time, c.Lanes, c.Prior = "payment", "id", "card", "at", 2, 0.02
	c.Fields = []events.Field{
		{Name: "amount", Type: events.Number, Required: true},
		{Name: "channel", Type: events.Category},
		{Name: "age", Type: events.Number},
	}
	return c
}

// artifact of a model whose scores spread over all bands.
func artifact(intercept float64) *model.Artifact {
	spec := feature.Spec{Version: feature.SpecVersion, Zone: "UTC", Fields: []feature.Transform{
		{Field: "amount", Kind: feature.Asinh, Median: 20, IQR: 30, Mean: 0.25, SD: 1.125, Missing: true},
		{Field: "channel", Kind: feature.OneHot, Levels: []string{"branch", "web"}},
		{Field: "age", Kind: feature.Numeric, Mean: 40, SD: 12, Missing: true},
	}}
	a := &model.Artifact{
		Format: model.Format, Kind: "payment", Version: 1, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), CreatedBy: "test", Code: "test",
		Contract: model.ContractRef{Version: 1}, Training: model.Training{Rows: 10, Positives: 2, DataHash: "00"},
		Metrics: model.Metrics{Rows: 10, Positives: 2, AUC: 0.8, LogLoss: 0.1, Brier: 0.03},
		Scale:   model.DefaultScale, Calibration: model.Calibration{Method: model.CalibrationNone},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: intercept,
	}
	for j, c := range spec.Columns("") {
		a.Weights = append(a.Weights, model.Weight{Column: c.Name, Field: c.Field, Weight: 0.7 - 0.3*float64(j), Baseline: 0.01 * float64(j)})
	}
	return a
}

// world is a node with the kind payment.
type world struct {
	js       natsjs.JetStream
	schema   *events.Schema
	registry *model.Registry

	found map[uint64]outcome // by event, of what SCORES holds before next
	next  uint64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	js := testkit.Start(t, 1).JetStream(t)
	ctx := testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, contract(), topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	return &world{js: js, schema: schema, registry: model.NewRegistry(kv), found: map[uint64]outcome{}, next: 1}
}

// run starts a scorer, which ends with the test.
func (w *world) run(t *testing.T) *prometheus.Registry {
	t.Helper()
	metrics, _ := w.start(t, nil, func(*Scorer) {})
	return metrics
}

func (w *world) runTrusting(t *testing.T, trust *model.Trust) *prometheus.Registry {
	t.Helper()
	metrics, _ := w.start(t, trust, func(*Scorer) {})
	return metrics
}

// runWith does so after an edit, and returns a look at the scorer as it is.
func (w *world) runWith(t *testing.T, edit func(*Scorer)) func() *Scorer {
	t.Helper()
	_, s := w.start(t, nil, edit)
	return func() *Scorer {
		s.mu.Lock()
		defer s.mu.Unlock()
		return &Scorer{watcher: s.watcher, panel: s.panel}
	}
}

func (w *world) start(t *testing.T, trust *model.Trust, edit func(*Scorer)) (*prometheus.Registry, *Scorer) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	conn := w.js.Conn()
	s, err := New(Config{Trust: trust, Conn: conn, Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel)), Metrics: metrics, Instance: "s1-test", Name: "s1", SnapshotPoll: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	edit(s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("scorer: %v", err)
			}
		case <-time.After(testkit.Deadline):
			t.Error("the scorer did not end")
		}
	})
	return metrics, s
}

// publish stores a message as anybody may, by plain NATS.
func (w *world) publish(t *testing.T, subject string, header nats.Header, body []byte) uint64 {
	t.Helper()
	ack, err := w.js.PublishMsg(testkit.Context(t), &nats.Msg{Subject: subject, Header: header, Data: body})
	if err != nil {
		t.Fatalf("publish %s: %v", subject, err)
	}
	return ack.Sequence
}

// outcome is what was committed for one event.
type outcome struct {
	subject string
	body    []byte
}

// outcomes waits until each of the sequences has exactly one.
func (w *world) outcomes(t *testing.T, seqs []uint64) map[uint64]outcome {
	t.Helper()
	stream, err := w.js.Stream(testkit.Context(t), events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "every event has its outcome", func() (bool, string) {
		info, err := stream.Info(t.Context())
		if err != nil {
			return false, err.Error()
		}
		for ; w.next <= info.State.LastSeq; w.next++ {
			m, err := stream.GetMsg(t.Context(), w.next)
			if err != nil {
				t.Fatalf("message %d of SCORES: %v", w.next, err)
			}
			if !strings.HasPrefix(m.Subject, "scores.") {
				continue
			}
			seq, last, err := events.OutcomeSeq(m.Data)
			if err != nil || seq != last {
				t.Fatalf("%s %q: %d, %d, %v", m.Subject, m.Data, seq, last, err)
			}
			if _, ok := w.found[seq]; ok {
				t.Fatalf("event %d has two outcomes, the second %s", seq, m.Data)
			}
			w.found[seq] = outcome{m.Subject, m.Data}
		}
		missing := slices.DeleteFunc(slices.Clone(seqs), func(s uint64) bool { _, ok := w.found[s]; return ok })
		return len(missing) == 0, fmt.Sprintf("missing %v", missing)
	})
	return w.found
}

func packed(t *testing.T, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever is in EVENTS gets one outcome, and the lane moves on.
func TestOutcomes(t *testing.T) {
	w := newWorld(t)
	metrics := w.run(t)
	wild := "c.1 *>\n%é"
	wildSubject, err := events.EventSubject("payment", wild)
	if err != nil {
		t.Fatal(err)
	}
	whole := packed(t, map[string]any{"amount": 12.5, "card": "c2"})
	var deep strings.Builder
	for range 5000 {
		deep.WriteString(`{"a":`)
	}
	type row struct {
		name, subject string
		header        nats.Header
		body          []byte
		band          string // of the outcome
		field, reason string // of an invalid
		check         func(*testing.T, events.Score)
	}
	rows := []row{
		{name: "least that is needed", subject: "events.payment.c1", body: []byte(`{"amount":12.5}`), band: "low", check: func(t *testing.T, s events.Score) {
			if s.P != 0.02 || s.Mode != events.ModePrior || s.Decision != events.Review || s.Model != "" || s.Revision != 0 || s.ID != strconv.FormatUint(s.Seq, 10) || s.Entity != "c1" || s.Time.IsZero() || s.Contract == 0 {
				t.Errorf("%+v", s)
			}
		}},
		{name: "id and time", subject: "events.payment.c1", body: []byte(`{"id":"p7","at":"2026-01-02T03:04:05+01:00","card":"c1","amount":1}`), band: "low", check: func(t *testing.T, s events.Score) {
			if s.ID != "p7" || !s.Time.Equal(time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC)) {
				t.Errorf("%+v", s)
			}
		}},
		{name: "msgpack, told by its first byte", subject: "events.payment.c2", body: whole, band: "low"},
		{name: "msgpack, told by its content type", subject: "events.payment.c2", header: nats.Header{"Content-Type": {"application/msgpack"}}, body: whole, band: "low"},
		{name: "history", subject: "events.payment.c1", header: nats.Header{events.HeaderHistory: {"1"}}, body: []byte(`{"amount":1}`), band: "history", check: func(t *testing.T, s events.Score) {
			if s.Decision != events.None || s.Band != events.BandHistory {
				t.Errorf("%+v", s)
			}
		}},
		{name: "wild entity", subject: wildSubject, body: []byte(`{"amount":1,"card":"c.1 *>\n%é"}`), band: "low", check: func(t *testing.T, s events.Score) {
			if s.Entity != wild {
				t.Errorf("entity %q", s.Entity)
			}
		}},
		{name: "a token that no entity has", subject: "events.payment.%41", body: []byte(`{"amount":1}`), band: "low", check: func(t *testing.T, s events.Score) {
			if s.Entity != "%41" {
				t.Errorf("entity %q", s.Entity)
			}
		}},
		{name: "unknown fields", subject: "events.payment.c1", body: []byte(`{"amount":1,"colour":"red","nested":{"a":[1,2]}}`), band: "low"},
		{name: "an integer for a category", subject: "events.payment.c1", body: []byte(`{"amount":1,"channel":7}`), band: "low"},
		{name: "another entity", subject: "events.payment.c1", body: []byte(`{"amount":1,"card":"c2"}`), band: "invalid", field: "card", reason: "is not the entity of the subject"},
		{name: "empty", subject: "events.payment.c1", body: nil, band: "invalid", reason: "neither"},
		{name: "text", subject: "events.payment.c1", body: []byte("hello"), band: "invalid", reason: "neither"},
		{name: "array", subject: "events.payment.c1", body: []byte(`[{"amount":1}]`), band: "invalid", reason: "neither"},
		{name: "two objects", subject: "events.payment.c1", body: []byte(`{"amount":1}{"amount":2}`), band: "invalid", reason: "something follows"},
		{name: "truncated JSON", subject: "events.payment.c1", body: []byte(`{"amount":1`), band: "invalid", reason: "not JSON"},
		{name: "truncated msgpack", subject: "events.payment.c2", body: whole[:len(whole)-3], band: "invalid", reason: "msgpack"},
		{name: "JSON called msgpack", subject: "events.payment.c1", header: nats.Header{"Content-Type": {"application/msgpack"}}, body: []byte(`{"amount":1}`), band: "invalid", reason: "msgpack"},
		{name: "required is missing", subject: "events.payment.c1", body: []byte(`{"channel":"web"}`), band: "invalid", field: "amount"},
		{name: "required is null", subject: "events.payment.c1", body: []byte(`{"amount":null}`), band: "invalid", field: "amount"},
		{name: "wrong type", subject: "events.payment.c1", body: []byte(`{"amount":"a lot"}`), band: "invalid", field: "amount"},
		{name: "NaN", subject: "events.payment.c1", body: packed(t, map[string]any{"amount": math.NaN()}), band: "invalid", field: "amount"},
		{name: "infinite", subject: "events.payment.c1", body: packed(t, map[string]any{"amount": math.Inf(1)}), band: "invalid", field: "amount"},
		{name: "1e999", subject: "events.payment.c1", body: []byte(`{"amount":1e999}`), band: "invalid", field: "amount"},
		{name: "a field twice", subject: "events.payment.c1", body: []byte(`{"amount":1,"amount":2}`), band: "invalid", field: "amount"},
		{name: "time without a zone", subject: "events.payment.c1", body: []byte(`{"amount":1,"at":"2026-01-02T03:04:05"}`), band: "invalid", field: "at", reason: "zone"},
		{name: "not UTF-8", subject: "events.payment.c1", body: []byte("{\"amount\":1,\"channel\":\"\xff\"}"), band: "invalid"},
		{name: "deep", subject: "events.payment.c1", body: []byte(`{"amount":1,"x":` + deep.String()), band: "invalid"},
		{name: "the last is scored", subject: "events.payment.c1", body: []byte(`{"amount":1}`), band: "low"},
	}
	var seqs []uint64
	for _, x := range rows {
		seqs = append(seqs, w.publish(t, x.subject, x.header, x.body))
	}
	got := w.outcomes(t, seqs)
	if len(got) != len(rows) {
		t.Errorf("%d outcomes of %d events", len(got), len(rows))
	}
	for i, x := range rows {
		t.Run(x.name, func(t *testing.T) {
			o := got[seqs[i]]
			token := strings.TrimPrefix(x.subject, "events.payment.")
			if want := "scores.payment." + x.band + "." + token; o.subject != want {
				t.Fatalf("%s: %s, want %s", o.subject, o.body, want)
			}
			in, err := events.DetectEncoding(x.header.Get("Content-Type"), x.body)
			if err != nil {
				in = events.JSON
			}
			if out, err := events.DetectEncoding("", o.body); err != nil || out != in {
				t.Errorf("an event of %s is answered in %s, %v", in, out, err)
			}
			if x.band != "invalid" {
				score, err := events.DecodeScore(o.body)
				if err != nil || score.Seq != seqs[i] || score.Kind != "payment" {
					t.Fatalf("%+v, %v", score, err)
				}
				if x.check != nil {
					x.check(t, score)
				}
				return
			}
			bad, err := events.DecodeInvalid(o.body)
			if err != nil || bad.Seq != seqs[i] || bad.Field != x.field || bad.Reason == "" || !strings.Contains(bad.Reason, x.reason) {
				t.Errorf("%+v, %v, want field %q and %q", bad, err, x.field, x.reason)
			}
			t.Logf("field %q: %s", bad.Field, bad.Reason)
		})
	}
	if n := value(t, metrics, "riskweir_scorer_unknown_fields_total"); n != 2 {
		t.Errorf("%v unknown fields are counted, want 2", n)
	}
	if n := value(t, metrics, "riskweir_scorer_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
	testkit.Eventually(t, testkit.Deadline, "all outcomes are counted", func() (bool, string) {
		n := value(t, metrics, "riskweir_scorer_outcomes_total")
		return n == float64(len(rows)), fmt.Sprint(n)
	})
}

// value of a counter, summed over its labels.
func value(t *testing.T, r *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == name })
	if i < 0 {
		return 0
	}
	for _, m := range families[i].Metric {
		sum += m.GetCounter().GetValue()
	}
	return sum
}

func (w *world) promote(t *testing.T, intercept float64) (name string, revision uint64) {
	t.Helper()
	ctx := testkit.Context(t)
	version, err := w.registry.Publish(ctx, artifact(intercept))
	if err != nil {
		t.Fatal(err)
	}
	_, revision, err = w.registry.Promote(ctx, "payment", version, "test", "because")
	if err != nil {
		t.Fatal(err)
	}
	return model.Name("payment", version), revision
}

// A model is taken between two batches, under load; what it scores is what it scores offline, bit for bit.
func TestModelsAreSwappedUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.run(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	intercepts := map[string]float64{}
	bodies := map[uint64][]byte{}
	var seqs []uint64
	feed := func(n int) {
		for range n {
			v := map[string]any{"amount": 100 * r.ExpFloat64(), "card": fmt.Sprintf("c%d", r.IntN(7))}
			if r.IntN(3) > 0 {
				v["channel"] = []string{"web", "branch", "phone"}[r.IntN(3)]
			}
			if r.IntN(3) > 0 {
				v["age"] = 18 + r.IntN(70)
			}
			body, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(2) == 0 {
				body = packed(t, v)
			}
			seq := w.publish(t, "events.payment."+v["card"].(string), nil, body)
			bodies[seq] = body
			seqs = append(seqs, seq)
		}
	}
	feed(50)
	w.outcomes(t, seqs)
	for _, intercept := range []float64{-3.5, 1.25} {
		name, revision := w.promote(t, intercept)
		intercepts[name] = intercept
		from := len(seqs)
		testkit.Eventually(t, testkit.Deadline, name+" scores", func() (bool, string) {
			feed(10)
			last := w.outcomes(t, seqs)[seqs[len(seqs)-1]]
			s, err := events.DecodeScore(last.body)
			return err == nil && s.Revision >= revision && len(seqs) > from+80, fmt.Sprintf("%s, %v", last.body, err)
		})
	}
	used := map[string]int{}
	var latest [2]uint64 // revision by lane, which never falls
	all := w.outcomes(t, seqs)
	stored, err := w.js.Stream(testkit.Context(t), events.EventsStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range seqs {
		s, err := events.DecodeScore(all[seq].body)
		if err != nil {
			t.Fatalf("%s: %v", all[seq].body, err)
		}
		used[s.Model]++
		m, err := stored.GetMsg(testkit.Context(t), seq)
		if err != nil {
			t.Fatal(err)
		}
		at, err := events.ParseStoredEvent(m.Subject)
		if err != nil {
			t.Fatal(err)
		}
		if s.Revision < latest[at.Lane] {
			t.Fatalf("event %d of lane %d is scored at revision %d, one before it at %d", seq, at.Lane, s.Revision, latest[at.Lane])
		}
		latest[at.Lane] = s.Revision
		want := model.Prior(&w.schema.Contract)
		if s.Model != "" {
			if want, err = model.Compile(artifact(intercepts[s.Model]), w.schema); err != nil {
				t.Fatal(err)
			}
		}
		if mode := map[bool]string{true: events.ModePrior, false: events.ModeModel}[s.Model == ""]; s.Mode != mode {
			t.Fatalf("model %q, mode %s", s.Model, s.Mode)
		}
		enc, err := events.DetectEncoding("", bodies[seq])
		if err != nil {
			t.Fatal(err)
		}
		var rec events.Record
		if err := w.schema.Decode(enc, bodies[seq], &rec); err != nil {
			t.Fatal(err)
		}
		rec.Time = m.Time
		offline := want.Score(&rec, new(model.Scratch))
		if math.Float64bits(s.P) != math.Float64bits(offline.P) || s.Points != offline.Points || !slices.Equal(s.Reasons, offline.Reasons) {
			t.Fatalf("%s: %+v, offline %+v", bodies[seq], s, offline)
		}
		if band := w.schema.Contract.Band(s.P); s.Band != band || s.Decision != w.schema.Contract.Decide(s.Mode, band) {
			t.Fatalf("%+v", s)
		}
	}
	if len(used) != 3 {
		t.Errorf("models used: %v, want the prior and two", used)
	}
	t.Logf("models used: %v", used)
}

// watched is a watcher of the kind, running until the end of the test.
func (w *world) watched(t *testing.T, lease time.Duration) *model.Watcher {
	t.Helper()
	kv, err := w.js.KeyValue(testkit.Context(t), events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	watcher := model.NewWatcher(model.WatcherConfig{KV: kv, Poll: 20 * time.Millisecond, Lease: lease})
	if err := watcher.Track(w.schema, 5); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- watcher.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return watcher
}

func event(seq uint64, body string) lane.Event {
	return lane.Event{Seq: seq, Stored: time.Unix(1_700_000_000, 0), Subject: "events.payment.0.c1", Body: []byte(body)}
}

// What panics on one event ends that event as invalid; those beside it in the batch are scored.
func TestPoison(t *testing.T) {
	w := newWorld(t)
	const poison = 12
	conn := w.js.Conn()
	watcher := w.watched(t, testkit.Deadline)
	panics := make(chan uint64, 10)
	kinds := make(chan []lane.Kind, 1)
	kinds <- []lane.Kind{{Name: "payment", Lanes: 2}}
	pool := lane.NewPool(lane.Config{
		Conn: conn, JS: w.js, Limits: lane.DefaultLimits(), Kinds: kinds, Self: lane.Member{Instance: "s1-test", Name: "s1", Started: time.Now()},
		Stage: func(k lane.Kind, n int) lane.Stage {
			return &laneStage{stage: &stage{kind: k.Name, lane: n, watcher: watcher, await: time.Second, panicOn: poison,
				tally: tally{panicked: func(_ string, seq uint64, _ any) { panics <- seq }}}}
		},
	})
	var seqs []uint64
	for i := range 30 {
		seqs = append(seqs, w.publish(t, fmt.Sprintf("events.payment.c%d", i%5), nil, []byte(`{"amount":1}`)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- pool.Run(ctx) }()
	all := w.outcomes(t, seqs)
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, seq := range seqs {
		bad := strings.HasPrefix(all[seq].subject, "scores.payment.invalid.")
		if bad != (seq == poison) {
			t.Errorf("event %d: %s %s", seq, all[seq].subject, all[seq].body)
		}
	}
	if x, err := events.DecodeInvalid(all[poison].body); err != nil || x.Reason != "scoring it panicked" {
		t.Errorf("%+v, %v", x, err)
	}
	if len(panics) == 0 || <-panics != poison {
		t.Error("the panic was not told of")
	}
}

func TestStale(t *testing.T) {
	w := newWorld(t)
	name, _ := w.promote(t, -1)
	watcher := w.watched(t, 500*time.Millisecond)
	testkit.Eventually(t, testkit.Deadline, "the model is in force", func() (bool, string) {
		l := watcher.Live("payment")
		return l.Name == name, l.Name
	})
	s := stage{kind: "payment", watcher: watcher, await: time.Millisecond}
	score := func() events.Score {
		t.Helper()
		s.Adopt()
		msgs := s.Outcomes([]lane.Event{event(1, `{"amount":1}`)})
		got, err := events.DecodeScore(msgs[0].Data)
		if err != nil {
			t.Fatalf("%s: %v", msgs[0].Data, err)
		}
		return got
	}
	testkit.Eventually(t, testkit.Deadline, "the registry is in sight", func() (bool, string) { return !watcher.Stale(), "stale" })
	if got := score(); got.Mode != events.ModeModel || got.Decision == "" {
		t.Errorf("%+v", got)
	}
	if err := w.js.DeleteKeyValue(testkit.Context(t), events.ModelsBucket); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "the registry is out of sight", func() (bool, string) { return watcher.Stale(), "" })
	if got := score(); got.Mode != events.ModeStale || got.Decision != w.schema.Contract.Decisions.Stale || got.Model != name {
		t.Errorf("%+v", got)
	}
	// An answer is owed, though a newer revision was seen in the lane's position.
	if err := s.Await(t.Context(), 1<<40); err != nil {
		t.Errorf("await: %v", err)
	}
}

// A batch is made of one buffer; its messages must not reach into each other.
func TestBatchSharesABufferOnly(t *testing.T) {
	w := newWorld(t)
	s := stage{kind: "payment", watcher: w.watched(t, testkit.Deadline)}
	s.Adopt()
	var batch []lane.Event
	for i := range 300 {
		body := `{"amount":1,"id":"` + strings.Repeat("x", i) + `"}`
		if i%7 == 0 {
			body = "broken"
		}
		batch = append(batch, event(uint64(i+1), body))
	}
	msgs := s.Outcomes(batch)
	for i, m := range msgs {
		one := s.Outcomes(batch[i : i+1])[0]
		if m.Subject != one.Subject || string(m.Data) != string(one.Data) {
			t.Fatalf("event %d: %s %s, alone %s %s", i+1, m.Subject, m.Data, one.Subject, one.Data)
		}
	}
	grown := append(msgs[1].Data, "over"...)
	if first := s.Outcomes(batch[2:3])[0]; string(first.Data) != string(msgs[2].Data) {
		t.Errorf("appending to one outcome changed the next: %s after %s", msgs[2].Data, grown)
	}
}

func TestUnreadAndExpired(t *testing.T) {
	w := newWorld(t)
	s := laneStage{stage: &stage{kind: "payment", lane: 1, watcher: w.watched(t, testkit.Deadline)}}
	s.Adopt()
	m := s.Unread(event(9, "whatever"), 2)
	bad, err := events.DecodeInvalid(m.Data)
	if err != nil || m.Subject != "commit.payment.invalid.c1" || bad.Seq != 9 || bad.Attempts != 2 || bad.Entity != "c1" || !strings.Contains(bad.Reason, "2 scorers ended while they scored it") {
		t.Errorf("%s %+v, %v", m.Subject, bad, err)
	}
	m = s.Expired(3, 8)
	gone, err := events.DecodeExpired(m.Data)
	if err != nil || m.Subject != "commit.payment.expired.lane-1" || gone != (events.Expired{First: 3, Last: 8, Kind: "payment", Lane: 1}) {
		t.Errorf("%s %+v, %v", m.Subject, gone, err)
	}
}
