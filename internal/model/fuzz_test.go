package model

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// Whatever stands at a rollout's key, it is refused, or a record of versions that can be; written again it reads the same.
func FuzzRollout(f *testing.F) {
	for _, r := range []Rollout{
		{Champion: 1, UpdatedBy: "a", Reason: "r", At: time.Unix(1e9, 0).UTC()},
		{Champion: 3, Previous: 2, Shadow: []int{4, 5}, Canary: &Canary{Version: 6, Share: 0.1}, UpdatedBy: "a", Reason: "r", At: time.Unix(1e9, 0).UTC()},
	} {
		body, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, "payment.v000007")
	}
	f.Add([]byte(strings.Repeat(`{"canary":`, 5000)), "v7")
	f.Add([]byte(`{"champion":1,"champion":2,"updated_by":"","reason":"","at":"2026-01-01T00:00:00Z"}`), "payment.rollout")
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		if kind, version, err := ParseName(name); err == nil && Name(kind, version) != name {
			t.Fatalf("%q is version %d of %q, which is called %q", name, version, kind, Name(kind, version))
		}
		if version, err := ParseVersion("payment", name); err == nil && (version < 1 || version > MaxVersion) {
			t.Fatalf("%q is version %d", name, version)
		}
		r, err := DecodeRollout(body)
		if err != nil {
			return
		}
		if r.Champion < 0 || r.Champion == 0 && len(r.Decisions) == 0 || r.Champion > MaxVersion || r.Validate() != nil {
			t.Fatalf("%s: %+v", body, r)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		back, err := DecodeRollout(again)
		if err != nil || !reflect.DeepEqual(normal(back), normal(r)) {
			t.Fatalf("%s reads as\n%+v\nand, written as %s, as\n%+v, %v", body, r, again, back, err)
		}
		if next, err := recordOf(r.State(), nil, time.Unix(0, 0)); err == nil && r.Champion != 0 && next.Validate() != nil {
			t.Fatalf("%+v became %+v", r, next)
		}
	})
}

// normal forgets what JSON has no word for: an empty list, and which way an instant's zone is written.
func normal(r Rollout) Rollout {
	if len(r.Shadow) == 0 {
		r.Shadow = nil
	}
	if len(r.Lives) == 0 {
		r.Lives = nil
	}
	if len(r.Decisions) == 0 {
		r.Decisions = nil
	}
	r.At = r.At.UTC().Round(0)
	return r
}
