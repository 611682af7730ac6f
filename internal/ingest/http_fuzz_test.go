package ingest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/pkg/events"
)

// taking is a publisher that has stored what it is given.
type taking struct{ took []*nats.Msg }

func (p *taking) PublishMsgAsync(m *nats.Msg, _ ...natsjs.PublishOpt) (natsjs.PubAckFuture, error) {
	p.took = append(p.took, m)
	return storedAck{m}, nil
}

type storedAck struct{ m *nats.Msg }

func (a storedAck) Msg() *nats.Msg    { return a.m }
func (a storedAck) Err() <-chan error { return nil }
func (a storedAck) Ok() <-chan *natsjs.PubAck {
	c := make(chan *natsjs.PubAck, 1)
	c <- &natsjs.PubAck{Stream: "EVENTS_payment", Sequence: 1}
	return c
}

// FuzzHTTP: whatever is posted, the answer is JSON with a status that the documents name, and what is stored can be decoded and has a subject of
// the kind's.
func FuzzHTTP(f *testing.F) {
	for _, body := range []string{`{"id":"a","card":"c","amount":1}`, `[{"card":"c","amount":1},{"card":7}]`, "{\"card\":\"c\",\"amount\":1}\n{}", `{"id":"a","label":1}`,
		"\x82\xa4card\xa1c\xa6amount\x01", `{"card":"c","amount":1,"amount":2}`, `{"card":"` + "\xff" + `","amount":1e999}`} {
		for _, media := range []string{"", jsonType, lineType, packType, "text/plain"} {
			f.Add(false, "entity=c", media, "", []byte(body))
			f.Add(true, "entity=c.*", media, "gzip", []byte(body))
		}
	}
	f.Add(false, "entity=%zz&entity=a", jsonType, "", []byte(`{}`))
	schema, err := events.Compile(contract(nil))
	if err != nil {
		f.Fatal(err)
	}
	meters, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, labels bool, query, media, encoding string, body []byte) {
		to := &taking{}
		s := &Server{cfg: ServerConfig{Contracts: declared{schema}, Log: zap.NewNop(), AckTimeout: time.Second}, js: to, metrics: meters, guard: newGuard(nil, 0)}
		s.records.New = func() any { return new(events.Record) }
		what := "events"
		if labels {
			what = "labels"
		}
		r := httptest.NewRequest("POST", "/v1/"+what+"/payment", bytes.NewReader(body))
		r.URL = &url.URL{Path: r.URL.Path, RawQuery: query}
		r.Header["Content-Type"], r.Header["Content-Encoding"] = []string{media}, []string{encoding}
		rec := httptest.NewRecorder()
		harden(s.routes()).ServeHTTP(rec, r)
		if !slices.Contains([]int{200, 202, 400, 413, 415}, rec.Code) {
			t.Fatalf("%d %s", rec.Code, rec.Body)
		}
		var a Answer
		if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || a.Accepted != len(to.took) {
			t.Fatalf("%d %s; %d were stored: %v", rec.Code, rec.Body, len(to.took), err)
		}
		for _, m := range to.took {
			enc, err := events.DetectEncoding(m.Header.Get(events.HeaderContentType), m.Data)
			if err != nil {
				t.Fatalf("%q: %v", m.Data, err)
			}
			var rec events.Record
			if !labels {
				err = schema.Decode(enc, m.Data, &rec)
			} else {
				_, err = events.DecodeLabel(enc, m.Data)
			}
			if err != nil || !validSubject(m.Subject, what) {
				t.Fatalf("%q was stored under %q: %v", m.Data, m.Subject, err)
			}
		}
	})
}

// validSubject has three tokens and nothing that is not to be in one.
func validSubject(subject, what string) bool {
	parts := bytes.Split([]byte(subject), []byte("."))
	return len(parts) == 3 && string(parts[0]) == what && string(parts[1]) == "payment" && len(parts[2]) > 0 && !bytes.ContainsAny(parts[2], "*> \t\r\n\x00")
}

// FuzzAuthorization: no header but that of the token lets anybody in.
func FuzzAuthorization(f *testing.F) {
	token := access.NewToken("shop")
	body, err := json.Marshal(access.Caller{Name: "shop", May: []string{access.Score}, Kinds: []string{"payment"}, SHA256: access.HashOf(token), Created: time.Now()})
	if err != nil {
		f.Fatal(err)
	}
	book := access.NewBook(nil, func(err error) { f.Error(err) })
	book.Take("shop", 1, body)
	f.Add("Bearer riskweir.shop."+string(bytes.Repeat([]byte("A"), 43)), "payment")
	f.Add("Basic c2hvcDp4", "*")
	f.Add("bearer  riskweir.shop.", "")
	f.Fuzz(func(t *testing.T, header, kind string) {
		g := newGuard(book, 1e6)
		r := &http.Request{RemoteAddr: "127.0.0.1:1", Header: http.Header{"Authorization": []string{header}}}
		if c, refused := g.admit(r, access.Score, kind); refused == nil {
			t.Fatalf("%q lets in %+v", header, c)
		}
	})
}
