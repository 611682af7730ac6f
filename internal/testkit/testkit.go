// Package testkit gives tests a real broker on a temporary directory: one node or three, with nodes
// that can be stopped, killed and started again. Everything ends with the test.
package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/embedded"
	topology "github.com/riskweir/riskweir/jetstream"
)

// Deadline bounds every wait of a test on the broker. It is far above what is normal, so that only
// a broken thing meets it: the election of a new raft leader alone takes 4 to 9 s.
const Deadline = 30 * time.Second

// lazySync is the sync interval without the option Sync: no test waits for a disk.
const lazySync = 2 * time.Minute

// Option of Start.
type Option func(*options)

type options struct {
	users    []embedded.User
	sync     bool
	logs     bool
	maxStore int64
	tls      bool
	tenants  []string
}

// Sync makes an acknowledged message be on disk, as in production. Off by default: it is slow.
func Sync() Option { return func(o *options) { o.sync = true } }

// Logs writes what the servers log, from warnings on, to the test's log.
func Logs() Option { return func(o *options) { o.logs = true } }

// MaxStore bounds the bytes of JetStream files a node takes.
func MaxStore(bytes int64) Option { return func(o *options) { o.maxStore = bytes } }

// Tenants are accounts with streams of their own. ConnectAs one is its administrator.
func Tenants(names ...string) Option {
	return func(o *options) {
		o.tenants = names
		for _, name := range names {
			o.users = append(o.users, embedded.User{Name: name, Account: name, All: true})
		}
	}
}

// TLS has clients and routes speak TLS, with an authority of this test's.
func TLS() Option { return func(o *options) { o.tls = true } }

// Users puts permissions in force: from then on Connect is the user Admin, who may do everything,
// and ConnectAs is one of users, whose keys are made here. An inbox prefix _INBOX_<name> goes with each.
func Users(users ...embedded.User) Option {
	return func(o *options) { o.users = append(o.users, users...) }
}

// Admin is the user that Connect is when permissions are in force.
const Admin = "admin"

// Cluster of one node or three. Its methods belong to the goroutine of the test, but for Connect,
// URL and StreamLeader.
type Cluster struct {
	cfgs  []embedded.Config
	seeds map[string]nkeys.KeyPair // by user; empty: no permissions in force
	ca    string                   // bundle; empty: no TLS

	mu    sync.Mutex
	nodes []*running // nil where stopped
}

type running struct {
	node *embedded.Node
	stop context.CancelFunc
	done chan struct{} // closed when err is set
	err  error
}

// Start starts 1 or 3 nodes and waits until JetStream has a leader that knows all of them.
func Start(t testing.TB, nodes int, opts ...Option) *Cluster {
	t.Helper()
	if nodes != 1 && nodes != 3 {
		t.Fatalf("testkit: %d nodes: want 1 or 3", nodes)
	}
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	c := &Cluster{nodes: make([]*running, nodes)}
	if len(o.users) > 0 {
		c.seeds = map[string]nkeys.KeyPair{}
		o.users = append(o.users, embedded.User{Name: Admin, All: true})
		for i := range o.users {
			key, err := nkeys.CreateUser()
			if err != nil {
				t.Fatalf("testkit: make a user key: %v", err)
			}
			if o.users[i].PublicKey, err = key.PublicKey(); err != nil {
				t.Fatalf("testkit: public key: %v", err)
			}
			c.seeds[o.users[i].Name] = key
		}
	}
	logger := zap.NewNop()
	if o.logs {
		logger = zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))
	}
	dir := t.TempDir()
	if o.tls {
		c.ca = issue(t, filepath.Join(dir, "tls"))
	}
	t.Cleanup(func() { c.stopAll(t) }) // before the removal of dir, which was registered first

	// Between the choice of a port and its use another process may take it.
	for attempt := 1; ; attempt++ {
		c.configure(t, o, dir, logger)
		err := c.startAll()
		if err == nil {
			break
		}
		c.stopAll(t)
		if attempt == 5 || !inUse(err) {
			t.Fatalf("testkit: start: %v", err)
		}
	}
	c.awaitPeers(t)
	return c
}

func inUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use")
}

func (c *Cluster) configure(t testing.TB, o options, dir string, logger *zap.Logger) {
	t.Helper()
	n := len(c.nodes)
	c.cfgs = make([]embedded.Config, n)
	ports, err := freePorts(2 * n)
	if err != nil {
		t.Fatalf("testkit: find free ports: %v", err)
	}
	var routes []string
	for i := range c.cfgs {
		name := fmt.Sprintf("n%d", i+1)
		c.cfgs[i] = embedded.Config{
			Name: name, Dir: filepath.Join(dir, name), ClientPort: ports[i], MonitorPort: embedded.RandomPort,
			Users: o.users, Tenants: o.tenants, Imports: embedded.Imports(topology.Outside()), MaxStore: o.maxStore, SyncInterval: lazySync, Logger: logger.Named(name),
		}
		if c.ca != "" {
			tls := filepath.Dir(c.ca)
			c.cfgs[i].TLS = &embedded.TLS{Cert: certs.CertFile(tls, nodeCert), Key: certs.KeyFile(tls, nodeCert), CA: c.ca}
		}
		if o.sync {
			c.cfgs[i].SyncInterval = 0
		}
		if n > 1 {
			c.cfgs[i].ClusterPort, c.cfgs[i].ClusterName = ports[n+i], "test"
			c.cfgs[i].RouteUser, c.cfgs[i].RoutePassword = "route", "secret"
			routes = append(routes, fmt.Sprintf("127.0.0.1:%d", ports[n+i]))
		}
	}
	for i := range c.cfgs {
		c.cfgs[i].Routes = routes
	}
}

const nodeCert = "node"

// issue makes an authority in dir, and the certificate of every node; it returns the bundle.
func issue(t testing.TB, dir string) string {
	t.Helper()
	a, err := certs.Open(dir, time.Now())
	if err == nil {
		_, _, err = a.Issue(nodeCert, certs.Loopback(), time.Now())
	}
	if err != nil {
		t.Fatalf("testkit: certificates: %v", err)
	}
	return certs.CAFile(dir)
}

// CA is the bundle by which clients know the nodes; empty without TLS.
func (c *Cluster) CA() string { return c.ca }

// freePorts are n different ports that are free now.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after the last one is chosen
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func (c *Cluster) startAll() error {
	all := make([]*running, len(c.cfgs))
	var errs []error
	for i := range c.cfgs {
		r, err := launch(c.cfgs[i])
		if err != nil {
			return err
		}
		all[i] = r
		c.mu.Lock()
		c.nodes[i] = r
		c.mu.Unlock()
	}
	for _, r := range all {
		errs = append(errs, r.await())
	}
	return errors.Join(errs...)
}

func launch(cfg embedded.Config) (*running, error) {
	node, err := embedded.New(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{node: node, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = node.Run(ctx)
	}()
	return r, nil
}

// await returns when the node is ready or has ended.
func (r *running) await() error {
	timeout := time.NewTimer(Deadline)
	defer timeout.Stop()
	select {
	case <-r.node.Ready():
		return nil
	case <-r.done:
		return r.err
	case <-timeout.C:
		return fmt.Errorf("node not ready after %s", Deadline)
	}
}

// awaitPeers returns when a meta leader knows every running node.
func (c *Cluster) awaitPeers(t testing.TB) {
	t.Helper()
	Eventually(t, Deadline, "the meta leader knows every node", func() (bool, string) {
		most, up := 0, 0
		for i := range c.cfgs {
			if r := c.at(i); r != nil {
				up++
				most = max(most, r.node.Peers())
			}
		}
		return most >= up, fmt.Sprintf("%d of %d", most, up)
	})
}

func (c *Cluster) at(i int) *running {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i]
}

// take removes node i, for its end.
func (c *Cluster) take(i int) *running {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.nodes[i]
	c.nodes[i] = nil
	return r
}

func (c *Cluster) stopAll(t testing.TB) {
	t.Helper()
	var all []*running
	for i := range c.cfgs {
		if r := c.take(i); r != nil {
			all = append(all, r)
			r.node.Kill() // nobody is left to hand over to
		}
	}
	for _, r := range all {
		end(t, r)
	}
}

func end(t testing.TB, r *running) {
	t.Helper()
	r.stop()
	timeout := time.NewTimer(Deadline)
	defer timeout.Stop()
	select {
	case <-r.done:
		if r.err != nil && !inUse(r.err) {
			t.Errorf("testkit: %v", r.err)
		}
	case <-timeout.C:
		t.Errorf("testkit: node %s did not stop within %s", r.node.ClientURL(), Deadline)
	}
}

// StopNode stops node i gracefully: its raft leaders move first. It returns when the node has ended.
func (c *Cluster) StopNode(t testing.TB, i int) {
	t.Helper()
	r := c.take(i)
	if r == nil {
		t.Fatalf("testkit: node %d is not running", i)
	}
	end(t, r)
}

// KillNode stops node i as abruptly as is possible within a process: connections close without a
// warning and nothing is handed over by a wait. (The server still tries to step down as raft
// leader; only a kill -9 of a child process shows a real election.)
func (c *Cluster) KillNode(t testing.TB, i int) {
	t.Helper()
	r := c.take(i)
	if r == nil {
		t.Fatalf("testkit: node %d is not running", i)
	}
	r.node.Kill()
	end(t, r)
}

// RestartNode starts node i again on its directory and ports, stopping it first if need be, and
// waits until it has caught up with the meta leader.
func (c *Cluster) RestartNode(t testing.TB, i int) {
	t.Helper()
	if c.at(i) != nil {
		c.StopNode(t, i)
	}
	// A closed port may linger for a moment, or serve an outgoing connection of another process.
	Eventually(t, Deadline, fmt.Sprintf("node %d starts again", i), func() (bool, string) {
		r, err := launch(c.cfgs[i])
		if err == nil {
			err = r.await()
		}
		if err == nil {
			c.mu.Lock()
			c.nodes[i] = r
			c.mu.Unlock()
			return true, ""
		}
		if r != nil {
			r.stop()
			<-r.done
		}
		if !inUse(err) {
			t.Fatalf("testkit: restart node %d: %v", i, err)
		}
		return false, err.Error()
	})
	c.awaitPeers(t)
}

// URL is the client address of every node, separated by commas: what nats.Connect takes.
func (c *Cluster) URL() string {
	urls := make([]string, len(c.cfgs))
	for i := range c.cfgs {
		urls[i] = c.NodeURL(i)
	}
	return strings.Join(urls, ",")
}

// Dir is the data directory of node i, to be touched only while it is stopped.
func (c *Cluster) Dir(i int) string { return c.cfgs[i].Dir }

// NodeURL is the client address of node i.
func (c *Cluster) NodeURL(i int) string {
	scheme := "nats"
	if c.ca != "" {
		scheme = "tls"
	}
	return fmt.Sprintf("%s://127.0.0.1:%d", scheme, c.cfgs[i].ClientPort)
}

// Node is node i, nil where it is stopped.
func (c *Cluster) Node(i int) *embedded.Node {
	if r := c.at(i); r != nil {
		return r.node
	}
	return nil
}

// Connect connects, as Admin if permissions are in force, until the end of the test.
func (c *Cluster) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	if c.seeds == nil {
		return c.connect(t, opts)
	}
	return c.ConnectAs(t, Admin, opts...)
}

// ConnectAs connects as one of the users given to Start.
func (c *Cluster) ConnectAs(t testing.TB, user string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	key, ok := c.seeds[user]
	if !ok {
		t.Fatalf("testkit: no user %q", user)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatalf("testkit: public key of %s: %v", user, err)
	}
	return c.connect(t, append([]nats.Option{
		nats.Nkey(public, key.Sign),
		nats.CustomInboxPrefix(InboxPrefix(user)),
	}, opts...))
}

// Seed of a user given to Start, for a process or a CLI of its own.
func (c *Cluster) Seed(t testing.TB, user string) string {
	t.Helper()
	key, ok := c.seeds[user]
	if !ok {
		t.Fatalf("testkit: no user %q", user)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatalf("testkit: seed of %s: %v", user, err)
	}
	return string(seed)
}

// InboxPrefix under which a user's replies come, and nobody else's.
func InboxPrefix(user string) string { return "_INBOX_" + user }

func (c *Cluster) connect(t testing.TB, opts []nats.Option) *nats.Conn {
	t.Helper()
	if c.ca != "" {
		opts = append([]nats.Option{nats.RootCAs(c.ca)}, opts...)
	}
	nc, err := nats.Connect(c.URL(), append([]nats.Option{
		nats.Name(t.Name()),
		nats.Timeout(5 * time.Second),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(50 * time.Millisecond),
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
	}, opts...)...)
	if err != nil {
		t.Fatalf("testkit: connect: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// JetStream is that of a connection of its own, as Connect gives it.
func (c *Cluster) JetStream(t testing.TB) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(c.Connect(t))
	if err != nil {
		t.Fatalf("testkit: jetstream: %v", err)
	}
	return js
}

// StreamLeader is the node that leads a stream now, -1 if none does.
func (c *Cluster) StreamLeader(stream string) int {
	for i := range c.cfgs {
		if r := c.at(i); r != nil && r.node.LeadsStream(stream) {
			return i
		}
	}
	return -1
}

// ConsumerLeader is the node that leads a consumer now, -1 if none does.
func (c *Cluster) ConsumerLeader(stream, consumer string) int {
	for i := range c.cfgs {
		if r := c.at(i); r != nil && r.node.LeadsConsumer(stream, consumer) {
			return i
		}
	}
	return -1
}

// Eventually polls until it holds, and fails the test at the deadline with the reason waited for
// and what was seen last.
func Eventually(t testing.TB, deadline time.Duration, reason string, holds func() (bool, string)) {
	t.Helper()
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	wait := time.Millisecond
	for {
		ok, seen := holds()
		if ok {
			return
		}
		next := time.NewTimer(wait)
		select {
		case <-timeout.C:
			next.Stop()
			t.Fatalf("waited %s for: %s; last seen: %s", deadline, reason, seen)
		case <-next.C:
		}
		wait = min(2*wait, 50*time.Millisecond)
	}
}

// Context ends with the test, or at Deadline.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Deadline)
	t.Cleanup(cancel)
	return ctx
}
