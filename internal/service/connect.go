// Package service holds what every process of Riskweir does alike: connecting, logging, metrics, health, the
// heartbeat, the micro endpoint and the stop in two stages. It is a few functions, not a framework.
package service

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats.go"
	"github.com/synadia-io/orbit.go/natscontext"
	"go.uber.org/zap"
)

// Connection says how to reach a cluster, by the conventions of the nats CLI.
type Connection struct {
	Servers string // comma separated URLs
	Context string // name of a nats context; Servers wins over its URL
	Creds   string // file
	NKey    string // seed file
	TLSCert string
	TLSKey  string
	TLSCA   string
	First   bool          // TLS before the server has said a word
	Name    string        // as shown by 'nats server report connections'
	Inbox   string        // prefix of its own, so that no other service can read its answers
	Timeout time.Duration // of the first connection; zero: keep trying
}

// DefaultServers is where 'riskweir up' and nats-server listen when nothing else is said.
const DefaultServers = "nats://127.0.0.1:4222"

// Flags adds the connection's flags to a command.
func (c *Connection) Flags(cmd interface {
	Flag(name, help string) *fisk.FlagClause
}) {
	cmd.Flag("nats", "NATS server URLs, comma separated").PlaceHolder("URL").Envar("NATS_URL").StringVar(&c.Servers)
	cmd.Flag("context", "NATS context to connect by").Envar("NATS_CONTEXT").StringVar(&c.Context)
	cmd.Flag("creds", "Credentials file").PlaceHolder("FILE").Envar("NATS_CREDS").StringVar(&c.Creds)
	cmd.Flag("nkey", "NKey seed file").PlaceHolder("FILE").Envar("NATS_NKEY").StringVar(&c.NKey)
	cmd.Flag("tlscert", "TLS client certificate").PlaceHolder("FILE").Envar("NATS_CERT").StringVar(&c.TLSCert)
	cmd.Flag("tlskey", "TLS client key").PlaceHolder("FILE").Envar("NATS_KEY").StringVar(&c.TLSKey)
	cmd.Flag("tlsca", "TLS certificate authority").PlaceHolder("FILE").Envar("NATS_CA").StringVar(&c.TLSCA)
	cmd.Flag("tlsfirst", "TLS handshake before the server says a word").Envar("NATS_TLS_FIRST").BoolVar(&c.First)
}

// Connect returns a connection that looks for a server for ever: a service must outlive its cluster. A stopped node
// keeps its TCP connections open for minutes, so that two unanswered pings in two seconds end one. While it
// is away nothing is buffered: a publish fails, and the caller knows.
func (c Connection) Connect(ctx context.Context, log *zap.Logger) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(c.Name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		nats.ReconnectBufSize(-1),
		nats.PingInterval(time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(2 * time.Second),
		nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			if sub != nil {
				log.Warn("nats", zap.Error(err), zap.String("subject", sub.Subject))
				return
			}
			log.Warn("nats", zap.Error(err))
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { log.Info("disconnected", zap.Error(err)) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("reconnected", zap.String("server", nc.ConnectedServerName())) }),
	}
	if c.Inbox != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.Inbox))
	}
	if c.Creds != "" {
		opts = append(opts, nats.UserCredentials(c.Creds))
	}
	if c.NKey != "" {
		o, err := nats.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey seed %s: %w", c.NKey, err)
		}
		opts = append(opts, o)
	}
	if c.TLSCA != "" {
		opts = append(opts, nats.RootCAs(c.TLSCA))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, errors.New("--tlscert and --tlskey go together")
	}
	if c.TLSCert != "" {
		opts = append(opts, nats.ClientCert(c.TLSCert, c.TLSKey))
	}
	if c.First {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	conn, err := c.dial(opts)
	if err != nil {
		return nil, err
	}
	if err := c.await(ctx, conn); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (c Connection) dial(opts []nats.Option) (*nats.Conn, error) {
	if c.Context != "" {
		if c.Servers != "" {
			opts = append(opts, func(o *nats.Options) error {
				o.Servers = strings.FieldsFunc(c.Servers, func(r rune) bool { return r == ',' || r == ' ' })
				return nil
			})
		}
		conn, _, err := natscontext.Connect(c.Context, opts...)
		if err != nil {
			return nil, fmt.Errorf("nats context %s: %w", c.Context, err)
		}
		return conn, nil
	}
	servers := c.Servers
	if servers == "" {
		servers = DefaultServers
	}
	conn, err := nats.Connect(servers, opts...)
	if malformed, ok := errors.AsType[*url.Error](err); ok {
		err = malformed.Err // without the URL, which may hold a password
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", redact(servers), err)
	}
	return conn, nil
}

// await waits for the first connection.
func (c Connection) await(ctx context.Context, conn *nats.Conn) error {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	if conn.IsConnected() {
		return nil
	}
	ready := conn.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer conn.RemoveStatusListener(ready)
	tick := time.NewTicker(50 * time.Millisecond) // it may have connected before we listened
	defer tick.Stop()
	for !conn.IsConnected() {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err() // whoever is told to stop has nothing to mend
			}
			return c.refusal(conn)
		case <-ready:
		case <-tick.C:
		}
		if conn.IsClosed() {
			return c.refusal(conn)
		}
	}
	return nil
}

// refusal is why conn never connected, as far as can be told.
func (c Connection) refusal(conn *nats.Conn) error {
	servers, last := redact(strings.Join(conn.Servers(), ",")), conn.LastError()
	switch {
	case last == nil:
		return fmt.Errorf("connect to %s: no server answered: is it running, and is the address right?", servers)
	case errors.Is(last, nats.ErrAuthorization) && c.Context == "" && c.Creds == "" && c.NKey == "":
		return fmt.Errorf("connect to %s: %w: say who you are: --context NAME ('riskweir up' makes the context riskweir), --creds FILE or --nkey FILE", servers, last)
	case errors.Is(last, nats.ErrAuthorization):
		return fmt.Errorf("connect to %s: %w: is the user of --nkey, --creds or --context one of this server's?", servers, last)
	}
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](last); unknown {
		return fmt.Errorf("connect to %s: %w: which authority is this server's? --tlsca FILE, or the context's ca, must be it", servers, last)
	}
	return fmt.Errorf("connect to %s: %w", servers, last)
}

// redact leaves out the user information of URLs.
func redact(servers string) string {
	parts := strings.Split(servers, ",")
	for i, p := range parts {
		scheme, rest, ok := strings.Cut(p, "://")
		if !ok {
			scheme, rest = "", p
		}
		rest = rest[strings.LastIndexByte(rest, '@')+1:]
		if ok {
			rest = scheme + "://" + rest
		}
		parts[i] = rest
	}
	return strings.Join(parts, ",")
}

// Hostname is the machine's, or "unknown".
func Hostname() string {
	if h, err := os.Hostname(); err == nil {
		return h
	}
	return "unknown"
}
