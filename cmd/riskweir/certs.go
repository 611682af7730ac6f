package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/choria-io/fisk"

	"github.com/riskweir/riskweir/internal/certs"
	"github.com/riskweir/riskweir/internal/command"
)

const certsHelp = `Make the certificates of a system whose machines are few and known, and renew them.

The first call makes an authority; each makes the certificates of the names given, where there is none, or less than a third of
its 90 days is left. Nodes and services follow the files: nobody needs to be restarted. Keys are readable by their
owner only. The authority's key, ca-key.pem, signs whatever it is asked to: keep it from the machines that only need what it signed.

Where your organisation has an authority, take certificates from there, and put the files in the same places.

Examples:

  riskweir certs n1 n2 n3 --dir tls --host localhost --host 10.0.0.1 --host 10.0.0.2 --host 10.0.0.3
  riskweir certs payments --client --dir tls`

func (a *app) certs(cmd *fisk.CmdClause) {
	var dir string
	var names, hosts []string
	var client bool
	cmd.Arg("name", "Names of certificates").Required().StringsVar(&names)
	cmd.Flag("dir", "Directory of the authority and of what it signs").Default(filepath.Join(defaultDir(), tlsSubdir)).StringVar(&dir)
	cmd.Flag("host", "Name or address by which others come; this machine's loopback by default").PlaceHolder("HOST,...").SetValue(command.List(&hosts))
	cmd.Flag("client", "Of clients, which nobody comes to").UnNegatableBoolVar(&client)
	a.run(cmd, func(context.Context) error {
		switch {
		case client && len(hosts) > 0:
			return fmt.Errorf("--host: nobody comes to a client")
		case !client && len(hosts) == 0:
			hosts = certs.Loopback()
		}
		now := time.Now()
		authority, err := certs.Open(dir, now)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "authority %s\n", certs.CAFile(dir))
		for _, name := range names {
			c, made, err := authority.Issue(name, hosts, now)
			if err != nil {
				return err
			}
			state := "kept"
			if made {
				state = "made"
			}
			fmt.Fprintf(a.out, "%s      %s, key %s, until %s\n", state, certs.CertFile(dir, name), certs.KeyFile(dir, name), c.NotAfter.Format(time.DateOnly))
		}
		return nil
	})
}
