package verify

import (
	"fmt"
	"slices"
	"testing"

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
