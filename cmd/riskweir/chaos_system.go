package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/riskweir/riskweir/internal/chaos"
	"github.com/riskweir/riskweir/internal/supervise"
	topology "github.com/riskweir/riskweir/jetstream"
)

// The system as chaos knows it.

func (c *chaosRun) Children() []chaos.Child {
	var out []chaos.Child
	for _, s := range c.sup.Status() {
		if s.Name == spare && s.State == supervise.Stopped {
			continue
		}
		out = append(out, chaos.Child{Name: s.Name, Role: c.roles[s.Name], PID: s.PID})
	}
	return out
}

func (c *chaosRun) Signal(name string, sig syscall.Signal) error { return c.sup.Signal(name, sig) }
func (c *chaosRun) Stop(names ...string)                         { c.sup.Stop(names...) }
func (c *chaosRun) Kill(names ...string)                         { c.sup.Kill(names...) }

func (c *chaosRun) Start(ctx context.Context, name string, args ...string) error {
	s, ok := c.specs[name]
	if !ok {
		return fmt.Errorf("no child %s", name)
	}
	s.Args = slices.Concat(s.Args, args)
	return c.sup.Start(ctx, s)
}

func (c *chaosRun) AddScorer(ctx context.Context) (string, error) {
	c.remember(chaos.RoleScorer, c.child(spare, "scorer", c.layout.signed(topology.RoleScorer)...))
	return spare, c.Start(ctx, spare)
}

func (c *chaosRun) Limit(bytes int64) error {
	if c.maxStore = bytes; bytes == 0 {
		c.maxStore = defaultStore
	}
	users, err := c.layout.users()
	if err != nil {
		return err
	}
	return c.layout.writeNodes(users)
}

func (c *chaosRun) Healthy(ctx context.Context) error {
	for _, child := range c.Children() {
		if child.PID == 0 {
			return fmt.Errorf("%s does not run", child.Name)
		}
	}
	for i := range c.nodes {
		var health struct{ Status, Error string }
		if err := c.look(ctx, i, "healthz", &health); err != nil {
			return err
		}
		if health.Status != "ok" {
			return fmt.Errorf("%s: %s: %s", nodeName(i), health.Status, health.Error)
		}
	}
	return nil
}

func (c *chaosRun) MetaLeader(ctx context.Context) (string, error) {
	var last error
	for i := range c.nodes {
		var jsz struct {
			Meta struct {
				Leader string `json:"leader"`
			} `json:"meta_cluster"`
		}
		if last = c.look(ctx, i, "jsz", &jsz); last == nil && jsz.Meta.Leader != "" {
			return jsz.Meta.Leader, nil
		}
	}
	return "", fmt.Errorf("no node names the leader of the meta group (%v)", last)
}

// look asks the monitoring endpoint of node i.
func (c *chaosRun) look(ctx context.Context, i int, what string, reply any) error {
	url := "http://127.0.0.1:" + strconv.Itoa(c.layout.ports.monitor[i]) + "/" + what
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Close = true // nodes are killed: no connection is worth keeping
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", nodeName(i), err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(reply); err != nil {
		return fmt.Errorf("%s: %s: %w", nodeName(i), what, err)
	}
	return nil
}

func (c *chaosRun) Apply(ctx context.Context) error {
	if _, err := topology.ApplyShared(ctx, c.js, topology.Options{Replicas: c.nodes}); err != nil {
		return err
	}
	kind, err := topology.ReadKind(ctx, c.js, c.kind)
	if err != nil {
		return err
	}
	_, err = topology.ApplyKind(ctx, c.js, kind.Contract, topology.Options{Replicas: c.nodes})
	return err
}

func (c *chaosRun) Usage() (rss, disk int64) {
	pids := []int{os.Getpid()}
	for _, s := range c.sup.Status() {
		if s.PID != 0 {
			pids = append(pids, s.PID)
		}
	}
	for _, pid := range pids {
		rss += resident(pid)
	}
	// Files come and go meanwhile: what cannot be looked at is gone.
	_ = filepath.WalkDir(c.layout.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				disk += st.Blocks * 512
			}
		}
		return nil
	})
	return rss, disk
}

// resident memory of a process in bytes; 0 where the system does not say.
func resident(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmRSS:")); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
