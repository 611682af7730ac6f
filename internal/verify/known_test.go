package verify

import (
	"slices"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// What EVENTS tells of labels is no event, and is held against the labels and the events.
func TestToldOfLabels(t *testing.T) {
	s := newStage(t)
	list := s.publish(20)
	bad, good := 1, 0
	label := func(e event, y *int) uint64 {
		l := events.Label{Seq: e.seq, Label: y}
		ack, err := s.js.Publish(testkit.Context(t), "labels."+kind+"."+e.token, l.Append(nil, events.JSON))
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	tell := func(known ...events.Known) uint64 {
		ack, err := s.js.Publish(testkit.Context(t), events.KnownSubject(kind), events.AppendKnown(nil, known))
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	a, b := label(list[1], &bad), label(list[2], &good)
	c := label(list[1], &good)
	tell(events.Known{Seq: list[1].seq, Claim: a, At: at, Entity: list[1].token, Label: events.BadLabel}, events.Known{Seq: list[2].seq, Claim: b, At: at, Entity: list[2].token, Label: events.GoodLabel})
	tell(events.Known{Seq: list[1].seq, Claim: c, At: at, Entity: list[1].token, Was: events.BadLabel, Label: events.GoodLabel})
	list = append(list, s.publish(1)...)
	for _, e := range list {
		s.score(e, events.BandLow)
	}
	report, err := Run(t.Context(), Config{JS: s.js, Kind: kind})
	if err != nil || !report.OK() || report.Events != 21 || report.Told != 3 {
		t.Fatalf("%s %v, %v", report, report.Offenders, err)
	}
	tell(events.Known{Seq: list[3].seq, Claim: b, At: at, Entity: list[3].token, Label: events.GoodLabel})                       // the label is of another event
	tell(events.Known{Seq: list[2].seq, Claim: c, At: at, Entity: list[2].token, Was: events.BadLabel, Label: events.GoodLabel}) // it was good
	tell(events.Known{Seq: list[4].seq, Claim: 99, At: at, Entity: list[4].token, Label: events.GoodLabel})                      // there is no such label
	tell(events.Known{Seq: 500, Claim: a, At: at, Entity: "c1", Label: events.BadLabel})                                         // nor such an event
	d := label(list[5], &bad)
	tell(events.Known{Seq: list[5].seq, Claim: d, At: at, Entity: "somebody", Label: events.BadLabel})
	tell(events.Known{Seq: list[6].seq, Claim: label(list[6], &bad), At: at, Entity: list[6].token, Label: events.GoodLabel})
	if _, err := s.js.Publish(testkit.Context(t), events.KnownSubject(kind), []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.score(s.publish(1)[0], events.BandLow)
	if report, err = Run(t.Context(), Config{JS: s.js, Kind: kind}); err != nil || report.OK() || report.Missing != 0 {
		t.Fatalf("%s, %v", report, err)
	}
	var seqs []uint64
	for _, o := range report.Offenders {
		if o.What != whatUntrue {
			t.Errorf("%s", o)
		}
		if o.Seq != 0 && !slices.Contains(seqs, o.Seq) {
			seqs = append(seqs, o.Seq)
		}
	}
	slices.Sort(seqs)
	if want := []uint64{list[2].seq, list[3].seq, list[4].seq, list[5].seq, list[6].seq, 500}; !slices.Equal(seqs, want) {
		t.Errorf("untrue of events %v, want %v", seqs, want)
	}
}
