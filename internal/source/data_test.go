package source

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// dataDir holds real files, which are no part of the project.
const dataDir = "../../../shared/data"

func TestRealFiles(t *testing.T) {
	if _, err := os.Stat(dataDir); err != nil {
		t.Skipf("the real data sets are absent: %v", err)
	}
	for _, c := range []struct {
		file          string
		options       Options
		format        Format
		rows, columns int
	}{
		{"bank_marketing/bank-additional-full.csv.gz", Options{}, CSV, 41188, 21},
		{"taiwan_default/UCI_Credit_Card.csv", Options{}, CSV, 30000, 25},
		{"german_credit/german.data", Options{}, CSV, 1000, 21},
		{"polish_bankruptcy/5year.arff", Options{}, ARFF, 5910, 65},
		{"vehicle_claims/fraud_oracle.csv.gz", Options{}, CSV, 15420, 33},
		{"sba_case/sba_case.csv", Options{}, CSV, 2102, 34},
		{"bitcoin_otc/soc-sign-bitcoinotc.csv", Options{}, CSV, 35592, 4},
	} {
		r, err := Open(filepath.Join(dataDir, c.file), c.options)
		if err != nil {
			t.Error(err)
			continue
		}
		n := 0
		for {
			if _, err = r.Next(); err != nil {
				break
			}
			n++
		}
		if err != io.EOF {
			t.Error(err)
		}
		read, size := r.Progress()
		if n != c.rows || len(r.Columns()) != c.columns || r.Format() != c.format || read != size {
			t.Errorf("%s: %s, %d rows, %d columns %q, %d of %d bytes; want %s, %d, %d", c.file, r.Format(), n, len(r.Columns()), r.Columns(), read, size, c.format, c.rows, c.columns)
		}
		r.Close()
	}
}

func BenchmarkNext(b *testing.B) {
	path := filepath.Join(dataDir, "taiwan_default/UCI_Credit_Card.csv")
	info, err := os.Stat(path)
	if err != nil {
		b.Skip(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		r, err := Open(path, Options{})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.Next()
		}
		r.Close()
	}
}
