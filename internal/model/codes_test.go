package model

import (
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// The codes of reasons travel in the artifact: they stay what they were when the contract changes them, and an artifact from before has none.
func TestReasonCodesTravelInTheArtifact(t *testing.T) {
	r := NewRegistry(newBucket(t))
	ctx := testkit.Context(t)
	schema := testSchema(t, func(c *events.Contract) { c.Fields[0].Code, c.Fields[5].Code = "HIGH_AMOUNT", "FAST" })
	v, err := r.PublishFit(ctx, schema, testArtifact(1))
	if err != nil {
		t.Fatal(err)
	}
	a, err := r.Get(ctx, "payment", v)
	if err != nil {
		t.Fatal(err)
	}
	if a.Codes["amount"] != "HIGH_AMOUNT" || a.Codes["channel"] != "CHANNEL" || a.Codes["speed"] != "FAST" {
		t.Errorf("codes %v", a.Codes)
	}
	later := testSchema(t, func(c *events.Contract) { c.Fields[5].Code = "OTHER" })
	p, err := Compile(a, later)
	if err != nil {
		t.Fatal(err)
	}
	var s Scratch
	rec := decodeRecord(t, later, `{"amount":"900","channel":"web<&>","age":80,"income":9000,"count":9,"speed":9,"distance":90}`)
	want := map[string]string{"amount": "HIGH_AMOUNT", "channel": "CHANNEL", "count": "COUNT", "speed": "FAST", "distance": "DISTANCE", Withheld: events.CodeWithheld}
	reasons := p.Score(rec, &s).Reasons
	if len(reasons) != MaxReasons {
		t.Fatalf("%d reasons", len(reasons))
	}
	for _, x := range append(reasons[:len(reasons):len(reasons)], p.Explain(rec)...) {
		if x.Code != want[x.Field] {
			t.Errorf("%s has the code %q, want %q", x.Field, x.Code, want[x.Field])
		}
	}
	if n := testing.AllocsPerRun(100, func() { p.Score(rec, &s) }); n != 0 {
		t.Errorf("%v allocations a score", n)
	}
	old, err := Compile(testArtifact(1), later)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range old.Score(rec, &s).Reasons {
		if x.Code != "" {
			t.Errorf("of an artifact without codes: %+v", x)
		}
	}
	bad := testArtifact(1)
	bad.Codes = map[string]string{"amount": "high amount"}
	if _, err := bad.Encode(); err == nil || !strings.Contains(err.Error(), "reason code") {
		t.Errorf("a code that is none: %v", err)
	}
}
