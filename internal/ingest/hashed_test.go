package ingest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/pkg/events"
)

const wantHash = "rGgEXVMO5PvruYN_X97TORq5gCcX2gP853CcTJK_Mvw"

var testKey = []byte(strings.Repeat("k", events.MinEntityKey))

func hash(t *testing.T, entity string) string {
	t.Helper()
	h, err := events.HashEntity(testKey, "payment", entity)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// Of an entity nothing comes to the broker but its hash, whichever way it comes; and the same one each time.
func TestEntitiesAreStoredUnderAHash(t *testing.T) {
	t.Parallel()
	b := start(t, func(c *events.Contract) { c.EntityHash = true })
	w := b.serve(t, nil, func(c *ServerConfig) { c.EntityKey = testKey })
	const who = "Ann Example"
	packed := pack(t, map[string]any{"id": "m", "card": who, "amount": 1})
	for _, x := range []struct{ path, media, body string }{
		{"/v1/events/payment", jsonType, `{ "id":"a", "card" : "Ann Example", "amount":1.50 }`},
		{"/v1/events/payment", jsonType, `{"id":"b","c\u0061rd":"Ann \u0045xample","amount":1}`},
		{"/v1/events/payment?entity=Ann+Example", jsonType, `{"id":"c","amount":1}`},
		{"/v1/events/payment", packType, string(packed)},
		{"/v1/labels/payment?entity=Ann+Example", jsonType, `{"id":"a","label":1}`},
	} {
		if got := w.post(x.path, x.media, []byte(x.body)); got.status != 202 {
			t.Errorf("%s %s: %d %s", x.path, x.body, got.status, got.body)
		}
	}
	path := write(t, "day.csv", "id,card,amount,fraud\nf1,Ann Example,3,yes\nf2,Bob,4,no\n")
	if _, err := b.ingest(t, FileConfig{Path: path, EntityKey: testKey}); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFile(FileConfig{Conn: b.nc, Schema: b.schema, Log: w.cfg.Log, Path: path}); err == nil || !strings.Contains(err.Error(), "--entity-key") {
		t.Errorf("a file without a key: %v", err)
	}
	var ids []string
	token, err := events.EscapeEntity(hash(t, who))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(b.messages(t, "EVENTS_payment", "events."), b.messages(t, events.LabelsStream, "labels.")...) {
		if all := m.Subject + string(m.Data); strings.Contains(all, "Ann") || strings.Contains(all, "xample") || strings.Contains(all, "Bob") {
			t.Errorf("%s holds %q", m.Subject, m.Data)
		}
		if strings.HasPrefix(m.Subject, "events.") && strings.HasSuffix(m.Subject, "."+token) {
			ids = append(ids, b.id(t, m.Data))
		}
	}
	if slices.Sort(ids); fmt.Sprint(ids) != "[a b c f1 m]" {
		t.Errorf("events of the entity: %v", ids)
	}
	if first := b.events(t)[0]; !bytes.Contains(first.Data, []byte(`, "amount":1.50 }`)) {
		t.Errorf("the rest is not as it was: %s", first.Data)
	}
	// The entity that the body names must still be the one of the request.
	if got := w.post("/v1/events/payment?entity=Bob", jsonType, []byte(`{"id":"d","card":"Ann Example","amount":1}`)); got.status != 400 {
		t.Errorf("two entities: %d %s", got.status, got.body)
	}
	keyless := b.serve(t, nil, nil)
	if got := keyless.post("/v1/events/payment", jsonType, []byte(`{"id":"e","card":"Ann Example","amount":1}`)); got.status != 503 || !strings.Contains(string(got.body), "--entity-key") {
		t.Errorf("without a key: %d %s", got.status, got.body)
	}
}

func TestEntityKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(text string, mode os.FileMode) string {
		name := filepath.Join(dir, fmt.Sprint(len(text), mode))
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if key, err := ReadEntityKey(file(string(testKey)+"\n", 0o600)); err != nil || !bytes.Equal(key, testKey) {
		t.Errorf("%q, %v", key, err)
	}
	if key, err := ReadEntityKey(""); err != nil || key != nil {
		t.Errorf("%q, %v", key, err)
	}
	for _, name := range []string{file("short", 0o600), file(string(testKey), 0o644), filepath.Join(dir, "none")} {
		if _, err := ReadEntityKey(name); err == nil || strings.Contains(err.Error(), string(testKey)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if first, again := hash(t, "a"), hash(t, "a"); first == hash(t, "b") || first != again {
		t.Error("hashes")
	}
	other, err := events.HashEntity(testKey, "loan", "a")
	if err != nil || other == hash(t, "a") || len(other) != 43 {
		t.Errorf("of another kind: %s, %v", other, err)
	}
	// HMAC-SHA-256 of "payment", 0, "a", worked out by another program: printf 'payment\0a' | openssl dgst -sha256 -hmac kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk
	if got := hash(t, "a"); got != wantHash {
		t.Errorf("%s, want %s", got, wantHash)
	}
}

// FuzzHashed: whatever body the strict reader takes, its entity is replaced and everything else is as it was.
func FuzzHashed(f *testing.F) {
	f.Add([]byte(`{ "id":"a", "card" : "x", "amount":1.50 }`))
	f.Add([]byte(`{"c\u0061rd":7,"amount":1,"more":{"card":"y"}}`))
	f.Add(append([]byte{0x82}, "\xa4card\xa1x\xa6amount\x01"...))
	f.Add(append([]byte{0xde, 0, 2}, "\xd9\x04card\xcf\x00\x00\x00\x00\x00\x00\x00\x07\xa6amount\x01"...))
	schema, err := events.Compile(contract(func(c *events.Contract) { c.EntityHash = true }))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		enc, err := events.DetectEncoding("", body)
		if err != nil {
			return
		}
		var was, is events.Record
		if schema.Decode(enc, body, &was) != nil {
			return
		}
		entity := string(was.Entity)
		if entity == "" {
			entity = "nobody"
		}
		name, out, err := hashed(&schema.Contract, testKey, enc, body, entity)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if err := schema.Decode(enc, out, &is); err != nil {
			t.Fatalf("%q became %q: %v", body, out, err)
		}
		if len(was.Entity) > 0 && string(is.Entity) != name || len(was.Entity) == 0 && !bytes.Equal(out, body) && string(is.Entity) != name {
			t.Fatalf("%q became %q: entity %q", body, out, is.Entity)
		}
		if string(is.ID) != string(was.ID) || !is.Time.Equal(was.Time) || fmt.Sprint(is.Values) != fmt.Sprint(was.Values) {
			t.Fatalf("%q became %q:\n%+v\n%+v", body, out, was, is)
		}
	})
}
