package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/pkg/events"
)

// Late is the answer to a request for a score when the event is stored and its score not there yet.
// The score follows on the stream, under the same sequence.
type Late struct {
	ID       string `json:"id,omitempty" msgpack:"id,omitempty"`
	Seq      uint64 `json:"seq" msgpack:"seq"` // in EVENTS_<kind>
	Kind     string `json:"kind" msgpack:"kind"`
	Entity   string `json:"entity" msgpack:"entity"`
	Decision string `json:"decision" msgpack:"decision"` // the kind's, for late ones
	Mode     string `json:"mode" msgpack:"mode"`         // late
	Contract uint64 `json:"contract" msgpack:"contract"`
}

const (
	// answerWithin is kept of the deadline for the way back.
	answerWithin = 5 * time.Millisecond
	// The view may be silent for half of what is left of the time, within these bounds, before the stream is asked.
	leastSilence = 20 * time.Millisecond
	mostSilence  = time.Second
)

// deadlineOf a request, counted from when its headers had come.
func (s *Server) deadlineOf(q *request) (time.Duration, error) {
	text := q.URL.Query().Get("deadline")
	if text == "" {
		return s.cfg.Deadline, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Millisecond || d > MaxDeadline {
		return 0, fmt.Errorf("deadline %q: want one of 1ms to %s, such as 150ms", clip(text), MaxDeadline)
	}
	return d, nil
}

// score publishes one event, and answers in time, whatever the broker and the scorers do:
//
//	200  its committed score; or, with mode late, the kind's decision for late ones: it is stored, its score follows; or that it
//	     repeats an earlier event, whose outcome counts (first_seq)
//	409  it is stored, and is not scored: an earlier event has its id, and other content
//	422  it is stored and its outcome is that it cannot be scored
//	503  the broker has not acknowledged it: the kind's decision for late ones, and whether it may be stored
//	400, 404, 408, 413, 415  it is at fault, and not stored
func (s *Server) score(w http.ResponseWriter, q *request) answer {
	a, end := s.scoreInTime(w, q)
	s.metrics.scores.WithLabelValues(q.kind, end).Inc()
	return a
}

func (s *Server) scoreInTime(w http.ResponseWriter, q *request) (answer, string) {
	if err := parameters(q.Request, "deadline", "entity"); err != nil {
		return refuse(http.StatusBadRequest, "", err.Error()), endRefused
	}
	deadline, err := s.deadlineOf(q)
	if err != nil {
		return refuse(http.StatusBadRequest, "", err.Error()), endRefused
	}
	entity, err := entityOf(q)
	if err != nil {
		return refuse(http.StatusBadRequest, "", err.Error()), endRefused
	}
	end := q.started.Add(deadline - min(answerWithin, deadline/4))
	conn := http.NewResponseController(w)
	conn.SetReadDeadline(end) //nolint:errcheck // a writer without one has no slow peer
	in, release, fault := s.read(w, q)
	defer release()
	// Else the server's own look-out for a peer that leaves would end the request at the deadline.
	conn.SetReadDeadline(time.Time{}) //nolint:errcheck
	if fault != nil {
		return *fault, endRefused
	}
	if len(in.bodies) != 1 || in.many {
		return refuse(http.StatusBadRequest, "", "one event is scored at a time: send one object, or publish many to /v1/events"), endRefused
	}
	x := s.event(q, in.enc, in.bodies[0], entity)
	if x.fault != nil {
		return answer{status: x.status, body: Answer{Errors: []Fault{*x.fault}}}, endRefused
	}
	token, err := events.EscapeEntity(x.entity)
	if err != nil {
		return refuse(http.StatusBadRequest, "", err.Error()), endRefused
	}

	ctx, cancel := context.WithDeadline(q.Context(), end)
	defer cancel()
	// The view is open before the event is out, so that no answer is too early.
	v, err := s.view.wait(ctx, q.kind, token)
	if err != nil {
		return s.notAccepted(q, &Fault{Reason: "not accepted: " + err.Error(), Stored: "no"}), endNotAccepted
	}
	defer s.view.leave(v)
	one := []item{x}
	s.publish(ctx, one)
	if x = one[0]; x.fault != nil {
		return s.notAccepted(q, x.fault), endNotAccepted
	}
	body, band := s.outcome(ctx, q.kind, x.entity, x.stored, v)
	switch {
	case body == nil:
		return s.late(q, in.enc, &x, x.stored.Sequence), endLate
	case band == events.BandConflict:
		return answer{status: http.StatusConflict, raw: body, enc: encodingOf(body)}, endConflict
	case band == events.BandRepeat:
		return answer{status: http.StatusOK, raw: body, enc: encodingOf(body)}, endRepeat
	case band == events.BandInvalid:
		return unscorable(body, x.stored.Sequence), endInvalid
	}
	return answer{status: http.StatusOK, raw: body, enc: encodingOf(body)}, endScored
}

func encodingOf(body []byte) events.Encoding {
	enc, err := events.DetectEncoding("", body)
	if err != nil {
		return events.JSON
	}
	return enc
}

// outcome waits for the event's until ctx ends; then the body is nil.
func (s *Server) outcome(ctx context.Context, kind, entity string, stored *natsjs.PubAck, v *waiter) (body []byte, band string) {
	ctx, cancel := context.WithCancel(ctx)
	type outcome struct {
		body []byte
		band string
	}
	found := make(chan outcome, 1)
	looking := false
	look := func() {
		if looking {
			return
		}
		looking = true
		go func() {
			body, band, err := s.client.Outcome(ctx, kind, entity, stored.Sequence)
			if err != nil && ctx.Err() == nil { // another look follows, while there is time
				s.cfg.Log.Warn("score not found by reading", zap.Error(err))
			}
			found <- outcome{body, band}
		}()
	}
	defer func() {
		cancel()
		if looking {
			<-found
		}
	}()
	if stored.Duplicate { // it may have been scored long ago
		look()
	}
	silence := time.NewTimer(untilLook(ctx))
	defer silence.Stop()
	for {
		select {
		case m := <-v.seen:
			first, last, err := events.OutcomeSeq(m.Data)
			if err == nil && first <= stored.Sequence && stored.Sequence <= last {
				return m.Data, bandOf(m.Subject)
			}
			if err != nil || first > stored.Sequence { // an entity's outcomes come in the order of its events
				look()
			}
		case <-v.lost:
			look()
		case <-silence.C:
			look()
			silence.Reset(untilLook(ctx))
		case x := <-found:
			looking = false
			if x.body != nil {
				return x.body, x.band
			}
		case <-ctx.Done():
			return nil, ""
		}
	}
}

func untilLook(ctx context.Context) time.Duration {
	end, _ := ctx.Deadline()
	return min(max(time.Until(end)/2, leastSilence), mostSilence)
}

func bandOf(subject string) string {
	s, err := events.ParseStoredScore(subject)
	if err != nil {
		return ""
	}
	return s.Band
}

func (s *Server) late(q *request, enc events.Encoding, x *item, seq uint64) answer {
	l := Late{ID: x.id, Seq: seq, Kind: q.kind, Entity: x.entity, Decision: q.schema.Contract.Decisions.Late, Mode: events.ModeLate, Contract: q.revision}
	a := answer{status: http.StatusOK, enc: enc}
	var err error
	if enc == events.Msgpack {
		a.raw, err = msgpack.Marshal(&l)
	} else {
		a.raw, err = json.Marshal(&l)
	}
	if err != nil {
		return refuse(http.StatusInternalServerError, "", err.Error())
	}
	return a
}

// notAccepted tells what to decide on, all the same: the caller has a customer waiting.
func (s *Server) notAccepted(q *request, f *Fault) answer {
	return answer{status: http.StatusServiceUnavailable, body: Answer{
		Errors: []Fault{*f}, Decision: q.schema.Contract.Decisions.Late, Mode: events.ModeLate,
	}}
}

func unscorable(body []byte, seq uint64) answer {
	f := Fault{Reason: "it cannot be scored"}
	v, err := events.DecodeInvalid(body)
	if err == nil {
		f.Field, f.Reason = v.Field, v.Reason
	}
	return answer{status: http.StatusUnprocessableEntity, body: Answer{Accepted: 1, Sequences: []uint64{seq}, Errors: []Fault{f}}}
}
