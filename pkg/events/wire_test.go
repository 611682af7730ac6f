package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the samples in testdata/wire")

const wireDir = "../../testdata/wire"

const sampleContract = `kind: payment
version: 3
description: Card payments of the shop.
id: id
entity: card
time: at
zone: Europe/Berlin
label:
  column: fraud
  positive: ["1", "yes"]
fields:
  - name: amount
    type: money
    required: true
    currency: EUR
  - name: fee
    type: money
    currency: EUR
    minor: 2
  - name: age_days
    type: number
    unit: d
    missing: ["999", "?"]
  - name: merchant
    type: category
  - name: email_domain
    type: category
    sensitive: true
  - name: present
    type: bool
  - name: opened
    type: time
  - name: region
    type: category
    protected: true
maturity: 90d
prior: 0.02
thresholds:
  medium: 0.1
  high: 0.5
decisions:
  low: approve
  medium: review
  high: decline
  prior: review
  stale: review
  late: review
lanes: 8
retention:
  events: 30d
  scores: 90d
rollout:
  mode: gated
  approval: two
  steps: [0.05, 0.25]
  max_shadows: 2
  patience: 60d
  auc_margin: 0.005
  max_ratio: 1.5
  max_shift: 0.01
  max_psi: 0.2
  late_after: 2ms
  watch: 7d
`

const sampleEvent = `{"id":"p-7","card":"c.4711 *","at":"2026-01-31T13:00:00.25+01:00","amount":"12.50","fee":25,"age_days":-0.1,"merchant":"Bäcker \"Süß\"","email_domain":"example.org","present":true,"opened":"2020-02-29T00:00:00Z","region":null,"note":{"free":["text",1.5e3]}}`

func samplePtr[T any](v T) *T { return &v }

func sampleScore() Score {
	return Score{
		ID: "p-7", Seq: 1 << 40, Kind: "payment", Entity: "c.4711 *", P: 0.1 + 0.2, Points: 512, Band: BandMedium, Decision: Review,
		Reasons: []Reason{{Field: "amount", Add: 1.0 / 3}, {Field: "merchant", Add: -2.5e-7}}, Model: "payment.v000012", Revision: 41, Contract: 3, Mode: ModeModel,
		Time: time.Date(2026, 1, 31, 12, 0, 0, 250e6, time.UTC),
	}
}

func sampleInvalid() Invalid {
	return Invalid{ID: "p-8", Seq: 77, Kind: "payment", Entity: "c.4711 *", Field: "amount", Reason: "is required and has no value", Attempts: 3, Contract: 3}
}

func sampleRepeat() Repeat {
	return Repeat{ID: "p-7", Seq: 1<<40 + 9, First: 1 << 40, Kind: "payment", Entity: "c.4711 *", Contract: 3}
}

func sampleConflict() Repeat {
	r := sampleRepeat()
	r.Conflict = true
	return r
}

func sampleExpired() Expired { return Expired{First: 5, Last: 9, Kind: "payment", Lane: 7} }

func sampleLabel() Label {
	return Label{ID: "p-7", Label: samplePtr(1), KnownAt: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), Source: "chargeback"}
}

func samplePosition() Position {
	return Position{
		Seq: 76, Incarnation: time.Date(2026, 1, 1, 0, 0, 0, 123456789, time.UTC), Epoch: 4, Owner: "scorer-1-Xy7",
		Attempts: 1, Trying: 77, Taken: 1, Tries: 2, Trier: "scorer-1-Xy7", Until: 80, Width: 30, Revision: 41,
		Beside: Besides{{Version: 6, Since: 1767225600123, N: 76}, {Version: 7, Since: 1767225600123, N: 70, Failed: 1, Late: 2}},
	}
}

func sampleRescorePosition() RescorePosition {
	return RescorePosition{First: 1, Seq: 1 << 40, Incarnation: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Run: "k2Jd81"}
}

func sampleSourcePosition() SourcePosition {
	return SourcePosition{Name: "day.csv", Fingerprint: "sha256:00ff", Offset: 1 << 33, Rows: 41188, Line: 41190, Invalid: 2, Done: true}
}

func sampleAlert() Alert {
	return Alert{
		Incident: "stalled-payment-3", State: Firing, Severity: Page, What: "stalled", Kind: "payment", Lane: samplePtr(3),
		Cause: "lane 3 has no owner", Evidence: map[string]string{"age": "12s", "lag": "4711"}, Action: "none", At: time.Date(2026, 1, 31, 12, 0, 1, 0, time.UTC),
	}
}

func sampleHeartbeat() Heartbeat {
	return Heartbeat{
		Service: "scorer", Instance: "Xy7", Name: "scorer-1", Host: "a", PID: 4711, Started: time.Date(2026, 1, 31, 11, 0, 0, 0, time.UTC),
		Counters: map[string]float64{"scored": 1e6, "invalid": 2}, Latency: []LatencyBucket{{Micros: 1024, Count: 12}, {Micros: 2048, Count: 3}},
		Lanes: []string{"payment/3"}, Model: map[string]string{"payment": "payment.v000012"},
		Refused: map[string]RefusedModel{"payment": {Model: "payment.v000013", Revision: 41, Untrusted: true, Why: "it has no signature"}},
	}
}

// golden compares got with the sample, or makes it the sample.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join(wireDir, name)
	if *update {
		if err := os.MkdirAll(wireDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (make it with -update)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from the sample: whoever reads the wire would see\n%s\nwant\n%s", name, got, want)
	}
	return want
}

func same(t *testing.T, name string, got any, err error, want any) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s reads back as\n%+v\nwant\n%+v", name, got, want)
	}
}

func TestWireSamples(t *testing.T) {
	for _, enc := range []Encoding{JSON, Msgpack} {
		ext := map[Encoding]string{JSON: ".json", Msgpack: ".msgpack"}[enc]

		score := sampleScore()
		b := golden(t, "score"+ext, score.Append(nil, enc))
		gotScore, err := DecodeScore(b)
		same(t, "score"+ext, gotScore, err, score)

		inv := sampleInvalid()
		b = golden(t, "invalid"+ext, inv.Append(nil, enc))
		gotInvalid, err := DecodeInvalid(b)
		same(t, "invalid"+ext, gotInvalid, err, inv)

		for name, r := range map[string]Repeat{"repeat": sampleRepeat(), "conflict": sampleConflict()} {
			b = golden(t, name+ext, r.Append(nil, enc))
			gotRepeat, err := DecodeRepeat(b)
			same(t, name+ext, gotRepeat, err, r)
		}

		label := sampleLabel()
		b = golden(t, "label"+ext, label.Append(nil, enc))
		gotLabel, err := DecodeLabel(enc, b)
		same(t, "label"+ext, gotLabel, err, label)
	}

	expired := sampleExpired()
	b := golden(t, "expired.json", expired.Append(nil))
	gotExpired, err := DecodeExpired(b)
	same(t, "expired", gotExpired, err, expired)

	viaJSON := func(name string, v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return golden(t, name, b)
	}
	gotPosition, err := DecodePosition(viaJSON("position.json", samplePosition()))
	same(t, "position", gotPosition, err, samplePosition())
	gotSource, err := DecodeSourcePosition(viaJSON("source_position.json", sampleSourcePosition()))
	same(t, "source position", gotSource, err, sampleSourcePosition())
	gotRescore, err := DecodeRescorePosition(viaJSON("rescore_position.json", sampleRescorePosition()))
	same(t, "rescore position", gotRescore, err, sampleRescorePosition())

	var alert Alert
	err = json.Unmarshal(viaJSON("alert.json", sampleAlert()), &alert)
	same(t, "alert", alert, err, sampleAlert())
	var beat Heartbeat
	err = json.Unmarshal(viaJSON("heartbeat.json", sampleHeartbeat()), &beat)
	same(t, "heartbeat", beat, err, sampleHeartbeat())
}

func TestContractSample(t *testing.T) {
	b := golden(t, "contract.yaml", []byte(sampleContract))
	c, err := ParseContract(b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseContract(out)
	same(t, "contract", again, err, c)
	if again, _ := again.YAML(); !bytes.Equal(again, out) {
		t.Errorf("a contract written twice is\n%s\nand\n%s", out, again)
	}
}

func TestEventSamples(t *testing.T) {
	s := sampleSchema(t)
	want := Record{
		ID: []byte("p-7"), Entity: []byte("c.4711 *"), Time: time.Date(2026, 1, 31, 12, 0, 0, 250e6, time.UTC), Unknown: 1,
		Values: []Value{
			{HasNum, 12.5, nil}, {HasNum, 0.25, nil}, {HasNum, -0.1, nil}, {HasText, 0, []byte(`Bäcker "Süß"`)},
			{HasText, 0, []byte("example.org")}, {HasNum, 1, nil}, {HasNum, 1582934400, nil}, {},
		},
	}
	for _, x := range []struct {
		name string
		enc  Encoding
		body []byte
	}{
		{"event.json", JSON, []byte(sampleEvent)},
		{"event.msgpack", Msgpack, toMsgpack(t, []byte(sampleEvent))},
	} {
		var rec Record
		if err := s.Decode(x.enc, golden(t, x.name, x.body), &rec); err != nil {
			t.Errorf("%s: %v", x.name, err)
		} else if d := recordDiff(&rec, &want); d != "" {
			t.Errorf("%s: %s", x.name, d)
		}
	}
}

func sampleSchema(tb testing.TB) *Schema {
	tb.Helper()
	c, err := ParseContract([]byte(sampleContract))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := Compile(c)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// A score that a list decided says so, in either encoding; one that no list decided has the bytes that it always had.
func TestOverrideOnTheWire(t *testing.T) {
	s := sampleScore()
	s.Decision, s.Override, s.OverrideRevision = Decline, Deny, 17
	for _, enc := range []Encoding{JSON, Msgpack} {
		body := s.Append(nil, enc)
		got, err := DecodeScore(body)
		if err != nil || got.Override != Deny || got.OverrideRevision != 17 || got.Decision != Decline {
			t.Errorf("%v: %+v, %v", enc, got, err)
		}
		if enc == JSON && !strings.HasSuffix(string(body), `"override":"deny","override_revision":17}`) {
			t.Errorf("%s", body)
		}
	}
}

// A reason with a code says so, in either encoding.
func TestReasonCodeOnTheWire(t *testing.T) {
	s := sampleScore()
	s.Reasons = []Reason{{Field: "amount", Add: 0.5, Code: "HIGH_AMOUNT"}, {Field: "merchant", Add: 0.25}}
	for _, enc := range []Encoding{JSON, Msgpack} {
		got, err := DecodeScore(s.Append(nil, enc))
		if err != nil || !reflect.DeepEqual(got.Reasons, s.Reasons) {
			t.Errorf("%v: %+v, %v", enc, got.Reasons, err)
		}
	}
	if body := string(s.Append(nil, JSON)); !strings.Contains(body, `{"field":"amount","add":0.5,"code":"HIGH_AMOUNT"},{"field":"merchant","add":0.25}`) {
		t.Errorf("%s", body)
	}
}
