package chaos

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/poison"
	"github.com/riskweir/riskweir/pkg/events"
)

// deaths is how many scorers an event takes with it at least that kills them: two with the batch that it is in, two alone with it. The one
// after those sets it aside unread. It is CarefulAt + MaxTries of a lane.
const deaths = 4

// poisons are events that cannot be scored; those that kill scorers are there if this build has poison in it.
func poisons() []fault {
	all := []fault{{Terms: Terms{"poison-undecodable", 0, 0, quiet}, inject: poisoned("undecodable", 0)}}
	if poison.Enabled {
		for _, mode := range []string{poison.Panic, poison.Hang, poison.Memory} {
			all = append(all, fault{Terms: Terms{"poison-" + mode, 0, 0, longQuiet}, inject: poisoned(mode, deaths)})
		}
	}
	return all
}

// poisoned publishes one such event and waits until it has ended as invalid, with so many deaths put down to it, and its lane has gone on.
func poisoned(mode string, deaths int) injector {
	return func(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		entity := poison.Entity(mode, strconv.FormatUint(choice, 36))
		subject, err := events.EventSubject(e.kind, entity)
		if err != nil {
			return "", nil, err
		}
		msg := &nats.Msg{Subject: subject, Data: []byte(`{"neither": JSON`), Header: nats.Header{jetstream.MsgIDHeader: {entity}}}
		var seq uint64
		var lane int
		err = until(ctx, patience, func(ctx context.Context) error {
			ack, err := e.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
			if err != nil {
				return err
			}
			seq = ack.Sequence
			s, err := e.js.Stream(ctx, events.EventsStream(e.kind))
			if err != nil {
				return err
			}
			stored, err := s.GetMsg(ctx, seq)
			if err != nil {
				return err
			}
			at, err := events.ParseStoredEvent(stored.Subject)
			lane = at.Lane
			return err
		})
		if err != nil {
			return entity, nil, fmt.Errorf("publish it: %w", err)
		}
		e.lane = &lane
		began := time.Now()
		err = until(ctx, patience, func(ctx context.Context) error {
			s, err := e.js.Stream(ctx, events.ScoresStream(e.kind))
			if err != nil {
				return err
			}
			m, err := s.GetLastMsgForSubject(ctx, events.ScoreSubject(e.kind, events.BandInvalid, entity))
			if err != nil {
				return err
			}
			bad, err := events.DecodeInvalid(m.Data)
			if err != nil {
				return err
			}
			if bad.Seq != seq || bad.Attempts < deaths {
				return fmt.Errorf("event %d ended as %+v, want %d attempts", seq, bad, deaths)
			}
			return nil
		})
		if err != nil {
			err = fmt.Errorf("event %d has not ended as invalid: %w", seq, err)
		}
		return fmt.Sprintf("event %d of lane %d, %s", seq, lane, time.Since(began).Round(100*time.Millisecond)), nil, err
	}
}
