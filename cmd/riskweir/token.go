package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/access"
	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

const tokenAddHelp = `Let a caller in over HTTP, and print its token, once: only a hash of it is kept.

With --certificate it is known by the common name of its client certificate instead, which one of ingest's --http-client-ca has signed.
Every ingest knows it a second later.

Examples:

  riskweir token add shop --may score --kind payment --out shop.token
  riskweir token add warehouse --may publish,label --kind payment,loan --expires 90d
  riskweir token add core --may publish --kind payment --certificate core.example.com`

// tokenVerbs say who may call over HTTP.
func (a *app) tokenVerbs(cmd *fisk.CmdClause) {
	var connect service.Connection
	connect.Flags(cmd)
	a.tokenAdd(cmd, &connect)

	list := cmd.Command("list", "List the callers, and what they may do.\n\nExample: riskweir token list --context prod").Alias("ls")
	a.run(list, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			var unreadable []error
			book := access.NewBook(js, func(err error) { unreadable = append(unreadable, err) })
			if err := book.Load(ctx); err != nil {
				return fmt.Errorf("%w: 'riskweir topology apply' makes it if it is not there", err)
			}
			now := time.Now()
			for _, c := range book.Callers() {
				fmt.Fprintln(a.out, describe(c, now))
			}
			return errors.Join(unreadable...)
		})
	})

	var name, reason string
	revoke := cmd.Command("revoke", "Let a caller in no more; every ingest knows within two seconds.\n\nExample: riskweir token revoke shop --reason \"lost a laptop\"")
	revoke.Arg("name", "Caller").Required().StringVar(&name)
	revoke.Flag("reason", "Why, for the audit").StringVar(&reason)
	a.run(revoke, func(ctx context.Context) error {
		return a.changes(ctx, connect, audit.Action{What: revoke.FullCommand(), About: name, Reason: reason}, func(js natsjs.JetStream, on *audit.Entry) error {
			before, err := access.Revoke(ctx, js, name, time.Now())
			if err != nil {
				return err
			}
			on.Before(shown(before))
			on.After("revoked")
			fmt.Fprintf(a.out, "%s is let in no more\n", name)
			return nil
		})
	})
}

func (a *app) tokenAdd(cmd *fisk.CmdClause, connect *service.Connection) {
	var c access.Caller
	var expires, out string
	add := cmd.Command("add", tokenAddHelp)
	add.Arg("name", "Caller").Required().StringVar(&c.Name)
	add.Flag("may", "What it may do: publish, label, score").Required().PlaceHolder("A,B,...").SetValue(command.List(&c.May))
	add.Flag("kind", "With which kinds; * for all").Required().PlaceHolder("A,B,...").SetValue(command.List(&c.Kinds))
	add.Flag("certificate", "Known by the common name of its certificate").PlaceHolder("NAME").StringVar(&c.Certificate)
	add.Flag("rate", "Events and labels a second; as ingest was started by default").Float64Var(&c.Rate)
	add.Flag("expires", "After so long").PlaceHolder("DURATION").StringVar(&expires)
	add.Flag("out", "Write the token to this file, which must not be there, for its owner only").PlaceHolder("FILE").StringVar(&out)
	a.run(add, func(ctx context.Context) error {
		now := time.Now().UTC()
		c.Created, c.By = now, whoami()+"@"+service.Hostname()
		if expires != "" {
			d, err := events.ParseDuration(expires)
			if err != nil {
				return fmt.Errorf("--expires: %w", err)
			}
			c.Expires = now.Add(d)
		}
		token := ""
		if c.Certificate == "" {
			token = access.NewToken(c.Name)
			c.SHA256 = access.HashOf(token)
		}
		if err := c.Validate(); err != nil {
			return err
		}
		to, done, err := tokenOutput(a, out, token)
		if err != nil {
			return err
		}
		err = a.changes(ctx, *connect, audit.Action{What: add.FullCommand(), About: c.Name}, func(js natsjs.JetStream, on *audit.Entry) error {
			if _, err := access.Put(ctx, js, c, false); err != nil {
				return err
			}
			on.After(shown(c))
			return nil
		})
		if err != nil {
			return errors.Join(err, done(false))
		}
		if token != "" {
			if _, err := fmt.Fprintln(to, token); err != nil {
				return errors.Join(fmt.Errorf("%s is there, and its token is lost: revoke it, and add it again: %w", c.Name, err), done(true))
			}
		}
		fmt.Fprintln(a.err, describe(c, now))
		return done(true)
	})
}

// tokenOutput is where the token goes; done(false) takes the file back.
func tokenOutput(a *app, file, token string) (to interface{ Write([]byte) (int, error) }, done func(ok bool) error, err error) {
	if file == "" || token == "" {
		return a.out, func(bool) error { return nil }, nil
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("--out: %w", err)
	}
	return f, func(ok bool) error {
		err := f.Close()
		if !ok {
			err = errors.Join(err, os.Remove(file))
		}
		return err
	}, nil
}

// shown is a caller on record: of its token nothing.
func shown(c access.Caller) access.Caller {
	c.SHA256 = ""
	return c
}

func describe(c access.Caller, now time.Time) string {
	by := "token"
	if c.Certificate != "" {
		by = "certificate " + c.Certificate
	}
	s := fmt.Sprintf("%-20s %-8s may %s  kinds %s  by %s  made %s by %s", c.Name, c.State(now), strings.Join(c.May, ","), strings.Join(c.Kinds, ","), by, c.Created.UTC().Format(time.DateOnly), c.By)
	if c.Rate > 0 {
		s += fmt.Sprintf("  %v a second", c.Rate)
	}
	if !c.Expires.IsZero() {
		s += "  expires " + c.Expires.UTC().Format(time.RFC3339)
	}
	return oneLine(s)
}
