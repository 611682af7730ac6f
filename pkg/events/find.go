package events

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"
)

// Outcome reads the committed outcome of an event of the entity from SCORES_<kind>, and its band; BandInvalid has an
// Invalid for a body, the others a Score. The body is nil while there is none to be seen: a replica that is behind may
// answer, so nil is no promise.
func (c *Client) Outcome(ctx context.Context, kind, entity string, seq uint64) (body []byte, band string, err error) {
	token, err := EscapeEntity(entity)
	if err != nil {
		return nil, "", err
	}
	var stream jetstream.Stream
	m, err := c.look(ctx, &stream, kind, ScoreSubject(kind, "*", token), seq)
	if err != nil || m == nil {
		return nil, "", err
	}
	return namedOutcome(m.Subject, m.Data)
}
