package verify

import (
	"fmt"
	"slices"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Outcomes that say what is repeated are compared with what EVENTS holds, read by the contract that is declared.
func TestRepeatsAreReadFromEvents(t *testing.T) {
	s := newStage(t)
	contract := events.DefaultContract()
	contract.Kind, contract.Lanes, contract.ID, contract.Entity = "again", 2, "id", "card"
	contract.Fields = []events.Field{{Name: "amount", Type: events.Number}}
	contract.Memory = &events.Memory{Features: []events.MemoryFeature{{Name: "n", By: events.Names{"card"}, Take: events.TakeCount}}}
	ctx := testkit.Context(t)
	if _, err := jetstream.ApplyKind(ctx, s.js, contract, jetstream.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	declared, err := jetstream.ReadKind(ctx, s.js, "again")
	if err != nil {
		t.Fatal(err)
	}
	publish := func(subject string, body []byte) {
		t.Helper()
		if _, err := s.js.Publish(ctx, subject, body); err != nil {
			t.Fatal(err)
		}
	}
	for i, body := range []string{`{"id":"a","amount":1}`, `{"id":"b","amount":1}`, `{"amount":1.0,"card":"c","id":"a"}`, "\x82\xa2id\xa1b\xa6amount\x02", `{"id":"a","amount":2}`, `{"id":"d"}`} {
		publish("events.again.c", []byte(body))
		if i < 2 {
			publish(events.CommitSubject("again", events.BandLow, "c"), fmt.Appendf(nil, `{"seq":%d}`, i+1))
		}
	}
	for _, r := range []events.Repeat{
		{Seq: 3, First: 1, ID: "a"},
		{Seq: 4, First: 2, ID: "b", Conflict: true},
		{Seq: 5, First: 1, ID: "a"}, // a conflict
		{Seq: 6, First: 1, ID: "d"}, // neither
	} {
		r.Kind, r.Entity, r.Contract = "again", "c", declared.Revision
		publish(events.CommitSubject("again", r.Band(), "c"), r.Append(nil, events.JSON))
	}
	got, err := Run(ctx, Config{JS: s.js, Kind: "again"})
	if err != nil {
		t.Fatal(err)
	}
	notes := []string{
		"unlike id a event 5: said to be event 1 again, as a repeat: their contents differ",
		"unlike id d event 6: said to be event 1 again, as a repeat: their ids differ",
	}
	var said []string
	for _, o := range got.Offenders {
		said = append(said, o.String())
	}
	if !slices.Equal(said, notes) || got.String() != "events=6 scored=2 invalid=0 missing=0 duplicate=0 disorder=0 repeat=3 conflict=1 unlike=2" || got.OK() {
		t.Errorf("%s\n%q", got, said)
	}
}

// Events that were scored though they repeat an earlier one are found: under any contract that judges ids as the one declared, if the earlier
// one was still known, and is not gone with those that EVENTS no longer keeps.
func TestRepeatsThatNobodyNoticed(t *testing.T) {
	s := newStage(t)
	ctx := testkit.Context(t)
	contract := events.DefaultContract()
	contract.Kind, contract.Lanes, contract.ID, contract.Entity = "again", 2, "id", "card"
	contract.Fields = []events.Field{{Name: "amount", Type: events.Number}}
	contract.Memory = &events.Memory{Repeats: &events.Repeats{IDs: 4}, Features: []events.MemoryFeature{{Name: "n", By: events.Names{"card"}, Take: events.TakeCount}}}
	var revision [3]uint64
	for i := range revision { // the first has another type of field, the second other thresholds
		c := contract
		c.Version = i + 1
		c.Fields = slices.Clone(contract.Fields)
		if c.Prior = 0.1 * float64(i+1); i == 0 {
			c.Fields[0].Required = true
		}
		if _, err := jetstream.ApplyKind(ctx, s.js, c, jetstream.Options{Replicas: 1}); err != nil {
			t.Fatal(err)
		}
		declared, err := jetstream.ReadKind(ctx, s.js, "again")
		if err != nil {
			t.Fatal(err)
		}
		revision[i] = declared.Revision
	}
	for i, x := range []struct {
		id, entity string // the event's
		band       string
		contract   int
		found      bool
	}{
		{"a", "c", events.BandLow, 2, false},
		{"b", "c", events.BandLow, 2, false},
		{"a", "d", events.BandHigh, 2, true},     // of another entity: a conflict
		{"b", "c", events.BandLow, 1, true},      // other thresholds
		{"b", "c", events.BandLow, 0, false},     // who knows what was valid then
		{"a", "c", events.BandRepeat, 2, false},  // as it should be
		{"a", "c", events.BandHistory, 2, true},  // counts as well
		{"x", "c", events.BandInvalid, 2, false}, // as it is: it names another card
		{"x", "c", events.BandLow, 2, false},     // and so has left no trace
		{"y", "c", events.BandLow, 2, false},
		{"b", "c", events.BandLow, 2, true},
		{"z", "c", events.BandLow, 2, false},
		{"a", "c", events.BandLow, 2, false}, // b, x, y and z have come since a, and four ids are known
		{"", "c", events.BandLow, 2, false},
		{"", "c", events.BandLow, 2, false},
	} {
		seq := uint64(i) + 1
		body := fmt.Sprintf(`{"id":%q,"amount":%d}`, x.id, i)
		if x.id == "" {
			body = `{}`
		} else if x.band == events.BandInvalid {
			body = `{"id":"x","card":"another"}`
		} else if x.band == events.BandRepeat {
			body = `{"id":"a","amount":0}`
		}
		if _, err := s.js.Publish(ctx, "events.again."+x.entity, []byte(body)); err != nil {
			t.Fatal(err)
		}
		var outcome []byte
		switch x.band {
		case events.BandInvalid:
			outcome = (&events.Invalid{Seq: seq, Kind: "again", Reason: "two cards"}).Append(nil, events.JSON)
		case events.BandRepeat:
			outcome = (&events.Repeat{Seq: seq, First: 1, ID: "a", Kind: "again", Contract: revision[2]}).Append(nil, events.JSON)
		default:
			outcome = (&events.Score{ID: x.id, Seq: seq, Kind: "again", Band: x.band, Contract: revision[x.contract], Mode: events.ModePrior, Time: time.Unix(0, 0).UTC()}).Append(nil, events.Msgpack)
		}
		s.put(events.CommitSubject("again", x.band, x.entity), outcome)
	}
	found := func(r Report) (seqs []uint64) {
		for _, o := range r.Offenders {
			if o.What != whatUnnoticed {
				t.Errorf("%s", o)
			}
			seqs = append(seqs, o.Seq)
		}
		return seqs
	}
	r, err := Run(ctx, Config{JS: s.js, Kind: "again"})
	if got := found(r); err != nil || !slices.Equal(got, []uint64{3, 4, 7, 11}) || r.Unnoticed != 4 || r.OK() {
		t.Errorf("%v: %s; %v", err, r, got)
	}

	// What has left EVENTS cannot be told of.
	stream, err := s.js.Stream(ctx, events.EventsStream("again"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.Discard = natsjs.DiscardOld
	for _, x := range []struct {
		first uint64
		want  []uint64
	}{
		{3, []uint64{7, 11}},
		{5, []uint64{13}}, // event 5 may have repeated another, so 11 need not repeat it; 7 is the first with its id now
	} {
		cfg.MaxMsgs = int64(16 - x.first)
		if _, err := s.js.UpdateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		r, err = Run(ctx, Config{JS: s.js, Kind: "again"})
		if got := found(r); err != nil || !slices.Equal(got, x.want) {
			t.Errorf("from event %d on: %v: %s; %v", x.first, err, r, got)
		}
	}
}
