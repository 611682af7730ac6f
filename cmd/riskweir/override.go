package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
)

const overrideAddHelp = `Put an entity on a list: what is decided on its events from now on, whatever their scores.

--allow approves and --deny declines; an entity is on one list at most, and what is said last holds. Probability, points, band and reasons of its
scores stay as they are, and each score says which list decided and at which revision. Only events that a scorer has not read yet are affected. --until is held against the time at which
an event was stored.

Examples:

  riskweir override add payment c210 --deny --reason "stolen, case 4711" --until 2026-12-31T00:00:00Z
  riskweir override add payment c7 --allow --reason "test card of the terminal vendor" --until 24h`

const overrideRemoveHelp = `Take an entity off its list: the contract decides on its events again.

Example: riskweir override remove payment c210 --reason "card replaced"`

const overrideListHelp = `Show who is on the lists of a kind.

With --history, each revision that is kept and what it changed.

Example: riskweir override list payment`

type overrideFlags struct {
	modelFlags
	entity      string
	allow, deny bool
	until       string
	history     bool
}

func (a *app) overrideVerbs(cmd *fisk.CmdClause) {
	f := &overrideFlags{}
	f.connect.Flags(cmd)
	f.keys.SigningFlags(cmd)
	changing := func(name, help string, do func(ctx context.Context, f *overrideFlags, r registered, on *audit.Entry) error) *fisk.CmdClause {
		c := cmd.Command(name, help)
		c.Arg("kind", "Kind").Required().StringVar(&f.kind)
		c.Arg("entity", "Entity, as events name it").Required().StringVar(&f.entity)
		c.Flag("reason", "Why").Required().StringVar(&f.reason)
		c.Flag("by", "Who; you by default").PlaceHolder("NAME").StringVar(&f.by)
		a.run(c, func(ctx context.Context) error {
			keysBeside(&f.keys, f.connect)
			signer, trust, err := f.keys.Signer() // before anything is done
			if err != nil {
				return err
			}
			if f.by == "" {
				f.by = whoami()
			}
			act := audit.Action{What: c.FullCommand(), Kind: f.kind, About: f.kind + " " + f.entity, By: f.by, Reason: f.reason}
			return a.changes(ctx, f.connect, act, func(js natsjs.JetStream, on *audit.Entry) error {
				r, err := openRegistry(ctx, js, f.kind)
				if err != nil {
					return err
				}
				r.registry, r.trust = r.registry.Keyed(signer, trust), trust
				return do(ctx, f, r, on)
			})
		})
		return c
	}
	add := changing("add", overrideAddHelp, a.overrideAdd)
	add.Flag("allow", "Approve").UnNegatableBoolVar(&f.allow)
	add.Flag("deny", "Decline").UnNegatableBoolVar(&f.deny)
	add.Flag("until", "Until when: a time such as 2026-12-31T00:00:00Z, or a duration from now such as 24h or 30d; for good by default").PlaceHolder("TIME").StringVar(&f.until)
	changing("remove", overrideRemoveHelp, a.overrideRemove).Alias("rm")
	list := cmd.Command("list", overrideListHelp).Alias("ls")
	list.Arg("kind", "Kind").Required().StringVar(&f.kind)
	list.Flag("history", "What each revision changed, the latest first").UnNegatableBoolVar(&f.history)
	list.Flag("json", "As JSON").UnNegatableBoolVar(&f.json)
	a.run(list, func(ctx context.Context) error {
		return a.operation(ctx, f.connect, func(js natsjs.JetStream) error {
			r, err := openSigned(ctx, js, &f.modelFlags)
			if err != nil {
				return err
			}
			return a.overrideList(ctx, f, r)
		})
	})
}

// untilWhen reads a time, or a duration from now. Empty is for good.
func untilWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		d, wrong := events.ParseDuration(text)
		if wrong != nil {
			return at, fmt.Errorf("--until %q: want a time such as 2026-12-31T00:00:00Z, or a duration such as 24h or 30d", text)
		}
		at = now.Add(d)
	}
	if at = at.UTC().Truncate(time.Second); !at.After(now) {
		return at, fmt.Errorf("--until %s is past: nothing would come of it", at.Format(time.RFC3339))
	}
	return at, nil
}

func (a *app) overrideAdd(ctx context.Context, f *overrideFlags, r registered, on *audit.Entry) error {
	if f.allow == f.deny {
		return errors.New("say --allow or --deny")
	}
	now := time.Now().UTC().Truncate(time.Second)
	until, err := untilWhen(f.until, now)
	if err != nil {
		return err
	}
	if _, err := events.EscapeEntity(f.entity); err != nil {
		return err
	}
	o := model.Override{Entity: f.entity, List: events.Deny, Reason: f.reason, By: f.by, At: now, Until: until}
	if f.allow {
		o.List = events.Allow
	}
	before, _, revision, err := r.registry.ChangeOverrides(ctx, f.kind, func(l *model.Overrides) error { l.Put(o); return nil })
	if err != nil {
		return overrideAdvised(err, f.kind)
	}
	if was := before.Of(f.entity); was != nil {
		on.Before(was)
	}
	on.After(o)
	_, err = fmt.Fprintf(a.out, "%s of %s is on the list %s, revision %d%s\n", f.entity, f.kind, o.List, revision, untilText(o))
	return err
}

func (a *app) overrideRemove(ctx context.Context, f *overrideFlags, r registered, on *audit.Entry) error {
	before, _, revision, err := r.registry.ChangeOverrides(ctx, f.kind, func(l *model.Overrides) error {
		if !l.Remove(f.entity) {
			return fmt.Errorf("%s is on no list of %s: nothing was changed", f.entity, f.kind)
		}
		return nil
	})
	if err != nil {
		return overrideAdvised(err, f.kind)
	}
	on.Before(before.Of(f.entity))
	_, err = fmt.Fprintf(a.out, "%s of %s is on no list any more, revision %d\n", f.entity, f.kind, revision)
	return err
}

func overrideAdvised(err error, kind string) error {
	switch {
	case errors.Is(err, model.ErrConflict):
		return fmt.Errorf("%w: try again", err)
	case errors.Is(err, model.ErrOverrides) && !strings.Contains(err.Error(), "entries"):
		return fmt.Errorf("%w: scorers go on with the list before; 'nats kv history MODELS %s' has it, and 'nats kv revert MODELS %[2]s REVISION' puts it back", err, model.OverridesKey(kind))
	}
	return err
}

func untilText(o model.Override) string {
	if o.Until.IsZero() {
		return ""
	}
	return ", for events stored before " + second(o.Until)
}

func (a *app) overrideList(ctx context.Context, f *overrideFlags, r registered) error {
	if f.history {
		return a.overrideHistory(ctx, f, r)
	}
	list, revision, err := r.registry.Overrides(ctx, f.kind)
	if err != nil {
		return overrideAdvised(err, f.kind)
	}
	if f.json {
		return a.printJSON(list.Entries)
	}
	var b strings.Builder
	if len(list.Entries) == 0 {
		fmt.Fprintf(&b, "nobody is on a list of %s\n", f.kind)
	} else {
		fmt.Fprintf(&b, "%-6s %-28s %-21s %s\n", "list", "entity", "until", "since, by, and why")
	}
	now := time.Now()
	for _, o := range list.Entries {
		until := "for good"
		if !o.Until.IsZero() {
			until = second(o.Until)
		}
		if !o.Holds(now) {
			until += " over"
		}
		fmt.Fprintf(&b, "%-6s %-28s %-21s %s %s: %s\n", o.List, o.Entity, until, second(o.At), o.By, o.Reason)
	}
	if revision != 0 {
		fmt.Fprintf(&b, "%d of at most %d, revision %d\n", len(list.Entries), model.MaxOverrides, revision)
	}
	_, err = fmt.Fprint(a.out, b.String())
	return err
}

func (a *app) overrideHistory(ctx context.Context, f *overrideFlags, r registered) error {
	all, err := r.registry.OverrideHistory(ctx, f.kind)
	if err != nil {
		return err
	}
	if f.json {
		return a.printJSON(all)
	}
	var b strings.Builder
	for i := len(all) - 1; i >= 0; i-- {
		x := all[i]
		fmt.Fprintf(&b, "revision %d, %s\n", x.Revision, second(x.Stored))
		for _, line := range x.Changes {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	_, err = fmt.Fprint(a.out, b.String())
	return err
}
