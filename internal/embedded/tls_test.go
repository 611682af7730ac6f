package embedded

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/riskweir/riskweir/internal/certs"
)

// issued is a directory with an authority, a node's certificate and a client's.
func issued(t *testing.T) (dir string, of TLS) {
	t.Helper()
	dir = t.TempDir()
	reissue(t, dir, certs.Loopback())
	return dir, TLS{Cert: certs.CertFile(dir, "node"), Key: certs.KeyFile(dir, "node"), CA: certs.CAFile(dir)}
}

func reissue(t *testing.T, dir string, hosts []string) {
	t.Helper()
	a, err := certs.Open(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string][]string{"node": hosts, "client": nil} {
		if _, _, err := a.Issue(name, h, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
}

// dial connects once.
func dial(url string, opts ...nats.Option) error {
	nc, err := nats.Connect(url, append([]nats.Option{nats.NoReconnect(), nats.Timeout(10 * time.Second)}, opts...)...)
	if err == nil {
		nc.Close()
	}
	return err
}

func TestTLS(t *testing.T) {
	_, files := issued(t)
	n, stop := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, TLS: &files})
	if !strings.HasPrefix(n.ClientURL(), "tls://") {
		t.Errorf("clients come to %s", n.ClientURL())
	}
	ca := nats.RootCAs(files.CA)
	if err := dial(n.ClientURL(), ca); err != nil {
		t.Errorf("who knows the authority: %v", err)
	}
	if err := dial(n.ClientURL()); err == nil {
		t.Error("who does not know the authority trusts the node")
	}
	_, foreign := issued(t)
	if err := dial(n.ClientURL(), nats.RootCAs(foreign.CA)); err == nil {
		t.Error("who knows another authority trusts the node")
	}
	if err := dial(n.ClientURL(), ca, nats.Secure(&tls.Config{MaxVersion: tls.VersionTLS12})); err == nil {
		t.Error("TLS 1.2 was taken")
	}
	inClear := strings.Replace(n.ClientURL(), "tls://", "nats://", 1)
	conn, err := net.Dial("tcp", strings.TrimPrefix(inClear, "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := bufio.NewReader(conn)
	if info, err := lines.ReadString('\n'); err != nil || !strings.Contains(info, `"tls_required":true`) {
		t.Errorf("a node says %q, %v", info, err)
	}
	if _, err := conn.Write([]byte("CONNECT {\"verbose\":true}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "PONG") {
		t.Errorf("who speaks in clear hears %q, %v", line, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestHandshakeFirstTellsNothingInClear(t *testing.T) {
	_, files := issued(t)
	files.First = true
	n, _ := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, TLS: &files})
	if err := dial(n.ClientURL(), nats.RootCAs(files.CA), nats.TLSHandshakeFirst()); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(n.ClientURL(), "tls://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("read %d bytes before the handshake, %v", n, err)
	}
}

func TestClientsMustShowACertificate(t *testing.T) {
	dir, files := issued(t)
	files.Verify = true
	n, _ := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, TLS: &files})
	ca := nats.RootCAs(files.CA)
	if err := dial(n.ClientURL(), ca); err == nil {
		t.Error("without a certificate")
	}
	if err := dial(n.ClientURL(), ca, nats.ClientCert(certs.CertFile(dir, "client"), certs.KeyFile(dir, "client"))); err != nil {
		t.Errorf("with one: %v", err)
	}
	other, _ := issued(t)
	if err := dial(n.ClientURL(), ca, nats.ClientCert(certs.CertFile(other, "client"), certs.KeyFile(other, "client"))); err == nil {
		t.Error("with another authority's")
	}
}

// Whoever is connected stays, and whoever comes sees the new certificate.
func TestReloadOfACertificate(t *testing.T) {
	dir, files := issued(t)
	admin, public := userKey(t)
	n, _ := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, TLS: &files, Users: []User{{Name: "admin", PublicKey: public, All: true}}})
	as := []nats.Option{nats.RootCAs(files.CA), nats.Nkey(public, admin.Sign)}
	lost := make(chan error, 1)
	nc, err := nats.Connect(n.ClientURL(), append(as, nats.NoReconnect(), nats.ClosedHandler(func(c *nats.Conn) { lost <- c.LastError() }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	serial := func() string {
		t.Helper()
		c, err := nats.Connect(n.ClientURL(), append(as, nats.NoReconnect())...)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		state, err := c.TLSConnectionState()
		if err != nil {
			t.Fatal(err)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	reissue(t, dir, append(certs.Loopback(), "more.example"))
	if now := serial(); now != before {
		t.Error("a new certificate before the reload")
	}
	users := []User{{Name: "admin", PublicKey: public, All: true}}
	if err := n.Reload(users); err != nil {
		t.Fatal(err)
	}
	if now := serial(); now == before {
		t.Error("the old certificate after the reload")
	}
	// What cannot be read leaves all as it was.
	if err := os.WriteFile(files.Cert, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := n.Reload(users); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("reload of rubbish: %v", err)
	}
	serial()
	if err := nc.Flush(); err != nil {
		t.Errorf("who was connected: %v", err)
	}
	select {
	case err := <-lost:
		t.Errorf("who was connected is not any more: %v", err)
	default:
	}
}

// A user comes and goes while the node runs; JetStream stays.
func TestReloadOfUsers(t *testing.T) {
	_, files := issued(t)
	admin, adminKey := userKey(t)
	guest, guestKey := userKey(t)
	all := []User{{Name: "admin", PublicKey: adminKey, All: true}}
	n, _ := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, TLS: &files, Users: all})
	connect := func(key nkeys.KeyPair, public string, opts ...nats.Option) (*nats.Conn, error) {
		return nats.Connect(n.ClientURL(), append(opts, nats.RootCAs(files.CA), nats.Nkey(public, key.Sign), nats.NoReconnect())...)
	}
	nc, err := connect(admin, adminKey)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.AddStream(&nats.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(guest, guestKey); err == nil {
		t.Fatal("a guest before it was one")
	}
	if err := n.Reload(append(all, User{Name: "guest", PublicKey: guestKey, Publish: []string{"s"}})); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	g, err := connect(guest, guestKey, nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
	if err != nil {
		t.Fatalf("a guest: %v", err)
	}
	defer g.Close()
	if err := g.Publish("s", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := g.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("s", []byte("y")); err != nil {
		t.Errorf("publish after a reload: %v", err)
	}
	if info, err := js.StreamInfo("S"); err != nil || info.State.Msgs != 2 {
		t.Errorf("stream after a reload: %+v, %v", info, err)
	}
	if err := n.Reload(all); err != nil {
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the guest stays after its user has gone")
	}
	if _, err := js.StreamInfo("S"); err != nil {
		t.Error(err)
	}
	if err := n.Reload(nil); err == nil {
		t.Error("all users taken away: whoever comes would be an administrator")
	}
	if err := n.Reload([]User{{Name: "x", PublicKey: "y"}}); err == nil {
		t.Error("a user without a key")
	}
}

func TestReloadBeforeRun(t *testing.T) {
	_, public := userKey(t)
	users := []User{{Name: "admin", PublicKey: public, All: true}}
	n, err := New(Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, Users: users})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Reload(users); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("reload: %v", err)
	}
}
