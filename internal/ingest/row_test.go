package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

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

// What cutText leaves is the object without the field, and what it returns is the field.
func FuzzCutText(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":1}`, `{"b":2,"a":"x\n","c":[1,{"a":3}]}`, ` { "\u0061" : null , "b":-1e5}`, `{"a":true}`, `{"a":{}}`, `{"a":1,"a":2}`, `{"b":"\"a\""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		body = bytes.Trim(body, " \t\r\n")
		var whole map[string]json.RawMessage
		if len(body) == 0 || body[0] != '{' || json.Unmarshal(body, &whole) != nil {
			return
		}
		rest, text, err := cutText(body, "a")
		if err != nil {
			return
		}
		value := whole["a"]
		var s string
		switch {
		case value == nil || string(value) == "null":
		case json.Unmarshal(value, &s) == nil:
		default:
			s = string(value)
		}
		delete(whole, "a")
		var got map[string]json.RawMessage
		if err := json.Unmarshal(rest, &got); err != nil {
			t.Fatalf("%q without a is %q: %v", body, rest, err)
		}
		if text != s || !reflect.DeepEqual(got, whole) {
			t.Fatalf("%q: %q and %q, want %q", body, text, rest, s)
		}
	})
}

func TestSetID(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{}`, `{"id":"x\"1"}`},
		{` {"a":1} `, `{"id":"x\"1","a":1}`},
		{`{"id":null,"a":1}`, `{"id":"x\"1","a":1}`},
		{`{"id":""}`, `{"id":"x\"1"}`},
	} {
		got, err := setID([]byte(c.body), "id", `x"1`)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %s, %v, want %s", c.body, got, err, c.want)
		}
	}
}

func TestMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMarks(time.Hour)
		begin := time.Now()
		m.add(0, begin)
		m.add(10, begin)
		m.add(20, begin.Add(time.Second)) // shares the mark
		m.add(20, begin.Add(time.Hour))   // nothing new
		m.add(30, begin.Add(time.Minute))
		if len(m.list) != 2 {
			t.Fatalf("marks %+v", m.list)
		}
		for _, c := range []struct {
			row   int64
			after time.Duration
		}{{0, time.Hour + time.Second}, {19, time.Hour + time.Second}, {20, time.Hour + time.Minute}} {
			if err := m.wait(t.Context(), c.row); err != nil || time.Since(begin) != c.after {
				t.Errorf("row %d after %s, %v, want %s", c.row, time.Since(begin), err, c.after)
			}
		}
		go func() { m.add(31, time.Now()) }()
		if err := m.wait(t.Context(), 30); err != nil || time.Since(begin) != 2*time.Hour+time.Minute {
			t.Errorf("row 30 after %s, %v", time.Since(begin), err)
		}
		go m.close()
		if err := m.wait(t.Context(), 31); err != io.EOF {
			t.Errorf("a row that never comes: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newMarks(0).wait(ctx, 0); err != context.Canceled {
			t.Errorf("%v", err)
		}
		many := newMarks(time.Hour)
		for i := range int64(100_000) {
			many.add(i+1, begin.Add(time.Duration(i)*time.Hour/100_000))
		}
		if n := len(many.list); n > 1001 {
			t.Errorf("%d marks within one delay", n)
		}
	})
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pace{rate: 100}
		begin := time.Now()
		for range 11 {
			if err := p.wait(t.Context(), int64(p.most(500))); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("100 rows behind the first batch took %s", took)
		}
		time.Sleep(time.Hour)
		begin = time.Now()
		for range 11 {
			if err := p.wait(t.Context(), 10); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took < 900*time.Millisecond {
			t.Errorf("after a pause 100 rows took %s: it catches up", took)
		}
		if slow := (&pace{rate: 0.5}).most(500); slow != 1 {
			t.Errorf("%d rows at once at one in two seconds", slow)
		}
	})
}

func TestInvalidFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.jsonl")
	row := func(source string, n int64) BadRow { return BadRow{Kind: "k", Source: source, Row: n, Reason: "r"} }
	f := invalidFile{path: path, kind: "k", source: "s"}
	if err := f.add([]BadRow{row("s", 1), row("s", 5)}); err != nil {
		t.Fatal(err)
	}
	f.close()
	other := invalidFile{path: path, kind: "k", source: "other"}
	if err := other.add([]BadRow{row("other", 9)}); err != nil {
		t.Fatal(err)
	}
	other.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A crash left half a line.
	if err := os.WriteFile(path, append(whole, `{"file":"x","ro`...), 0o600); err != nil {
		t.Fatal(err)
	}
	f = invalidFile{path: path, kind: "k", source: "s"}
	if err := f.add([]BadRow{row("s", 5), row("s", 6)}); err != nil {
		t.Fatal(err)
	}
	f.close()
	var got []int64
	for _, b := range badRows(t, path) {
		got = append(got, b.Row)
	}
	if want := []int64{1, 5, 9, 6}; !reflect.DeepEqual(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	if err := os.WriteFile(path, []byte("id,amount\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f = invalidFile{path: path, kind: "k", source: "s"}
	if err := f.add([]BadRow{row("s", 1)}); err == nil {
		t.Error("bad rows are written into somebody's table")
	}
}
