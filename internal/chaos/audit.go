package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// audit reads both streams once all is quiet: the ids of the events, and the times at which lanes committed.
func audit(ctx context.Context, js jetstream.JetStream, kind string, l *Load, least time.Duration) (Stored, *history, error) {
	var s Stored
	var found Marks
	name := func(format string, a ...any) {
		if len(s.Named) < maxNamed {
			s.Named = append(s.Named, fmt.Sprintf(format, a...))
		}
	}
	l.acks.mu.Lock()
	defer l.acks.mu.Unlock()
	acks := &l.acks
	var h *history
	err := each(ctx, js, events.EventsStream(kind), "events."+kind+".>", true, func(m jetstream.Msg, at time.Time, seq uint64) error {
		e, err := events.ParseStoredEvent(m.Subject())
		if err != nil {
			return err
		}
		if h == nil {
			h = newHistory(at, seq)
		}
		h.event(seq, e.Lane, at)
		n, ok := l.number(m.Headers().Get(jetstream.MsgIDHeader))
		if !ok {
			return nil // somebody else's
		}
		known := n < uint64(len(acks.seq)) && acks.seq[n] != 0
		switch {
		case !found.Set(n):
			s.Doubled++
			name("doubled: id %s%d is at %d too", l.prefix, n, seq)
		case !known:
			s.Unacknowledged++
		case uint64(acks.seq[n]) != seq:
			s.Misplaced++
			name("misplaced: id %s%d was acknowledged at %d, and is at %d", l.prefix, n, acks.seq[n], seq)
		}
		return nil
	})
	if err != nil {
		return s, nil, err
	}
	if h == nil {
		return s, nil, fmt.Errorf("%s is empty", events.EventsStream(kind))
	}
	s.Acknowledged = acks.count
	s.Doubled += acks.moves
	for _, n := range acks.moved {
		name("doubled: id %s%d was acknowledged under two sequences", l.prefix, n)
	}
	for n, seq := range acks.seq {
		if seq != 0 && !found.Has(uint64(n)) {
			s.Lost++
			name("lost: id %s%d, acknowledged at %d", l.prefix, n, seq)
		}
	}
	err = each(ctx, js, events.ScoresStream(kind), "position."+kind+".*", false, func(m jetstream.Msg, at time.Time, _ uint64) error {
		_, lane, err := events.ParsePositionSubject(m.Subject())
		if err != nil {
			return err
		}
		p, err := events.DecodePosition(m.Data())
		if err != nil {
			return err
		}
		h.committed(lane, p.Seq, at, least)
		return nil
	})
	return s, h, err
}

// each hands on what the stream holds now, in order.
func each(ctx context.Context, js jetstream.JetStream, stream, filter string, headers bool, f func(m jetstream.Msg, at time.Time, seq uint64) error) error {
	c, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filter}, HeadersOnly: headers})
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	left := info.NumPending
	if left == 0 {
		return nil
	}
	msgs, err := c.Messages(jetstream.PullMaxMessages(4000))
	if err != nil {
		return fmt.Errorf("read %s: %w", stream, err)
	}
	defer msgs.Stop()
	for {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, errors.Join(err, context.Cause(ctx)))
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read %s: %w", stream, err)
		}
		if err := f(m, meta.Timestamp, meta.Sequence.Stream); err != nil {
			return fmt.Errorf("read %s at %d: %w", stream, meta.Sequence.Stream, err)
		}
		if meta.NumPending == 0 {
			return nil
		}
	}
}
