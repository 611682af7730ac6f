package main

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/certs"
)

// A data directory from before there was TLS starts as any other, and mutual TLS can be had later.
func TestUpOnADirectoryWithoutCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	events := 0
	for _, args := range [][]string{{"--no-tls"}, {}, {"--mutual-tls"}} {
		nats, http := freePorts()
		out, errOut, code := riskweir(t, slices.Concat([]string{"up", "--nodes", "1", "--for", "3s", "--rate", "100", "--dir", dir,
			"--nats-port", nats, "--http-port", http, "--context-name", "", "--summary", "json"}, args)...)
		if code != 0 {
			t.Fatalf("%v: exit status %d: %s", args, code, errOut)
		}
		s := decodeSummary(t, []byte(out))
		if !s.OK || s.Scored <= uint64(events) {
			t.Errorf("%v: %+v, want more than the %d of before", args, s, events)
		}
		events = int(s.Scored)
		scheme := "tls://127.0.0.1:"
		if slices.Equal(args, []string{"--no-tls"}) {
			scheme = "nats://127.0.0.1:"
		}
		if !strings.Contains(errOut, scheme) {
			t.Errorf("%v: says %s, want %s", args, errOut, scheme)
		}
		nothingRefused(t, dir)
	}
	if _, errOut, code := riskweir(t, "up", "--no-tls", "--mutual-tls", "--dir", t.TempDir()); code != 2 || !strings.Contains(errOut, "does not go with") {
		t.Errorf("exit status %d: %s", code, errOut)
	}
}

func TestCerts(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	say := func(want string, args ...string) {
		t.Helper()
		out, errOut, code := riskweir(t, append([]string{"certs", "--dir", dir}, args...)...)
		if code != 0 || strings.Count(out, want) != 2 {
			t.Errorf("%v: exit status %d: %s%s", args, code, out, errOut)
		}
	}
	say("made ", "n1", "n2", "--host", "10.0.0.1,localhost")
	say("kept ", "n1", "n2", "--host", "10.0.0.1,localhost")
	out, errOut, code := riskweir(t, "certs", "--dir", dir, "payments", "--client")
	if code != 0 || !strings.Contains(out, "made ") {
		t.Errorf("exit status %d: %s%s", code, out, errOut)
	}
	text, err := os.ReadFile(certs.CertFile(dir, "n1"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if c.VerifyHostname("10.0.0.1") != nil || c.VerifyHostname("localhost") != nil || c.VerifyHostname("127.0.0.1") == nil {
		t.Errorf("for %v %v", c.DNSNames, c.IPAddresses)
	}
	if left := time.Until(c.NotAfter); left < certs.LeafLife-time.Hour || left > certs.LeafLife {
		t.Errorf("until %s", c.NotAfter)
	}
	if out, errOut, code := riskweir(t, "certs", "--dir", dir, "ca"); code != 2 {
		t.Errorf("ca: exit status %d: %s%s", code, out, errOut)
	}
	if out, errOut, code := riskweir(t, "certs", "--dir", dir, "x", "--client", "--host", "h"); code != 2 || !strings.Contains(errOut, "nobody comes to a client") {
		t.Errorf("a client with a host: exit status %d: %s%s", code, out, errOut)
	}
}

// With a key nothing that an event says is on the disk in clear, and without the key nothing starts.
func TestUpEncryptsWhatItStores(t *testing.T) {
	t.Parallel()
	dir, key := t.TempDir(), filepath.Join(t.TempDir(), "key")
	other := key + ".other"
	for file, text := range map[string]string{key: "a key that is long enough", other: "another that is long enough"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (out, errOut string, code int) {
		nats, http := freePorts()
		return riskweir(t, slices.Concat([]string{"up", "--nodes", "1", "--for", "3s", "--rate", "100", "--dir", dir, "--nats-port", nats, "--http-port", http, "--context-name", "", "--summary", "json"}, args)...)
	}
	for range 2 {
		out, errOut, code := run("--encryption-key-file", key)
		if code != 0 {
			t.Fatalf("exit status %d: %s", code, errOut)
		}
		if s := decodeSummary(t, []byte(out)); !s.OK || s.Scored == 0 {
			t.Errorf("%+v", s)
		}
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(dir, "n1"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		for _, clear := range []string{`"card_present"`, `"probability"`, `"amount"`, "events.payment.", "scores.payment.", "a key that is long enough"} {
			if strings.Contains(string(text), clear) {
				t.Errorf("%s holds %s", path, clear)
			}
		}
		return err
	})
	if err != nil || files < 10 {
		t.Errorf("%d files, %v", files, err)
	}
	for want, args := range map[string][]string{
		"is not the one that":    {"--encryption-key-file", other},
		"is encrypted":           nil,
		"open /no/such/key":      {"--encryption-key-file", "/no/such/key"},
		"with the cipher chacha": {"--encryption-key-file", key, "--cipher", "aes"},
	} {
		if _, errOut, code := run(args...); code != 2 || !strings.Contains(errOut, want) {
			t.Errorf("%v: exit status %d: %s, want %q", args, code, errOut, want)
		}
	}
}
