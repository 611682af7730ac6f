package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// Whatever comes on stdin ends in an error, not in a crash, and each line that comes out is JSON.
func FuzzDecodeStdin(f *testing.F) {
	for _, v := range []any{map[string]any{"a": []any{1, "x", nil, 1.5}}, []any{}, "text", 7} {
		b, err := msgpack.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte("{\"a\":1}\n\x81\xa1a\x01\n{\"b\":[]}\n"))
	f.Add([]byte("\xdd\xff\xff\xff\xff"))
	f.Add([]byte("\x81\x91\x01\x01"))
	f.Add([]byte("\xd6\xff\x00\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		err := decode(bytes.NewReader(in), &out)
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%q came out as %q, %v", in, line, err)
			}
		}
	})
}

// Values in values, however deep, and lines and values, however long, are refused in bounded memory and stack.
func TestDecodeIsBounded(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		in   io.Reader
		want string
	}{
		"deep arrays":     {strings.NewReader(strings.Repeat("\x91", maxDecoded)), "values in each other"},
		"deep maps":       {strings.NewReader(strings.Repeat("\x81\xa1a", maxDecoded/3)), "values in each other"},
		"deep JSON":       {strings.NewReader("{\"a\":" + strings.Repeat("[", maxDecoded/2)), "none"},
		"a long line":     {strings.NewReader("{" + strings.Repeat(" ", maxDecoded+1)), "longer than"},
		"a long text":     {strings.NewReader("\xdb\xff\xff\xff\xff" + strings.Repeat("x", maxDecoded+1)), "longer than"},
		"many to come":    {strings.NewReader("\xdd\xff\xff\xff\xff\xc0"), "unexpected EOF"},
		"a name twice":    {strings.NewReader("\x82\xa1a\x01\xa1a\x02"), "stands twice"},
		"a name of a map": {strings.NewReader("\x81\x80\x01"), "no msgpack"},
	} {
		if err := decode(x.in, io.Discard); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
	}
	if err := decode(strings.NewReader(strings.Repeat("\x91", maxDepth-1)+"\xc0"), io.Discard); err != nil {
		t.Error(err)
	}
}
