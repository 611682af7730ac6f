package jetstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/pkg/events"
)

// sourceHeader is set by the server on a message that it copies from another stream.
const sourceHeader = "Nats-Stream-Source"

// CopiedFrom is the sequence that a message had in the stream from which the server copied it, which of a bucket is its revision.
func CopiedFrom(h nats.Header) (uint64, error) {
	origin := h.Get(sourceHeader) // stream, sequence, ...
	words := strings.Fields(origin)
	if len(words) < 2 {
		return 0, fmt.Errorf("header %s is %q: want a stream and a sequence", sourceHeader, origin)
	}
	seq, err := strconv.ParseUint(words[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("header %s is %q: %w", sourceHeader, origin, err)
	}
	return seq, nil
}

// GlimpsePosition is ReadPosition as whichever replica answers has it: for who looks, and does not own the lane. Nothing but positions need be
// allowed for it.
func GlimpsePosition(ctx context.Context, nc *nats.Conn, kind string, lane int) (p events.Position, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	var msg *nats.Msg
	err = patiently(ctx, func(ctx context.Context) (err error) {
		msg, err = nc.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+events.ScoresStream(kind)+"."+events.PositionSubject(kind, lane), nil)
		return err
	})
	if err == nil {
		switch msg.Header.Get("Status") {
		case "":
			p, err = events.DecodePosition(msg.Data)
		case "404":
			return p, false, nil
		default:
			err = errors.New(msg.Header.Get("Description"))
		}
	}
	if err != nil {
		return p, false, fmt.Errorf("topology: glimpse the position of %s lane %d: %w", kind, lane, err)
	}
	return p, true, nil
}
