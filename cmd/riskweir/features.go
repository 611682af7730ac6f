package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/internal/trainer"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const featuresHelp = `Write what events remember of those before them, as CSV: the very numbers that scorers and the trainer read.

Of the rows of a file, as if they had come as events in this order; or of the events of a kind.

Examples:

  riskweir features ratings.csv --contract otc.yaml > features.csv
  riskweir features --kind otc --from 1 --to 5000 --context riskweir`

func (a *app) features(cmd *fisk.CmdClause) {
	var connect service.Connection
	var file, contract, kind string
	var from, to uint64
	var o source.Options
	connect.Flags(cmd)
	cmd.Arg("file", "CSV, ARFF or blank-separated, gzip too").StringVar(&file)
	cmd.Flag("contract", "Contract of the file's rows (YAML)").PlaceHolder("FILE").StringVar(&contract)
	cmd.Flag("kind", "Kind whose events are meant").PlaceHolder("KIND").StringVar(&kind)
	cmd.Flag("from", "First sequence in EVENTS").Default("1").Uint64Var(&from)
	cmd.Flag("to", "Last sequence in EVENTS; the last there is by default").Uint64Var(&to)
	var known trainer.FileLabels
	labelFlags(cmd, &known)
	command.FileFlags(cmd, &o)
	a.run(cmd, func(ctx context.Context) error {
		switch {
		case (file == "") == (kind == ""):
			return errors.New("say of what: a file, or --kind")
		case file != "" && contract == "":
			return errors.New("say what the file's rows are: --contract")
		case file != "":
			c, err := readContract(contract)
			if err != nil {
				return err
			}
			invalid, first, err := trainer.FileFeatures(ctx, file, o, c, known, a.out)
			if invalid > 0 {
				fmt.Fprintf(a.err, "%d rows are invalid or repeat another, and leave no trace; the first: %v\n", invalid, first)
			}
			return err
		case events.CheckKind(kind) != nil:
			return events.CheckKind(kind)
		}
		if to == 0 {
			to = ^uint64(0)
		}
		return a.operation(ctx, connect, func(js natsjs.JetStream) error { return a.eventFeatures(ctx, js, kind, from, to) })
	})
}

// labelFlags say when a file's labels became known, for memory that is taken of them.
func labelFlags(cmd *fisk.CmdClause, known *trainer.FileLabels) {
	after := cmd.Flag("label-after", "A row's label becomes known to later ones so long after it, such as 30d; the contract's maturity by default").PlaceHolder("AGE")
	after.SetValue((*age)(&known.After))
	cmd.Flag("label-time", "Or at the time in this column; never, where it is empty").PlaceHolder("COL").StringVar(&known.Column)
}

// age is a flag that is a duration as contracts write it.
type age time.Duration

func (a *age) Set(text string) error {
	d, err := events.ParseDuration(text)
	*a = age(d)
	return err
}

func (a *age) String() string { return events.Duration(*a).String() }

func (a *app) eventFeatures(ctx context.Context, js natsjs.JetStream, kind string, from, to uint64) error {
	declared, err := topology.ReadKind(ctx, js, kind)
	if err != nil {
		return err
	}
	schema, err := events.Compile(declared.Contract)
	if err != nil {
		return err
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		return err
	}
	if plan == nil {
		return fmt.Errorf("the contract of %s declares no memory", kind)
	}
	b := bufio.NewWriter(a.out)
	w := trainer.NewFeatureWriter(b, "seq", plan)
	note := func(err error) { fmt.Fprintln(a.err, err) }
	err = recall.Walk(ctx, js, plan, from, to, note, func(s recall.Seen) error {
		if s.Verdict.Repeated() {
			return nil // it has none
		}
		return w.Write(s.Seq, string(s.Event.Record.ID), string(s.Event.Entity), s.Features)
	})
	return errors.Join(err, w.Flush(), b.Flush())
}
