package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/internal/verify"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const cardContract = `
kind: payment
id: id
entity: card
time: at
fields:
  - {name: amount, type: number, required: true}
  - {name: channel, type: category}
lanes: 2
prior: 0.02
`

// What becomes of a bad event.
const (
	scored  = "scored"
	invalid = "invalid" // stored, and its outcome says why
	refused = "refused" // not stored, and whoever sent it is told why
)

// badInput sends one event over one path.
type badInput struct {
	name string
	path string // nats, http or file
	send func(*testing.T, *sender) (fate, said string)
	fate string
	said string // part of what the sender, or the outcome, says
}

// sender knows the ways in.
type sender struct {
	system *system
	http   string

	found map[uint64]*natsjs.RawStreamMsg // outcomes that SCORES holds before next, by event
	next  uint64
}

// nats publishes as 'nats req' does, and waits for the outcome of what is stored.
func (s *sender) nats(subject string, header nats.Header, body []byte) func(*testing.T, *sender) (string, string) {
	return func(t *testing.T, s *sender) (string, string) {
		ctx, cancel := context.WithTimeout(t.Context(), testkit.Deadline)
		defer cancel()
		ack, err := s.system.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: header, Data: body})
		if err != nil {
			return refused, err.Error()
		}
		return s.outcome(t, ack.Sequence)
	}
}

// outcome of a stored event, by its sequence.
func (s *sender) outcome(t *testing.T, seq uint64) (fate, said string) {
	t.Helper()
	stream, err := s.system.js.Stream(t.Context(), events.ScoresStream("payment"))
	if err != nil {
		t.Fatal(err)
	}
	var m *natsjs.RawStreamMsg
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("event %d has an outcome", seq), func() (bool, string) {
		info, err := stream.Info(t.Context())
		if err != nil {
			return false, err.Error()
		}
		for ; s.next <= info.State.LastSeq; s.next++ {
			m, err := stream.GetMsg(t.Context(), s.next)
			if err != nil {
				return false, err.Error()
			}
			if !strings.HasPrefix(m.Subject, "scores.") {
				continue
			}
			first, _, err := events.OutcomeSeq(m.Data)
			if err != nil {
				t.Fatalf("%q: %v", m.Data, err)
			}
			s.found[first] = m
		}
		m = s.found[seq]
		return m != nil, fmt.Sprintf("SCORES ends at %d", info.State.LastSeq)
	})
	if strings.Contains(m.Subject, ".invalid.") {
		x, err := events.DecodeInvalid(m.Data)
		if err != nil {
			t.Fatalf("%q: %v", m.Data, err)
		}
		return invalid, strings.TrimSpace(x.Field + " " + x.Reason)
	}
	x, err := events.DecodeScore(m.Data)
	if err != nil {
		t.Fatalf("%q: %v", m.Data, err)
	}
	return scored, fmt.Sprintf("entity %q, p %v", x.Entity, x.P)
}

func (s *sender) post(query, contentType string, body []byte) func(*testing.T, *sender) (string, string) {
	return func(t *testing.T, s *sender) (string, string) {
		return s.postTo(t, "/v1/score/payment"+query, contentType, body)
	}
}

func (s *sender) postTo(t *testing.T, path, contentType string, body []byte) (fate, said string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	token, err := s.system.layout.token()
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	trust, err := s.system.layout.httpTrust()
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	said = fmt.Sprintf("%d %s", resp.StatusCode, bytes.TrimSpace(text))
	switch {
	case resp.StatusCode == 200:
		return scored, said
	case resp.StatusCode == 422:
		return invalid, said
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return refused, said
	}
	return "answered", said
}

// file ingests rows, the last of which is bad where fate is refused; the good ones are read by verify.
func (s *sender) file(text string) func(*testing.T, *sender) (string, string) {
	return func(t *testing.T, s *sender) (string, string) {
		name := filepath.Join(t.TempDir(), strings.ReplaceAll(t.Name(), "/", "-")+".csv")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, told, code := riskweir(t, "ingest", name, "--kind", "payment", "--context", s.system.context)
		if code == 2 {
			return refused, told
		}
		bad, err := os.ReadFile(name + ".invalid.jsonl")
		switch {
		case err == nil:
			return refused, string(bad)
		case !errors.Is(err, os.ErrNotExist) || code != 0:
			t.Fatalf("exit status %d, %v: %s", code, err, told)
		}
		if strings.Contains(told, ": 0 rows,") {
			return "nothing to do", told
		}
		out, errOut, code := riskweir(t, "verify", "payment", "--source", name, "--context", s.system.context)
		if code != 0 {
			t.Fatalf("verify: exit status %d: %s%s", code, out, errOut)
		}
		return scored, strings.TrimSpace(told + out)
	}
}

func packed(t *testing.T, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Nothing that comes in crashes anything, blocks a lane or is lost without a word.
func TestBadInput(t *testing.T) {
	t.Parallel()
	u := up(t, upConfig{nodes: 1, source: "none", dir: t.TempDir()})
	file := filepath.Join(t.TempDir(), "payment.yaml")
	if err := os.WriteFile(file, []byte(cardContract), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errOut, code := riskweir(t, "kind", "apply", file, "--context", u.context); code != 0 || !strings.Contains(out, "publish to events.payment.<entity>") {
		t.Fatalf("kind apply: exit status %d: %s%s", code, out, errOut)
	}
	s := &sender{system: u, http: u.layout.httpURL(), found: map[uint64]*natsjs.RawStreamMsg{}, next: 1}
	testkit.Eventually(t, long, "ingest knows the kind", func() (bool, string) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(u.layout.ports.http)); err != nil {
			return false, err.Error() // it listens once it has read the kinds
		} else if err := c.Close(); err != nil {
			return false, err.Error()
		}
		fate, said := s.postTo(t, "/v1/score/payment?deadline=5s", "", []byte(`{"amount":1,"card":"first"}`))
		return fate == scored, said
	})

	good := packed(t, map[string]any{"amount": 12.5, "card": "c1"})
	nan := packed(t, map[string]any{"amount": math.NaN(), "card": "c1"})
	large := []byte(`{"amount":1,"card":"c1","x":"` + strings.Repeat("x", 2<<20) + `"}`)
	over := []byte(`{"amount":1,"card":"c1","x":"` + strings.Repeat("x", 1<<20) + `"}`)
	entity := func(e string) string { return "?deadline=10s&entity=" + url.QueryEscape(e) }
	const wait = "?deadline=10s"
	escaped := func(e string) string {
		subject, err := events.EventSubject("payment", e)
		if err != nil {
			t.Fatal(err)
		}
		return subject
	}
	one := []byte(`{"amount":1}`)
	const header = "id,at,card,amount,channel\n"
	cases := []badInput{
		{"truncated msgpack", "nats", s.nats("events.payment.c1", nil, good[:len(good)-3]), invalid, "not msgpack: it ends at byte"},
		{"truncated msgpack", "http", s.post(wait, "application/msgpack", good[:len(good)-3]), refused, "it ends at byte"},
		{"2 MB", "nats", s.nats("events.payment.c1", nil, large), refused, "message size exceeds maximum allowed"},
		{"2 MB", "http", s.post(wait, "", large), refused, "413"},
		{"2 MB", "file", s.file(header + "1,,c1,1," + strings.Repeat("x", 2<<20) + "\n"), refused, "a row of more than 1048576 bytes"},
		{"just over the stream's limit", "nats", s.nats("events.payment.c1", nil, over), refused, "message size exceeds maximum allowed"},
		{"just over the stream's limit", "http", s.post(wait, "", over), refused, "413"},
		{"NaN", "nats", s.nats("events.payment.c1", nil, nan), invalid, "amount is not a finite number"},
		{"NaN", "http", s.post(wait, "application/msgpack", nan), refused, "is not a finite number"},
		{"NaN", "file", s.file(header + "1,,c1,NaN,web\n"), refused, "amount"},
		{"NaN in JSON", "http", s.post(wait, "", []byte(`{"amount":NaN,"card":"c1"}`)), refused, "not JSON"},
		{"wrong type", "nats", s.nats("events.payment.c1", nil, []byte(`{"amount":"a lot"}`)), invalid, `amount is the string "a lot": want a number`},
		{"wrong type", "http", s.post(wait, "", []byte(`{"amount":[1],"card":"c1"}`)), refused, "amount"},
		{"wrong type", "file", s.file(header + "1,,c1,a lot,web\n"), refused, "amount"},
		{"no body", "nats", s.nats("events.payment.c1", nil, nil), invalid, "neither a JSON object nor a msgpack map"},
		{"no body", "http", s.post(wait, "", nil), refused, "the body is empty"},

		{"dots", "nats", s.nats("events.payment.a.b", nil, one), refused, "no response from stream"},
		{"dots, escaped", "nats", s.nats(escaped("a.b"), nil, one), scored, `entity "a.b"`},
		{"dots", "http", s.post(entity("a.b"), "", one), scored, `"entity":"a.b"`},
		{"dots and more", "file", s.file(header + "d1,,a.b,1,web\nd2,, c * >,1,web\nd3,,\"x\ny\",1,web\n"), scored, "missing=0"},
		{"a wildcard", "nats", s.nats("events.payment.*", nil, one), invalid, "a wildcard where an entity should be"},
		{"the full wildcard", "nats", s.nats("events.payment.>", nil, one), invalid, "a wildcard where an entity should be"},
		{"spaces", "nats", s.nats("events.payment.a b", nil, one), refused, "invalid subject"},
		{"spaces, escaped", "nats", s.nats(escaped("a b"), nil, one), scored, `entity "a b"`},
		{"spaces", "http", s.post(entity(" a b "), "", one), scored, `"entity":" a b "`},
		{"star, escaped", "nats", s.nats(escaped("*"), nil, one), scored, `entity "*"`},
		{"star", "http", s.post(entity("*"), "", one), scored, `"entity":"*"`},
		{"greater than, escaped", "nats", s.nats(escaped(">"), nil, one), scored, `entity ">"`},
		{"greater than", "http", s.post(entity(">"), "", one), scored, `"entity":">"`},
		{"newline", "nats", s.nats("events.payment.a\nb", nil, one), refused, "invalid subject"},
		{"newline, escaped", "nats", s.nats(escaped("a\r\nPUB x"), nil, one), scored, `entity "a\r\nPUB x"`},
		{"newline", "http", s.post(entity("a\nb"), "", one), scored, `"entity":"a\nb"`},
		{"empty", "nats", s.nats("events.payment.", nil, one), refused, ""},
		{"empty", "http", s.post(wait, "", one), refused, "nothing else says whom the event is about"},
		{"empty, in the body", "http", s.post(wait, "", []byte(`{"amount":1,"card":""}`)), refused, "card"},
		{"empty", "file", s.file(header + "e1,,,1,web\n"), scored, "1 rows, 0 of them bad"}, // the id is the entity
		{"10 kB", "http", s.post(entity(strings.Repeat("x", 10_000)), "", one), refused, "at most 256"},
		{"10 kB, in the body", "http", s.post(wait, "", []byte(`{"amount":1,"card":"`+strings.Repeat("x", 10_000)+`"}`)), refused, "at most 256"},
		{"10 kB", "file", s.file(header + "1,," + strings.Repeat("x", 10_000) + ",1,web\n"), refused, "at most 256"},
		{"not UTF-8", "nats", s.nats("events.payment.\xff\xfe", nil, one), scored, "entity"},
		{"not UTF-8", "http", s.post("?deadline=10s&entity=%ff%fe", "", one), refused, "UTF-8"},
		{"not UTF-8, in the body", "http", s.post(wait, "", []byte("{\"amount\":1,\"card\":\"\xff\xfe\"}")), refused, "UTF-8"},
		{"not UTF-8", "file", s.file(header + "1,,\xff\xfe,1,web\n"), refused, "UTF-8"},

		{"another entity", "nats", s.nats("events.payment.c1", nil, []byte(`{"amount":1,"card":"c2"}`)), invalid, "is not the entity of the subject"},
		{"another entity", "http", s.post(entity("c1"), "", []byte(`{"amount":1,"card":"c2"}`)), refused, "is not the entity"},
		{"quotes", "file", s.file(header + "q1,,\"c \"\"1\"\", x\",1,\"a\nb\"\n"), scored, "missing=0"},
		{"an open quote", "file", s.file(header + "o1,,\"c1,1,web\no2,,c1,1,web\n"), refused, "quote"},
		{"CRLF", "file", s.file("id,at,card,amount,channel\r\nr1,,c1,1,web\r\nr2,,c1,2,web\r\n"), scored, "2 rows, 0 of them bad"},
		{"BOM", "file", s.file("\xef\xbb\xbf" + header + "b1,,c1,1,web\n"), scored, "1 rows, 0 of them bad"},
		{"a missing column", "file", s.file("id,card,channel\nm1,c1,web\n"), refused, "amount"},
		{"a missing cell", "file", s.file(header + "m2,,c1\n"), refused, "cells"},
		{"a column twice", "file", s.file("id,card,amount,amount\nt1,c1,1,2\n"), refused, "amount"},
		{"no rows", "file", s.file(header), "nothing to do", "0 rows, 0 of them bad"},
		{"empty file", "file", s.file(""), refused, ""},
		{"zoneless time", "file", s.file(header + "z1,2026-01-02 03:04:05,c1,1,web\n"), refused, "has no time zone"},
		{"zoneless time", "nats", s.nats("events.payment.c1", nil, []byte(`{"amount":1,"at":"2026-01-02T03:04:05"}`)), invalid, "has no time zone"},
		{"zoneless time", "http", s.post(wait, "", []byte(`{"amount":1,"card":"c1","at":"2026-01-02T03:04:05"}`)), refused, "has no time zone"},
		{"undeclared kind", "nats", s.nats("events.nokind.c1", nil, one), refused, "no response from stream"},
		{"undeclared kind", "http", func(t *testing.T, s *sender) (string, string) {
			return s.postTo(t, "/v1/score/nokind", "", one)
		}, refused, `"kinds":["payment"]`},
		{"undeclared kind", "file", func(t *testing.T, s *sender) (string, string) {
			_, errOut, code := riskweir(t, "ingest", file, "--kind", "nokind", "--context", s.system.context)
			return map[int]string{2: refused}[code], errOut
		}, refused, "kind nokind is not declared: riskweir kind infer"},
		{"no such kind", "http", func(t *testing.T, s *sender) (string, string) { return s.postTo(t, "/v1/score/NO%20KIND", "", one) }, refused, "is not declared"},
		{"wrong content type", "http", s.post(wait, "text/html", one), refused, "415"},
		{"publish to a lane", "nats", s.nats("events.payment.0.c1", nil, one), refused, "no response from stream"},
		{"header that is not ours", "nats", s.nats("events.payment.c1", nats.Header{"X": {"\u00e9"}, "Riskweir": {"1"}}, one), scored, ""},
		{"rollup", "nats", s.nats("events.payment.c1", nats.Header{"Nats-Rollup": {"all"}}, one), refused, "rollup not permitted"},
	}
	for _, x := range cases {
		t.Run(x.path+" "+x.name, func(t *testing.T) {
			fate, said := x.send(t, s)
			shown := said
			if len(shown) > 220 {
				shown = shown[:220] + "..."
			}
			t.Logf("%s: %s", fate, strings.TrimSpace(shown))
			if fate != x.fate || !strings.Contains(said, x.said) || said == "" || strings.Contains(said, "panic") {
				t.Errorf("%s, want %s and %q", fate, x.fate, x.said)
			}
		})
	}

	// Both lanes still go on, by each way in.
	for i := range 8 {
		c := "after-" + strconv.Itoa(i)
		if fate, said := s.nats("events.payment."+c, nil, one)(t, s); fate != scored {
			t.Errorf("%s: %s %s", c, fate, said)
		}
		if fate, said := s.post(entity(c), "", one)(t, s); fate != scored || strings.Contains(said, `"mode":"late"`) {
			t.Errorf("%s: %s %s", c, fate, said)
		}
	}
	report, err := verify.Run(t.Context(), verify.Config{JS: u.js, Kind: "payment", Wait: testkit.Deadline})
	if err != nil || !report.OK() {
		t.Errorf("%v, %v, %q", report, err, report.Offenders)
	}
	for _, c := range u.sup.Status() {
		if c.Restarts != 0 {
			t.Errorf("%s was started %d times again: %s", c.Name, c.Restarts, c.LastExit)
		}
	}
	if kind, err := topology.ReadKind(t.Context(), u.js, "payment"); err != nil || kind.Contract.Lanes != 2 {
		t.Errorf("%+v, %v", kind, err)
	}
	http.DefaultClient.CloseIdleConnections()
}
