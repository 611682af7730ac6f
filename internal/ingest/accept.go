package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/riskweir/riskweir/pkg/events"
)

// headerEntity names an event's entity where neither its body nor the query does.
const headerEntity = "Riskweir-Entity"

// item is an event or a label on its way.
type item struct {
	msg    *nats.Msg
	id     string
	entity string
	fault  *Fault
	status int // where this item is the only one and has a fault

	ack    natsjs.PubAckFuture
	stored *natsjs.PubAck
}

func (i *item) refuse(status int, field, reason string) {
	i.fault, i.status = &Fault{Field: field, Reason: reason}, status
}

// refuseErr names the field if err does.
func (i *item) refuseErr(err error) {
	field, reason := "", err.Error()
	if invalid, ok := errors.AsType[*events.InvalidError](err); ok {
		field, reason = invalid.Field, invalid.Reason
	}
	i.refuse(http.StatusBadRequest, field, reason)
}

// entityOf is the entity that the request names for all of its items, empty if it does not.
func entityOf(q *request) (string, error) {
	query, header := q.URL.Query().Get("entity"), q.Header.Get(headerEntity)
	if query != "" && header != "" && query != header {
		return "", fmt.Errorf("?entity=%s and the header %s name two entities", clip(query), headerEntity)
	}
	if query == "" {
		query = header
	}
	return query, nil
}

// event checks one body against the contract, and makes it a message.
func (s *Server) event(q *request, enc events.Encoding, body []byte, entity string) (i item) {
	if len(body) > maxBody {
		i.refuse(http.StatusRequestEntityTooLarge, "", fmt.Sprintf("an event of %d bytes: at most %d", len(body), maxBody))
		return i
	}
	rec := s.records.Get().(*events.Record)
	defer s.records.Put(rec)
	if err := q.schema.Decode(enc, body, rec); err != nil {
		i.refuseErr(err)
		return i
	}
	c := &q.schema.Contract
	i.id, i.entity = string(rec.ID), string(rec.Entity)
	switch {
	case i.entity == "":
		i.entity = entity
	case entity != "" && entity != i.entity:
		i.refuse(http.StatusBadRequest, c.Entity, fmt.Sprintf("is not the entity that the request names, %s", clip(entity)))
		return i
	}
	if i.entity == "" {
		i.entity = i.id
	}
	if i.entity == "" {
		field := c.Entity
		if field == "" {
			field = c.ID
		}
		if field != "" {
			i.refuse(http.StatusBadRequest, field, "is absent, and nothing else says whom the event is about: add it, or ?entity=...")
		} else {
			i.refuse(http.StatusBadRequest, "", "nothing says whom the event is about: add ?entity=... or the header "+headerEntity)
		}
		return i
	}
	var err error
	if i.entity, body, err = hashed(c, s.cfg.EntityKey, enc, body, i.entity); err != nil {
		i.fault = &Fault{Stored: "no", Reason: "not accepted: " + err.Error()}
		return i
	}
	subject, err := events.EventSubject(q.kind, i.entity)
	if err != nil {
		i.refuse(http.StatusBadRequest, c.Entity, err.Error())
		return i
	}
	i.msg = nats.NewMsg(subject)
	i.msg.Data = body
	i.msg.Header[events.HeaderContentType] = []string{enc.ContentType()}
	if i.id != "" {
		i.msg.Header[natsjs.MsgIDHeader] = []string{events.MessageID(i.id)}
	}
	return i
}

// label checks one body, and makes it a message.
func (s *Server) label(q *request, enc events.Encoding, body []byte, entity string) (i item) {
	if len(body) > maxLabel {
		i.refuse(http.StatusRequestEntityTooLarge, "", fmt.Sprintf("a label of %d bytes: at most %d", len(body), maxLabel))
		return i
	}
	l, err := events.DecodeLabel(enc, body)
	if err != nil {
		i.refuseErr(err)
		return i
	}
	if i.entity = entity; entity == "" {
		i.entity = labelEntity(&l) // an event's id, which is no entity's
	} else if i.entity, _, err = hashed(&q.schema.Contract, s.cfg.EntityKey, enc, nil, entity); err != nil {
		i.fault = &Fault{Stored: "no", Reason: "not accepted: " + err.Error()}
		return i
	}
	subject, err := events.LabelSubject(q.kind, i.entity)
	if err != nil {
		i.refuse(http.StatusBadRequest, "", err.Error())
		return i
	}
	i.msg = nats.NewMsg(subject)
	i.msg.Data = body
	i.msg.Header[events.HeaderContentType] = []string{enc.ContentType()}
	return i
}

func (s *Server) acceptEvents(w http.ResponseWriter, q *request) answer {
	return s.accept(w, q, s.event, s.metrics.events)
}

func (s *Server) acceptLabels(w http.ResponseWriter, q *request) answer {
	return s.accept(w, q, s.label, s.metrics.labels)
}

func (s *Server) accept(w http.ResponseWriter, q *request, check func(*request, events.Encoding, []byte, string) item, count *prometheus.CounterVec) answer {
	if err := parameters(q.Request, "entity"); err != nil {
		return refuse(http.StatusBadRequest, "", err.Error())
	}
	entity, err := entityOf(q)
	if err != nil {
		return refuse(http.StatusBadRequest, "", err.Error())
	}
	in, release, fault := s.read(w, q)
	defer release()
	if fault != nil {
		return *fault
	}
	if refused := s.guard.spend(q.caller, len(in.bodies)-1, time.Now()); refused != nil {
		return *refused
	}
	all := make([]item, len(in.bodies))
	for i, body := range in.bodies {
		all[i] = check(q, in.enc, body, entity)
	}
	s.publish(q.Context(), all)
	return verdict(all, count.MustCurryWith(prometheus.Labels{"kind": q.kind}))
}

// publish sends what has no fault, in order, and returns when everything sent is acknowledged or given up.
// What was certainly not stored is sent again until the time is up.
func (s *Server) publish(ctx context.Context, all []item) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.AckTimeout)
	defer cancel()
	end, _ := ctx.Deadline()
	for {
		again := 0
		for i := range all {
			x := &all[i]
			if x.fault != nil || x.stored != nil {
				continue
			}
			var err error
			if x.ack, err = s.js.PublishMsgAsync(x.msg, natsjs.WithStallWait(max(time.Until(end), time.Millisecond)), natsjs.WithRetryAttempts(0)); err != nil {
				x.ack = nil
				x.fault = notAccepted(err)
			}
		}
		for i := range all {
			x := &all[i]
			if x.ack == nil {
				continue
			}
			var err error
			x.stored, err = await(ctx, x.ack)
			x.ack = nil
			switch {
			case err == nil:
			case passing(err) && ctx.Err() == nil:
				again++
			default:
				x.fault = notAccepted(err)
			}
		}
		if again == 0 {
			return
		}
		if sleep(ctx, retryPause) != nil {
			for i := range all {
				if all[i].fault == nil && all[i].stored == nil {
					all[i].fault = notAccepted(natsjs.ErrNoStreamResponse)
				}
			}
			return
		}
	}
}

// codeInFlight: an event of the same id is being decided on.
const codeInFlight natsjs.ErrorCode = 10158

// passing says that the message was not stored and may be soon.
func passing(err error) bool {
	api, ok := errors.AsType[*natsjs.APIError](err)
	return errors.Is(err, natsjs.ErrNoStreamResponse) || ok && api.ErrorCode == codeInFlight
}

func notAccepted(err error) *Fault {
	f := &Fault{Stored: "unknown", Reason: "not accepted: no acknowledgement came; it may be stored or not, send it again with the same id"}
	api, ok := errors.AsType[*natsjs.APIError](err)
	switch {
	case ok:
		f.Stored, f.Reason = "no", "not accepted by the broker: "+api.Description
	case errors.Is(err, natsjs.ErrNoStreamResponse):
		f.Stored, f.Reason = "no", "not accepted: the stream has no leader now, or does not exist"
	case errors.Is(err, natsjs.ErrTooManyStalledMsgs):
		f.Stored, f.Reason = "no", "not accepted: too much is on its way to the broker"
	case errors.Is(err, nats.ErrMaxPayload):
		f.Stored, f.Reason = "no", "larger than the broker takes"
	}
	return f
}

// verdict makes the answer of what became of the items.
func verdict(all []item, count *prometheus.CounterVec) answer {
	a := answer{status: http.StatusAccepted, body: Answer{Sequences: make([]uint64, len(all))}}
	refused, lost := 0, 0
	for i := range all {
		x := &all[i]
		result := resultAccepted
		switch {
		case x.stored != nil:
			a.body.Accepted++
			a.body.Sequences[i] = x.stored.Sequence
			if x.stored.Duplicate {
				a.body.Duplicates = append(a.body.Duplicates, i)
				result = resultDuplicate
			}
		case x.fault.Stored == "":
			refused++
			result = resultRefused
		default:
			lost++
			result = resultNotAccepted
		}
		if x.fault != nil {
			x.fault.Index = &i
			a.body.Errors = append(a.body.Errors, *x.fault)
		}
		count.WithLabelValues(result).Inc()
	}
	switch {
	case lost > 0:
		a.status = http.StatusServiceUnavailable
	case refused == len(all):
		a.status = http.StatusBadRequest
		if len(all) == 1 {
			a.status = all[0].status
		}
	case refused > 0:
		a.status = http.StatusOK
	}
	if a.body.Accepted == 0 {
		a.body.Sequences = nil
	}
	return a
}
