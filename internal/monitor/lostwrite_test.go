package monitor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The publishing of an alert, or its acknowledgement, is lost: it is told at the next look, once, and before those that came after.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	for _, half := range testkit.Halves {
		t.Run(half.String(), func(t *testing.T) {
			s := newSite(t)
			courier := s.cluster.Courier(t)
			seed := filepath.Join(t.TempDir(), "seed")
			if err := os.WriteFile(seed, []byte(s.cluster.Seed(t, jetstream.RoleMonitor)), 0o600); err != nil {
				t.Fatal(err)
			}
			key, err := nats.NkeyOptionFromSeed(seed)
			if err != nil {
				t.Fatal(err)
			}
			conn := courier.Connect(t, key, nats.CustomInboxPrefix(testkit.InboxPrefix(jetstream.RoleMonitor)))
			js, err := natsjs.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			m, err := New(Config{Conn: conn, Log: zaptest.NewLogger(t), Metrics: prometheus.NewRegistry(), Instance: "m1"})
			if err != nil {
				t.Fatal(err)
			}
			look := func(alerts ...events.Alert) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
				defer cancel()
				m.send(ctx, js, alerts)
			}
			alert := func(incident, state string) events.Alert {
				return events.Alert{What: whatNoScorer, Kind: kind, Severity: events.Page, State: state, Incident: incident, Cause: causeNoScorer}
			}
			courier.Lose("alerts.>", half, 2)
			look(alert("i1", events.Firing), alert("i2", events.Firing))
			look(alert("i1", events.Resolved))
			if len(m.outbox) != 3 || len(m.told) != 0 || courier.Lost() != 2 {
				t.Errorf("%d wait, %d count as told, %d were lost", len(m.outbox), len(m.told), courier.Lost())
			}
			testkit.Eventually(t, testkit.Deadline, "all is told", func() (bool, string) {
				look()
				return len(m.outbox) == 0, fmt.Sprint(m.outbox)
			})
			all := s.alerts()
			if len(all) != 3 || all[0].Incident != "i1" || all[1].Incident != "i2" || all[2].State != events.Resolved {
				t.Errorf("alerts %+v, want i1, i2, i1 resolved", all)
			}
			if _, open := m.told["i2"]; len(m.told) != 1 || !open {
				t.Errorf("told %v, want i2", m.told)
			}
		})
	}
}
