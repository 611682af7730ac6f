package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/pkg/events"
)

// Thefts of the simulated bank are found much better by one who remembers what card and terminal did before: three days of 20,000
// payments, every theft known, the last fifth is test.
func TestMemoryFindsThefts(t *testing.T) {
	t.Parallel()
	contract, err := readContract("../../testdata/kinds/payment_memory.yaml")
	if err != nil {
		t.Fatal(err)
	}
	columns := []string{contract.ID, contract.Entity, contract.Time, contract.Label.Column}
	for _, f := range contract.Fields {
		columns = append(columns, f.Name)
	}
	file := filepath.Join(t.TempDir(), "payments.csv")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := csv.NewWriter(f)
	rows := [][]string{columns}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	g := sim.New(sim.Config{Seed: 1, Start: at})
	for range 60_000 {
		at = at.Add(24 * time.Hour / 20_000)
		e := g.Next(at)
		dec := json.NewDecoder(bytes.NewReader(e.Body))
		dec.UseNumber()
		body := map[string]any{}
		if err := dec.Decode(&body); err != nil {
			t.Fatal(err)
		}
		body[contract.Label.Column] = map[bool]int{true: 1}[e.Fraud]
		row := make([]string, len(columns))
		for i, c := range columns {
			if v, ok := body[c]; ok {
				row[i] = fmt.Sprint(v)
			}
		}
		rows = append(rows, row)
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	auc := func(c events.Contract) float64 {
		t.Helper()
		r, err := trainer.Offline(t.Context(), trainer.OfflineConfig{Path: file, Contract: &c, Split: trainer.SplitTime80})
		if err != nil {
			t.Fatal(err)
		}
		return r.Test.AUC
	}
	with := auc(contract)
	contract.Memory = nil
	without := auc(contract)
	t.Logf("AUC %.4f with memory, %.4f without", with, without)
	if with-without < 0.05 {
		t.Error("want 0.05 more")
	}
}
