package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/bench"
	"github.com/riskweir/riskweir/internal/embedded"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

// compare measures three systems side by side.
func (b *benchRun) compare(ctx context.Context) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("encryption key: %w", err)
	}
	keyFile := filepath.Join(b.dir, "key")
	if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(key)), 0o600); err != nil {
		return fmt.Errorf("encryption key: %w", err)
	}
	var variants []bench.Variant
	for _, x := range []struct {
		name   string
		adjust func(*layout)
	}{
		{"open", func(l *layout) { l.open, l.noTLS = true, true }},
		{"secured", func(*layout) {}},
		{"encrypted", func(l *layout) { l.encryption = &embedded.Encryption{KeyFile: keyFile} }},
	} {
		v := &benchRun{upRun: upRun{upConfig: b.upConfig, out: b.out, status: b.status, sup: supervise.New(exe)}}
		v.dir = filepath.Join(b.dir, x.name)
		if v.layout, err = openLayout(v.dir, false, v.nodes); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.layout.close()) }()
		x.adjust(v.layout)
		defer v.stopAll()
		if err := v.startNodes(ctx); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		defer v.conn.Close()
		if err := v.applyTopology(ctx); err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		as := v.layout.connection(topology.RolePublisher)
		as.Name, as.Timeout = "riskweir-bench-publisher", 30*time.Second
		publisher, err := as.Connect(ctx, zap.NewNop())
		if err != nil {
			return fmt.Errorf("%s: %w", x.name, err)
		}
		defer publisher.Close()
		variants = append(variants, bench.Variant{Name: x.name, Publisher: publisher, Config: bench.Config{
			System: v, Conn: v.conn, Nodes: b.nodes, Scorers: b.scorers, Lanes: b.lanes, Events: b.events, Rounds: b.rounds,
			Note: func(format string, a ...any) { fmt.Fprintf(b.status, format+"\n", a...) },
		}})
	}
	report, err := bench.RunVariants(ctx, variants)
	if err != nil {
		return err
	}
	return b.print(&report)
}
