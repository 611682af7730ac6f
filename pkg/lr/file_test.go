package lr

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

var sampleFile = File{Model: Model{Intercept: -2, Weights: []float64{0.8, -0.5}}, Columns: []string{"amount", "income"}}

func TestModelFileForms(t *testing.T) {
	const want = `{
  "format": "lr-model",
  "version": 1,
  "intercept": -2,
  "columns": [
    {"name": "amount", "weight": 0.8},
    {"name": "income", "weight": -0.5}
  ],
  "checksum": "sha256:7b1b"
}
`
	text, err := sampleFile.JSON()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := sampleFile.Msgpack()
	if err != nil {
		t.Fatal(err)
	}
	// By another implementation of msgpack.
	var doc struct {
		Format    string    `msgpack:"format"`
		Version   int       `msgpack:"version"`
		Intercept float64   `msgpack:"intercept"`
		Weights   []float64 `msgpack:"weights"`
		Names     []string  `msgpack:"names"`
		Checksum  string    `msgpack:"checksum"`
	}
	if err := msgpack.Unmarshal(binary, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Format != "lr-model" || doc.Version != 1 || doc.Intercept != -2 || !slices.Equal(doc.Weights, sampleFile.Model.Weights) || !slices.Equal(doc.Names, sampleFile.Columns) {
		t.Errorf("msgpack %+v", doc)
	}
	if got := strings.Replace(string(text), doc.Checksum, "sha256:7b1b", 1); got != want {
		t.Errorf("JSON\n%s\nwant\n%s", got, want)
	}
}

func equalFiles(a, b File) bool {
	return slices.Equal(a.Columns, b.Columns) && (a.Columns == nil) == (b.Columns == nil) && len(a.Model.Weights) == len(b.Model.Weights) &&
		bits(append(slices.Clone(a.Model.Weights), a.Model.Intercept)...) == bits(append(slices.Clone(b.Model.Weights), b.Model.Intercept)...)
}

func TestModelFileReadsBack(t *testing.T) {
	const seed = 501
	r := rand.New(rand.NewPCG(seed, 0))
	files := []File{sampleFile, {}, {Model: Model{Intercept: math.Copysign(0, -1), Weights: []float64{math.SmallestNonzeroFloat64, -1e90, 1e21, 1e-7}}}}
	for range 100 {
		f := File{Model: Model{Intercept: r.NormFloat64(), Weights: make([]float64, r.IntN(40))}}
		if r.IntN(2) == 0 && len(f.Model.Weights) > 0 {
			f.Columns = make([]string, len(f.Model.Weights))
		}
		for j := range f.Model.Weights {
			f.Model.Weights[j] = math.Ldexp(r.NormFloat64(), r.IntN(400)-200)
			if f.Columns != nil {
				f.Columns[j] = strings.Repeat("<\"é\u2028>", r.IntN(60)) + string(rune('a'+j))
			}
		}
		files = append(files, f)
	}
	wide := File{Model: Model{Weights: make([]float64, 70_000)}}
	files = append(files, wide)
	for _, f := range files {
		text, err := f.JSON()
		if err != nil {
			t.Fatal(err)
		}
		binary, err := f.Msgpack()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{text, binary} {
			got, err := DecodeFile(b)
			if err != nil || !equalFiles(got, f) {
				t.Fatalf("seed %d: read %v, %v, want %v", seed, got, err, f)
			}
		}
	}
}

func TestModelFileIsGuarded(t *testing.T) {
	text, err := sampleFile.JSON()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := sampleFile.Msgpack()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{text, binary} {
		for i := range b {
			altered := slices.Clone(b)
			altered[i] ^= 1 << (i % 7)
			if got, err := DecodeFile(altered); err == nil && !bytes.ContainsAny(altered[i:i+1], " \t\r\n") {
				t.Fatalf("byte %d altered to %q and read as %v", i, altered[i], got)
			} else if err != nil {
				mustBeTyped(t, err)
			}
			if _, err := DecodeFile(b[:i]); err == nil && i < len(b)-1 {
				t.Fatalf("cut at byte %d and read", i)
			}
		}
	}
	change := func(old, new string) []byte { return bytes.Replace(text, []byte(old), []byte(new), 1) }
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{nil, "lr: model file does not begin as one"},
		{[]byte("weights"), "lr: model file does not begin as one"},
		{change(`"version": 1`, `"version": 2`), "lr: model file has version 2, this program reads version 1"},
		{change("lr-model", "xgboost"), `lr: model file: format is "xgboost", want "lr-model"`},
		{change(`"version": 1,`, `"version": 1, "version": 1,`), "lr: model file is not in the one form that is written"},
		{change(`"intercept"`, `"Intercept"`), "lr: model file is not in the one form that is written"},
		{change(`-0.5`, `-0.50`), "lr: model file is not in the one form that is written"},
		{change(`"version": 1,`, `"version": 1, "note": "x",`), `lr: model file cannot be read as JSON: json: unknown field "note"`},
		{append(slices.Clone(text), "{}"...), ""},
		{append(slices.Clone(binary), 0), "lr: model file has something behind its end"},
		{change(`"weight": 0.8`, `"weight": 0.9`), "lr: model file: checksum is "},
		{change(`"weight": 0.8`, `"weight": 1e91`), "lr: Weights column 0 is 1e+91, want finite and at most 1e+90 in magnitude"},
		{change(`"name": "amount", `, ``), `lr: model file: column 1 has a name, and the first has none`},
		{change(`"name": "income", `, ``), `lr: model file: column 1 has the name "", want one in UTF-8`},
		{change(`"income"`, `"amount"`), `lr: model file: column 1 has the name "amount" of column 0`},
		{bytes.Replace(binary, []byte("version\x01"), []byte("version\x02"), 1), "lr: model file has version 2, this program reads version 1"},
		{bytes.Replace(binary, []byte("weights\x92"), []byte("weights\x93"), 1), "lr: model file: weights has type byte "},
		{bytes.Replace(binary, []byte("weights\x92"), []byte("weights\xdd\xff\xff\xff\xff"), 1), "lr: model file: weights has 4294967295 elements in "},
		{bytes.Replace(binary, []byte("weights\x92"), []byte("weights\xdc\x00\x02"), 1), "lr: model file is not in the one form that is written"},
	} {
		_, err := DecodeFile(c.b)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %s", c.b, err, c.want)
			continue
		}
		mustBeTyped(t, err)
	}
	// Space does no harm.
	if got, err := DecodeFile(append([]byte("\n "), bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n\t"))...)); err != nil || !equalFiles(got, sampleFile) {
		t.Errorf("other white space: %v, %v", got, err)
	}
	for _, f := range []File{
		{Model: Model{Intercept: math.NaN()}},
		{Model: Model{Weights: []float64{1, math.Inf(-1)}}},
		{Model: Model{Weights: []float64{1}}, Columns: []string{"a", "b"}},
		{Columns: []string{}},
		{Model: Model{Weights: []float64{1}}, Columns: []string{"\xff"}},
	} {
		_, err := f.JSON()
		if err == nil {
			t.Errorf("%v was written", f)
			continue
		}
		mustBeTyped(t, err)
		if _, again := f.Msgpack(); again == nil || again.Error() != err.Error() {
			t.Errorf("%v: %v as JSON, %v as msgpack", f, err, again)
		}
	}
	var version *VersionError
	if _, err := DecodeFile(change(`"version": 1`, `"version": 7`)); !errors.As(err, &version) || version.Version != 7 || version.Want != 1 {
		t.Errorf("version 7: %v", err)
	}
}

func FuzzDecodeFile(f *testing.F) {
	for _, file := range []File{sampleFile, {}, {Model: Model{Weights: []float64{1}}}} {
		text, err := file.JSON()
		if err != nil {
			f.Fatal(err)
		}
		binary, err := file.Msgpack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
		f.Add(binary)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := DecodeFile(b)
		if err != nil {
			mustBeTyped(t, err)
			return
		}
		again, err := file.Msgpack()
		if err != nil {
			t.Fatal(err)
		}
		if b[0]&0xf0 == 0x80 && !bytes.Equal(again, b) {
			t.Errorf("read and written: %x, was %x", again, b)
		}
		same, err := DecodeFile(again)
		if err != nil || !equalFiles(same, file) {
			t.Errorf("%v, %v, want %v", same, err, file)
		}
	})
}
