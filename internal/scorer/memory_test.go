package scorer

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"

	"go.uber.org/zap"
)

const otcDir = "../../../shared/data/bitcoin_otc/"

func readCSV(t *testing.T, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no reference data at %s", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	if strings.HasSuffix(file, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		r = csv.NewReader(z)
	}
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// ratings are the Bitcoin OTC data as events of testdata/kinds/otc.yaml, with what remembering them in this order says.
type ratings struct {
	schema   *events.Schema
	plan     *memory.Plan
	bodies   [][]byte
	raters   []string
	bad      []float64
	golden   [][]float64
	artifact *model.Artifact
}

// racedRatings are enough for the race detector: all of them take it a minute, and what they are worth is told without it.
const racedRatings = 8000

func readRatings(t *testing.T) *ratings {
	t.Helper()
	text, err := os.ReadFile("../../testdata/kinds/otc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	d := &ratings{}
	if d.schema, err = events.Compile(c); err != nil {
		t.Fatal(err)
	}
	if d.plan, err = memory.Compile(d.schema); err != nil {
		t.Fatal(err)
	}
	for i, row := range readCSV(t, otcDir+"soc-sign-bitcoinotc.csv") {
		at, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		d.bodies = append(d.bodies, fmt.Appendf(nil, `{"row":"%d","rater":%q,"ratee":%q,"rating":%s,"at":%q}`, i, row[0], row[1], row[2], time.Unix(at, 0).UTC().Format(time.RFC3339)))
		d.raters = append(d.raters, row[0])
		y := 0.0
		if strings.HasPrefix(row[2], "-") {
			y = 1
		}
		d.bad = append(d.bad, y)
	}
	for _, row := range readCSV(t, otcDir+"features_raw.csv.gz")[1:] {
		x := make([]float64, len(row))
		for j := range row {
			if x[j], err = strconv.ParseFloat(row[j], 64); err != nil {
				t.Fatal(err)
			}
		}
		d.golden = append(d.golden, x)
	}
	if testkit.Raced {
		d.bodies, d.raters, d.bad, d.golden = d.bodies[:racedRatings], d.raters[:racedRatings], d.bad[:racedRatings], d.golden[:racedRatings]
	}
	d.fit(t)
	return d
}

// each decodes the first n events with their memory.
func (d *ratings) each(t *testing.T, n int, f func(i int, rec *events.Record)) {
	t.Helper()
	store := memory.New(d.plan)
	out := make([]float64, d.plan.Width())
	var rec events.Record
	for i, body := range d.bodies[:n] {
		if err := d.schema.Decode(events.JSON, body, &rec); err != nil {
			t.Fatal(err)
		}
		store.Step(memory.Event{Record: &rec}, out)
		rec.SetMemory(out)
		f(i, &rec)
	}
}

// fit makes the model of the reference: the first four fifths, plain columns, C = 1.
func (d *ratings) fit(t *testing.T) {
	t.Helper()
	n := len(d.bodies) * 4 / 5
	spec, err := feature.Infer(d.schema, func(yield func(*events.Record) bool) {
		d.each(t, n, func(_ int, rec *events.Record) { yield(rec) })
	}, feature.Options{Encoding: feature.Plain, NoTime: true})
	if err != nil {
		t.Fatal(err)
	}
	enc, err := spec.Compile(d.schema)
	if err != nil {
		t.Fatal(err)
	}
	x := lr.Matrix{Rows: n, Cols: enc.Dim(), Data: make([]float64, n*enc.Dim())}
	d.each(t, n, func(i int, rec *events.Record) { enc.Encode(x.Row(i), rec) })
	fit, err := lr.Fit(t.Context(), x, d.bad[:n], lr.Options{C: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := artifact(fit.Model.Intercept)
	a.Kind, a.Spec, a.Fingerprint, a.Weights = "otc", spec, spec.Fingerprint(), nil
	for j, c := range enc.Columns() {
		a.Weights = append(a.Weights, model.Weight{Column: c.Name, Field: c.Field, Weight: fit.Model.Weights[j]})
	}
	d.artifact = a
}

// scorers that come and go.
type crowd struct {
	t        *testing.T
	cluster  *testkit.Cluster
	observe  func(seq uint64, features []float64)
	folded   func(scorer int, seq uint64, s *memory.Store)
	n        int
	killed   map[int]func()
	graceful map[int]func()
	running  sync.WaitGroup
}

func (c *crowd) start() {
	c.t.Helper()
	conn := c.cluster.Connect(c.t)
	c.n++
	n := c.n
	limits := lane.DefaultLimits()
	limits.CarefulAt = math.MaxInt // no event is to blame for what is done to the scorers here
	s, err := New(Config{
		Limits: limits,
		Conn:   conn, Log: zaptest.NewLogger(c.t, zaptest.Level(zap.DPanicLevel)), Metrics: prometheus.NewRegistry(),
		Instance: fmt.Sprintf("s%d", n), Name: fmt.Sprintf("s%d", n), Snapshot: 100 * time.Millisecond,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	s.remembered = c.observe
	s.folded = func(seq uint64, s *memory.Store) { c.folded(n, seq, s) }
	ctx, cancel := context.WithCancel(context.Background())
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		_ = s.Run(ctx) // of one whose connection is cut it is an error
	}()
	c.killed[n] = func() { conn.Close(); cancel() }
	c.graceful[n] = cancel
}

// lose ends one scorer: it is cut off from one moment to the next, or it goes in order.
func (c *crowd) lose(r *rand.Rand, graceful bool) {
	var alive []int
	for n := range c.killed {
		alive = append(alive, n)
	}
	slices.Sort(alive)
	n := alive[r.IntN(len(alive))]
	if graceful {
		c.graceful[n]()
	} else {
		c.killed[n]()
	}
	delete(c.killed, n)
	delete(c.graceful, n)
}

// Features of the Bitcoin OTC ratings as scorers compute them, of which there are three and some are cut off or leave under load, are
// the golden ones; every score has the bits that the model gives offline, and every snapshot, and the state of each scorer at random
// events, those of a recomputation.
//
//	RISKWEIR_LOSSES=50 RISKWEIR_STATES=10000 go test -run MemoryLive -v -timeout 30m ./internal/scorer
func TestMemoryLive(t *testing.T) {
	d := readRatings(t)
	losses, looks := fromEnv(t, "RISKWEIR_LOSSES", 3), fromEnv(t, "RISKWEIR_STATES", 60)
	seed := rand.Uint64()
	t.Logf("seed %d, %d losses", seed, losses)
	r := rand.New(rand.NewPCG(seed, 3))

	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, d.schema.Contract, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv)
	version, err := registry.Publish(ctx, d.artifact)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = registry.Promote(ctx, "otc", version, "test", "because"); err != nil {
		t.Fatal(err)
	}

	var mu sync.Mutex
	worst, seen := 0.0, map[uint64][]float64{}
	recomputed := make([][]float64, len(d.bodies))
	d.each(t, len(d.bodies), func(i int, rec *events.Record) {
		x := make([]float64, d.plan.Width())
		for j := range x {
			x[j] = rec.Values[len(d.schema.Contract.Fields)+j].Num
		}
		recomputed[i] = x
	})
	observations := 0
	c := &crowd{t: t, cluster: cluster, killed: map[int]func(){}, graceful: map[int]func(){}, observe: func(seq uint64, features []float64) {
		mu.Lock()
		defer mu.Unlock()
		observations++
		seen[seq] = slices.Clone(features)
		for j, x := range features {
			worst = max(worst, math.Abs(x-d.golden[seq-1][j]))
			if math.Float64bits(x) != math.Float64bits(recomputed[seq-1][j]) {
				t.Errorf("event %d: feature %d is %v, recomputed %v", seq, j, x, recomputed[seq-1][j])
			}
		}
	}}
	states := &stateBook{d: d, seed: seed, share: float64(looks) / 3 / float64(len(d.bodies)), seen: map[uint64][sha256.Size]byte{}}
	c.folded = states.look
	defer c.running.Wait()
	defer func() {
		for _, end := range c.graceful {
			end()
		}
	}()
	for range 3 {
		c.start()
	}
	began := time.Now()
	chunk := len(d.bodies)/(losses+1) + 1
	for i, body := range d.bodies {
		if _, err := js.PublishAsync("events.otc."+d.raters[i], body); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			select {
			case <-js.PublishAsyncComplete():
			case <-time.After(testkit.Deadline):
				t.Fatal("events are not acknowledged")
			}
		}
		if i%chunk == chunk-1 {
			if losses > 10 { // then each loss is met by lanes that run again; one that starts looks at hundreds of states before it has caught up
				testkit.Eventually(t, 6*testkit.Deadline, "half of the chunk is scored", func() (bool, string) {
					mu.Lock()
					defer mu.Unlock()
					return len(seen) > i-chunk/2, fmt.Sprint(len(seen))
				})
			}
			c.lose(r, r.IntN(4) == 0)
			c.start()
		}
	}
	t.Logf("published after %s", time.Since(began).Round(time.Millisecond))
	scores := awaitScores(t, js, len(d.bodies))
	t.Logf("scored after %s", time.Since(began).Round(time.Millisecond))
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != len(d.bodies) || worst > 1e-12 {
		t.Errorf("features of %d of %d events, the furthest off by %v", len(seen), len(d.bodies), worst)
	}

	predictor, err := model.Compile(d.artifact, d.schema)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]float64, len(d.bodies))
	var scratch model.Scratch
	d.each(t, len(d.bodies), func(i int, rec *events.Record) {
		want := predictor.Score(rec, &scratch)
		got := scores[uint64(i)+1]
		if p[i] = got.P; math.Float64bits(got.P) != math.Float64bits(want.P) || got.ID != strconv.Itoa(i) || got.Mode != events.ModeModel {
			t.Fatalf("event %d: %+v, offline %+v", i+1, got, want)
		}
	})
	n := len(d.bodies) * 4 / 5
	m, err := lr.Evaluate(d.bad[n:], p[n:])
	if err != nil || !testkit.Raced && math.Abs(m.AUC-0.8715) > 0.002 {
		t.Errorf("AUC %v, %v, want 0.8715", m.AUC, err)
	}
	stored := storedTimes(t, js, "otc", len(d.bodies))
	books := checkSnapshots(t, js, d, stored)
	states.check(t, stored)
	t.Logf("%d events, %d observations, features off by at most %.2g, AUC %.5f, %d snapshots, %d states at %d events", len(seen), observations, worst, m.AUC, books, states.looks, len(states.seen))
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// storedTimes are when the first n events were stored.
func storedTimes(t *testing.T, js natsjs.JetStream, kind string, n int) []time.Time {
	t.Helper()
	c, err := js.OrderedConsumer(testkit.Context(t), events.EventsStream(kind), natsjs.OrderedConsumerConfig{HeadersOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	msgs, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer msgs.Stop()
	out := make([]time.Time, n)
	for i := range out {
		m, err := msgs.Next(natsjs.NextContext(testkit.Context(t)))
		if err != nil {
			t.Fatal(err)
		}
		at, err := m.Metadata()
		if err != nil || at.Sequence.Stream != uint64(i)+1 {
			t.Fatalf("event %d: %+v, %v", i+1, at, err)
		}
		out[i] = at.Timestamp
	}
	return out
}

// stateBook holds digests of the state of scorers at random events, which are others for each scorer.
type stateBook struct {
	d     *ratings
	seed  uint64
	share float64 // of the events

	mu     sync.Mutex
	looks  int
	seen   map[uint64][sha256.Size]byte
	differ []uint64 // where two scorers did not agree
}

func digest(s *memory.Store, seq uint64) (sum [sha256.Size]byte) {
	h := sha256.New()
	if err := s.Freeze().Encode(h, memory.Place{Seq: seq}); err != nil {
		panic(err) // a hash takes all
	}
	h.Sum(sum[:0])
	return sum
}

func (b *stateBook) look(scorer int, seq uint64, s *memory.Store) {
	if rand.New(rand.NewPCG(b.seed+uint64(scorer), seq)).Float64() >= b.share {
		return
	}
	sum := digest(s, seq)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.looks++
	if before, ok := b.seen[seq]; ok && before != sum {
		b.differ = append(b.differ, seq)
	}
	b.seen[seq] = sum
}

// check compares each with the state after the same events folded from the first one.
func (b *stateBook) check(t *testing.T, stored []time.Time) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.looks == 0 || len(b.differ) > 0 {
		t.Errorf("%d looks at states; scorers did not agree at events %v", b.looks, b.differ)
	}
	f := recall.Folder{Store: memory.New(b.d.plan)}
	out := make([]float64, b.d.plan.Width())
	left := len(b.seen)
	for i := 0; left > 0 && i < len(b.d.bodies); i++ {
		if _, err := f.Step(uint64(i)+1, "events.otc.0."+b.d.raters[i], "", b.d.bodies[i], stored[i], out); err != nil {
			t.Fatal(err)
		}
		if sum, ok := b.seen[uint64(i)+1]; ok {
			left--
			if digest(f.Store, uint64(i)+1) != sum {
				t.Errorf("the state behind event %d is not the recomputation's", i+1)
			}
		}
	}
	if left > 0 {
		t.Errorf("%d states are of events that were not published", left)
	}
}

// A stray event is in no memory, and its outcome does not wait for one.
func TestStrayDoesNotWaitForMemory(t *testing.T) {
	s := stage{kind: "otc", lane: events.StrayLane, recall: &recall.Recall{}}
	if s.Prepare([]lane.Event{{Seq: 5, Subject: "events.otc.*"}}) != nil {
		t.Error("it waits")
	}
}

// awaitScores reads SCORES until each event has its score, and fails at a second one.
func awaitScores(t *testing.T, js natsjs.JetStream, n int) map[uint64]events.Score {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*testkit.Deadline)
	defer cancel()
	consumer, err := js.OrderedConsumer(ctx, events.ScoresStream("otc"), natsjs.OrderedConsumerConfig{FilterSubjects: []string{"scores.otc.>"}})
	if err != nil {
		t.Fatal(err)
	}
	found := map[uint64]events.Score{}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for len(found) < n {
		m, err := messages.Next(natsjs.NextMaxWait(4 * testkit.Deadline))
		if err != nil {
			t.Fatalf("%d of %d scores: %v", len(found), n, err)
		}
		s, err := events.DecodeScore(m.Data())
		if err != nil {
			t.Fatalf("%s: %v", m.Data(), err)
		}
		if _, ok := found[s.Seq]; ok || strings.Contains(m.Subject(), ".invalid.") {
			t.Fatalf("event %d has a second outcome, or is invalid: %s %s", s.Seq, m.Subject(), m.Data())
		}
		found[s.Seq] = s
	}
	return found
}

// checkSnapshots compares each with the state after the same events folded from the first one.
func checkSnapshots(t *testing.T, js natsjs.JetStream, d *ratings, stored []time.Time) int {
	t.Helper()
	store, err := js.ObjectStore(testkit.Context(t), events.MemoryBucket)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := store.List(testkit.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		b, err := store.GetBytes(testkit.Context(t), o.Name)
		if err != nil {
			t.Fatal(err)
		}
		_, at, err := memory.Decode(d.plan, bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", o.Name, err)
		}
		s := recall.Folder{Store: memory.New(d.plan)}
		out := make([]float64, d.plan.Width())
		for i, body := range d.bodies[:at.Seq] {
			if _, err := s.Step(uint64(i)+1, "events.otc.0."+d.raters[i], "", body, stored[i], out); err != nil {
				t.Fatal(err)
			}
		}
		var want bytes.Buffer
		if err := s.Store.Freeze().Encode(&want, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want.Bytes()) {
			t.Errorf("snapshot %s of %d bytes is not the recomputation's %d bytes", o.Name, len(b), want.Len())
		}
	}
	return len(objects)
}
