package command

import (
	"context"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/bench"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

// benchProcess is a child of 'riskweir bench' that is no service.
type benchProcess struct {
	connect service.Connection
	name    string
	level   string
	child   bool
	kind    string
}

func newBenchProcess(f Flags) *benchProcess {
	p := &benchProcess{}
	p.connect.Flags(f)
	f.Flag("name", "Name of this process").Default("bench").StringVar(&p.name)
	f.Flag("log-level", "debug, info, warn or error").Default("info").StringVar(&p.level)
	f.Flag("supervised", "End when the parent process ends").Hidden().UnNegatableBoolVar(&p.child)
	f.Flag("kind", "Kind").Required().StringVar(&p.kind)
	return p
}

func (p *benchProcess) run(ctx context.Context, role string, build func(*nats.Conn) worker) error {
	ctx, cancel := supervise.Orphaned(ctx, p.child)
	defer cancel()
	log, err := service.NewLogger(p.level, "bench", p.name)
	if err != nil {
		return err
	}
	p.connect.Name, p.connect.Inbox = "riskweir-bench/"+p.name, topology.InboxPrefix(role)
	conn, err := p.connect.Connect(ctx, log)
	if err != nil {
		return err
	}
	defer conn.Close()
	return build(conn).Run(ctx)
}

// BenchCeiling commits prepared bytes in a scorer's place.
func BenchCeiling(f Flags) Runner {
	p, c := newBenchProcess(f), &bench.Ceiling{}
	f.Flag("lanes", "Lanes of the kind").Required().IntVar(&c.Lanes)
	f.Flag("size", "Bytes of an outcome").Default("400").IntVar(&c.Size)
	return func(ctx context.Context) error {
		c.Kind, c.Instance = p.kind, instanceOf(p.name)
		return p.run(ctx, topology.RoleScorer, func(conn *nats.Conn) worker { c.Conn = conn; return c })
	}
}

// BenchPlain consumes and publishes one event at a time.
func BenchPlain(f Flags) Runner {
	p, c := newBenchProcess(f), &bench.Plain{}
	f.Flag("round", "Makes message ids its own").Required().StringVar(&c.Round)
	return func(ctx context.Context) error {
		c.Kind = p.kind
		return p.run(ctx, topology.RoleOperator, func(conn *nats.Conn) worker { c.Conn = conn; return c })
	}
}
