package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/scorer"
	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/internal/verify"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The trainer tells the log what became known while three scorers score, one of which is cut off and one leaves. Every score has the bits
// that folding EVENTS from its first message gives, every snapshot those of that state, and what was told is what LABELS say.
func TestMemoryOfLabelsLive(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	contract, err := readContract("../../testdata/kinds/payment_memory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contract.Lanes = 3
	file, _ := simulated(t, contract, 1, 20_000, 12_000)
	fit, err := trainer.Offline(t.Context(), trainer.OfflineConfig{Path: file, Contract: &contract, Split: trainer.SplitTime80, Known: trainer.FileLabels{Column: knownAt}})
	if err != nil {
		t.Fatal(err)
	}

	cluster := testkit.Start(t, 1)
	js, ctx := cluster.JetStream(t), testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, contract, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	registry := model.NewRegistry(kv)
	artifact := fit.Fit.Artifact(contract.Kind, "test", time.Now(), 0, model.ContractRef{Version: contract.Version, Revision: 1}, model.Training{Rows: 9600, Positives: 100, DataHash: "00"})
	version, err := registry.Publish(ctx, artifact)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := registry.Promote(ctx, contract.Kind, version, "test", "because"); err != nil {
		t.Fatal(err)
	}

	var running sync.WaitGroup
	defer running.Wait()
	run := func(f func(context.Context, *nats.Conn) error) (kill, leave func()) {
		conn := cluster.Connect(t)
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		running.Go(func() { _ = f(ctx, conn) }) // of one that is cut off it is an error
		return func() { conn.Close(); cancel() }, cancel
	}
	var leaves []func()
	defer func() {
		for _, leave := range leaves {
			leave()
		}
	}()
	_, leave := run(func(ctx context.Context, conn *nats.Conn) error {
		tr, err := trainer.New(trainer.Config{Conn: conn, Instance: "t", MinLabels: 100_000})
		if err != nil {
			return err
		}
		return tr.Run(ctx)
	})
	leaves = append(leaves, leave)
	n := 0
	start := func() (kill, leave func()) {
		n++
		name := fmt.Sprintf("s%d", n)
		kill, leave = run(func(ctx context.Context, conn *nats.Conn) error {
			s, err := scorer.New(scorer.Config{Conn: conn, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Instance: name, Name: name, Snapshot: 100 * time.Millisecond})
			if err != nil {
				return err
			}
			return s.Run(ctx)
		})
		leaves = append(leaves, leave)
		return kill, leave
	}
	kill, _ := start()
	_, depart := start()
	start()

	const total, chunk, behind = 6000, 250, 100 // a label comes so many payments later
	g, at := sim.New(sim.Config{Seed: 1, Start: time.Now()}), time.Now().Add(-time.Hour)
	var past []sim.Event
	told := uint64(0)
	stream, err := js.Stream(ctx, events.EventsStream(contract.Kind))
	if err != nil {
		t.Fatal(err)
	}
	for i := range total {
		at = at.Add(500 * time.Millisecond)
		e := g.Next(at)
		if _, err := js.PublishAsync("events.payment."+e.Entity, e.Body); err != nil {
			t.Fatal(err)
		}
		past = append(past, e)
		if i >= behind {
			if l := past[i-behind]; l.Fraud || r.IntN(10) == 0 {
				y := 0
				if l.Fraud {
					y = 1
				}
				if r.IntN(9) == 0 {
					y = 1 - y // a mistake, that some time nobody corrects
				}
				if _, err := js.PublishAsync("labels.payment."+l.Entity, (&events.Label{ID: l.ID, Label: &y}).Append(nil, events.JSON)); err != nil {
					t.Fatal(err)
				}
			}
			if l := past[r.IntN(i)]; r.IntN(50) == 0 { // a correction, or something new
				y := r.IntN(2)
				if _, err := js.PublishAsync("labels.payment."+l.Entity, (&events.Label{ID: l.ID, Label: &y}).Append(nil, events.JSON)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if i%chunk != chunk-1 {
			continue
		}
		select {
		case <-js.PublishAsyncComplete():
		case <-time.After(testkit.Deadline):
			t.Fatal("events are not acknowledged")
		}
		switch i / chunk {
		case total / chunk / 3:
			kill()
			start()
		case total / chunk * 2 / 3:
			depart()
			start()
		}
		if i < behind+chunk {
			continue
		}
		testkit.Eventually(t, testkit.Deadline, "the log is told more", func() (bool, string) {
			m, err := stream.GetLastMsgForSubject(ctx, events.KnownSubject(contract.Kind))
			if err != nil || m.Sequence <= told {
				return false, fmt.Sprint(err)
			}
			told = m.Sequence
			return true, ""
		})
	}

	report, err := verify.Run(ctx, verify.Config{JS: js, Kind: contract.Kind, Wait: testkit.Deadline})
	if err != nil || !report.OK() || report.Scored != total || report.Told < 300 {
		t.Fatalf("%s %v, %v", report, report.Offenders, err)
	}
	scores := map[uint64]events.Score{}
	readAll(t, js, events.ScoresStream(contract.Kind), "scores.>", func(m natsjs.Msg, _ *natsjs.MsgMetadata) {
		s, err := events.DecodeScore(m.Data())
		if err != nil {
			t.Fatal(err)
		}
		scores[s.Seq] = s
	})
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	predictor, err := model.Compile(artifact, schema)
	if err != nil {
		t.Fatal(err)
	}
	books := snapshots(t, js)
	folder := recall.Folder{Store: memory.New(plan)}
	out, counted, checked := make([]float64, plan.Width()), 0, 0
	var rec events.Record
	var scratch model.Scratch
	readAll(t, js, events.EventsStream(contract.Kind), "", func(m natsjs.Msg, at *natsjs.MsgMetadata) {
		seq := at.Sequence.Stream
		_, err := folder.Step(seq, m.Subject(), "", m.Data(), at.Timestamp, out)
		if !events.IsKnown(m.Subject()) {
			if err != nil || schema.Decode(events.JSON, m.Data(), &rec) != nil {
				t.Fatalf("event %d: %v", seq, err)
			}
			rec.SetMemory(out)
			got, want := scores[seq], predictor.Score(&rec, &scratch)
			if math.Float64bits(got.P) != math.Float64bits(want.P) || got.Mode != events.ModeModel {
				t.Fatalf("event %d: %v, folded from the first message %v", seq, got, want.P)
			}
			for i, f := range contract.Memory.Features {
				if f.Take.OfLabels() && out[i] > 0 {
					counted++
					break
				}
			}
		}
		if book, ok := books[seq]; ok {
			var want bytes.Buffer
			_, place, err := memory.Decode(plan, bytes.NewReader(book))
			if err != nil {
				t.Fatal(err)
			}
			if err := folder.Store.Freeze().Encode(&want, place); err != nil || !bytes.Equal(book, want.Bytes()) {
				t.Errorf("the snapshot at %d is not what folding gives: %v", seq, err)
			}
			folder.Store.Thaw()
			checked++
		}
	})
	if counted < 100 || checked == 0 {
		t.Errorf("%d events counted a label, %d snapshots", counted, checked)
	}
	t.Logf("%s; %d events counted a label; %d snapshots", report, counted, checked)
}

// snapshots of memory that there are, by the message that they end with.
func snapshots(t *testing.T, js natsjs.JetStream) map[uint64][]byte {
	t.Helper()
	store, err := js.ObjectStore(testkit.Context(t), events.MemoryBucket)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := store.List(testkit.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	books := map[uint64][]byte{}
	for _, o := range objects {
		b, err := store.GetBytes(testkit.Context(t), o.Name)
		if err != nil {
			t.Fatal(err)
		}
		var seq uint64
		if _, err := fmt.Sscanf(o.Description, "memory of payment after event %d", &seq); err != nil {
			t.Fatal(err)
		}
		books[seq] = b
	}
	return books
}

func readAll(t *testing.T, js natsjs.JetStream, stream, filter string, f func(natsjs.Msg, *natsjs.MsgMetadata)) {
	t.Helper()
	cfg := natsjs.OrderedConsumerConfig{}
	if filter != "" {
		cfg.FilterSubjects = []string{filter}
	}
	consumer, err := js.OrderedConsumer(testkit.Context(t), stream, cfg)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(natsjs.NextMaxWait(testkit.Deadline))
		if err != nil {
			t.Fatal(err)
		}
		at, err := m.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		f(m, at)
		if at.NumPending == 0 {
			return
		}
	}
}
