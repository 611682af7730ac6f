package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/audit"
	"github.com/riskweir/riskweir/internal/erase"
	"github.com/riskweir/riskweir/internal/ingest"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

const eraseHelp = `Remove an entity's events, outcomes, labels and rescores, for good.

It waits until the entity's latest events have their outcome, writes down which messages go (in ERASURES, by sequence, without
the entity's name), and then removes them one by one, overwritten on disk. Cut off anywhere, the same command goes on; without
an entity it only ends what was begun. Events that come later are new ones: stop them first.

'riskweir verify' says erased=N, and replay passes over what is gone. Versions that were trained on a range with some of the
events are listed: train again, or retire them. Copies that subscribers, files and backups hold are not reached.

Exit status: 0 it is erased; 2 it is not, or not all of it.

Examples:

  riskweir erase payment/c4711 --reason "request 2026-118" --context prod
  riskweir erase payment --reason "go on"`

func (a *app) erase(cmd *fisk.CmdClause) {
	var connect service.Connection
	var what, by, reason, entityKey string
	var wait time.Duration
	var asJSON bool
	connect.Flags(cmd)
	cmd.Arg("kind/entity", "Whom; the kind alone goes on with what was begun").Required().StringVar(&what)
	cmd.Flag("entity-key", "Key of kinds that store entities under a hash: the entity is given in clear").PlaceHolder("FILE").StringVar(&entityKey)
	cmd.Flag("reason", "Why, for the record: a ticket, and no name").Required().StringVar(&reason)
	cmd.Flag("by", "Who; you by default").PlaceHolder("NAME").StringVar(&by)
	cmd.Flag("timeout", "How long to wait for outcomes of the latest events").Default("1m").DurationVar(&wait)
	cmd.Flag("json", "As JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		kind, entity, named := strings.Cut(what, "/")
		if named && entity == "" {
			return fmt.Errorf("%s: name an entity behind the slash", kind)
		}
		// The entity's name is not on record: it is what is to be forgotten.
		return a.changes(ctx, connect, audit.Action{What: cmd.FullCommand(), Kind: kind, By: by, Reason: reason}, func(js natsjs.JetStream, on *audit.Entry) error {
			if _, err := oneKind(ctx, js, kind); err != nil {
				return err
			}
			if by == "" {
				by = whoami() + "@" + service.Hostname()
			}
			if entity != "" && entityKey != "" {
				key, err := ingest.ReadEntityKey(entityKey)
				if err != nil {
					return err
				}
				if entity, err = events.HashEntity(key, kind, entity); err != nil {
					return err
				}
			}
			done, err := erase.Run(ctx, erase.Config{JS: js, Kind: kind, Entity: entity, By: by, Reason: reason, Wait: wait})
			var ids []string
			counts := []erasure{}
			for _, t := range done {
				ids = append(ids, t.ID)
				counts = append(counts, erasure{t.ID, t.Events.Len(), t.Scores.Len(), t.Labels.Len(), t.Rescores.Len(), t.Models})
			}
			on.About(strings.Join(ids, " "))
			on.After(counts)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(counts)
			}
			if len(counts) == 0 {
				fmt.Fprintf(a.out, "nothing of it is stored\n")
			}
			for _, c := range counts {
				fmt.Fprintf(a.out, "erased %d events, %d outcomes, %d labels, %d rescores: erasure %s\n", c.Events, c.Scores, c.Labels, c.Rescores, c.ID)
				if len(c.Models) > 0 {
					fmt.Fprintf(a.out, "trained on a range with some of them: %s\n", strings.Join(c.Models, ", "))
				}
			}
			return nil
		})
	})
}

// erasure is what is told of one, and on record.
type erasure struct {
	ID       string   `json:"id"`
	Events   uint64   `json:"events"`
	Scores   uint64   `json:"scores"`
	Labels   uint64   `json:"labels"`
	Rescores uint64   `json:"rescores"`
	Models   []string `json:"models,omitempty"`
}
