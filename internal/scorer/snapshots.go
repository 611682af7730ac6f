package scorer

import (
	"context"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// followSnapshots reads the last snapshot of each kind from ONLINE, over and over, until ctx ends. What cannot be read is read again; a
// snapshot that is refused counts as one that did not come.
func (s *Scorer) followSnapshots(ctx context.Context, js natsjs.JetStream, catalog *topology.Catalog, p *panel) error {
	tick := time.NewTicker(s.cfg.SnapshotPoll)
	defer tick.Stop()
	var stream natsjs.Stream
	told := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := func() (err error) {
			if stream == nil {
				if stream, err = js.Stream(ctx, events.OnlineStream); err != nil {
					return fmt.Errorf("look at %s: %w", events.OnlineStream, err)
				}
			}
			for _, kind := range catalog.Names() {
				err = errors.Join(err, readSnapshot(ctx, stream, kind, s.cfg.Trust, p))
			}
			return err
		}()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && err.Error() != told {
			s.cfg.Log.Warn("snapshots of the members that learn online", zap.Error(err))
		}
		if told = ""; err != nil {
			told = err.Error()
		}
	}
}

func readSnapshot(ctx context.Context, stream natsjs.Stream, kind string, trust *model.Trust, p *panel) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	m, err := stream.GetLastMsgForSubject(ctx, events.OnlineSubject(kind))
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("last snapshot of %s: %w", kind, err)
	}
	if m.Sequence == p.sequence(kind) {
		return nil
	}
	snapshot, err := model.DecodeSnapshot(m.Data)
	if err == nil && snapshot.Kind != kind {
		err = fmt.Errorf("%w: it is of kind %s", model.ErrSnapshot, snapshot.Kind)
	}
	if err == nil {
		err = snapshot.Verify(trust)
	}
	if err != nil {
		p.take(kind, m.Sequence, nil)
		return fmt.Errorf("snapshot %d of %s: %w", m.Sequence, kind, err)
	}
	p.take(kind, m.Sequence, snapshot)
	return nil
}
