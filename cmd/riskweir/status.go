package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/monitor"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

const statusHelp = `Say on one page whether it is all right, as the monitor sees it.

Exit status: 0 all right, 1 an alert is firing, 2 no monitor answered.

Example: riskweir status --context riskweir`

func (a *app) status(cmd *fisk.CmdClause) {
	var connect service.Connection
	var asJSON bool
	connect.Flags(cmd)
	cmd.Flag("json", "Everything, as JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			s, err := monitor.Fetch(ctx, js.Conn())
			if err != nil {
				return fmt.Errorf("%w: is one running?", err)
			}
			if asJSON {
				enc := json.NewEncoder(a.out)
				enc.SetIndent("", "  ")
				err = enc.Encode(s)
			} else {
				_, err = io.WriteString(a.out, statusPage(s, isTerminal(a.out)))
			}
			if err != nil {
				return err
			}
			for _, alert := range s.Alerts {
				if alert.State == events.Firing {
					return errBroken
				}
			}
			return nil
		})
	})
}

func statusPage(s monitor.Status, colours bool) string {
	var b strings.Builder
	for _, k := range s.Kinds {
		fmt.Fprintf(&b, "%s: events %d, in %.0f/s, scored %.0f/s, waiting %d, oldest %s, model %s\n",
			k.Kind, k.Stored, k.Arriving, k.Scoring, k.Pending, short(ms(k.AgeMS)), orNone(strings.Join(k.Models, " ")))
		if k.Error != "" {
			fmt.Fprintf(&b, "  not seen now: %s\n", k.Error)
		}
		writeLanes(&b, k.Lanes, colours)
		b.WriteString("\n")
	}
	if s.Latency.Count > 0 {
		fmt.Fprintf(&b, "latency p50 %s, p99 %s over the last seconds (event stored -> score committed)\n", short(ms(s.Latency.P50MS)), short(ms(s.Latency.P99MS)))
	}
	for _, p := range s.Services {
		state := "alive"
		if !p.Alive {
			state = "silent for " + short(ms(p.SilentMS))
		}
		fmt.Fprintf(&b, "%-10s %-20s %s", p.Service, p.Name, state)
		if len(p.Lanes) > 0 {
			fmt.Fprintf(&b, ", %d lanes", len(p.Lanes))
		}
		b.WriteString("\n")
	}
	for _, a := range s.Alerts {
		fmt.Fprintf(&b, "%s %s %s: %s\n", strings.ToUpper(a.Severity), a.What, a.Kind, a.Cause)
	}
	if len(s.Alerts) == 0 {
		b.WriteString("all right: no alert is firing\n")
	}
	return b.String()
}
