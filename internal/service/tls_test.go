package service

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
)

// signed makes a certificate of that name, signed by parent or by itself, and its key, in files.
func signed(t *testing.T, cert, key, name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA: parent == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, by = template, own
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	return made, own
}

// The certificate is replaced while the server listens; half of a pair, and rubbish, leave the one before in force.
func TestCertificatesAreReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	ca, caKey := signed(t, at("ca.pem"), at("ca-key.pem"), "ca", nil, nil)
	signed(t, at("cert.pem"), at("key.pem"), "first", ca, caKey)
	var told, failed atomic.Int32
	cfg, err := ServerFiles{Cert: at("cert.pem"), Key: at("key.pem"), ClientCA: at("ca.pem")}.Config(func(err error) {
		if err != nil {
			failed.Add(1)
		} else {
			told.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	clients := make(chan string, 100)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			name := ""
			if err := c.(*tls.Conn).Handshake(); err == nil {
				if chain := c.(*tls.Conn).ConnectionState().VerifiedChains; len(chain) > 0 {
					name = chain[0][0].Subject.CommonName
				}
				c.Write([]byte("x")) //nolint:errcheck // the peer is gone
			}
			clients <- name
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-served })
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	dial := func(client *tls.Certificate) (server, name string, err error) {
		cfg := &tls.Config{RootCAs: roots}
		if client != nil {
			// Shown whether or not the server knows its authority.
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return client, nil }
		}
		c, err := tls.Dial("tcp", l.Addr().String(), cfg)
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // in TLS 1.3 a refusal of the client's comes here
			server = c.ConnectionState().PeerCertificates[0].Subject.CommonName
			c.Close()
		}
		return server, <-clients, err
	}
	shows := func(want string) {
		t.Helper()
		testkit.Eventually(t, testkit.Deadline, "the server shows "+want, func() (bool, string) {
			got, _, err := dial(nil)
			return err == nil && got == want, got + " " + errText(err)
		})
	}
	shows("first")
	signed(t, at("cert.pem"), at("key.pem"), "second", ca, caKey)
	shows("second")
	if err := os.WriteFile(at("cert.pem"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "it is told", func() (bool, string) { dial(nil); return failed.Load() > 0, "" }) //nolint:errcheck
	shows("second")
	signed(t, at("cert.pem"), at("other-key.pem"), "half", ca, caKey)
	if err := os.Rename(at("other-key.pem"), at("key.pem")); err != nil {
		t.Fatal(err)
	}
	shows("half")
	if told.Load() < 2 {
		t.Errorf("told %d times", told.Load())
	}

	client := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey) *tls.Certificate {
		signed(t, at(name+".pem"), at(name+"-key.pem"), name, parent, by)
		pair, err := tls.LoadX509KeyPair(at(name+".pem"), at(name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	if _, name, err := dial(client("core", ca, caKey)); err != nil || name != "core" {
		t.Errorf("a client of the authority's is %q, %v", name, err)
	}
	if _, name, err := dial(client("stranger", nil, nil)); err == nil || name != "" {
		t.Errorf("a stranger's certificate is %q, %v", name, err)
	}
	if _, name, err := dial(nil); err != nil || name != "" {
		t.Errorf("without one it is %q, %v", name, err)
	}
	old := &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11}
	if c, err := tls.Dial("tcp", l.Addr().String(), old); err == nil {
		c.Close()
		t.Error("TLS 1.1 was taken")
	}
	<-clients
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestServerFilesThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	signed(t, filepath.Join(dir, "c"), filepath.Join(dir, "k"), "x", nil, nil)
	if err := os.WriteFile(filepath.Join(dir, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]ServerFiles{
		"no key":                    {Cert: "c"},
		"no file":                   {Cert: "none", Key: "none"},
		"two the same":              {Cert: "c", Key: "c"},
		"no authority":              {Cert: "c", Key: "k", ClientCA: "none"},
		"empty, an empty authority": {Cert: "c", Key: "k", ClientCA: "empty"},
	} {
		for _, file := range []*string{&f.Cert, &f.Key, &f.ClientCA} {
			if *file != "" {
				*file = filepath.Join(dir, *file)
			}
		}
		if _, err := f.Config(func(error) {}); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// The admin address is for this machine, unless somebody says otherwise; pprof always.
func TestAdminIsForThisMachine(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		a    Admin
		want string
	}{
		{"anywhere", Admin{Listen: "0.0.0.0:0"}, "--admin-anywhere"},
		{"anywhere by leaving out", Admin{Listen: ":0"}, "--admin-anywhere"},
		{"pprof anywhere", Admin{Listen: "0.0.0.0:0", Pprof: true, Anywhere: true}, "pprof"},
	} {
		x.a.Metrics = NewRegistry()
		if err := x.a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "127.9.9.9:1": true, "0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "127.0.0.1.evil.example:1": false, "": false} {
		if got := Loopback(address); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}
