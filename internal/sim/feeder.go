package sim

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/pkg/events"
)

const (
	ackWait    = 5 * time.Second        // then the message is published again; above the 4 s of a fast election
	retryPause = 250 * time.Millisecond // before messages that failed are published again
	drainWait  = 3 * time.Second        // for outstanding acks, once Run is to end
)

// FeederConfig of a Feeder.
type FeederConfig struct {
	Conn       *nats.Conn
	Generator  *Generator
	Rate       float64 // events a second; 0: as many as MaxPending lets through
	MaxPending int     // events without an ack; default 4096. Then the feeder waits
	Logger     *zap.Logger
}

// Feeder publishes generated payments, evenly spaced, and their labels when they become known.
// A message without an ack is published again with the same Nats-Msg-Id until it has one.
type Feeder struct {
	cfg  FeederConfig
	pace pace

	// Owned by Run. len(inflight) + len(failed) <= MaxPending + labels
	inflight []message // in the order they were published
	failed   []message
	labels   labelQueue
	retryAt  time.Time // of failed
	warned   time.Time

	generated, acknowledged, repeated, failures, fraud, labelled atomic.Int64
}

type message struct {
	msg    *nats.Msg
	future jetstream.PubAckFuture // nil: to be published
	event  *Event                 // nil: a label
}

func NewFeeder(c FeederConfig) (*Feeder, error) {
	switch {
	case c.Conn == nil || c.Generator == nil:
		return nil, errors.New("sim feeder needs a connection and a generator")
	case !(c.Rate >= 0) || math.IsInf(c.Rate, 0):
		return nil, fmt.Errorf("sim feeder: rate %v: want events a second, or 0 for no limit", c.Rate)
	}
	if c.MaxPending <= 0 {
		c.MaxPending = 4096
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	return &Feeder{cfg: c, pace: pace{rate: c.Rate}}, nil
}

// Counters since New: events_generated, events_acknowledged (in the stream), events_repeated (of those,
// found there when published again), publish_failures, fraud_acknowledged, labels_acknowledged.
func (f *Feeder) Counters() map[string]float64 {
	return map[string]float64{
		"events_generated":    float64(f.generated.Load()),
		"events_acknowledged": float64(f.acknowledged.Load()),
		"events_repeated":     float64(f.repeated.Load()),
		"publish_failures":    float64(f.failures.Load()),
		"fraud_acknowledged":  float64(f.fraud.Load()),
		"labels_acknowledged": float64(f.labelled.Load()),
	}
}

// Run publishes until ctx ends, then waits a little for outstanding acks. Labels not yet due are dropped:
// most payments never get one. What nats.go keeps for acks ends with the connection; ingest.Server.Run says why.
func (f *Feeder) Run(ctx context.Context) error {
	js, err := jetstream.New(f.cfg.Conn, jetstream.WithPublishAsyncTimeout(ackWait))
	if err != nil {
		return fmt.Errorf("sim feeder: %w", err)
	}
	f.pace.from = time.Now()
	wake := time.NewTimer(0)
	defer wake.Stop()
	done := ctx.Done()
	var end time.Time // of the drain; zero: not draining
	for {
		now := time.Now()
		switch {
		case !end.IsZero():
			if len(f.inflight)+len(f.failed) == 0 || now.After(end) {
				return nil
			}
		default:
			f.generate(js, now)
			f.publishLabels(js, now)
		}
		if len(f.failed) > 0 && !now.Before(f.retryAt) {
			again := f.failed
			f.failed = nil
			for _, m := range again {
				f.publish(js, m)
			}
		}
		wake.Reset(time.Until(f.nextWake(now, end)))
		var ok <-chan *jetstream.PubAck
		var failed <-chan error
		if len(f.inflight) > 0 {
			ok, failed = f.inflight[0].future.Ok(), f.inflight[0].future.Err()
		}
		select {
		case ack := <-ok:
			f.settle(ack, nil)
		case err := <-failed:
			f.settle(nil, err)
		case <-wake.C:
			continue
		case <-done:
			done, end = nil, time.Now().Add(drainWait)
			f.labels = nil
		}
		f.settleRest()
	}
}

// generate publishes the events that are due and find room.
func (f *Feeder) generate(js jetstream.JetStream, now time.Time) {
	room := f.cfg.MaxPending - len(f.inflight) - len(f.failed)
	for range f.pace.take(now, room) {
		e := f.cfg.Generator.Next(now)
		subject, err := events.EventSubject(Kind, e.Entity)
		if err != nil {
			panic(err) // the generator's own names are plain
		}
		f.generated.Add(1)
		f.publish(js, message{msg: newMsg(subject, e.ID, e.Body), event: &e})
	}
}

func (f *Feeder) publishLabels(js jetstream.JetStream, now time.Time) {
	for len(f.labels) > 0 && !f.labels[0].at.After(now) {
		l := heap.Pop(&f.labels).(dueLabel)
		subject, err := events.LabelSubject(Kind, l.entity)
		if err != nil {
			panic(err) // as above
		}
		source := "review"
		if l.label == 1 {
			source = "chargeback"
		}
		body, err := json.Marshal(events.Label{ID: l.id, Label: &l.label, KnownAt: l.at, Source: source})
		if err != nil {
			panic(err) // a struct of plain values
		}
		f.publish(js, message{msg: newMsg(subject, "label-"+l.id, body)})
	}
}

func newMsg(subject, id string, body []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		jetstream.MsgIDHeader: {id},
		"Content-Type":        {events.ContentTypeJSON},
	}}
}

func (f *Feeder) publish(js jetstream.JetStream, m message) {
	var err error
	if m.future, err = js.PublishMsgAsync(m.msg); err != nil {
		f.fail(m, err)
		return
	}
	f.inflight = append(f.inflight, m)
}

// settle takes the first message in flight off with its result.
func (f *Feeder) settle(ack *jetstream.PubAck, err error) {
	m := f.inflight[0]
	f.inflight = f.inflight[1:]
	switch {
	case err != nil:
		f.fail(m, err)
	case m.event == nil:
		f.labelled.Add(1)
	default:
		f.acknowledged.Add(1)
		if ack.Duplicate {
			f.repeated.Add(1)
		}
		if m.event.Fraud {
			f.fraud.Add(1)
		}
		if e := m.event; e.Labelled {
			heap.Push(&f.labels, dueLabel{at: e.Time.Add(e.LabelDelay), id: e.ID, entity: e.Entity, label: e.Label})
		}
	}
}

// settleRest takes off those after it whose result is there.
func (f *Feeder) settleRest() {
	for len(f.inflight) > 0 {
		select {
		case ack := <-f.inflight[0].future.Ok():
			f.settle(ack, nil)
		case err := <-f.inflight[0].future.Err():
			f.settle(nil, err)
		default:
			return
		}
	}
}

// fail keeps a message that may or may not be stored, to be published again.
func (f *Feeder) fail(m message, err error) {
	f.failures.Add(1)
	now := time.Now()
	if len(f.failed) == 0 {
		f.retryAt = now.Add(retryPause)
	}
	m.future = nil
	f.failed = append(f.failed, m)
	if now.Sub(f.warned) >= time.Second { // an outage fails thousands
		f.warned = now
		f.cfg.Logger.Warn("not acknowledged; publishing it again", zap.String("subject", m.msg.Subject), zap.Error(err))
	}
}

// nextWake is when there is something to do, whatever the acks.
func (f *Feeder) nextWake(now, end time.Time) time.Time {
	if !end.IsZero() {
		if len(f.failed) > 0 && f.retryAt.Before(end) {
			return f.retryAt
		}
		return end
	}
	at := now.Add(time.Second)
	earlier := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	if len(f.inflight)+len(f.failed) < f.cfg.MaxPending {
		earlier(f.pace.next())
	}
	if len(f.failed) > 0 {
		earlier(f.retryAt)
	}
	if len(f.labels) > 0 {
		earlier(f.labels[0].at)
	}
	return at
}

// pace spaces events evenly:
//
//	event k is due at from + k/rate, k = 1, 2, ...
type pace struct {
	rate  float64 // a second; 0: always due
	from  time.Time
	taken uint64 // events since from
}

// maxBehind bounds how much is caught up after a wait: an outage is not followed by a flood.
const maxBehind = time.Second

// take returns how many events are due, at most room, and counts them.
func (p *pace) take(now time.Time, room int) int {
	if room <= 0 {
		return 0
	}
	if p.rate == 0 {
		return room
	}
	if late := now.Sub(p.next()); late > maxBehind {
		p.from, p.taken = now.Add(-maxBehind), 0
	}
	due := int64(math.Floor(float64(now.Sub(p.from).Seconds()*p.rate)+1e-6)) - int64(p.taken)
	n := max(0, min(int(due), room))
	p.taken += uint64(n)
	return n
}

// next is when the next event is due.
func (p *pace) next() time.Time {
	if p.rate == 0 {
		return p.from
	}
	return p.from.Add(time.Duration(float64(p.taken+1) / p.rate * float64(time.Second)))
}

type dueLabel struct {
	at         time.Time
	id, entity string
	label      int
}

// labelQueue is a heap: the label known first stands first.
type labelQueue []dueLabel

func (q labelQueue) Len() int           { return len(q) }
func (q labelQueue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q labelQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *labelQueue) Push(x any)        { *q = append(*q, x.(dueLabel)) }
func (q *labelQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
