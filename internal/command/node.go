package command

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/supervise"
)

// Node runs one JetStream node from a config file that 'riskweir up' has written.
func Node(f Flags) Runner {
	var file string
	var child bool
	f.Flag("config", "Node config, JSON").Required().StringVar(&file)
	f.Flag("supervised", "End when the parent process ends").Hidden().UnNegatableBoolVar(&child)
	return func(ctx context.Context) error {
		ctx, cancel := supervise.Orphaned(ctx, child)
		defer cancel()
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("node config: %w", err)
		}
		var cfg embedded.Config
		if err := json.Unmarshal(text, &cfg); err != nil {
			return fmt.Errorf("node config %s: %w", file, err)
		}
		if cfg.Logger, err = service.NewLogger("info", "node", cfg.Name); err != nil {
			return err
		}
		node, err := embedded.New(cfg)
		if err != nil {
			return err
		}
		return node.Run(ctx)
	}
}
