package verify

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

const kind = "payment"

// stage is a kind on a node of its own, whose outcomes the test writes by hand.
type stage struct {
	t       testing.TB
	cluster *testkit.Cluster
	js      natsjs.JetStream
}

func newStage(t testing.TB) *stage {
	t.Helper()
	c := testkit.Start(t, 1)
	s := &stage{t: t, cluster: c, js: c.JetStream(t)}
	contract := events.DefaultContract()
	contract.Kind, contract.Lanes = kind, 4
	contract.Fields = []events.Field{{Name: "amount", Type: events.Number}}
	ctx, o := testkit.Context(t), jetstream.Options{Replicas: 1}
	if _, err := jetstream.ApplyShared(ctx, s.js, o); err != nil {
		t.Fatal(err)
	}
	if _, err := jetstream.ApplyKind(ctx, s.js, contract, o); err != nil {
		t.Fatal(err)
	}
	return s
}

// event is one of EVENTS.
type event struct {
	seq   uint64
	lane  int
	token string
	id    string
}

// publish stores n events of a few entities and returns them in order.
func (s *stage) publish(n int) []event {
	s.t.Helper()
	futures := make([]natsjs.PubAckFuture, n)
	for i := range futures {
		subject, err := events.EventSubject(kind, "c"+strconv.Itoa(i%7))
		if err != nil {
			s.t.Fatal(err)
		}
		if futures[i], err = s.js.PublishAsync(subject, []byte(`{"amount":1}`)); err != nil {
			s.t.Fatal(err)
		}
		if (i+1)%2000 == 0 {
			s.settle(futures[i+1-2000 : i+1])
		}
	}
	s.settle(futures[n-n%2000:])
	stream, err := s.js.Stream(testkit.Context(s.t), events.EventsStream(kind))
	if err != nil {
		s.t.Fatal(err)
	}
	last := stream.CachedInfo().State.LastSeq
	var out []event
	r := newReader(s.js, events.EventsStream(kind), "events."+kind+".>", last-uint64(n)+1, true)
	defer r.close(s.t.Context())
	err = r.upTo(testkit.Context(s.t), last, func(m message) error {
		e, err := events.ParseStoredEvent(m.subject)
		out = append(out, event{seq: m.seq, lane: e.Lane, token: e.Token, id: "id" + strconv.FormatUint(m.seq, 10)})
		return err
	})
	if err != nil || len(out) != n {
		s.t.Fatalf("read back %d of %d events: %v", len(out), n, err)
	}
	return out
}

func (s *stage) settle(futures []natsjs.PubAckFuture) {
	s.t.Helper()
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			s.t.Fatal(err)
		}
	}
}

// score writes the outcome of an event and returns its sequence in SCORES.
func (s *stage) score(e event, band string) uint64 {
	s.t.Helper()
	return s.put(events.CommitSubject(kind, band, e.token), body(e, band))
}

func body(e event, band string) []byte {
	if band == events.BandInvalid {
		v := events.Invalid{ID: e.id, Seq: e.seq, Kind: kind, Entity: e.token, Reason: "no amount"}
		return v.Append(nil, events.JSON)
	}
	v := events.Score{ID: e.id, Seq: e.seq, Kind: kind, Entity: e.token, P: 0.25, Band: band, Decision: events.Approve, Mode: events.ModePrior, Time: time.Unix(0, 0).UTC()}
	return v.Append(nil, events.Msgpack)
}

func (s *stage) put(subject string, body []byte) uint64 {
	s.t.Helper()
	ack, err := s.js.Publish(testkit.Context(s.t), subject, body)
	if err != nil {
		s.t.Fatal(err)
	}
	return ack.Sequence
}

func (s *stage) verify(cfg Config) Report {
	s.t.Helper()
	cfg.JS, cfg.Kind = s.js, kind
	r, err := Run(testkit.Context(s.t), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Log(r)
	return r
}

// find returns the only offender of the sort.
func find(t *testing.T, r Report, what string) Offender {
	t.Helper()
	var found []Offender
	for _, o := range r.Offenders {
		if o.What == what {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d offenders are %s: want one, in %v", len(found), what, r.Offenders)
	}
	return found[0]
}

func TestCleanStreams(t *testing.T) {
	s := newStage(t)
	es := s.publish(40)
	for i, e := range es {
		band := []string{events.BandLow, events.BandMedium, events.BandHigh, events.BandHistory, events.BandInvalid}[i%5]
		s.score(e, band)
	}
	r := s.verify(Config{})
	if want := "events=40 scored=24 invalid=8 missing=0 duplicate=0 disorder=0 history=8"; r.String() != want || !r.OK() {
		t.Errorf("%s\nwant %s", r, want)
	}
}

func TestEmptyStreams(t *testing.T) {
	if r := newStage(t).verify(Config{Wait: time.Minute}); !r.OK() || r.Events != 0 {
		t.Errorf("%+v", r)
	}
}

// One outcome is dropped, one doubled, two of a lane swapped: each is named by its sequence.
func TestNamesWhatIsWrong(t *testing.T) {
	s := newStage(t)
	es := s.publish(60)
	dropped, doubled := es[10], es[20]
	early := slices.IndexFunc(es[30:], func(e event) bool { return e.lane != dropped.lane }) + 30
	late := slices.IndexFunc(es[early+1:], func(e event) bool { return e.lane == es[early].lane }) + early + 1
	swapped := es[early]
	es[early], es[late] = es[late], es[early]
	var second, disordered uint64
	for i, e := range es {
		if e == dropped {
			continue
		}
		at := s.score(e, events.BandLow)
		if e == swapped {
			disordered = at
		}
		if i == 25 {
			second = s.score(doubled, events.BandHigh)
		}
	}
	r := s.verify(Config{})
	if want := "events=60 scored=60 invalid=0 missing=1 duplicate=1 disorder=1"; r.String() != want || r.OK() {
		t.Errorf("%s\nwant %s", r, want)
	}
	subject := fmt.Sprintf("events.%s.%d.%s", kind, dropped.lane, dropped.token)
	if o := find(t, r, whatMissing); o.Seq != dropped.seq || o.Subject != subject {
		t.Errorf("%v: want event %d on %s", o, dropped.seq, subject)
	}
	if o := find(t, r, whatDuplicate); o.Seq != doubled.seq || o.Outcome != second || o.Subject != events.ScoreSubject(kind, events.BandHigh, doubled.token) {
		t.Errorf("%v: want event %d, outcome %d", o, doubled.seq, second)
	}
	if o := find(t, r, whatDisorder); o.Seq != swapped.seq || o.Outcome != disordered {
		t.Errorf("%v: want event %d, outcome %d", o, swapped.seq, disordered)
	}
}

func TestNamesOutcomesOfNothing(t *testing.T) {
	s := newStage(t)
	es := s.publish(10)
	for _, e := range es {
		s.score(e, events.BandLow)
	}
	beyond := s.score(event{seq: 4711, token: "c1"}, events.BandLow)
	unreadable := s.put(events.CommitSubject(kind, events.BandLow, "c1"), []byte("?"))
	r := s.verify(Config{})
	if r.Unknown != 2 || r.Missing+r.Duplicate+r.Disorder != 0 || r.OK() {
		t.Errorf("%s: want 2 unknown", r)
	}
	var at []uint64
	for _, o := range r.Offenders {
		at = append(at, o.Outcome)
	}
	if !slices.Equal(at, []uint64{beyond, unreadable}) {
		t.Errorf("offenders %v: want outcomes %d and %d", r.Offenders, beyond, unreadable)
	}
}

func TestNamesAnOutcomeUnderAnotherEntity(t *testing.T) {
	s := newStage(t)
	es := s.publish(2)
	s.score(es[0], events.BandLow)
	wrong := es[1]
	wrong.token = "somebody"
	at := s.score(wrong, events.BandLow)
	r := s.verify(Config{})
	if o := find(t, r, whatMisnamed); r.Misnamed != 1 || o.Outcome != at || r.OK() {
		t.Errorf("%s, %v: want outcome %d misnamed", r, o, at)
	}
}

// The end is fixed; what is not scored yet is awaited.
func TestWaitsForTheLanesToDrain(t *testing.T) {
	s := newStage(t)
	es := s.publish(12)
	for _, e := range es[:5] {
		s.score(e, events.BandLow)
	}
	if r := s.verify(Config{}); r.Missing != 7 || r.Pending != 7 {
		t.Errorf("%s: want 7 missing, all of them pending", r)
	}
	done := make(chan Report, 1)
	go func() {
		r, err := Run(testkit.Context(t), Config{JS: s.js, Kind: kind, Wait: testkit.Deadline})
		if err != nil {
			t.Errorf("run: %v", err)
		}
		done <- r
	}()
	// With its consumer it has decided how far to read before it waits.
	testkit.Eventually(t, testkit.Deadline, "the checker reads SCORES", func() (bool, string) {
		scores, err := s.js.Stream(testkit.Context(t), events.ScoresStream(kind))
		if err != nil {
			return false, err.Error()
		}
		return scores.CachedInfo().State.Consumers > 0, "no consumer"
	})
	s.publish(3) // later than the end of the check
	for _, e := range es[5:] {
		s.score(e, events.BandLow)
	}
	if r := <-done; !r.OK() || r.Events != 12 || r.Scored != 12 {
		t.Errorf("%s: want 12 of 12 scored", r)
	}
}

func ids(es []event) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, e := range es {
			if !yield(e.id, nil) {
				return
			}
		}
	}
}

func TestComparesRowsOfASource(t *testing.T) {
	s := newStage(t)
	es := s.publish(20)
	twin := es[4]
	twin.seq, twin.token, twin.lane = es[5].seq, es[5].token, es[5].lane // a row that was ingested twice
	es[5] = twin
	for _, e := range es {
		s.score(e, events.BandLow)
	}
	rows := append(slices.Clone(es[:5]), es[6:]...)
	rows = append(rows, event{id: "never"}, event{id: "nor this"})
	r := s.verify(Config{Source: ids(rows)})
	if want := (SourceReport{Rows: 21, Missing: 2, Duplicate: 1}); *r.Source != want || r.OK() {
		t.Errorf("%+v: want %+v", *r.Source, want)
	}
	want := []Offender{
		{What: whatDuplicate, Row: 5, ID: es[4].id, Note: "2 outcomes have this id"},
		{What: whatMissing, Row: 20, ID: "never", Note: "no outcome has this id"},
		{What: whatMissing, Row: 21, ID: "nor this", Note: "no outcome has this id"},
	}
	if !reflect.DeepEqual(r.Offenders, want) {
		t.Errorf("offenders %v\nwant %v", r.Offenders, want)
	}
	if r := s.verify(Config{Source: ids(es[6:])}); !r.OK() || r.Source.Rows != 14 {
		t.Errorf("%s: want 14 good rows; other events are nobody's", r)
	}
}

func TestSourceThatBreaksIsAnError(t *testing.T) {
	_, err := Run(t.Context(), Config{Kind: kind, Source: func(yield func(string, error) bool) { yield("", fmt.Errorf("row 3: torn")) }})
	if err == nil || err.Error() != "read the source: row 3: torn" {
		t.Errorf("error %v", err)
	}
}

// twin is the checker as one would write it without a thought for memory.
type twin struct {
	lanes map[uint64]int // events, by sequence
	done  map[uint64]bool
	seen  map[int]uint64
	Report
}

func (w *twin) outcome(seq uint64) {
	lane, ok := w.lanes[seq]
	switch {
	case !ok:
		w.Unknown++
		return
	case w.done[seq]:
		w.Duplicate++
	case seq < w.seen[lane]:
		w.Disorder++
	default:
		w.seen[lane] = seq
	}
	w.done[seq] = true
}

func TestCheckerAgainstItsTwin(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 200 {
		first := 1 + r.Uint64N(3*chunkLen)
		last := first + r.Uint64N([]uint64{20, 2 * chunkLen}[round%2])
		c := newChecker(kind, first, last, 1000)
		c.scoresBefore = 1 << 60
		w := &twin{lanes: map[uint64]int{}, done: map[uint64]bool{}, seen: map[int]uint64{}}
		var present []uint64
		for seq := first; seq <= last; seq += 1 + r.Uint64N(1+(last-first)/50) {
			lane := r.IntN(5)
			if err := c.event(fmt.Sprintf("events.%s.%d.c%d", kind, lane, lane), seq); err != nil {
				t.Fatal(err)
			}
			w.lanes[seq], present = lane, append(present, seq)
		}
		for i, seq := range present {
			switch r.IntN(12) {
			case 0:
				continue // dropped
			case 1:
				seq = present[r.IntN(len(present))]
			case 2:
				seq = first + r.Uint64N(last-first+1)
			case 3:
				if i > 0 {
					seq = present[i-1]
				}
			}
			band := events.BandLow
			c.outcome(events.ScoreSubject(kind, band, "c"+strconv.Itoa(w.lanes[seq])), uint64(i+1), body(event{seq: seq}, band))
			w.outcome(seq)
		}
		for _, seq := range present {
			if !w.done[seq] {
				w.Missing++
				if seq > w.seen[w.lanes[seq]] {
					w.Pending++
				}
			}
		}
		got := c.finish(func(uint64) string { return "" })
		if got.Missing != w.Missing || got.Pending != w.Pending || got.Duplicate != w.Duplicate || got.Disorder != w.Disorder || got.Unknown != w.Unknown || got.Misnamed != 0 {
			t.Fatalf("seed %d, round %d: %s\nthe twin has missing=%d pending=%d duplicate=%d disorder=%d unknown=%d", seed, round, got, w.Missing, w.Pending, w.Duplicate, w.Disorder, w.Unknown)
		}
	}
}

// Outcomes outlive their events; a second one for the same is a defect all the same.
func TestOutcomesOfEventsThatAgedAway(t *testing.T) {
	c := newChecker(kind, 100, 200, 20)
	c.scoresBefore, c.firstKept = 50, 120
	give := func(at, seq uint64) { c.outcome("scores.payment.low.c1", at, body(event{seq: seq}, events.BandLow)) }
	give(1, 7)
	give(2, 110) // left EVENTS while it was read
	give(3, 7)
	r := c.finish(nil)
	if r.Aged != 3 || r.Duplicate != 1 || r.Unknown != 0 {
		t.Errorf("%s: want 3 aged, one of them a duplicate", r)
	}
}

func TestExpiredRangeIsAnOutcomeOfItsLane(t *testing.T) {
	c := newChecker(kind, 10, 20, 20)
	for seq := uint64(10); seq <= 20; seq++ {
		if err := c.event(fmt.Sprintf("events.payment.%d.c%d", seq%2, seq%2), seq); err != nil {
			t.Fatal(err)
		}
	}
	x := events.Expired{First: 3, Last: 14, Kind: kind, Lane: 0}
	c.outcome("scores.payment.expired.lane-0", 1, x.Append(nil))
	for seq := uint64(11); seq <= 20; seq++ {
		if seq%2 == 1 || seq > 14 {
			c.outcome(fmt.Sprintf("scores.payment.low.c%d", seq%2), seq, body(event{seq: seq}, events.BandLow))
		}
	}
	if r := c.finish(nil); !r.OK() || r.Expired != 1 || r.Scored != 8 {
		t.Errorf("%s, %v", r, r.Offenders)
	}
	c.outcome("scores.payment.low.c0", 30, body(event{seq: 12}, events.BandLow))
	if c.report.Duplicate != 1 {
		t.Errorf("%s: an outcome after the range that holds its event is a duplicate", c.report)
	}
}

func TestParseReply(t *testing.T) {
	for _, x := range []struct {
		reply, consumer string
		seq, cseq       uint64
	}{
		{"$JS.ACK.EVENTS_payment.verify-a.1.17.3.1700000000000000000.5", "verify-a", 17, 3},
		{"$JS.ACK._.hash.EVENTS_payment.verify-a.1.17.3.1700000000000000000.5", "verify-a", 17, 3},
		{"$JS.ACK._.hash.EVENTS_payment.verify-a.1.17.3.1700000000000000000.5.token", "verify-a", 17, 3},
	} {
		consumer, seq, cseq, stored, err := parseReply(x.reply)
		if err != nil || stored != 1_700_000_000_000_000_000 || consumer != x.consumer || seq != x.seq || cseq != x.cseq {
			t.Errorf("%s: %q %d %d %v", x.reply, consumer, seq, cseq, err)
		}
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.a.b.1.2.3", "$JS.ACK.a.b.c.1.2.3.4.5", "$JS.ACK.a.b.1.x.3.4.5", "$JS.ACK.a.b.1.2.3.x.5"} {
		if _, _, _, _, err := parseReply(reply); err == nil {
			t.Errorf("%q: no error", reply)
		}
	}
}

// The reader's consumers are deleted under it, and the node restarts: it reads on without a gap.
func TestReaderOutlivesItsConsumers(t *testing.T) {
	s := newStage(t)
	const n = 15000
	s.publish(n)
	r := newReader(s.js, events.EventsStream(kind), "events."+kind+".>", 1, true)
	defer r.close(t.Context())
	ctx := testkit.Context(t)
	want := uint64(1)
	err := r.upTo(ctx, n, func(m message) error {
		if m.seq != want {
			return fmt.Errorf("sequence %d: want %d", m.seq, want)
		}
		want++
		switch m.seq {
		case 1000, 9000:
			testkit.Eventually(t, testkit.Deadline, "the consumer is gone", func() (bool, string) { // the node may be about to start still
				err := s.js.DeleteConsumer(ctx, events.EventsStream(kind), r.name)
				return err == nil || errors.Is(err, natsjs.ErrConsumerNotFound), fmt.Sprint(err)
			})
		case 5000:
			s.cluster.RestartNode(t, 0)
		}
		return nil
	})
	if err != nil || want != n+1 {
		t.Fatalf("read up to %d of %d: %v", want-1, n, err)
	}
}

func BenchmarkRun(b *testing.B) {
	s := newStage(b)
	const n = 200_000
	var batch []*nats.Msg
	futures := make([]natsjs.PubAckFuture, 0, 2000)
	for _, e := range s.publish(n) {
		m := nats.NewMsg(events.CommitSubject(kind, events.BandLow, e.token))
		m.Data = body(e, events.BandLow)
		batch = append(batch, m)
	}
	for len(batch) > 0 {
		k := min(2000, len(batch))
		futures = futures[:0]
		for _, m := range batch[:k] {
			f, err := s.js.PublishMsgAsync(m)
			if err != nil {
				b.Fatal(err)
			}
			futures = append(futures, f)
		}
		s.settle(futures)
		batch = batch[k:]
	}
	b.ResetTimer()
	for b.Loop() {
		if r := s.verify(Config{}); !r.OK() || r.Events != n {
			b.Fatal(r)
		}
	}
	b.ReportMetric(2*n*float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
