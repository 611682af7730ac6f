package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// maxErased bounds what a tombstone that is damaged could have this check pass over.
const maxErased = 100_000_000

const maxSeq = 1 << 62 // of a stream

// readErased takes what ERASURES says was erased of the EVENTS there is. It is read before EVENTS: an erasure that begins later shows as events
// without an outcome, or outcomes without an event, until the next check.
func (cfg *Config) readErased(ctx context.Context, c *checker) error {
	stream, filter := "KV_"+events.ErasuresBucket, "$KV."+events.ErasuresBucket+"."+cfg.Kind+".*"
	last, err := lastSeq(ctx, cfg.JS, stream, filter)
	if errors.Is(err, jetstream.ErrStreamNotFound) || noSuchStream(err) {
		return nil // a system from before there were erasures
	}
	if err != nil || last == 0 {
		return err
	}
	var made time.Time
	err = persist(ctx, func(ctx context.Context) error {
		s, err := cfg.JS.Stream(ctx, events.EventsStream(cfg.Kind))
		if err == nil {
			made = s.CachedInfo().Created
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look at %s: %w", events.EventsStream(cfg.Kind), err)
	}
	r := newReader(cfg.JS, stream, filter, 1, false)
	defer r.close(ctx)
	return r.upTo(ctx, last, func(m message) error {
		if len(m.data) == 0 {
			return nil
		}
		var t struct {
			Incarnation time.Time   `json:"incarnation"`
			Events      [][2]uint64 `json:"events"`
		}
		if err := json.Unmarshal(m.data, &t); err != nil {
			return fmt.Errorf("%s: %w", m.subject, err)
		}
		if !t.Incarnation.Equal(made) {
			return nil
		}
		for _, x := range t.Events {
			if x[1] < x[0] || x[1] > maxSeq || x[1]-x[0] >= maxErased {
				return fmt.Errorf("%s: the range %v", m.subject, x)
			}
			for seq := x[0]; seq <= x[1]; seq++ {
				if !c.erased.add(seq) {
					c.report.Erased++
				}
			}
		}
		return nil
	})
}

// noSuchStream is how the question for a message of a stream is answered that is not there.
func noSuchStream(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == jetstream.JSErrCodeStreamNotFound
}
