package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// declared is a Contracts of one kind.
type declared struct{ schema *events.Schema }

func (d declared) Names() []string { return []string{d.schema.Contract.Kind} }
func (d declared) Schema(kind string) (*events.Schema, uint64, bool) {
	return d.schema, 7, kind == d.schema.Contract.Kind
}

// web is a server that runs for the length of a test.
type web struct {
	*Server
	t    *testing.T
	url  string
	stop func() error // returns what Run did
}

// serve starts a server whose publisher is wrapped by through, if given.
func (b *broker) serve(t *testing.T, through func(publisher) publisher, change func(*ServerConfig)) *web {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := ServerConfig{Conn: b.nc, Listener: l, Contracts: declared{b.schema}, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Open: true}
	if change != nil {
		change(&cfg)
	}
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if through != nil {
		s.js = through(s.js)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { stop() }) //nolint:errcheck // who cares calls it
	return &web{Server: s, t: t, url: "http://" + l.Addr().String(), stop: stop}
}

// reply to a request.
type reply struct {
	status int
	header http.Header
	body   []byte
	Answer
}

func (w *web) post(path, contentType string, body []byte, header ...string) reply {
	w.t.Helper()
	r, err := http.NewRequestWithContext(testkit.Context(w.t), "POST", w.url+path, bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return w.do(r)
}

func (w *web) do(r *http.Request) (got reply) {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	got.status, got.header = res.StatusCode, res.Header
	if got.body, err = io.ReadAll(res.Body); err != nil {
		w.t.Fatal(err)
	}
	json.Unmarshal(got.body, &got.Answer) //nolint:errcheck // a score is none
	return got
}

func pack(t *testing.T, v any) []byte {
	t.Helper()
	b, err := msgpack.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	jsonType = "application/json"
	packType = "application/msgpack"
	lineType = "application/x-ndjson"
)

func TestAcceptEvents(t *testing.T) {
	b := start(t, nil)
	w := b.serve(t, nil, nil)
	deep := strings.Repeat("[", 300_000)
	for _, c := range []struct {
		name, path, media string
		body              string
		status            int
		accepted          int
		says              string // in the answer
	}{
		{"one", "", jsonType, `{"id":"a1","card":"c","amount":12.5}`, 202, 1, ""},
		{"one, charset", "", "application/json; charset=utf-8", `{"card":"c","amount":1}`, 202, 1, ""},
		{"no type", "", "", `{"card":"c","amount":1}`, 202, 1, ""},
		{"array", "", jsonType, ` [{"card":"c","amount":1},{"card":"c","amount":2}]`, 202, 2, ""},
		{"array, no type", "", "", `[{"card":"c","amount":1}]`, 202, 1, ""},
		{"lines", "", lineType, "{\"card\":\"c\",\"amount\":1}\r\n\n{\"card\":\"d\",\"amount\":2}", 202, 2, ""},
		{"map", "", packType, string(pack(t, map[string]any{"card": "c", "amount": 1})), 202, 1, ""},
		{"map, no type", "", "", string(pack(t, map[string]any{"card": "c", "amount": 1})), 202, 1, ""},
		{"array of maps", "", "application/x-msgpack", string(pack(t, []any{map[string]any{"card": "c", "amount": 1}, map[string]any{"card": "c", "amount": 2}})), 202, 2, ""},
		{"same id", "", jsonType, `[{"id":"a1","amount":1},{"id":"a2","amount":1}]`, 202, 2, `"duplicates":[0]`},
		{"entity in the query", "?entity=c%207", jsonType, `{"amount":1}`, 202, 1, ""},
		{"the id is the entity", "", jsonType, `{"id":"a3","amount":1}`, 202, 1, ""},

		{"some are bad", "", jsonType, `[{"card":"c","amount":1},{"card":"c"},{"card":"c","amount":"x"}]`, 200, 1, `"errors":[{"index":1,"field":"amount"`},
		{"all are bad", "", jsonType, `[{"card":"c"},{"amount":1}]`, 400, 0, `"index":1,"field":"card"`},
		{"no entity", "", jsonType, `{"amount":1}`, 400, 0, "?entity="},
		{"two entities", "?entity=d", jsonType, `{"card":"c","amount":1}`, 400, 0, `"field":"card"`},
		{"a field is missing", "", jsonType, `{"card":"c"}`, 400, 0, `"field":"amount"`},
		{"NaN", "", jsonType, `{"card":"c","amount":NaN}`, 400, 0, "reason"},
		{"NaN, packed", "", packType, string(pack(t, map[string]any{"card": "c", "amount": nan()})), 400, 0, `"field":"amount"`},
		{"a zoneless time", "", jsonType, `{"card":"c","amount":1,"at":"2026-01-31T12:00:00"}`, 400, 0, `"field":"at"`},
		{"cut JSON", "", jsonType, `{"card":"c","amount":1`, 400, 0, "reason"},
		{"cut msgpack", "", packType, string(pack(t, map[string]any{"card": "c", "amount": 1})[:9]), 400, 0, "reason"},
		{"cut msgpack array", "", packType, "\xdc\x00", 400, 0, "middle of a value"},
		{"short msgpack array", "", packType, "\x92\x80", 400, 0, "item 1"},
		{"long msgpack array", "", packType, "\x91\x80\x80", 400, 0, "behind the msgpack array"},
		{"huge msgpack array", "", packType, "\xdd\xff\xff\xff\xff", 413, 0, "10000 items"},
		{"huge msgpack string", "", packType, "\x91\x81\xa1a\xdb\xff\xff\xff\xff", 400, 0, "middle of a value"},
		{"deep msgpack", "", packType, "\x91" + strings.Repeat("\x91", 300_000) + "\x80", 400, 0, "reason"},
		{"deep msgpack value", "", packType, "\x81\xa1a" + strings.Repeat("\x91", 300_000) + "\x80", 400, 0, "reason"},
		{"deep JSON", "", jsonType, `{"a":` + deep, 400, 0, "reason"},
		{"deep JSON array", "", jsonType, deep, 400, 0, "reason"},
		{"cut JSON array", "", jsonType, `[{"card":"c","amount":1},`, 400, 0, "not a JSON array"},
		{"text behind the array", "", jsonType, `[] x`, 400, 0, "behind"},
		{"an empty array", "", jsonType, `[]`, 400, 0, "no items"},
		{"nothing", "", jsonType, ``, 400, 0, "empty"},
		{"a scalar", "", jsonType, `7`, 400, 0, "reason"},
		{"not UTF-8", "", jsonType, "{\"card\":\"\xff\",\"amount\":1}", 400, 0, "reason"},
		{"two objects as one", "", jsonType, `{"card":"c","amount":1}{"card":"c","amount":1}`, 400, 0, "reason"},
		{"curl's default", "", "application/x-www-form-urlencoded", `{"card":"c","amount":1}`, 415, 0, "application/json"},
		{"neither", "", "", "amount=1", 415, 0, "application/json"},
		{"a broken type", "", ";;", `{}`, 415, 0, "content type"},
		{"an event of 1.1 MB", "", jsonType, `{"card":"c","amount":1,"pad":"` + strings.Repeat("x", 1<<20) + `"}`, 413, 0, "at most"},
		{"8 MiB", "", jsonType, strings.Repeat(" ", MaxBody+1), 413, 0, "more than"},
		{"too many", "", lineType, strings.Repeat("{}\n", MaxItems+1), 413, 0, "10000 items"},
	} {
		before := len(b.events(t))
		got := w.post("/v1/events/payment"+c.path, c.media, []byte(c.body))
		stored := len(b.events(t)) - before + len(got.Duplicates)
		if got.status != c.status || got.Accepted != c.accepted || stored != c.accepted || !strings.Contains(string(got.body), c.says) {
			t.Errorf("%s: %d, %d stored, %.300s; want %d, %d accepted, and %q", c.name, got.status, stored, got.body, c.status, c.accepted, c.says)
		}
	}
	if got := w.post("/v1/events/loan", jsonType, []byte(`{}`)); got.status != 404 || got.Kinds == nil || !slices.Equal(*got.Kinds, []string{"payment"}) {
		t.Errorf("an undeclared kind: %d %s", got.status, got.body)
	}
	if got := w.post("/v1/events/payment", jsonType, []byte(`{}`), "Content-Encoding", "gzip"); got.status != 415 {
		t.Errorf("an encoded body: %d", got.status)
	}
	if got := w.post("/v1/events/payment?entity=a", jsonType, []byte(`{"amount":1}`), headerEntity, "b"); got.status != 400 {
		t.Errorf("two entities: %d", got.status)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/v1/events/payment", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.do(r); got.status != 405 {
		t.Errorf("GET: %d", got.status)
	}
	// A body whose length is not said.
	r, err = http.NewRequestWithContext(t.Context(), "POST", w.url+"/v1/events/payment", io.MultiReader(strings.NewReader(strings.Repeat(" ", MaxBody+1))))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.do(r); got.status != 413 {
		t.Errorf("8 MiB in chunks: %d", got.status)
	}
}

func nan() float64 { var zero float64; return zero / zero }

// Whatever an entity's name is, its event is stored under it or refused, and nothing else happens.
func TestEntities(t *testing.T) {
	b := start(t, nil)
	w := b.serve(t, nil, nil)
	for _, c := range []struct {
		entity string
		status int
	}{
		{"a.b", 202}, {"a b", 202}, {"*", 202}, {">", 202}, {"a\nb", 202}, {"a\r\nNats-Rollup: all", 202}, {"%", 202}, {"%2E", 202}, {"é", 202}, {".", 202}, {"$JS", 202},
		{"\x00", 202}, {"", 400}, {strings.Repeat("x", 10<<10), 400}, {"a\xffb", 400},
	} {
		body := pack(t, map[string]any{"card": c.entity, "id": c.entity, "amount": 1})
		got := w.post("/v1/events/payment", packType, body)
		if got.status != c.status {
			t.Errorf("%.40q: %d %s", c.entity, got.status, got.body)
		}
		if got.status != 202 {
			continue
		}
		if len(got.Duplicates) > 0 {
			t.Errorf("%q is taken for another id", c.entity)
		}
		all := b.events(t)
		last := all[len(all)-1]
		s, err := events.ParseStoredEvent(last.Subject)
		if err != nil || events.UnescapeEntity(s.Token) != c.entity || last.Sequence != got.Sequences[0] || !bytes.Equal(last.Data, body) {
			t.Errorf("%q is stored under %s: %v", c.entity, last.Subject, err)
		}
	}
}

func TestAcceptLabels(t *testing.T) {
	b := start(t, nil)
	w := b.serve(t, nil, nil)
	got := w.post("/v1/labels/payment", jsonType, []byte(`[{"id":"a","label":1,"known_at":"2026-03-01T00:00:00Z"},{"seq":5,"label":null},{"id":"a","label":2},{"label":1},{"id":"b","label":0,"known_at":"2026-03-01"}]`))
	if got.status != 200 || got.Accepted != 2 || len(got.Errors) != 3 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.post("/v1/labels/payment?entity=c.1", packType, pack(t, map[string]any{"id": "a", "label": 0})); got.status != 202 {
		t.Errorf("%d %s", got.status, got.body)
	}
	var subjects []string
	for _, m := range b.messages(t, events.LabelsStream, "") {
		subjects = append(subjects, m.Subject)
	}
	if want := []string{"labels.payment.a", "labels.payment.5", "labels.payment.c%2E1"}; !slices.Equal(subjects, want) {
		t.Errorf("subjects %q, want %q", subjects, want)
	}
	if got := w.post("/v1/labels/payment", jsonType, []byte(`{"id":"a","label":1,"x":"`+strings.Repeat("x", 70<<10)+`"}`)); got.status != 413 {
		t.Errorf("a label of 70 KiB: %d %s", got.status, got.body)
	}
}

// Both halves of a lost acknowledgement: never a 2xx, always the truth about what is known, and the same
// id sent again is stored once.
func TestLostAcks(t *testing.T) {
	b := start(t, nil)
	for _, x := range []fate{fails, loses} {
		for _, path := range []string{"/v1/events/payment", "/v1/score/payment?deadline=20s"} {
			now := x
			w := b.serve(t, func(p publisher) publisher {
				return &fates{publish: p, next: func() fate { return now }}
			}, nil)
			before := len(b.events(t))
			body := fmt.Appendf(nil, `{"id":"%s %d","card":"c","amount":1}`, path[:10], x)
			got := w.post(path, jsonType, body)
			if got.status != 503 || got.header.Get("Retry-After") == "" || got.Accepted != 0 || len(got.Errors) != 1 || got.Errors[0].Stored != "unknown" {
				t.Errorf("%s: %d %s", path, got.status, got.body)
			}
			if strings.Contains(path, "score") && (got.Decision != events.Review || got.Mode != events.ModeLate) {
				t.Errorf("no decision on what is not accepted: %s", got.body)
			}
			now = goes
			got = w.post("/v1/events/payment", jsonType, body)
			if n := len(b.events(t)) - before; got.status != 202 || n != 1 || (len(got.Duplicates) == 1) != (x == loses) {
				t.Errorf("%s again: %d %s, %d stored", path, got.status, got.body, n)
			}
		}
	}
}

// A declared kind whose stream is not there, for a while and for good.
func TestNotAccepted(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	stream := events.EventsStream("payment")
	info, err := b.js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	config := info.CachedInfo().Config
	if err := b.js.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	w := b.serve(t, nil, func(c *ServerConfig) { c.AckTimeout = 600 * time.Millisecond })
	got := w.post("/v1/events/payment", jsonType, []byte(`{"card":"c","amount":1}`))
	if got.status != 503 || got.Errors[0].Stored != "no" {
		t.Errorf("%d %s", got.status, got.body)
	}
	started := time.Now()
	if got := w.post("/v1/score/payment?deadline=1s", jsonType, []byte(`{"card":"c","amount":1}`)); got.status != 503 || got.Decision != events.Review {
		t.Errorf("%d %s", got.status, got.body)
	}
	if took := time.Since(started); took > 10*time.Second { // of which one is the server's
		t.Errorf("a score with a deadline of 1s took %s", took)
	}
	patient := b.serve(t, nil, nil)
	answered := make(chan reply, 1)
	go func() {
		answered <- patient.post("/v1/events/payment", jsonType, []byte(`[{"card":"c","amount":1},{"card":"c","amount":2}]`))
	}()
	if _, err := b.js.CreateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.status != 202 || !slices.Equal(got.Sequences, []uint64{1, 2}) {
		t.Errorf("when the stream has come back: %d %s", got.status, got.body)
	}
}

// scorer answers every event of the kind by what its amount says, until the test ends.
func (b *broker) scorer(t *testing.T) {
	t.Helper()
	c, err := b.js.CreateConsumer(t.Context(), events.EventsStream("payment"), natsjs.ConsumerConfig{AckPolicy: natsjs.AckNonePolicy, FilterSubject: "events.>"})
	if err != nil {
		t.Fatal(err)
	}
	consume, err := c.Consume(func(m natsjs.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			t.Error(err)
			return
		}
		stored, err := events.ParseStoredEvent(m.Subject())
		if err != nil {
			t.Error(err)
			return
		}
		var rec events.Record
		enc, err := events.DetectEncoding("", m.Data())
		if err == nil {
			err = b.schema.Decode(enc, m.Data(), &rec)
		}
		if err != nil {
			t.Error(err)
			return
		}
		seq := meta.Sequence.Stream
		out := &nats.Msg{}
		switch amount := rec.Values[0].Num; {
		case amount < 0:
			out.Subject = events.CommitSubject("payment", events.BandInvalid, stored.Token)
			v := events.Invalid{Seq: seq, Kind: "payment", Entity: events.UnescapeEntity(stored.Token), Field: "amount", Reason: "is below zero"}
			out.Data = v.Append(nil, enc)
		case amount == 200 || amount == 409: // an earlier event is said to have the id
			v := events.Repeat{ID: string(rec.ID), Seq: seq, First: 1, Kind: "payment", Entity: events.UnescapeEntity(stored.Token), Conflict: amount == 409}
			out.Subject, out.Data = events.CommitSubject("payment", v.Band(), stored.Token), v.Append(nil, enc)
		case amount == 404: // never answered
			return
		default:
			out.Subject = events.CommitSubject("payment", events.BandLow, stored.Token)
			v := events.Score{ID: string(rec.ID), Seq: seq, Kind: "payment", Entity: events.UnescapeEntity(stored.Token), P: amount / 100, Band: events.BandLow,
				Decision: events.Approve, Mode: events.ModeModel, Time: time.Unix(1, 0).UTC()}
			out.Data = v.Append(nil, enc)
		}
		if err := b.nc.PublishMsg(out); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { consume.Stop(); <-consume.Closed() })
}

func TestScore(t *testing.T) {
	b := start(t, nil)
	b.scorer(t)
	w := b.serve(t, nil, func(c *ServerConfig) { c.Deadline = 10 * time.Second })
	for i, entity := range []string{"c", "c.1 *>", "c"} {
		body := fmt.Appendf(nil, `{"id":"s%d","card":%q,"amount":%d}`, i, entity, i)
		got := w.post("/v1/score/payment", jsonType, body)
		s, err := events.DecodeScore(got.body)
		if err != nil || got.status != 200 || s.ID != fmt.Sprintf("s%d", i) || s.P != float64(i)/100 || s.Entity != entity || got.header.Get("Content-Type") != jsonType {
			t.Errorf("%d %s: %v", got.status, got.body, err)
		}
	}
	got := w.post("/v1/score/payment", packType, pack(t, map[string]any{"card": "c", "amount": 5}))
	if s, err := events.DecodeScore(got.body); err != nil || s.P != 0.05 || got.header.Get("Content-Type") != packType {
		t.Errorf("%d %q: %v", got.status, got.body, err)
	}
	got = w.post("/v1/score/payment", jsonType, []byte(`{"card":"c","amount":-1}`))
	if got.status != 422 || got.Errors[0].Field != "amount" || len(got.Sequences) != 1 {
		t.Errorf("an invalid outcome: %d %s", got.status, got.body)
	}
	for _, x := range []struct {
		mime   string
		amount int
	}{{jsonType, 200}, {packType, 409}, {jsonType, 409}, {packType, 200}} {
		body := fmt.Appendf(nil, `{"id":"r%s%d","card":"c","amount":%d}`, x.mime, x.amount, x.amount)
		if x.mime == packType {
			body = pack(t, map[string]any{"id": fmt.Sprint(x), "card": "c", "amount": x.amount})
		}
		got := w.post("/v1/score/payment", x.mime, body)
		r, err := events.DecodeRepeat(got.body)
		if err != nil || got.status != x.amount || r.First != 1 || r.Conflict != (x.amount == 409) || got.header.Get("Content-Type") != x.mime {
			t.Errorf("%+v: %d %q: %+v, %v", x, got.status, got.body, r, err)
		}
	}
	// The same id again: the score that there is.
	got = w.post("/v1/score/payment", jsonType, []byte(`{"id":"s0","card":"c","amount":0}`))
	if s, err := events.DecodeScore(got.body); err != nil || s.Seq != 1 {
		t.Errorf("scored before: %d %s: %v", got.status, got.body, err)
	}
	for _, c := range []struct {
		query, body string
		status      int
	}{
		{"?deadline=x", `{"card":"c","amount":1}`, 400}, {"?deadline=1h", `{"card":"c","amount":1}`, 400}, {"?deadline=-1s", `{"card":"c","amount":1}`, 400},
		{"", `[{"card":"c","amount":1}]`, 400}, {"", `{"card":"c"}`, 400}, {"", `{"amount":1}`, 400},
	} {
		if got := w.post("/v1/score/payment"+c.query, jsonType, []byte(c.body)); got.status != c.status || got.Decision != "" {
			t.Errorf("%s %s: %d %s", c.query, c.body, got.status, got.body)
		}
	}
}

func TestScoreLate(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *events.Contract) { c.Decisions.Late = events.Decline })
	b.scorer(t)
	w := b.serve(t, nil, nil)
	for _, media := range []string{jsonType, packType} {
		body := []byte(`{"id":"` + media + `","card":"c 1","amount":404}`)
		if media == packType {
			body = pack(t, map[string]any{"id": media, "card": "c 1", "amount": 404})
		}
		started := time.Now()
		got := w.post("/v1/score/payment?deadline=1500ms", media, body)
		took := time.Since(started)
		var l Late
		var err error
		if media == packType {
			err = msgpack.Unmarshal(got.body, &l)
		} else {
			err = json.Unmarshal(got.body, &l)
		}
		all := b.events(t)
		want := Late{ID: media, Seq: all[len(all)-1].Sequence, Kind: "payment", Entity: "c 1", Decision: events.Decline, Mode: events.ModeLate, Contract: 7}
		if err != nil || got.status != 200 || l != want {
			t.Errorf("%d %s: %v, want %+v", got.status, got.body, err, want)
		}
		if took < time.Second || took > 10*time.Second {
			t.Errorf("late after %s", took)
		}
	}
	// A body that does not come in time.
	slow, feed := io.Pipe()
	defer feed.Close()
	go feed.Write([]byte(`{"card":`)) //nolint:errcheck // the request ends first
	r, err := http.NewRequestWithContext(testkit.Context(t), "POST", w.url+"/v1/score/payment?deadline=100ms", slow)
	if err != nil {
		t.Fatal(err)
	}
	if got := w.do(r); got.status != 408 {
		t.Errorf("a slow body: %d %s", got.status, got.body)
	}
}

// The live view misses the score: it is read from the stream.
func TestScoreBehindAGap(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	b.scorer(t)
	w := b.serve(t, nil, nil)
	w.view.mu.Lock()
	deaf, err := b.nc.Subscribe("nothing", func(*nats.Msg) {})
	if err != nil {
		t.Fatal(err)
	}
	w.view.kinds["payment"] = deaf
	w.view.mu.Unlock()
	for i := range 2 {
		started := time.Now()
		got := w.post(fmt.Sprintf("/v1/score/payment?deadline=%ds", 4), jsonType, fmt.Appendf(nil, `{"card":"c","amount":%d}`, i))
		if s, err := events.DecodeScore(got.body); err != nil || s.P != float64(i)/100 {
			t.Errorf("after %s: %d %s: %v", time.Since(started), got.status, got.body, err)
		}
	}
}

// An event published by a client and posted again is stored once, however odd its id.
func TestOneIDByBothWays(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	w := b.serve(t, nil, nil)
	client, err := events.NewClient(b.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"p-1", "p 1", "p\n1", "zahlung-ä"} {
		body := fmt.Appendf(nil, `{"id":%q,"card":"c","amount":1}`, id)
		ack, err := client.Publish(t.Context(), "payment", events.Event{Entity: "c", ID: id, Body: body})
		if err != nil {
			t.Fatal(err)
		}
		if got := w.post("/v1/events/payment", jsonType, body); len(got.Duplicates) != 1 || got.Sequences[0] != ack.Seq {
			t.Errorf("%q: %d %s, want a duplicate of %d", id, got.status, got.body, ack.Seq)
		}
	}
}

// More outcomes of the entity than a waiter can hold: it is told to read the stream.
func TestViewOverflow(t *testing.T) {
	v := newView(nil)
	v.kinds["payment"] = nil
	w := &waiter{key: "payment.c", seen: make(chan *nats.Msg, viewBuffer), lost: make(chan struct{}, 1)}
	v.waiters[w.key] = []*waiter{w}
	for range viewBuffer + 5 {
		v.show(&nats.Msg{Subject: "scores.payment.low.c"})
		v.show(&nats.Msg{Subject: "scores.payment.low.other"})
	}
	if len(w.seen) != viewBuffer || len(w.lost) != 1 {
		t.Errorf("%d seen, %d lost", len(w.seen), len(w.lost))
	}
	v.leave(w)
	if len(v.waiters) != 0 {
		t.Errorf("%d entities are waited for after all have left", len(v.waiters))
	}
}

func TestManyScoresAtOnce(t *testing.T) {
	b := start(t, nil)
	b.scorer(t)
	w := b.serve(t, nil, func(c *ServerConfig) { c.Deadline = testkit.Deadline })
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("g%d-%d", g, i)
				got := w.post("/v1/score/payment", jsonType, fmt.Appendf(nil, `{"id":%q,"card":"hot","amount":%d}`, id, i))
				if s, err := events.DecodeScore(got.body); err != nil || s.ID != id {
					t.Errorf("%s: %d %s: %v", id, got.status, got.body, err)
				}
			}
		})
	}
	all.Wait()
}

// Run answers what is under way before it returns, and takes nothing new.
func TestStop(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	w := b.serve(t, nil, nil)
	answered := make(chan reply, 1)
	go func() {
		answered <- w.post("/v1/score/payment?deadline=2s", jsonType, []byte(`{"card":"c","amount":1}`))
	}()
	testkit.Eventually(t, testkit.Deadline, "the request is under way", func() (bool, string) {
		n := len(b.events(t))
		return n == 1, fmt.Sprint(n)
	})
	if err := w.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	select {
	case got := <-answered:
		if got.status != 200 {
			t.Errorf("the request under way: %d %s", got.status, got.body)
		}
	case <-time.After(testkit.Deadline):
		t.Error("no answer")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://")); err == nil {
		t.Error("it still listens")
	}

	// A request that outlasts the grace is given up.
	w = b.serve(t, nil, func(c *ServerConfig) { c.Grace = time.Millisecond })
	go func() {
		r, err := http.NewRequest("POST", w.url+"/v1/score/payment?deadline=20s", strings.NewReader(`{"card":"c","amount":1}`))
		if err != nil {
			t.Error(err)
			return
		}
		if res, err := http.DefaultTransport.RoundTrip(r); err == nil {
			res.Body.Close()
		}
		answered <- reply{}
	}()
	testkit.Eventually(t, testkit.Deadline, "the request is under way", func() (bool, string) {
		n := len(b.events(t))
		return n == 2, fmt.Sprint(n)
	})
	if err := w.stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	<-answered
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"[{},{}]", "{}\n{}", "\x92\x80\x81\xa1a\xc3", "\xdc\x00\x01\xc7\x01\x05x", "\x91\xd8\x00\x00"} {
		for _, media := range []string{"", jsonType, lineType, packType} {
			f.Add(media, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, media string, body []byte) {
		its, fault := split(media, body)
		if (fault == nil) == (len(its.bodies) == 0) {
			t.Fatalf("%d items and the fault %v", len(its.bodies), fault)
		}
		// The dumb twin: a decoder that reads one value after the other.
		if its.enc != events.Msgpack || !its.many {
			return
		}
		in := msgpack.NewDecoder(bytes.NewReader(body))
		n, err := in.DecodeArrayLen()
		if err != nil || fault != nil {
			return
		}
		for i := range n {
			raw, err := in.DecodeRaw()
			if err == nil && !bytes.Equal(raw, its.bodies[i]) {
				t.Fatalf("item %d is %x, want %x", i, its.bodies[i], raw)
			}
			if err != nil {
				return
			}
		}
	})
}

// Whatever of the broker is away, a request for a score is answered in time.
func TestScoreWithoutBroker(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	b.scorer(t)
	w := b.serve(t, nil, nil)
	if got := w.post("/v1/score/payment?deadline=20s", jsonType, []byte(`{"id":"a","card":"c","amount":1}`)); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	fresh := b.serve(t, nil, nil) // has not subscribed yet
	b.KillNode(t, 0)
	for _, w := range []*web{w, fresh} {
		started := time.Now()
		got := w.post("/v1/score/payment?deadline=500ms", jsonType, []byte(`{"id":"b","card":"c","amount":1}`))
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("answered after %s", took)
		}
		if got.status != 503 || got.Decision != events.Review || got.Errors[0].Stored != "unknown" {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
	b.RestartNode(t, 0)
	testkit.Eventually(t, testkit.Deadline, "events are accepted again", func() (bool, string) {
		got := w.post("/v1/events/payment", jsonType, []byte(`{"id":"c","card":"c","amount":1}`))
		return got.status == 202, string(got.body)
	})
}
