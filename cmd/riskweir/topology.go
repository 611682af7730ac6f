package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

// topologyVerbs are plan, apply and show.
func (a *app) topologyVerbs(cmd *fisk.CmdClause) {
	var connect service.Connection
	var replicas int
	var shorten bool
	connect.Flags(cmd)

	with := func(c *fisk.CmdClause) {
		c.Flag("replicas", "Copies of every stream: 1, 3 or 5; by default what the cluster can hold, at most 3").IntVar(&replicas)
		c.Flag("shorten", "Let limits be tightened, which deletes what they no longer cover").UnNegatableBoolVar(&shorten)
	}
	plan := cmd.Command("plan", "Say what apply would change.\n\nExit status: 0 nothing, 1 something.\n\nExample: riskweir topology plan --context prod")
	with(plan)
	a.run(plan, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			o := topology.Options{Replicas: replicas, Shorten: shorten}
			changes, err := planAll(ctx, js, o)
			if err != nil {
				return err
			}
			for _, c := range changes {
				fmt.Fprintln(a.out, c)
			}
			if len(changes) > 0 {
				return errBroken
			}
			fmt.Fprintln(a.out, "nothing to change")
			return nil
		})
	})
	apply := cmd.Command("apply", "Make or mend the streams and buckets, of all declared kinds too.\n\nIt refuses what would destroy data.\n\nExample: riskweir topology apply --context prod")
	with(apply)
	a.run(apply, func(ctx context.Context) error {
		return a.founds(ctx, connect, audit.Action{What: apply.FullCommand()}, topology.Options{Replicas: replicas, Shorten: shorten}, func(js natsjs.JetStream, o topology.Options, on *audit.Entry) error {
			changes, err := topology.ApplyShared(ctx, js, o)
			if err != nil {
				return err
			}
			kinds, err := topology.Kinds(ctx, js)
			if err != nil {
				return err
			}
			for _, k := range kinds {
				done, err := topology.ApplyKind(ctx, js, k.Contract, o)
				if err != nil {
					return err
				}
				changes = append(changes, done.Changes...)
			}
			on.After(changed(changes))
			for _, c := range changes {
				fmt.Fprintln(a.out, c)
			}
			fmt.Fprintf(a.out, "%d change(s) made\n", len(changes))
			return nil
		})
	})
	var kind string
	show := cmd.Command("show", "Print the stream configs, each usable with 'nats stream add --config'.\n\nExample: riskweir topology show payment --replicas 3")
	show.Arg("kind", "Also the streams of this kind").StringVar(&kind)
	with(show)
	a.run(show, func(ctx context.Context) error {
		if replicas == 0 {
			replicas = 3
		}
		configs, err := topology.Shared(replicas)
		if err != nil {
			return err
		}
		if kind != "" {
			err := a.operation(ctx, connect, func(js natsjs.JetStream) error {
				k, err := topology.ReadKind(ctx, js, kind)
				if err != nil {
					return err
				}
				more, err := topology.ForKind(k.Contract, replicas)
				configs = append(configs, more...)
				return err
			})
			if err != nil {
				return err
			}
		}
		enc := json.NewEncoder(a.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		for _, c := range configs {
			if err := enc.Encode(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// operation does f over an operator's connection.
func (a *app) operation(ctx context.Context, c service.Connection, f func(js natsjs.JetStream) error) error {
	js, done, err := operate(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	return f(js)
}

// changed says what was changed of streams, for the record.
func changed(changes []topology.Change) []string {
	out := make([]string, len(changes))
	for i, c := range changes {
		out[i] = c.String()
	}
	return out
}

func planAll(ctx context.Context, js natsjs.JetStream, o topology.Options) ([]topology.Change, error) {
	o, err := sized(ctx, js, o)
	if err != nil {
		return nil, err
	}
	changes, err := topology.PlanShared(ctx, js, o)
	if err != nil {
		return nil, err
	}
	kinds, err := topology.Kinds(ctx, js)
	if err != nil {
		return changes, nil // without the shared buckets there are no kinds
	}
	for _, k := range kinds {
		more, err := topology.PlanKind(ctx, js, k.Contract, o)
		if err != nil {
			return nil, err
		}
		changes = append(changes, more...)
	}
	return changes, nil
}

// sized chooses the replicas where none were asked for: as many as the streams have, or else 3, or 1 on a single node.
func sized(ctx context.Context, js natsjs.JetStream, o topology.Options) (topology.Options, error) {
	if o.Replicas != 0 {
		return o, nil
	}
	have, err := topology.Have(ctx, js, []string{"KV_KINDS"})
	if err != nil {
		return o, err
	}
	if len(have) == 1 {
		o.Replicas = have[0].Replicas
		return o, nil
	}
	o.Replicas = 1
	if js.Conn().ConnectedClusterName() != "" {
		o.Replicas = 3
	}
	return o, nil
}
