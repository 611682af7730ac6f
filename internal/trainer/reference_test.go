package trainer

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/vmihailenco/msgpack/v5"
)

// dataDir holds real data sets with reference figures, which are no part of the project.
const dataDir = "../../../shared/data"

func needData(t testing.TB) {
	t.Helper()
	if _, err := os.Stat(dataDir); err != nil {
		t.Skipf("the real data sets are absent: %v", err)
	}
}

// golden is what a reference implementation found on the same rows.
type golden struct {
	Splits map[string]goldenSplit `json:"splits"`
}

type goldenSplit struct {
	L2 struct {
		Coef      []float64 `json:"coef"`
		Objective float64   `json:"objective"`
		Test      struct {
			LogLoss float64 `json:"logloss"`
			AUC     float64 `json:"auc"`
		} `json:"test"`
	} `json:"l2_C1"`
	Schema []struct {
		Name   string  `json:"name"`
		Kind   string  `json:"kind"`
		Mean   float64 `json:"mean"`
		SD     float64 `json:"std"`
		Median float64 `json:"asinh_median"`
		IQR    float64 `json:"asinh_iqr"`
	} `json:"schema"`
}

func readGolden(t testing.TB, set string) golden {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dataDir, set, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// reference is a data set, with what `riskweir train` must be told about it: docs/reference.md has the same as flags.
type reference struct {
	set    string
	splits []string
	asinh  bool // the reference has the encoding asinh too
	config OfflineConfig
}

func references(t testing.TB) []reference {
	list := func(s string) []string { return strings.Split(s, ",") }
	file := func(s string) string { return filepath.Join(dataDir, s) }
	var polish []string // as the reference names them; the file has "net profit / total assets" and so on
	for i := range 64 {
		polish = append(polish, fmt.Sprintf("A%d", i+1))
	}
	polish = append(polish, "y")
	refs := []reference{
		{"german_credit", []string{SplitMod5}, false, OfflineConfig{Path: file("german_credit/german.data"), Label: "label", Positive: []string{"2"},
			Source: source.Options{Columns: list("status,duration,history,purpose,amount,savings,employment,installment_rate,personal_status," +
				"other_debtors,residence_since,property,age,other_installments,housing,existing_credits,job,liable,telephone,foreign,label")}}},
		{"taiwan_default", []string{SplitMod5}, false, taiwan()},
		{"polish_bankruptcy", []string{SplitMod5}, true, OfflineConfig{Path: file("polish_bankruptcy/5year.arff"), Label: "y",
			Source: source.Options{Columns: polish}}},
		{"bank_marketing", []string{SplitTime80, SplitMod5}, false, OfflineConfig{Path: file("bank_marketing/bank-additional-full.csv.gz"),
			Label: "y", Drop: []string{"duration"}, Missing: []string{"pdays=999"}}},
		{"vehicle_claims", []string{SplitTime80, SplitMod5}, false, OfflineConfig{Path: file("vehicle_claims/fraud_oracle.csv.gz"),
			Label: "FraudFound_P", Drop: list("Year,PolicyNumber"), Categorical: []string{"RepNumber"}, Missing: []string{"Age=0"},
			OrderBy: list("Year,Month=Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec,WeekOfMonth,~PolicyNumber")}},
		{"sba_case", []string{SplitTime80, SplitMod5}, false, OfflineConfig{Path: file("sba_case/sba_case.csv"),
			Label: "Default", Categorical: list("NAICS,NewExist,UrbanRural"), OrderBy: list("ApprovalDate,LoanNr_ChkDgt"),
			Drop: list("Selected,LoanNr_ChkDgt,City,State,Zip,Bank,BankState,ApprovalDate,ApprovalFY,Term,FranchiseCode,ChgOffDate," +
				"DisbursementDate,BalanceGross,MIS_Status,ChgOffPrinGr,New,Portion,Recession,daysterm,xx")}},
		{"bitcoin_otc", []string{SplitTime80}, false, OfflineConfig{Path: pasteOTC(t), Label: "bad"}},
	}
	if raceEnabled {
		return []reference{refs[0], refs[5]}
	}
	return refs
}

func taiwan() OfflineConfig {
	return OfflineConfig{Path: filepath.Join(dataDir, "taiwan_default/UCI_Credit_Card.csv"), Label: "Y", Drop: []string{"ID"}, Categorical: []string{"X2", "X3", "X4"}}
}

// pasteOTC writes the features beside the label, which stand in two files: bad is rating < 0.
func pasteOTC(t testing.TB) string {
	t.Helper()
	f, err := os.Open(filepath.Join(dataDir, "bitcoin_otc/features_raw.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dataDir, "bitcoin_otc/soc-sign-bitcoinotc.csv"))
	if err != nil {
		t.Fatal(err)
	}
	features, ratings := bufio.NewScanner(z), bufio.NewScanner(bytes.NewReader(raw))
	var out bytes.Buffer
	features.Scan()
	fmt.Fprintf(&out, "%s,bad\n", features.Text())
	for features.Scan() && ratings.Scan() {
		bad := 0
		if strings.HasPrefix(strings.Split(ratings.Text(), ",")[2], "-") {
			bad = 1
		}
		fmt.Fprintf(&out, "%s,%d\n", features.Text(), bad)
	}
	path := filepath.Join(t.TempDir(), "otc.csv")
	if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func train(t testing.TB, cfg OfflineConfig) Report {
	t.Helper()
	r, err := Offline(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestReference holds the whole way from a file to figures to those of another implementation: the same columns, the
// same objective and weights, ROC AUC and log-loss; and the encoding auto to plain.
func TestReference(t *testing.T) {
	needData(t)
	if testing.Short() {
		t.Skip("trains on seven data sets")
	}
	for _, ref := range references(t) {
		gold := readGolden(t, ref.set)
		for _, split := range ref.splits {
			cfg := ref.config
			cfg.Split = split
			cfg.Features.Encoding = feature.Plain
			plain := train(t, cfg)
			checkReference(t, plain, gold.Splits[split], ref.set)

			cfg.Features.Encoding = feature.AutoAsinh
			if auto := train(t, cfg); auto.Test.AUC < plain.Test.AUC-tolerance {
				t.Errorf("%s %s: AUC is %.4f with auto, %.4f with plain", ref.set, split, auto.Test.AUC, plain.Test.AUC)
			} else {
				logFigures(t, auto, ref.set)
			}
			if ref.asinh {
				cfg.Features.Encoding = feature.AllAsinh
				checkReference(t, train(t, cfg), gold.Splits[split+".asinh"], ref.set)
			}
		}
	}
}

// tolerance of ROC AUC and log-loss.
const tolerance = 0.002

func logFigures(t *testing.T, r Report, set string) {
	t.Logf("| %s | %s | %s | %d | %.12g | %.4f | %.4f |", set, r.Split, r.Encoding, r.Features, r.Objective, r.Test.LogLoss, r.Test.AUC)
}

func checkReference(t *testing.T, r Report, want goldenSplit, set string) {
	t.Helper()
	logFigures(t, r, set)
	name := fmt.Sprintf("%s %s %s", set, r.Split, r.Encoding)
	if r.Features != len(want.Schema) || r.Invalid+r.Unlabelled != 0 {
		t.Fatalf("%s: %d features, %d invalid, %d unlabelled; want %d, 0, 0 (%q)", name, r.Features, r.Invalid, r.Unlabelled, len(want.Schema), r.Faults)
	}
	if got, want := r.Test, want.L2.Test; math.Abs(got.AUC-want.AUC) > tolerance || math.Abs(got.LogLoss-want.LogLoss) > tolerance {
		t.Errorf("%s: AUC %.4f, log-loss %.4f; want %.4f, %.4f", name, got.AUC, got.LogLoss, want.AUC, want.LogLoss)
	}
	if got, want := r.Objective, want.L2.Objective; math.Abs(got-want) > 1e-10*want {
		t.Errorf("%s: objective %.12g, want %.12g", name, got, want)
	}
	transforms := map[string]feature.Transform{}
	for _, f := range r.Fit.Spec.Fields {
		transforms[f.Field] = f
	}
	weights := map[string]float64{}
	for i, c := range r.Fit.Columns {
		weights[c.Name] = r.Fit.Model.Weights[i]
	}
	for i, c := range want.Schema { // the reference has the same columns in another order
		w, ok := weights[c.Name]
		if !ok || math.Abs(w-want.L2.Coef[i]) > 1e-7*math.Abs(want.L2.Coef[i]) {
			t.Errorf("%s: weight of %s is %v (%t), want %v", name, c.Name, w, ok, want.L2.Coef[i])
		}
		if f := transforms[c.Name]; c.Kind == "numeric" && !(same(f.Mean, c.Mean) && same(f.SD, c.SD) && same(f.Median, c.Median) && same(f.IQR, c.IQR)) {
			t.Errorf("%s: %s is encoded by %+v, want %+v", name, c.Name, f, c)
		}
	}
}

// same says that two numbers agree to 1e-12, relative to the larger or absolute.
func same(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(1, math.Abs(a), math.Abs(b)) }

// TestReferenceVectors holds every number of the encoded rows to the reference's.
func TestReferenceVectors(t *testing.T) {
	needData(t)
	if testing.Short() {
		t.Skip("encodes seven data sets")
	}
	for _, ref := range references(t) {
		for _, split := range ref.splits {
			cfg := ref.config
			cfg.Split = split
			_, data, order, err := cfg.load(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			train, _ := partition(split, order)
			spec, err := feature.Infer(data.Schema(), data.Records(train), feature.Options{Encoding: feature.Plain})
			if err != nil {
				t.Fatal(err)
			}
			enc, err := spec.Compile(data.Schema())
			if err != nil {
				t.Fatal(err)
			}
			paths, err := filepath.Glob(filepath.Join(dataDir, ref.set, "design."+split+"*.csv.gz"))
			if err != nil || len(paths) != 1 {
				t.Fatalf("design matrix of %s %s: %q, %v", ref.set, split, paths, err)
			}
			r, err := source.Open(paths[0], source.Options{})
			if err != nil {
				t.Fatal(err)
			}
			at := map[string]int{}
			for i, c := range enc.Columns() {
				at[c.Name] = i
			}
			x, n := make([]float64, enc.Dim()), 0
			for rec := range data.Records(order) {
				row, err := r.Next()
				if err == io.EOF {
					break // the first 1000 rows only
				} else if err != nil {
					t.Fatal(err)
				}
				enc.Encode(x, rec)
				for j, c := range r.Columns()[2:] { // after y, is_test
					want, err := strconv.ParseFloat(row.Cells[2+j], 64)
					i, ok := at[c]
					if err != nil || !ok || !same(x[i], want) {
						t.Fatalf("%s %s row %d: %s is %v, want %v (%v)", ref.set, split, n, c, x[i], want, err)
					}
				}
				if want := row.Cells[0]; want != fmt.Sprint(data.Label(order[n])) {
					t.Fatalf("%s %s row %d: label is %v, want %s", ref.set, split, n, data.Label(order[n]), want)
				}
				n++
			}
			if n < 1000 || len(at) != len(r.Columns())-2 {
				t.Errorf("%s %s: %d rows of %d columns are compared, want 1000 or more, of %d", ref.set, split, n, len(at), len(r.Columns())-2)
			}
			r.Close()
		}
	}
}

// TestEventsScoreAsRowsDo: the probability of a row that went as an event through JSON or msgpack, with the spec as it comes
// in an artifact, is the offline one, bit for bit.
func TestEventsScoreAsRowsDo(t *testing.T) {
	needData(t)
	rows := 10_000
	if raceEnabled {
		rows = 1000
	}
	cfg := taiwan()
	cfg.Split = SplitMod5
	rep := train(t, cfg)
	_, data, order, err := cfg.load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	spec, schema, enc := reread(t, rep)
	offline := data.predict(enc, rep.Fit.Model, order[:rows])
	written := predictions(t, rep)

	r, err := source.Open(cfg.Path, source.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var rec events.Record
	var body []byte
	x := make([]float64, enc.Dim())
	tested := 0
	for i := range rows {
		row, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if body, err = schema.AppendRow(body[:0], r.Columns(), row.Cells); err != nil {
			t.Fatal(err)
		}
		packed, err := msgpack.Marshal(nativeMap(schema, r.Columns(), row.Cells))
		if err != nil {
			t.Fatal(err)
		}
		for encoding, body := range map[events.Encoding][]byte{events.JSON: body, events.Msgpack: packed} {
			if err := schema.Decode(encoding, body, &rec); err != nil {
				t.Fatal(err)
			}
			enc.Encode(x, &rec)
			if got := rep.Fit.Model.Prob(x); math.Float64bits(got) != math.Float64bits(offline[i]) {
				t.Fatalf("row %d: %v as %s, %v offline", i, got, encoding, offline[i])
			}
		}
		if p, ok := written[i]; ok {
			tested++
			if math.Float64bits(p) != math.Float64bits(offline[i]) {
				t.Fatalf("row %d: %v in the predictions, %v offline", i, p, offline[i])
			}
		}
	}
	if tested != rows/5 {
		t.Errorf("%d of the rows are test rows, want %d", tested, rows/5)
	}
	if spec.Fingerprint() != rep.Spec {
		t.Errorf("fingerprint is %s, the report says %s", spec.Fingerprint(), rep.Spec)
	}
}

// reread makes an encoder as a scorer does: from the spec's text and the contract's.
func reread(t *testing.T, rep Report) (feature.Spec, *events.Schema, *feature.Encoder) {
	t.Helper()
	text, err := rep.Fit.Spec.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	spec, err := feature.ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = rep.Contract.YAML(); err != nil {
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
	enc, err := spec.Compile(schema)
	if err != nil {
		t.Fatal(err)
	}
	return spec, schema, enc
}

// predictions by row, as WritePredictions wrote them.
func predictions(t *testing.T, rep Report) map[int]float64 {
	t.Helper()
	var b bytes.Buffer
	if err := rep.WritePredictions(&b); err != nil {
		t.Fatal(err)
	}
	ps := map[int]float64{}
	for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n")[1:] {
		c := strings.Split(line, ",")
		row, err1 := strconv.Atoi(c[0])
		p, err2 := strconv.ParseFloat(c[2], 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		ps[row] = p
	}
	return ps
}

// nativeMap has numbers as numbers, as a program that publishes msgpack would.
func nativeMap(schema *events.Schema, columns, cells []string) map[string]any {
	m := map[string]any{}
	for i, c := range columns {
		m[c] = cells[i]
		for _, f := range schema.Contract.Fields {
			if f.Name == c && f.Type == events.Number {
				if n, err := strconv.ParseInt(cells[i], 10, 64); err == nil {
					m[c] = n
				} else if x, err := strconv.ParseFloat(cells[i], 64); err == nil {
					m[c] = x
				}
			}
		}
	}
	return m
}
