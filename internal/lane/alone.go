package lane

import (
	"context"

	"golang.org/x/sync/semaphore"
)

// everybody is more than the lanes of a process.
const everybody = 1 << 20

// company keeps the lanes of a process from being blamed for each other: a process that dies takes all of them along. While one
// lane has stored that it sets out upon events that owners may have died of, no other makes outcomes.
//
//	weight out = lanes that make outcomes now, or everybody: one lane between its mark and the end of the commit behind it
type company struct{ lanes *semaphore.Weighted }

func newCompany() company { return company{semaphore.NewWeighted(everybody)} }

func (c company) join(ctx context.Context) error  { return c.lanes.Acquire(ctx, 1) }
func (c company) leave()                          { c.lanes.Release(1) }
func (c company) clear(ctx context.Context) error { return c.lanes.Acquire(ctx, everybody) }
func (c company) open()                           { c.lanes.Release(everybody) }
