package monitor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/lease"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const kind = "payment"

// site is a kind on a node of its own, whose monitors have the monitor's permissions and whose scorer is the test.
type site struct {
	t        *testing.T
	cluster  *testkit.Cluster
	js       natsjs.JetStream
	registry *prometheus.Registry // of the latest monitor
	lanes    int
}

func newSite(t *testing.T) *site {
	t.Helper()
	var users []embedded.User
	for _, r := range jetstream.Roles() {
		if r.Name == jetstream.RoleMonitor {
			users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe})
		}
	}
	users = append(users, embedded.User{Name: jetstream.RoleOperator, All: true})
	c := testkit.Start(t, 1, testkit.Users(users...))
	s := &site{t: t, cluster: c, js: c.JetStream(t), lanes: 3}
	contract := events.DefaultContract()
	contract.Kind, contract.Lanes = kind, s.lanes
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

// start runs a monitor that is twenty times as fast as in life.
func (s *site) start(name string) (m *Monitor, stop func()) {
	s.t.Helper()
	s.registry = prometheus.NewRegistry()
	const every = 50 * time.Millisecond
	m, err := New(Config{
		Conn: s.cluster.ConnectAs(s.t, jetstream.RoleMonitor), Log: zaptest.NewLogger(s.t), Metrics: s.registry, Instance: name, Name: name,
		Every: every, Term: 10 * every,
		Limits: Limits{Age: time.Hour, Stall: 4 * every, Unseen: 40 * every, Absent: 3 * every, Open: 3, Of: 5, Close: 3},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("run: %v", err)
		}
	}
	s.t.Cleanup(stop)
	return m, stop
}

func (s *site) publish(n int) {
	s.t.Helper()
	for i := range n {
		m := &nats.Msg{Subject: fmt.Sprintf("events.%s.c%d", kind, i), Data: []byte(`{"amount":1}`)}
		if i < 3 { // looks like a word of the server's, and is an event
			m.Data, m.Header = nil, nats.Header{"Status": {"503"}}
		}
		if _, err := s.js.PublishMsg(testkit.Context(s.t), m); err != nil {
			s.t.Fatal(err)
		}
	}
}

// scoreAll moves the positions of all lanes to the end of EVENTS.
func (s *site) scoreAll(owner string) {
	s.t.Helper()
	ctx := testkit.Context(s.t)
	in, err := s.js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		s.t.Fatal(err)
	}
	info := in.CachedInfo()
	for _, lane := range events.LaneNumbers(s.lanes) {
		body, err := json.Marshal(events.Position{Seq: info.State.LastSeq, Incarnation: info.Created, Epoch: 2, Owner: owner})
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.js.Publish(ctx, events.PositionSubject(kind, lane), body); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *site) beat(instance string) {
	s.t.Helper()
	body, err := json.Marshal(events.Heartbeat{Service: scorerService, Instance: instance, Name: "scorer-1", Model: map[string]string{kind: "payment.v000007"}})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.js.Conn().Publish(events.HeartbeatSubject(scorerService, instance), body); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) await(m *Monitor, reason string, holds func(Status) bool) Status {
	s.t.Helper()
	var st Status
	testkit.Eventually(s.t, testkit.Deadline, reason, func() (bool, string) {
		var ok bool
		st, ok = m.Status()
		body, _ := json.Marshal(st)
		return ok && holds(st), string(body)
	})
	return st
}

// alerts are what ALERTS holds.
func (s *site) alerts() []events.Alert {
	s.t.Helper()
	ctx := testkit.Context(s.t)
	stream, err := s.js.Stream(ctx, events.AlertsStream)
	if err != nil {
		s.t.Fatal(err)
	}
	var out []events.Alert
	for seq := range stream.CachedInfo().State.LastSeq {
		m, err := stream.GetMsg(ctx, seq+1)
		if err != nil {
			s.t.Fatal(err)
		}
		var a events.Alert
		if err := json.Unmarshal(m.Data, &a); err != nil {
			s.t.Fatal(err)
		}
		if m.Subject != events.AlertSubject(a.Severity, a.What) {
			s.t.Errorf("alert %+v on %s", a, m.Subject)
		}
		out = append(out, a)
	}
	return out
}

func (s *site) awaitAlerts(n int) []events.Alert {
	s.t.Helper()
	var out []events.Alert
	testkit.Eventually(s.t, testkit.Deadline, fmt.Sprintf("%d alerts", n), func() (bool, string) {
		out = s.alerts()
		return len(out) >= n, fmt.Sprint(out)
	})
	return out
}

// released fails unless nobody's name is in the lease.
func (s *site) released() {
	s.t.Helper()
	kv, err := s.js.KeyValue(testkit.Context(s.t), events.ModelsBucket)
	if err != nil {
		s.t.Fatal(err)
	}
	entry, err := kv.Get(testkit.Context(s.t), LeaseKey)
	if err != nil {
		s.t.Fatal(err)
	}
	var r lease.Record[[]events.Alert]
	if err := json.Unmarshal(entry.Value(), &r); err != nil || r.Instance != "" {
		s.t.Errorf("the lease is %s, %v: want it released", entry.Value(), err)
	}
}

func TestMonitorSeesLanesAndTells(t *testing.T) {
	s := newSite(t)
	s.publish(30)
	m, _ := s.start("m1")
	st := s.await(m, "all 30 events are seen to wait", func(st Status) bool { return len(st.Kinds) == 1 && st.Kinds[0].Pending == 30 })
	if k := st.Kinds[0]; len(k.Lanes) != s.lanes+1 || k.AgeMS <= 0 || k.LastSeq != 30 || k.Error != "" {
		t.Errorf("kind %+v", k)
	}
	if fired := s.awaitAlerts(1); fired[0].What != whatNoScorer || fired[0].State != events.Firing || fired[0].Cause != causeNoScorer {
		t.Fatalf("alerts %+v: want no_scorer firing", fired)
	}

	s.beat("instance-1")
	s.scoreAll("instance-1")
	st = s.await(m, "nothing waits and nothing fires", func(st Status) bool { return st.Kinds[0].Pending == 0 && len(st.Alerts) == 0 })
	for _, l := range st.Kinds[0].Lanes {
		if l.State != Idle || l.Position != 30 || l.Owner != "scorer-1" || l.AgeMS != 0 {
			t.Errorf("lane %+v: want idle at 30, owned by scorer-1", l)
		}
	}
	if len(st.Kinds[0].Models) != 1 || st.Kinds[0].Models[0] != "payment.v000007" {
		t.Errorf("models %v", st.Kinds[0].Models)
	}
	all := s.awaitAlerts(2)
	if len(all) != 2 || all[1].State != events.Resolved || all[1].Incident != all[0].Incident {
		t.Errorf("alerts %+v: want the same incident firing and resolved", all)
	}

	asked, err := Fetch(testkit.Context(t), s.cluster.ConnectAs(t, jetstream.RoleOperator))
	if err != nil || asked.Monitor != "m1" || !asked.Leads || len(asked.Kinds) != 1 {
		t.Errorf("fetched %+v, %v", asked, err)
	}
	if err := m.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
}

func TestMetricsShowEveryLane(t *testing.T) {
	s := newSite(t)
	s.publish(10)
	m, stop := s.start("m1")
	s.await(m, "the events are seen and the lease is held", func(st Status) bool { return len(st.Kinds) == 1 && st.Kinds[0].Pending == 10 && st.Leads })
	stop() // so that the values stand still
	s.released()
	rec := httptest.NewRecorder()
	promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}).ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	body, err := io.ReadAll(rec.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	for lane := range s.lanes {
		for _, name := range []string{"riskweir_lane_pending_events", "riskweir_lane_oldest_pending_age_seconds", "riskweir_lane_stalled", "riskweir_lane_position"} {
			if want := fmt.Sprintf(`%s{kind="payment",lane="%d"}`, name, lane); !strings.Contains(text, want) {
				t.Errorf("no %s", want)
			}
		}
	}
	for _, want := range []string{`riskweir_kind_seen{kind="payment"} 1`, `riskweir_alerts_firing{severity="page"}`, "riskweir_monitor_leads 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// The leader goes while an incident is open: the next one carries on with it.
func TestNextLeaderCarriesOn(t *testing.T) {
	s := newSite(t)
	s.publish(5)
	m1, stop1 := s.start("m1")
	fired := s.awaitAlerts(1)
	m2, _ := s.start("m2")
	s.await(m2, "the second one sees the incident too, and follows", func(st Status) bool { return len(st.Alerts) == 1 && !st.Leads })
	if st, _ := m1.Status(); !st.Leads {
		t.Errorf("m1 does not lead")
	}
	stop1()
	s.await(m2, "the second one leads, with the first one's incident", func(st Status) bool {
		return st.Leads && len(st.Alerts) == 1 && st.Alerts[0].Incident == fired[0].Incident
	})
	s.beat("instance-1")
	s.scoreAll("instance-1")
	all := s.awaitAlerts(2)
	if len(all) != 2 || all[1].State != events.Resolved || all[1].Incident != fired[0].Incident {
		t.Errorf("alerts %+v: want one incident, firing and resolved", all)
	}
}

// The broker goes away: the kind is not seen, the lanes are unknown; when it is back, all of it is told.
func TestOutageIsToldAfterwards(t *testing.T) {
	s := newSite(t)
	beating, endBeats := context.WithCancel(t.Context())
	defer endBeats()
	m, _ := s.start("m1")
	s.await(m, "the lease is held", func(st Status) bool { return st.Leads && len(st.Kinds) == 1 })
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		body := []byte(`{"service":"scorer","instance":"i1"}`)
		for beating.Err() == nil {
			_ = s.js.Conn().Publish(events.HeartbeatSubject(scorerService, "i1"), body) // lost while the broker is away
			select {
			case <-tick.C:
			case <-beating.Done():
			}
		}
	}()
	s.cluster.StopNode(t, 0)
	s.await(m, "the lanes are unknown", func(st Status) bool { return len(st.Kinds) == 1 && st.Kinds[0].Lanes[0].State == Unknown })
	s.cluster.RestartNode(t, 0)
	s.await(m, "the lanes are idle and nothing fires", func(st Status) bool { return st.Leads && st.Kinds[0].Lanes[0].State == Idle && len(st.Alerts) == 0 })
	told := map[string][]string{}
	for _, a := range s.alerts() {
		told[a.What] = append(told[a.What], a.State)
	}
	for what, states := range told {
		if len(states) != 2 || states[0] != events.Firing || states[1] != events.Resolved {
			t.Errorf("%s was told as %v", what, states)
		}
	}
}

// A leader whose lease ran out, since it was frozen for a while, and who gets it back before another took it: what began to fire
// in between is told.
func TestLapsedLeaderLeavesNothingUntold(t *testing.T) {
	s := newSite(t)
	m, err := New(Config{Conn: s.cluster.ConnectAs(t, jetstream.RoleMonitor), Log: zaptest.NewLogger(t), Metrics: prometheus.NewRegistry(), Instance: "m1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx := testkit.Context(t)
	kv, err := s.js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		t.Fatal(err)
	}
	m.lease = lease.New[[]events.Alert](kv, LeaseKey, lease.Holder{Instance: "m1"}, 400*time.Millisecond)
	m.tell(ctx, s.js, nil)
	if !m.led {
		t.Fatal("does not lead")
	}
	testkit.Eventually(t, testkit.Deadline, "the lease runs out", func() (bool, string) { return !m.leads(time.Now()), "it leads" })
	a := events.Alert{What: whatNoScorer, Kind: kind, Severity: events.Page, State: events.Firing, Incident: "i1", Cause: causeNoScorer}
	m.rules.incidents[a.What+" "+a.Kind] = &incident{what: a.What, kind: a.Kind, open: true, alert: a}
	m.tell(ctx, s.js, []events.Alert{a})
	if all := s.alerts(); !m.led || len(all) != 1 || all[0].Incident != "i1" {
		t.Errorf("leads: %v, alerts %+v: want i1", m.led, all)
	}
}
