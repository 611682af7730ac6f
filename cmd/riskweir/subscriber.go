package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

const subscriberAddHelp = `Let a party read the outcomes that a filter takes in, and nothing else.

It gets a durable consumer on SCORES, sub-NAME, and a NATS user of its own that may read that consumer, and the same filter live. A system
of 'riskweir up' is found by the connection's key, or named by --dir; its nodes know the user within seconds, and FILE is its nkey seed. Elsewhere users
are made by whoever makes them there: what is printed says how, with the nats CLI.

It may be repeated.

Examples:

  riskweir subscriber add casework --filter 'scores.payment.high.*' --creds casework.nk --context riskweir
  riskweir subscriber add casework --filter 'scores.payment.high.*' --creds casework.creds --context prod --account RISK`

type subscriberVerbs struct {
	*app
	connect                   service.Connection
	dir                       string
	name, kind, filter, creds string
	account                   string
	fromStart                 bool
}

func (a *app) subscriberVerbs(cmd *fisk.CmdClause) {
	v := &subscriberVerbs{app: a}
	v.connect.Flags(aside{cmd})
	cmd.Flag("dir", "Data directory of the 'riskweir up' that the connection is to; found by its key").PlaceHolder("DIR").StringVar(&v.dir)
	add := cmd.Command("add", subscriberAddHelp)
	add.Arg("name", "Name of the party").Required().StringVar(&v.name)
	add.Flag("filter", "What it reads: scores.<kind>.<band>.<entity>, with * for any").Required().PlaceHolder("SUBJECT").StringVar(&v.filter)
	add.Flag("creds", "Where its secret goes, to be handed over").Required().PlaceHolder("FILE").StringVar(&v.creds)
	add.Flag("from-start", "Begin with the oldest outcome kept, not with the next").UnNegatableBoolVar(&v.fromStart)
	add.Flag("account", "Account of the user, for the commands that are printed").Default("RISK").StringVar(&v.account)
	a.run(add, func(ctx context.Context) error {
		s, err := topology.NewSubscriber(v.name, v.filter)
		if err != nil {
			return err
		}
		act := audit.Action{What: add.FullCommand(), Kind: s.Kind, About: s.Name}
		return a.changes(ctx, v.connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
			on.After(s)
			return v.add(ctx, js, s)
		})
	})
	list := cmd.Command("list", "List subscribers with what they read and how far they are.\n\nExample: riskweir subscriber list --context riskweir")
	a.run(list, func(ctx context.Context) error { return a.operation(ctx, v.connect, v.list(ctx)) })
	remove := cmd.Command("remove", "Take a subscriber's right away, and its consumer.\n\nExample: riskweir subscriber remove casework --kind payment --context riskweir")
	remove.Arg("name", "Name of the party").Required().StringVar(&v.name)
	remove.Flag("kind", "Kind that it reads").Required().StringVar(&v.kind)
	a.run(remove, func(ctx context.Context) error {
		s, err := topology.NewSubscriber(v.name, "scores."+v.kind+".>")
		if err != nil {
			return err
		}
		act := audit.Action{What: remove.FullCommand(), Kind: s.Kind, About: s.Name}
		return a.changes(ctx, v.connect, act, func(js natsjs.JetStream, _ *audit.Entry) error { return v.remove(ctx, js, s) })
	})
}

// aside makes room for another flag called creds.
type aside struct{ *fisk.CmdClause }

func (c aside) Flag(name, help string) *fisk.FlagClause {
	if name == "creds" {
		name, help = "operator-creds", "Credentials file of the operator"
	}
	return c.CmdClause.Flag(name, help)
}

// usersDir is where a system of 'up' looks for users; empty: the connection is to none.
func (v *subscriberVerbs) usersDir() (string, error) {
	dir := v.dir
	if dir == "" {
		seed := seedOf(v.connect)
		if seed == "" {
			return "", nil
		}
		dir = filepath.Dir(filepath.Dir(seed))
	}
	if _, err := os.Stat(filepath.Join(dir, "riskweir.json")); err != nil {
		if v.dir == "" {
			return "", nil
		}
		return "", fmt.Errorf("--dir %s holds no system of 'riskweir up': %w", dir, err)
	}
	return filepath.Join(dir, usersSubdir), nil
}

// add makes the secret, the consumer and last the user. Who dies before the last step has given nobody a right, and repeats.
func (v *subscriberVerbs) add(ctx context.Context, js natsjs.JetStream, s topology.Subscriber) error {
	users, err := v.usersDir()
	if err != nil {
		return err
	}
	if users == "" {
		if err := topology.AddSubscriber(ctx, js, s, v.fromStart); err != nil {
			return err
		}
		fmt.Fprintf(v.out, "consumer  %s on SCORES_%s reads %s\n\nThe user, where operators and JWT are in use:\n\n  %s\n\n", s.User(), s.Kind, s.Filter, natsAuth(s.Role(), v.account, v.creds))
		return v.howToRead(s, v.connect, "--creds")
	}
	public, err := secretIn(v.creds)
	if err != nil {
		return err
	}
	if err := topology.AddSubscriber(ctx, js, s, v.fromStart); err != nil {
		return err
	}
	if err := os.MkdirAll(users, 0o700); err != nil {
		return fmt.Errorf("users: %w", err)
	}
	role := s.Role()
	if err := writeJSON(filepath.Join(users, s.User()+".json"), embedded.User{
		Name: role.Name, PublicKey: public, Publish: role.Publish, Subscribe: role.Subscribe, Outside: role.Outside,
	}); err != nil {
		return fmt.Errorf("users: %w", err)
	}
	as := service.Connection{
		Servers: strings.Join(js.Conn().Servers(), ","), NKey: v.creds, Inbox: topology.InboxPrefix(s.User()), Name: "riskweir-subscriber-add",
		TLSCA: v.connect.TLSCA, TLSCert: v.connect.TLSCert, TLSKey: v.connect.TLSKey, First: v.connect.First,
	}
	if as.TLSCA == "" && strings.HasPrefix(as.Servers, "tls://") {
		as.TLSCA = filepath.Join(filepath.Dir(users), tlsSubdir, "ca.pem")
	}
	if err := knows(ctx, as); err != nil {
		return fmt.Errorf("subscriber %s: its user is written, and the nodes do not know it yet: is %s the directory of this system? %w", s.Name, filepath.Dir(users), err)
	}
	fmt.Fprintf(v.out, "consumer  %s on SCORES_%s reads %s\nsecret    %s\n\n", s.User(), s.Kind, s.Filter, v.creds)
	return v.howToRead(s, as, "--nkey")
}

// howToRead prints what the party types.
func (v *subscriberVerbs) howToRead(s topology.Subscriber, as service.Connection, flag string) error {
	server := as.Servers
	if server == "" {
		server = "URL"
	}
	tls := ""
	if as.TLSCA != "" {
		tls = " --tlsca " + as.TLSCA
	}
	_, err := fmt.Fprintf(v.out, "It reads\n\n  nats --server %s%s %s %s --inbox-prefix %s consumer next SCORES_%s %s\n",
		server, tls, flag, v.creds, topology.InboxPrefix(s.User()), s.Kind, s.User())
	return err
}

// reloadWithin is how long a node may take to know a user. It looks every second.
const reloadWithin = 15 * time.Second

// knows returns when the nodes let the user in.
func knows(ctx context.Context, as service.Connection) error {
	as.Timeout = time.Second
	for end := time.Now().Add(reloadWithin); ; {
		conn, err := as.Connect(ctx, zap.NewNop())
		if err == nil {
			conn.Close()
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// secretIn makes an nkey seed in a file, or takes the one that is there, and returns its public key.
func secretIn(file string) (public string, err error) {
	seed, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		pair, err := nkeys.CreateUser()
		if err != nil {
			return "", fmt.Errorf("--creds: %w", err)
		}
		if seed, err = pair.Seed(); err != nil {
			return "", fmt.Errorf("--creds: %w", err)
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return "", fmt.Errorf("--creds: %w", err)
		}
		_, err = f.Write(append(seed, '\n'))
		if err := errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("--creds: %w", err)
		}
	} else if err != nil {
		return "", fmt.Errorf("--creds: %w", err)
	}
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err == nil {
		public, err = pair.PublicKey()
	}
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return "", fmt.Errorf("--creds %s: there is a file, and it is no nkey seed of a user: name another", file)
	}
	return public, nil
}

func (v *subscriberVerbs) list(ctx context.Context) func(natsjs.JetStream) error {
	return func(js natsjs.JetStream) error {
		all, err := topology.Subscribers(ctx, js)
		if err != nil {
			return err
		}
		fmt.Fprintf(v.out, "%-24s %-32s %10s %10s\n", "subscriber", "reads", "waiting", "under way")
		for _, s := range all {
			fmt.Fprintf(v.out, "%-24s %-32s %10d %10d\n", s.Name, s.Filter, s.Waiting, s.UnderWay)
		}
		return nil
	}
}

// remove takes the right away first.
func (v *subscriberVerbs) remove(ctx context.Context, js natsjs.JetStream, s topology.Subscriber) error {
	users, err := v.usersDir()
	if err != nil {
		return err
	}
	if users != "" {
		if err := os.Remove(filepath.Join(users, s.User()+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("users: %w", err)
		}
	}
	if err := topology.RemoveSubscriber(ctx, js, s); err != nil {
		return err
	}
	fmt.Fprintf(v.out, "%s is removed\n", s.Name)
	if users == "" {
		fmt.Fprintf(v.out, "its user is not, where operators and JWT are in use: nats auth user rm %s ACCOUNT --revoke\n", s.User())
	}
	return nil
}
