package command

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
)

func newUser(t *testing.T) (nkeys.KeyPair, string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// A running node follows its certificate and its further users, by itself.
func TestNodeFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	tlsDir, usersDir := filepath.Join(dir, "tls"), filepath.Join(dir, "users")
	issue := func(hosts []string) {
		t.Helper()
		a, err := certs.Open(tlsDir, time.Now())
		if err == nil {
			_, _, err = a.Issue("n1", hosts, time.Now())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	issue(certs.Loopback())
	if err := os.Mkdir(usersDir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	admin, adminKey := newUser(t)
	guest, guestKey := newUser(t)
	file := filepath.Join(dir, "n1.json")
	write(t, file, NodeConfig{UsersDir: usersDir, Config: embedded.Config{
		Name: "n1", Dir: filepath.Join(dir, "n1"), ClientPort: port, Users: []embedded.User{{Name: "admin", PublicKey: adminKey, All: true}},
		TLS: &embedded.TLS{Cert: certs.CertFile(tlsDir, "n1"), Key: certs.KeyFile(tlsDir, "n1"), CA: certs.CAFile(tlsDir)},
	}})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cfg NodeConfig
	if err := json.Unmarshal(text, &cfg); err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	cfg.Logger = zap.New(core)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runNode(ctx, cfg) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	connect := func(key nkeys.KeyPair, public string) (serial string, err error) {
		nc, err := nats.Connect("tls://127.0.0.1:"+strconv.Itoa(port), nats.NoReconnect(), nats.RootCAs(certs.CAFile(tlsDir)), nats.Nkey(public, key.Sign))
		if err != nil {
			return "", err
		}
		defer nc.Close()
		state, err := nc.TLSConnectionState()
		if err != nil {
			return "", err
		}
		return state.PeerCertificates[0].SerialNumber.String(), nil
	}
	var first string
	testkit.Eventually(t, testkit.Deadline, "the node is up", func() (bool, string) {
		var err error
		first, err = connect(admin, adminKey)
		return err == nil, said(err)
	})
	if _, err := connect(guest, guestKey); err == nil {
		t.Fatal("a guest got in before there was its file")
	}

	write(t, filepath.Join(usersDir, "guest.json"), embedded.User{Name: "guest", PublicKey: guestKey, Subscribe: []string{"scores.>"}})
	testkit.Eventually(t, testkit.Deadline, "the guest gets in", func() (bool, string) {
		_, err := connect(guest, guestKey)
		return err == nil, said(err)
	})
	issue(append(certs.Loopback(), "more.example"))
	testkit.Eventually(t, testkit.Deadline, "the node shows its new certificate", func() (bool, string) {
		serial, err := connect(admin, adminKey)
		return err == nil && serial != first, said(err)
	})
	// Whoever writes rubbish there locks nobody out, and lets nobody in.
	write(t, filepath.Join(usersDir, "more.json"), embedded.User{Name: "more", All: true})
	testkit.Eventually(t, testkit.Deadline, "the node says what is wrong", func() (bool, string) {
		return logs.FilterMessageSnippet("reload: all stays as it was").Len() == 1, fmt.Sprint(logs.All())
	})
	if _, err := connect(guest, guestKey); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(usersDir, "more.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(usersDir, "guest.json")); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, testkit.Deadline, "the guest does not get in any more", func() (bool, string) {
		_, err := connect(guest, guestKey)
		return err != nil, "it does"
	})
	if _, err := connect(admin, adminKey); err != nil {
		t.Error(err)
	}
}

func write(t *testing.T, file string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file+".tmp", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".tmp", file); err != nil {
		t.Fatal(err)
	}
}

func said(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// A user in a file of its own never gets more than what the file lists.
func TestUsersInFiles(t *testing.T) {
	dir := t.TempDir()
	_, public := newUser(t)
	write(t, filepath.Join(dir, "a.json"), embedded.User{Name: "a", PublicKey: public, Publish: []string{"x"}})
	if users, err := ReadUsers(dir); err != nil || len(users) != 1 || users[0].Name != "a" {
		t.Fatalf("%+v, %v", users, err)
	}
	if users, err := ReadUsers(""); err != nil || users != nil {
		t.Errorf("%+v, %v", users, err)
	}
	for _, u := range []embedded.User{{Name: "b", PublicKey: public, All: true}, {Name: "b", PublicKey: public, Account: embedded.System}} {
		write(t, filepath.Join(dir, "b.json"), u)
		if _, err := ReadUsers(dir); err == nil {
			t.Errorf("%+v was taken", u)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "b.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadUsers(dir); err == nil {
		t.Error("half a file was taken")
	}
}
