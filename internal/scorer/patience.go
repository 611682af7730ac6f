package scorer

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	topology "github.com/riskweir/riskweir/jetstream"
)

// Bounds of how long a commit waits for its answer. A stream that changes its leader loses what is on its way to the one before: its
// lane stands still for as long as it waits. An answer that would have come later costs the work of the batch.
const (
	leastPatience = 500 * time.Millisecond // a commit takes some 3 ms
	mostPatience  = 16 * time.Second       // a claim that is never known to be stored keeps its lane from running
)

// patient is a committer that waits twice as long each time that the answer does not come, as a slow disk or an overloaded machine
// need. One lane uses it, for one commit at a time.
//
//	leastPatience <= Timeout <= mostPatience
type patient struct{ topology.Committer }

func newPatient(conn *nats.Conn, stream string) *patient {
	return &patient{topology.Committer{Conn: conn, Stream: stream, Timeout: leastPatience}}
}

func (p *patient) Commit(ctx context.Context, msgs []*nats.Msg) (uint64, error) {
	began := time.Now()
	seq, err := p.Committer.Commit(ctx, msgs)
	p.Timeout = patience(p.Timeout, time.Since(began), errors.Is(err, context.DeadlineExceeded))
	return seq, err
}

// patience of the next commit, after one that took so long and was answered or not.
func patience(now, took time.Duration, unanswered bool) time.Duration {
	switch {
	case unanswered:
		return min(2*now, mostPatience)
	case took < now/8:
		return max(now/2, leastPatience)
	}
	return now
}
