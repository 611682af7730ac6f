// Package embedded runs a JetStream node from one config text: as a child process of a
// supervisor, or in the process of a test. Nothing else of the project imports the server.
package embedded

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/nats-io/nkeys"
	"go.uber.org/zap"
)

// Accounts of a node. JetStream is enabled in App only.
const (
	App    = "APP"
	System = "SYS"
)

// Settings of every node.
const (
	DefaultHost      = "127.0.0.1"
	DefaultMaxMemory = 256 << 20
	DefaultMaxStore  = 10 << 30

	// MaxPayload is above what EVENTS takes (1 MiB), so that too large an event is answered by
	// the stream with an error that names its limit. Above max_payload the server would close the
	// publisher's connection instead.
	MaxPayload = 8 << 20

	// A node that is stopped (SIGSTOP, a hung disk) keeps its connections open: only missed pings
	// tell. The server's own defaults take minutes.
	pingInterval = "1s"
	pingMax      = 2

	// A client that takes nothing for so long is closed, lest its queue grow to max_pending.
	writeDeadline = "5s"
)

// RandomPort lets the system choose a client or monitor port. A cluster port must be known to the others.
const RandomPort = -1

// Config of one node.
type Config struct {
	Name string // unique in the cluster and stable over restarts: it is the node's identity in raft
	Dir  string // JetStream data, of this node alone

	Host        string // to listen on; DefaultHost if empty
	ClientPort  int    // or RandomPort
	MonitorPort int    // HTTP without authentication, so always on loopback; 0: none; or RandomPort

	// ClusterPort 0 is a single node: no routes, every stream R1.
	ClusterPort   int
	ClusterName   string
	Routes        []string // host:port of the cluster port of every node, the own one included
	RouteUser     string   // with RoutePassword: what a node must show to join
	RoutePassword string

	// Other nodes and clients are told to come to Advertise instead of the cluster port; and clients are told of no other
	// node with NoAdvertise. Both keep them on the addresses that they were given, where something stands in between.
	Advertise   string
	NoAdvertise bool

	// TLS of clients and routes; nil: none, for tests and measurements.
	TLS *TLS `json:",omitempty"`

	// Encryption of what is stored; nil: none.
	Encryption *Encryption `json:",omitempty"`

	// Tenants are further accounts with streams, each with as much storage as App.
	Tenants []string `json:",omitempty"`

	// Imports are what users outside of App reach of it.
	Imports Imports `json:",omitzero"`

	// Users who may connect, by nkey. None: whoever connects is an administrator of App, for tests.
	Users []User

	// What streams may take on this node, in bytes. 0: DefaultMaxMemory, DefaultMaxStore. Account App may
	// take as much of all nodes together; beyond it a publish is refused.
	MaxMemory int64
	MaxStore  int64

	// SyncInterval 0 is `sync_interval: always`: an acknowledged message is on disk. Anything else
	// loses up to that much at a power cut.
	SyncInterval time.Duration

	Tags   []string
	Logger *zap.Logger `json:"-"` // nil: silent
}

// TLS of a node, 1.3 at least. Files are read at the start and by Reload.
type TLS struct {
	Cert, Key string // files; for the names by which clients and nodes come, and good for a client too: nodes are clients of each other
	CA        string // bundle that nodes, and clients if they must, show certificates of
	Verify    bool   // clients must show one
	First     bool   // no word before the handshake; else a server says in clear who it is
}

// Imports of the account of a user outside, from App. Where it publishes, or asks, the server puts a reply subject of its own making in the
// place of the one that came, so that no answer of App goes where an outsider says: it ends in the outsider's account, where no stream listens.
//
// $JS.API.INFO must be among them if anything of $JS.API is: else the server answers all of that for the account without streams.
type Imports struct {
	Publish []string // publishes, and requests with one answer; no two of all may overlap
	Many    []string // requests with many answers
	Live    []string // what is published in App
}

// OutsidePrefix begins the names of accounts that are a user's own.
const OutsidePrefix = "OUT_"

// User may connect by signing with the private part of PublicKey.
type User struct {
	Name           string // for people: a comment in the config
	PublicKey      string // nkey of type user
	Account        string // App if empty
	Publish        []string
	Subscribe      []string
	AllowResponses bool // may answer whatever was sent to it, once a message
	All            bool // no restriction; Publish and Subscribe are ignored
	Outside        bool // in an account of its own, with the config's Imports, not in Account
}

// Validate returns all that is wrong with the config, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("node %s: "+format, append([]any{c.Name}, a...)...))
	}
	if !token(c.Name) {
		bad("name %q: want letters, digits, - and _", c.Name)
	}
	if c.Dir == "" {
		bad("no data directory")
	}
	for _, p := range []struct {
		name string
		port int
	}{{"client", c.ClientPort}, {"monitor", c.MonitorPort}} {
		if p.port < RandomPort || p.port > math.MaxUint16 {
			bad("%s port %d", p.name, p.port)
		}
	}
	if c.ClientPort == 0 {
		bad("no client port")
	}
	if c.ClusterPort < 0 || c.ClusterPort > math.MaxUint16 {
		bad("cluster port %d: want one that the other nodes can be told", c.ClusterPort)
	}
	if c.ClusterPort > 0 {
		if !token(c.ClusterName) {
			bad("cluster name %q: want letters, digits, - and _", c.ClusterName)
		}
		if len(c.Routes) == 0 {
			bad("clustered, but no routes to the other nodes")
		}
		for _, r := range c.Routes {
			if _, _, err := net.SplitHostPort(r); err != nil {
				bad("route %q: want host:port", r)
			}
		}
	}
	if (c.RouteUser == "") != (c.RoutePassword == "") {
		bad("route user and password go together")
	}
	if c.RoutePassword != "" && (!token(c.RouteUser) || !token(c.RoutePassword)) {
		bad("route user or password: want letters, digits, - and _")
	}
	if c.MaxMemory < 0 || c.MaxStore < 0 {
		bad("negative storage limit")
	}
	if c.SyncInterval < 0 {
		bad("sync interval %s", c.SyncInterval)
	}
	for _, name := range c.Tenants {
		if !token(name) || name == App || name == System || strings.HasPrefix(name, OutsidePrefix) {
			bad("tenant %q: want letters, digits, - and _, and no account that there is", name)
		}
	}
	if e := c.Encryption; e != nil && e.cipher() != "chacha" && e.cipher() != "aes" {
		bad("cipher %q: want chacha or aes", e.Cipher)
	}
	if t := c.TLS; t != nil && (t.Cert == "" || t.Key == "" || t.CA == "") {
		bad("TLS: want certificate, key and authority, all three")
	}
	keys := map[string]bool{}
	for _, u := range c.Users {
		switch {
		case !nkeys.IsValidPublicUserKey(u.PublicKey):
			bad("user %s: %q is not the public nkey of a user", u.Name, u.PublicKey)
		case keys[u.PublicKey]:
			bad("user %s: its nkey stands twice", u.Name)
		case u.Outside && (!token(u.Name) || u.All || u.Account != ""):
			bad("user %s: outside there is an account by its name, and nothing to do everything in", u.Name)
		case u.Account != "" && u.Account != App && u.Account != System && !slices.Contains(c.Tenants, u.Account):
			bad("user %s: no account %q", u.Name, u.Account)
		}
		keys[u.PublicKey] = true
	}
	for _, s := range c.texts() {
		if strings.ContainsFunc(s, unicode.IsControl) {
			bad("%q holds a control character", s)
		}
	}
	return errors.Join(errs...)
}

// texts are the strings that ConfigText quotes.
func (c Config) texts() []string {
	all := append([]string{c.Dir, c.Host, c.Advertise}, c.Routes...)
	all = append(all, c.Tags...)
	all = slices.Concat(all, c.Imports.Publish, c.Imports.Many, c.Imports.Live)
	if c.TLS != nil {
		all = append(all, c.TLS.Cert, c.TLS.Key, c.TLS.CA)
	}
	for _, u := range c.Users {
		all = append(append(append(all, u.Name), u.Publish...), u.Subscribe...)
	}
	return all
}

func token(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
			return false
		}
	}
	return true
}

// ConfigText renders c as a server's config file. It is all that the node is started from, so
// `nats-server -c` on it gives the same node (but for the pace of a graceful stop, and the key of what is encrypted).
func ConfigText(c Config) string {
	c = c.withDefaults()
	var b strings.Builder
	line := func(format string, a ...any) { fmt.Fprintf(&b, format+"\n", a...) }

	line("server_name: %s", quote(c.Name))
	line("listen: %s", quote(net.JoinHostPort(c.Host, strconv.Itoa(c.ClientPort))))
	if c.MonitorPort != 0 {
		line("http: %s", quote(net.JoinHostPort(DefaultHost, strconv.Itoa(c.MonitorPort))))
	}
	line("max_payload: %d", MaxPayload)
	line("ping_interval: %s", quote(pingInterval))
	line("ping_max: %d", pingMax)
	line("write_deadline: %s", quote(writeDeadline))
	if len(c.Tags) > 0 {
		line("server_tags: %s", quoteAll(c.Tags))
	}
	if t := c.TLS; t != nil {
		writeTLS(line, "", *t, t.Verify)
	}

	// The account's limit must bite first: there a publish is refused, and that is all. A node at its
	// own limit gives up leadership.
	line("jetstream {")
	line("  store_dir: %s", quote(c.Dir))
	accountsWithStreams := int64(1 + len(c.Tenants))
	line("  max_mem: %d", accountsWithStreams*(c.MaxMemory+c.MaxMemory/4))
	line("  max_file: %d", accountsWithStreams*(c.MaxStore+c.MaxStore/4))
	if c.SyncInterval == 0 {
		line("  sync_interval: always")
	} else {
		line("  sync_interval: %s", quote(c.SyncInterval.String()))
	}
	line("  strict: true")
	line("}")

	if c.ClusterPort > 0 {
		line("cluster {")
		line("  name: %s", quote(c.ClusterName))
		line("  listen: %s", quote(net.JoinHostPort(c.Host, strconv.Itoa(c.ClusterPort))))
		line("  ping_interval: %s", quote(pingInterval))
		line("  ping_max: %d", pingMax)
		userinfo := ""
		if c.RoutePassword != "" {
			line("  authorization { user: %s, password: %s, timeout: 5 }", quote(c.RouteUser), quote(c.RoutePassword))
			userinfo = c.RouteUser + ":" + c.RoutePassword + "@"
		}
		routes := make([]string, len(c.Routes))
		for i, r := range c.Routes {
			routes[i] = "nats://" + userinfo + r
		}
		line("  routes: %s", quoteAll(routes))
		if t := c.TLS; t != nil {
			writeTLS(line, "  ", TLS{Cert: t.Cert, Key: t.Key, CA: t.CA}, true)
		}
		if c.Advertise != "" {
			line("  advertise: %s", quote(c.Advertise))
		}
		if c.NoAdvertise {
			line("  no_advertise: true")
		}
		line("}")
	}

	line("system_account: %s", System)
	line("accounts {")
	accounts := append([]string{App, System}, c.Tenants...)
	for _, u := range c.Users {
		if u.Outside {
			accounts = append(accounts, u.Account)
		}
	}
	for _, account := range accounts {
		line("  %s {", account)
		switch {
		case account == App:
			writeExports(line, c.Imports)
		case strings.HasPrefix(account, OutsidePrefix):
			writeImports(line, c.Imports)
		}
		if account == App || slices.Contains(c.Tenants, account) {
			nodes := int64(max(1, len(c.Routes)))
			line("    jetstream: { max_mem: %d, max_file: %d }", c.MaxMemory*nodes, c.MaxStore*nodes)
		}
		line("    users: [")
		if account == App && len(c.Users) == 0 {
			line("      { user: anyone, password: anyone }")
		}
		for _, u := range c.Users {
			if u.Account == account {
				writeUser(line, u)
			}
		}
		line("    ]")
		line("  }")
	}
	line("}")
	if len(c.Users) == 0 {
		line("no_auth_user: anyone")
	}
	return b.String()
}

func writeExports(line func(string, ...any), i Imports) {
	line("    exports: [")
	for _, s := range i.Publish {
		line("      { service: %s }", quote(s))
	}
	for _, s := range i.Many {
		line("      { service: %s, response: stream }", quote(s))
	}
	for _, s := range i.Live {
		line("      { stream: %s }", quote(s))
	}
	line("    ]")
}

func writeImports(line func(string, ...any), i Imports) {
	line("    imports: [")
	for _, s := range slices.Concat(i.Publish, i.Many) {
		line("      { service: { account: %s, subject: %s } }", App, quote(s))
	}
	for _, s := range i.Live {
		line("      { stream: { account: %s, subject: %s } }", App, quote(s))
	}
	line("    ]")
}

// tlsTimeout is above what a handshake takes on a machine that is out of breath; the server's own 2 s are not.
const tlsTimeout = 5

func writeTLS(line func(string, ...any), indent string, t TLS, verify bool) {
	line(indent + "tls {")
	line(indent+"  cert_file: %s", quote(t.Cert))
	line(indent+"  key_file: %s", quote(t.Key))
	line(indent+"  ca_file: %s", quote(t.CA))
	line(indent + "  min_version: \"1.3\"")
	line(indent+"  timeout: %d", tlsTimeout)
	if verify {
		line(indent + "  verify: true")
	}
	if t.First {
		line(indent + "  handshake_first: true")
	}
	line(indent + "}")
}

func writeUser(line func(string, ...any), u User) {
	line("      # %s", u.Name)
	if u.All {
		line("      { nkey: %s }", u.PublicKey)
		return
	}
	line("      { nkey: %s, permissions: {", u.PublicKey)
	for _, p := range []struct {
		name     string
		subjects []string
	}{{"publish", u.Publish}, {"subscribe", u.Subscribe}} {
		if len(p.subjects) > 0 {
			line("        %s: { allow: %s }", p.name, quoteAll(p.subjects))
		} else {
			// An empty allow list would mean all.
			line("        %s: { deny: [\">\"] }", p.name)
		}
	}
	if u.AllowResponses {
		line("        allow_responses: true")
	}
	line("      } }")
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = DefaultHost
	}
	if c.MaxMemory == 0 {
		c.MaxMemory = DefaultMaxMemory
	}
	if c.MaxStore == 0 {
		c.MaxStore = DefaultMaxStore
	}
	c.Users = append([]User(nil), c.Users...)
	for i := range c.Users {
		if c.Users[i].Outside {
			c.Users[i].Account = OutsidePrefix + c.Users[i].Name
		} else if c.Users[i].Account == "" {
			c.Users[i].Account = App
		}
	}
	return c
}

// quote writes a string of the server's config language, in which only \ and " need escaping
// once control characters are refused.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func quoteAll(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
