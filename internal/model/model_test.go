package model

import (
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
)

const contractText = `
kind: payment
version: 3
fields:
  - {name: amount, type: money, currency: EUR}
  - {name: channel, type: category}
  - {name: age, type: number, sensitive: true}
  - {name: income, type: number, sensitive: true}
  - {name: count, type: number}
  - {name: speed, type: number}
  - {name: distance, type: number}
prior: 0.02
`

func testSchema(t testing.TB, edit func(*events.Contract)) *events.Schema {
	t.Helper()
	c, err := events.ParseContract([]byte(contractText))
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&c)
	}
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testSpec() feature.Spec {
	numeric := func(name string, mean, sd float64, missing bool) feature.Transform {
		return feature.Transform{Field: name, Kind: feature.Numeric, Mean: mean, SD: sd, Missing: missing}
	}
	return feature.Spec{Version: feature.SpecVersion, Zone: "UTC", Fields: []feature.Transform{
		{Field: "amount", Kind: feature.Asinh, Median: 20, IQR: 30, Mean: 0.25, SD: 1.125, Missing: true},
		{Field: "channel", Kind: feature.OneHot, Levels: []string{"", "branch", "web<&>"}},
		numeric("age", 40, 12, false),
		numeric("income", 2000, 900, false),
		numeric("count", 3, 2, false),
		numeric("speed", 1, 0.5, false),
		numeric("distance", 10, 7, false),
	}}
}

// testArtifact is version 1 of payment with the given intercept.
func testArtifact(intercept float64) *Artifact {
	spec := testSpec()
	a := &Artifact{
		Format: Format, Kind: "payment", Version: 1, Created: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), CreatedBy: "trainer t1",
		Code: "abc", Contract: ContractRef{Version: 3, Revision: 7},
		Training: Training{Stream: "EVENTS_payment", FirstSeq: 1, LastSeq: 900, LabelsSeq: 40, Rows: 850, Positives: 31, DataHash: "00ff"},
		Metrics:  Metrics{Rows: 170, Positives: 6, AUC: 0.8125, LogLoss: 0.1, Brier: 0.03},
		Scale:    DefaultScale, Calibration: Calibration{Method: CalibrationNone},
		Fingerprint: spec.Fingerprint(), Spec: spec, Intercept: intercept,
	}
	for j, c := range spec.Columns("") {
		a.Weights = append(a.Weights, Weight{Column: c.Name, Field: c.Field, Weight: 0.1 * float64(j+1), Baseline: 0.01 * float64(j)})
	}
	return a
}

func decodeRecord(t testing.TB, s *events.Schema, body string) *events.Record {
	t.Helper()
	var rec events.Record
	if err := s.Decode(events.JSON, []byte(body), &rec); err != nil {
		t.Fatalf("decode %s: %v", body, err)
	}
	if rec.Time.IsZero() {
		rec.Time = time.Unix(1_700_000_000, 0)
	}
	return &rec
}
