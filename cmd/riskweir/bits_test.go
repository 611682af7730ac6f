package main

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/pkg/events"
)

// offline returns the probability of every row by its id, as 'riskweir train' computes it: no JSON, no broker, no artifact.
func offline(t *testing.T, file string, contract events.Contract, fit trainer.FitResult) map[string]float64 {
	t.Helper()
	schema, err := events.Compile(contract)
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := fit.Spec.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	r, err := source.Open(file, source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := map[string]float64{}
	x := make([]float64, encoder.Dim())
	var rec events.Record
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		rec.Reset(schema)
		for i, column := range r.Columns() {
			if err := schema.SetText(&rec, column, row.Cells[i]); err != nil {
				t.Fatal(err)
			}
		}
		encoder.Encode(x, &rec)
		p[string(rec.ID)] = fit.Model.Prob(x)
	}
}

// TestScoresEqualOffline sends 30,000 real applications through the whole system, scored with a model that was trained and
// published offline: every probability on the wire has the bits of the offline one.
func TestScoresEqualOffline(t *testing.T) {
	t.Parallel()
	file := filepath.Join("..", "..", "..", "shared", "data", "taiwan_default", "UCI_Credit_Card.csv")
	contractFile := filepath.Join("..", "..", "testdata", "kinds", "taiwan.yaml")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("%s is not there: the data sets lie beside the project, not in it", file)
	}
	contract, err := readContract(contractFile)
	if err != nil {
		t.Fatal(err)
	}
	report, err := trainer.Offline(t.Context(), trainer.OfflineConfig{Path: file, Contract: &contract, Split: trainer.SplitMod5})
	if err != nil {
		t.Fatal(err)
	}
	want := offline(t, file, contract, report.Fit)

	s := up(t, upConfig{nodes: 1, dir: t.TempDir(), source: "none"})
	at := []string{"--context", s.context}
	for _, args := range [][]string{
		{"kind", "apply", contractFile},
		{"train", file, "--contract", contractFile, "--split", "mod5", "--single", "--publish", "--promote"},
		{"ingest", file, "--kind", "taiwan", "--label-delay=-1s"},
		{"verify", "taiwan", "--source", file, "--wait", "1m"},
	} {
		if out, errOut, code := riskweir(t, append(args, at...)...); code != 0 {
			t.Fatalf("%v: exit status %d: %s%s", args, code, out, errOut)
		}
	}
	got := scores(t, s, "taiwan")
	if len(got) != 30_000 || len(want) != 30_000 {
		t.Fatalf("%d scores of %d rows, want 30000", len(got), len(want))
	}
	different := 0
	for _, score := range got {
		if p, ok := want[score.ID]; !ok || math.Float64bits(p) != math.Float64bits(score.P) || score.Model != "taiwan.v000001" {
			if different++; different <= 5 {
				t.Errorf("row %s: scored %v with %q, offline %v", score.ID, score.P, score.Model, p)
			}
		}
	}
	t.Logf("%d scores, %d differ", len(got), different)
}
