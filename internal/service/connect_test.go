package service

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// free is an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// seed of a key that no server knows.
func strangerSeed(t *testing.T) string {
	t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := pair.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return string(seed)
}

func TestConnectErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	c := testkit.Start(t, 1, testkit.Users(embedded.User{Name: "someone", All: true}))
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	secure := testkit.Start(t, 1, testkit.TLS())
	nobody := free(t)
	for _, x := range []struct {
		name string
		c    Connection
		want string
	}{
		{"nobody listens", Connection{Servers: "nats://" + nobody}, "connect to nats://" + nobody + ": no server answered: is it running, and is the address right?"},
		{"password is not told", Connection{Servers: "nats://me:hunter2@" + nobody}, "connect to nats://" + nobody + ": "},
		{"a web server", Connection{Servers: strings.Replace(web.URL, "http", "nats", 1)}, "connect to nats://" + strings.TrimPrefix(web.URL, "http://") + ": "},
		{"a silent server", Connection{Servers: silent.Addr().String()}, "connect to "},
		{"no key", Connection{Servers: c.URL()}, "authorization violation: say who you are: --context NAME"},
		{"a stranger's key", Connection{Servers: c.URL(), NKey: write(t, "s.nk", strangerSeed(t))}, "authorization violation: is the user of --nkey, --creds or --context one of this server's?"},
		{"no key file", Connection{NKey: "/no/such.nk"}, "nkey seed /no/such.nk: "},
		{"an empty key file", Connection{NKey: write(t, "e.nk", "")}, "nkey seed "},
		{"an unknown authority", Connection{Servers: secure.URL()}, "which authority is this server's? --tlsca FILE"},
		{"no authority", Connection{Servers: secure.URL(), TLSCA: "/no/such.pem"}, "no such file"},
		{"in clear to who wants TLS", Connection{Servers: strings.Replace(secure.URL(), "tls:", "nats:", 1)}, "which authority is this server's? --tlsca FILE"},
		{"TLS to who has none", Connection{Servers: strings.Replace(c.URL(), "nats:", "tls:", 1)}, "secure connection not available"},
		{"unknown context", Connection{Context: "no-such-context"}, `nats context no-such-context: unknown context "no-such-context"`},
		{"half a certificate", Connection{TLSCert: "c.pem"}, "--tlscert and --tlskey go together"},
		{"no URL", Connection{Servers: "nats://%zz"}, `connect to nats://%zz: invalid URL escape "%zz"`},
		{"no URL, with a password", Connection{Servers: "nats://me:hunter2@[::1"}, `connect to nats://[::1: `},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			x.c.Timeout = 500 * time.Millisecond
			if x.name == "a stranger's key" || x.name == "no key" {
				x.c.Timeout = testkit.Deadline
			}
			conn, err := x.c.Connect(t.Context(), zap.NewNop())
			if err == nil {
				conn.Close()
				t.Fatal("it connected")
			}
			t.Log(err)
			if got := strings.ToLower(err.Error()); !strings.Contains(got, strings.ToLower(x.want)) || strings.Contains(got, "hunter2") || strings.Contains(got, "%!") {
				t.Errorf("error %q, want %q", err, x.want)
			}
		})
	}
}

func TestConnectByTLS(t *testing.T) {
	t.Parallel()
	c := testkit.Start(t, 1, testkit.TLS())
	conn, err := Connection{Servers: c.URL(), TLSCA: c.CA(), Timeout: testkit.Deadline}.Connect(t.Context(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	state, err := conn.TLSConnectionState()
	if err != nil || state.Version != tls.VersionTLS13 {
		t.Errorf("TLS %x, %v", state.Version, err)
	}
}

// Whoever is interrupted while there is no server has not failed.
func TestConnectInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	conn, err := Connection{Servers: free(t)}.Connect(ctx, zap.NewNop())
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", conn, err)
	}
}

// A service may be started before its cluster.
func TestConnectWaitsForTheServer(t *testing.T) {
	t.Parallel()
	c := testkit.Start(t, 1)
	c.StopNode(t, 0)
	connected := make(chan error, 1)
	go func() {
		conn, err := Connection{Servers: c.URL()}.Connect(t.Context(), zap.NewNop())
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	c.RestartNode(t, 0)
	select {
	case err := <-connected:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(testkit.Deadline):
		t.Error("it never connected")
	}
}

// --nats names other servers than the context does; who one is stays the context's.
func TestServersWinOverTheContext(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	c := testkit.Start(t, 1, testkit.Users(embedded.User{Name: "someone", All: true}))
	if err := os.MkdirAll(filepath.Join(config, "nats", "context"), 0o700); err != nil {
		t.Fatal(err)
	}
	settings := map[string]string{"url": "nats://" + free(t), "nkey": write(t, "someone.nk", c.Seed(t, "someone")), "inbox_prefix": "_INBOX_someone"}
	text, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "nats", "context", "there.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := Connection{Context: "there", Servers: c.URL(), Timeout: 5 * time.Second}.Connect(t.Context(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.NewInbox(); !strings.HasPrefix(got, "_INBOX_someone.") {
		t.Errorf("inbox %s", got)
	}
	if o := conn.Opts; o.MaxReconnect != -1 || o.ReconnectBufSize != -1 || o.PingInterval > time.Second || o.MaxPingsOut != 2 {
		t.Errorf("reconnects %d, buffer %d, ping every %s, %d of them", o.MaxReconnect, o.ReconnectBufSize, o.PingInterval, o.MaxPingsOut)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"nats://h:1":                       "nats://h:1",
		"nats://u:p@h:1":                   "nats://h:1",
		"tls://token@h,nats://u:p@g:2,g:3": "tls://h,nats://g:2,g:3",
		"u:p@h":                            "h",
		"nats://u:p@ss@h":                  "nats://h",
		"":                                 "",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
