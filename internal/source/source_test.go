package source

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// got is what a file gave, a line a row: index, line, end, then its cells or what was wrong.
func read(t *testing.T, r *Reader) (rows []string) {
	t.Helper()
	for {
		row, err := r.Next()
		bad, isBad := errors.AsType[*RowError](err)
		switch {
		case err == io.EOF:
			return rows
		case isBad:
			rows = append(rows, fmt.Sprintf("%d:%d:%d !%s", row.Index, row.Line, row.End, bad.Reason))
		case err != nil:
			t.Fatal(err)
		case row.JSON != nil:
			rows = append(rows, fmt.Sprintf("%d:%d:%d %s", row.Index, row.Line, row.End, row.JSON))
		default:
			rows = append(rows, fmt.Sprintf("%d:%d:%d %q", row.Index, row.Line, row.End, row.Cells))
		}
	}
}

func zip(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var tricky = []struct {
	name, file, text string
	options          Options
	columns          []string
	rows             []string
}{
	{name: "plain", file: "a.csv", text: "a,b\n1,2\n3,4\n",
		columns: []string{"a", "b"}, rows: []string{`0:2:8 ["1" "2"]`, `1:3:12 ["3" "4"]`}},
	{name: "BOM, CRLF, no last line end", file: "a.csv", text: "\xef\xbb\xbfa,b\r\n1,2\r\n3,4",
		columns: []string{"a", "b"}, rows: []string{`0:2:13 ["1" "2"]`, `1:3:16 ["3" "4"]`}},
	{name: "quotes, a line end inside them, blank lines", file: "a.csv", text: "\"a\",\"b \"\"x\"\"\"\n\n\"1\r\n2\",\"\"\n\r\n,\"3,4\"\n",
		columns: []string{"a", `b "x"`}, rows: []string{`0:3:25 ["1\n2" ""]`, `1:6:34 ["" "3,4"]`}},
	{name: "semicolons, decimal commas", file: "a.csv", text: "a;b;c\n1,5;2,5;3\n1,5;2,5;4\n",
		columns: []string{"a", "b", "c"}, rows: []string{`0:2:16 ["1,5" "2,5" "3"]`, `1:3:26 ["1,5" "2,5" "4"]`}},
	{name: "tabs", file: "a.tsv", text: "a\tb,c\n1\t2,3\n",
		columns: []string{"a", "b,c"}, rows: []string{`0:2:12 ["1" "2,3"]`}},
	{name: "bars", file: "noending", text: "a|b\n1|2\n",
		columns: []string{"a", "b"}, rows: []string{`0:2:8 ["1" "2"]`}},
	{name: "one column", file: "a.csv", text: "a\n1 2\n",
		columns: []string{"a"}, rows: []string{`0:2:6 ["1 2"]`}},
	{name: "no header", file: "a.csv", text: "6,2\n7,3\n", options: Options{Header: HeaderNo},
		columns: []string{"c1", "c2"}, rows: []string{`0:1:4 ["6" "2"]`, `1:2:8 ["7" "3"]`}},
	{name: "a number in the first row", file: "a.csv", text: "x,-3.5\n7,3\n",
		columns: []string{"c1", "c2"}, rows: []string{`0:1:7 ["x" "-3.5"]`, `1:2:11 ["7" "3"]`}},
	{name: "given names, no header", file: "a.csv", text: "6,2\n", options: Options{Columns: []string{"x", "y"}},
		columns: []string{"x", "y"}, rows: []string{`0:1:4 ["6" "2"]`}},
	{name: "given names instead of the header", file: "a.csv", text: "a,b\n6,2\n", options: Options{Header: HeaderYes, Columns: []string{"x", "y"}},
		columns: []string{"x", "y"}, rows: []string{`0:2:8 ["6" "2"]`}},
	{name: "empty names", file: "a.csv", text: ",b\n6,2\n",
		columns: []string{"c1", "b"}, rows: []string{`0:2:7 ["6" "2"]`}},
	{name: "wrong number of cells", file: "a.csv", text: "a,b\n1\n1,2,3\n1,2\n",
		columns: []string{"a", "b"}, rows: []string{`0:2:6 !1 cells, want 2`, `1:3:12 !3 cells, want 2`, `2:4:16 ["1" "2"]`}},
	{name: "stray quotes take their line only", file: "a.csv", text: "a,b\n\"1,2\n3,x\"y\n\"5\"6,7\n8,9\n\"10,11\n",
		columns: []string{"a", "b"}, rows: []string{
			`0:2:9 !cell 1: text behind the closing quote`,
			"1:3:15 !a quote inside a cell that does not begin with one: write \"...\" around the cell and \"\" for the quote",
			`2:4:22 !cell 1: text behind the closing quote`, `3:5:26 ["8" "9"]`, `4:6:33 !a quote is opened and not closed`}},
	{name: "not UTF-8", file: "a.csv", text: "a\n\xff\nb\n",
		columns: []string{"a"}, rows: []string{`0:2:4 !not UTF-8`, `1:3:6 ["b"]`}},
	{name: "JSON lines", file: "noending", text: "\n {\"a\":1} \r\n[1]\n{\"a\":\n\"x\"\n{}",
		rows: []string{`0:2:12 {"a":1}`, `1:3:16 !not a JSON object`, `2:4:22 !not a JSON object`, `3:5:26 !not a JSON object`, `4:6:28 {}`}},
	{name: "ARFF", file: "noending", text: "% c\n@relation 'x'\n@attribute 'a b' numeric\n@ATTRIBUTE c {0,1}\n@attribute \"d\" string\n\n@data\n% c\n1, ?,'it\\'s'\n\n?,1 , \"?\"\n{0 1}\n'1,2,3\n1,2\n",
		columns: []string{"a b", "c", "d"}, rows: []string{`0:9:108 ["1" "" "it's"]`, `1:11:119 ["" "1" "?"]`,
			`2:12:125 !a sparse ARFF row: convert the file to dense rows`, `3:13:132 !a quote is opened and not closed`, `4:14:136 !2 cells, want 3`}},
	{name: "blanks", file: "german.data", text: "\nA11 6  1.5\t \n A12 4 2\n1 2\n",
		columns: []string{"c1", "c2", "c3"}, rows: []string{`0:2:14 ["A11" "6" "1.5"]`, `1:3:23 ["A12" "4" "2"]`, `2:4:27 !2 cells, want 3`}},
}

func TestTrickyFiles(t *testing.T) {
	for _, c := range tricky {
		t.Run(c.name, func(t *testing.T) {
			for how, in := range map[string]io.Reader{
				"plain":       strings.NewReader(c.text),
				"one by one":  iotest.OneByteReader(strings.NewReader(c.text)),
				"gzip":        strings.NewReader(zip(t, c.text)),
				"gzip halves": iotest.HalfReader(strings.NewReader(zip(t, c.text))),
				"data, err":   iotest.DataErrReader(strings.NewReader(c.text)),
			} {
				o := c.options
				if how == "one by one" { // of a slow pipe no more than the first line is looked at
					o.Delimiter = map[string]byte{"bars": '|', "semicolons, decimal commas": ';'}[c.name]
					if c.name == "blanks" { // a tab ends its first line
						o.Format = Space
					}
				}
				r, err := New(c.file, in, o)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if rows := read(t, r); !slices.Equal(r.Columns(), c.columns) || !slices.Equal(rows, c.rows) {
					t.Errorf("%s: columns %q, rows\n%s\nwant %q\n%s", how, r.Columns(), strings.Join(rows, "\n"), c.columns, strings.Join(c.rows, "\n"))
				}
			}
		})
	}
}

// From every row on, what a resumed reader gives is what the first one gave.
func TestResumeAnywhere(t *testing.T) {
	for _, c := range tricky {
		for _, gz := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, gzip %t", c.name, gz), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), c.file)
				text := c.text
				if gz {
					path, text = path+".gz", zip(t, c.text)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				open := func() *Reader {
					r, err := Open(path, c.options)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { r.Close() })
					return r
				}
				first := open()
				fingerprint := first.Fingerprint()
				for i := range c.rows {
					row, err := first.Next()
					if _, bad := errors.AsType[*RowError](err); err != nil && !bad {
						t.Fatal(err)
					}
					r := open()
					if !r.Matches(fingerprint) {
						t.Fatal("the fingerprint does not match its own file")
					}
					if err := r.ResumeAt(row.End, row.Index+1, row.Line+int64(bytes.Count(row.Raw, []byte("\n")))+1); err != nil {
						t.Fatal(err)
					}
					rest := read(t, r)
					// Blank lines before the next row are found again, so its line is exact.
					if want := c.rows[i+1:]; !slices.Equal(rest, want) {
						t.Errorf("behind row %d:\n%s\nwant\n%s", i, strings.Join(rest, "\n"), strings.Join(want, "\n"))
					}
				}
			})
		}
	}
}

func TestRefusedFiles(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a.csv", "", "no rows"},
		{"a.csv", "a,a\n1,2\n", `both named "a"`},
		{"a.csv", "a\rb\r", "CR alone"},
		{"a.csv", "\xff\xfea\x00", "UTF-16"},
		{"a.csv", "caf\xe9\n1\n", "not UTF-8"},
		{"a.csv", "\"a\n1\n", "opened and not closed"},
		{"a.xlsx", "PK\x03\x04....", "zip archive"},
		{"a.json", "[\n{}]", "JSON array"},
		{"a.arff", "@relation x\n@attribute a numeric\n", "without @data"},
		{"a.arff", "@data\n1\n", "without an @attribute"},
		{"a.csv.gz", "\x1f\x8bxx", "gzip"},
		{"a.csv", strings.Repeat("x", MaxRow+10), "too long"},
	} {
		if _, err := New(c.name, strings.NewReader(c.text), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one that says %q", c.text[:min(20, len(c.text))], err, c.want)
		}
	}
	for _, o := range []Options{{Format: "xml"}, {Delimiter: '"'}, {Columns: []string{"a", "a"}}, {Columns: []string{"a", "b", "c"}}} {
		if _, err := New("a.csv", strings.NewReader("a,b\n"), o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
	if _, err := Open(t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: %v", err)
	}
}

// A row of MaxRow bytes is read; a longer one is an error of its own; neither a line nor a quote without an end is
// read into memory.
func TestLongRows(t *testing.T) {
	fits, long := strings.Repeat("x", MaxRow), strings.Repeat("y", 20<<20)
	r, err := New("a.csv", strings.NewReader("a\n"+fits+"\r\n"+fits+"x\n"+long+"\n\""+long[:3<<20]+"\nlast\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		row, err := r.Next()
		if err == io.EOF {
			break
		}
		if bad, ok := errors.AsType[*RowError](err); ok {
			if len(bad.Text) != maxErrorText {
				t.Errorf("line %d: %d bytes of text", bad.Line, len(bad.Text))
			}
			got = append(got, fmt.Sprintf("%d:%d !", row.Index, row.Line))
		} else if err != nil {
			t.Fatal(err)
		} else {
			got = append(got, fmt.Sprintf("%d:%d %d", row.Index, row.Line, len(row.Cells[0])))
		}
	}
	want := []string{fmt.Sprintf("0:2 %d", MaxRow), "1:3 !", "2:4 !", "3:5 !", "4:6 4"}
	if !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	if n := len(r.w.buf); n > 4*MaxRow {
		t.Errorf("the buffer grew to %d bytes", n)
	}
}

func TestBrokenStream(t *testing.T) {
	text := zip(t, "a\n"+strings.Repeat("1234567\n", 100_000))
	r, err := New("a.csv.gz", strings.NewReader(text[:len(text)/2]), Options{})
	for err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut gzip file ends with %v", err)
	}
	boom := errors.New("boom")
	r, err = New("a.csv", io.MultiReader(strings.NewReader("a\n1\n2"), iotest.ErrReader(boom)), Options{})
	n := 0
	for ; err == nil; n++ {
		_, err = r.Next()
	}
	if !errors.Is(err, boom) || n != 2 {
		t.Errorf("after %d rows %v, want boom after 2: a half-read row is no row", n, err)
	}
}

func TestFingerprint(t *testing.T) {
	open := func(text string, o Options) *Reader {
		r, err := New("a.csv", strings.NewReader(text), o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	f := open("a,b\n1,2\n", Options{}).Fingerprint()
	if !open("a,b\n1,2\n3,4\n", Options{}).Matches(f) {
		t.Error("a file that has grown does not match")
	}
	slow, err := New("a.csv", iotest.OneByteReader(strings.NewReader("a,b\n1,2\n")), Options{})
	if err != nil || !slow.Matches(f) {
		t.Errorf("a pipe that brings a byte at a time does not match: %v", err)
	}
	if rows := read(t, slow); len(rows) != 1 {
		t.Errorf("after a match the rows are %q", rows)
	}
	for _, r := range []*Reader{
		open("a,b\n1,3\n", Options{}), open("a,b\n", Options{}),
		open("a,b\n1,2\n", Options{Header: HeaderNo}), open("a,b\n1,2\n", Options{Delimiter: ';'}),
	} {
		if r.Matches(f) {
			t.Error("another file, or other options, match")
		}
	}
	for _, bad := range []string{"", "x", "-1:00", "99999999999:00", "3:00"} {
		if open("a\n", Options{}).Matches(bad) {
			t.Errorf("%q matches", bad)
		}
	}
}

func TestResumeRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	for _, c := range []struct {
		text string
		end  int64
		want string
	}{
		{"a,b\n1,2\n", 100, "was it cut?"},
		{"a,b\n1,2\n", 2, "the header ends"},
		{"a,b\n1,23\n4,5\n", 7, "in the middle of a row"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.ResumeAt(c.end, 1, 3); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q at %d: %v, want %q", c.text, c.end, err, c.want)
		}
		r.Close()
	}
}

// Whatever encoding/csv takes, we take alike.
func compareWithStandard(t *testing.T, text string, delimiter byte) {
	t.Helper()
	std := csv.NewReader(strings.NewReader(text))
	std.Comma, std.FieldsPerRecord = rune(delimiter), -1
	var want [][]string
	for {
		rec, err := std.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return // ours goes on after an error, theirs does not
		}
		want = append(want, rec)
	}
	w := &window{r: iotest.HalfReader(strings.NewReader(text))}
	var c cells
	var got [][]string
	for {
		n, _, err := splitCSV(&c, w, delimiter)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%q: %v, encoding/csv takes it as %q", text, err, want)
		}
		if len(content(w.bytes()[:n])) > 0 {
			got = append(got, c.strings(nil))
		}
		w.advance(n)
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Fatalf("%q: %q, encoding/csv says %q", text, got, want)
	}
}

func TestAgainstStandard(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 30_000 {
		b := make([]byte, rng.IntN(24))
		for i := range b {
			b[i] = "a,\"\"\n\r\nb"[rng.IntN(8)]
		}
		compareWithStandard(t, string(b), ',')
	}
}

func FuzzReader(f *testing.F) {
	for _, c := range tricky {
		f.Add([]byte(c.text), string(c.options.Format))
	}
	f.Fuzz(func(t *testing.T, text []byte, format string) {
		compareWithStandard(t, string(text), ',')
		r, err := New("f", bytes.NewReader(text), Options{Format: Format(format)})
		if err != nil {
			return
		}
		var end, line int64
		for i := int64(0); ; i++ {
			row, err := r.Next()
			bad, isBad := errors.AsType[*RowError](err)
			if err != nil && !isBad {
				return
			}
			if isBad == (row.Cells != nil || row.JSON != nil) {
				t.Fatalf("row %+v with error %v", row, bad)
			}
			if row.Index != i || row.End <= end || row.Line <= line || len(row.Raw) > MaxRow+2 || !isBad && r.Format() != JSONLines && len(row.Cells) != len(r.Columns()) {
				t.Fatalf("row %d after end %d, line %d: %+v", i, end, line, row)
			}
			if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
				if !bytes.HasSuffix(content(text[:row.End]), row.Raw) {
					t.Fatalf("row %d does not stand before its end: %+v", i, row)
				}
			}
			end, line = row.End, row.Line
		}
	})
}
