package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

const (
	commitTimeout = 5 * time.Second
	zeroAttempts  = 8 // with transientPause between them
)

// zeroPositions writes position 0 for every lane of a new kind, in one atomic batch, once in the kind's
// life; afterwards it checks the positions there are. Position 0 is right only if no event can have been
// scored before:
//
//	SCORES never held a message  and  (EVENTS never held one  or  SCORES was made no later than EVENTS)
//
// SCORES is made first and every outcome is stored with a position, so whoever stops between the
// streams and their positions may go on later, also if events have come meanwhile; while a SCORES that
// was made anew beside an EVENTS in use is told apart: its lanes' positions are lost.
func zeroPositions(ctx context.Context, js natsjs.JetStream, c events.Contract) (bool, error) {
	in, err := streamInfo(ctx, js, events.EventsStream(c.Kind))
	if err != nil {
		return false, err
	}
	out, err := streamInfo(ctx, js, events.ScoresStream(c.Kind))
	if err != nil {
		return false, err
	}
	if out.State.LastSeq == 0 {
		if in.State.LastSeq != 0 && out.Created.After(in.Created) {
			return false, fmt.Errorf("%w: %s was made anew at %s, when %s had been in use since %s: which of its events have outcomes is not known. "+
				"Say where to go on: `riskweir lane rebase %s`", ErrRebase, out.Config.Name, out.Created.Format(time.RFC3339), in.Config.Name, in.Created.Format(time.RFC3339), c.Kind)
		}
		err := writeZero(ctx, js, c, in.Created)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, ErrFenced) { // somebody else has just written them
			return false, err
		}
	}
	return false, checkPositions(ctx, js, c, in)
}

func writeZero(ctx context.Context, js natsjs.JetStream, c events.Contract, incarnation time.Time) error {
	body, err := json.Marshal(events.Position{Incarnation: incarnation})
	if err != nil {
		return fmt.Errorf("topology: position 0: %w", err)
	}
	var batch []*nats.Msg
	for _, lane := range events.LaneNumbers(c.Lanes) {
		zero := nats.NewMsg(events.PositionSubject(c.Kind, lane))
		zero.Data = body
		Fence(zero, 0)
		batch = append(batch, zero)
	}
	to := Committer{Conn: js.Conn(), Stream: events.ScoresStream(c.Kind), Timeout: commitTimeout}
	// Right after the stream was made, word of it may not have reached the node that we are connected to:
	// then nobody takes the batch, or not all of it. In both cases nothing of it is stored.
	for attempt := 1; ; attempt++ {
		_, err := to.Commit(ctx, batch)
		if err == nil {
			return nil
		}
		unheard := errors.Is(err, nats.ErrNoResponders) || errors.Is(err, ErrRefused) || errors.Is(err, ErrInFlight)
		if !unheard || attempt == zeroAttempts {
			return fmt.Errorf("topology: write position 0 of %d lanes: %w", len(batch), err)
		}
		pause := time.NewTimer(transientPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("topology: write position 0 of %d lanes: %w", len(batch), errors.Join(err, ctx.Err()))
		case <-pause.C:
		}
	}
}

// checkPositions returns ErrRebase for every lane that could not go on from its position.
func checkPositions(ctx context.Context, js natsjs.JetStream, c events.Contract, in *natsjs.StreamInfo) error {
	var errs []error
	for _, lane := range events.LaneNumbers(c.Lanes) {
		p, found, err := ReadPosition(ctx, js.Conn(), c.Kind, lane)
		if err != nil {
			return err
		}
		lost := func(format string, a ...any) {
			errs = append(errs, fmt.Errorf("%w of %s lane %d: "+format+". Say where to go on: `riskweir lane rebase %s`",
				append(append([]any{ErrRebase, c.Kind, lane}, a...), c.Kind)...))
		}
		switch {
		case !found:
			lost("there is none, though %s has been in use", events.ScoresStream(c.Kind))
		case !p.Incarnation.Equal(in.Created):
			lost("it counts in a stream made at %s; %s was made at %s", p.Incarnation.Format(time.RFC3339Nano), in.Config.Name, in.Created.Format(time.RFC3339Nano))
		}
	}
	return errors.Join(errs...)
}

// ReadPosition of a lane, if there is one. It asks the stream's leader: a replica may be behind and know of no position yet.
func ReadPosition(ctx context.Context, nc *nats.Conn, kind string, lane int) (p events.Position, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	wrap := func(err error) error {
		return fmt.Errorf("topology: read position of %s lane %d: %w", kind, lane, err)
	}
	ask := fmt.Appendf(nil, `{"last_by_subj":%q}`, events.PositionSubject(kind, lane))
	var msg *nats.Msg
	err = patiently(ctx, func(ctx context.Context) (err error) {
		msg, err = nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+events.ScoresStream(kind), ask)
		return err
	})
	if err != nil {
		return p, false, wrap(err)
	}
	var reply struct {
		Error   *natsjs.APIError `json:"error"`
		Message *struct {
			Data []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(msg.Data, &reply); err != nil {
		return p, false, wrap(err)
	}
	switch {
	case reply.Error != nil && reply.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound:
		return p, false, nil
	case reply.Error != nil:
		return p, false, wrap(reply.Error)
	case reply.Message == nil:
		return p, false, wrap(errors.New("the answer has no message"))
	}
	if err := json.Unmarshal(reply.Message.Data, &p); err != nil {
		return p, false, wrap(err)
	}
	return p, true, nil
}
