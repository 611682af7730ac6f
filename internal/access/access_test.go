package access

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

func caller(change func(*Caller)) (Caller, string) {
	token := NewToken("shop")
	c := Caller{Name: "shop", May: []string{Score}, Kinds: []string{"payment"}, SHA256: HashOf(token), Created: time.Unix(1e9, 0).UTC(), By: "ann@h"}
	if change != nil {
		change(&c)
	}
	return c, token
}

func TestCallersThatCannotBe(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Caller){
		"no name":             func(c *Caller) { c.Name = "" },
		"a name with a dot":   func(c *Caller) { c.Name = "a.b" },
		"may nothing":         func(c *Caller) { c.May = nil },
		"may what is not":     func(c *Caller) { c.May = []string{"delete"} },
		"may twice":           func(c *Caller) { c.May = []string{Score, Score} },
		"no kind":             func(c *Caller) { c.Kinds = nil },
		"any and one":         func(c *Caller) { c.Kinds = []string{AnyKind, "payment"} },
		"no kind's name":      func(c *Caller) { c.Kinds = []string{"events.>"} },
		"token and cert":      func(c *Caller) { c.Certificate = "x" },
		"neither":             func(c *Caller) { c.SHA256 = "" },
		"no hash":             func(c *Caller) { c.SHA256 = "0011" },
		"a hash that is none": func(c *Caller) { c.SHA256 = strings.Repeat("z", 64) },
		"a rate below 0":      func(c *Caller) { c.Rate = -1 },
		"a rate beyond":       func(c *Caller) { c.Rate = 1e9 },
		"a name to print": func(c *Caller) {
			c.SHA256, c.Certificate = "", "a\x1b[2J"
		},
	} {
		c, _ := caller(change)
		if err := c.Validate(); !errors.Is(err, ErrCaller) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, _ := caller(nil)
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for name, body := range map[string]string{"more": `{"name":"shop","more":1}`, "behind": `{} {}`, "nothing": ``, "deep": strings.Repeat(`{"may":[`, 20000)} {
		if _, err := Decode([]byte(body)); !errors.Is(err, ErrCaller) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of all that looks like the token, the token alone is taken.
func TestTokens(t *testing.T) {
	t.Parallel()
	c, token := caller(nil)
	body, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(body), token) || strings.Contains(string(body), token[len("riskweir.shop."):]) {
		t.Fatalf("the token is kept: %s", body)
	}
	b := NewBook(nil, func(err error) { t.Error(err) })
	b.Take("shop", 7, body)
	now := time.Now()
	if got, ok := b.ByToken(token, now); !ok || got.Name != "shop" || !got.Allows(Score, "payment") || got.Allows(Publish, "payment") || got.Allows(Score, "loan") {
		t.Fatalf("%+v, %t", got, ok)
	}
	other := NewToken("shop")
	for _, bad := range []string{"", "riskweir.", token[:len(token)-1], token + "A", strings.ToUpper(token), strings.Replace(token, "shop", "shoq", 1), other, HashOf(token), "riskweir.shop." + HashOf(token),
		strings.Repeat("x", 1<<20), "riskweir.shop." + strings.Repeat("A", 43)} {
		if _, ok := b.ByToken(bad, now); ok {
			t.Errorf("%.80q was taken", bad)
		}
	}
	if token == other || len(token) != len("riskweir.shop.")+43 {
		t.Errorf("%s, %s", token, other)
	}

	// An older value, of a replica that is behind, brings nobody back.
	revoked := c
	revoked.SHA256, revoked.Revoked = "", now
	text, err := json.Marshal(revoked)
	if err != nil {
		t.Fatal(err)
	}
	b.Take("shop", 9, text)
	b.Take("shop", 8, body)
	if _, ok := b.ByToken(token, now); ok {
		t.Error("the revoked token was taken")
	}
	b.Take("shop", 10, body)
	b.Take("shop", 11, nil) // deleted by hand
	if _, ok := b.ByToken(token, now); ok {
		t.Error("the deleted one was taken")
	}
	c.Expires = now.Add(time.Minute)
	text, err = json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	b.Take("shop", 12, text)
	if _, ok := b.ByToken(token, now); !ok {
		t.Error("it has not expired")
	}
	if _, ok := b.ByToken(token, now.Add(time.Minute)); ok {
		t.Error("it has expired")
	}
	// One that cannot be read ends the one before.
	told := 0
	b.report = func(error) { told++ }
	b.Take("shop", 13, []byte(`{"name":"shop"`))
	if _, ok := b.ByToken(token, now); ok || told != 1 {
		t.Errorf("it goes on; told %d times", told)
	}
	b.Take("other", 14, body)
	if _, ok := b.ByToken(token, now); ok || told != 2 {
		t.Error("a caller under another name was taken")
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	b := NewBook(nil, func(err error) { t.Error(err) })
	put := func(name, cn string, revision uint64) {
		c, _ := caller(func(c *Caller) { c.Name, c.SHA256, c.Certificate = name, "", cn })
		body, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		b.Take(name, revision, body)
	}
	now := time.Now()
	put("core", "core.example.com", 1)
	if c, ok := b.ByCertificate("core.example.com", now); !ok || c.Name != "core" {
		t.Errorf("%+v", c)
	}
	for _, cn := range []string{"", "core", "core.example.com "} {
		if _, ok := b.ByCertificate(cn, now); ok {
			t.Errorf("%q was taken", cn)
		}
	}
	put("copy", "core.example.com", 2)
	if _, ok := b.ByCertificate("core.example.com", now); ok {
		t.Error("a name of two is somebody's")
	}
	put("copy", "copy.example.com", 3)
	if c, ok := b.ByCertificate("core.example.com", now); !ok || c.Name != "core" {
		t.Errorf("%+v", c)
	}
}

// The bucket on a broker: who is added is known, who is revoked is not, and either half of a write may be lost.
func TestCallersOnABroker(t *testing.T) {
	t.Parallel()
	cluster := testkit.Start(t, 1)
	js := cluster.JetStream(t)
	ctx := testkit.Context(t)
	c, token := caller(nil)
	if _, err := Put(ctx, js, c, false); err == nil || !strings.Contains(err.Error(), "topology apply") {
		t.Errorf("without a bucket: %v", err)
	}
	if _, err := topology.ApplyShared(ctx, js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	b := NewBook(js, func(err error) { t.Log(err) })
	ended := make(chan error, 1)
	go func() { ended <- b.Run(run) }()
	defer func() { stop(); <-ended }()
	<-b.Ready()
	if len(b.Callers()) != 0 {
		t.Fatalf("%v", b.Callers())
	}
	known := func(token string, want bool) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "the book follows", func() (bool, string) {
			_, ok := b.ByToken(token, time.Now())
			return ok == want, ""
		})
	}
	if _, err := Put(ctx, js, c, false); err != nil {
		t.Fatal(err)
	}
	known(token, true)
	again, second := caller(nil)
	if _, err := Put(ctx, js, again, false); !errors.Is(err, ErrThere) {
		t.Errorf("%v", err)
	}
	if before, err := Put(ctx, js, again, true); err != nil || before.SHA256 != c.SHA256 {
		t.Errorf("%+v, %v", before, err)
	}
	known(second, true)
	known(token, false)
	if _, err := Revoke(ctx, js, "nobody", time.Now()); err == nil {
		t.Error("nobody was revoked")
	}
	if before, err := Revoke(ctx, js, "shop", time.Now()); err != nil || before.SHA256 != again.SHA256 {
		t.Errorf("%+v, %v", before, err)
	}
	known(second, false)
	if _, err := Revoke(ctx, js, "shop", time.Now()); err != nil {
		t.Errorf("twice: %v", err)
	}

	for _, half := range testkit.Halves {
		courier := cluster.Courier(t)
		theirs, err := natsjs.New(courier.Connect(t), natsjs.WithDefaultTimeout(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		c, token := caller(nil)
		courier.Lose("$KV."+events.CallersBucket+".>", half, 1)
		if _, err := Put(ctx, theirs, c, false); err != nil {
			t.Fatalf("%s: %v", half, err)
		}
		known(token, true)
		courier.Lose("$KV."+events.CallersBucket+".>", half, 1)
		if _, err := Revoke(ctx, theirs, "shop", time.Now()); err != nil {
			t.Fatalf("%s: %v", half, err)
		}
		known(token, false)
		if courier.Lost() != 2 {
			t.Errorf("%s: %d were lost", half, courier.Lost())
		}
	}
	kv, err := js.KeyValue(ctx, events.CallersBucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(ctx, "shop"); err != nil {
		t.Fatal(err)
	}
	c, token = caller(nil)
	if _, err := Put(ctx, js, c, false); err != nil {
		t.Errorf("after a deletion: %v", err)
	}
	known(token, true)
}

func FuzzCaller(f *testing.F) {
	c, token := caller(nil)
	body, err := json.Marshal(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body, token)
	f.Add([]byte(`{"name":"core","may":["publish"],"kinds":["*"],"certificate":"x","created":"2026-01-01T00:00:00Z","by":""}`), "riskweir.core.")
	f.Add([]byte(strings.Repeat("[", 20000)), "riskweir..")
	now := time.Unix(2e9, 0)
	f.Fuzz(func(t *testing.T, body []byte, token string) {
		b := NewBook(nil, func(error) {})
		c, err := Decode(body)
		if err != nil {
			c = Caller{Name: "none"}
		}
		b.Take(c.Name, 1, body)
		got, ok := b.ByToken(token, now)
		if ok && (err != nil || HashOf(token) != strings.ToLower(c.SHA256) || got.Name != c.Name || !got.Revoked.IsZero() || !got.Expires.IsZero() && !now.Before(got.Expires)) {
			t.Fatalf("%q lets in %+v: %v", token, got, err)
		}
		if got, ok := b.ByCertificate(token, now); ok && (err != nil || token == "" || got.Certificate != token) {
			t.Fatalf("certificate %q lets in %+v: %v", token, got, err)
		}
	})
}
