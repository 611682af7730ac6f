package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// The bill of this very binary names what it was linked with, once, and twice the same.
func TestBillOfMaterials(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var one, two bytes.Buffer
	for _, to := range []*bytes.Buffer{&one, &two} {
		if err := run([]string{exe}, to); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("it is another one the second time")
	}
	var b bom
	if err := json.Unmarshal(one.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, c := range b.Components {
		if slices.Contains(refs, c.Ref) {
			t.Errorf("%s stands twice", c.Ref)
		}
		refs = append(refs, c.Ref)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("no build info")
	}
	if !slices.Contains(refs, "pkg:golang/std@"+info.GoVersion) || b.Format != "CycloneDX" || !strings.HasSuffix(b.Metadata.Component.Name, "riskweir") {
		t.Errorf("%s", one.String())
	}
	for _, d := range b.Dependencies {
		for _, on := range d.On {
			if !slices.Contains(refs, on) {
				t.Errorf("%s depends on %s, which is not there", d.Ref, on)
			}
		}
	}
	if err := run(nil, &one); err == nil {
		t.Error("of nothing")
	}
	if err := run([]string{"main.go"}, &one); err == nil {
		t.Error("of a text")
	}
}
