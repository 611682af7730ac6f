package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The server copies each change of a rollout record to ROLLOUTS, once and in order, and nothing else of MODELS: in all more than the bucket's
// history holds, while the leaders of both streams are killed. No more than that history holds is ever waiting to be copied: what the bucket
// has let go cannot be.
func TestRolloutsHasEveryChange(t *testing.T) {
	cluster := testkit.Start(t, 3)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	if again, err := topology.PlanShared(ctx, js, topology.Options{Replicas: 3}); err != nil || len(again) != 0 {
		t.Fatalf("applied, and yet to be changed: %v, %v", again, err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, value string) (rev uint64) {
		t.Helper()
		testkit.Eventually(t, 2*testkit.Deadline, "a revision of "+key, func() (bool, string) {
			one, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			var err error
			rev, err = kv.Put(one, key, []byte(value))
			return err == nil, fmt.Sprint(err)
		})
		return rev
	}
	const (
		changes = 150
		history = 64 // of a key in MODELS
	)
	last := uint64(0)
	// copied waits until ROLLOUTS holds the last change.
	copied := func() {
		t.Helper()
		testkit.Eventually(t, 2*testkit.Deadline, "the last change is there", func() (bool, string) {
			one, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			stream, err := js.Stream(one, events.RolloutsStream)
			if err != nil {
				return false, err.Error()
			}
			m, err := stream.GetLastMsgForSubject(one, events.RolloutSubject("payment"))
			if err != nil {
				return false, err.Error()
			}
			revision, err := topology.CopiedFrom(m.Header)
			return err == nil && revision == last, fmt.Sprintf("%d of %d, %v", revision, last, err)
		})
	}
	for i := range changes {
		if i > 0 && i%(history/2) == 0 { // a put whose answer was lost is made again: twice as many revisions at the worst
			copied()
		}
		for stream, at := range map[string]int{"KV_" + events.ModelsBucket: 50, events.RolloutsStream: 100} {
			if i != at {
				continue
			}
			leader := -1
			testkit.Eventually(t, testkit.Deadline, stream+" has a leader", func() (bool, string) {
				leader = cluster.StreamLeader(stream)
				return leader >= 0, "none"
			})
			cluster.KillNode(t, leader)
			defer cluster.RestartNode(t, leader)
			if at == 50 { // of three nodes two must be there
				cluster.RestartNode(t, leader)
			}
		}
		last = put("payment.rollout", fmt.Sprintf("p%d", i))
		if i%3 == 0 {
			put("claim.rollout", fmt.Sprintf("c%d", i))
			put("payment.v000001", "an artifact")
		}
	}
	// A put whose answer was lost was made again: each revision that there was is there, once.
	seen, previous := map[uint64]bool{}, uint64(0)
	read := 0
	copied()
	stream, err := js.Stream(ctx, events.RolloutsStream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(ctx, natsjs.WithSubjectFilter(">"))
	if err != nil {
		t.Fatal(err)
	}
	if len(info.State.Subjects) != 2 {
		t.Errorf("it holds %v, want the rollouts of two kinds", info.State.Subjects)
	}
	values := map[string]bool{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, natsjs.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		revision, err := topology.CopiedFrom(m.Header)
		if err != nil || seen[revision] || revision <= previous {
			t.Fatalf("message %d is of revision %d after %d, %v", seq, revision, previous, err)
		}
		seen[revision], previous = true, revision
		values[string(m.Data)] = true
		read++
	}
	for i := range changes {
		if !values[fmt.Sprintf("p%d", i)] {
			t.Errorf("change %d is missing", i)
		}
	}
	t.Logf("%d changes, %d copies", changes, read)
}
