package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/service"
	"github.com/riskweir/riskweir/internal/supervise"
)

// NodeConfig is what the file of a node holds.
type NodeConfig struct {
	embedded.Config
	// UsersDir holds further users, each a file NAME.json with an embedded.User. They may come and go while the node runs.
	UsersDir string `json:",omitempty"`
}

// reloadEvery is how often a node looks whether its certificate or its further users have changed. SIGHUP makes it look now.
const reloadEvery = time.Second

// Node runs a node from a config file that 'riskweir up' has written.
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
		var cfg NodeConfig
		if err := json.Unmarshal(text, &cfg); err != nil {
			return fmt.Errorf("node config %s: %w", file, err)
		}
		if cfg.Logger, err = service.NewLogger("info", "node", cfg.Name); err != nil {
			return err
		}
		return runNode(ctx, cfg)
	}
}

func runNode(ctx context.Context, cfg NodeConfig) error {
	r := reloader{cfg: cfg, own: cfg.Users, log: cfg.Logger}
	r.seen = r.state()
	var err error
	if cfg.Users, err = r.users(); err != nil {
		return fmt.Errorf("node %s: %w", cfg.Name, err)
	}
	if r.node, err = embedded.New(cfg.Config); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, _ := service.NewGroup(ctx)
	g.Go(func(ctx context.Context) error { defer cancel(); return r.node.Run(ctx) })
	g.Go(r.run)
	return g.Wait()
}

// reloader lets a running node follow its files.
type reloader struct {
	cfg  NodeConfig
	own  []embedded.User // of the config
	node *embedded.Node
	log  *zap.Logger
	seen string // the state of the files that is in force
	said string // the last error, to be logged once
}

func (r *reloader) run(ctx context.Context) error {
	select {
	case <-r.node.Ready():
	case <-ctx.Done():
		return nil
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			r.seen = ""
		case <-tick.C:
		}
		r.look()
	}
}

// look reloads if the files are not as they were. What fails is tried again at the next look.
func (r *reloader) look() {
	now := r.state()
	if now == r.seen {
		return
	}
	users, err := r.users()
	if err == nil {
		err = r.node.Reload(users)
	}
	if err != nil {
		if err.Error() != r.said {
			r.said = err.Error()
			r.log.Error("reload: all stays as it was", zap.Error(err))
		}
		return
	}
	r.seen, r.said = now, ""
	r.log.Info("reloaded", zap.Int("users", len(users)))
}

// state changes when a file does.
func (r *reloader) state() string {
	var b strings.Builder
	add := func(file string) {
		if info, err := os.Stat(file); err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", file, info.Size(), info.ModTime().UnixNano())
		}
	}
	if t := r.cfg.TLS; t != nil {
		add(t.Cert)
		add(t.Key)
		add(t.CA)
	}
	for _, f := range userFiles(r.cfg.UsersDir) {
		add(f)
	}
	return b.String()
}

func (r *reloader) users() ([]embedded.User, error) {
	more, err := ReadUsers(r.cfg.UsersDir)
	if err != nil {
		return nil, err
	}
	return slices.Concat(r.own, more), nil
}

func userFiles(dir string) []string {
	if dir == "" {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.json")) // fails for a bad pattern only
	return files                                            // sorted
}

// ReadUsers are those in dir, by name.
func ReadUsers(dir string) ([]embedded.User, error) {
	var users []embedded.User
	for _, f := range userFiles(dir) {
		text, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return nil, fmt.Errorf("users: %w", err)
		}
		var u embedded.User
		if err := json.Unmarshal(text, &u); err != nil {
			return nil, fmt.Errorf("users: %s: %w", f, err)
		}
		if u.All || u.Account != "" {
			return nil, fmt.Errorf("users: %s: a user in a file of its own may not do everything, nor choose its account", f)
		}
		users = append(users, u)
	}
	return users, nil
}
