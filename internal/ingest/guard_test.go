package ingest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/testkit"
)

// guarded is a server and the callers it knows, by their tokens.
func (b *broker) guarded(t *testing.T, change func(*ServerConfig), callers ...access.Caller) (w *web, book *access.Book, tokens map[string]string) {
	t.Helper()
	book, tokens = access.NewBook(nil, func(err error) { t.Error(err) }), map[string]string{}
	for i, c := range callers {
		tokens[c.Name] = access.NewToken(c.Name)
		c.SHA256, c.Created = access.HashOf(tokens[c.Name]), time.Now()
		body, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		book.Take(c.Name, uint64(i+1), body)
	}
	w = b.serve(t, nil, func(c *ServerConfig) {
		c.Open, c.Callers = false, book
		if change != nil {
			change(c)
		}
	})
	return w, book, tokens
}

func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

func TestNobodyGetsInUnasked(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	var log bytes.Buffer
	var mu sync.Mutex
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(locked{&mu, &log}), zapcore.DebugLevel)
	w, book, tokens := b.guarded(t, func(c *ServerConfig) { c.Log = zap.New(core) },
		access.Caller{Name: "shop", May: []string{access.Score, access.Publish}, Kinds: []string{"payment"}},
		access.Caller{Name: "bank", May: []string{access.Label}, Kinds: []string{access.AnyKind}},
		access.Caller{Name: "loans", May: []string{access.Publish}, Kinds: []string{"loan"}})
	event, label := []byte(`{"id":"a","card":"c","amount":1}`), []byte(`{"id":"a","label":1}`)
	for _, x := range []struct {
		name, path string
		body       []byte
		header     []string
		status     int
	}{
		{"nobody", "/v1/events/payment", event, nil, 401},
		{"nobody, of no kind", "/v1/events/nokind", event, nil, 401},
		{"an empty token", "/v1/events/payment", event, bearer(""), 401},
		{"another scheme", "/v1/events/payment", event, []string{"Authorization", "Basic " + tokens["shop"]}, 401},
		{"no scheme", "/v1/events/payment", event, []string{"Authorization", tokens["shop"]}, 401},
		{"in a parameter", "/v1/events/payment?token=" + tokens["shop"], event, nil, 401},
		{"somebody", "/v1/events/payment", event, bearer(tokens["shop"]), 202},
		{"small letters", "/v1/events/payment", event, []string{"Authorization", "bearer " + tokens["shop"]}, 202},
		{"not what it may", "/v1/labels/payment", label, bearer(tokens["shop"]), 403},
		{"not with that kind", "/v1/events/payment", event, bearer(tokens["loans"]), 403},
		{"a kind that is not declared", "/v1/events/loan", event, bearer(tokens["loans"]), 404},
		{"a label", "/v1/labels/payment", label, bearer(tokens["bank"]), 202},
		{"a label of any kind", "/v1/labels/nokind", label, bearer(tokens["bank"]), 404},
		{"an unknown parameter", "/v1/events/payment?dedline=1s", event, bearer(tokens["shop"]), 400},
		{"a parameter twice", "/v1/events/payment?entity=a&entity=b", event, bearer(tokens["shop"]), 400},
		{"a deadline where none is", "/v1/events/payment?deadline=1s", event, bearer(tokens["shop"]), 400},
		{"from another page", "/v1/events/payment", event, append(bearer(tokens["shop"]), "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"), 403},
	} {
		got := w.post(x.path, jsonType, x.body, x.header...)
		if got.status != x.status {
			t.Errorf("%s: %d %s, want %d", x.name, got.status, got.body, x.status)
		}
		if x.status == 401 && got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: it is not said how", x.name)
		}
		for _, h := range []string{"X-Content-Type-Options", "Cache-Control", "Content-Security-Policy", "Referrer-Policy"} {
			if got.header.Get(h) == "" {
				t.Errorf("%s: no header %s", x.name, h)
			}
		}
		for _, token := range tokens {
			if bytes.Contains(got.body, []byte(token)) {
				t.Errorf("%s: the answer has a token: %s", x.name, got.body)
			}
		}
	}
	if n := len(b.events(t)); n != 1 { // the second has the same id
		t.Errorf("%d events are stored", n)
	}
	book.Take("shop", 99, nil)
	if got := w.post("/v1/events/payment", jsonType, event, bearer(tokens["shop"])...); got.status != 401 {
		t.Errorf("revoked: %d", got.status)
	}
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, token := range tokens {
		if strings.Contains(log.String(), token) {
			t.Errorf("the log has a token: %s", log.String())
		}
	}
}

type locked struct {
	mu *sync.Mutex
	to io.Writer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}
func (locked) Sync() error { return nil }

// A caller that sends too much is told when to come again, and holds up nobody else. A guesser is slowed down, and whoever shows a
// good token from the same machine is not.
func TestWhoSendsTooMuchWaits(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	w, _, tokens := b.guarded(t, func(c *ServerConfig) { c.Rate = 1000 },
		access.Caller{Name: "shop", May: []string{access.Publish}, Kinds: []string{"payment"}},
		access.Caller{Name: "slow", May: []string{access.Publish}, Kinds: []string{"payment"}, Rate: 0.5})
	lines := func(n int) []byte {
		var text bytes.Buffer
		for i := range n {
			fmt.Fprintf(&text, "{\"card\":\"c%d\",\"amount\":1}\n", i)
		}
		return text.Bytes()
	}
	if got := w.post("/v1/events/payment", lineType, lines(MaxItems), bearer(tokens["slow"])...); got.status != 202 {
		t.Fatalf("one full body: %d %.200s", got.status, got.body)
	}
	got := w.post("/v1/events/payment", lineType, lines(10), bearer(tokens["slow"])...)
	wait, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != http.StatusTooManyRequests || err != nil || wait < 1 || wait > 40 {
		t.Errorf("beyond: %d %.200s, again after %q", got.status, got.body, got.header.Get("Retry-After"))
	}
	if got := w.post("/v1/events/payment", lineType, lines(10), bearer(tokens["shop"])...); got.status != 202 {
		t.Errorf("another caller: %d %.200s", got.status, got.body)
	}
	limited := 0
	for range 2 * strangerBurst {
		if got := w.post("/v1/events/payment", lineType, lines(1), bearer(access.NewToken("shop"))...); got.status == http.StatusTooManyRequests {
			limited++
		} else if got.status != http.StatusUnauthorized {
			t.Fatalf("a guess: %d %s", got.status, got.body)
		}
	}
	if limited == 0 {
		t.Error("a guesser is never told to wait")
	}
	if got := w.post("/v1/events/payment", lineType, lines(1), bearer(tokens["shop"])...); got.status != 202 {
		t.Errorf("behind a guesser: %d %s", got.status, got.body)
	}
}

// However many machines guess, few are kept in mind.
func TestStrangersAreBounded(t *testing.T) {
	t.Parallel()
	g := newGuard(access.NewBook(nil, func(error) {}), 1)
	now, refused := time.Now(), 0
	for i := range 10 * maxStrangers {
		r := &http.Request{RemoteAddr: fmt.Sprintf("[2001:db8::%x]:1", i), Header: http.Header{}}
		if a := g.stranger(r, now); a.status == http.StatusTooManyRequests {
			refused++
		}
	}
	if len(g.strangers) > maxStrangers || refused == 0 {
		t.Errorf("%d are kept in mind, %d were told to wait", len(g.strangers), refused)
	}
}

func TestNarrowListener(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := newNarrow(l, 1)
	took := make(chan net.Conn, 2)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := n.Accept()
			if err != nil {
				ended <- err
				return
			}
			took <- c
		}
	}()
	var dialled []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		dialled = append(dialled, c)
	}
	first := <-took
	select {
	case <-took:
		t.Fatal("two were taken where there is room for one")
	case <-time.After(50 * time.Millisecond):
	}
	for range 2 { // closed twice it gives one place back
		first.Close()
	}
	second := <-took
	if len(n.room) != 1 {
		t.Errorf("%d places are taken", len(n.room))
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(testkit.Deadline):
		t.Error("it goes on")
	}
	second.Close()
	for _, c := range dialled {
		c.Close()
	}
}

// One of the two must be said: a server that lets everybody in is not made by leaving something out.
func TestOpenIsSaid(t *testing.T) {
	t.Parallel()
	for _, cfg := range []ServerConfig{{}, {Open: true, Callers: access.NewBook(nil, nil)}} {
		if _, err := NewServer(cfg); err == nil || !strings.Contains(err.Error(), "open to everybody") {
			t.Errorf("%v", err)
		}
	}
}

// Over TLS a caller may show a certificate in place of a token; a stranger's is refused, and none is nobody.
func TestCertificateInPlaceOfAToken(t *testing.T) {
	t.Parallel()
	b := start(t, nil)
	dir, now := t.TempDir(), time.Now()
	ours, err := certs.Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	theirs, err := certs.Open(foreign, now)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(dir string, a *certs.Authority, name string, hosts []string) tls.Certificate {
		if _, _, err := a.Issue(name, hosts, now); err != nil {
			t.Fatal(err)
		}
		p, err := tls.LoadX509KeyPair(certs.CertFile(dir, name), certs.KeyFile(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	server := pair(dir, ours, "http", certs.Loopback())
	text, err := os.ReadFile(certs.CAFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	core := pair(dir, ours, "core", nil)
	leaf, err := x509.ParseCertificate(core.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	book := access.NewBook(nil, func(err error) { t.Error(err) })
	body, err := json.Marshal(access.Caller{Name: "core", May: []string{access.Publish}, Kinds: []string{"payment"}, Certificate: leaf.Subject.CommonName, Created: now})
	if err != nil {
		t.Fatal(err)
	}
	book.Take("core", 1, body)
	w := b.serve(t, nil, func(c *ServerConfig) {
		c.Open, c.Callers = false, book
		c.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: roots, ClientAuth: tls.VerifyClientCertIfGiven}
	})
	post := func(cert *tls.Certificate, header ...string) (int, http.Header, error) {
		cfg := &tls.Config{RootCAs: roots}
		if cert != nil {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(testkit.Context(t), "POST", strings.Replace(w.url, "http:", "https:", 1)+"/v1/events/payment", strings.NewReader(`{"id":"a","card":"c","amount":1}`))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(r)
		if err != nil {
			return 0, nil, err
		}
		res.Body.Close()
		return res.StatusCode, res.Header, nil
	}
	if status, head, err := post(&core); err != nil || status != 202 || head.Get("Strict-Transport-Security") == "" {
		t.Errorf("by certificate: %d %v, %v", status, head, err)
	}
	other := pair(dir, ours, "other", nil)
	for name, cert := range map[string]*tls.Certificate{"none": nil, "of somebody unknown": &other} {
		if status, _, err := post(cert); err != nil || status != 401 {
			t.Errorf("%s: %d, %v", name, status, err)
		}
	}
	if status, _, err := post(&core, bearer(access.NewToken("core"))...); err != nil || status != 401 {
		t.Errorf("a bad token beside it: %d, %v", status, err)
	}
	stranger := pair(foreign, theirs, "core", nil)
	if status, _, err := post(&stranger); err == nil {
		t.Errorf("a stranger of the same name: %d", status)
	}
}
