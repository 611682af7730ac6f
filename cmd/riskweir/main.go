// Riskweir runs and operates a real-time risk scorer on NATS JetStream: 'riskweir up' starts everything on this machine, and
// the other verbs are the operator's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	_ "time/tzdata" // a bare container has no zones, and contracts name them

	"github.com/choria-io/fisk"

	"github.com/riskweir/riskweir/internal/command"
)

var errBroken = command.ErrBroken

func version() string { return command.Version() }

// app collects the commands. Each of them adds its flags and, through run, what it does.
type app struct {
	*fisk.Application
	runs map[string]command.Runner
	out  io.Writer
	err  io.Writer
}

// run does f when cmd is the one that was typed.
func (a *app) run(cmd *fisk.CmdClause, f command.Runner) { a.runs[cmd.FullCommand()] = f }

func newApp(out, errOut io.Writer) *app {
	a := &app{Application: fisk.New("riskweir", "A highly available real-time risk scorer on NATS JetStream."), runs: map[string]command.Runner{}, out: out, err: errOut}
	a.Version(version())
	a.HelpFlag.Short('h')
	a.UsageWriter(out)
	a.ErrorWriter(errOut)

	a.up(a.Command("up", upHelp))
	a.status(a.Command("status", statusHelp))
	a.verify(a.Command("verify", verifyHelp))
	a.doctor(a.Command("doctor", doctorHelp))
	a.chaos(a.Command("chaos", chaosHelp))
	a.bench(a.Command("bench", benchHelp))
	a.kindVerbs(a.Command("kind", "Declare kinds: what their events look like, how scores are decided on."))
	a.ingest(a.Command("ingest", ingestHelp))
	a.explain(a.Command("explain", explainHelp))
	a.replay(a.Command("replay", replayHelp))
	a.train(a.Command("train", trainHelp))
	a.modelVerbs(a.Command("model", "The versions of a model: which there are, which is in force, another one, and back."))
	a.overrideVerbs(a.Command("override", "Decide for an entity, whatever its scores: lists of those to approve and to decline."))
	a.features(a.Command("features", featuresHelp))
	a.topologyVerbs(a.Command("topology", "Plan, apply and show the streams and buckets."))
	a.laneVerbs(a.Command("lane", "Mend a lane that has stopped."))
	a.tokenVerbs(a.Command("token", "Say who may call over HTTP, and what."))
	a.erase(a.Command("erase", eraseHelp))
	a.audit(a.Command("audit", auditHelp))
	a.certs(a.Command("certs", certsHelp))
	a.permissions(a.Command("permissions", permissionsHelp))
	a.subscriberVerbs(a.Command("subscriber", "Parties that read some outcomes, and nothing else."))
	a.decode(a.Command("decode", "Turn msgpack on stdin into JSON, one line a value.\n\nExample: nats --context riskweir sub 'scores.payment.>' --raw | riskweir decode"))
	a.services(a.Command("run", "Run one service, as 'up' does with its children.").Hidden())
	return a
}

// services are what up starts; each is also a command of its own, cmd/<service>.
func (a *app) services(cmd *fisk.CmdClause) {
	for _, s := range []struct {
		name, help string
		define     func(command.Flags) command.Runner
	}{
		{"node", "A JetStream node", command.Node},
		{"scorer", "A scorer", command.Scorer},
		{"ingest", "HTTP ingest", command.Ingest},
		{"trainer", "A trainer", command.Trainer},
		{"monitor", "A monitor", command.Monitor},
		{"sim", "The simulated source", command.Sim},
		{"bench-ceiling", "What bench measures against", command.BenchCeiling},
		{"bench-plain", "What bench measures against", command.BenchPlain},
	} {
		c := cmd.Command(s.name, s.help)
		a.run(c, s.define(c))
	}
	file := cmd.Command("file", "The ingest of a file")
	a.run(file, command.ReadFile(file))
}

const ingestHelp = `Take a file in, as events or as labels.

Each batch of rows is stored together with the offset that it was read up to: stopped anywhere and started again, no row
comes twice and none is left out. Bad rows go to FILE.invalid.jsonl.

Examples:

  riskweir ingest loans.csv --kind loan --context riskweir
  riskweir ingest labels.csv --kind loan --labels
  zcat old.jsonl.gz | riskweir ingest - --kind loan --history --source-name old`

func (a *app) ingest(cmd *fisk.CmdClause) { a.run(cmd, command.ReadFile(cmd)) }

func run(args []string, out, errOut io.Writer) int {
	a := newApp(out, errOut)
	verb, err := a.Parse(args)
	if err != nil {
		fmt.Fprintf(errOut, "riskweir: %v (try --help)\n", command.UsageError(a.Application, args, err))
		return command.ExitFailed
	}
	f := a.runs[verb]
	if f == nil {
		fmt.Fprintf(errOut, "riskweir: %v (try --help)\n", errors.New("no command given"))
		return command.ExitFailed
	}
	return command.Exit("riskweir", command.Signalled(func(ctx context.Context) error { return f(ctx) }))
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
