package events

import (
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseContractRefuses(t *testing.T) {
	base := "kind: k\nfields:\n  - {name: a, type: number}\n"
	for _, x := range []struct{ text, err string }{
		{base, ""},
		{"", "contract is empty"},
		{base + "colour: red\n", "field colour not found"},
		{base + "---\nkind: k\n", "something follows it"},
		{"kind: K\nfields: [{name: a, type: number}]\n", "want a lower-case letter"},
		{"kind: k\n", "no fields"},
		{base + "lanes: 51\n", "lanes 51: want 1 to 50"},
		{base + "zone: Mars/Base\n", `zone "Mars/Base"`},
		{base + "zone: Local\n", "zone Local differs"},
		{base + "prior: .nan\n", "prior NaN: want a probability"},
		{base + "thresholds: {medium: 0.6, high: 0.5}\n", "want 0 <= medium <= high <= 1"},
		{base + "decisions: {late: maybe}\n", `decision for late is "maybe"`},
		{base + "retention: {events: 90d, scores: 30d}\n", "a position must outlive its event"},
		{base + "retention: {events: -1d}\n", "want a whole number of days"},
		{base + "id: a\n", "field a is the event's id"},
		{base + "time: t\nid: t\n", "field t is the time and the id or entity as well"},
		{base + "label: {column: a, positive: ['1']}\n", "field a is the label"},
		{base + "id: i\nlabel: {column: i, positive: ['1']}\n", "label column i is the id"},
		{base + "label: {column: y}\n", "label needs a column and at least one positive value"},
		{base + "  - {name: a, type: bool}\n", "field a stands twice"},
		{base + "  - {name: m, type: money}\n", "money needs a currency"},
		{base + "  - {name: m, type: money, currency: EUR, minor: 5}\n", "minor 5: want 0 to 4"},
		{base + "  - {name: m, type: number, minor: 2}\n", "currency and minor belong to type money"},
		{base + "  - {name: m, type: text}\n", `type "text": want number, money`},
		{base + "  - {name: '', type: bool}\n", "want 1 to 128 bytes"},
	} {
		_, err := ParseContract([]byte(x.text))
		if got := errText(err); x.err == "" && err != nil || !strings.Contains(got, x.err) {
			t.Errorf("%q: error %q, want %q", x.text, got, x.err)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, x := range []struct {
		text string
		d    time.Duration
		back string
	}{{"90d", 90 * 24 * time.Hour, "90d"}, {"36h", 36 * time.Hour, "36h0m0s"}, {"48h", 48 * time.Hour, "2d"}, {"10s", 10 * time.Second, "10s"}, {"0s", 0, "0s"}} {
		d, err := ParseDuration(x.text)
		if err != nil || d != x.d || Duration(d).String() != x.back {
			t.Errorf("%s: %v, %v, written %s, want %s", x.text, d, err, Duration(d), x.back)
		}
	}
	for _, text := range []string{"", "d", "-1d", "1.5d", "36501d", "-1h", "week"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is taken for %v", text, d)
		}
	}
}

func TestDecide(t *testing.T) {
	c := DefaultContract()
	c.Thresholds = Thresholds{Medium: 0.1, High: 0.5}
	for _, x := range []struct {
		p    float64
		band string
	}{{0, BandLow}, {0.09999, BandLow}, {0.1, BandMedium}, {0.5, BandHigh}, {1, BandHigh}} {
		if got := c.Band(x.p); got != x.band {
			t.Errorf("band of %v is %s, want %s", x.p, got, x.band)
		}
	}
	for _, x := range []struct{ mode, band, want string }{
		{ModeModel, BandLow, Approve}, {ModeModel, BandMedium, Review}, {ModeModel, BandHigh, Decline}, {ModeModel, BandHistory, None},
		{ModePrior, BandLow, Review}, {ModeStale, BandLow, Review}, {ModeLate, BandLow, Review},
	} {
		if got := c.Decide(x.mode, x.band); got != x.want {
			t.Errorf("%s, %s: %s, want %s", x.mode, x.band, got, x.want)
		}
	}
}

func TestDetectEncoding(t *testing.T) {
	for _, x := range []struct {
		contentType, body string
		want              Encoding
	}{
		{"", "{}", JSON}, {"", " \r\n\t{}", JSON}, {"", "\x81", Msgpack}, {"", "\xde\x00\x00", Msgpack}, {"", "\xdf", Msgpack},
		{"", "", 0}, {"", "[]", 0}, {"", "\x91", 0}, {"", "\xef\xbb\xbf{}", 0},
		{ContentTypeJSON, "\x80", JSON}, {ContentTypeMsgpack, "{}", Msgpack}, {"application/x-msgpack", "", Msgpack},
		{"application/json; charset=utf-8", "{}", JSON}, {"text/plain", "\x80", Msgpack},
	} {
		got, err := DetectEncoding(x.contentType, []byte(x.body))
		if got != x.want || (err == nil) != (x.want != 0) {
			t.Errorf("%q %q: %v, %v, want %v", x.contentType, x.body, got, err, x.want)
		}
	}
}

func TestSubjects(t *testing.T) {
	event, err := EventSubject("payment", "c.1 *>\n%é")
	if want := "events.payment.c%2E1%20%2A%3E%0A%25é"; err != nil || event != want {
		t.Errorf("event subject %s, %v, want %s", event, err, want)
	}
	for _, bad := range []string{"", "\xff", strings.Repeat("x", MaxEntityBytes+1)} {
		if s, err := EventSubject("payment", bad); err == nil {
			t.Errorf("entity %q: subject %s", clip(bad), s)
		}
	}
	stored, err := ParseStoredEvent("events.payment.7.c%2E1")
	if want := (StoredEvent{Kind: "payment", Lane: 7, Token: "c%2E1"}); err != nil || stored != want {
		t.Errorf("%+v, %v, want %+v", stored, err, want)
	}
	score, err := ParseStoredScore(ScoreSubject("payment", BandHigh, "c%2E1"))
	if want := (StoredScore{Kind: "payment", Band: "high", Token: "c%2E1"}); err != nil || score != want {
		t.Errorf("%+v, %v, want %+v", score, err, want)
	}
	kind, lane, err := ParsePositionSubject(PositionSubject("payment", 3))
	if err != nil || kind != "payment" || lane != 3 {
		t.Errorf("%s, %d, %v", kind, lane, err)
	}
	for _, bad := range []string{"", "events", "events.payment.x.c", "events.payment.-1.c", "events.payment.1.", "events.payment.1.a.b", "scores.payment.1.c"} {
		if got, err := ParseStoredEvent(bad); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
	for _, token := range []string{"%", "%2", "%2e", "%41", "a%zz"} {
		if got := UnescapeEntity(token); got != token {
			t.Errorf("token %s, which no entity has, is %s", token, got)
		}
	}
}

func TestDecodeLabel(t *testing.T) {
	for _, x := range []struct{ body, err string }{
		{`{"id":"a","label":1}`, ""}, {`{"seq":3,"label":null,"known_at":null}`, ""}, {`{"id":7,"label":0,"known_at":"2026-01-31T12:00:00+01:00","more":[1]}`, ""},
		{`{"id":"a"}`, "label: field label is absent: want 1 (bad), 0 (good) or null (withdrawn)"},
		{`{"label":1}`, "label: names no event: want id, or seq"},
		{`{"id":"","label":1}`, "label: names no event: want id, or seq"},
		{`{"id":"a","seq":3,"label":1}`, "label: names an event twice: want id or seq, not both"},
		{`{"seq":0,"label":1}`, "label: field seq: want an event's sequence, 1 or more"},
		{`{"seq":1.5,"label":1}`, "label: field seq: want an event's sequence, 1 or more"},
		{`{"id":"a","label":2}`, "label: field label: want 1 (bad), 0 (good) or null (withdrawn)"},
		{`{"id":"a","label":true}`, "label: field label: want 1 (bad), 0 (good) or null (withdrawn)"},
		{`{"id":"a","label":"1"}`, "label: field label: want 1 (bad), 0 (good) or null (withdrawn)"},
		{`{"id":"a","label":1,"known_at":"2026-01-31"}`, `label: field known_at: has no time zone: want RFC 3339 such as "2026-01-31T12:00:00Z"`},
		{`{"id":"a","label":1,"label":0}`, "label: field label: stands twice"},
		{`{"id":"a","label":1}{}`, "label: not JSON at byte 20: something follows the object"},
		{`[1]`, "label: not JSON at byte 0: want an object"},
	} {
		_, err := DecodeLabel(JSON, []byte(x.body))
		if got := errText(err); got != x.err {
			t.Errorf("%s: error %q, want %q", x.body, got, x.err)
		}
		// A repeated name cannot be said by the library that writes the msgpack.
		if !strings.Contains(x.err, "twice: want") && (strings.Contains(x.err, "twice") || strings.Contains(x.err, "not JSON")) {
			continue
		}
		_, err = DecodeLabel(Msgpack, toMsgpack(t, []byte(x.body)))
		if got := errText(err); got != x.err {
			t.Errorf("%s as msgpack: error %q, want %q", x.body, got, x.err)
		}
	}
}

func TestOutcomesRefuse(t *testing.T) {
	for _, x := range []struct {
		err  string
		call func() error
	}{
		{"score: no seq, kind, entity, p, band, decision, mode, time", func() error { _, err := DecodeScore([]byte(`{}`)); return err }},
		{"score: field p: want a finite number", func() error { _, err := DecodeScore([]byte(`{"p":null}`)); return err }},
		{"score: body is neither a JSON object nor a msgpack map", func() error { _, err := DecodeScore(nil); return err }},
		{"invalid: no reason", func() error { _, err := DecodeInvalid([]byte(`{"seq":1,"kind":"k","entity":"e"}`)); return err }},
		{"repeat: no id, first_seq", func() error { _, err := DecodeRepeat([]byte(`{"seq":1,"kind":"k","entity":"e"}`)); return err }},
		{"repeat: first_seq 7 is not before seq 7", func() error {
			_, err := DecodeRepeat([]byte(`{"id":"a","seq":7,"first_seq":7,"kind":"k","entity":"e"}`))
			return err
		}},
		{"repeat: field conflict: want true or false", func() error { _, err := DecodeRepeat([]byte(`{"conflict":1}`)); return err }},
		{"expired: first 2 is after last 1", func() error {
			_, err := DecodeExpired([]byte(`{"first":2,"last":1,"kind":"k","lane":0}`))
			return err
		}},
		{"position: no seq, incarnation, epoch, revision", func() error { _, err := DecodePosition([]byte(`{}`)); return err }},
		{"position: field seq: want an integer of 0 or more", func() error { _, err := DecodePosition([]byte(`{"seq":-1}`)); return err }},
		{"position: seq 5, attempts 0, trying 5, taken 0, tries 1, until 0, width 0 cannot be", func() error {
			_, err := DecodePosition([]byte(`{"seq":5,"incarnation":"2026-01-01T00:00:00Z","epoch":1,"revision":0,"trying":5,"tries":1}`))
			return err
		}},
		{"outcome: names no event: no seq, nor first and last", func() error { _, _, err := OutcomeSeq([]byte(`{"first":1}`)); return err }},
		{"outcome: field seq: want an integer of 0 or more", func() error { _, _, err := OutcomeSeq([]byte(`{"seq":"1"}`)); return err }},
	} {
		if got := errText(x.call()); got != x.err {
			t.Errorf("error %q, want %q", got, x.err)
		}
	}
}

// Whatever stands in a score's texts, what is written is JSON, and msgpack, and reads back.
func TestOutcomeTextsAreAlwaysValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sampleScore()
		s.Entity = string(rapid.SliceOf(rapid.Byte()).Draw(t, "entity"))
		s.P = rapid.Float64().Draw(t, "p")
		want := s
		want.Entity = string([]rune(s.Entity))
		for _, enc := range []Encoding{JSON, Msgpack} {
			b := s.Append(nil, enc)
			got, err := DecodeScore(b)
			if err != nil || got.Entity != want.Entity || got.P != want.P {
				t.Fatalf("%s %q: entity %q, p %v, %v; want %q, %v", enc, b, got.Entity, got.P, err, want.Entity, want.P)
			}
			if enc == JSON {
				if _, err := membersJSON(b); err != nil {
					t.Fatalf("%q: %v", b, err)
				}
			}
		}
	})
}

func TestReadOutcome(t *testing.T) {
	score, inv, expired, repeat, conflict := sampleScore(), sampleInvalid(), sampleExpired(), sampleRepeat(), sampleConflict()
	for _, x := range []struct {
		subject string
		body    []byte
		want    Outcome
	}{
		{"scores.payment.medium.c%2E4711%20%2A", score.Append(nil, Msgpack), Outcome{Kind: "payment", Band: BandMedium, Entity: "c.4711 *", Score: &score}},
		{"scores.payment.invalid.c1", inv.Append(nil, JSON), Outcome{Kind: "payment", Band: BandInvalid, Entity: "c1", Invalid: &inv}},
		{"scores.payment.repeat.c1", repeat.Append(nil, Msgpack), Outcome{Kind: "payment", Band: BandRepeat, Entity: "c1", Repeat: &repeat}},
		{"scores.payment.conflict.c1", conflict.Append(nil, JSON), Outcome{Kind: "payment", Band: BandConflict, Entity: "c1", Repeat: &conflict}},
		{"scores.payment.expired.lane-7", expired.Append(nil), Outcome{Kind: "payment", Band: BandExpired, Entity: "lane-7", Expired: &expired}},
	} {
		x.want.Seq, x.want.Body = 9, x.body
		if got := readOutcome(x.subject, 9, x.body); !reflect.DeepEqual(got, x.want) {
			t.Errorf("%s: %+v, want %+v", x.subject, got, x.want)
		}
	}
	for _, subject := range []string{"scores.payment.low.c1", "scores.payment.invalid.c1", "scores.payment.repeat.c1", "scores.payment.expired.c1", "position.payment.1"} {
		if got := readOutcome(subject, 9, []byte("{}")); got.Err == nil || got.Score != nil || got.Invalid != nil || got.Repeat != nil || got.Expired != nil {
			t.Errorf("%s without a field is %+v", subject, got)
		}
	}
}

func TestCompatible(t *testing.T) {
	base := sampleSchema(t).Contract
	change := func(f func(c *Contract)) Contract {
		c := base
		c.Fields = slices.Clone(base.Fields)
		c.Version++
		f(&c)
		return c
	}
	set := func(name string, f func(*Field)) func(*Contract) {
		return func(c *Contract) {
			for i := range c.Fields {
				if c.Fields[i].Name == name {
					f(&c.Fields[i])
				}
			}
		}
	}
	drop := func(name string) func(*Contract) {
		return func(c *Contract) {
			c.Fields = slices.DeleteFunc(c.Fields, func(f Field) bool { return f.Name == name })
		}
	}
	reads := func(f string) bool { return f == "amount" || f == "merchant" }
	for _, x := range []struct {
		name          string
		change        func(*Contract)
		served, alone string // error while a model serves, and while none does
		diff          string
	}{
		{"nothing", func(*Contract) {}, "", "", ""},
		{"field more", func(c *Contract) { c.Fields = append(c.Fields, Field{Name: "new", Type: Number, Required: true}) }, "", "", "field new: added, number, required: events without it become invalid"},
		{"unread field gone", drop("region"), "", "", "field region: removed"},
		{"read field gone", drop("amount"), "field amount is gone, and a model that serves reads it", "", "field amount: removed"},
		{"retyped", set("merchant", func(f *Field) { f.Type = Number }), "field merchant: type number: it is category for a model that serves", "", "field merchant type: category -> number"},
		{"other unit", set("amount", func(f *Field) { f.Minor = 2 }), "field amount: EUR in units of 10^-2: it is EUR in units of 10^-0 for a model that serves", "", "field amount minor: 0 -> 2"},
		{"protected", set("merchant", func(f *Field) { f.Protected = true }), "field merchant: protected: a model that serves reads it", "", "field merchant protected: false -> true"},
		{"missing text", set("merchant", func(f *Field) { f.Missing = []string{"?", "-"} }), "", "", "field merchant missing: none -> ? -"},
		{"id", func(c *Contract) { c.ID = "" }, "id none: it is id, and a model serves that was trained so", "", "id: id -> none"},
		{"zone", func(c *Contract) { c.Zone = "UTC" }, "zone UTC: it is Europe/Berlin, and a model serves that was trained so", "", "zone: Europe/Berlin -> UTC"},
		{"policy", func(c *Contract) { c.Thresholds.High = 0.75 }, "", "", "thresholds.high: 0.5 -> 0.75"},
		{"label", func(c *Contract) { c.Label = nil }, "", "", "label: fraud, positive 1 yes -> none"},
		{"order", func(c *Contract) { c.Fields[0], c.Fields[1] = c.Fields[1], c.Fields[0] }, "", "", "fields: stand in another order"},
		{"lanes", func(c *Contract) { c.Lanes = 4 }, "lanes 4: the kind was made with 8", "lanes 4: the kind was made with 8", "lanes: 8 -> 4"},
	} {
		next := change(x.change)
		for _, y := range []struct {
			err   error
			want  string
			where string
		}{{Compatible(base, next, reads), x.served, "served"}, {Compatible(base, next, nil), x.alone, "alone"}} {
			if got := errText(y.err); y.want == "" && got != "" || !strings.Contains(got, y.want) {
				t.Errorf("%s, %s: error %q, want %q", x.name, y.where, got, y.want)
			}
		}
		want := []string{"version: 3 -> 4"}
		if x.diff != "" {
			want = append(want, x.diff)
		}
		if got := DiffContracts(base, next); !slices.Equal(got, want) {
			t.Errorf("%s: diff %q, want %q", x.name, got, want)
		}
	}
	if err := Compatible(base, change(func(c *Contract) { c.Kind = "other" }), nil); err == nil {
		t.Error("another kind was let pass")
	}
}

func table(text string) ([]string, iter.Seq[[]string]) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Split(lines[0], "|"), func(yield func([]string) bool) {
		for _, l := range lines[1:] {
			if !yield(strings.Split(l, "|")) {
				return
			}
		}
	}
}

// draw lists what a contract says of its columns.
func draw(c Contract) string {
	out := []string{}
	for _, x := range []struct{ role, name string }{{"id", c.ID}, {"entity", c.Entity}, {"time", c.Time}} {
		if x.name != "" {
			out = append(out, x.role+"="+x.name)
		}
	}
	if c.Label != nil {
		out = append(out, fmt.Sprintf("label=%s:%s prior=%v", c.Label.Column, strings.Join(c.Label.Positive, ","), c.Prior))
	}
	for _, f := range c.Fields {
		s := f.Name + ":" + string(f.Type)
		if len(f.Missing) > 0 {
			s += "(" + strings.Join(f.Missing, ",") + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func TestInferContract(t *testing.T) {
	columns, rows := table(`
shop_id|id|card|timestamp|amount|age|code|zip|flag|seen|local|empty|job|y
s1|1|a|2026-01-31T12:00:00Z|12.50|41|1|01234|true|2020-01-01T00:00:00+01:00|2026-01-31 12:00||admin|no
s2|2|b|2026-01-31T12:00:01Z|.5|?|2|10115|False||2026-01-31 12:01||?|yes
s1|3|a|2026-01-31T12:00:02Z|1e3|NaN|2|20095|TRUE|2020-01-01T00:00:00Z|2026-01-31||NA|no
s3|x|9
`)
	c, notes, err := InferContract("payment", columns, rows, InferOptions{Entity: "card", Label: "y", Categorical: []string{"code"}})
	if err != nil {
		t.Fatal(err)
	}
	want := "id=id entity=card time=timestamp label=y:yes prior=0.3333 shop_id:category amount:number age:number(?,NaN) code:category zip:category flag:bool seen:time local:category empty:category job:category"
	if got := draw(c); got != want {
		t.Errorf("contract\n%s\nwant\n%s", got, want)
	}
	wantNotes := []string{
		"1 rows do not have a cell for each column: left out",
		"zip: numbers with leading zeros: taken for codes, a category",
		"local: holds times without a zone: a category now; give them a zone to make it a time",
		"empty: has no value in these rows: taken for a category",
	}
	if !slices.Equal(notes, wantNotes) {
		t.Errorf("notes\n%s\nwant\n%s", strings.Join(notes, "\n"), strings.Join(wantNotes, "\n"))
	}

	none := func(func([]string) bool) {}
	for _, x := range []struct {
		o    InferOptions
		rows iter.Seq[[]string]
		err  string
	}{
		{InferOptions{}, none, "infer payment: no rows"},
		{InferOptions{Label: "z"}, rows, `infer payment: no column "z"`},
		{InferOptions{Label: "job"}, rows, "infer payment: label job: which of its values mean the bad outcome? Say so: none of them is 1, true, yes, y, bad or fraud"},
	} {
		if _, _, err := InferContract("payment", columns, x.rows, x.o); errText(err) != x.err {
			t.Errorf("error %v, want %s", err, x.err)
		}
	}
}

func TestInferJSON(t *testing.T) {
	bodies := slices.Values([][]byte{
		[]byte(`{"tx_id":"a","n":1,"k":"x","price":"12.50","b":true,"at":"2026-01-31T12:00:00Z","items":[1],"m":1}`),
		[]byte(`{"tx_id":"b","n":"NA","k":7,"price":"3","b":null,"at":"2026-01-31T12:00:00Z","late":1.5,"m":"x"}`),
	})
	c, notes, err := InferJSON("payment", bodies, InferOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := draw(c), "id=tx_id n:number(NA) k:category price:category b:bool at:time m:category late:number"; got != want {
		t.Errorf("contract\n%s\nwant\n%s", got, want)
	}
	if want := "price: numbers in strings: a category now; if it is an amount make it money, with its currency"; !slices.Contains(notes, want) {
		t.Errorf("notes %q lack %q", notes, want)
	}
	if want := "items: nested, so no field: it is kept with the event and ignored"; !slices.Contains(notes, want) {
		t.Errorf("notes %q lack %q", notes, want)
	}
	if _, _, err := InferJSON("payment", slices.Values([][]byte{[]byte(`{}`)}), InferOptions{}); err == nil || !strings.Contains(err.Error(), "no fields") {
		t.Errorf("events without a field: %v", err)
	}
	if _, _, err := InferJSON("payment", slices.Values([][]byte{[]byte(`{"a":1`)}), InferOptions{}); err == nil {
		t.Error("a broken line was let pass")
	}
}

// What a contract was inferred from is valid under it.
func TestInferredContractTakesItsRows(t *testing.T) {
	cell := rapid.OneOf(
		rapid.SampledFrom([]string{"", "0", "007", "-1", "?", " 7", "NA", "nan", "true", "FALSE", "tRue", "1e3", "1e999", "+.5", "2026-01-31T12:00:00Z", "2026-01-31t12:00:00z", "0001-01-01T00:00:00Z", "2026-01-31"}),
		rapid.StringMatching(`[0-9]{1,3}\.?[0-9]{0,2}`),
	)
	columns := []string{"id", "x_id", "time", "a", "b"}
	rapid.Check(t, func(t *rapid.T) {
		var rows [][]string
		narrow := rapid.SliceOfN(cell, len(columns), len(columns)).Draw(t, "row")
		for range rapid.IntRange(1, 5).Draw(t, "rows") {
			row := slices.Clone(narrow)
			for i := range row {
				if rapid.Bool().Draw(t, "differs") {
					row[i] = cell.Draw(t, "cell")
				}
			}
			rows = append(rows, row)
		}
		c, _, err := InferContract("k", columns, slices.Values(rows), InferOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := Compile(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			if _, err := s.AppendRow(nil, columns, row); err != nil {
				t.Fatalf("contract %s refuses its own row %q: %v", draw(c), row, err)
			}
		}
	})
}
