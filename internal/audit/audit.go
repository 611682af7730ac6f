// Package audit keeps who did what: each action of an operator is a record in the stream AUDIT before it changes anything, and
// another when it has ended. Nobody can take one away.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/riskweir/riskweir/pkg/events"
)

// States of an action.
const (
	Begun  = "begun"  // nothing has been changed yet
	Done   = "done"   // it returned without an error
	Failed = "failed" // it returned with one: some of it may have been done
)

// Record is one message of AUDIT, under audit.<kind>.<what>.
type Record struct {
	Action string          `json:"action"` // unique; the two records of an action share it
	State  string          `json:"state"`
	At     time.Time       `json:"at"`              // by the clock of who acted; the stream has its own
	Who    string          `json:"who"`             // user@host as that machine says, and --by where a verb has it
	NATS   string          `json:"nats"`            // the connection's own name for itself: its public key, or nothing
	What   string          `json:"what"`            // the verb, "model promote"
	Kind   string          `json:"kind,omitempty"`  // empty: it is about no kind alone
	About  string          `json:"about,omitempty"` // what was changed, "payment.v000007"
	Reason string          `json:"reason,omitempty"`
	Before json.RawMessage `json:"before,omitempty"` // what the verb says of it; absent: nothing, or it does not apply
	After  json.RawMessage `json:"after,omitempty"`
	Error  string          `json:"error,omitempty"` // of a failed one
}

// Action is what is known of one before it begins.
type Action struct {
	What   string
	Kind   string
	About  string
	By     string // in place of the user of this machine, who is recorded too
	Reason string
}

// Entry is an action under way. Its setters may be called until the action returns; nothing secret may be given to them.
type Entry struct {
	rec Record
	err error // of what could not be told
}

// About says what is changed, where it is known only now.
func (e *Entry) About(what string) { e.rec.About = what }

// Kind says whose streams or models are changed, where it is known only now.
func (e *Entry) Kind(kind string) { e.rec.Kind = kind }

// Before and After are any value that becomes JSON.
func (e *Entry) Before(v any) { e.set(&e.rec.Before, v) }
func (e *Entry) After(v any)  { e.set(&e.rec.After, v) }

func (e *Entry) set(to *json.RawMessage, v any) {
	text, err := json.Marshal(v)
	if err == nil && len(text) > maxValue {
		text, err = json.Marshal(fmt.Sprintf("%d bytes, not kept", len(text)))
	}
	if err != nil {
		e.err = errors.Join(e.err, fmt.Errorf("audit: what is to be recorded: %w", err))
		return
	}
	*to = text
}

const (
	maxValue      = 100 << 10 // AUDIT takes 256 KiB, for two of these
	maxText       = 1 << 10   // of any other part
	recordTimeout = 5 * time.Second
	recordTries   = 3
)

// Do records that the action begins, does it, and records how it ended; its own error comes back, or that of the recording.
//
// If we die before the first record, nothing was changed. If we die, or AUDIT cannot be reached, between the first and the last, the
// action stands in AUDIT as begun and without an end: what it came to must be looked at. It is never reported as done without a
// record that says so.
func Do(ctx context.Context, js jetstream.JetStream, a Action, f func(*Entry) error) error {
	e := &Entry{rec: Record{Action: nuid.Next(), State: Begun, Who: whoami(a.By), NATS: identity(js.Conn()), What: a.What, Kind: a.Kind, About: a.About, Reason: a.Reason}}
	if err := publish(ctx, js, e.rec); err != nil {
		return fmt.Errorf("nothing was changed, for it could not be recorded: %w", err)
	}
	done := f(e)
	e.rec.State = Done
	if done != nil {
		e.rec.State, e.rec.Error = Failed, done.Error()
	}
	// Who is interrupted has acted all the same.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTries*recordTimeout)
	defer cancel()
	if err := errors.Join(publish(ending, js, e.rec), e.err); err != nil {
		if done == nil {
			return fmt.Errorf("it was done, and %s has no record of its end: %w", events.AuditStream, err)
		}
		return errors.Join(done, err)
	}
	return done
}

// publish stores a record, once: sent again it has the same message id.
func publish(ctx context.Context, js jetstream.JetStream, r Record) error {
	r.At = time.Now().UTC()
	r.About, r.Reason, r.Error = cut(r.About), cut(r.Reason), cut(r.Error)
	subject, err := Subject(r.Kind, r.What)
	if err != nil {
		return err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	msg := nats.NewMsg(subject)
	msg.Data = body
	for try := 1; ; try++ {
		one, cancel := context.WithTimeout(ctx, recordTimeout)
		_, err = js.PublishMsg(one, msg, jetstream.WithMsgID(r.Action+"."+r.State), jetstream.WithExpectStream(events.AuditStream))
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil || try == recordTries:
			if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
				return fmt.Errorf("audit: no stream %s, or it has no leader: 'riskweir topology apply' makes it: %w", events.AuditStream, err)
			}
			return fmt.Errorf("audit: record in %s: %w", events.AuditStream, err)
		}
	}
}

func cut(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + "..."
	}
	return s
}

var verb = regexp.MustCompile(`^[a-z]+( [a-z]+)*$`)

// noKind stands in a subject for that of an action that is about no kind alone. No kind is called so.
const noKind = "_"

// Subject of the records of a verb.
func Subject(kind, what string) (string, error) {
	if !verb.MatchString(what) {
		return "", fmt.Errorf("audit: %q is no verb", what)
	}
	if kind == "" {
		kind = noKind
	} else if err := events.CheckKind(kind); err != nil {
		kind = noKind // what somebody typed: the action will fail, and is recorded
	}
	return "audit." + kind + "." + strings.ReplaceAll(what, " ", "-"), nil
}

func whoami(by string) string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	name += "@" + host
	if by = cut(by); by != "" {
		name = by + " (" + name + ")"
	}
	return name
}

// identity is the public key that the connection has signed with, which the server has checked.
func identity(nc *nats.Conn) string { return nc.Opts.Nkey }
