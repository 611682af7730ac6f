package command

import (
	"context"
	"os"
	"time"

	"github.com/riskweir/riskweir/internal/poison"
	"github.com/riskweir/riskweir/internal/scorer"
)

// Scorer is cmd/scorer.
func Scorer(f Flags) Runner {
	p := newProcess(f, scorer.Service)
	var lease, skew, hang time.Duration
	var keys Keys
	keys.TrustFlags(f)
	f.Flag("lease", "How long the model registry may be out of sight before scores say so").Default("30s").DurationVar(&lease)
	f.Flag("clock-skew", "By how much the clock is wrong").Hidden().DurationVar(&skew)
	f.Flag("hang", "How long scoring one batch may take; then the process ends, for another to take its lanes").Default("3s").DurationVar(&hang)
	return func(ctx context.Context) error {
		if err := poison.Confine(); err != nil {
			return err
		}
		trust, err := keys.Trust()
		if err != nil {
			return err
		}
		return p.run(ctx, func(e env) (worker, error) {
			return scorer.New(scorer.Config{
				Trust: trust,
				Conn:  e.conn, Log: e.log, Metrics: e.metrics, Instance: e.instance, Name: e.name, Lease: lease, Skew: skew, Hang: hang,
				Abort: func(err error) { os.Exit(Exit(scorer.Service, err)) },
			})
		})
	}
}
