package events

import (
	"strconv"
	"strings"
	"testing"
)

// Subjects come from the broker, which takes more of them than we make: what is parsed is what was made of its parts.
func FuzzSubjects(f *testing.F) {
	for _, s := range []string{"events.payment.7.c%2e1", "scores.payment.high.c1", "position.payment.50", "events.payment.*", "events.payment.>", "scores.payment..", "position.payment.007", "events.payment.99999999999999999999.c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		if e, err := ParseStoredEvent(subject); err == nil {
			again := "events." + e.Kind + "." + strconv.Itoa(e.Lane) + "." + e.Token
			if stray := "events." + e.Kind; e.Lane < 0 || again != subject && (e.Lane != StrayLane || subject != stray+".*" && subject != stray+".>") || strings.Contains(e.Token, ".") {
				t.Fatalf("%q is %+v", subject, e)
			}
		}
		if s, err := ParseStoredScore(subject); err == nil && ScoreSubject(s.Kind, s.Band, s.Token) != subject {
			t.Fatalf("%q is %+v", subject, s)
		}
		if kind, lane, err := ParsePositionSubject(subject); err == nil && PositionSubject(kind, lane) != subject {
			t.Fatalf("%q is lane %d of %q", subject, lane, kind)
		}
	})
}
