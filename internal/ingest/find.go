package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

const (
	// clockSkew between the nodes that stamp an event and its outcome.
	clockSkew  = 10 * time.Second
	searchStep = uint64(64)
	// searchGone is when the server forgets a search that we could not end.
	searchGone = 10 * time.Second
)

// find reads the committed outcome of an event from SCORES_<kind>; the subject is empty while there is none to be seen. The
// last outcome of the entity is read first, from any replica. Where that is of a later event, the entity's outcomes are
// read from when the event was stored on, through a consumer: a read by sequence would need
// the permission to read all streams.
func (s *Server) find(ctx context.Context, kind, token string, seq uint64) (subject string, body []byte, err error) {
	filter := events.ScoreSubject(kind, "*", token)
	wrap := func(err error) (string, []byte, error) {
		return "", nil, fmt.Errorf("look for the outcome of event %d in %s: %w", seq, filter, err)
	}
	stream, err := s.streams.Stream(ctx, events.ScoresStream(kind))
	if err != nil {
		return wrap(err)
	}
	last, err := stream.GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return "", nil, nil
	} else if err != nil {
		return wrap(err)
	}
	switch which, err := place(last.Data, seq); {
	case err != nil:
		return wrap(err)
	case which == 0:
		return last.Subject, last.Data, nil
	case which < 0:
		return "", nil, nil
	}
	cfg := natsjs.ConsumerConfig{
		FilterSubject: filter, AckPolicy: natsjs.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: searchGone,
	}
	stored, err := s.storedAt(ctx, kind, seq)
	if err != nil {
		return wrap(err)
	}
	if !stored.IsZero() {
		from := stored.Add(-clockSkew)
		cfg.DeliverPolicy, cfg.OptStartTime = natsjs.DeliverByStartTimePolicy, &from
	}
	c, err := stream.CreateConsumer(ctx, cfg)
	if err != nil {
		return wrap(err)
	}
	// Nobody waits for the end of the search: the answer has a deadline. If this is lost, it goes by itself.
	defer s.cfg.Conn.Publish("$JS.API.CONSUMER.DELETE."+events.ScoresStream(kind)+"."+c.CachedInfo().Name, nil) //nolint:errcheck
	for left := c.CachedInfo().NumPending; left > 0; {
		n := min(searchStep, left)
		batch, err := c.Fetch(int(n), natsjs.FetchContext(ctx))
		if err != nil {
			return wrap(err)
		}
		left -= n
		for m := range batch.Messages() {
			switch which, err := place(m.Data(), seq); {
			case err != nil:
				return wrap(err)
			case which == 0:
				return m.Subject(), m.Data(), nil
			case which > 0: // the entity's outcomes come in the order of its events
				return "", nil, nil
			}
		}
		if err := batch.Error(); err != nil {
			return wrap(err)
		}
	}
	return "", nil, nil
}

// place says whether an outcome is of the event (0), or of one before (-1) or after it (1).
func place(body []byte, seq uint64) (int, error) {
	first, last, err := events.OutcomeSeq(body)
	switch {
	case err != nil:
		return 0, err
	case last < seq:
		return -1, nil
	case first > seq:
		return 1, nil
	}
	return 0, nil
}

// storedAt is when an event was stored; zero: it is gone.
func (s *Server) storedAt(ctx context.Context, kind string, seq uint64) (time.Time, error) {
	reply, err := s.cfg.Conn.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+events.EventsStream(kind), fmt.Appendf(nil, `{"seq":%d}`, seq))
	if err != nil {
		return time.Time{}, err
	}
	var answer struct {
		Error   *natsjs.APIError `json:"error"`
		Message struct {
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return time.Time{}, err
	}
	if answer.Error != nil && answer.Error.ErrorCode != natsjs.JSErrCodeMessageNotFound {
		return time.Time{}, answer.Error
	}
	return answer.Message.Time, nil
}
