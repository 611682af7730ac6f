package command

import (
	"context"
	"time"

	"github.com/riskweir/riskweir/internal/scorer"
)

// Scorer is cmd/scorer.
func Scorer(f Flags) Runner {
	p := newProcess(f, scorer.Service)
	var lease, skew time.Duration
	f.Flag("lease", "How long the model registry may be out of sight before scores say so").Default("30s").DurationVar(&lease)
	f.Flag("clock-skew", "By how much the clock is wrong").Hidden().DurationVar(&skew)
	return func(ctx context.Context) error {
		return p.run(ctx, func(e env) (worker, error) {
			return scorer.New(scorer.Config{Conn: e.conn, Log: e.log, Metrics: e.metrics, Instance: e.instance, Name: e.name, Lease: lease, Skew: skew})
		})
	}
}
