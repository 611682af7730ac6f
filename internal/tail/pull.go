package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	pullExpiry  = 5 * time.Second
	pullSilence = 3 * readerHeartbeat // without a message or heartbeat: the consumer or its server is gone
)

// pull asks a consumer for messages. The client library takes a stored message that has no body and a header Status for a word of the server's, and
// drops it; anyone who may publish can store one. Here a word of the server's is what comes under the inbox's own subject, as it does for
// a lane's run, since deliveries come under the subject that they were stored under.
//
//	outstanding = asked for, and neither come nor given up by the server
type pull struct {
	conn        *nats.Conn
	subject     string // of requests
	inbox       string
	sub         *nats.Subscription
	msgs        chan *nats.Msg
	outstanding int
	asked       int
}

func pullFrom(conn *nats.Conn, stream, consumer string) (*pull, error) {
	p := &pull{conn: conn, subject: "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer, inbox: conn.NewInbox(), msgs: make(chan *nats.Msg, readerBatch+64)}
	var err error
	p.sub, err = conn.ChanSubscribe(p.inbox+".*", p.msgs)
	return p, err
}

// close is best effort: the connection may be gone.
func (p *pull) close() { _ = p.sub.Unsubscribe() }

// next returns the next message, or nil for a sign of life. taken is the consumer sequence of the last message that came.
func (p *pull) next(ctx context.Context, taken uint64) (*nats.Msg, error) {
	if err := p.ask(); err != nil {
		return nil, err
	}
	silence := time.NewTimer(pullSilence)
	defer silence.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-silence.C:
		return nil, fmt.Errorf("no sign of the consumer for %s", pullSilence)
	case msg := <-p.msgs:
		if strings.HasPrefix(msg.Subject, p.inbox+".") {
			return nil, p.word(msg, taken)
		}
		p.outstanding--
		return msg, nil
	}
}

// ask keeps between half a batch and a whole one asked for.
func (p *pull) ask() error {
	want := readerBatch - p.outstanding
	if want < readerBatch/2 {
		return nil
	}
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{want, pullExpiry, readerHeartbeat})
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	p.outstanding += want
	p.asked++
	return p.conn.PublishRequest(p.subject, p.inbox+"."+strconv.Itoa(p.asked), body)
}

// word is what the server says about a pull (ADR-37): an error if reading cannot go on.
func (p *pull) word(msg *nats.Msg, taken uint64) error {
	code, text := msg.Header.Get("Status"), msg.Header.Get("Description")
	switch {
	case code == "100":
		sent, err := strconv.ParseUint(msg.Header.Get("Nats-Last-Consumer"), 10, 64)
		if err != nil {
			return fmt.Errorf("heartbeat %v cannot be read", msg.Header)
		}
		if sent > taken {
			return fmt.Errorf("%d messages of the consumer came, of %d sent", taken, sent)
		}
		return nil
	case code == "404", code == "408", code == "409" && strings.HasPrefix(text, "Batch Completed"):
		if left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages")); err == nil {
			p.outstanding = max(0, p.outstanding-left)
		}
		return nil
	case code == "503":
		return nats.ErrNoResponders
	}
	return errors.New(strings.TrimSpace("status " + code + " " + text))
}
