package certs

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, now time.Time) *Authority {
	t.Helper()
	a, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, name string, hosts []string, now time.Time, wantMade bool) *x509.Certificate {
	t.Helper()
	c, made, err := a.Issue(name, hosts, now)
	if err != nil {
		t.Fatal(err)
	}
	if made != wantMade {
		t.Errorf("%s at %s: made %v, want %v", name, now, made, wantMade)
	}
	return c
}

func pool(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	certs, err := readCerts(CAFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

func good(t *testing.T, dir string, c *x509.Certificate, host string, use x509.ExtKeyUsage, now time.Time) error {
	t.Helper()
	_, err := c.Verify(x509.VerifyOptions{Roots: pool(t, dir), DNSName: host, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

func TestWhatIsMadeIsGoodForItsHostsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, start)
	node := issue(t, a, "n1", Loopback(), start, true)
	for _, h := range []string{"localhost", "[127.0.0.1]", "[::1]"} {
		for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			if err := good(t, dir, node, h, use, start.Add(LeafLife-time.Minute)); err != nil {
				t.Errorf("%s: %v", h, err)
			}
		}
	}
	for _, h := range []string{"example.com", "[127.0.0.2]"} {
		if good(t, dir, node, h, x509.ExtKeyUsageServerAuth, start) == nil {
			t.Errorf("good for %s", h)
		}
	}
	client := issue(t, a, "client", nil, start, true)
	if good(t, dir, client, "", x509.ExtKeyUsageServerAuth, start) == nil {
		t.Error("a client's certificate is good for a server")
	}
	if err := good(t, dir, client, "", x509.ExtKeyUsageClientAuth, start); err != nil {
		t.Error(err)
	}
	if node.IsCA || good(t, dir, node, "localhost", x509.ExtKeyUsageServerAuth, start.Add(LeafLife+time.Minute)) == nil {
		t.Error("a leaf that signs, or has no end")
	}
	other := open(t, t.TempDir(), start)
	if good(t, other.dir, node, "localhost", x509.ExtKeyUsageServerAuth, start) == nil {
		t.Error("another authority vouches for it")
	}
}

func TestKeysAreTheirOwnersOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	a := open(t, dir, start)
	issue(t, a, "n1", Loopback(), start, true)
	seen := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o644)
		switch {
		case d.IsDir():
			want = 0o700
		case strings.HasSuffix(path, "-key.pem"):
			want = 0o600
			seen++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil || seen != 2 {
		t.Errorf("%d keys, %v", seen, err)
	}
}

func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	first := issue(t, open(t, dir, start), "n1", Loopback(), start, true)
	same := issue(t, open(t, dir, start.Add(time.Hour)), "n1", Loopback(), start.Add(time.Hour), false)
	if !same.Equal(first) {
		t.Error("another certificate, though the first is good")
	}
	late := start.Add(LeafLife - RenewBefore + time.Minute)
	renewed := issue(t, open(t, dir, late), "n1", Loopback(), late, true)
	if renewed.Equal(first) || first.PublicKeyAlgorithm != renewed.PublicKeyAlgorithm || good(t, dir, renewed, "localhost", x509.ExtKeyUsageServerAuth, late.Add(RenewBefore)) != nil {
		t.Error("not renewed")
	}
	if more := issue(t, open(t, dir, late), "n1", append(Loopback(), "db1.example"), late, true); more.VerifyHostname("db1.example") != nil {
		t.Error("not for the new host")
	}
	issue(t, open(t, dir, late), "n1", nil, late, true) // a client's from now on

	// A key without its certificate, as a crash leaves it.
	if err := os.Remove(CertFile(dir, "n1")); err != nil {
		t.Fatal(err)
	}
	issue(t, open(t, dir, late), "n1", Loopback(), late, true)
	if err := os.WriteFile(CertFile(dir, "n1"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	issue(t, open(t, dir, late), "n1", Loopback(), late, true)
}

func TestAnAuthorityNearItsEndIsFollowedByAnother(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, start)
	late := start.Add(AuthorityLife - LeafLife - time.Hour)
	if b := open(t, dir, late); !b.cert.Equal(a.cert) {
		t.Error("followed too early")
	}
	old := issue(t, a, "n1", Loopback(), late, true)
	later := late.Add(2 * time.Hour)
	b := open(t, dir, later)
	if b.cert.Equal(a.cert) {
		t.Fatal("not followed")
	}
	if err := good(t, dir, old, "localhost", x509.ExtKeyUsageServerAuth, later); err != nil {
		t.Errorf("what the one before signed: %v", err)
	}
	young := issue(t, b, "n1", Loopback(), later, true)
	if err := good(t, dir, young, "localhost", x509.ExtKeyUsageServerAuth, later.Add(LeafLife-time.Minute)); err != nil {
		t.Errorf("what this one signed: %v", err)
	}
	if c := open(t, dir, later); !c.cert.Equal(b.cert) {
		t.Error("a third one")
	}
	if after := open(t, dir, start.Add(2*AuthorityLife)); len(must(t, CAFile(dir))) != 1 || after.cert.Equal(b.cert) {
		t.Error("the bundle keeps what has ended")
	}
}

func must(t *testing.T, file string) []*x509.Certificate {
	t.Helper()
	c, err := readCerts(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Wherever making an authority was cut short, the next Open goes on from there, and never pretends.
func TestHalfAnAuthority(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, start)
	if err := os.Remove(CAFile(dir)); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, start) // a key alone
	issue(t, a, "n1", Loopback(), start, true)
	if _, err := newKey(KeyFile(dir, "ca")); err != nil { // the next key alone, beside the certificate of the one before
		t.Fatal(err)
	}
	b := open(t, dir, start)
	if b.cert.Equal(a.cert) || len(must(t, CAFile(dir))) != 2 {
		t.Error("the certificate is not the key's, or the one before is forgotten")
	}
	if err := os.Remove(KeyFile(dir, "ca")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, start); err == nil || !strings.Contains(err.Error(), "bring the key back") {
		t.Errorf("without the key: %v", err)
	}
	if err := os.WriteFile(KeyFile(dir, "ca"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, start); err == nil || !strings.Contains(err.Error(), "no PEM") {
		t.Errorf("with rubbish for a key: %v", err)
	}
}

func TestNamesOfCertificates(t *testing.T) {
	a := open(t, t.TempDir(), start)
	for _, name := range []string{"", "ca", "../x", "a/b", ".hidden"} {
		if _, _, err := a.Issue(name, nil, start); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// shown is the certificate that a server shows.
func shown(t *testing.T, dir, addr string, certs ...tls.Certificate) (*x509.Certificate, error) {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool(t, dir), Certificates: certs})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	// In TLS 1.3 a client learns by its first read that its certificate was refused.
	if _, err := c.Read(make([]byte, 1)); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// serve says one byte to whoever gets through the handshake.
func serve(t *testing.T, cfg *tls.Config) (addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{1}) // the other end may have been refused
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestAServerShowsWhatTheFilesSayNow(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a := open(t, dir, now)
	first := issue(t, a, "http", Loopback(), now, true)
	p, err := Follow(CertFile(dir, "http"), KeyFile(dir, "http"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := p.Server("")
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, cfg)
	if c, err := shown(t, dir, addr); err != nil || !c.Equal(first) {
		t.Fatalf("at first: %v", err)
	}
	if _, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool(t, dir), MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 was taken")
	}

	second := issue(t, a, "http", append(Loopback(), "more.example"), now, true)
	if c := p.current(now.Add(time.Hour)); !c.Leaf.Equal(second) {
		t.Error("not what the files say")
	}
	if c, err := shown(t, dir, addr); err != nil || !c.Equal(second) {
		t.Errorf("after a renewal: %v", err)
	}
	// A key that is not the certificate's, as there is for a moment while both are replaced.
	if _, err := newKey(KeyFile(dir, "http")); err != nil {
		t.Fatal(err)
	}
	if c := p.current(now.Add(2 * time.Hour)); !c.Leaf.Equal(second) {
		t.Error("a pair that does not belong together")
	}
	if _, err := Follow(CertFile(dir, "http"), KeyFile(dir, "http")); err == nil {
		t.Error("followed a pair that does not belong together")
	}
}

func TestMutual(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	a := open(t, dir, now)
	issue(t, a, "http", Loopback(), now, true)
	issue(t, a, "client", nil, now, true)
	p, err := Follow(CertFile(dir, "http"), KeyFile(dir, "http"))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := p.Server(CAFile(dir))
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, cfg)
	if _, err := shown(t, dir, addr); err == nil {
		t.Error("whoever shows no certificate gets in")
	}
	mine, err := tls.LoadX509KeyPair(CertFile(dir, "client"), KeyFile(dir, "client"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shown(t, dir, addr, mine); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	elsewhere := t.TempDir()
	issue(t, open(t, elsewhere, now), "client", nil, now, true)
	foreign, err := tls.LoadX509KeyPair(CertFile(elsewhere, "client"), KeyFile(elsewhere, "client"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shown(t, dir, addr, foreign); err == nil {
		t.Error("another authority's client gets in")
	}
	if _, err := p.Server(filepath.Join(dir, "nothing.pem")); err == nil {
		t.Error("no bundle, and no error")
	}
}
