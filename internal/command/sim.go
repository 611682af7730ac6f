package command

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

// Sim feeds simulated card payments, as a publisher outside would: it may send events and labels and nothing else.
func Sim(f Flags) Runner {
	var connect service.Connection
	var level, name string
	var child bool
	var rate float64
	var seed uint64
	connect.Flags(f)
	f.Flag("name", "Name of this process, as people see it").Default("sim").StringVar(&name)
	f.Flag("log-level", "debug, info, warn or error").Default("info").StringVar(&level)
	f.Flag("supervised", "End when the parent process ends").Hidden().UnNegatableBoolVar(&child)
	f.Flag("rate", "Events a second").Default("500").Float64Var(&rate)
	f.Flag("seed", "Seed of the simulation").Default("1").Uint64Var(&seed)
	return func(ctx context.Context) error {
		ctx, cancel := supervise.Orphaned(ctx, child)
		defer cancel()
		log, err := service.NewLogger(level, "sim", name)
		if err != nil {
			return err
		}
		connect.Name, connect.Inbox = "riskweir-sim/"+name, topology.InboxPrefix(topology.RolePublisher)
		conn, err := connect.Connect(ctx, log)
		if err != nil {
			return err
		}
		defer conn.Close()
		feeder, err := sim.NewFeeder(sim.FeederConfig{
			Conn: conn, Rate: rate, Logger: log,
			Generator: sim.New(sim.Config{Seed: seed, Start: time.Now().Truncate(time.Millisecond)}),
		})
		if err != nil {
			return err
		}
		defer func() { log.Info("fed", zap.Any("counters", feeder.Counters())) }()
		return feeder.Run(ctx)
	}
}
