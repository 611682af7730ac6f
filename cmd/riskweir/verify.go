package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/internal/verify"
	topology "github.com/riskweir/riskweir/jetstream"
)

const verifyHelp = `Check that every event has exactly one outcome, in order.

It reads both streams of the kind and trusts no position. Exit status: 0 as it should be, 1 something is missing,
doubled or out of order (the first twenty are named by their sequence), 2 it could not be checked.

Examples:

  riskweir verify payment --context riskweir
  riskweir verify loan --source loans.csv --context riskweir`

func (a *app) verify(cmd *fisk.CmdClause) {
	var connect service.Connection
	var kind, file, name string
	var format source.Options
	var wait time.Duration
	var asJSON bool
	connect.Flags(cmd)
	cmd.Arg("kind", "Kind to check; the only one, if there is one").StringVar(&kind)
	cmd.Flag("source", "Also check that every row of this file has one outcome, by its id").PlaceHolder("FILE").StringVar(&file)
	cmd.Flag("source-name", "Name under which the file was ingested; the file's name by default").PlaceHolder("NAME").StringVar(&name)
	command.FileFlags(cmd, &format)
	cmd.Flag("wait", "How long to wait for outcomes of events that are there already").Default("30s").DurationVar(&wait)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		js, done, err := operate(ctx, connect)
		if err != nil {
			return err
		}
		defer done()
		if kind, err = oneKind(ctx, js, kind); err != nil {
			return err
		}
		cfg := verify.Config{JS: js, Kind: kind, Wait: wait}
		if file != "" {
			declared, err := topology.ReadKind(ctx, js, kind)
			if err != nil {
				return err
			}
			if cfg.Source, err = sourceIDs(file, format, declared.Contract, name); err != nil {
				return err
			}
		}
		report, err := verify.Run(ctx, cfg)
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(a.out)
			enc.SetIndent("", "  ")
			if err := enc.Encode(report); err != nil {
				return err
			}
		} else {
			fmt.Fprintln(a.out, report)
			for _, o := range report.Offenders {
				fmt.Fprintln(a.out, " ", o)
			}
			if found := defects(report); found > uint64(len(report.Offenders)) {
				fmt.Fprintf(a.out, "  ... and %d more\n", found-uint64(len(report.Offenders)))
			}
		}
		if !report.OK() {
			return errBroken
		}
		return nil
	})
}

func defects(r verify.Report) uint64 {
	n := r.Missing + r.Duplicate + r.Disorder + r.Unknown + r.Misnamed + r.Unlike + r.Unnoticed + r.Untrue
	if r.Source != nil {
		n += r.Source.Missing + r.Source.Duplicate
	}
	return n
}

// operate connects an operator's command.
func operate(ctx context.Context, c service.Connection) (natsjs.JetStream, func(), error) {
	c.Name, c.Timeout = "riskweir-cli", 10*time.Second
	if c.Inbox == "" && c.Context == "" {
		c.Inbox = topology.InboxPrefix(topology.RoleOperator)
	}
	conn, err := c.Connect(ctx, zap.NewNop())
	if err != nil {
		return nil, nil, err
	}
	js, err := natsjs.New(conn)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return js, conn.Close, nil
}

// oneKind returns kind, which must be declared, or, if it is empty, the only one that is.
func oneKind(ctx context.Context, js natsjs.JetStream, kind string) (string, error) {
	kinds, err := topology.Kinds(ctx, js)
	if err != nil {
		return "", err
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Contract.Kind
	}
	switch {
	case slices.Contains(names, kind):
		return kind, nil
	case len(names) == 0:
		return "", errors.New("no kind is declared yet: riskweir kind infer FILE, then riskweir kind apply")
	case kind != "":
		return "", fmt.Errorf("kind %s is not declared; declared: %s", kind, strings.Join(names, ", "))
	case len(names) > 1:
		return "", fmt.Errorf("say which kind: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}
