package model

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden artifact")

const golden = "testdata/payment.v000001.json"

func encoded(t testing.TB, a *Artifact) []byte {
	t.Helper()
	body, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestArtifactRoundTrip(t *testing.T) {
	a := testArtifact(math.Copysign(0, -1)) // the sign of zero is a bit too
	a.Weights[0].Weight = math.Nextafter(0.1, 1)
	a.Weights[1].Weight = 5e-324
	body := encoded(t, a)
	b, err := Decode(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("decoded differs:\n%+v\n%+v", a, b)
	}
	if math.Float64bits(b.Intercept) != math.Float64bits(a.Intercept) {
		t.Errorf("intercept %v: the sign is lost", b.Intercept)
	}
	if again := encoded(t, b); !bytes.Equal(again, body) {
		t.Errorf("encoded again differs:\n%s\n%s", body, again)
	}
}

// TestArtifactGolden holds the form that is in buckets already.
func TestArtifactGolden(t *testing.T) {
	body := encoded(t, testArtifact(-3.5))
	if *update {
		if err := os.WriteFile(golden, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(body, want) {
		t.Errorf("got:\n%s\nwant:\n%s", body, want)
	}
	a, err := Decode(want)
	if err != nil {
		t.Fatalf("a stored artifact cannot be read any more: %v", err)
	}
	if a.Intercept != -3.5 {
		t.Errorf("intercept %v, want -3.5", a.Intercept)
	}
}

// TestArtifactWhiteSpaceDoesNotMatter: the form that 'jq -c .' makes of it is the same artifact.
func TestArtifactWhiteSpaceDoesNotMatter(t *testing.T) {
	body := encoded(t, testArtifact(1))
	compact := bytes.ReplaceAll(bytes.ReplaceAll(body, []byte("\n "), nil), []byte("\n"), nil)
	if bytes.Contains(compact, []byte("\n")) || len(compact) == len(body) {
		t.Fatal("the form has no line breaks to take away")
	}
	if _, err := Decode(compact); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	valid := string(encoded(t, testArtifact(-3.5)))
	replace := func(old, new string) string {
		t.Helper()
		if strings.Count(valid, old) != 1 {
			t.Fatalf("%q stands %d times in the artifact", old, strings.Count(valid, old))
		}
		return strings.Replace(valid, old, new, 1)
	}
	for _, c := range []struct{ name, body, want string }{
		{"empty", "", "JSON"},
		{"not JSON", "model", "JSON"},
		{"cut", valid[:len(valid)/2], "JSON"},
		{"two values", valid + valid, "JSON"},
		{"no format", "{}", "format missing"},
		{"another format", replace(`"format":1`, `"format":3`), "format 3: this program reads 1 and 2"},
		{"another format with members unknown", `{"format":9,"trees":[]}`, "format 9"},
		{"unknown member", replace(`"kind":"payment"`, `"kind":"payment","owner":"me"`), "owner"},
		{"a weight altered", replace(`"weight":0.1,`, `"weight":0.7,`), "checksum"},
		{"no checksum", valid[:strings.Index(valid, ",\n\"checksum\"")] + "}", "checksum"},
		{"infinite weight", replace(`"weight":0.1,`, `"weight":1e999,`), "JSON"},
		{"NaN", replace(`"weight":0.1,`, `"weight":NaN,`), "JSON"},
		{"wild weight", replace(`"weight":0.1,`, `"weight":1e300,`), "at most"},
		{"spec altered", replace(`"median":20`, `"median":21`), "fingerprint"},
		{"version 0", replace(`"version":1,`+"\n"+`"created"`, `"version":0,`+"\n"+`"created"`), "version 0"},
		{"kind", replace(`"kind":"payment"`, `"kind":"pay.ment"`), "kind"},
		{"calibration", replace(`"method":"none"`, `"method":"platt"`), "calibration"},
		{"scale", replace(`"pdo":20`, `"pdo":0`), "pdo"},
		{"too large", valid + strings.Repeat(" ", MaxArtifact), "at most"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := Decode([]byte(c.body))
			if !errors.Is(err, ErrArtifact) || a != nil {
				t.Fatalf("got %v, %v, want ErrArtifact", a, err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*Artifact)
		want string
	}{
		{"NaN weight", func(a *Artifact) { a.Weights[3].Weight = math.NaN() }, "weight NaN"},
		{"infinite intercept", func(a *Artifact) { a.Intercept = math.Inf(1) }, "intercept +Inf"},
		{"NaN metric", func(a *Artifact) { a.Metrics.AUC = math.NaN() }, "metrics"},
		{"a weight too few", func(a *Artifact) { a.Weights = a.Weights[1:] }, "8 weights: the spec makes 9 columns"},
		{"weights in another order", func(a *Artifact) { a.Weights[0], a.Weights[1] = a.Weights[1], a.Weights[0] }, "weight 0 is of column"},
		{"parent not before it", func(a *Artifact) { a.Parent = 1 }, "parent 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := testArtifact(1)
			c.edit(a)
			if _, err := a.Encode(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v does not say %q", err, c.want)
			}
		})
	}
}

func TestEncodeTooLarge(t *testing.T) {
	a := testArtifact(1)
	a.Spec.Fields[1].Levels = []string{"", strings.Repeat("x", MaxArtifact)}
	a.Fingerprint = a.Spec.Fingerprint()
	a.Weights = nil
	for _, c := range a.Spec.Columns("") {
		a.Weights = append(a.Weights, Weight{Column: c.Name, Field: c.Field})
	}
	if _, err := a.Encode(); err == nil || !strings.Contains(err.Error(), "MODELS holds at most") {
		t.Errorf("error %v does not say what MODELS holds", err)
	}
}

func TestName(t *testing.T) {
	if kind, v, err := ParseName(Name("payment", 42)); kind != "payment" || v != 42 || err != nil {
		t.Errorf("got %q, %d, %v", kind, v, err)
	}
	for _, bad := range []string{"", "payment", "payment.rollout", "payment.v1", "payment.v000000", "payment.v0000001", "Pay.v000001", "payment.v000001.x"} {
		if _, _, err := ParseName(bad); err == nil {
			t.Errorf("%q is taken for a model's name", bad)
		}
	}
}

// TestDecodeBoundsItsWork: a spec that claims a great many columns is refused before they are listed.
func TestDecodeBoundsItsWork(t *testing.T) {
	var fields []string
	for i := range 15_000 {
		fields = append(fields, fmt.Sprintf(`{"field":"f%d","kind":"hashed","buckets":2000000000}`, i))
	}
	body := `{"format":1,"kind":"payment","version":1,"spec":{"version":1,"fields":[` + strings.Join(fields, ",") + `]},"weights":[]}`
	began := time.Now()
	_, err := Decode([]byte(body))
	if err == nil || !strings.Contains(err.Error(), "more than 0 columns") {
		t.Errorf("error %v does not say that there are more columns than weights", err)
	}
	if took := time.Since(began); took > 5*time.Second { // some 30 ms; to list them takes minutes
		t.Errorf("took %s", took)
	}
}

// FuzzDecode: no bytes make Decode panic, and what it takes encodes to what it takes again.
func FuzzDecode(f *testing.F) {
	body := encoded(f, testArtifact(-3.5))
	f.Add(body)
	f.Add(body[:len(body)/3])
	f.Add([]byte(`{"format":1,"weights":[{"column":"a","weight":1e308}]}`))
	f.Add([]byte(`{"format":1e0,"spec":{"version":1,"fields":[{"kind":"hashed","field":"x","buckets":4096}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := Decode(body)
		if err != nil {
			if !errors.Is(err, ErrArtifact) || a != nil {
				t.Fatalf("got %v, %v, want ErrArtifact", a, err)
			}
			return
		}
		again, err := a.Encode()
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		if b, err := Decode(again); err != nil || !reflect.DeepEqual(a, b) {
			t.Fatalf("decoded again: %v\n%+v\n%+v", err, a, b)
		}
	})
}
