package jetstream

import (
	"strings"
	"testing"

	"github.com/riskweir/riskweir/pkg/events"
)

// A stream's config in JSON, whatever it holds: it is refused, or compared with what is wanted; nothing differs from itself.
func FuzzTopology(f *testing.F) {
	c := events.DefaultContract()
	c.Kind, c.Fields = "payment", []events.Field{{Name: "amount", Type: events.Number}}
	shared, err := SharedFiles(3)
	if err != nil {
		f.Fatal(err)
	}
	own, err := KindFiles(c, 3)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(shared, own...) {
		f.Add(file.JSON)
	}
	f.Add([]byte(strings.Repeat(`{"mirror":`, 5000)))
	f.Add([]byte(`{"name":"EVENTS_payment","num_replicas":-1,"max_age":-5,"metadata":null}`))
	want, err := ForKind(c, 3)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		have, err := decode(text)
		if err != nil {
			return
		}
		have.Name = want[0].Name
		for _, shorten := range []bool{false, true} {
			for _, change := range Plan(append(want[1:2:2], have), want, shorten) {
				if change.Action == Refuse && change.Reason == "" || change.Action != Create && len(change.Diffs) == 0 {
					t.Fatalf("%s: %+v", text, change)
				}
				_ = change.String()
			}
		}
		if changes := Plan(append(want[:0:0], have), append(want[:0:0], have), false); len(changes) > 0 && len(have.Metadata) == 0 {
			t.Fatalf("%s differs from itself: %+v", text, changes)
		}
	})
}
