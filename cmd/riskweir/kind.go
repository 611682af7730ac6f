package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func (a *app) kindVerbs(cmd *fisk.CmdClause) {
	var connect service.Connection
	connect.Flags(cmd)
	a.kindInfer(cmd)
	a.kindApply(cmd, &connect)

	list := cmd.Command("list", "List the declared kinds.\n\nExample: riskweir kind list --context riskweir").Alias("ls")
	a.run(list, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			kinds, err := topology.Kinds(ctx, js)
			for _, k := range kinds {
				c := k.Contract
				fmt.Fprintf(a.out, "%-20s version %d, %d fields, %d lanes, events %s, scores %s  %s\n", c.Kind, c.Version, len(c.Fields), c.Lanes, c.Retention.Events, c.Retention.Scores, c.Description)
			}
			return err
		})
	})
	var name string
	show := cmd.Command("show", "Print a kind's contract.\n\nExample: riskweir kind show payment > payment.yaml")
	show.Arg("kind", "Kind").Required().StringVar(&name)
	a.run(show, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			if _, err := oneKind(ctx, js, name); err != nil {
				return err
			}
			k, err := topology.ReadKind(ctx, js, name)
			if err != nil {
				return err
			}
			text, err := k.Contract.YAML()
			if err != nil {
				return err
			}
			_, err = a.out.Write(text)
			return err
		})
	})
	var file string
	diff := cmd.Command("diff", "Say how a contract differs from the declared one.\n\nExit status: 0 not at all, 1 it does.\n\nExample: riskweir kind diff payment.yaml")
	diff.Arg("file", "Contract, YAML").Required().StringVar(&file)
	a.run(diff, func(ctx context.Context) error {
		next, err := readContract(file)
		if err != nil {
			return err
		}
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			if _, err := oneKind(ctx, js, next.Kind); err != nil {
				return err
			}
			k, err := topology.ReadKind(ctx, js, next.Kind)
			if err != nil {
				return err
			}
			lines := events.DiffContracts(k.Contract, next)
			for _, l := range lines {
				fmt.Fprintln(a.out, l)
			}
			if len(lines) > 0 {
				return errBroken
			}
			return nil
		})
	})
}

func (a *app) kindInfer(cmd *fisk.CmdClause) {
	var f inferFlags
	var file string
	infer := cmd.Command("infer", `Make a first contract from a file, to be read and corrected. What to look at is said on stderr.

Examples:

  riskweir kind infer loans.csv --label default > loan.yaml
  riskweir kind infer loans.csv --label status --positive bad --categorical branch > loan.yaml`)
	infer.Arg("file", "CSV, JSON lines or ARFF, gzip too").Required().StringVar(&file)
	infer.Flag("kind", "Name of the kind; from the file's name by default").StringVar(&f.kind)
	f.flags(infer)
	command.FileFlags(infer, &f.format)
	a.run(infer, func(context.Context) error {
		c, notes, err := inferFile(file, f)
		if err != nil {
			return err
		}
		for _, n := range notes {
			fmt.Fprintln(a.err, "note:", n)
		}
		text, err := c.YAML()
		if err != nil {
			return err
		}
		_, err = a.out.Write(text)
		return err
	})
}

// flags are what data cannot say of itself.
func (f *inferFlags) flags(cmd command.Flags) {
	cmd.Flag("label", "Column of the label").PlaceHolder("COL").StringVar(&f.options.Label)
	cmd.Flag("positive", "Label value that means the bad outcome; may be repeated").PlaceHolder("VALUE").StringsVar(&f.options.Positive)
	cmd.Flag("id", "Column of the id").PlaceHolder("COL").StringVar(&f.options.ID)
	cmd.Flag("entity", "Column that names the entity").PlaceHolder("COL").StringVar(&f.options.Entity)
	cmd.Flag("time", "Column of the event's time").PlaceHolder("COL").StringVar(&f.options.Time)
	cmd.Flag("categorical", "Columns of codes: categories though they look like numbers").PlaceHolder("A,B,...").SetValue(command.List(&f.options.Categorical))
}

func readContract(file string) (events.Contract, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return events.Contract{}, err
	}
	c, err := events.ParseContract(text)
	if err != nil {
		return c, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func (a *app) kindApply(cmd *fisk.CmdClause, connect *service.Connection) {
	var file string
	var replicas int
	apply := cmd.Command("apply", `Declare a kind, or bring it up to a newer version of its contract.

Adding a field is compatible. Removing or retyping one that a serving model reads is refused, and so is another number
of lanes.

Example: riskweir kind apply payment.yaml --context prod`)
	apply.Arg("file", "Contract, YAML").Required().StringVar(&file)
	apply.Flag("replicas", "Copies of its streams: as the other streams by default").IntVar(&replicas)
	a.run(apply, func(ctx context.Context) error {
		c, err := readContract(file)
		if err != nil {
			return err
		}
		act := audit.Action{What: apply.FullCommand(), Kind: c.Kind, About: fmt.Sprintf("%s version %d", c.Kind, c.Version)}
		return a.founds(ctx, *connect, act, topology.Options{Replicas: replicas}, func(js natsjs.JetStream, o topology.Options, on *audit.Entry) error {
			if _, err := topology.ApplyShared(ctx, js, o); err != nil {
				return err
			}
			o.Reads = func(ctx context.Context, kind string) (func(field string) bool, error) {
				return servingReads(ctx, js, kind)
			}
			before, err := topology.ReadKind(ctx, js, c.Kind)
			if err == nil {
				on.Before(versionOf(before))
			}
			done, err := topology.ApplyKind(ctx, js, c, o)
			if err != nil {
				return err
			}
			after := versionOf(done.Kind)
			if after.Streams = changed(done.Changes); before.Contract.Kind != "" {
				after.Differences = events.DiffContracts(before.Contract, c)
			}
			on.After(after)
			for _, change := range done.Changes {
				fmt.Fprintln(a.out, change)
			}
			what := "is as it was"
			if done.Declared {
				what = "is declared"
			}
			fmt.Fprintf(a.out, "kind %s version %d %s: publish to events.%s.<entity>\n", c.Kind, c.Version, what, c.Kind)
			return nil
		})
	})
}

// contractVersion is a contract on record: KINDS has its text, under the revision.
type contractVersion struct {
	Version     int      `json:"version"`
	Revision    uint64   `json:"revision"`
	Differences []string `json:"differences,omitempty"`
	Streams     []string `json:"streams,omitempty"` // what was changed of them
}

func versionOf(k topology.Kind) contractVersion {
	return contractVersion{Version: k.Contract.Version, Revision: k.Revision}
}

// servingReads says which fields the serving model of a kind reads.
func servingReads(ctx context.Context, js natsjs.JetStream, kind string) (func(field string) bool, error) {
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	registry := model.NewRegistry(kv)
	rollout, _, err := registry.Rollout(ctx, kind)
	if errors.Is(err, natsjs.ErrKeyNotFound) || err == nil && rollout.Champion == 0 {
		return func(string) bool { return false }, nil
	}
	if err != nil {
		return nil, err
	}
	artifact, err := registry.Get(ctx, kind, rollout.Champion)
	if err != nil {
		return nil, err
	}
	fields := map[string]bool{}
	for _, f := range artifact.Spec.Fields {
		fields[f.Field] = true
	}
	return func(field string) bool { return fields[field] }, nil
}
