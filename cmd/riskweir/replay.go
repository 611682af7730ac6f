package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/replay"
	"github.com/riskweir/riskweir/internal/service"
)

const replayHelp = `Score the stored events of a kind again, by a model version.

Alone it says what the version makes of the events: their number, mean, bands and decisions. With --against it compares two
versions on the same events, and says what money is at stake. With --assert-equal it computes every stored score of the version again, from the event, the
version and the contract revision that the score names, and compares all that it says of the event, from the probability to its
time, to the last bit. It writes nothing but, with --publish, what the version says of each event, into the stream RESCORES: never where decisions
are read. A replay that is repeated publishes no event twice and goes on where the one before it stopped.

Exit status: 0 done and, with --assert-equal, at least one score was compared and all were equal; 1 with --assert-equal, one differs or
cannot be read, or none could be compared; 2 wrong usage, or it could not be read.

Examples:

  riskweir replay payment --model v3 --context riskweir
  riskweir replay payment --model v3 --from 2026-01-31T00:00:00Z --to 2026-02-01T00:00:00Z
  riskweir replay payment --model v3 --against v4 --svg scores.svg
  riskweir replay payment --model v4 --publish
  riskweir replay payment --model all --assert-equal`

func (a *app) replay(cmd *fisk.CmdClause) {
	var connect service.Connection
	var version, against, from, to, svg string
	var assert, asJSON bool
	cfg := replay.Config{}
	connect.Flags(cmd)
	cmd.Arg("kind", "Kind to replay; the only one, if there is one").StringVar(&cfg.Kind)
	cmd.Flag("model", "Version, such as v3; with --assert-equal also all").Required().PlaceHolder("VERSION").StringVar(&version)
	cmd.Flag("from", "First event: a sequence of EVENTS, or the time from which it was stored").PlaceHolder("SEQ|TIME").StringVar(&from)
	cmd.Flag("to", "Last event: a sequence of EVENTS, or the time before which it was stored").PlaceHolder("SEQ|TIME").StringVar(&to)
	cmd.Flag("assert-equal", "Compute the version's stored scores again, and compare every bit").UnNegatableBoolVar(&assert)
	cmd.Flag("against", "Version to compare with, on the same events").PlaceHolder("VERSION").StringVar(&against)
	cmd.Flag("publish", "Put what the version says of each event into RESCORES, as rescores.KIND.VERSION.BAND.ENTITY").UnNegatableBoolVar(&cfg.Publish)
	cmd.Flag("amount", "With --against, the field that says what an event is worth; the contract's only money, if it has one").PlaceHolder("FIELD").StringVar(&cfg.Amount)
	cmd.Flag("svg", "Also draw the distributions of both versions' scores").PlaceHolder("FILE").StringVar(&svg)
	cmd.Flag("differences", "How many differences to show in full").Default("20").IntVar(&cfg.Differences)
	cmd.Flag("labels", "How many labels to hold; beyond, a sample of them").Default("1000000").IntVar(&cfg.Labels)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		switch {
		case assert && against != "":
			return errors.New("--assert-equal is of what is stored, --against of two versions: one of them")
		case assert && cfg.Publish:
			return errors.New("--assert-equal writes nothing: without --publish")
		case version == "all" && !assert:
			return errors.New("--model all needs --assert-equal: events are scored by one version")
		case svg != "" && against == "":
			return errors.New("--svg draws two versions: say which other, --against")
		case cfg.Amount != "" && against == "":
			return errors.New("--amount is what moves between two versions: say which other, --against")
		case cfg.Differences < 1 || cfg.Labels < 1:
			return errors.New("--differences and --labels: want 1 or more")
		}
		var err error
		for _, x := range []struct {
			name, text string
			to         *replay.Bound
		}{{"--from", from, &cfg.From}, {"--to", to, &cfg.To}} {
			if x.text == "" {
				continue
			}
			if *x.to, err = replay.ParseBound(x.text); err != nil {
				return fmt.Errorf("%s %w", x.name, err)
			}
		}
		play := func(js natsjs.JetStream) error {
			cfg.JS = js
			if cfg.Kind, err = oneKind(ctx, js, cfg.Kind); err != nil {
				return err
			}
			if version != "all" {
				if cfg.Model, err = model.ParseVersion(cfg.Kind, version); err != nil {
					return err
				}
			}
			if against != "" {
				if cfg.Against, err = model.ParseVersion(cfg.Kind, against); err != nil {
					return err
				}
			}
			show, finish := a.replayBar()
			cfg.Progress = show
			if assert {
				report, err := replay.AssertEqual(ctx, cfg)
				finish()
				if err != nil {
					return err
				}
				if err := a.report(report, asJSON); err != nil {
					return err
				}
				if !report.OK() {
					return errBroken
				}
				return nil
			}
			report, err := replay.Run(ctx, cfg)
			finish()
			if err != nil {
				return err
			}
			if svg != "" {
				if err := draw(svg, report); err != nil {
					return err
				}
			}
			return a.report(report, asJSON)
		}
		if !cfg.Publish {
			return a.operation(ctx, connect, play)
		}
		act := audit.Action{What: cmd.FullCommand(), Kind: cfg.Kind, About: about(cfg.Kind, version)}
		return a.changes(ctx, connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
			on.After("rescores beside the scores")
			return play(js)
		})
	})
}

func (a *app) report(r fmt.Stringer, asJSON bool) error {
	if asJSON {
		return a.printJSON(r)
	}
	_, err := fmt.Fprint(a.out, r)
	return err
}

// draw writes the whole picture, or leaves what was there.
func draw(path string, r replay.Report) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".svg-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = errors.Join(r.SVG(f), f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}

// replayBar shows how far it has come, on a terminal.
func (a *app) replayBar() (show func(what string, done, all uint64), finish func()) {
	if !isTerminal(a.err) {
		return nil, func() {}
	}
	bars := mpb.New(mpb.WithOutput(a.err), mpb.WithWidth(40))
	reading := ""
	var bar *mpb.Bar
	end := func() {
		if bar != nil {
			bar.SetTotal(-1, true)
		}
	}
	show = func(what string, done, all uint64) {
		if what != reading {
			end()
			reading = what
			bar = bars.AddBar(0, mpb.PrependDecorators(decor.Name(what+" ")), mpb.AppendDecorators(decor.Percentage()))
		}
		bar.SetTotal(int64(all), false)
		bar.SetCurrent(int64(done))
	}
	return show, func() {
		end()
		bars.Wait()
	}
}
