package lane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/pkg/events"
)

// MemberTTL is how long a key of SCORERS lives, as jetstream/scorers.json says too. What a dead scorer owned stands still for about as long.
const MemberTTL = 1700 * time.Millisecond

const (
	announceEvery = 340 * time.Millisecond
	// membersSubject tells the others at once, over core NATS, that somebody came ("+id") or went ("-id").
	membersSubject = "members.scorer"
)

// Member is what a scorer says of itself in SCORERS.
type Member struct {
	Instance string    `json:"instance"`
	Name     string    `json:"name"`
	Host     string    `json:"host"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
}

// membership announces this member and keeps its view of the others.
type membership struct {
	conn    *nats.Conn
	js      natsjs.JetStream
	self    Member
	view    *View
	changed func(members []string)
	note    func(what string)
}

func (m *membership) bucket() string { return "KV_" + events.ScorersBucket }

// run announces until ctx ends, then says goodbye. changed is called with every view, also an unchanged one.
func (m *membership) run(ctx context.Context) error {
	body, err := json.Marshal(m.self)
	if err != nil {
		return fmt.Errorf("member record: %w", err)
	}
	news := make(chan *nats.Msg, 64)
	sub, err := m.conn.ChanSubscribe(membersSubject, news)
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", membersSubject, err)
	}
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	greeted := false
	for ctx.Err() == nil {
		if err := m.announce(ctx, body); err != nil {
			m.note("announce: " + err.Error())
		} else if !greeted {
			greeted = true
			if err := m.conn.Publish(membersSubject, []byte("+"+m.self.Instance)); err != nil {
				m.note("greet: " + err.Error())
			}
		}
		m.changed(m.view.Members())
		for wait := true; wait; {
			select {
			case <-ctx.Done():
				wait = false
			case <-tick.C:
				wait = false
			case msg := <-news:
				id := string(msg.Data)
				if gone, ok := strings.CutPrefix(id, "-"); ok && gone != m.self.Instance {
					m.view.Left(gone)
					m.changed(m.view.Members())
				} else if came, ok := strings.CutPrefix(id, "+"); ok && came != m.self.Instance {
					wait = false
				}
			}
		}
	}
	return sub.Unsubscribe()
}

func (m *membership) announce(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, MemberTTL/2)
	defer cancel()
	key := "$KV." + events.ScorersBucket + "." + m.self.Instance
	if _, err := m.js.Publish(ctx, key, body, natsjs.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	m.view.Renewed(time.Now())
	all, err := jetstreamext.GetLastMsgsFor(ctx, m.js, m.bucket(), []string{"$KV." + events.ScorersBucket + ".>"})
	if err != nil {
		return fmt.Errorf("list members: %w", err)
	}
	var present []string
	for msg, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return fmt.Errorf("list members: %w", err)
		}
		if msg.Header.Get("KV-Operation") == "" {
			present = append(present, strings.TrimPrefix(msg.Subject, "$KV."+events.ScorersBucket+"."))
		}
	}
	m.view.Saw(present, time.Now())
	return nil
}

// leave deletes the key and says goodbye; if that is lost, the key expires.
func (m *membership) leave(ctx context.Context) error {
	del := nats.NewMsg("$KV." + events.ScorersBucket + "." + m.self.Instance)
	del.Header.Set("KV-Operation", "DEL")
	_, err := m.js.PublishMsg(ctx, del, natsjs.WithRetryAttempts(0))
	return errors.Join(err, m.conn.Publish(membersSubject, []byte("-"+m.self.Instance)), m.conn.FlushWithContext(ctx))
}
