package command

import (
	"context"

	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/trainer"
)

// Trainer is cmd/trainer.
func Trainer(f Flags) Runner {
	p := newProcess(f, "trainer")
	var cfg trainer.Config
	f.Flag("min-labels", "Labelled events before the first model").Default("200").IntVar(&cfg.MinLabels)
	f.Flag("retrain-labels", "New labels after which a model is trained again").Default("2000").IntVar(&cfg.RetrainLabels)
	f.Flag("retrain-every", "Or so long after the last one, if there is any new label").Default("10m").DurationVar(&cfg.RetrainEvery)
	f.Flag("max-rows", "Labelled events held and trained on, the newest of them").Default("100000").IntVar(&cfg.MaxRows)
	f.Flag("max-pending", "Events held that have no label yet, the newest of them").Default("200000").IntVar(&cfg.MaxPending)
	f.Flag("single", "Train one regression, without the other members of an ensemble").UnNegatableBoolVar(&cfg.Single)
	f.Flag("scorecards", "Directory of scorecards, <kind>.yaml, each a member of its kind's models").PlaceHolder("DIR").StringVar(&cfg.Scorecards)
	var keys Keys
	keys.SigningFlags(f)
	return func(ctx context.Context) error {
		var err error
		if cfg.Signer, cfg.Trust, err = keys.Signer(); err != nil {
			return err
		}
		return p.run(ctx, func(e env) (worker, error) {
			cfg.Conn, cfg.Logger, cfg.Registerer, cfg.Service = e.conn, e.log, e.metrics, e.micro
			cfg.Instance, cfg.Name, cfg.Host = e.instance, e.name, service.Hostname()
			return trainer.New(cfg)
		})
	}
}
