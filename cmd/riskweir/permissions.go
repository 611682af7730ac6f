package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/choria-io/fisk"

	"github.com/riskweir/riskweir/internal/command"
	topology "github.com/riskweir/riskweir/jetstream"
)

const permissionsHelp = `Print what each role may publish and subscribe to, as JSON, or as the commands of the nats CLI that make its users.

Kinds make the table exact for these kinds; without, it holds for kinds to come, less exactly.

Examples:

  riskweir permissions scorer --kinds payment
  riskweir permissions --nats-auth RISK --creds /etc/riskweir | sh`

func (a *app) permissions(cmd *fisk.CmdClause) {
	var names, kinds []string
	var account, creds string
	cmd.Arg("role", "Roles; all by default").StringsVar(&names)
	cmd.Flag("kinds", "Of these kinds alone").PlaceHolder("A,B,...").SetValue(command.List(&kinds))
	cmd.Flag("nats-auth", "Commands for users of this account").PlaceHolder("ACCOUNT").StringVar(&account)
	cmd.Flag("creds", "Directory where these put their credentials").Default(".").PlaceHolder("DIR").StringVar(&creds)
	a.run(cmd, func(context.Context) error {
		all := topology.Roles(kinds...)
		chosen := all
		if len(names) > 0 {
			chosen = nil
		}
		for _, name := range names {
			i := slices.IndexFunc(all, func(r topology.Role) bool { return r.Name == name })
			if i < 0 {
				return fmt.Errorf("%s: there is no such role: 'riskweir permissions' prints all", name)
			}
			chosen = append(chosen, all[i])
		}
		if account == "" {
			enc := json.NewEncoder(a.out)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			return enc.Encode(chosen)
		}
		for _, r := range chosen {
			fmt.Fprintln(a.out, natsAuth(r, account, filepath.Join(creds, r.Name+".creds")))
		}
		return nil
	})
}

// natsAuth is the command of the nats CLI that makes a user with its credentials.
func natsAuth(r topology.Role, account, creds string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nats auth user add %s %s --credential %s --defaults", r.Name, account, shell(creds))
	if r.All {
		return b.String()
	}
	for _, s := range r.Publish {
		b.WriteString(" --pub-allow " + shell(s))
	}
	for _, s := range r.Subscribe {
		b.WriteString(" --sub-allow " + shell(s))
	}
	return b.String()
}

// shell quotes for a POSIX shell.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
