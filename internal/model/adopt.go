package model

import (
	"context"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Behind is a lane that has not committed at the revision that is waited for.
type Behind struct {
	Lane     int
	Revision uint64 // that it has committed at
	Owner    string // instance of the scorer; empty: it has none
	Err      error  // why its position could not be read, last time
}

// adoptPoll is how often positions are read. A busy lane commits many times a second, an idle one looks every 100 ms.
const adoptPoll = 10 * time.Millisecond

// AwaitLanes returns when every lane has committed a position at the revision, or a later one, or when ctx ends; then it
// returns the lanes that have not, in the order given. A lane without events commits its position alone. From a lane's position at the
// revision on, no event of the lane is scored at an earlier one. read gives a lane's position, if there is one.
func AwaitLanes(ctx context.Context, lanes []int, revision uint64, read func(ctx context.Context, lane int) (events.Position, bool, error)) []Behind {
	behind := make([]Behind, len(lanes))
	for i, lane := range lanes {
		behind[i].Lane = lane
	}
	for {
		left := behind[:0]
		for _, b := range behind {
			p, found, err := read(ctx, b.Lane)
			if err == nil && found && p.Revision >= revision {
				continue
			}
			switch {
			case err == nil:
				b.Revision, b.Owner, b.Err = p.Revision, p.Owner, nil
			case ctx.Err() == nil: // else it is the wait that has ended
				b.Err = err
			}
			left = append(left, b)
		}
		behind = left
		if len(behind) == 0 || !pause(ctx, adoptPoll) {
			return behind
		}
	}
}
