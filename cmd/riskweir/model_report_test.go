package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const reportContract = `
kind: loan
description: Consumer loans; the outcome is a default within a year.
id: id
entity: customer
time: at
label: {column: "default", positive: ["1"]}
fields:
  - {name: amount, type: number, sign: "+"}
  - {name: income, type: number, sign: "+"}
  - {name: purpose, type: category}
  - {name: region, type: category, protected: true}
  - {name: age, type: number, protected: true}
`

// reportRows are loans of which those of region south are worse, and income lowers the risk, whatever the contract expects.
func reportRows(n int) (rows [][]string) {
	r := rand.New(rand.NewPCG(7, 8))
	for i := range n {
		region := []string{"north", "south", "east"}[r.IntN(3)]
		if x := r.Float64(); x < 0.04 {
			region = []string{"<west>", "isles"}[int(50*x)]
		}
		amount, income, purpose := 1000+9000*r.Float64(), 1500+3000*r.Float64(), []string{"car", "home", "other"}[r.IntN(3)]
		z := -2.2 + (amount-5000)/3000 - (income-3000)/1200
		if region == "south" {
			z += 0.8
		}
		bad := "0"
		if r.Float64() < 1/(1+math.Exp(-z)) {
			bad = "1"
		}
		rows = append(rows, []string{fmt.Sprint("l", i), fmt.Sprint("c", i%400), fmt.Sprintf("2026-%02d-%02dT%02d:00:00Z", 1+i*6/n, 1+i*6*27/n%27, i%24),
			fmt.Sprintf("%.2f", amount), fmt.Sprintf("%.2f", income), purpose, region, fmt.Sprint(18 + r.IntN(60)), bad})
	}
	return rows
}

// A report is made of the streams, and of a file; both hold what a validator looks for.
func TestModelReport(t *testing.T) {
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	dir := os.Getenv("RISKWEIR_KEEP_REPORTS") // to look at them
	if dir == "" {
		dir = t.TempDir()
	}
	c, err := events.ParseContract([]byte(reportContract))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := topology.ApplyKind(ctx, js, c, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	contract, data := filepath.Join(dir, "loan.yaml"), filepath.Join(dir, "loans.csv")
	text := "id,customer,at,amount,income,purpose,region,age,default\n"
	rows := reportRows(3000)
	for _, row := range rows {
		text += strings.Join(row, ",") + "\n"
	}
	for file, body := range map[string]string{contract: reportContract, data: text} {
		if err := os.WriteFile(file, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	step := func(want int, says string, args ...string) string {
		t.Helper()
		out, errOut, code := riskweir(t, append(args, "--nats", cluster.URL())...)
		if code != want || !strings.Contains(out+errOut, says) {
			t.Fatalf("%v: exit status %d, want %d and %q:\n%s%s", args, code, want, says, out, errOut)
		}
		return out
	}
	step(0, "published loan.v000001", "train", data, "--contract", contract, "--split", "time80", "--publish", "--unsigned-models")
	step(2, "no event of loan has a known outcome yet", "model", "report", "loan", "v1")

	page := func(name string, args ...string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		step(0, "measured on", append([]string{"model", "report", "loan", "v1", "--out", file}, args...)...)
		html, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(html)
	}
	has := func(what, html string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(html, want) {
				t.Errorf("%s: no %q", what, want)
			}
		}
	}
	ofFile := page("file.html", "--file", data, "--split", "time80")
	has("of the file", ofFile, "Consumer loans", "fitted to", "tested by, at training", "1 of 2 weights have another sign than expected, 1 of them surely",
		"<svg", "south", "and more", "none: a scorer that pins a key refuses it", "None: the version has not been in force", "VIF")
	if strings.Contains(ofFile, "<west>") {
		t.Error("a value of the data stands in the page as it is, and may be markup")
	}
	if strings.Contains(ofFile, "west") || strings.Contains(ofFile, "isles") {
		t.Error("a group of a dozen records is shown")
	}

	step(0, "", "ingest", data, "--kind", "loan", "--label-delay", "1ms")
	step(1, "loan.v000001", "model", "promote", "loan", "v1", "--reason", "the first <b>", "--by", "ann", "--timeout", "10ms")
	streams := page("streams.html")
	has("of the streams", streams, "since then", "champion", "ann", "the first &lt;b&gt;", "which of these records it had seen cannot be told")
	if strings.Contains(streams, "http://") || strings.Contains(streams, "https://") || strings.Contains(streams, "<script") {
		t.Error("the page reaches for something outside it")
	}
	step(2, "model list loan", "model", "report", "loan", "v9")
}
