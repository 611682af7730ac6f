package events

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// refusals are what the server has refused to a connection since some moment. A refused publish or subscription gets no
// reply: only the connection's last error tells, a round trip later.
type refusals struct {
	nc     *nats.Conn
	before error // the last one by that moment
}

func (c *Client) refusals() refusals {
	r := refusals{nc: c.nc}
	if err := c.nc.LastError(); errors.Is(err, nats.ErrPermissionViolation) {
		r.before = err
	}
	return r
}

// An act that the server may refuse, in its words; the subject may end early.
type act string

func publishing(subject string) act  { return act(`Publish to ` + strconv.Quote(subject)) }
func subscribing(subject string) act { return act(`Subscription to ` + strconv.Quote(subject)) }

// asking is any request to JetStream with this beginning, such as CONSUMER.CREATE.<stream>.
func asking(request string) act { return publishing("$JS.API." + request).prefix() }

// prefix is any such act on a subject with this beginning.
func (a act) prefix() act { return a[:len(a)-1] }

// of says which of the acts was refused last, or nothing. role is who may do them.
func (r refusals) of(role string, acts ...act) error {
	err := r.nc.LastError()
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	text := err.Error()
	// Refused once for as long as the connection lives: its inbox is subscribed to once.
	if prefix := r.inboxPrefix(); strings.Contains(text, "Subscription to "+strconv.Quote(prefix)[:len(prefix)+1]) {
		return fmt.Errorf("no answer can come, the connection needs its user's inbox prefix, nats.CustomInboxPrefix(\"_INBOX_<role>\"): %w", err)
	}
	if err == r.before {
		return nil
	}
	for _, a := range acts {
		if strings.Contains(text, string(a)) {
			return fmt.Errorf("the connection's user may not, it needs the role %s: %w", role, err)
		}
	}
	return nil
}

func (r refusals) inboxPrefix() string {
	if p := r.nc.Opts.InboxPrefix; p != "" {
		return p + "."
	}
	return nats.InboxPrefix
}

// The last error is looked at so soon, then ever more seldom.
const (
	firstHeed = 10 * time.Millisecond
	lastHeed  = time.Second
)

// heed ends the context when one of the acts is refused; that is its cause, then.
func (r refusals) heed(ctx context.Context, role string, acts ...act) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(ctx)
	wait, made := firstHeed, make(chan struct{})
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		<-made
		if err := r.of(role, acts...); err != nil {
			end(err)
		}
		if ctx.Err() == nil {
			wait = min(2*wait, lastHeed)
			timer.Reset(wait)
		}
	})
	close(made)
	return ctx, func() {
		end(nil)
		timer.Stop()
	}
}

// cause is why the context ended, where err only says that it did. To begin after the deadline is an invalid option to
// nats.go, even before the context's own timer has fired.
func cause(ctx context.Context, err error) error {
	late := false
	if deadline, ok := ctx.Deadline(); ok && errors.Is(err, jetstream.ErrInvalidOption) {
		late = !time.Now().Before(deadline)
	}
	switch c := context.Cause(ctx); {
	case c != nil && (late || errors.Is(err, ctx.Err())):
		return c
	case late:
		return context.DeadlineExceeded
	}
	return err
}
