package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

func writeFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// claims is a file of n rows: bad where x is large, more so on the road; a week apart, written latest first.
func claims(n int) string {
	var b strings.Builder
	b.WriteString("id,when,x,place,postcode,age,verdict\n")
	for i := n - 1; i >= 0; i-- {
		x := math.Sin(float64(i)*1.7) * 3
		verdict := "fine"
		if x+float64(i%3) > 1.5 {
			verdict = "fraud"
		}
		age := strconv.Itoa(20 + i%50)
		if i%10 == 0 {
			age = "-1"
		}
		fmt.Fprintf(&b, "%d,2026-01-01T%02d:%02d:00Z,%g,%s,%d,%s,%s\n", i, i/60, i%60, x, []string{"road", "car park", "yard"}[i%3], 1000+i%4, age, verdict)
	}
	return b.String()
}

func claimsConfig(path string) OfflineConfig {
	return OfflineConfig{Path: path, Label: "verdict", Positive: []string{"fraud"}, Drop: []string{"id"}, Categorical: []string{"postcode"},
		Missing: []string{"age=-1"}, Time: "when", Split: SplitTime80}
}

func TestOfflineReadsAFile(t *testing.T) {
	cfg := claimsConfig(writeFile(t, "claims.csv", claims(600)))
	cfg.Protected = []string{"age"}
	r := train(t, cfg)
	if r.Rows != 600 || r.Invalid != 0 || r.Unlabelled != 0 || r.Train.N != 480 || r.Test.N != 120 || r.Test.AUC < 0.9 || r.Encoding != feature.AutoAsinh {
		t.Errorf("report is %+v", r)
	}
	types := map[string]events.FieldType{}
	for _, f := range r.Contract.Fields {
		types[f.Name] = f.Type
	}
	if want := map[string]events.FieldType{"x": events.Number, "place": events.Category, "postcode": events.Category, "age": events.Number}; !reflect.DeepEqual(types, want) {
		t.Errorf("fields are %v, want %v", types, want)
	}
	for _, c := range r.Fit.Columns {
		if c.Field == "age" || c.Field == "id" || c.Field == "verdict" {
			t.Errorf("the model reads %s", c.Name)
		}
	}
	if got, want := r.Contract.Label, (&events.LabelColumn{Column: "verdict", Positive: []string{"fraud"}}); !reflect.DeepEqual(got, want) || r.Contract.Time != "when" {
		t.Errorf("label is %+v, time %q; want %+v, when", got, r.Contract.Time, want)
	}
	// Ordered by time, the last row of the file is the first to train on.
	cfg.OrderBy = []string{"when"}
	if again := train(t, cfg); again.Test != r.Test {
		t.Errorf("ordered by the time's text: %+v, by time: %+v", again.Test, r.Test)
	}
	cfg.OrderBy, cfg.Protected, cfg.Time, cfg.Drop = []string{"id"}, nil, "", []string{"when", "id"}
	with := train(t, cfg)
	if i := indexOf(with.Fit.Columns, "age__missing"); i < 0 {
		t.Errorf("columns are %v, want age__missing among them", with.Fit.Columns)
	}

	// The contract that was made gives the same again.
	cfg = claimsConfig(cfg.Path)
	r = train(t, cfg)
	given := train(t, OfflineConfig{Path: cfg.Path, Contract: &r.Contract, Split: SplitTime80})
	if given.Spec != r.Spec || given.Test != r.Test {
		t.Errorf("with the contract given: %+v, without: %+v", given.Test, r.Test)
	}
}

func indexOf(cs []feature.Column, name string) int {
	for i, c := range cs {
		if c.Name == name {
			return i
		}
	}
	return -1
}

func TestOfflineCountsWhatItLeavesOut(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(claims(300)), "\n")
	lines[5] = strings.Replace(lines[5], "2026-01-01T", "yesterday", 1)
	lines[6] += ",one cell too many"
	lines[7] = lines[7][:strings.LastIndex(lines[7], ",")+1]
	cells := strings.Split(lines[8], ",")
	cells[1] = ""
	lines[8] = strings.Join(cells, ",")
	r := train(t, claimsConfig(writeFile(t, "claims.csv", strings.Join(lines, "\n"))))
	if r.Rows != 300 || r.Invalid != 3 || r.Unlabelled != 1 || r.Train.N+r.Test.N != 296 || len(r.Faults) != 3 {
		t.Errorf("%d rows, %d invalid, %d unlabelled, %d + %d used, faults %q; want 300, 3, 1, 296", r.Rows, r.Invalid, r.Unlabelled, r.Train.N, r.Test.N, r.Faults)
	}
	for i, want := range []string{"claims.csv:6:", "claims.csv:7:", "claims.csv:9:"} {
		if !strings.Contains(r.Faults[i], want) {
			t.Errorf("fault %q, want it to name %s", r.Faults[i], want)
		}
	}
}

func TestOfflineErrors(t *testing.T) {
	path := writeFile(t, "claims.csv", claims(100))
	contract := train(t, claimsConfig(path)).Contract
	for want, change := range map[string]func(*OfflineConfig){
		"not stdin":            func(c *OfflineConfig) { c.Path = "-" },
		"no such file":         func(c *OfflineConfig) { c.Path += ".gone" },
		"no label":             func(c *OfflineConfig) { c.Label = "" },
		"no column outcome":    func(c *OfflineConfig) { c.Label = "outcome" },
		"no column ID":         func(c *OfflineConfig) { c.Drop = []string{"ID"} },
		`missing "age"`:        func(c *OfflineConfig) { c.Missing = []string{"age"} },
		`never "Fraud"`:        func(c *OfflineConfig) { c.Positive = []string{"Fraud"} },
		"say which of them":    func(c *OfflineConfig) { c.Positive = nil },
		`split "half"`:         func(c *OfflineConfig) { c.Split = "half" },
		`encoding "log"`:       func(c *OfflineConfig) { c.Features.Encoding = "log" },
		`order "~x=1|2"`:       func(c *OfflineConfig) { c.OrderBy = []string{"~x=1|2"} },
		"order by nothing":     func(c *OfflineConfig) { c.OrderBy = []string{"nothing"} },
		`"yard" is not one of`: func(c *OfflineConfig) { c.OrderBy = []string{"place=road|car park"} },
		"want whole numbers":   func(c *OfflineConfig) { c.OrderBy = []string{"~place"} },
		"A contract says":      func(c *OfflineConfig) { c.Contract = &contract },
		"too few labels":       func(c *OfflineConfig) { c.Label, c.Positive = "place", []string{"road", "yard", "car park"} },
		"none of 100 rows": func(c *OfflineConfig) {
			c.Time, c.Contract, c.Drop, c.Categorical, c.Missing = "", strict(contract), nil, nil, nil
		},
		"zone":                         func(c *OfflineConfig) { c.Zone = "Mars/Base" },
		"names are given for 7 column": func(c *OfflineConfig) { c.Source = source.Options{Columns: []string{"a"}} },
	} {
		cfg := claimsConfig(path)
		change(&cfg)
		if _, err := Offline(context.Background(), cfg); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("error is %v, want one that says %q", err, want)
		}
	}
	if _, err := Offline(context.Background(), claimsConfig(writeFile(t, "empty.csv", "x,verdict\n"))); err == nil {
		t.Error("a file without rows was trained on")
	}
	if _, err := Offline(context.Background(), claimsConfig(writeFile(t, "rows.jsonl", `{"x":1}`))); err == nil || !strings.Contains(err.Error(), "CSV") {
		t.Errorf("JSON lines: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Offline(ctx, claimsConfig(path)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// strict takes numbers where the file has places.
func strict(c events.Contract) *events.Contract {
	c.Fields = []events.Field{{Name: "place", Type: events.Number}}
	return &c
}

func TestOrderKeys(t *testing.T) {
	columns := []string{"year", "month", "n"}
	rows := [][]string{{"9", "Feb", "1"}, {"10", "Jan", "2"}, {"9", "Jan", "3"}, {"9", "Feb", "4"}, {"10", "Jan", "5"}}
	for _, c := range []struct {
		keys string
		want []int
	}{
		{"", []int{0, 1, 2, 3, 4}},
		{"year", []int{0, 2, 3, 1, 4}},
		{"year,month=Jan|Feb", []int{2, 0, 3, 1, 4}},
		{"month", []int{0, 3, 1, 2, 4}},                 // as text
		{"year,month=Jan|Feb,~n", []int{2, 3, 0, 1, 4}}, // outputs 2 to 6 are 6e78..., 06c4..., f88b..., 1b39..., 53cb...
	} {
		o := &order{}
		for _, k := range strings.Split(c.keys, ",") {
			if k == "" {
				continue
			}
			key, err := ParseOrderKey(k)
			if err != nil {
				t.Fatal(err)
			}
			o.keys = append(o.keys, orderColumn{OrderKey: key})
		}
		var rec events.Record
		for _, r := range rows {
			o.add(columns, r, rec.Time)
		}
		if got, err := o.sorted(); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("order by %q is %v (%v), want %v", c.keys, got, err, c.want)
		}
	}
	// The first outputs of splitmix64 seeded with 0.
	for i, want := range []uint64{0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f} {
		if got := splitmix64(uint64(i)); got != want {
			t.Errorf("splitmix64(%d) is %x, want %x", i, got, want)
		}
	}
}

func TestReportIsReproducible(t *testing.T) {
	cfg := claimsConfig(writeFile(t, "claims.csv", claims(300)))
	var texts, jsons []string
	var rep Report
	for range 2 {
		rep = train(t, cfg)
		var b bytes.Buffer
		if err := rep.WriteText(&b); err != nil {
			t.Fatal(err)
		}
		j, err := json.Marshal(rep)
		if err != nil {
			t.Fatal(err)
		}
		texts, jsons = append(texts, b.String()), append(jsons, string(j))
	}
	if texts[0] != texts[1] || jsons[0] != jsons[1] {
		t.Error("the report of the same file differs")
	}
	for _, want := range []string{"300 rows (csv)", `bad is "fraud"`, "split time80", "AUC", fmt.Sprintf("%.4f", rep.Test.AUC), fmt.Sprintf("%.4f", rep.Test.LogLoss)} {
		if !strings.Contains(texts[0], want) {
			t.Errorf("the report has no %q:\n%s", want, texts[0])
		}
	}
	share := float64(rep.Train.Positives) / float64(rep.Train.N)
	want := 0.0
	for _, y := range rep.labels {
		want -= (y*math.Log(share) + (1-y)*math.Log(1-share)) / float64(rep.Test.N)
	}
	if math.Abs(rep.BaseRate-want) > 1e-12 {
		t.Errorf("base rate has log-loss %v, want %v", rep.BaseRate, want)
	}
	if err := rep.WriteText(failing{}); !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := rep.WritePredictions(failing{}); !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
	ps := predictions(t, rep)
	for i, p := range rep.Fit.P {
		if got := ps[240+i]; math.Float64bits(got) != math.Float64bits(p) {
			t.Errorf("row %d has %v in the predictions, %v in the report", 240+i, got, p)
		}
	}
}

var errFull = errors.New("disk full")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFull }
