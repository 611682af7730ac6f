package recall

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/pkg/events"
)

// What becomes known is folded where it stands; what cannot be read, a stray event and the position of a file leave no trace.
func TestFolderTellsEventsFromTheRest(t *testing.T) {
	text, err := os.ReadFile("../../testdata/kinds/payment_memory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	contract, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	f := Folder{Store: memory.New(plan)}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	body := []byte(`{"amount":"1.00","terminal":"t1","time":"2026-01-01T00:00:00Z"}`)
	out := make([]float64, plan.Width())
	of := func(name string) float64 {
		for i, x := range contract.Memory.Features {
			if x.Name == name {
				return out[i]
			}
		}
		t.Fatal(name)
		return 0
	}
	seq := uint64(0)
	step := func(subject string, body []byte) error {
		seq++
		_, err := f.Step(seq, subject, "", body, at, out)
		return err
	}
	if err := step("events.payment.0.c1", body); err != nil || of("t_bad_24h") != 0 {
		t.Fatal(of("t_bad_24h"), err)
	}
	known := events.AppendKnown(nil, []events.Known{{Seq: 1, Claim: 1, At: at, Entity: "c1", Label: events.BadLabel, Keys: []events.KeyValue{{Field: "terminal", Value: "t1"}}}})
	if err := step(events.KnownSubject("payment"), known); !errors.Is(err, errKnown) {
		t.Error(err)
	}
	for subject, body := range map[string][]byte{
		events.KnownSubject("payment"):   append(known, '{'),
		"events.payment.*":               body,
		"position.payment.ingest.source": body,
	} {
		if err := step(subject, body); err == nil || errors.Is(err, errKnown) {
			t.Errorf("%s: %v", subject, err)
		}
	}
	if _, err := f.Peek(seq+1, "events.payment.1.c2", "", body, at, out); err != nil || of("t_bad_24h") == 0 || of("t_n_24h") != 0.6931471805599453 {
		t.Error(of("t_bad_24h"), of("t_n_24h"), err)
	}
}
