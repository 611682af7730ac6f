package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

// changes is operation for whatever changes something: it is on record in AUDIT before, and again when it has ended. Every such verb
// goes through here, with its full name as what; TestEveryChangeIsOnRecord lists them.
func (a *app) changes(ctx context.Context, c service.Connection, act audit.Action, f func(js natsjs.JetStream, on *audit.Entry) error) error {
	return a.operation(ctx, c, func(js natsjs.JetStream) error { return recorded(ctx, js, act, f) })
}

// founds is changes for verbs that make the streams, AUDIT too: that one is made first, so that all else is on record.
func (a *app) founds(ctx context.Context, c service.Connection, act audit.Action, o topology.Options, f func(js natsjs.JetStream, o topology.Options, on *audit.Entry) error) error {
	return a.operation(ctx, c, func(js natsjs.JetStream) error {
		o, err := sized(ctx, js, o)
		if err != nil {
			return err
		}
		if err := topology.ApplyAudit(ctx, js, o); err != nil {
			return err
		}
		return recorded(ctx, js, act, func(js natsjs.JetStream, on *audit.Entry) error { return f(js, o, on) })
	})
}

// recorded knows that what is done and not as it should be has been done.
func recorded(ctx context.Context, js natsjs.JetStream, act audit.Action, f func(js natsjs.JetStream, on *audit.Entry) error) error {
	var broken error
	err := audit.Do(ctx, js, act, func(on *audit.Entry) error {
		err := f(js, on)
		if errors.Is(err, errBroken) {
			broken, err = err, nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return broken
}

const auditHelp = `Tell who did what: the actions of operators, as the stream AUDIT has them.

An action that stands there as begun, and has no end, was cut off: look at what it came to. Texts are looked for as parts, in any case of
letters. Exit status: 0 there is such an action, 1 there is none.

Examples:

  riskweir audit --about payment.v7 --what promote       # who promoted payment.v7
  riskweir audit --who ann --since 24h
  riskweir audit --kind payment --json | jq -r 'select(.state != "done")'`

func (a *app) audit(cmd *fisk.CmdClause) {
	var connect service.Connection
	var q audit.Query
	var since string
	var asJSON bool
	connect.Flags(cmd)
	cmd.Flag("who", "Who did it").PlaceHolder("NAME").StringVar(&q.Who)
	cmd.Flag("what", "The verb, such as 'model promote'").PlaceHolder("VERB").StringVar(&q.What)
	cmd.Flag("about", "What was changed, such as payment.v7").PlaceHolder("THING").StringVar(&q.About)
	cmd.Flag("kind", "Of this kind only").PlaceHolder("KIND").StringVar(&q.Kind)
	cmd.Flag("since", "Begun since then: a time (RFC 3339), or so long ago").PlaceHolder("TIME|DURATION").StringVar(&since)
	cmd.Flag("limit", "The latest so many; 0: all").Default("0").IntVar(&q.Limit)
	cmd.Flag("json", "A line of JSON for each").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) (err error) {
		if q.Since, err = sinceWhen(since, time.Now()); err != nil {
			return err
		}
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			told, err := audit.Read(ctx, js, q)
			if err != nil {
				return err
			}
			if err := writeTold(a.out, told, asJSON); err != nil {
				return err
			}
			if len(told) == 0 {
				return errBroken
			}
			return nil
		})
	})
}

func sinceWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("--since %q: want a time such as 2026-03-01T00:00:00Z, or a duration such as 24h", text)
	}
	return t, nil
}

func writeTold(w io.Writer, told []audit.Told, asJSON bool) error {
	if asJSON {
		lines := json.NewEncoder(w)
		for _, t := range told {
			if err := lines.Encode(t); err != nil {
				return err
			}
		}
		return nil
	}
	for _, t := range told {
		var b strings.Builder
		fmt.Fprintf(&b, "%s  %-8s %s  %s", t.Began.UTC().Format(time.RFC3339), endOf(t), t.Who, t.What)
		for _, x := range []string{t.Kind, t.About} {
			if x != "" && !strings.Contains(b.String(), " "+x) {
				b.WriteString(" " + x)
			}
		}
		b.WriteString("\n")
		for _, x := range []struct{ name, text string }{{"reason", t.Reason}, {"before", string(t.Before)}, {"after", string(t.After)}, {"error", t.Error}} {
			if x.text != "" {
				fmt.Fprintf(&b, "    %-7s %s\n", x.name, oneLine(x.text))
			}
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
	}
	return nil
}

// endOf says cut off where an action that has no end cannot be under way any more.
func endOf(t audit.Told) string {
	if t.State == audit.Begun {
		return "no end"
	}
	return t.State
}

// oneLine keeps a terminal from being written to by what somebody else typed.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
