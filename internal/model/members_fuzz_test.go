package model

import (
	"math"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/pkg/events"
)

// A scorecard that somebody wrote: it is refused, or gives a finite logit for whatever its kind's events hold.
func FuzzScorecard(f *testing.F) {
	f.Add([]byte(cardText), []byte(`{"id":"a","amount":12.5}`))
	f.Add([]byte(strings.Replace(cardText, "points:", "points: 1e308 #", 1)), []byte(`{"amount":-1e300}`))
	f.Add([]byte("kind: &a [*a]\n"), []byte(`{}`))
	f.Add([]byte("fields: "+strings.Repeat("[", 5000)), []byte(`{}`))
	schema := testSchema(f, nil)
	f.Fuzz(func(t *testing.T, text, event []byte) {
		c, err := ParseScorecard(text)
		if err != nil || c.Check(schema) != nil {
			return
		}
		logit, err := c.Logit(schema)
		if err != nil {
			t.Fatalf("%s passes its check, and: %v", text, err)
		}
		var rec events.Record
		if schema.Decode(events.JSON, event, &rec) != nil {
			return
		}
		if x := logit(&rec); math.IsNaN(x) || math.IsInf(x, 0) {
			t.Fatalf("%s gives %v for %s", text, x, event)
		}
	})
}

// What a snapshot of an online member's weights may be, whoever wrote it.
func FuzzSnapshot(f *testing.F) {
	f.Add([]byte(`{"kind":"payment"}`))
	f.Add([]byte(strings.Repeat(`{"online":`, 5000)))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := DecodeSnapshot(body)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if _, err := DecodeSnapshot(again); err != nil {
			t.Fatalf("%s was written as %s: %v", body, again, err)
		}
	})
}
