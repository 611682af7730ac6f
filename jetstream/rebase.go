package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// RebaseRequest says where a lane goes on, on a person's word.
type RebaseRequest struct {
	Kind   string
	Lane   int
	Seq    uint64 // EVENTS sequence of the last event that is taken as having its outcome
	By     string
	Reason string
	Force  bool // also where the lane's position is sound: outcomes will be doubled, or left out
}

// Rebase stores the position that a lane goes on from, fenced by the one that there is, and leaves a record of it in
// ALERTS. If we die between the two, the position stands and names who wrote it.
//
// A halted lane claims its unsound position now and then, to see whether it was mended; a claim that comes between is no
// reason to give up.
func Rebase(ctx context.Context, js natsjs.JetStream, r RebaseRequest) (events.Position, error) {
	for try := 1; ; try++ {
		p, err := rebase(ctx, js, r)
		if !errors.Is(err, ErrFenced) || try == rebaseTries {
			return p, err
		}
	}
}

const rebaseTries = 5

func rebase(ctx context.Context, js natsjs.JetStream, r RebaseRequest) (events.Position, error) {
	var p events.Position
	k, err := ReadKind(ctx, js, r.Kind)
	if err != nil {
		return p, err
	}
	if !slices.Contains(events.LaneNumbers(k.Contract.Lanes), r.Lane) {
		return p, fmt.Errorf("topology: kind %s has lanes 0 to %d and %d, and no %d", r.Kind, k.Contract.Lanes-1, events.StrayLane, r.Lane)
	}
	in, err := streamInfo(ctx, js, events.EventsStream(r.Kind))
	if err != nil {
		return p, err
	}
	if r.Seq > in.State.LastSeq {
		return p, fmt.Errorf("topology: %s ends at event %d, and the lane would go on after %d", in.Config.Name, in.State.LastSeq, r.Seq)
	}
	out, err := js.Stream(ctx, events.ScoresStream(r.Kind))
	if err != nil {
		return p, fmt.Errorf("topology: rebase: %w", err)
	}
	var fence uint64
	last, err := out.GetLastMsgForSubject(ctx, events.PositionSubject(r.Kind, r.Lane))
	switch {
	case err == nil:
		fence = last.Sequence
		if err := json.Unmarshal(last.Data, &p); err != nil {
			return p, fmt.Errorf("topology: position %d of %s: %w", last.Sequence, out.CachedInfo().Config.Name, err)
		}
	case !errors.Is(err, natsjs.ErrMsgNotFound):
		return p, fmt.Errorf("topology: read position of %s lane %d: %w", r.Kind, r.Lane, err)
	}
	if err == nil && p.Incarnation.Equal(in.Created) && p.Seq <= in.State.LastSeq && !r.Force {
		return p, fmt.Errorf("topology: %s lane %d needs no rebase: its position, event %d of the %s there is, is sound", r.Kind, r.Lane, p.Seq, in.Config.Name)
	}
	before := p
	p = events.Position{Seq: r.Seq, Incarnation: in.Created, Epoch: p.Epoch + 1, Revision: p.Revision}
	body, err := json.Marshal(p)
	if err != nil {
		return p, fmt.Errorf("topology: position: %w", err)
	}
	msg := nats.NewMsg(events.PositionSubject(r.Kind, r.Lane))
	msg.Data = body
	msg.Header.Set("Riskweir-Rebased-By", r.By)
	msg.Header.Set("Riskweir-Reason", r.Reason)
	Fence(msg, fence)
	to := Committer{Conn: js.Conn(), Stream: events.ScoresStream(r.Kind), Timeout: commitTimeout}
	if _, err := to.Commit(ctx, []*nats.Msg{msg}); err != nil {
		if errors.Is(err, ErrFenced) {
			return p, fmt.Errorf("topology: rebase of %s lane %d: a scorer owns it and has just committed; is it lost at all? %w", r.Kind, r.Lane, err)
		}
		return p, fmt.Errorf("topology: rebase of %s lane %d: %w", r.Kind, r.Lane, err)
	}
	record, err := json.Marshal(events.Alert{
		Incident: fmt.Sprintf("rebase-%s-%d-%d", r.Kind, r.Lane, p.Epoch), State: events.Resolved, Severity: events.Ticket, What: "rebase",
		Kind: r.Kind, Lane: &r.Lane, Cause: r.Reason, Action: fmt.Sprintf("the lane goes on after event %d", r.Seq), At: time.Now().UTC(),
		Evidence: map[string]string{"by": r.By, "before": fmt.Sprintf("event %d of the stream made at %s, epoch %d", before.Seq, before.Incarnation.Format(time.RFC3339Nano), before.Epoch)},
	})
	if err != nil {
		return p, fmt.Errorf("topology: record of the rebase: %w", err)
	}
	if _, err := js.Publish(ctx, events.AlertSubject(events.Ticket, "rebase"), record); err != nil {
		return p, fmt.Errorf("topology: the lane was rebased, but not recorded in %s: %w", events.AlertsStream, err)
	}
	return p, nil
}
