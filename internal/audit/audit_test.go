package audit

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

var one = topology.Options{Replicas: 1}

var promote = Action{What: "model promote", Kind: "payment", About: "payment.v000007", By: "ann", Reason: "passed the review"}

func begin(t *testing.T, opts ...testkit.Option) (*testkit.Cluster, natsjs.JetStream) {
	t.Helper()
	c := testkit.Start(t, 1, opts...)
	js := c.JetStream(t)
	if err := topology.ApplyAudit(testkit.Context(t), js, one); err != nil {
		t.Fatal(err)
	}
	return c, js
}

func states(told []Told) (out []string) {
	for _, x := range told {
		out = append(out, x.State)
	}
	return out
}

func TestActionsAreToldAsTheyEnded(t *testing.T) {
	t.Parallel()
	_, js := begin(t)
	ctx := testkit.Context(t)
	if told, err := Read(ctx, js, Query{}); err != nil || len(told) != 0 {
		t.Fatalf("an empty stream: %v, %v", told, err)
	}
	if err := Do(ctx, js, promote, func(e *Entry) error {
		e.Before(map[string]int{"champion": 6})
		e.After(map[string]int{"champion": 7})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("somebody else was first")
	if err := Do(ctx, js, Action{What: "lane rebase", Kind: "payment"}, func(*Entry) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	// Killed in the middle: nothing of Do runs any more.
	if err := publish(ctx, js, Record{Action: "x", State: Begun, What: "erase", Kind: "payment", Who: "bob@h"}); err != nil {
		t.Fatal(err)
	}
	told, err := Read(ctx, js, Query{})
	if err != nil {
		t.Fatal(err)
	}
	if got := states(told); !slices.Equal(got, []string{Done, Failed, Begun}) {
		t.Fatalf("states %v", got)
	}
	first := told[0]
	if first.About != "payment.v000007" || !strings.HasPrefix(first.Who, "ann (") || !strings.Contains(first.Who, "@") || string(first.Before) != `{"champion":6}` ||
		string(first.After) != `{"champion":7}` || first.Reason != "passed the review" || len(first.Sequences) != 2 || first.Ended.Before(first.Began) {
		t.Errorf("%+v", first)
	}
	if told[1].Error != broken.Error() || !told[2].Ended.IsZero() {
		t.Errorf("%+v\n%+v", told[1], told[2])
	}
	for _, x := range []struct {
		name string
		q    Query
		want int
	}{
		{"who promoted payment.v7", Query{About: "payment.v7", What: "promote"}, 1},
		{"v77 is another", Query{About: "payment.v77"}, 0},
		{"by somebody", Query{Who: "ANN"}, 1},
		{"by nobody", Query{Who: "zoe"}, 0},
		{"of the kind", Query{Kind: "payment"}, 3},
		{"of another", Query{Kind: "loan"}, 0},
		{"since then", Query{Since: told[1].Began}, 2},
		{"the last", Query{Limit: 1}, 1},
	} {
		if got, err := Read(ctx, js, x.q); err != nil || len(got) != x.want {
			t.Errorf("%s: %d of %v, %v", x.name, len(got), states(got), err)
		}
	}
}

// What cannot be recorded is not done; what was done and has no end on record is not reported as done.
func TestNothingIsDoneThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	c := testkit.Start(t, 1)
	js := c.JetStream(t)
	ctx := testkit.Context(t)
	err := Do(ctx, js, promote, func(*Entry) error { t.Error("it was done"); return nil })
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), "topology apply") {
		t.Errorf("%v", err)
	}
	if err := topology.ApplyAudit(ctx, js, one); err != nil {
		t.Fatal(err)
	}
	err = Do(ctx, js, promote, func(*Entry) error { return js.DeleteStream(ctx, events.AuditStream) })
	if err == nil || !strings.Contains(err.Error(), "it was done, and AUDIT has no record of its end") {
		t.Errorf("%v", err)
	}
	if err := topology.ApplyAudit(ctx, js, one); err != nil {
		t.Fatal(err)
	}
	if err := Do(ctx, js, Action{What: "Model Promote!"}, func(*Entry) error { t.Error("it was done"); return nil }); err == nil {
		t.Error("a verb that is no token was taken")
	}
	// What cannot be told is an error, and a value that is too large does not keep the record away.
	if err := Do(ctx, js, promote, func(e *Entry) error { e.After(func() {}); return nil }); err == nil {
		t.Error("a value that is no JSON")
	}
	if err := Do(ctx, js, Action{What: "kind apply", Kind: "no kind at all"}, func(e *Entry) error {
		e.After(strings.Repeat("x", maxValue))
		e.About(strings.Repeat("é", maxText))
		return nil
	}); err != nil {
		t.Errorf("%v", err)
	}
}

// The record loses either half of each of its writes, and stands there once.
func TestEitherHalfOfARecordIsLost(t *testing.T) {
	t.Parallel()
	cluster, own := begin(t)
	ctx := testkit.Context(t)
	for _, half := range testkit.Halves {
		courier := cluster.Courier(t)
		js, err := natsjs.New(courier.Connect(t))
		if err != nil {
			t.Fatal(err)
		}
		did := 0
		courier.Lose("audit.>", half, 1)
		if err := Do(ctx, js, promote, func(*Entry) error { did++; courier.Lose("audit.>", half, 1); return nil }); err != nil || did != 1 {
			t.Errorf("%s: done %d times: %v", half, did, err)
		}
		if courier.Lost() != 2 {
			t.Errorf("%s: %d were lost", half, courier.Lost())
		}
	}
	told, err := Read(ctx, own, Query{})
	if err != nil || len(told) != len(testkit.Halves) {
		t.Fatalf("%d actions, %v", len(told), err)
	}
	for _, x := range told {
		if x.State != Done || len(x.Sequences) != 2 {
			t.Errorf("%+v", x)
		}
	}
}

// Nothing of the record can be taken away again, by whoever may do everything; and roles that have no business there may neither write
// nor read it.
func TestNothingIsTakenAway(t *testing.T) {
	t.Parallel()
	var users []embedded.User
	for _, r := range topology.Roles("payment") {
		users = append(users, embedded.User{Name: r.Name, Publish: r.Publish, Subscribe: r.Subscribe, All: r.All})
	}
	c, js := begin(t, testkit.Users(users...))
	ctx := testkit.Context(t)
	if err := Do(ctx, js, promote, func(*Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, events.AuditStream)
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"delete": s.DeleteMsg(ctx, 1), "secure delete": s.SecureDeleteMsg(ctx, 1), "purge": s.Purge(ctx)} {
		if err == nil {
			t.Errorf("%s was done", name)
		}
	}
	for name, change := range map[string]func(*natsjs.StreamConfig){
		"deny_delete": func(c *natsjs.StreamConfig) { c.DenyDelete = false },
		"deny_purge":  func(c *natsjs.StreamConfig) { c.DenyPurge = false },
	} {
		cfg := s.CachedInfo().Config
		change(&cfg)
		if _, err := js.UpdateStream(ctx, cfg); err == nil {
			t.Errorf("%s was taken back", name)
		}
	}
	rollup := nats.NewMsg("audit.payment.model-promote")
	rollup.Header.Set("Nats-Rollup", "all")
	if _, err := js.PublishMsg(ctx, rollup); err == nil {
		t.Error("a rollup was taken")
	}
	for _, r := range topology.Roles("payment") {
		if r.All {
			continue
		}
		nc := c.ConnectAs(t, r.Name, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
		theirs, err := natsjs.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := theirs.Publish(short, "audit.payment.model-promote", []byte(`{}`)); err == nil {
			t.Errorf("%s wrote a record", r.Name)
		}
		cancel()
		short, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		if _, err := nc.RequestWithContext(short, "$JS.API.STREAM.PURGE."+events.AuditStream, nil); err == nil {
			t.Errorf("%s asked to purge", r.Name)
		}
		cancel()
	}
	if info, err := s.Info(ctx); err != nil || info.State.Msgs != 2 {
		t.Errorf("%+v, %v", info, err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := json.Marshal(Record{Action: "a", State: Done, At: time.Unix(1, 0).UTC(), Who: "w", What: "erase", Before: json.RawMessage(`{"x":[1]}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"action":"a","state":"done","what":"erase"} x`))
	f.Add([]byte(`{"action":"a","state":"done","what":"erase","more":1}`))
	f.Add([]byte(strings.Repeat("[", 20000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Decode(body)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("%s is read as %+v, written as %s, and not read again: %v", body, r, again, err)
		}
		if back.Action != r.Action || back.State != r.State || back.What != r.What {
			t.Fatalf("%+v became %+v", r, back)
		}
	})
}
