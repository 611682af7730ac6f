package source

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

// endless is n bytes of one text, again and again.
type endless struct {
	text string
	left int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && e.left > 0 {
		k := copy(p[n:min(len(p), n+e.left)], e.text)
		n, e.left = n+k, e.left-k
	}
	return n, nil
}

// A small file that unpacks to hundreds of times as much is read row by row: as one row it is refused, as many it needs the room of one.
func TestFilesThatUnpackToMuch(t *testing.T) {
	const size = 64 << 20
	for name, x := range map[string]struct {
		text string
		bad  bool
	}{
		"one row":      {strings.Repeat("x", 4096), true},
		"many rows":    {strings.Repeat("1,2\n", 1024), false},
		"many columns": {strings.Repeat("1,", 2048), true},
		"an open cell": {"\"" + strings.Repeat("x", 4095), true},
	} {
		t.Run(name, func(t *testing.T) {
			var packed bytes.Buffer
			w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(w, io.MultiReader(strings.NewReader("a,b\n"), &endless{x.text, size})); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := New("bomb.csv.gz", &packed, Options{Format: CSV})
			if err != nil {
				t.Fatal(err)
			}
			var before, peak runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			rows, bad := 0, 0
			for {
				_, err := r.Next()
				if err == io.EOF {
					break
				}
				if _, isBad := errors.AsType[*RowError](err); isBad {
					bad++
				} else if err != nil {
					bad++
					break
				}
				if rows++; rows%1_000_000 == 0 {
					runtime.ReadMemStats(&peak)
					if peak.HeapAlloc > before.HeapAlloc+64<<20 {
						t.Fatalf("%d MiB after %d rows", peak.HeapAlloc>>20, rows)
					}
				}
			}
			runtime.ReadMemStats(&peak)
			if peak.HeapSys > before.HeapSys+128<<20 {
				t.Errorf("the heap grew by %d MiB", (peak.HeapSys-before.HeapSys)>>20)
			}
			if x.bad != (bad > 0) || !x.bad && rows < size/4 {
				t.Errorf("%d rows, %d bad", rows, bad)
			}
		})
	}
}
