package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/impact"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const switchedKind = "switched"

// switchTrial is how much is tried, and what is wanted of it.
type switchTrial struct {
	switches int           // by the command, each a process of its own
	within   int           // more, by the test's own process
	rate     float64       // events a second
	window   time.Duration // in each of which there is one switch, or none
	nodes    int
	goals    bool // are checked, not only told
}

func fullTrial(t *testing.T) switchTrial {
	t.Helper()
	trial := switchTrial{switches: 8, within: 2, rate: 400 / slow, window: 400 * time.Millisecond, nodes: 1}
	if text := os.Getenv("RISKWEIR_SWITCHES"); text != "" {
		n := atoi(t, text)
		trial = switchTrial{switches: n, within: n / 10, rate: 5000, window: 700 * time.Millisecond, nodes: 3, goals: true}
		if text := os.Getenv("RISKWEIR_SWITCH_RATE"); text != "" {
			trial.rate = float64(atoi(t, text))
		}
	}
	return trial
}

// Versions take turns under load by 'model promote' and 'model rollback', typed as an operator types them: no event is missing or doubled, no lane's
// revision goes back, and 'model impact' says what is in SCORES. It tells how long lanes pause with a switch and without, and how long after a
// rollback was typed its bad version still scored.
//
//	RISKWEIR_SWITCHES=200 go test -run SwitchesUnderLoad -v -timeout 60m ./cmd/riskweir
//
// RISKWEIR_SWITCH_RATE is of events a second, 5000 by default.
func TestSwitchesUnderLoad(t *testing.T) {
	t.Parallel()
	trial := fullTrial(t)
	seed := rand.Uint64()
	t.Logf("seed %d, %+v", seed, trial)
	r := rand.New(rand.NewPCG(seed, 6))
	s := up(t, upConfig{nodes: trial.nodes, source: "none", dir: t.TempDir()})
	contract, err := events.ParseContract([]byte("kind: " + switchedKind + "\nid: id\nentity: card\nlanes: 8\nfields:\n- {name: amount, type: number, required: true}\n- {name: country, type: category}\n"))
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if _, err := topology.ApplyKind(ctx, s.js, contract, topology.Options{Replicas: trial.nodes}); err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := model.ReadSigner(s.layout.signingKey())
	if err != nil {
		t.Fatal(err)
	}
	kv, err := s.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv).Keyed(signer, nil)
	for _, intercept := range []float64{-1, -0.99} { // so near that no gate takes one out by itself
		a := cardModel("amount", intercept)
		a.Kind = switchedKind
		if _, err := registry.Publish(ctx, a); err != nil {
			t.Fatal(err)
		}
	}

	// The first promotion is no part of what is measured.
	do := func(verb string, inProcess bool) (typed time.Time, done switched) {
		t.Helper()
		typed = time.Now()
		if inProcess {
			return typed, switchWithin(t, s.js, registry, schema, verb, typed)
		}
		args := []string{"model", verb, switchedKind, "--reason", "measured", "--json", "--context", s.context}
		if verb == "promote" {
			args = slices.Insert(args, 3, "v2")
		}
		out, errOut, code := riskweir(t, args...)
		if err := json.Unmarshal([]byte(out), &done); err != nil || code != 0 || !done.Changed || len(done.Behind) > 0 {
			t.Fatalf("%v: exit status %d, %v\n%s%s", args, code, err, out, errOut)
		}
		return typed, done
	}
	if out, errOut, code := riskweir(t, "model", "promote", switchedKind, "v1", "--reason", "the first", "--context", s.context); code != 0 {
		t.Fatalf("exit status %d\n%s%s", code, out, errOut)
	}

	load := startSwitchLoad(t, s, trial.rate)
	log := &switchLog{}
	kinds := append(slices.Repeat([]windowKind{switchedByCommand}, trial.switches), slices.Repeat([]windowKind{switchedWithin}, trial.within)...)
	r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	load.await(t)
	verbs := []string{"promote", "rollback"}
	for i, kind := range kinds {
		pair := []windowKind{kind, quiet}
		if r.IntN(2) == 0 {
			slices.Reverse(pair)
		}
		for _, k := range pair {
			select {
			case <-load.ended:
				t.Fatalf("the load has ended: %v", load.err)
			default:
			}
			w := window{kind: k, pair: i, from: time.Now()}
			end := time.NewTimer(trial.window) // a window is a length of time, whatever happens in it
			if k != quiet {
				w.verb = verbs[0]
				slices.Reverse(verbs)
				w.typed, w.done = do(w.verb, k == switchedWithin)
			}
			<-end.C
			w.to = time.Now()
			log.windows = append(log.windows, w)
		}
	}
	sent := load.stop(t)

	reading := long + time.Duration(sent)*time.Millisecond // millions of events take minutes to be read
	out, errOut, code := riskweirWithin(t, reading, "verify", switchedKind, "--wait", "2m", "--json", "--context", s.context)
	var verified struct{ Events, Scored, Missing, Duplicate, Disorder uint64 }
	if err := json.Unmarshal([]byte(out), &verified); err != nil || code != 0 || verified.Events != uint64(sent) || verified.Scored != uint64(sent) || verified.Missing+verified.Duplicate+verified.Disorder != 0 {
		t.Errorf("%d events were acknowledged; verify: exit status %d, %v, %+v %s", sent, code, err, verified, errOut)
	}
	log.read(t, s.js)
	for v, n := range log.made {
		out, errOut, code := riskweirWithin(t, reading, "model", "impact", switchedKind, "v"+strconv.Itoa(v), "--json", "--context", s.context)
		var report impact.Report
		if err := json.Unmarshal([]byte(out), &report); err != nil || code != 0 || report.Outcomes != n || !report.Last.Equal(log.lastOf[v]) {
			t.Errorf("impact of v%d: exit status %d, %v, %d outcomes until %s %s; SCORES has %d until %s", v, code, err, report.Outcomes, report.Last, errOut, n, log.lastOf[v])
		}
	}
	if len(log.made) != 2 {
		t.Errorf("outcomes by version: %v", log.made)
	}
	t.Logf("%d events in %s, %.0f a second; v1 made %d outcomes, v2 %d", sent, load.took.Round(time.Millisecond), float64(sent)/load.took.Seconds(), log.made[1], log.made[2])
	log.tell(t, trial)
}

// switchWithin does what the command does, without its start.
func switchWithin(t *testing.T, js natsjs.JetStream, registry *model.Registry, schema *events.Schema, verb string, typed time.Time) switched {
	t.Helper()
	ctx := testkit.Context(t)
	by := model.Switch{Schema: schema, By: "test", Reason: "measured"}
	var done model.Switched
	var err error
	if verb == "promote" {
		done, err = registry.PromoteFit(ctx, by, 2)
	} else {
		done, err = registry.Rollback(ctx, by, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	stored := time.Since(typed)
	left := model.AwaitLanes(ctx, events.LaneNumbers(schema.Contract.Lanes), done.Revision, func(ctx context.Context, lane int) (events.Position, bool, error) {
		return topology.ReadPosition(ctx, js.Conn(), switchedKind, lane)
	})
	if len(left) > 0 || !done.Changed {
		t.Fatalf("%s: %+v, lanes behind: %+v", verb, done, left)
	}
	return switched{Model: model.Name(switchedKind, done.Now.Champion), Revision: done.Revision, StoredMS: inMS(stored), LanesMS: inMS(time.Since(typed))}
}

// switchLoad publishes events at a rate until it is stopped.
type switchLoad struct {
	cancel context.CancelFunc
	ended  chan struct{}
	began  time.Time
	took   time.Duration
	first  chan struct{} // closed after a second's events
	sent   int64
	good   time.Time // when the last one was sent
	err    error
}

func startSwitchLoad(t *testing.T, s *system, rate float64) *switchLoad {
	t.Helper()
	as := s.layout.connection(topology.RolePublisher)
	as.Name = "load"
	conn, err := as.Connect(t.Context(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	js, err := natsjs.New(conn, natsjs.WithPublishAsyncMaxPending(2*maxWaiting))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l := &switchLoad{cancel: cancel, ended: make(chan struct{}), first: make(chan struct{}), began: time.Now(), good: time.Now()}
	t.Cleanup(func() {
		cancel()
		<-l.ended
		conn.Close()
	})
	go func() {
		defer close(l.ended)
		l.err = l.run(ctx, js, rate)
	}()
	return l
}

// maxWaiting events are without an acknowledgement at most: then no more are sent until half of them have theirs.
const maxWaiting = 16_000

// run sends what is due every two milliseconds. Of what is late by more than a second nothing is made up for.
func (l *switchLoad) run(ctx context.Context, js natsjs.JetStream, rate float64) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	due, begun := 0.0, false
	last := time.Now()
	var waiting []natsjs.PubAckFuture
	settle := func(f natsjs.PubAckFuture) error {
		select {
		case <-f.Ok():
			return nil
		case <-f.Err(): // sent again under its id, it is not stored twice
			again, cancel := context.WithTimeout(context.WithoutCancel(ctx), long)
			defer cancel()
			_, err := js.PublishMsg(again, f.Msg(), natsjs.WithRetryAttempts(100))
			return err
		case <-time.After(long):
			return fmt.Errorf("no acknowledgement in %s", long)
		}
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case now := <-tick.C:
			due = min(due+now.Sub(last).Seconds()*rate, rate)
			last = now
			for ; due >= 1; due-- {
				card := l.sent % 4999
				subject, err := events.EventSubject(switchedKind, "c"+strconv.FormatInt(card, 10))
				if err != nil {
					return err
				}
				f, err := js.PublishAsync(subject, fmt.Appendf(nil, `{"id":"e%d","amount":%d.5,"country":"DE"}`, l.sent, l.sent%97), natsjs.WithMsgID("e"+strconv.FormatInt(l.sent, 10)))
				if err != nil { // the connection is away, or takes no more: at the next tick
					if now.Sub(l.good) > long {
						return err
					}
					break
				}
				l.good = now
				l.sent++
				if waiting = append(waiting, f); len(waiting) == maxWaiting { // the oldest half is not waited for in vain: it bounds what is on its way
					for _, f := range waiting[:maxWaiting/2] {
						if err := settle(f); err != nil {
							return err
						}
					}
					waiting = append(waiting[:0], waiting[maxWaiting/2:]...)
				}
			}
			if !begun && float64(l.sent) >= rate {
				begun = true
				close(l.first)
			}
		}
	}
	l.took = time.Since(l.began)
	for _, f := range waiting {
		if err := settle(f); err != nil {
			return err
		}
	}
	return nil
}

// window is a stretch of time with a switch, or without.
type window struct {
	kind     windowKind
	pair     int
	from, to time.Time
	verb     string
	typed    time.Time
	done     switched
	pause    time.Duration // the longest of any lane that ended in it
}

type windowKind int

const (
	quiet windowKind = iota
	switchedByCommand
	switchedWithin
)

// switchLog is what was done, and what the streams say became of it.
type switchLog struct {
	windows []window
	made    map[int]uint64       // outcomes by version
	lastOf  map[int]time.Time    // by version
	until   map[uint64]time.Time // by revision: when its last score was stored
}

// read goes through EVENTS and SCORES once. A pause of a lane ends when an outcome is stored, and began with the later of the one before and the storing of
// the outcome's event.
func (l *switchLog) read(t *testing.T, js natsjs.JetStream) {
	t.Helper()
	type at struct {
		stored int64
		lane   uint8
	}
	var stored []at // by sequence
	each(t, js, events.EventsStream(switchedKind), "events."+switchedKind+".>", true, func(seq uint64, m natsjs.Msg, when time.Time) {
		e, err := events.ParseStoredEvent(m.Subject())
		if err != nil {
			t.Fatal(err)
		}
		for uint64(len(stored)) <= seq {
			stored = append(stored, at{})
		}
		stored[seq] = at{when.UnixNano(), uint8(e.Lane)}
	})
	l.made, l.lastOf, l.until = map[int]uint64{}, map[int]time.Time{}, map[uint64]time.Time{}
	last, revision := map[uint8]int64{}, map[uint8]uint64{}
	next := 0
	each(t, js, events.ScoresStream(switchedKind), "scores."+switchedKind+".>", false, func(seq uint64, m natsjs.Msg, when time.Time) {
		score, err := events.DecodeScore(m.Data())
		if err != nil {
			t.Fatal(err)
		}
		_, version, err := model.ParseName(score.Model)
		if err != nil {
			t.Fatalf("%+v: %v", score, err)
		}
		e := stored[score.Seq]
		if score.Revision < revision[e.lane] {
			t.Errorf("lane %d: event %d was scored at revision %d, and one before at %d", e.lane, score.Seq, score.Revision, revision[e.lane])
		}
		revision[e.lane] = score.Revision
		l.made[version]++
		l.lastOf[version], l.until[score.Revision] = when, when
		pause := time.Duration(when.UnixNano() - max(e.stored, last[e.lane]))
		last[e.lane] = when.UnixNano()
		for next < len(l.windows) && when.After(l.windows[next].to) {
			next++
		}
		if next < len(l.windows) && when.After(l.windows[next].from) {
			l.windows[next].pause = max(l.windows[next].pause, pause)
		}
	})
}

func each(t *testing.T, js natsjs.JetStream, stream, filter string, headers bool, f func(seq uint64, m natsjs.Msg, stored time.Time)) {
	t.Helper()
	c, err := js.OrderedConsumer(t.Context(), stream, natsjs.OrderedConsumerConfig{FilterSubjects: []string{filter}, HeadersOnly: headers})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Messages(natsjs.PullMaxMessages(2000))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Stop()
	for range info.NumPending {
		m, err := in.Next(natsjs.NextMaxWait(long))
		if err != nil {
			t.Fatal(err)
		}
		at, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		f(at.Sequence.Stream, m, at.Timestamp)
	}
}

// await lets the first second pass.
func (l *switchLoad) await(t *testing.T) {
	t.Helper()
	select {
	case <-l.first:
	case <-l.ended:
		t.Fatalf("the load has ended: %v", l.err)
	case <-time.After(long):
		t.Fatalf("%d events are sent in %s", l.sent, long)
	}
}

// stop returns how many events were acknowledged, which are all.
func (l *switchLoad) stop(t *testing.T) int64 {
	t.Helper()
	l.cancel()
	<-l.ended
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.sent
}

// tell prints how long lanes paused, and how soon the version before was gone, and holds them against what is wanted.
func (l *switchLog) tell(t *testing.T, trial switchTrial) {
	t.Helper()
	pauses, grown := map[windowKind][]time.Duration{}, map[windowKind][]time.Duration{}
	calm := map[int]time.Duration{}
	for _, w := range l.windows {
		if w.kind == quiet {
			calm[w.pair] = w.pause
		}
	}
	type took struct{ stored, lanes, gone []time.Duration }
	switches := map[string]*took{}
	before := uint64(0) // the revision that a switch takes the place of
	for _, w := range l.windows {
		if w.pause == 0 {
			t.Errorf("window %d of kind %d: nothing was scored", w.pair, w.kind)
		}
		pauses[w.kind] = append(pauses[w.kind], w.pause)
		if w.kind == quiet {
			continue
		}
		grown[w.kind] = append(grown[w.kind], w.pause-calm[w.pair])
		name := w.verb + []string{"", " by the command", " in the process"}[w.kind]
		if switches[name] == nil {
			switches[name] = &took{}
		}
		x := switches[name]
		x.stored, x.lanes = append(x.stored, ms(w.done.StoredMS)), append(x.lanes, ms(w.done.LanesMS))
		if before != 0 {
			if _, ok := l.until[before]; !ok {
				t.Errorf("nothing was scored at revision %d", before)
			}
			x.gone = append(x.gone, max(0, l.until[before].Sub(w.typed)))
		}
		before = w.done.Revision
	}
	line := func(what string, d []time.Duration) {
		t.Logf("%-44s n %4d   p50 %-9s p90 %-9s p99 %-9s most %s", what, len(d), rank(d, 0.5), rank(d, 0.9), rank(d, 0.99), rank(d, 1))
	}
	line("longest pause of a lane, no switch", pauses[quiet])
	line("longest pause of a lane, by the command", pauses[switchedByCommand])
	line("longest pause of a lane, in the process", pauses[switchedWithin])
	line("with a switch less without, by the command", grown[switchedByCommand])
	line("with a switch less without, in the process", grown[switchedWithin])
	for _, name := range slices.Sorted(maps.Keys(switches)) {
		line(name+": typed to stored", switches[name].stored)
		line(name+": typed to all lanes", switches[name].lanes)
		line(name+": typed to the last of the other", switches[name].gone)
	}
	if !trial.goals {
		return
	}
	if growth := rank(pauses[switchedByCommand], 0.99) - rank(pauses[quiet], 0.99); growth > 50*time.Millisecond {
		t.Errorf("the longest pause grows by %s at p99: want 50ms", growth)
	}
	if gone := rank(switches["rollback by the command"].gone, 0.99); gone > 200*time.Millisecond {
		t.Errorf("from rollback typed to the last event scored by the bad version %s at p99: want 200ms", gone)
	}
}

// rank is the q-th quantile, to a tenth of a millisecond.
func rank(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, int(q*float64(len(s))))].Round(100 * time.Microsecond)
}
