package erase

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// system is a kind with events of two entities, scored but for the last of c1, and their labels.
type system struct {
	*testkit.Cluster
	js jetstream.JetStream
	n  int
}

const canary = "CANARY-4711"

func begin(t *testing.T) *system {
	t.Helper()
	s := &system{Cluster: testkit.Start(t, 1)}
	s.js = s.JetStream(t)
	ctx := testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, s.js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	c := events.DefaultContract()
	c.Kind, c.ID, c.Entity, c.Lanes = "payment", "id", "card", 1
	c.Fields = []events.Field{{Name: "amount", Type: events.Number}, {Name: "note", Type: events.Category}}
	if _, err := topology.ApplyKind(ctx, s.js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		s.publish(t, "c.1")
		s.publish(t, "c2")
	}
	return s
}

func (s *system) publish(t *testing.T, entity string) {
	t.Helper()
	s.n++
	subject, err := events.EventSubject("payment", entity)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("e%d", s.n)
	body := fmt.Appendf(nil, `{"id":%q,"card":%q,"amount":%d,"note":"%s-%s"}`, id, entity, s.n, canary, entity)
	if _, err := s.js.Publish(testkit.Context(t), subject, body); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{entity, id} { // one by the entity, one by the event's id
		subject, err := events.LabelSubject("payment", label)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.js.Publish(testkit.Context(t), subject, fmt.Appendf(nil, `{"id":%q,"label":1,"source":"%s-%s"}`, id, canary, entity)); err != nil {
			t.Fatal(err)
		}
	}
}

// score commits outcomes of all events up to last, as a scorer does: in one batch with the position.
func (s *system) score(t *testing.T, last uint64) {
	t.Helper()
	ctx := testkit.Context(t)
	p, found, err := topology.ReadPosition(ctx, s.js.Conn(), "payment", 0)
	if err != nil || !found {
		t.Fatalf("%t, %v", found, err)
	}
	out, err := s.js.Stream(ctx, events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	fence, err := out.GetLastMsgForSubject(ctx, events.PositionSubject("payment", 0))
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.js.Stream(ctx, events.EventsStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	var batch []*nats.Msg
	for seq := p.Seq + 1; seq <= last; seq++ {
		m, err := in.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.ParseStoredEvent(m.Subject)
		if err != nil {
			t.Fatal(err)
		}
		x := nats.NewMsg(events.CommitSubject("payment", events.BandInvalid, e.Token))
		v := events.Invalid{Kind: "payment", Seq: seq, Entity: events.UnescapeEntity(e.Token), Reason: canary + "-" + events.UnescapeEntity(e.Token)}
		x.Data = v.Append(nil, events.JSON)
		batch = append(batch, x)
	}
	p.Seq = last
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	at := nats.NewMsg(events.PositionSubject("payment", 0))
	at.Data = body
	topology.Fence(at, fence.Sequence)
	to := topology.Committer{Conn: s.js.Conn(), Stream: events.ScoresStream("payment"), Timeout: testkit.Deadline}
	if _, err := to.Commit(ctx, append(batch, at)); err != nil {
		t.Fatal(err)
	}
}

// holds says how often the canary of an entity stands in a stream.
func (s *system) holds(t *testing.T, stream, entity string) (n int) {
	t.Helper()
	in, err := s.js.Stream(testkit.Context(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	info := in.CachedInfo()
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := in.GetMsg(testkit.Context(t), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(m.Data, []byte(canary+"-"+entity)) {
			n++
		}
	}
	return n
}

func (s *system) check(t *testing.T, wantGone bool) {
	t.Helper()
	for _, stream := range []string{"EVENTS_payment", "SCORES_payment", events.LabelsStream} {
		other, own := 5, 0
		if !wantGone {
			own = 5
		}
		if stream == events.LabelsStream {
			other, own = 2*other, 2*own
		}
		if got := s.holds(t, stream, "c2"); got != other {
			t.Errorf("%s holds %d of another entity, want %d", stream, got, other)
		}
		if got := s.holds(t, stream, "c.1"); got != own {
			t.Errorf("%s holds %d of the entity, want %d", stream, got, own)
		}
	}
}

func (s *system) config() Config {
	return Config{JS: s.js, Kind: "payment", Entity: "c.1", By: "ann", Reason: "request 1", Wait: testkit.Deadline}
}

// Nothing goes before it has its outcome; then all of it goes, of nobody else anything, and from the disk too.
func TestErase(t *testing.T) {
	t.Parallel()
	s := begin(t)
	ctx := testkit.Context(t)
	s.score(t, 8) // the last of the entity's, 9, has no outcome
	cfg := s.config()
	cfg.Wait = 300 * time.Millisecond
	if done, err := Run(ctx, cfg); !errors.Is(err, ErrUnscored) || !strings.Contains(err.Error(), "is a scorer running") || len(done) != 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	if got := s.holds(t, "EVENTS_payment", "c.1"); got != 5 {
		t.Fatalf("EVENTS holds %d", got)
	}
	ended := make(chan error, 1)
	var done []Tombstone
	go func() {
		var err error
		done, err = Run(ctx, s.config())
		ended <- err
	}()
	s.score(t, 10)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(done) != 1 || !done[0].Done || done[0].Events.Len() != 5 || done[0].Scores.Len() != 5 || done[0].Labels.Len() != 10 {
		t.Fatalf("%+v", done)
	}
	s.check(t, true)
	kv, err := s.js.KeyValue(ctx, events.ErasuresBucket)
	if err != nil {
		t.Fatal(err)
	}
	stone, err := kv.Get(ctx, "payment."+done[0].ID)
	if err != nil || bytes.Contains(stone.Value(), []byte("c.1")) || bytes.Contains(stone.Value(), []byte(canary)) {
		t.Errorf("%s, %v", stone.Value(), err)
	}
	// Done again there is nothing to do; what comes later is another event.
	if again, err := Run(ctx, s.config()); err != nil || len(again) != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	s.StopNode(t, 0)
	if found := grep(t, s.Dir(0), canary+"-c.1"); len(found) > 0 {
		t.Errorf("on disk: %s", found)
	}
	if found := grep(t, s.Dir(0), canary+"-c2"); len(found) == 0 {
		t.Error("what is kept is not found on disk: the test has lost its sight")
	}
}

func grep(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Killed before each of its removals, one after the other, it goes on where it was; also without being told of whom.
func TestErasureIsResumed(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.score(t, 10)
	ctx := testkit.Context(t)
	killed := errors.New("killed")
	kills := 0
	for {
		cfg := s.config()
		if kills > 0 && kills%2 == 0 {
			cfg.Entity = ""
		}
		steps := 0
		cfg.Step = func(done, all uint64) error {
			if all != 20 {
				t.Errorf("%d of %d", done, all)
			}
			if steps++; int(done) >= kills && kills < 20 {
				return killed
			}
			return nil
		}
		done, err := Run(ctx, cfg)
		if err == nil {
			if len(done) != 1 || !done[0].Done || kills != 20 {
				t.Errorf("after %d kills: %+v", kills, done)
			}
			break
		}
		if !errors.Is(err, killed) {
			t.Fatal(err)
		}
		kills++
	}
	s.check(t, true)
	if left, err := Run(ctx, Config{JS: s.js, Kind: "payment"}); err != nil || len(left) != 0 {
		t.Errorf("%+v, %v", left, err)
	}
}

// Either half of each write is lost: of the tombstone, of a removal, of the word that it is done.
func TestEitherHalfOfAnErasureIsLost(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"$KV." + events.ErasuresBucket + ".>", "$JS.API.STREAM.MSG.DELETE.EVENTS_payment", "$JS.API.STREAM.MSG.DELETE.SCORES_payment", "$JS.API.STREAM.MSG.DELETE." + events.LabelsStream} {
		for _, half := range testkit.Halves {
			t.Run(subject+", "+half.String(), func(t *testing.T) {
				t.Parallel()
				s := begin(t)
				s.score(t, 10)
				courier := s.Courier(t)
				js, err := jetstream.New(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				courier.Lose(subject, half, 1)
				cfg := s.config()
				cfg.JS = js
				done, err := Run(testkit.Context(t), cfg)
				if err != nil || len(done) != 1 || courier.Lost() != 1 {
					t.Fatalf("%+v, %v, %d lost", done, err, courier.Lost())
				}
				s.check(t, true)
			})
		}
	}
}

// A stream that was made anew keeps what it has at the same sequences.
func TestAnotherIncarnationIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := begin(t)
	s.score(t, 10)
	ctx := testkit.Context(t)
	stop := errors.New("stop")
	cfg := s.config()
	cfg.Step = func(uint64, uint64) error { return stop }
	if _, err := Run(ctx, cfg); !errors.Is(err, stop) {
		t.Fatal(err)
	}
	kv, err := s.js.KeyValue(ctx, events.ErasuresBucket)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(ctx)
	if err != nil || len(keys) != 1 {
		t.Fatalf("%v, %v", keys, err)
	}
	entry, err := kv.Get(ctx, keys[0])
	if err != nil {
		t.Fatal(err)
	}
	stone, err := Decode(entry.Value())
	if err != nil {
		t.Fatal(err)
	}
	stone.Incarnation = stone.Incarnation.Add(-time.Hour)
	stone.ScoresMade, stone.Labels = stone.ScoresMade.Add(-time.Hour), Ranges{}
	body, err := encode(&stone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, keys[0], body); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, testkit.Deadline)
	defer cancel()
	if done, err := Run(short, Config{JS: s.js, Kind: "payment"}); err != nil || len(done) != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	s.check(t, false)
}

func FuzzTombstone(f *testing.F) {
	body, err := encode(&Tombstone{ID: "a", Kind: "payment", At: time.Unix(1, 0).UTC(), Events: Ranges{{1, 3}, {7, 7}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"id":"a","kind":"b","events":[[1,18446744073709551615]]}`))
	f.Add([]byte(`{"id":"a","kind":"b","events":[[18446744073709551614,18446744073709551615]]}`))
	f.Add([]byte(`{"id":"a","kind":"b","events":[[5,3]]}`))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		x, err := Decode(body)
		if err != nil {
			return
		}
		for _, r := range []Ranges{x.Events, x.Scores, x.Labels, x.Rescores} {
			if r.Len() > maxErased {
				t.Fatalf("%s: %d sequences", body, r.Len())
			}
			if r.Len() > 1<<16 {
				continue
			}
			last := uint64(0)
			for seq := range r.all {
				if seq <= last {
					t.Fatalf("%s: %d behind %d", body, seq, last)
				}
				last = seq
			}
		}
		again, err := encode(&x)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("%s was written as %s: %v", body, again, err)
		}
	})
}
