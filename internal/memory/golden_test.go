package memory

import (
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

const otcDir = "../../../shared/data/bitcoin_otc/"

func readContract(t testing.TB, file string) *Plan {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c, err := events.ParseContract(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := events.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rows of a CSV that is absent from a checkout without the reference data.
func rows(t testing.TB, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no reference data at %s", file)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	if len(file) > 3 && file[len(file)-3:] == ".gz" {
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		r = csv.NewReader(z)
	}
	all, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The 19 features of the Bitcoin OTC ratings, from a contract, against those that another program worked out.
func TestGolden(t *testing.T) {
	ratings, golden := rows(t, otcDir+"soc-sign-bitcoinotc.csv"), rows(t, otcDir+"features_raw.csv.gz")
	p := readContract(t, "../../testdata/kinds/otc.yaml")
	s := New(p)
	var names []string
	for _, f := range p.Schema.Contract.Memory.Features {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, golden[0]) {
		t.Fatalf("features %v, golden %v", names, golden[0])
	}
	var rec events.Record
	out := make([]float64, p.Width())
	worst := 0.0
	for i, row := range ratings {
		at, err := strconv.ParseInt(row[3], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		body := fmt.Sprintf(`{"rater":%q,"ratee":%q,"rating":%s,"at":%q}`, row[0], row[1], row[2], time.Unix(at, 0).UTC().Format(time.RFC3339))
		if err := p.Schema.Decode(events.JSON, []byte(body), &rec); err != nil {
			t.Fatal(err)
		}
		s.Step(Event{Record: &rec}, out)
		for j, x := range out {
			want, err := strconv.ParseFloat(golden[i+1][j], 64)
			if err != nil {
				t.Fatal(err)
			}
			if d := math.Abs(x - want); !(d <= 1e-12) {
				t.Fatalf("row %d, %s: %v, want %v", i, names[j], x, want)
			} else {
				worst = max(worst, d)
			}
		}
	}
	if len(ratings) != 35592 {
		t.Errorf("%d rows", len(ratings))
	}
	t.Logf("%d rows, furthest %.3g; %d keys, %d bytes of state, %.0f each", len(ratings), worst, s.Keys(), s.Bytes(), float64(s.Bytes())/float64(s.Keys()))
}
