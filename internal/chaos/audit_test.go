package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/internal/verify"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The audit names what was lost, doubled and misplaced, each by its id.
func TestAuditNotices(t *testing.T) {
	ctx := testkit.Context(t)
	conn := testkit.Start(t, 1).Connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	o := topology.Options{Replicas: 1}
	if _, err := topology.ApplyShared(ctx, js, o); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, sim.Contract(), o); err != nil {
		t.Fatal(err)
	}
	l, err := NewLoad(LoadConfig{Conn: conn, Generator: sim.New(sim.Config{Seed: 1, Start: time.Now()})})
	if err != nil {
		t.Fatal(err)
	}
	store := func(e *sim.Event, msgID string) uint64 {
		t.Helper()
		subject, err := events.EventSubject(sim.Kind, e.Entity)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := js.Publish(ctx, subject, e.Body, jetstream.WithMsgID(msgID))
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	var id [6]string
	for i := range id {
		e := l.next()
		id[i] = e.ID
		switch i {
		case 0, 1:
			l.acknowledged(e, store(e, e.ID)) // as it should be
		case 2:
			store(e, e.ID) // stored, and nobody was told
		case 3:
			l.acknowledged(e, 77) // lost
		case 4:
			l.acknowledged(e, store(e, e.ID)+1) // misplaced
		case 5:
			l.acknowledged(e, store(e, e.ID))
			l.acknowledged(e, 99) // another answer for the same event: it is there twice
		}
	}
	s, h, err := audit(ctx, js, sim.Kind, l, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if s.OK() || s.Acknowledged != 5 || s.Unacknowledged != 1 || s.Lost != 1 || s.Misplaced != 1 || s.Doubled != 1 {
		t.Errorf("%+v", s)
	}
	named := strings.Join(s.Named, "\n")
	for _, want := range []string{"lost: id " + id[3], "misplaced: id " + id[4], "doubled: id " + id[5]} {
		if !strings.Contains(named, want) {
			t.Errorf("%q does not say %q", named, want)
		}
	}
	if _, ok := h.at(1); !ok {
		t.Error("the first event is not in the history")
	}
}

func TestReportIsOfWhatHappened(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s float64) time.Time { return begin.Add(time.Duration(s * float64(time.Second))) }
	h := newHistory(begin, 1)
	h.event(1, 0, at(11))
	h.event(2, 1, at(31))
	h.pause = []Pause{{0, at(10.5), at(12.5)}, {1, at(19), at(22)}, {0, at(35), at(36)}}
	load := &Load{cfg: LoadConfig{Deadline: 150 * time.Millisecond}, probes: []probe{
		{at(11), 20 * time.Millisecond, "model", true}, {at(12), 200 * time.Millisecond, "late", true}, {at(13), 5 * time.Millisecond, "unreachable", false},
		{at(50), 10 * time.Millisecond, "model", true},
	}}
	r := &runner{Config: Config{Load: load, Seed: 9}, began: begin, ended: at(60), happened: []Occurrence{
		{Fault: "scorer-kill", Injected: at(10), Mended: at(15), Until: at(18), Events: 100},
		{Fault: "all-nodes-kill", Injected: at(18), Mended: at(20), Until: at(30), Events: 50},
		{Fault: "scorer-kill", Injected: at(30), Mended: at(34), Until: at(45), Events: 10},
	}}
	got := r.report(verify.Report{Missing: 1, Offenders: []verify.Offender{{What: "missing", Seq: 2}}}, Stored{}, h)
	if got.OK || len(got.Broken) != 1 || got.Faults != 3 || got.Kinds != 2 {
		t.Errorf("%+v", got)
	}
	// One more that had to end as invalid, and did not; it was meant for lane 0, so that a pause of lane 0 is none of the others'.
	struck := 0
	r.happened[2].Lane = &struck
	if got := r.report(verify.Report{}, Stored{}, h); len(got.Broken) != 1 || got.Rows[1].OthersPauseMS != 2000 {
		t.Errorf("%+v", got)
	}
	r.happened[0].Lane = &struck
	if got := r.report(verify.Report{Invalid: 2}, Stored{}, h); !got.OK || got.Rows[1].OthersPauseMS != 0 {
		t.Errorf("%+v", got)
	}
	all, kill := got.Rows[0], got.Rows[1]
	if all.Fault != "all-nodes-kill" || all.RecoverMaxMS != 2000 || all.LongestPauseMS != 3000 || all.Missing != 0 {
		t.Errorf("an outage recovers from when it is mended: %+v", all)
	}
	// The pause that began after the scorer was back is none of its recovery.
	if kill.Times != 2 || kill.Events != 110 || kill.RecoverMaxMS != 2500 || kill.LongestPauseMS != 2000 || kill.Missing != 1 {
		t.Errorf("%+v", kill)
	}
	if a := kill.Answer; a.Asked != 3 || a.InTime != 1 || a.Modes["late"] != 1 || got.Answer.Asked != 4 {
		t.Errorf("%+v, %+v", a, got.Answer)
	}
	var b strings.Builder
	if err := got.Write(&b); err != nil || !strings.Contains(b.String(), "BROKEN 1 events have no outcome") {
		t.Errorf("%v: %s", err, b.String())
	}
}
