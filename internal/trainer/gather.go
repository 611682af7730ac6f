package trainer

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// Gathered is what the streams of a kind, or a file, hold to measure a version by: read, joined and decoded as for training.
type Gathered struct {
	Data *Dataset // in the order of the events' own time
	// Seqs has the sequence in EVENTS of each record; nil: they are of a file.
	Seqs     []uint64
	Training model.Training // what would be said of a version that was trained on all of it
	Excluded Exclusions
}

// Exclusions count what was read and is not among the records.
type Exclusions struct {
	Invalid   int // they break the contract
	Repeated  int // they have the id of an earlier one
	Unlabeled int // nothing is known of them yet, or they are younger than the maturity
	LetGo     int // for want of room
	Other     int // probes, and events whose memory is not known
	BadLabels int // labels that cannot be read
	Unmatched int // labels of events that are not held
}

// gatherStall is how long reading may stand still; an election takes 4 to 9 s.
const gatherStall = 30 * time.Second

// Gather reads EVENTS and LABELS of a kind to their end, as a trainer does, and returns what it would train on now, of more than most the latest.
func Gather(ctx context.Context, js jetstream.JetStream, schema *events.Schema, revision uint64, most int) (Gathered, error) {
	name := schema.Contract.Kind
	for _, stream := range []string{events.EventsStream(name), events.LabelsStream} {
		if _, err := js.Stream(ctx, stream); err != nil {
			return Gathered{}, fmt.Errorf("look at %s: %w", stream, err)
		}
	}
	cfg := Config{Instance: "report-" + nuid.Next()[:8], MaxRows: most}
	cfg.setDefaults()
	cfg.MaxPending = max(cfg.MaxPending, most)
	t := &Trainer{cfg: cfg, log: zap.NewNop(), kinds: map[string]*kind{}}
	k := &kind{trainer: t, name: name, schema: schema, revision: revision}
	k.reset()
	reading, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { k.follow(reading, js) })
	err := k.awaitEnd(ctx)
	cancel()
	running.Wait()
	if err != nil {
		return Gathered{}, fmt.Errorf("read %s and its labels: %w", events.EventsStream(name), err)
	}
	m := k.material(cfg.MaxRows)
	g := Gathered{}
	g.Data, g.Seqs, g.Training = m.dataset()
	s := k.join.stats
	g.Excluded = Exclusions{
		Invalid: k.counts.invalid, Repeated: s.duplicate, LetGo: s.dropped, Other: k.counts.probes + k.counts.mute,
		BadLabels: k.counts.badLabels, Unmatched: s.unmatched, Unlabeled: max(0, s.events-s.dropped-g.Data.Len()),
	}
	return g, nil
}

// awaitEnd returns when both streams have been read to their end.
func (k *kind) awaitEnd(ctx context.Context) error {
	var last, labels uint64
	moved := time.Now()
	for {
		k.mu.Lock()
		done, at, l := k.eventsRead && k.labelsRead, k.join.last, k.join.labels
		k.mu.Unlock()
		switch {
		case done:
			return nil
		case at != last || l != labels:
			last, labels, moved = at, l, time.Now()
		case time.Since(moved) > gatherStall:
			return fmt.Errorf("nothing came for %s: try again", gatherStall)
		}
		tail.Pause(ctx, 20*time.Millisecond)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// GatherFile reads a file of rows as Offline does. The rows are in cfg's order, of which the training part comes first in train.
func GatherFile(ctx context.Context, cfg OfflineConfig) (g Gathered, train, test []int, err error) {
	rep, data, rows, err := cfg.load(ctx)
	if err != nil {
		return g, nil, nil, err
	}
	g = Gathered{Data: data, Excluded: Exclusions{Invalid: rep.Invalid, Unlabeled: rep.Unlabelled}}
	g.Training = model.Training{Rows: data.Len(), DataHash: data.Hash()}
	for i := range data.Len() {
		if data.labels[i] {
			g.Training.Positives++
		}
	}
	train, test = partition(cfg.Split, rows)
	return g, train, test, nil
}
