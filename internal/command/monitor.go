package command

import (
	"context"
	"time"

	"github.com/riskweir/riskweir/internal/monitor"
)

// Monitor is cmd/monitor.
func Monitor(f Flags) Runner {
	p := newProcess(f, "monitor")
	var every time.Duration
	f.Flag("every", "Between two looks").Default("1s").DurationVar(&every)
	return func(ctx context.Context) error {
		return p.run(ctx, func(e env) (worker, error) {
			return monitor.New(monitor.Config{Conn: e.conn, Log: e.log, Metrics: e.metrics, Instance: e.instance, Name: e.name, Service: e.micro, Every: every})
		})
	}
}
