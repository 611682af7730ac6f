package embedded

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

const atRestKey = "0123456789abcdef0123456789abcdef"

func keyFile(t *testing.T, key string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// holders are the files below dir that hold text.
func holders(t *testing.T, dir, text string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := os.ReadFile(path)
		if bytes.Contains(body, []byte(text)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// What an event says is nowhere on the disk in clear; without encryption it is, which shows that the test looks in the right place.
func TestNothingIsStoredInClear(t *testing.T) {
	const secret, subject = "cardholder-4711-bought-a-weir", "events.payment.entity-4712"
	for _, cipher := range []string{"", "chacha", "aes", "none"} {
		t.Run("cipher="+cipher, func(t *testing.T) {
			core, logs := observer.New(zap.DebugLevel)
			cfg := Config{Name: "n1", Dir: filepath.Join(t.TempDir(), "n1"), ClientPort: RandomPort, Logger: zap.New(core)}
			if cipher != "none" {
				cfg.Encryption = &Encryption{KeyFile: keyFile(t, atRestKey), Cipher: cipher}
			}
			for life := range 2 {
				n, stop := run(t, cfg)
				nc, err := nats.Connect(n.ClientURL())
				if err != nil {
					t.Fatal(err)
				}
				js, err := jetstream.New(nc)
				if err != nil {
					t.Fatal(err)
				}
				s, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"events.>"}})
				if err != nil {
					t.Fatal(err)
				}
				for range 100 {
					if _, err := js.Publish(t.Context(), subject, []byte(secret)); err != nil {
						t.Fatal(err)
					}
				}
				if m, err := s.GetMsg(t.Context(), 1); err != nil || string(m.Data) != secret {
					t.Errorf("life %d: %v, %v", life, m, err)
				}
				nc.Close()
				if err := stop(); err != nil {
					t.Fatal(err)
				}
			}
			found := append(holders(t, cfg.Dir, secret), holders(t, cfg.Dir, subject)...)
			if (len(found) > 0) != (cipher == "none") {
				t.Errorf("in clear in %v", found)
			}
			if keys := holders(t, cfg.Dir, atRestKey); len(keys) > 0 || strings.Contains(ConfigText(cfg), atRestKey) {
				t.Errorf("the key is in %v, or in the config", keys)
			}
			for _, l := range logs.All() {
				if strings.Contains(l.Message, atRestKey) {
					t.Errorf("the key is logged: %s", l.Message)
				}
			}
		})
	}
}

func TestKeysThatAreNotTheOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "n1")
	start := func(e *Encryption) error {
		t.Helper()
		n, err := New(Config{Name: "n1", Dir: dir, ClientPort: RandomPort, Encryption: e})
		if err != nil {
			return err
		}
		done := make(chan error, 1)
		go func() { done <- n.Run(t.Context()) }()
		select {
		case <-n.Ready():
			n.Kill()
			return <-done
		case err := <-done:
			return err
		}
	}
	right := &Encryption{KeyFile: keyFile(t, atRestKey)}
	if err := start(right); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		e    *Encryption
		want string
	}{
		{"another", &Encryption{KeyFile: keyFile(t, "another key of enough characters")}, "is not the one that " + dir + " was made with"},
		{"none", nil, "is encrypted: give the key"},
		{"no file", &Encryption{KeyFile: "/no/such/key"}, "encryption key: open /no/such/key"},
		{"a short one", &Encryption{KeyFile: keyFile(t, "short")}, "has 5 characters: want at least 16"},
		{"nothing in the environment", &Encryption{}, EncryptionKeyEnv + " has 0 characters"},
		{"another cipher", &Encryption{KeyFile: right.KeyFile, Cipher: "aes"}, "was made with the cipher chacha, not aes"},
		{"no cipher", &Encryption{KeyFile: right.KeyFile, Cipher: "rot13"}, `cipher "rot13": want chacha or aes`},
	} {
		err := start(x.e)
		if err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), atRestKey) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
	t.Setenv(EncryptionKeyEnv, atRestKey)
	if err := start(&Encryption{}); err != nil {
		t.Errorf("from the environment: %v", err)
	}
	dir = filepath.Join(t.TempDir(), "clear")
	if err := start(nil); err != nil {
		t.Fatal(err)
	}
	if err := start(right); err == nil || !strings.Contains(err.Error(), "was written in clear") {
		t.Errorf("on data in clear: %v", err)
	}
}
