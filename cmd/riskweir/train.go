package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/trainer"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const trainHelp = `Train on a file, with the code that the trainer service trains with, and say how good it is.

With --publish the model becomes a version of the kind, and with --promote the one in force.

Examples:

  riskweir train loans.csv --label default --split time80
  riskweir train german.data --label c21 --positive 2 --split mod5 --json
  riskweir train loans.csv --contract loan.yaml --split time80 --publish --promote --context riskweir`

func (a *app) train(cmd *fisk.CmdClause) {
	var connect service.Connection
	var keys command.Keys
	cfg := trainer.OfflineConfig{}
	var encoding, contract, predictions string
	var asJSON, publish, promote, single bool
	connect.Flags(cmd)
	cmd.Arg("file", "CSV, ARFF or blank-separated, gzip too").Required().StringVar(&cfg.Path)
	cmd.Flag("label", "Column of the outcome").PlaceHolder("COL").StringVar(&cfg.Label)
	cmd.Flag("positive", "Label value that means the bad outcome; may be repeated").PlaceHolder("VALUE").StringsVar(&cfg.Positive)
	cmd.Flag("contract", "Contract that says which columns are read (YAML); found out from the file by default").PlaceHolder("FILE").StringVar(&contract)
	cmd.Flag("drop", "Columns to leave out").PlaceHolder("A,B,...").SetValue(command.List(&cfg.Drop))
	cmd.Flag("categorical", "Columns of codes: categories though they look like numbers").PlaceHolder("A,B,...").SetValue(command.List(&cfg.Categorical))
	cmd.Flag("missing", "Text that means no value in a column; may be repeated").PlaceHolder("COL=TEXT").StringsVar(&cfg.Missing)
	cmd.Flag("protected", "Columns that no model may read").PlaceHolder("A,B,...").SetValue(command.List(&cfg.Protected))
	cmd.Flag("time", "Column of the event's time").PlaceHolder("COL").StringVar(&cfg.Time)
	cmd.Flag("zone", "IANA zone in which parts of a date are taken").PlaceHolder("ZONE").StringVar(&cfg.Zone)
	cmd.Flag("order-by", "Order of the rows before the split: COL, COL=v1|v2|... or ~COL for a fixed shuffle").PlaceHolder("A,B,...").SetValue(command.List(&cfg.OrderBy))
	cmd.Flag("split", "mod5: every fifth row is test; time80: the last fifth is").Default(trainer.SplitTime80).EnumVar(&cfg.Split, trainer.SplitMod5, trainer.SplitTime80)
	cmd.Flag("encoding", "plain, asinh (against wild tails), or auto: by column").Default("auto").EnumVar(&encoding, "plain", "asinh", "auto")
	cmd.Flag("no-time", "Leave the event's own time out of the inputs: its hour, weekday, month").UnNegatableBoolVar(&cfg.Features.NoTime)
	cmd.Flag("single", "One regression, without the other members of an ensemble").UnNegatableBoolVar(&single)
	cmd.Flag("scorecard", "A scorecard (YAML) that is one of the members").PlaceHolder("FILE").StringVar(&cfg.Card)
	cmd.Flag("predictions", "Write the test rows' probabilities to this file (CSV)").PlaceHolder("FILE").StringVar(&predictions)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&asJSON)
	cmd.Flag("publish", "Publish the model as a version of the contract's kind").UnNegatableBoolVar(&publish)
	cmd.Flag("promote", "Put the published version in force").UnNegatableBoolVar(&promote)
	keys.SigningFlags(cmd)
	labelFlags(cmd, &cfg.Known)
	command.FileFlags(cmd, &cfg.Source)
	a.run(cmd, func(ctx context.Context) error {
		switch {
		case promote && !publish:
			return errors.New("--promote goes with --publish")
		case publish && contract == "":
			return errors.New("--publish needs --contract: the model must read what the kind's events hold")
		case single && cfg.Card != "":
			return errors.New("--scorecard is a member beside the regression: leave out --single")
		}
		var signer *model.Signer
		if publish { // before the work, not after it
			keysBeside(&keys, connect)
			var err error
			if signer, _, err = keys.Signer(); err != nil {
				return err
			}
		}
		if contract != "" {
			c, err := readContract(contract)
			if err != nil {
				return err
			}
			cfg.Contract = &c
		}
		if err := setEncoding(&cfg, encoding); err != nil {
			return err
		}
		cfg.Members = !single
		report, err := trainer.Offline(ctx, cfg)
		if err != nil {
			return err
		}
		if asJSON {
			enc := json.NewEncoder(a.out)
			enc.SetIndent("", "  ")
			err = enc.Encode(report)
		} else {
			err = report.WriteText(a.out)
		}
		if err != nil {
			return err
		}
		if predictions != "" {
			if err := writePredictions(predictions, report); err != nil {
				return err
			}
		}
		if !publish {
			return nil
		}
		act := audit.Action{What: cmd.FullCommand(), Kind: report.Contract.Kind}
		return a.changes(ctx, connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
			return a.publishModel(ctx, js, on, signer, report, promote)
		})
	})
}

func writePredictions(file string, report trainer.Report) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("predictions: %w", err)
	}
	return errors.Join(report.WritePredictions(f), f.Close())
}

// publishModel gives the registry a version. If we die before it is promoted, it is there and not in force.
func (a *app) publishModel(ctx context.Context, js natsjs.JetStream, on *audit.Entry, signer *model.Signer, report trainer.Report, promote bool) error {
	kind := report.Contract.Kind
	declared, err := topology.ReadKind(ctx, js, kind)
	if err != nil {
		return err
	}
	schema, err := events.Compile(declared.Contract)
	if err != nil {
		return err
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	registry := model.NewRegistry(kv).Keyed(signer, nil)
	rollout, _, err := registry.Rollout(ctx, kind)
	if err != nil && !errors.Is(err, natsjs.ErrKeyNotFound) {
		return err
	}
	by := "unknown"
	if u, err := user.Current(); err == nil {
		by = u.Username
	}
	artifact := report.Fit.Artifact(kind, by, time.Now(), rollout.Champion,
		model.ContractRef{Version: declared.Contract.Version, Revision: declared.Revision},
		model.Training{Rows: report.Train.N, Positives: report.Train.Positives})
	version, err := registry.PublishFit(ctx, schema, artifact)
	if err != nil {
		return err
	}
	on.About(model.Name(kind, version))
	on.Before(rollout)
	on.After(map[string]any{"published": model.Name(kind, version), "promoted": false})
	fmt.Fprintf(a.out, "published %s\n", model.Name(kind, version))
	if !promote {
		return nil
	}
	if _, err := registry.PromoteFit(ctx, model.Switch{Schema: schema, By: by, Reason: "riskweir train --promote"}, version); err != nil {
		return advised(err, kind)
	}
	on.After(map[string]any{"published": model.Name(kind, version), "promoted": true})
	fmt.Fprintf(a.out, "%s is in force\n", model.Name(kind, version))
	return nil
}

func setEncoding(cfg *trainer.OfflineConfig, name string) error {
	e, err := feature.ParseEncoding(name)
	if err != nil {
		return err
	}
	cfg.Features.Encoding = e
	return nil
}
