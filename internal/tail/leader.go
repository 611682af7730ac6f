package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ErrNone: the stream's leader holds no such message.
var ErrNone = errors.New("the stream holds no such message")

// Held is a message as the stream's leader holds it.
type Held struct {
	Subject string
	Seq     uint64
	Header  nats.Header
	Data    []byte
	Time    time.Time // when it was stored
}

// At returns the message at seq, or ErrNone. It asks the stream's leader: a direct get may be answered by a replica that is behind.
func At(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (Held, error) {
	if seq == 0 {
		return Held{}, ErrNone
	}
	return ask(ctx, js, stream, fmt.Appendf(nil, `{"seq":%d}`, seq))
}

// FirstFrom returns the first message at seq or after it, or ErrNone. It asks as At does.
func FirstFrom(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (Held, error) {
	return ask(ctx, js, stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, max(seq, 1)))
}

// FirstSince is FirstFrom by the time of storage.
func FirstSince(ctx context.Context, js jetstream.JetStream, stream string, t time.Time) (Held, error) {
	return ask(ctx, js, stream, fmt.Appendf(nil, `{"start_time":%q,"next_by_subj":">"}`, t.UTC().Format(time.RFC3339Nano)))
}

// LastOf returns the last message of a subject, or ErrNone. It asks as At does.
func LastOf(ctx context.Context, js jetstream.JetStream, stream, subject string) (Held, error) {
	return ask(ctx, js, stream, fmt.Appendf(nil, `{"last_by_subj":%q}`, subject))
}

func ask(ctx context.Context, js jetstream.JetStream, stream string, request []byte) (Held, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, request)
	if err != nil {
		return Held{}, fmt.Errorf("ask the leader of %s for a message: %w", stream, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return Held{}, fmt.Errorf("answer of the leader of %s: %w", stream, err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return Held{}, ErrNone
	case answer.Error != nil:
		return Held{}, fmt.Errorf("ask the leader of %s for a message: %w", stream, answer.Error)
	case answer.Message == nil:
		return Held{}, fmt.Errorf("answer of the leader of %s: it has neither a message nor an error", stream)
	}
	m := answer.Message
	held := Held{Subject: m.Subject, Seq: m.Seq, Data: m.Data, Time: m.Time}
	if len(m.Header) > 0 {
		if held.Header, err = nats.DecodeHeadersMsg(m.Header); err != nil {
			return Held{}, fmt.Errorf("headers of message %d of %s: %w", m.Seq, stream, err)
		}
	}
	return held, nil
}
