package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Outcome reads the committed outcome of an event of the entity from SCORES_<kind>, and its band; BandInvalid has an
// Invalid for a body, BandRepeat and BandConflict a Repeat, the others a Score. The body is nil while there is none to be seen: a replica that is behind may
// answer, so nil is no promise.
func (c *Client) Outcome(ctx context.Context, kind, entity string, seq uint64) (body []byte, band string, err error) {
	if err := CheckKind(kind); err != nil {
		return nil, "", err
	}
	token, err := EscapeEntity(entity)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := bounded(ctx)
	defer cancel()
	var stream jetstream.Stream
	m, err := c.look(ctx, &stream, kind, ScoreSubject(kind, "*", token), seq)
	if err != nil || m == nil {
		return nil, "", err
	}
	return namedOutcome(m.subject, m.body)
}

// outcomeMsg is one of an entity's outcomes.
type outcomeMsg struct {
	subject string
	body    []byte
	seen
}

// seen is where one of an entity's outcomes stands.
type seen struct {
	event  uint64 // the one that it is the outcome of
	stored uint64 // its sequence in SCORES_<kind>
	left   uint64 // how many of the entity's are stored there or after
}

func (m *outcomeMsg) read() error {
	_, last, err := OutcomeSeq(m.body)
	if err != nil {
		return fmt.Errorf("%s at %d: %w", m.subject, m.stored, err)
	}
	m.event = last
	return nil
}

// isExpired: the outcome of a lane's range, under the lane's name, which may be an entity's too.
func (m *outcomeMsg) isExpired() bool {
	s, err := ParseStoredScore(m.subject)
	return err == nil && s.Band == BandExpired
}

// look finds the outcome of one event among those of its entity, or nil while there is none. The last one is read first, from
// any replica. Where that is of a later event, the entity's outcomes are read through consumers that are
// filtered by it: to read a message by its sequence needs the permission to read all of the stream, and more.
func (c *Client) look(ctx context.Context, stream *jetstream.Stream, kind, filter string, seq uint64) (*outcomeMsg, error) {
	name := ScoresStream(kind)
	ctx, stop := c.refusals().heed(ctx, readers, asking("STREAM.INFO."+name), asking("DIRECT.GET."+name+"."),
		asking("CONSUMER.CREATE."+name+"."), asking("CONSUMER.MSG.NEXT."+name+"."))
	defer stop() // ends the reading of what was fetched, too
	m, err := c.lookAt(ctx, stream, name, filter, seq)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, undeclared(kind)
	case err != nil:
		return nil, fmt.Errorf("look for the outcome of event %d in %s: %w", seq, filter, cause(ctx, err))
	}
	return m, nil
}

func (c *Client) lookAt(ctx context.Context, stream *jetstream.Stream, name, filter string, seq uint64) (*outcomeMsg, error) {
	if *stream == nil {
		s, err := c.js.Stream(ctx, name)
		if err != nil {
			return nil, err
		}
		*stream = s
	}
	raw, err := (*stream).GetLastMsgForSubject(ctx, filter)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	last := &outcomeMsg{subject: raw.Subject, body: raw.Data, seen: seen{stored: raw.Sequence, left: 1}}
	if err := last.read(); err != nil {
		return nil, err
	}
	switch {
	case last.isExpired(): // and so says nothing of the entity
	case last.event == seq:
		return last, nil
	case last.event < seq:
		return nil, nil
	}

	s := newSearch(seq, (*stream).CachedInfo().State.FirstSeq, last.stored)
	var low *reading
	defer func() { low.end() }()
	for {
		r, m, err := c.readFrom(ctx, *stream, filter, s.next())
		if err != nil {
			return nil, err
		}
		at := seen{event: math.MaxUint64} // none is stored there or after, on the replica that was asked
		if m != nil {
			at = m.seen
		}
		if at.event < seq {
			low, r = r, low
		}
		r.end()
		if at.event == seq {
			return m, nil
		}
		switch s.saw(at) {
		case noSuch:
			return nil, nil
		case readOn:
			return low.until(ctx, seq)
		}
	}
}

// search narrows down where the outcome of event seq may be stored. An entity's outcomes come in the order of its events.
// The steps back grow, then the rest is halved until it is short enough to be read.
//
//	low.event < seq < event of the first one stored at later or after
//	first <= from <= later, for every from that is asked for
type search struct {
	seq   uint64
	first uint64 // nothing is stored before
	low   seen   // zero: none is known
	later uint64
	left  uint64 // how many of the entity's are stored at later or after
	step  uint64
}

const (
	firstStep  = 1024 // messages of the stream
	stepGrowth = 8
	readOnAt   = 512 // so few of the entity's outcomes are read one after the other
)

// newSearch begins before the entity's last outcome, which is of a later event.
func newSearch(seq, first, last uint64) search {
	return search{seq: seq, first: max(first, 1), later: last, left: 1, step: firstStep}
}

// next is where to read the entity's first outcome at or after.
func (s *search) next() (from uint64) {
	switch {
	case s.low.stored > 0:
		return s.low.stored + (s.later-s.low.stored)/2
	case s.later > s.first+s.step:
		return s.later - s.step
	}
	return s.first
}

type verdict int

const (
	goOn   verdict = iota
	noSuch         // no such outcome was stored
	readOn         // from low
)

// saw takes in what was read at next, which is not the one sought.
func (s *search) saw(x seen) verdict {
	if x.event > s.seq {
		s.later, s.left = s.next(), x.left
		if s.later <= s.first {
			return noSuch
		}
		s.step *= stepGrowth
	} else {
		s.low = x
	}
	// The counts are of different moments: a few more may lie between, which are read just the same.
	if s.low.stored > 0 && (s.low.left <= s.left+readOnAt || s.later <= s.low.stored+readOnAt) {
		return readOn
	}
	return goOn
}

const (
	fetchFirst = 32
	fetchMost  = 1024
	// readingGone is when the server forgets a consumer that we could not delete.
	readingGone = 10 * time.Second
)

// reading of an entity's outcomes, through a consumer of its own.
type reading struct {
	client *Client
	stream string
	name   string // of the consumer
	cons   jetstream.Consumer
	batch  jetstream.MessageBatch
	left   uint64 // not yet asked for
	most   uint64 // to ask for at once
}

// readFrom begins at a sequence of the stream, and returns the first one, nil if there is none.
func (c *Client) readFrom(ctx context.Context, stream jetstream.Stream, filter string, from uint64) (*reading, *outcomeMsg, error) {
	inbox := c.nc.NewInbox() // ends in an id that is nobody else's
	r := &reading{client: c, stream: stream.CachedInfo().Config.Name, name: inbox[strings.LastIndexByte(inbox, '.')+1:], most: fetchFirst}
	var err error
	r.cons, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Name: r.name, Description: "looks for one outcome", FilterSubject: filter, AckPolicy: jetstream.AckNonePolicy,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from,
		MemoryStorage: true, Replicas: 1, InactiveThreshold: readingGone,
	})
	if err != nil {
		r.end() // it may have been made
		return nil, nil, err
	}
	r.left = r.cons.CachedInfo().NumPending
	m, err := r.next(ctx)
	if err != nil {
		r.end()
		return nil, nil, err
	}
	return r, m, nil
}

// end deletes the consumer. Nobody waits for it; if the request is lost, the consumer goes by itself.
func (r *reading) end() {
	if r != nil {
		r.client.nc.Publish("$JS.API.CONSUMER.DELETE."+r.stream+"."+r.name, nil) //nolint:errcheck // see above
	}
}

// next is nil after the last one that was stored when the reading began.
func (r *reading) next(ctx context.Context) (*outcomeMsg, error) {
	for {
		if r.batch == nil {
			if r.left == 0 {
				return nil, nil
			}
			n := min(r.most, r.left)
			batch, err := r.cons.Fetch(int(n), jetstream.FetchContext(ctx))
			if err != nil {
				return nil, err
			}
			r.batch, r.left, r.most = batch, r.left-n, min(2*r.most, fetchMost)
		}
		got, ok := <-r.batch.Messages()
		if !ok {
			if err := r.batch.Error(); err != nil {
				return nil, err
			}
			r.batch = nil
			continue
		}
		meta, err := got.Metadata()
		if err != nil {
			return nil, err
		}
		m := &outcomeMsg{subject: got.Subject(), body: got.Data(), seen: seen{stored: meta.Sequence.Stream, left: meta.NumPending + 1}}
		if m.isExpired() {
			continue
		}
		return m, m.read()
	}
}

// until reads on up to the outcome of event seq; nil: it is not among them.
func (r *reading) until(ctx context.Context, seq uint64) (*outcomeMsg, error) {
	for {
		m, err := r.next(ctx)
		switch {
		case err != nil, m == nil, m.event > seq:
			return nil, err
		case m.event == seq:
			return m, nil
		}
	}
}
