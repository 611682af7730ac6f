package main

import (
	"context"
	"fmt"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

func (a *app) laneVerbs(cmd *fisk.CmdClause) {
	var connect service.Connection
	var kind, reason string
	var lane int
	var at int64
	var force bool
	connect.Flags(cmd)
	rebase := cmd.Command("rebase", `Say where a lane goes on that has lost its position, or counts in another stream than there is now.

Events up to --at are taken as having their outcome, those after it as having none: too low doubles outcomes, too
high leaves events without one. A lane whose position is sound is left alone. 'riskweir verify' names the first event of the lane that has none.

Example: riskweir lane rebase payment 3 --at 18230 --reason "SCORES restored from Tuesday's backup"`)
	rebase.Arg("kind", "Kind").Required().StringVar(&kind)
	rebase.Arg("lane", "Lane").Required().IntVar(&lane)
	rebase.Flag("at", "Sequence in EVENTS of the last event that has its outcome").Required().Int64Var(&at)
	rebase.Flag("force", "Also where the lane's position is sound: outcomes are doubled below it, left out above it").UnNegatableBoolVar(&force)
	rebase.Flag("reason", "Why, for the audit").Required().StringVar(&reason)
	a.run(rebase, func(ctx context.Context) error {
		if at < 0 {
			return fmt.Errorf("--at %d: want a sequence, or 0 for the beginning", at)
		}
		act := audit.Action{What: rebase.FullCommand(), Kind: kind, About: fmt.Sprintf("%s lane %d", kind, lane), Reason: reason}
		return a.changes(ctx, connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
			if before, ok, err := topology.ReadPosition(ctx, js.Conn(), kind, lane); err == nil && ok {
				on.Before(before)
			}
			p, err := topology.Rebase(ctx, js, topology.RebaseRequest{Kind: kind, Lane: lane, Seq: uint64(at), By: whoami() + "@" + service.Hostname(), Reason: reason, Force: force})
			if err != nil {
				return err
			}
			on.After(p)
			fmt.Fprintf(a.out, "%s lane %d goes on after event %d, epoch %d\n", kind, lane, p.Seq, p.Epoch)
			return nil
		})
	})
}
