package events

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func sampleKnown() []Known {
	at := time.Date(2026, 1, 31, 12, 0, 0, 123456000, time.UTC)
	return []Known{
		{Seq: 12, Claim: 3, At: at, Entity: "c1", Label: BadLabel, Keys: []KeyValue{{"shop", "a\n\"b\""}, {"seq", "1"}}},
		{Seq: 12, Claim: 4, At: at, Entity: "c1", Was: BadLabel, Label: GoodLabel},
		{Seq: 13, Claim: 9, At: at.Add(-time.Hour), Entity: "ü", Was: GoodLabel},
	}
}

func TestKnown(t *testing.T) {
	list := sampleKnown()
	body := AppendKnown(nil, list)
	want := `{"seq":12,"claim":3,"at":"2026-01-31T12:00:00.123456Z","entity":"c1","was":null,"label":1,"key.shop":"a\n\"b\"","key.seq":"1"}`
	if line, _, _ := strings.Cut(string(body), "\n"); line != want {
		t.Errorf("%s\nwant\n%s", line, want)
	}
	got, err := DecodeKnown(body)
	if err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%+v, %v", got, err)
	}
	good := `{"seq":1,"claim":1,"at":"2026-01-31T12:00:00Z","entity":"e","was":null,"label":0}`
	for _, x := range []struct{ body, err string }{
		{good, "has no end"},
		{"", "tells of no event"},
		{"\n", "line 1"},
		{good + "\n" + strings.Replace(good, `"label":0`, `"label":2`, 1) + "\n", "line 2: field label"},
		{strings.Replace(good, `"label":0`, `"label":null`, 1) + "\n", "label is what it was"},
		{strings.Replace(good, `"seq":1`, `"seq":0`, 1) + "\n", "1 or more"},
		{strings.Replace(good, `"was":null,`, ``, 1) + "\n", "no was"},
		{strings.Replace(good, `00Z"`, `00.1234567Z"`, 1) + "\n", "whole microseconds"},
		{strings.Replace(good, `"e"`, `""`, 1) + "\n", "want an entity"},
		{strings.Replace(good, `"e"`, `"e","seq":2`, 1) + "\n", "seq"},
		{strings.Replace(good, `"e"`, `"e","colour":"red"`, 1) + "\n", "want a key"},
		{strings.Replace(good, `"e"`, `"e","key.shop":""`, 1) + "\n", "want a key"},
		{strings.Replace(good, `"e"`, `"e","key.a":"1","key.b":"1","key.c":"1","key.d":"1","key.e":"1"`, 1) + "\n", "more than 4 keys"},
		{strings.Replace(good, `"e"`, `"e","key.a":"`+strings.Repeat("x", MaxKeyBytes+1)+`"`, 1) + "\n", "bytes of them"},
		{strings.Repeat(good+"\n", MaxKnown+1), "more than 256 lines"},
	} {
		if _, err := DecodeKnown([]byte(x.body)); err == nil || !strings.Contains(err.Error(), x.err) {
			t.Errorf("%.120s: %v, want %q", x.body, err, x.err)
		}
	}
	if !IsKnown(KnownSubject("payment")) || IsKnown("events.payment.0.from.labels") || IsKnown("known.payment.from.x") {
		t.Error("IsKnown")
	}
}

// Whatever is read is written again as what it was read as.
func FuzzKnown(f *testing.F) {
	f.Add(AppendKnown(nil, sampleKnown()))
	f.Add([]byte(`{"seq":1,"claim":1,"at":"2026-01-31T12:00:00Z","entity":"e","was":null,"label":0}` + "\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := DecodeKnown(body)
		if err != nil {
			return
		}
		again := AppendKnown(nil, list)
		second, err := DecodeKnown(again)
		if err != nil || !reflect.DeepEqual(list, second) || !bytes.Equal(again, AppendKnown(nil, second)) {
			t.Fatalf("%q: %+v is %q, and that %+v: %v", body, list, again, second, err)
		}
	})
}

func TestKnownSample(t *testing.T) {
	body, err := os.ReadFile(filepath.Join(wireDir, "known.json"))
	if err != nil {
		t.Fatal(err)
	}
	list, err := DecodeKnown(body)
	if err != nil || len(list) != 2 || list[1].Was != BadLabel || list[0].Keys[0] != (KeyValue{"merchant", "m-9"}) || !bytes.Equal(AppendKnown(nil, list), body) {
		t.Errorf("%+v, %v", list, err)
	}
}
