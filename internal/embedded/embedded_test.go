package embedded

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func userKey(t testing.TB) (nkeys.KeyPair, string) {
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

// run starts a node and stops it with the test. The function returned stops it now and returns what Run did.
func run(t *testing.T, cfg Config) (*Node, func() error) {
	t.Helper()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	var result error
	var stopped bool
	stop := func() error {
		if !stopped {
			cancel()
			result, stopped = <-done, true
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case <-n.Ready():
	case result = <-done:
		stopped = true
	case <-time.After(20 * time.Second):
		t.Fatal("neither ready nor ended")
	}
	return n, stop
}

// The text is a config file for nats-server too, and says the same there.
func TestConfigText(t *testing.T) {
	_, a := userKey(t)
	_, b := userKey(t)
	dir := filepath.Join(t.TempDir(), `a "quoted" \ dir`)
	cfg := Config{
		Name: "n1", Dir: dir, ClientPort: 4222, MonitorPort: 8222, ClusterPort: 6222, ClusterName: "risk",
		Routes: []string{"127.0.0.1:6222", "127.0.0.1:6223", "127.0.0.1:6224"}, RouteUser: "route", RoutePassword: "secret",
		MaxMemory: 4 << 20, MaxStore: 8 << 20, Tags: []string{"zone:a"},
		Users: []User{
			{Name: "scorer", PublicKey: a, Publish: []string{"commit.>", "$JS.API.CONSUMER.CREATE.*.*.events.*.*.*"}, AllowResponses: true},
			{Name: "watch", PublicKey: b, Account: System, All: true},
		},
	}
	file := filepath.Join(t.TempDir(), "n1.conf")
	if err := os.WriteFile(file, []byte(ConfigText(cfg)), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, ConfigText(cfg))
	}
	if o.ServerName != "n1" || o.StoreDir != dir || !o.SyncAlways || o.NoJetStreamStrict || o.SystemAccount != System {
		t.Errorf("name %q, dir %q, sync always %v, not strict %v, system account %q", o.ServerName, o.StoreDir, o.SyncAlways, o.NoJetStreamStrict, o.SystemAccount)
	}
	if o.Host != "127.0.0.1" || o.Port != 4222 || o.HTTPHost != "127.0.0.1" || o.HTTPPort != 8222 || o.Cluster.Port != 6222 || len(o.Routes) != 3 {
		t.Errorf("listens on %s:%d, %s:%d, %s:%d; routes %v", o.Host, o.Port, o.HTTPHost, o.HTTPPort, o.Cluster.Host, o.Cluster.Port, o.Routes)
	}
	if o.PingInterval != time.Second || o.MaxPingsOut != 2 || o.Cluster.PingInterval != time.Second || o.Cluster.MaxPingsOut != 2 || o.MaxPayload != MaxPayload {
		t.Errorf("ping %s x %d, of routes %s x %d, payload %d", o.PingInterval, o.MaxPingsOut, o.Cluster.PingInterval, o.Cluster.MaxPingsOut, o.MaxPayload)
	}
	if o.Cluster.Username != "route" || o.Cluster.Password != "secret" || o.Routes[1].User.String() != "route:secret" {
		t.Errorf("routes are asked for %q, and offer %v", o.Cluster.Username, o.Routes[1].User)
	}
	if o.JetStreamMaxMemory != 5<<20 || o.JetStreamMaxStore != 10<<20 {
		t.Errorf("node limits %d, %d", o.JetStreamMaxMemory, o.JetStreamMaxStore)
	}
	if len(o.Nkeys) != 2 {
		t.Fatalf("%d users", len(o.Nkeys))
	}
	for _, u := range o.Nkeys {
		switch u.Nkey {
		case a:
			if u.Account.Name != App || len(u.Permissions.Publish.Allow) != 2 || u.Permissions.Response == nil || u.Permissions.Subscribe.Deny[0] != ">" {
				t.Errorf("scorer in %s: %+v", u.Account.Name, u.Permissions)
			}
		case b:
			if u.Account.Name != System || u.Permissions != nil {
				t.Errorf("watch in %s: %+v", u.Account.Name, u.Permissions)
			}
		default:
			t.Errorf("unknown user %s", u.Nkey)
		}
	}
}

func TestValidate(t *testing.T) {
	_, key := userKey(t)
	valid := Config{Name: "n1", Dir: "d", ClientPort: RandomPort}
	if err := valid.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(c *Config){
		"name":              func(c *Config) { c.Name = "a b" },
		"data directory":    func(c *Config) { c.Dir = "" },
		"control character": func(c *Config) { c.Dir = "a\nb" },
		"no client port":    func(c *Config) { c.ClientPort = 0 },
		"monitor port":      func(c *Config) { c.MonitorPort = 1 << 16 },
		"cluster port":      func(c *Config) { c.ClusterPort = RandomPort },
		"cluster name":      func(c *Config) { c.ClusterPort, c.Routes = 1, []string{"h:1"} },
		"no routes":         func(c *Config) { c.ClusterPort, c.ClusterName = 1, "c" },
		"want host:port":    func(c *Config) { c.ClusterPort, c.ClusterName, c.Routes = 1, "c", []string{"h"} },
		"go together":       func(c *Config) { c.RouteUser = "u" },
		"letters":           func(c *Config) { c.RouteUser, c.RoutePassword = "u", "a@b" },
		"storage limit":     func(c *Config) { c.MaxStore = -1 },
		"sync interval":     func(c *Config) { c.SyncInterval = -1 },
		"public nkey":       func(c *Config) { c.Users = []User{{Name: "x", PublicKey: "y"}} },
		"stands twice":      func(c *Config) { c.Users = []User{{PublicKey: key}, {PublicKey: key}} },
		"no account":        func(c *Config) { c.Users = []User{{PublicKey: key, Account: "X"}} },
	} {
		c := valid
		change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// Whatever a directory, tag or subject is called, the config says just that.
func FuzzQuoting(f *testing.F) {
	f.Add("plain")
	f.Add(`a "b" \c $d {e} #f // [g]`)
	f.Add("%41 ä")
	f.Fuzz(func(t *testing.T, s string) {
		c := Config{Name: "n1", Dir: s, ClientPort: 4222}
		if c.Validate() != nil {
			t.Skip()
		}
		var o server.Options
		if err := o.ProcessConfigString(ConfigText(c)); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if o.StoreDir != s {
			t.Errorf("%q became %q", s, o.StoreDir)
		}
	})
}

func TestTakenPortEndsRun(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	_, stop := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: port})
	if err := stop(); err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want an error that names port %d", err, port)
	}
}

func TestRunTwiceOnOneDirectory(t *testing.T) {
	cfg := Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, MonitorPort: RandomPort}
	for i := range 2 {
		n, stop := run(t, cfg)
		if !strings.HasPrefix(n.MonitorURL(), "http://127.0.0.1:") {
			t.Errorf("monitoring at %q", n.MonitorURL())
		}
		nc, err := nats.Connect(n.ClientURL())
		if err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		s, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().State.Msgs; got != uint64(i) {
			t.Errorf("round %d: %d messages", i, got)
		}
		if _, err := js.Publish(t.Context(), "s", nil); err != nil {
			t.Fatal(err)
		}
		nc.Close()
		start := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("took %s to stop", took)
		}
	}
}

// A full store refuses to take more; what is there can still be read.
func TestFullStoreRefuses(t *testing.T) {
	n, _ := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort, MaxStore: 1 << 20, SyncInterval: time.Minute})
	nc, err := nats.Connect(n.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, 100<<10)
	stored := 0
	for ; stored < 100; stored++ {
		if _, err = js.Publish(t.Context(), "s", body); err != nil {
			break
		}
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || stored == 0 || stored > 10 {
		t.Fatalf("after %d x 100 KiB: %v", stored, err)
	}
	t.Logf("refused after %d x 100 KiB: %v", stored, err)
	if _, err := s.GetMsg(t.Context(), 1); err != nil {
		t.Error(err)
	}
	info, err := js.AccountInfo(t.Context())
	if err != nil || info.Limits.MaxStore != 1<<20 {
		t.Errorf("account limit %d, %v: ingest compares what is used with it", info.Limits.MaxStore, err)
	}
}

func TestKill(t *testing.T) {
	n, stop := run(t, Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort})
	n.Kill()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestEndedBeforeReady(t *testing.T) {
	n, err := New(Config{Name: "n1", Dir: t.TempDir(), ClientPort: RandomPort})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Run(ctx); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n, err = New(Config{Name: "n1", Dir: file, ClientPort: RandomPort})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Errorf("on a file: %v", err)
	}
}
