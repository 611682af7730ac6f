package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (b *broker) file(t *testing.T, cfg FileConfig) *File {
	t.Helper()
	cfg.Conn, cfg.Schema, cfg.Log = b.nc, b.schema, zap.NewNop()
	if cfg.Patience == 0 {
		cfg.Patience = testkit.Deadline
	}
	f, err := NewFile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (b *broker) ingest(t *testing.T, cfg FileConfig) (Progress, error) {
	t.Helper()
	var last Progress
	cfg.Progress = func(p Progress) { last = p }
	err := b.file(t, cfg).Run(testkit.Context(t))
	return last, err
}

func badRows(t *testing.T, path string) (rows []BadRow) {
	t.Helper()
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(body) {
		var b BadRow
		if err := json.Unmarshal(line, &b); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		rows = append(rows, b)
	}
	return rows
}

func TestFileOfEvents(t *testing.T) {
	b := start(t, nil)
	path := write(t, "day.csv", "\xef\xbb\xbfid,card,at,amount,country,fraud\r\n"+
		"p1,c.1,2026-01-31T12:00:00Z,007.50,\"D,E\",yes\r\n"+
		"p2,,,x,DE,no\r\n"+
		",\"a b\",,3,,no\r\n"+
		",,,4,,\r\n"+
		"p5,c,2026-01-31 12:00,5,,yes\r\n"+
		"p6,"+strings.Repeat("é", 200)+",,6,,yes\r\n"+
		"p7\r\n")
	p, err := b.ingest(t, FileConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if p.Rows != 7 || p.Invalid != 4 || !p.Done || p.Read != p.Size {
		t.Errorf("progress %+v", p)
	}
	var got []string
	for _, m := range b.events(t) {
		got = append(got, strings.TrimPrefix(strings.TrimPrefix(m.Subject, "events.payment.0."), "events.payment.1.")+" "+string(m.Data))
	}
	want := []string{
		`c%2E1 {"id":"p1","card":"c.1","at":"2026-01-31T12:00:00Z","amount":7.50,"country":"D,E"}`,
		`a%20b {"id":"day.csv#3","card":"a b","amount":3}`,
		`day%2Ecsv#4 {"id":"day.csv#4","amount":4}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var claims []string
	for _, l := range b.labels(t) {
		claims = append(claims, fmt.Sprintf("%s=%d %s %t", l.ID, *l.Label, l.Source, l.KnownAt.IsZero()))
	}
	if want := []string{"p1=1 day.csv true", "day.csv#3=0 day.csv true"}; !slices.Equal(claims, want) {
		t.Errorf("labels %q, want %q", claims, want)
	}
	var bad []string
	for _, r := range badRows(t, path+".invalid.jsonl") {
		bad = append(bad, fmt.Sprintf("%d %d %s", r.Line, r.Row, r.Field))
		if r.File != path || r.Reason == "" || r.Text == "" {
			t.Errorf("bad row %+v", r)
		}
	}
	if want := []string{"3 2 amount", "6 5 at", "7 6 card", "8 7 "}; !slices.Equal(bad, want) {
		t.Errorf("bad rows %q, want %q", bad, want)
	}

	// Again: nothing is new. A file that has grown: only what is new.
	if _, err := b.ingest(t, FileConfig{Path: path}); err != nil {
		t.Fatal(err)
	}
	if n := len(b.events(t)); n != 3 {
		t.Errorf("%d events after a second run", n)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("p8,c,,8,,no\r\n"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if p, err = b.ingest(t, FileConfig{Path: path}); err != nil || p.Rows != 8 || p.Invalid != 4 {
		t.Errorf("after it has grown: %+v, %v", p, err)
	}
	if all := b.events(t); len(all) != 4 || b.id(t, all[3].Data) != "p8" {
		t.Errorf("%d events after it has grown", len(all))
	}
}

func TestJSONLines(t *testing.T) {
	b := start(t, nil)
	path := write(t, "day.jsonl", strings.Join([]string{
		`{"id":"p1","amount":1.10,"fraud":"yes","note":{"a":[1]}}`,
		`{"fr\u0061ud":"no","id":null,"amount":2}`,
		`{"amount":"3"}`,
		`{}`,
		`[1]`,
		`{"amount":6,"amount":6}`,
		`{"amount":7,"fraud":"yes","fraud":"no"}`,
		`{"amount":8,"fraud":["yes"]}`,
		` { "fraud" : null , "amount" : 9 } `,
	}, "\n"))
	if _, err := b.ingest(t, FileConfig{Path: path, SourceName: "s"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range b.events(t) {
		got = append(got, string(m.Data))
	}
	if want := []string{`{"id":"p1","amount":1.10,"note":{"a":[1]}}`, `{"id":"s#2","amount":2}`, `{"id":"s#9","amount" : 9}`}; !slices.Equal(got, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if l := b.labels(t); len(l) != 2 || l[0].ID != "p1" || *l[0].Label != 1 || l[1].ID != "s#2" || *l[1].Label != 0 {
		t.Errorf("labels %+v", l)
	}
	if bad := badRows(t, path+".invalid.jsonl"); len(bad) != 6 {
		t.Errorf("bad rows %+v", bad)
	}
}

// rows of a file of which every 13th is bad; all others have ids r0, r1, ...
func manyRows(n int) (text string, ids []string, bad int) {
	var s strings.Builder
	s.WriteString("id,card,amount,fraud\n")
	for i := range n {
		switch {
		case i%26 == 13:
			s.WriteString("no amount,c,,\n")
			bad++
		case i%13 == 0:
			fmt.Fprintf(&s, "\"unclosed %d\n", i)
			bad++
		default:
			fmt.Fprintf(&s, "r%d,c%d,%d,%s\n", i, i%7, i, []string{"yes", "no", ""}[i%3])
			ids = append(ids, fmt.Sprintf("r%d", i))
		}
	}
	return s.String(), ids, bad
}

// check holds after an ingest of such a file has ended, whatever happened on the way.
func (b *broker) check(t *testing.T, path string, ids []string, bad int) {
	t.Helper()
	var got []string
	for _, m := range b.events(t) {
		got = append(got, b.id(t, m.Data))
	}
	if !slices.Equal(got, ids) {
		t.Errorf("%d events, want the %d rows, each once and in their order", len(got), len(ids))
	}
	rows := map[int64]bool{}
	for _, r := range badRows(t, path+".invalid.jsonl") {
		if rows[r.Row] {
			t.Errorf("bad row %d stands twice", r.Row)
		}
		rows[r.Row] = true
	}
	if len(rows) != bad {
		t.Errorf("%d bad rows, want %d", len(rows), bad)
	}
	claims := map[string]int{}
	for _, l := range b.labels(t) {
		claims[l.ID] = *l.Label + 1
	}
	for _, id := range ids {
		var i int
		fmt.Sscanf(id, "r%d", &i)
		if want := []int{2, 1, 0}[i%3]; claims[id] != want {
			t.Errorf("label of %s is %d, want %d", id, claims[id]-1, want-1)
		}
	}
}

// Killed before or after any write, with answers lost in between, and started again: no row twice, none missing.
func TestKilledAnywhere(t *testing.T) {
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		for _, gz := range []bool{false, true} {
			t.Run(fmt.Sprintf("delay %s, gzip %t", delay, gz), func(t *testing.T) {
				t.Parallel()
				seed := rand.Uint64()
				t.Logf("seed %d", seed)
				rng := rand.New(rand.NewPCG(seed, 0))
				b := start(t, nil)
				text, ids, bad := manyRows(400)
				if gz {
					text = zip(t, text)
				}
				path := write(t, "day.csv", text)
				for round := 1; ; round++ {
					if round > 400 {
						t.Fatal("does not come to an end")
					}
					ctx, die := context.WithCancel(testkit.Context(t))
					f := b.file(t, FileConfig{Path: path, LabelDelay: delay})
					f.most = 1 + rng.IntN(20)
					kill := 4
					if round > 40 {
						kill = 200 // that it ends
					}
					x := &fates{die: die, next: func() fate {
						switch n := rng.IntN(kill); {
						case n == 0:
							return diesEarly
						case n == 1:
							return diesLate
						case n == 2 && rng.IntN(4) == 0:
							return fails
						case n == 3 && rng.IntN(4) == 0:
							return loses
						}
						return goes
					}}
					f.commit, f.labels = fated{x, f.commit}, fated{x, f.labels}
					err := f.Run(ctx)
					die()
					if err == nil {
						if round < 20 {
							t.Errorf("ended in round %d: too few kills to show anything", round)
						}
						t.Logf("%d rounds", round)
						break
					}
					if !errors.Is(err, context.Canceled) {
						t.Fatalf("round %d: %v", round, err)
					}
				}
				b.check(t, path, ids, bad)
			})
		}
	}
}

// Both halves of a lost answer, for each remote write.
func TestLostAnswers(t *testing.T) {
	for _, x := range []fate{fails, loses} {
		for _, what := range []string{"commit", "labels"} {
			t.Run(fmt.Sprintf("%s %d", what, x), func(t *testing.T) {
				t.Parallel()
				b := start(t, nil)
				text, ids, bad := manyRows(60)
				path := write(t, "day.csv", text)
				f := b.file(t, FileConfig{Path: path})
				f.most = 15
				n := 0
				w := &fates{next: func() fate {
					if n++; n%2 == 1 {
						return x
					}
					return goes
				}}
				if what == "commit" {
					f.commit = fated{w, f.commit}
				} else {
					f.labels = fated{w, f.labels}
				}
				if err := f.Run(testkit.Context(t)); err != nil {
					t.Fatal(err)
				}
				if n < 5 {
					t.Errorf("only %d writes: nothing was shown", n)
				}
				b.check(t, path, ids, bad)
			})
		}
	}
}

// The broker is away in the middle, and comes back.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	text, ids, bad := manyRows(200)
	path := write(t, "day.csv", text)
	f := b.file(t, FileConfig{Path: path})
	f.most = 10
	n := 0
	f.commit = fated{&fates{next: func() fate {
		if n++; n == 5 {
			b.RestartNode(t, 0)
		}
		return goes
	}}, f.commit}
	if err := f.Run(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	b.check(t, path, ids, bad)

	// For longer than the patience.
	f = b.file(t, FileConfig{Path: path, SourceName: "again", Patience: time.Millisecond})
	f.commit = fated{&fates{next: func() fate { return fails }}, f.commit}
	if err := f.Run(testkit.Context(t)); !errors.Is(err, errLost) || !strings.Contains(err.Error(), "run the same command again") {
		t.Errorf("after the patience: %v", err)
	}
}

func TestTwoAtOnce(t *testing.T) {
	b := start(t, nil)
	text, ids, bad := manyRows(300)
	path := write(t, "day.csv", text)
	one := b.file(t, FileConfig{Path: path})
	one.most = 10
	var other error
	n := 0
	one.commit = fated{&fates{next: func() fate {
		if n++; n == 5 { // the other one commits all while this one is in the middle
			other = b.file(t, FileConfig{Path: path, InvalidPath: path + ".other"}).Run(testkit.Context(t))
		}
		return goes
	}}, one.commit}
	err := one.Run(testkit.Context(t))
	if !errors.Is(err, ErrTaken) || other != nil {
		t.Errorf("the overtaken one ends with %v, the other with %v", err, other)
	}
	all, err := os.ReadFile(path + ".invalid.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	rest, err := os.ReadFile(path + ".other")
	if err != nil {
		t.Fatal(err)
	}
	// What the overtaken one wrote and could not commit, the other one wrote as well: into a file of its own, here.
	lines := slices.Compact(slices.Sorted(bytesLines(append(all, rest...))))
	if err := os.WriteFile(path+".invalid.jsonl", []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, path, ids, bad)
}

func bytesLines(b []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(b) {
			if !yield(string(line)) {
				return
			}
		}
	}
}

func TestFileRefusals(t *testing.T) {
	b := start(t, nil)
	good := "id,card,amount\np1,c,1\n"
	if _, err := b.ingest(t, FileConfig{Path: write(t, "a.csv", good)}); err != nil {
		t.Fatal(err)
	}
	other, err := events.Compile(contract(func(c *events.Contract) { c.Kind = "loan" }))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, file, text string
		cfg              FileConfig
		is               error
		says             string
	}{
		{"another file under the name", "a.csv", "id,card,amount\np9,c,9\n", FileConfig{}, ErrOtherFile, "--source-name"},
		{"events read as labels", "a.csv", good, FileConfig{Labels: true}, nil, "no column is the label"},
		{"a missing column", "b.csv", "id,card\np1,c\n", FileConfig{}, nil, "amount: is required and has no column"},
		{"strict", "c.csv", "id,card,amount\np1,c,1\np2,c,x\np3,c,3\n", FileConfig{Strict: true}, ErrBadRow, "c.csv:3: field amount"},
		{"no file", "", "", FileConfig{Path: "none.csv"}, os.ErrNotExist, "none.csv"},
		{"bad rows have nowhere to go", "d.csv", "id,card,amount\np1,c,x\n", FileConfig{InvalidPath: "/nowhere/x"}, os.ErrNotExist, "bad rows cannot be kept"},
		{"a directory for a name", "e.csv", good, FileConfig{SourceName: strings.Repeat("x", 300)}, events.ErrEntity, "source name"},
	} {
		cfg := c.cfg
		if cfg.Path == "" {
			cfg.Path = write(t, c.file, c.text)
		}
		_, err := b.ingest(t, cfg)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want one that says %q", c.name, err, c.says)
		}
	}
	// Strict keeps what was before the bad row, and nothing after it.
	var ids []string
	for _, m := range b.events(t) {
		ids = append(ids, b.id(t, m.Data))
	}
	if want := []string{"p1", "p1"}; !slices.Equal(ids, want) {
		t.Errorf("events %q, want %q", ids, want)
	}

	b.schema = other
	if _, err := b.ingest(t, FileConfig{Path: write(t, "a.csv", good)}); err == nil || !strings.Contains(err.Error(), "riskweir kind apply") {
		t.Errorf("an undeclared kind: %v", err)
	}
	noID, err := events.Compile(contract(func(c *events.Contract) { c.ID = "" }))
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []FileConfig{
		{}, {Path: "x", Rate: -1}, {Path: "x", Labels: true, History: true}, {Path: "-", LabelDelay: 1}, {Path: "x", Schema: noID},
	} {
		cfg.Conn, cfg.Log = b.nc, zap.NewNop()
		if cfg.Schema == nil {
			cfg.Schema = b.schema
		}
		if _, err := NewFile(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

func TestFileOfLabels(t *testing.T) {
	b := start(t, nil)
	claims := func() (all []string) {
		for _, l := range b.labels(t) {
			v := "null"
			if l.Label != nil {
				v = fmt.Sprint(*l.Label)
			}
			at := ""
			if !l.KnownAt.IsZero() {
				at = " " + l.KnownAt.UTC().Format(time.RFC3339)
			}
			all = append(all, fmt.Sprintf("%s/%d=%s%s %s", l.ID, l.Seq, v, at, l.Source))
		}
		return all
	}
	path := write(t, "labels.csv", "id,seq,label,known_at,entity,more\np1,,1,2026-03-01T01:00:00+01:00,c.1,x\n,7,0,,,\np3,,,,,\np4,,2,,,\n,,1,,,\np6,,1,2026-03-01,,\n")
	for range 2 {
		p, err := b.ingest(t, FileConfig{Path: path, Labels: true})
		if err != nil || p.Rows != 6 || p.Invalid != 3 {
			t.Errorf("%+v, %v", p, err)
		}
	}
	want := []string{"p1/0=1 2026-03-01T00:00:00Z labels.csv", "/7=0 labels.csv", "p3/0=null labels.csv"}
	if got := claims(); !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
	subjects := b.messages(t, events.LabelsStream, "labels.")
	if subjects[0].Subject != "labels.payment.c%2E1" || subjects[1].Subject != "labels.payment.7" || subjects[2].Subject != "labels.payment.p3" {
		t.Errorf("subjects %s, %s, %s", subjects[0].Subject, subjects[1].Subject, subjects[2].Subject)
	}
	if n := len(b.events(t)); n != 0 {
		t.Errorf("%d events of a file of labels", n)
	}

	// As the contract has them, and as on the wire.
	path = write(t, "l2.csv", "id,fraud\nq1,yes\nq2,no\nq3,\n")
	if _, err := b.ingest(t, FileConfig{Path: path, Labels: true}); err != nil {
		t.Fatal(err)
	}
	path = write(t, "l3.jsonl", `{"id":"w1","label":null,"source":"bank","entity":"c 9"}`+"\n"+`{"seq":3,"label":1}`+"\n"+`{"id":"w3"}`)
	if p, err := b.ingest(t, FileConfig{Path: path, Labels: true}); err != nil || p.Invalid != 1 {
		t.Fatal(p, err)
	}
	want = append(want, "q1/0=1 l2.csv", "q2/0=0 l2.csv", "q3/0=null l2.csv", "w1/0=null bank", "/3=1 l3.jsonl")
	if got := claims(); !slices.Equal(got, want) {
		t.Errorf("labels %q, want %q", got, want)
	}
}

func TestHistory(t *testing.T) {
	b := start(t, nil)
	path := write(t, "old.csv", "id,card,at,amount,fraud\np1,c,2020-01-01T00:00:00Z,1,yes\np2,c,,2,no\n")
	if _, err := b.ingest(t, FileConfig{Path: path, History: true, LabelDelay: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, m := range b.events(t) {
		if m.Header.Get(events.HeaderHistory) != "1" {
			t.Errorf("%s is not marked as history", m.Data)
		}
	}
	l := b.labels(t)
	if len(l) != 2 || !l[0].KnownAt.Equal(time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC)) || !l[1].KnownAt.IsZero() {
		t.Errorf("labels %+v", l)
	}
}

// A label comes its delay after its event, no sooner, also when the run was ended in between.
func TestLabelDelay(t *testing.T) {
	t.Parallel()
	const delay = 600 * time.Millisecond
	b := start(t, nil)
	path := write(t, "day.csv", "id,card,amount,fraud\np1,c,1,yes\np2,c,2,no\n")
	ctx, cancel := context.WithCancel(testkit.Context(t))
	f := b.file(t, FileConfig{Path: path, LabelDelay: delay, Progress: func(p Progress) {
		if p.Done {
			cancel() // all events are in, no label is
		}
	}})
	if err := f.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := len(b.labels(t)); n != 0 {
		t.Fatalf("%d labels at once", n)
	}
	p, err := b.ingest(t, FileConfig{Path: path, LabelDelay: delay})
	if err != nil || p.Labels != 2 {
		t.Fatal(p, err)
	}
	all, claims := b.events(t), b.messages(t, events.LabelsStream, "labels.")
	if len(all) != 2 || len(claims) != 2 {
		t.Fatalf("%d events, %d labels", len(all), len(claims))
	}
	for i, m := range claims {
		if after := m.Time.Sub(all[i].Time); after < delay {
			t.Errorf("label %d came %s after its event", i, after)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	path := write(t, "day.csv", "id,card,amount\n"+strings.Repeat(",c,1\n", 100))
	started := time.Now()
	p, err := b.ingest(t, FileConfig{Path: path, Rate: 200})
	// Five batches of 20: the first goes at once, the last 80 rows later.
	if took := time.Since(started); err != nil || p.Rows != 100 || took < 380*time.Millisecond {
		t.Errorf("%d rows in %s, %v", p.Rows, took, err)
	}
}

func TestLargeRows(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	var text strings.Builder
	for i, n := range []int{900 << 10, maxBody, 1 << 20, 900 << 10, 900 << 10, 900 << 10, 900 << 10, 900 << 10} {
		fmt.Fprintf(&text, `{"id":"p%d","amount":1,"pad":"%s"}`+"\n", i, strings.Repeat("x", n))
	}
	path := write(t, "big.jsonl", text.String())
	p, err := b.ingest(t, FileConfig{Path: path, Format: source.Options{Format: source.JSONLines}})
	if err != nil || p.Rows != 8 || p.Invalid != 2 || len(b.events(t)) != 6 {
		t.Errorf("%+v, %v, %d events", p, err, len(b.events(t)))
	}
}
