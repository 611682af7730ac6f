package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/pkg/events"
)

const catalogEvery = time.Second

// Catalog keeps the declared kinds at hand, as KINDS has them. A contract that cannot be read never replaces one
// that could. It is safe for concurrent use.
type Catalog struct {
	js     natsjs.JetStream
	report func(error)

	mu      sync.Mutex
	kinds   map[string]catalogued
	seen    map[string]uint64 // highest revision looked at, taken or not
	loaded  bool
	changed chan struct{} // closed at the next change
}

type catalogued struct {
	schema   *events.Schema
	revision uint64 // in KINDS
}

// NewCatalog does no I/O. report is told of contracts that cannot be read and of KINDS being away; nil: nobody is.
func NewCatalog(js natsjs.JetStream, report func(error)) *Catalog {
	if report == nil {
		report = func(error) {}
	}
	return &Catalog{js: js, report: report, kinds: map[string]catalogued{}, seen: map[string]uint64{}, changed: make(chan struct{})}
}

// Schema of a kind and the revision of its contract.
func (c *Catalog) Schema(kind string) (*events.Schema, uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.kinds[kind]
	return k.schema, k.revision, ok
}

// Names of the declared kinds, sorted.
func (c *Catalog) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.kinds))
	for name := range c.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Changed is closed at the next change of a kind. Take it before you read, so that no change falls between.
func (c *Catalog) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Loaded says whether KINDS has been read at least once.
func (c *Catalog) Loaded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loaded
}

// Run keeps reading until ctx ends: one small direct get a second, which needs no consumer that could be lost.
func (c *Catalog) Run(ctx context.Context) error {
	tick := time.NewTicker(catalogEvery)
	defer tick.Stop()
	failing := false
	for {
		switch err := c.Load(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			c.report(err)
			failing = true
		case err == nil:
			failing = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Load reads KINDS once.
func (c *Catalog) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	prefix := "$KV." + events.KindsBucket + "."
	all, err := jetstreamext.GetLastMsgsFor(ctx, c.js, "KV_"+events.KindsBucket, []string{prefix + ">"})
	if err != nil {
		return fmt.Errorf("read %s: %w", events.KindsBucket, err)
	}
	changed := false
	for msg, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", events.KindsBucket, err)
		}
		kind := strings.TrimPrefix(msg.Subject, prefix)
		if msg.Header.Get("KV-Operation") != "" {
			continue // a kind that is scored does not end by a deleted key
		}
		if c.take(kind, msg.Sequence, msg.Data) {
			changed = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if changed || !c.loaded {
		c.loaded = true
		close(c.changed)
		c.changed = make(chan struct{})
	}
	return nil
}

func (c *Catalog) take(kind string, revision uint64, body []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen[kind] >= revision {
		return false
	}
	c.seen[kind] = revision
	contract, err := events.ParseContract(body)
	if err == nil && contract.Kind != kind {
		err = fmt.Errorf("the contract is of kind %s", contract.Kind)
	}
	var schema *events.Schema
	if err == nil {
		schema, err = events.Compile(contract)
	}
	if err != nil {
		c.report(fmt.Errorf("kind %s, revision %d of %s is not taken: %w", kind, revision, events.KindsBucket, err))
		return false
	}
	c.kinds[kind] = catalogued{schema, revision}
	return true
}
