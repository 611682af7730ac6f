package events

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAppendRow(t *testing.T) {
	s := schemaOf(t, decodeContract)
	for _, x := range []struct {
		columns, cells string // separated by |
		body, err      string
	}{
		{"n|m|c|k|b", "1.50|12.5|1250|1|True", `{"n":1.50,"m":12.5,"c":1250,"k":"1","b":true}`, ""},
		{"n|m|c|k|b", "||||", `{}`, ""},
		{"id|card|at|fraud|x", `7|a"b|2026-01-31T12:00:00Z|1|07`, `{"id":"7","card":"a\"b","at":"2026-01-31T12:00:00Z","x":"07"}`, ""},
		{"n|n2", " 007 |+5", `{"n":7,"n2":"+5"}`, ""},
		{"n", "+5", `{"n":5}`, ""}, {"n", ".5", `{"n":0.5}`, ""}, {"n", "-.5e-3", `{"n":-0.5e-3}`, ""}, {"n", "5.", `{"n":5}`, ""},
		{"n", "-000", `{"n":-0}`, ""}, {"n", "12345678901234567890.125", `{"n":12345678901234567890.125}`, ""},
		{"n", "999", `{"n":999}`, ""}, {"n", "?", `{"n":"?"}`, ""}, {"n", " ? ", `{"n":"?"}`, ""},
		{"k", " ? ", `{"k":" ? "}`, ""},
		{"b", "1", `{"b":1}`, ""},
		{"n", "1,5", "", `field n: is the string "1,5": want a number`},
		{"n", "NaN", "", `field n: is the string "NaN": want a number`},
		{"n", "0x1p4", "", `field n: is the string "0x1p4": want a number`},
		{"n", "1_000", "", `field n: is the string "1_000": want a number`},
		{"n", "+-5", "", `field n: is the string "+-5": want a number`},
		{"n", "1e999", "", "field n: is not a finite number"},
		{"s", "secret", "", "field s: is a string: want a number"},
		{"m", "12.5 EUR", "", `field m: is the string "12.5 EUR": want an amount`},
		{"c", "12.5", "", "field c: is the number 12.5: want an integer, of 10^-2 EUR"},
		{"b", "yes", "", `field b: is the string "yes": want true or false`},
		{"at", "2026-01-31 12:00:00", "", `field at: has no time zone: want RFC 3339 such as "2026-01-31T12:00:00Z"`},
		{"id", strings.Repeat("x", 257), "", "field id: has 257 bytes: at most 256"},
		{"k", "\xff", "", "field k: is not UTF-8"},
		{"x", "\xff", "", "field x: is not UTF-8"},
		{"n|n", "1|2", "", "field n: stands twice"},
		{"x|x", "1|2", "", "field x: stands twice"},
		{"n|k", "1", "", "1 cells under 2 columns"},
	} {
		columns, cells := strings.Split(x.columns, "|"), strings.Split(x.cells, "|")
		got, err := s.AppendRow([]byte("kept"), columns, cells)
		if msg := errText(err); msg != x.err {
			t.Errorf("%s: %s: error %q, want %q", x.columns, clip(x.cells), msg, x.err)
		}
		if string(got) != "kept"+x.body {
			t.Errorf("%s: %s: body %s, want %s", x.columns, clip(x.cells), got, x.body)
		}
		checkSameRecord(t, s, columns, cells)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type failer interface {
	Helper()
	Fatalf(format string, a ...any)
}

// checkSameRecord holds SetText and Check against AppendRow and Decode.
func checkSameRecord(t failer, s *Schema, columns, cells []string) {
	t.Helper()
	if len(columns) != len(cells) {
		return
	}
	body, rowErr := s.AppendRow(nil, columns, cells)
	var viaBody, viaText Record
	if rowErr == nil {
		if err := s.Decode(JSON, body, &viaBody); err != nil {
			t.Fatalf("%q %q: AppendRow made %s, which Decode refuses: %v", columns, cells, body, err)
		}
	}
	viaText.Reset(s)
	var textErr error
	for i, c := range columns {
		if textErr = s.SetText(&viaText, c, cells[i]); textErr != nil {
			break
		}
	}
	if textErr == nil {
		textErr = s.Check(&viaText)
	}
	if (rowErr == nil) != (textErr == nil) {
		t.Fatalf("%q %q: AppendRow says %v, SetText %v", columns, cells, rowErr, textErr)
	}
	if rowErr != nil {
		return
	}
	if d := recordDiff(&viaText, &viaBody); d != "" {
		t.Fatalf("%q %q: by SetText, against %s decoded: %s", columns, cells, body, d)
	}
}

func TestRowsAndTextsAreTheSame(t *testing.T) {
	s := schemaOf(t, strings.Replace(decodeContract, "{name: n, type: number,", "{name: n, type: number, required: true,", 1))
	names := []string{"id", "card", "at", "fraud", "n", "m", "c", "k", "b", "t", "s", "x", "y"}
	cell := rapid.OneOf(
		rapid.SampledFrom([]string{"", "0", "1", "999", "-1", "?", " 7", "true", "12.50", "1e3", "1e999", "2026-01-31T12:00:00Z", "2026-01-31", "\xff", "é\"\\\n"}),
		rapid.StringMatching(`[ +-]?[0-9]{0,4}\.?[0-9]{0,3}`),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.SliceOfN(rapid.SampledFrom(names), 1, 8).Draw(t, "columns")
		columns = append(columns, "n")
		cells := make([]string, len(columns))
		for i := range cells {
			cells[i] = cell.Draw(t, "cell")
		}
		checkSameRecord(t, s, columns, cells)
	})
}

func TestSetTextKeepsNothingOfTheCaller(t *testing.T) {
	s := schemaOf(t, decodeContract)
	var rec Record
	rec.Reset(s)
	row := []byte("abc")
	if err := s.SetText(&rec, "k", bytesString(row)); err != nil {
		t.Fatal(err)
	}
	copy(row, "xyz")
	if got := show(s, &rec); got != `k="abc"` {
		t.Errorf("after the caller's buffer was used again the record is %s", got)
	}
}

func TestCheckColumns(t *testing.T) {
	s := schemaOf(t, "kind: k\nfields:\n  - {name: a, type: number, required: true}\n  - {name: b, type: number}\n")
	for _, x := range []struct{ columns, err string }{
		{"a|b|c", ""}, {"a", ""},
		{"b", "field a: is required and has no column"},
		{"a|a", "field a: stands twice"},
		{"a|", "column 2 has no name"},
		{"a|\xff", "name of column 2 is not UTF-8"},
	} {
		if got := errText(s.CheckColumns(strings.Split(x.columns, "|"))); got != x.err {
			t.Errorf("%q: error %q, want %q", x.columns, got, x.err)
		}
	}
}
