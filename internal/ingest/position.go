package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// headerRun names, on a position, the run of an ingest that committed it.
const headerRun = "Riskweir-Run"

// storedPosition is the last position of a source, as its stream has it. seq 0: there is none.
type storedPosition struct {
	events.SourcePosition
	seq uint64
	at  time.Time
	run string
}

// readPosition asks the stream's leader: a replica may be behind.
func readPosition(ctx context.Context, nc *nats.Conn, kind, subject string) (p storedPosition, err error) {
	stream := events.EventsStream(kind)
	wrap := func(err error) (storedPosition, error) {
		return p, fmt.Errorf("read position %s: %w", subject, err)
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"last_by_subj":%q}`, subject))
	if err != nil {
		return wrap(err)
	}
	var answer struct {
		Error   *natsjs.APIError `json:"error"`
		Message *struct {
			Seq    uint64    `json:"seq"`
			Time   time.Time `json:"time"`
			Header []byte    `json:"hdrs"`
			Data   []byte    `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return wrap(err)
	}
	switch {
	case answer.Error != nil && answer.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound:
		return p, nil
	case answer.Error != nil && answer.Error.ErrorCode == natsjs.JSErrCodeStreamNotFound:
		return p, fmt.Errorf("kind %s has no stream %s: declare it with `riskweir kind apply`", kind, stream)
	case answer.Error != nil:
		return wrap(answer.Error)
	case answer.Message == nil:
		return wrap(errors.New("the answer has no message"))
	}
	m := answer.Message
	if p.SourcePosition, err = events.DecodeSourcePosition(m.Data); err != nil {
		return wrap(err)
	}
	header, err := nats.DecodeHeadersMsg(m.Header)
	if err != nil && len(m.Header) > 0 {
		return wrap(err)
	}
	p.seq, p.at, p.run = m.Seq, m.Time, header.Get(headerRun)
	return p, nil
}

// positionMsg is what is stored as the position.
func positionMsg(subject, run string, p events.SourcePosition) (*nats.Msg, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("position: %w", err)
	}
	m := nats.NewMsg(subject)
	m.Header[headerRun] = []string{run}
	m.Data = body
	return m, nil
}

// sameFile says whether a fingerprint, as a feed of this mode stores it, is of the file that matches is asked about.
func sameFile(fingerprint, mode string, matches func(string) bool) bool {
	of, file, ok := strings.Cut(fingerprint, " of ")
	return ok && of == mode && matches(file)
}
