package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/user"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/command"
	"github.com/riskweir/riskweir/internal/impact"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/trainer"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const modelListHelp = `List the versions of a kind.

One that cannot be read is listed with what is wrong with it.

Example: riskweir model list payment --context riskweir`

const modelShowHelp = `Show a version: what it was trained on, how it did, and what it weighs.

Without a version, the champion. Exit status: 0 it can serve under the declared contract, 1 it cannot, 2 it was not found.

Examples:

  riskweir model show payment
  riskweir model show payment v3 --json > v3.json`

const modelLogHelp = `Tell which version was in force when, by whom and why: every change of the rollout record, and what was decided of each version on what evidence.

It is read from ROLLOUTS, where the server keeps all changes; without that stream, as far back as MODELS keeps them (64).

A record that was put back by 'nats kv revert MODELS payment.rollout REVISION' is a valid rollback, and is marked as such.

Example: riskweir model log payment --context riskweir`

const switchHelp = `
It must be there, be whole, and fit the declared contract: else nothing is changed. The change is one compare-and-swap: of two that
switch at once one is told so. Then it waits until every lane has committed at the new revision. From a lane's commit at it on, nothing of the
lane is scored by the version before.

Exit status: 0 every lane is there; 1 the version is in force, and the lanes that are named were not there in time: the same command waits
again; 2 nothing was changed, or it is not known.
`

const modelPromoteHelp = `Put a version in force, and wait until every lane scores with it.
` + switchHelp + `
Example: riskweir model promote payment v4 --reason "passed the review of 3 March"`

const modelRollbackHelp = `Put an earlier version in force again, and wait until every lane scores with it.

Without a version, the champion before this one; typed twice it does not bring the bad one back. A canary is rolled back with it: it was held
against the champion that goes. A canary that is named is itself taken out. Under the policy gated the trainer's next version may still come into force by the gates.
` + switchHelp + `
Examples:

  riskweir model rollback payment --reason "declines all of Monday"
  riskweir model rollback payment v2 --reason "v3 has it too"`

const modelImpactHelp = `Count what a version has scored, by band, decision and mode; with --list, show each outcome.

It reads SCORES from end to end, so that what retention has taken is not in it. Exit status: 0, or 2 if it could not be read.

Examples:

  riskweir model impact payment v3
  riskweir model impact payment v3 --list | jq -r 'select(.decision == "decline") | .id'`

const orderHelp = `
It must be there, be whole, and fit the declared contract. The change is one compare-and-swap of the rollout record; what the kind's policy does
not allow is refused, and nothing is changed. Then it waits until every lane has committed at the new revision.

Exit status: as of promote.
`

const modelShadowHelp = `Let a version score every event beside the champion, and decide none.

The trainer pairs its scores with the champion's, and tells in 'riskweir model log' how it does.
` + orderHelp + `
Example: riskweir model shadow payment v5 --reason "trained without the field channel"`

const modelCanaryHelp = `Let a version decide for a share of the entities: the first of the kind's steps.

Which they are is a hash of the entity, so that an entity stays with one version. It is rolled back by itself if the gate finds it worse.
` + orderHelp + `
Example: riskweir model canary payment v5 --reason "a month as shadow"`

const modelRetireHelp = `Take a candidate or a shadow out. It can come back.
` + orderHelp + `
Example: riskweir model retire payment v5 --reason "v6 is trained on more"`

// modelFlags are those of all model verbs.
type modelFlags struct {
	connect service.Connection
	keys    command.Keys
	kind    string
	version string
	other   string
	report  reportFlags
	all     bool
	json    bool
	list    bool
	by      string
	reason  string
	timeout time.Duration
	began   time.Time // when the command did
}

func (a *app) modelVerbs(cmd *fisk.CmdClause) {
	f := &modelFlags{}
	f.connect.Flags(cmd)
	f.keys.SigningFlags(cmd)
	named := func(name, help string) *fisk.CmdClause {
		c := cmd.Command(name, help)
		c.Arg("kind", "Kind").Required().StringVar(&f.kind)
		c.Flag("json", "As JSON").UnNegatableBoolVar(&f.json)
		return c
	}
	verb := func(name, help string, do func(ctx context.Context, f *modelFlags, r registered) error) *fisk.CmdClause {
		c := named(name, help)
		a.run(c, func(ctx context.Context) error {
			f.began = time.Now()
			return a.operation(ctx, f.connect, func(js natsjs.JetStream) error {
				r, err := openSigned(ctx, js, f)
				if err != nil {
					return err
				}
				return do(ctx, f, r)
			})
		})
		return c
	}
	// changing is a verb that is on record in AUDIT.
	changing := func(name, help string, do func(ctx context.Context, f *modelFlags, r registered, on *audit.Entry) error) *fisk.CmdClause {
		c := named(name, help)
		a.run(c, func(ctx context.Context) error {
			f.began = time.Now()
			act := audit.Action{What: c.FullCommand(), Kind: f.kind, About: about(f.kind, f.version), By: f.by, Reason: f.reason}
			return a.changes(ctx, f.connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
				r, err := openSigned(ctx, js, f)
				if err != nil {
					return err
				}
				return do(ctx, f, r, on)
			})
		})
		return c
	}
	version := func(c *fisk.CmdClause, help string) *fisk.ArgClause {
		arg := c.Arg("version", help)
		arg.StringVar(&f.version)
		return arg
	}
	switching := func(c *fisk.CmdClause) {
		c.Flag("reason", "Why, for the log").Required().StringVar(&f.reason)
		c.Flag("by", "Who; you by default").PlaceHolder("NAME").StringVar(&f.by)
		c.Flag("timeout", "How long to wait for the lanes").Default("30s").DurationVar(&f.timeout)
	}
	verb("list", modelListHelp, a.modelList).Alias("ls")
	version(verb("show", modelShowHelp, a.modelShow), "Version, such as v3; the champion by default")
	verb("log", modelLogHelp, a.modelLog)

	promote := changing("promote", modelPromoteHelp, a.modelPromote)
	version(promote, "Version, such as v3").Required()
	switching(promote)
	rollback := changing("rollback", modelRollbackHelp, a.modelRollback)
	version(rollback, "Version, such as v2; the champion before by default")
	switching(rollback)

	sign := changing("sign", modelSignHelp, a.modelSign)
	version(sign, "Version, such as v3")
	sign.Flag("all", "Every version of the kind").UnNegatableBoolVar(&f.all)
	key := cmd.Command("key", modelKeyHelp)
	file := key.Arg("file", "File of the seed").Required().String()
	a.run(key, func(context.Context) error { return a.modelKey(*file) })
	for _, x := range []struct {
		verb rollout.Verb
		help string
	}{{rollout.OrderShadow, modelShadowHelp}, {rollout.OrderCanary, modelCanaryHelp}, {rollout.OrderRetire, modelRetireHelp}} {
		c := changing(string(x.verb), x.help, func(ctx context.Context, f *modelFlags, r registered, on *audit.Entry) error {
			return a.modelOrder(ctx, f, r, on, x.verb)
		})
		version(c, "Version, such as v3").Required()
		switching(c)
	}

	report := verb("report", modelReportHelp, a.modelReport)
	version(report, "Version, such as v3").Required()
	report.Flag("out", "File to write; - is stdout. By default <version>.html").PlaceHolder("FILE").StringVar(&f.report.out)
	report.Flag("file", "Labelled rows to measure on, in place of the streams").PlaceHolder("FILE").StringVar(&f.report.file.Path)
	report.Flag("label", "With --file: column of the outcome; the contract's by default").PlaceHolder("COL").StringVar(&f.report.file.Label)
	report.Flag("positive", "With --file: label value that means the bad outcome; may be repeated").PlaceHolder("VALUE").StringsVar(&f.report.file.Positive)
	report.Flag("split", "With --file: which rows the version was fitted to: time80 or mod5, as it was trained with; none: none of them").Default(splitNone).EnumVar(&f.report.split, splitNone, trainer.SplitTime80, trainer.SplitMod5)
	report.Flag("max-rows", "Records with a known outcome at most, the latest").Default("100000").IntVar(&f.report.rows)
	command.FileFlags(report, &f.report.file.Source)
	diff := verb("diff", modelDiffHelp, a.modelDiff)
	version(diff, "Version, such as v3").Required()
	diff.Arg("other", "Version that it is held against, such as v4").Required().StringVar(&f.other)
	diff.Flag("all", "Every member that differs, not only the largest").UnNegatableBoolVar(&f.all)
	version(verb("export", modelExportHelp, a.modelExport), "Version, such as v3").Required()
	a.modelImport(cmd.Command("import", modelImportHelp), f)

	impacts := verb("impact", modelImpactHelp, a.modelImpact)
	version(impacts, "Version, such as v3").Required()
	impacts.Flag("list", "Every outcome, one line of JSON each").UnNegatableBoolVar(&f.list)
}

// registered is a kind with its models.
type registered struct {
	js       natsjs.JetStream
	schema   *events.Schema
	registry *model.Registry
	trust    *model.Trust // nil: nothing is known of whom to trust
}

func openRegistry(ctx context.Context, js natsjs.JetStream, kind string) (registered, error) {
	if _, err := oneKind(ctx, js, kind); err != nil {
		return registered{}, err
	}
	declared, err := topology.ReadKind(ctx, js, kind)
	if err != nil {
		return registered{}, err
	}
	schema, err := events.Compile(declared.Contract)
	if err != nil {
		return registered{}, fmt.Errorf("contract of %s: %w", kind, err)
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return registered{}, fmt.Errorf("models: %w", err)
	}
	return registered{js: js, schema: schema, registry: model.NewRegistry(kv)}, nil
}

// switched is what a promotion or a rollback came to. Times are in ms since the command began, connecting included.
type switched struct {
	Kind     string   `json:"kind"`
	Model    string   `json:"model"`
	Stage    string   `json:"stage"`
	Before   string   `json:"before,omitempty"`
	Revision uint64   `json:"revision"`
	Changed  bool     `json:"changed"` // false: it was in force already
	StoredMS float64  `json:"stored_ms"`
	LanesMS  float64  `json:"lanes_ms"` // until all lanes, or the time, had come
	Lanes    int      `json:"lanes"`
	Behind   []behind `json:"behind"`
}

// behind is a lane that has not come.
type behind struct {
	Lane     int    `json:"lane"`
	Owner    string `json:"owner,omitempty"`
	Revision uint64 `json:"revision"`
	Error    string `json:"error,omitempty"`
}

// about names a version as its scores do, or as it was typed.
func about(kind, version string) string {
	if v, err := model.ParseVersion(kind, version); err == nil {
		return model.Name(kind, v)
	}
	return version
}

func (a *app) modelPromote(ctx context.Context, f *modelFlags, r registered, on *audit.Entry) error {
	return a.modelOrder(ctx, f, r, on, rollout.OrderPromote)
}

func (a *app) modelOrder(ctx context.Context, f *modelFlags, r registered, on *audit.Entry, verb rollout.Verb) error {
	version, err := model.ParseVersion(f.kind, f.version)
	if err != nil {
		return err
	}
	return a.switchModel(ctx, f, r, on, version, func(s model.Switch) (model.Switched, error) { return r.registry.Order(ctx, s, verb, version) })
}

func (a *app) modelRollback(ctx context.Context, f *modelFlags, r registered, on *audit.Entry) error {
	version := 0
	if f.version != "" {
		v, err := model.ParseVersion(f.kind, f.version)
		if err != nil {
			return err
		}
		version = v
	}
	return a.switchModel(ctx, f, r, on, version, func(s model.Switch) (model.Switched, error) { return r.registry.Rollback(ctx, s, version) })
}

// switchModel carries out an order about a version; 0: about whichever is champion then.
func (a *app) switchModel(ctx context.Context, f *modelFlags, r registered, on *audit.Entry, version int, do func(model.Switch) (model.Switched, error)) error {
	if f.by == "" {
		f.by = whoami()
	}
	done, err := do(model.Switch{Schema: r.schema, By: f.by, Reason: f.reason})
	if err != nil {
		return advised(err, f.kind)
	}
	lanes := events.LaneNumbers(r.schema.Contract.Lanes)
	if version == 0 {
		version = done.Now.Champion
	}
	s := switched{
		Kind: f.kind, Model: model.Name(f.kind, version), Stage: stageOf(done.Now, version), Revision: done.Revision, Changed: done.Changed,
		StoredMS: inMS(time.Since(f.began)), Lanes: len(lanes), Behind: []behind{},
	}
	on.About(s.Model)
	on.Before(done.Before)
	on.After(map[string]any{"rollout": done.Now, "revision": done.Revision, "changed": done.Changed})
	if done.Before.Champion != 0 && done.Before.Champion != done.Now.Champion {
		s.Before = model.Name(f.kind, done.Before.Champion)
	}
	waiting, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	left := model.AwaitLanes(waiting, lanes, done.Revision, func(ctx context.Context, lane int) (events.Position, bool, error) {
		return topology.ReadPosition(ctx, r.js.Conn(), f.kind, lane)
	})
	s.LanesMS = inMS(time.Since(f.began))
	for _, b := range left {
		x := behind{Lane: b.Lane, Owner: b.Owner, Revision: b.Revision}
		if b.Err != nil {
			x.Error = b.Err.Error()
		}
		s.Behind = append(s.Behind, x)
	}
	if f.json {
		err = a.printJSON(s)
	} else {
		_, err = fmt.Fprint(a.out, s)
	}
	switch {
	case err != nil:
		return err
	case len(left) > 0:
		return errBroken
	}
	return nil
}

func (s switched) String() string {
	var b strings.Builder
	if s.Changed {
		is := s.Stage
		if is == string(rollout.Champion) {
			is = "in force"
		}
		fmt.Fprintf(&b, "%s is %s, revision %d, after %s", s.Model, is, s.Revision, short(ms(s.StoredMS)))
		if s.Before != "" {
			fmt.Fprintf(&b, ", in place of %s", s.Before)
		}
		b.WriteString("\n")
	} else {
		fmt.Fprintf(&b, "%s was in force already, revision %d: nothing was changed\n", s.Model, s.Revision)
	}
	if len(s.Behind) == 0 {
		fmt.Fprintf(&b, "all %d lanes have committed at that revision, after %s\n", s.Lanes, short(ms(s.LanesMS)))
		return b.String()
	}
	fmt.Fprintf(&b, "%d of %d lanes have not committed at that revision after %s:\n", len(s.Behind), s.Lanes, short(ms(s.LanesMS)))
	for _, x := range s.Behind {
		fmt.Fprintf(&b, "  lane %d, at revision %d", x.Lane, x.Revision)
		switch {
		case x.Error != "":
			fmt.Fprintf(&b, ": %s", x.Error)
		case x.Owner == "":
			b.WriteString(", has no owner: is a scorer running?")
		default:
			fmt.Fprintf(&b, ", of %s: its log says why", x.Owner)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// advised adds to an error of a switch what whoever typed it can do.
func advised(err error, kind string) error {
	advice := ""
	switch {
	case errors.Is(err, model.ErrNoVersion):
		advice = "'riskweir model list " + kind + "' lists those that there are"
	case errors.Is(err, model.ErrNothingBefore):
		advice = "name one: 'riskweir model rollback " + kind + " vN'; 'riskweir model log " + kind + "' tells what was in force"
	case errors.Is(err, model.ErrConflict):
		advice = "'riskweir model log " + kind + "' tells by whom; decide again"
	case errors.Is(err, model.ErrUntrusted):
		advice = "the champion goes on; if you know where it is from, 'riskweir model sign " + kind + " vN' signs it"
	case errors.Is(err, rollout.ErrOrder):
		advice = "'riskweir model list " + kind + "' tells the stage of each version, 'riskweir kind show " + kind + "' the policy"
	case errors.Is(err, model.ErrArtifact):
		advice = "the champion goes on; train and publish another"
	case errors.Is(err, model.ErrUnfit):
		advice = "the champion goes on; train under the declared contract, or declare the one it was trained under"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, advice)
}

func (a *app) modelImpact(ctx context.Context, f *modelFlags, r registered) error {
	version, err := model.ParseVersion(f.kind, f.version)
	if err != nil {
		return err
	}
	if f.list && f.json {
		return errors.New("--list and --json are not for the same time: --list is one line of JSON an outcome")
	}
	cfg := impact.Config{JS: r.js, Kind: f.kind, Model: model.Name(f.kind, version)}
	if f.list {
		lines := json.NewEncoder(a.out)
		cfg.Each = func(o impact.Outcome) error { return lines.Encode(o) }
	}
	report, err := impact.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if report.Outcomes == 0 {
		if _, err := r.registry.Get(ctx, f.kind, version); errors.Is(err, model.ErrNoVersion) {
			return advised(err, f.kind)
		}
	}
	switch {
	case f.list:
		return nil
	case f.json:
		return a.printJSON(report)
	}
	_, err = fmt.Fprintln(a.out, report)
	return err
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func whoami() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

func inMS(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
