package recall

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// A snapshot of which a part, its description or their answers are lost is not written, or is written and not known to be. Written again it
// is the same; and what is read is whole, or is not there.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	text, err := os.ReadFile("../../testdata/kinds/otc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contract, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	cluster := testkit.Start(t, 1)
	if _, err := topology.ApplyShared(testkit.Context(t), cluster.JetStream(t), topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	f := Folder{Store: memory.New(plan)}
	out := make([]float64, plan.Width())
	for i := range 3000 { // more than one part of a snapshot
		body := fmt.Appendf(nil, `{"row":"%d","rater":"%d","ratee":"%d","rating":1,"at":%q}`, i, i, i+1, time.Unix(int64(i), 0).UTC().Format(time.RFC3339))
		if _, err := f.Step(uint64(i)+1, fmt.Sprintf("events.otc.0.%d", i), "", body, time.Unix(int64(i), 0), out); err != nil {
			t.Fatal(err)
		}
	}
	frozen := func() *memory.Frozen { // encoding takes it up
		f.Store.Thaw()
		return f.Store.Freeze()
	}
	for i, subject := range []string{"$O." + events.MemoryBucket + ".C.>", "$O." + events.MemoryBucket + ".M.>"} {
		for j, half := range testkit.Halves {
			t.Run(subject+", "+half.String(), func(t *testing.T) {
				courier := cluster.Courier(t)
				js, err := jetstream.New(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				lib := newLibrary(js, plan)
				at := memory.Place{Incarnation: int64(1 + 2*i + j), Origin: 1, Seq: 3000, Stored: 1}
				var want bytes.Buffer
				if err := frozen().Encode(&want, at); err != nil {
					t.Fatal(err)
				}
				read := func() []byte {
					s, place, err := lib.load(testkit.Context(t), at.Incarnation, func(uint64) bool { return true }, false, func(err error) { t.Log(err) })
					if err != nil {
						t.Fatal(err)
					}
					if s == nil {
						return nil
					}
					var got bytes.Buffer
					if err := s.Freeze().Encode(&got, place); err != nil {
						t.Fatal(err)
					}
					return got.Bytes()
				}
				courier.Lose(subject, half, 1)
				brief, cancel := context.WithTimeout(testkit.Context(t), 2*time.Second)
				defer cancel()
				if err := lib.save(brief, frozen(), at); err == nil {
					t.Error("a part was lost, and the snapshot is said to be written")
				}
				if got := read(); got != nil && !bytes.Equal(got, want.Bytes()) {
					t.Errorf("a snapshot of %d bytes, want %d or none", len(got), want.Len())
				}
				if err := lib.save(testkit.Context(t), frozen(), at); err != nil {
					t.Errorf("again: %v", err)
				}
				if got := read(); !bytes.Equal(got, want.Bytes()) {
					t.Errorf("written again, a snapshot of %d bytes, want %d", len(got), want.Len())
				}
				if courier.Lost() != 1 {
					t.Errorf("lost %d", courier.Lost())
				}
			})
		}
	}
}

// A snapshot may take longer to read than a request of the JetStream API may take; one whose parts are gone is found out all the same.
func TestSnapshotTakesItsTime(t *testing.T) {
	text, err := os.ReadFile("../../testdata/kinds/otc.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contract, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	cluster := testkit.Start(t, 1)
	if _, err := topology.ApplyShared(testkit.Context(t), cluster.JetStream(t), topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	f := Folder{Store: memory.New(plan)}
	out := make([]float64, plan.Width())
	for i := range 10_000 {
		body := fmt.Appendf(nil, `{"row":"%d","rater":"%d","ratee":"%d","rating":1,"at":%q}`, i, i, i+1, time.Unix(int64(i), 0).UTC().Format(time.RFC3339))
		if _, err := f.Step(uint64(i+1), fmt.Sprintf("events.otc.0.%d", i), "", body, time.Unix(int64(i), 0), out); err != nil {
			t.Fatal(err)
		}
	}
	const timeout = 150 * time.Millisecond
	js, err := jetstream.New(cluster.Connect(t), jetstream.WithDefaultTimeout(timeout))
	if err != nil {
		t.Fatal(err)
	}
	lib := newLibrary(js, plan)
	at := memory.Place{Incarnation: 1, Origin: 1, Seq: 10_000, Stored: 1}
	if err := lib.save(testkit.Context(t), f.Store.Freeze(), at); err != nil {
		t.Fatal(err)
	}
	store, err := lib.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	object, err := lib.get(t.Context(), store, lib.name(at))
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	time.AfterFunc(2*timeout, func() { close(waited) }) // a reader that is slow
	<-waited
	if s, _, err := memory.Decode(plan, object); err != nil || s.Keys() != f.Store.Keys() {
		t.Errorf("a slow reader: %v", err)
	}
	if err := object.Close(); err != nil {
		t.Error(err)
	}
	info, err := store.GetInfo(t.Context(), lib.name(at))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "OBJ_"+events.MemoryBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$O."+events.MemoryBucket+".C."+info.NUID), jetstream.WithPurgeKeep(1)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // of its parts one is left, then none
		began := time.Now()
		if _, err := lib.get(t.Context(), store, lib.name(at)); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("parts are gone: %v, after %s", err, time.Since(began))
		}
		if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject("$O."+events.MemoryBucket+".C."+info.NUID)); err != nil {
			t.Fatal(err)
		}
	}
}
