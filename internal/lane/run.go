package lane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/riskweir/riskweir/pkg/events"
)

const (
	pullExpiry        = 10 * time.Second
	inactiveThreshold = 5 * time.Second // after which the server removes the consumer of a run that nobody reads
)

// run reads a lane through a consumer made for it alone. The consumer's name is the run's identity: it is
// never used again, so that no message of another run can be taken for one of this.
type run struct {
	id          uint64 // Machine's
	name        string
	stream      string
	conn        *nats.Conn
	inbox       string
	sub         *nats.Subscription
	msgs        chan *nats.Msg
	outstanding int // asked for and neither delivered nor expired
	pulls       int
}

// openRun, for an owner whose name can stand in a consumer's, creates the run's consumer and subscribes to its deliveries. Should the answer be lost, the consumer stays
// unread and the server removes it after inactiveThreshold.
func openRun(ctx context.Context, conn *nats.Conn, js natsjs.JetStream, kind string, lane int, owner string, o OpenRun, capacity int) (*run, error) {
	r := &run{
		id: o.Run, conn: conn, stream: events.EventsStream(kind),
		name:  fmt.Sprintf("lane-%d-%d-%s-%s", lane, o.Epoch, owner, nuid.Next()[12:]),
		inbox: conn.NewInbox(),
		msgs:  make(chan *nats.Msg, capacity+64), // 64: statuses
	}
	sub, err := conn.ChanSubscribe(r.inbox+".*", r.msgs)
	if err != nil {
		return nil, fmt.Errorf("subscribe to the run's inbox: %w", err)
	}
	r.sub = sub
	cfg := natsjs.ConsumerConfig{
		Name:              r.name,
		Description:       fmt.Sprintf("one run of %s lane %d by %s", kind, lane, owner),
		Metadata:          map[string]string{"riskweir.owner": owner, "riskweir.lane": strconv.Itoa(lane)},
		DeliverPolicy:     natsjs.DeliverByStartSequencePolicy,
		OptStartSeq:       o.From,
		FilterSubject:     events.LaneFilter(kind, lane),
		AckPolicy:         natsjs.AckNonePolicy,
		Replicas:          1,
		MemoryStorage:     true,
		InactiveThreshold: inactiveThreshold,
	}
	if lane == events.StrayLane {
		cfg.FilterSubject, cfg.FilterSubjects = "", events.StrayFilters(kind)
	}
	// Made twice, it is one: the name is of this run alone, and nothing is pulled yet.
	err = again(ctx, func(ctx context.Context) error {
		_, err := js.CreateConsumer(ctx, r.stream, cfg)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, sub.Unsubscribe())
	}
	return r, nil
}

// pull keeps asking while at least a third of room is not yet asked for: few requests, and no pause between them.
func (r *run) pull(room, capacity int, heartbeat time.Duration) error {
	want := room - r.outstanding
	if want < capacity/3 {
		return nil
	}
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{want, pullExpiry, heartbeat})
	if err != nil {
		return fmt.Errorf("pull request: %w", err)
	}
	r.outstanding += want
	r.pulls++
	return r.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.stream+"."+r.name, r.inbox+"."+strconv.Itoa(r.pulls), body)
}

// read turns one message of the run's inbox into the machine's input; nil: nothing to decide.
func (r *run) read(msg *nats.Msg) Input {
	if strings.HasPrefix(msg.Subject, r.inbox) {
		return r.status(msg)
	}
	d, ok := parseDelivery(msg.Reply)
	if !ok || d.consumer != r.name {
		return RunEnded{r.id, fmt.Sprintf("message with reply %q is none of this run", msg.Reply)}
	}
	r.outstanding--
	return Delivered{Run: r.id, Consumer: d.consumerSeq, Event: Event{
		Seq: d.streamSeq, Stored: d.stored, Subject: msg.Subject, Body: msg.Data,
		Type:    first(msg.Header["Content-Type"]),
		History: first(msg.Header[events.HeaderHistory]) == "1",
	}}
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// status handles what the server says about a pull: ADR-37's codes.
func (r *run) status(msg *nats.Msg) Input {
	code, text := first(msg.Header["Status"]), first(msg.Header["Description"])
	switch code {
	case "100":
		last, err := strconv.ParseUint(first(msg.Header["Nats-Last-Consumer"]), 10, 64)
		seen, err2 := strconv.ParseUint(first(msg.Header["Nats-Last-Stream"]), 10, 64)
		if err != nil || err2 != nil {
			return RunEnded{r.id, fmt.Sprintf("heartbeat %v cannot be read", msg.Header)}
		}
		return Heartbeat{Run: r.id, Consumer: last, Stream: seen}
	case "404", "408":
		r.expired(msg)
		return nil
	case "409":
		if strings.HasPrefix(text, "Batch Completed") {
			r.expired(msg)
			return nil
		}
	}
	return RunEnded{r.id, strings.TrimSpace("status " + code + " " + text)}
}

func (r *run) expired(msg *nats.Msg) {
	left, err := strconv.Atoi(first(msg.Header["Nats-Pending-Messages"]))
	if err == nil {
		r.outstanding = max(0, r.outstanding-left)
	}
}

// close is best effort: a consumer that cannot be deleted now goes away by itself.
func (r *run) close() error {
	err := r.sub.Unsubscribe()
	return errors.Join(err, r.conn.PublishRequest("$JS.API.CONSUMER.DELETE."+r.stream+"."+r.name, r.inbox+".closed", nil))
}

type delivery struct {
	consumer               string
	streamSeq, consumerSeq uint64
	stored                 time.Time
}

// parseDelivery reads an acknowledgement subject:
//
//	$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
//	$JS.ACK.<domain>.<account>.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>[...]
func parseDelivery(reply string) (d delivery, ok bool) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if !ok {
		return d, false
	}
	var t [12]string
	n := 0
	for ; n < len(t); n++ {
		var more bool
		if t[n], rest, more = strings.Cut(rest, "."); !more {
			n++
			break
		}
	}
	at := 1 // of the consumer
	switch {
	case n >= 9:
		at = 3
	case n != 7:
		return d, false
	}
	var err, err2, err3 error
	d.consumer = t[at]
	d.streamSeq, err = strconv.ParseUint(t[at+2], 10, 64)
	d.consumerSeq, err2 = strconv.ParseUint(t[at+3], 10, 64)
	nanos, err3 := strconv.ParseInt(t[at+4], 10, 64)
	d.stored = time.Unix(0, nanos).UTC()
	return d, err == nil && err2 == nil && err3 == nil
}
