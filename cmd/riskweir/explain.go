package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/explain"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/pkg/events"
)

const explainHelp = `Show a score, the model version that made it, and what each field added.

The event is scored again with that version, and the result compared bit for bit.

Exit status: 0 it is the same, 1 it differs, 2 it was not found.

Examples:

  riskweir explain payment/c210                # the entity's last score
  riskweir explain payment/c210/1-mwthm4uj-19007
  riskweir explain payment --seq 19007`

func (a *app) explain(cmd *fisk.CmdClause) {
	var connect service.Connection
	var what string
	var q explain.Query
	var asJSON bool
	connect.Flags(cmd)
	cmd.Arg("what", "KIND, KIND/ENTITY or KIND/ENTITY/ID").Required().StringVar(&what)
	cmd.Flag("seq", "Sequence of the event in EVENTS").Uint64Var(&q.Seq)
	cmd.Flag("language", "Language of the reasons' texts, such as de or de-CH, as the contract has them").PlaceHolder("TAG").StringVar(&q.Language)
	cmd.Flag("json", "Explanation as JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		kind, rest, _ := strings.Cut(what, "/")
		q.Kind = kind
		q.Entity, q.ID, _ = strings.Cut(rest, "/")
		switch {
		case events.CheckKind(kind) != nil:
			return events.CheckKind(kind)
		case q.Entity == "" && q.Seq == 0:
			return errors.New("say which event: KIND/ENTITY, KIND/ENTITY/ID, or KIND --seq N")
		case q.Entity != "" && q.Seq != 0:
			return errors.New("say which event by its entity or by --seq, not both")
		}
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			if _, err := oneKind(ctx, js, kind); err != nil {
				return err
			}
			e, err := explain.Run(ctx, js, q)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.out)
				enc.SetIndent("", "  ")
				err = enc.Encode(e)
			} else {
				_, err = fmt.Fprintln(a.out, e)
			}
			if err != nil {
				return err
			}
			if len(e.Differences) > 0 {
				return errBroken
			}
			return nil
		})
	})
}
