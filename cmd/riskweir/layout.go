package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

// layout is where a system of 'riskweir up' lives:
//
//	<dir>/riskweir.json      what the directory is, so that --fresh removes nothing else
//	<dir>/lock               held while it runs
//	<dir>/keys/<user>.nk     nkey seeds, 0600
//	<dir>/keys/models.nk     the seed that signs models, 0600
//	<dir>/keys/models.pub    public keys whose models are served
//	<dir>/tls/               certificates and their keys, 0600, and the authority that signed them
//	<dir>/users/<user>.json  who may connect beside the services: subscribers
//	<dir>/http.token         of the local caller over HTTP, 0600; http.curl is for curl -K
//	<dir>/<node>.json        node configs, 0600
//	<dir>/<node>/            JetStream data
//	<dir>/logs/<child>.log
type layout struct {
	dir   string
	lock  *os.File
	saved layoutFile
	ports ports

	noTLS  bool // for measuring
	mutual bool // clients must show a certificate
	open   bool // whoever comes may do everything: for measuring

	encryption *embedded.Encryption // of what nodes store; nil: none

	// Both may be nil. chosen is told when the ports are chosen; adjust changes the config of node i before it is written.
	chosen func() error
	adjust func(i int, cfg *embedded.Config)
}

type layoutFile struct {
	Format        int    `json:"format"`
	Nodes         int    `json:"nodes"`
	RoutePassword string `json:"route_password"`
}

type ports struct {
	client, cluster, monitor []int // by node
	http                     int
}

const layoutFormat = 1

// defaultDir is the user's data directory, by the conventions of the system.
func defaultDir() string {
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "riskweir")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "riskweir-data"
	}
	if runtime.GOOS == "darwin" {
		return filepath.Join(home, "Library", "Application Support", "riskweir")
	}
	return filepath.Join(home, ".local", "share", "riskweir")
}

// openLayout takes the directory for this process alone.
func openLayout(dir string, fresh bool, nodes int) (*layout, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	l := &layout{dir: dir}
	if err := l.ours(); err != nil {
		return nil, err
	}
	if l.lock, err = os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(l.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		l.lock.Close()
		return nil, fmt.Errorf("data directory %s is in use by another 'riskweir up': stop that one, or choose another --dir", dir)
	}
	if err := l.load(fresh, nodes); err != nil {
		l.lock.Close()
		return nil, err
	}
	return l, nil
}

// ours refuses a directory that holds something else, before anything is written to it.
func (l *layout) ours() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	foreign := false
	for _, e := range entries {
		if e.Name() == "riskweir.json" {
			return nil
		}
		foreign = foreign || e.Name() != "lock"
	}
	if foreign {
		return fmt.Errorf("data directory %s holds other things than a Riskweir system: choose an empty one", l.dir)
	}
	return nil
}

func (l *layout) load(fresh bool, nodes int) error {
	file := filepath.Join(l.dir, "riskweir.json")
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("data directory: %w", err)
	default:
		if err := json.Unmarshal(text, &l.saved); err != nil || l.saved.Format != layoutFormat {
			return fmt.Errorf("%s is not of this version of Riskweir (%v)", file, err)
		}
	}
	if fresh && l.saved.Format != 0 {
		if err := l.empty(); err != nil {
			return err
		}
		l.saved = layoutFile{}
	}
	if l.saved.Format == 0 {
		secret := make([]byte, 24)
		if _, err := rand.Read(secret); err != nil {
			return fmt.Errorf("route password: %w", err)
		}
		l.saved = layoutFile{Format: layoutFormat, Nodes: nodes, RoutePassword: hex.EncodeToString(secret)}
		if err := writeJSON(file, l.saved); err != nil {
			return err
		}
	}
	if l.saved.Nodes != nodes {
		return fmt.Errorf("data directory %s holds the data of %d nodes, and --nodes is %d: its streams have %d replicas; start with --nodes %d, or with --fresh to throw the data away",
			l.dir, l.saved.Nodes, nodes, l.saved.Nodes, l.saved.Nodes)
	}
	return os.MkdirAll(filepath.Join(l.dir, "logs"), 0o700)
}

// empty removes all but the lock, which is held.
func (l *layout) empty() error {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return fmt.Errorf("--fresh: %w", err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(l.dir, e.Name())); err != nil {
			return fmt.Errorf("--fresh: %w", err)
		}
	}
	return nil
}

func (l *layout) close() error { return l.lock.Close() }

func (l *layout) logFile(child string) string { return filepath.Join(l.dir, "logs", child+".log") }
func (l *layout) seedFile(user string) string { return filepath.Join(l.dir, "keys", user+".nk") }
func (l *layout) nodeFile(i int) string       { return filepath.Join(l.dir, nodeName(i)+".json") }

func (l *layout) tlsDir() string   { return filepath.Join(l.dir, tlsSubdir) }
func (l *layout) usersDir() string { return filepath.Join(l.dir, usersSubdir) }

const (
	tlsSubdir   = "tls"
	usersSubdir = "users"

	// httpName is the certificate of ingest.
	httpName = "http"

	// clientName is the certificate of every client of 'up' where one must be shown.
	clientName = "client"
)

func nodeName(i int) string { return "n" + strconv.Itoa(i+1) }

// writeJSON replaces the file in one step: half of it is never seen.
func writeJSON(file string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return writeFile(file, string(text)+"\n")
}

func writeFile(file, text string) error {
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}

// choosePorts takes the usual ports, or the next free ones above them.
func (l *layout) choosePorts(nats, http int) error {
	var taken []int
	next := func(from int) (int, error) {
		for p := from; p < from+1000 && p <= 65535; p++ {
			if !slices.Contains(taken, p) && isFree(p) {
				taken = append(taken, p)
				return p, nil
			}
		}
		return 0, fmt.Errorf("no free port on 127.0.0.1 from %d on: name another with --nats-port or --http-port", from)
	}
	for range l.saved.Nodes {
		for _, x := range []struct {
			base int
			to   *[]int
		}{{nats, &l.ports.client}, {nats + 2000, &l.ports.cluster}, {nats + 4000, &l.ports.monitor}} {
			p, err := next(x.base)
			if err != nil {
				return err
			}
			*x.to = append(*x.to, p)
		}
	}
	var err error
	if l.ports.http, err = next(http); err != nil || l.chosen == nil {
		return err
	}
	return l.chosen()
}

func isFree(port int) bool {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

// certify makes what is missing of the certificates, and renews those whose time is nearly over.
func (l *layout) certify(now time.Time) error {
	if l.noTLS {
		return nil
	}
	authority, err := certs.Open(l.tlsDir(), now)
	if err != nil {
		return err
	}
	for i := range l.saved.Nodes {
		if _, _, err := authority.Issue(nodeName(i), certs.Loopback(), now); err != nil {
			return err
		}
	}
	if _, _, err := authority.Issue(httpName, certs.Loopback(), now); err != nil {
		return err
	}
	_, _, err = authority.Issue(clientName, nil, now)
	return err
}

// connection is that of a user, who may have no key of its own if the system is open.
func (l *layout) connection(user string) service.Connection {
	c := service.Connection{Servers: l.servers(), Inbox: topology.InboxPrefix(user)}
	if !l.open {
		c.NKey = l.seedFile(user)
	}
	if !l.noTLS {
		c.TLSCA = certs.CAFile(l.tlsDir())
	}
	if l.mutual {
		c.TLSCert, c.TLSKey = certs.CertFile(l.tlsDir(), clientName), certs.KeyFile(l.tlsDir(), clientName)
	}
	return c
}

// flags are those of a child that connects as user.
func (l *layout) flags(user string) []string {
	c := l.connection(user)
	args := []string{"--nats", c.Servers}
	for _, f := range [][2]string{{"--nkey", c.NKey}, {"--tlsca", c.TLSCA}, {"--tlscert", c.TLSCert}, {"--tlskey", c.TLSKey}} {
		if f[1] != "" {
			args = append(args, f[0], f[1])
		}
	}
	return args
}

// users makes what is missing of the seeds and returns who may connect.
func (l *layout) users() ([]embedded.User, error) {
	if l.open {
		return nil, nil
	}
	if err := os.MkdirAll(l.usersDir(), 0o700); err != nil {
		return nil, fmt.Errorf("users: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(l.dir, "keys"), 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	var users []embedded.User
	for _, role := range topology.Roles() {
		public, err := l.publicKey(role.Name)
		if err != nil {
			return nil, err
		}
		users = append(users, embedded.User{Name: role.Name, PublicKey: public, Publish: role.Publish, Subscribe: role.Subscribe, All: role.All, Outside: role.Outside})
	}
	return users, nil
}

func (l *layout) publicKey(user string) (string, error) {
	file := l.seedFile(user)
	seed, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			return "", fmt.Errorf("key of %s: %w", user, err)
		}
		if seed, err = pair.Seed(); err != nil {
			return "", fmt.Errorf("key of %s: %w", user, err)
		}
		if err := os.WriteFile(file, append(seed, '\n'), 0o600); err != nil {
			return "", fmt.Errorf("key of %s: %w", user, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("key of %s: %w", user, err)
	}
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return "", fmt.Errorf("key file %s: %w", file, err)
	}
	return pair.PublicKey()
}

// writeNodes writes the node configs for the ports that were chosen.
func (l *layout) writeNodes(users []embedded.User) error {
	var routes []string
	for _, p := range l.ports.cluster {
		routes = append(routes, net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
	}
	for i := range l.saved.Nodes {
		cfg := embedded.Config{
			Name: nodeName(i), Dir: filepath.Join(l.dir, nodeName(i)),
			ClientPort: l.ports.client[i], MonitorPort: l.ports.monitor[i], Users: users, Imports: embedded.Imports(topology.Outside()),
		}
		cfg.Encryption = l.encryption
		if !l.noTLS {
			cfg.TLS = &embedded.TLS{
				Cert: certs.CertFile(l.tlsDir(), nodeName(i)), Key: certs.KeyFile(l.tlsDir(), nodeName(i)), CA: certs.CAFile(l.tlsDir()), Verify: l.mutual,
			}
		}
		if l.saved.Nodes > 1 {
			cfg.ClusterPort, cfg.ClusterName, cfg.Routes = l.ports.cluster[i], "riskweir", routes
			cfg.RouteUser, cfg.RoutePassword = "route", l.saved.RoutePassword
		}
		if l.adjust != nil {
			l.adjust(i, &cfg)
		}
		if err := cfg.CheckEncryption(); err != nil {
			return err
		}
		file := command.NodeConfig{Config: cfg}
		if !l.open {
			file.UsersDir = l.usersDir()
		}
		if err := writeJSON(l.nodeFile(i), file); err != nil {
			return err
		}
	}
	return nil
}

// servers is the URL list of the nodes.
func (l *layout) servers() string {
	s := ""
	for i, p := range l.ports.client {
		if i > 0 {
			s += ","
		}
		s += l.scheme() + "://127.0.0.1:" + strconv.Itoa(p)
	}
	return s
}

func (l *layout) scheme() string {
	if l.noTLS {
		return "nats"
	}
	return "tls"
}

// writeContext makes 'nats --context riskweir' work. before is what the context said it was for, if that was something else.
func (l *layout) writeContext(name string) (file, before string, err error) {
	dir, err := contextDir()
	if err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", "", fmt.Errorf("nats context: %w", err)
	}
	file = filepath.Join(dir, name+".json")
	purpose := "riskweir up in " + l.dir
	var old struct {
		Description string `json:"description"`
	}
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &old) == nil && old.Description != purpose {
		before = old.Description
	}
	c := l.connection(operatorUser)
	settings := map[string]string{"description": purpose, "url": c.Servers, "inbox_prefix": c.Inbox}
	for key, value := range map[string]string{"nkey": c.NKey, "ca": c.TLSCA, "cert": c.TLSCert, "key": c.TLSKey} {
		if value != "" {
			settings[key] = value
		}
	}
	return file, before, writeJSON(file, settings)
}

// contextDir is where the nats CLI keeps its contexts.
func contextDir() (string, error) {
	config := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("nats context: %w", err)
		}
		config = filepath.Join(home, ".config")
	}
	return filepath.Join(config, "nats", "context"), nil
}

const operatorUser = topology.RoleOperator
