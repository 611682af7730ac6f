package embedded

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// handOver bounds how long a graceful stop waits for the other nodes to lead what this one led. It takes some 50 ms.
const handOver = time.Second

// Node is one server. Its methods may be called from any goroutine.
type Node struct {
	cfg   Config
	key   string        // of what is stored; set by Run before there is a server
	ready chan struct{} // closed when clients may connect and JetStream has caught up with its leader
	kill  chan struct{} // closed by Kill
	once  sync.Once

	mu  sync.Mutex
	srv *server.Server // nil before Run
}

// New checks cfg; the node starts with Run.
func New(cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Node{cfg: cfg.withDefaults(), ready: make(chan struct{}), kill: make(chan struct{})}, nil
}

// Run serves until ctx is done, then hands raft leaders over and shuts down, within handOver in a
// cluster. It returns when the server's files are closed. It may be called once.
func (n *Node) Run(ctx context.Context) (err error) {
	if err := os.MkdirAll(n.cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("node %s: make data directory: %w", n.cfg.Name, err)
	}
	if n.key, err = n.cfg.atRest(); err != nil {
		return fmt.Errorf("node %s: %w", n.cfg.Name, err)
	}
	opts, err := options(n.cfg, n.key)
	if err != nil {
		return err
	}
	srv, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("node %s: %w", n.cfg.Name, err)
	}
	fatal := make(chan error, 1)
	srv.SetLoggerV2(newLog(n.cfg.Logger, fatal), false, false, false)
	n.mu.Lock()
	n.srv = srv
	n.mu.Unlock()

	var wg sync.WaitGroup
	stopped := make(chan struct{})
	wg.Go(func() {
		srv.Start() // returns when recovered and listening
		n.awaitReady(srv, stopped)
	})
	down := make(chan struct{})
	go func() { // ends with the server, which is shut down below whatever happens
		srv.WaitForShutdown()
		close(down)
	}()

	var cause error
	select {
	case <-ctx.Done():
		if n.cfg.ClusterPort > 0 {
			leave(srv)
		}
	case <-n.kill:
	case cause = <-fatal:
		cause = fmt.Errorf("node %s: %w", n.cfg.Name, cause)
	case <-down:
		cause = fmt.Errorf("node %s: shut down by itself or by an operator", n.cfg.Name)
	}
	close(stopped)
	srv.Shutdown()
	<-down
	wg.Wait()
	return cause
}

func options(cfg Config, key string) (*server.Options, error) {
	opts := &server.Options{NoSigs: true}
	if err := opts.ProcessConfigString(ConfigText(cfg)); err != nil {
		return nil, fmt.Errorf("node %s: read config: %w", cfg.Name, err)
	}
	cfg.encrypt(opts, key)
	return opts, nil
}

// Reload puts users in the place of those that there were, and reads the files of TLS again. Who is connected stays, unless
// its user is gone or may do other things now. On an error all is as it was.
func (n *Node) Reload(users []User) error {
	cfg := n.cfg
	cfg.Users = users
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.withDefaults()
	if (len(cfg.Users) == 0) != (len(n.cfg.Users) == 0) {
		return fmt.Errorf("node %s: users were given at its start or were not: that does not change while it runs", cfg.Name)
	}
	srv := n.server()
	if srv == nil {
		return fmt.Errorf("node %s: does not run", cfg.Name)
	}
	// The server forgets to listen for what an account imports that comes by a reload, and listens when it is reloaded again
	// (2.15.2, configureAccounts).
	times := 1
	if slices.ContainsFunc(users, func(u User) bool { return u.Outside }) {
		times = 2
	}
	for range times {
		opts, err := options(cfg, n.key)
		if err != nil {
			return err
		}
		if err := srv.ReloadOptions(opts); err != nil {
			return fmt.Errorf("node %s: reload: %w", cfg.Name, err)
		}
	}
	return nil
}

// leave hands over what srv leads, and returns when all of it is led elsewhere.
//
// Lame duck mode begins so: no more clients, the others place nothing here, leaders move. It would then wait for a second, and
// end JetStream without a word to those who pull from a consumer with one replica, such as lanes: they would miss its
// heartbeats first. Shutdown tells them, and ends lame duck mode where it stands.
func leave(srv *server.Server) {
	going := make(chan struct{})
	go func() { // ends with the Shutdown that follows
		defer close(going)
		srv.LameDuckShutdown()
	}()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(handOver)
	defer late.Stop()
	for !led(srv) {
		select {
		case <-tick.C:
		case <-late.C:
			return
		case <-going: // there was nothing to hand over
			return
		}
	}
}

// led says whether another node leads every raft group that srv is in.
func led(srv *server.Server) bool {
	for _, account := range []string{App, System} { // streams and consumers; the meta group
		all := srv.Raftz(&server.RaftzOptions{AccountFilter: account})
		if all == nil {
			continue
		}
		for _, g := range (*all)[account] {
			if g.Leader == "" || g.Leader == g.ID {
				return false
			}
		}
	}
	return true
}

// Kill ends Run without handing leaders over or telling clients.
func (n *Node) Kill() { n.once.Do(func() { close(n.kill) }) }

// awaitReady closes n.ready. JetStream has no event for "caught up", so it is polled.
func (n *Node) awaitReady(srv *server.Server, stopped <-chan struct{}) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !srv.Running() || srv.Addr() == nil || !srv.JetStreamEnabled() || !srv.JetStreamIsCurrent() {
		select {
		case <-stopped:
			return
		case <-tick.C:
		}
	}
	close(n.ready)
}

// Ready is closed once clients may connect and JetStream on this node is current.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// ClientURL is where clients connect; only after Ready if the port is random.
func (n *Node) ClientURL() string {
	if s := n.server(); s != nil {
		return s.ClientURL()
	}
	return ""
}

// MonitorURL is the HTTP monitoring endpoint, empty if there is none.
func (n *Node) MonitorURL() string {
	s := n.server()
	if s == nil {
		return ""
	}
	a := s.MonitorAddr()
	if a == nil {
		return ""
	}
	return "http://" + a.String()
}

// Peers is how many nodes the meta leader knows to be online with JetStream: 0 if this node does not lead.
func (n *Node) Peers() int {
	s := n.server()
	if s == nil {
		return 0
	}
	if !s.JetStreamIsClustered() {
		if s.JetStreamEnabled() {
			return 1
		}
		return 0
	}
	return len(s.JetStreamClusterPeers())
}

// LeadsStream says whether this node leads the stream of account App. A single node leads
// whatever there is, and is not asked whether there is.
func (n *Node) LeadsStream(stream string) bool {
	s := n.server()
	return s != nil && (!s.JetStreamIsClustered() || s.JetStreamIsStreamLeader(App, stream))
}

// LeadsConsumer says the same of a consumer.
func (n *Node) LeadsConsumer(stream, consumer string) bool {
	s := n.server()
	return s != nil && (!s.JetStreamIsClustered() || s.JetStreamIsConsumerLeader(App, stream, consumer))
}

func (n *Node) server() *server.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.srv
}

// log hands the server's lines to zap. What the server calls fatal ends Run, not the process.
type log struct {
	to    *zap.SugaredLogger
	fatal chan<- error
}

func newLog(to *zap.Logger, fatal chan<- error) *log {
	if to == nil {
		to = zap.NewNop()
	}
	return &log{to: to.Sugar(), fatal: fatal}
}

func (l *log) Fatalf(format string, a ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, a...):
	default: // the first one is the cause
	}
}

func (l *log) Noticef(format string, a ...any) { l.to.Infof(format, a...) }
func (l *log) Warnf(format string, a ...any)   { l.to.Warnf(format, a...) }
func (l *log) Errorf(format string, a ...any)  { l.to.Errorf(format, a...) }
func (l *log) Debugf(format string, a ...any)  { l.to.Debugf(format, a...) }
func (l *log) Tracef(format string, a ...any)  { l.to.Debugf(format, a...) }
