package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/riskweir/riskweir/internal/tail"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

const (
	rescoreBatch   = 900             // beside it a batch holds the position; the server takes 1000
	commitTimeout  = 2 * time.Second // sent again, which the fence makes safe
	commitPause    = 250 * time.Millisecond
	commitPatience = tail.Patience
)

// Published is what --publish did.
type Published struct {
	Subject string `json:"subject"` // that matches all of it
	N       uint64 `json:"n"`
	Before  uint64 `json:"before"` // events of the range that had their rescore
	All     Range  `json:"all"`    // events that have one now
}

// publishing puts the rescores of one version into RESCORES, each batch with the position that it was read up to. So a replay that is repeated goes on where
// the one before it stopped, and of two at a time one is refused.
//
//	RESCORES holds one rescore of each valid event that was read from position.First to position.Seq, and no other of the version
type publishing struct {
	js        jetstream.JetStream
	committer topology.Committer
	model     string
	contract  uint64
	out       Published

	position events.RescorePosition // as stored; zero: none yet
	fence    uint64                 // sequence of it in RESCORES
	pending  []*nats.Msg
	body     []byte // of pending
	last     uint64 // event of the last of pending
	first    uint64 // of the range
	created  time.Time
	run      string
}

// publishTo looks where the rescores of the version end.
func (cfg *Config) publishTo(ctx context.Context, name string, contract uint64, r Range) (*publishing, error) {
	stream := events.EventsStream(cfg.Kind)
	s, err := cfg.JS.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", stream, err)
	}
	p := &publishing{
		js: cfg.JS, model: name, contract: contract, first: r.First, run: nuid.Next(), created: s.CachedInfo().Created,
		committer: topology.Committer{Conn: cfg.JS.Conn(), Stream: events.RescoresStream, Timeout: commitTimeout},
		out:       Published{Subject: events.RescoreFilter(name)},
	}
	if _, err := cfg.JS.Stream(ctx, events.RescoresStream); errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("there is no stream %s: riskweir topology apply", events.RescoresStream)
	}
	if err := p.look(ctx); err != nil {
		return nil, err
	}
	have, again := p.position, "nats stream purge "+events.RescoresStream+" --subject '"+p.out.Subject+"'"
	switch {
	case p.fence == 0:
	case !have.Incarnation.Equal(p.created):
		return nil, fmt.Errorf("the rescores of %s are of another %s, made at %s: take them away first, %s", name, stream, have.Incarnation.Format(time.RFC3339), again)
	case r.First < have.First:
		return nil, fmt.Errorf("the rescores of %s are of events %d to %d, and these begin at %d: begin at %d, or take them away first, %s", name, have.First, have.Seq, r.First, have.First, again)
	case r.First > have.Seq+1 && r.First > max(s.CachedInfo().State.FirstSeq, 1):
		return nil, fmt.Errorf("the rescores of %s are of events %d to %d, and these begin at %d: begin at %d, so that none is left out, or take them away first, %s",
			name, have.First, have.Seq, r.First, have.Seq+1, again)
	}
	return p, nil
}

// look reads the position, from the leader of RESCORES.
func (p *publishing) look(ctx context.Context) error {
	m, err := tail.LastOf(ctx, p.js, events.RescoresStream, events.RescorePositionSubject(p.model))
	if errors.Is(err, tail.ErrNone) {
		p.position, p.fence = events.RescorePosition{}, 0
		return nil
	}
	if err != nil {
		return err
	}
	at, err := events.DecodeRescorePosition(m.Data)
	if err != nil {
		return fmt.Errorf("message %d of %s: %w", m.Seq, events.RescoresStream, err)
	}
	p.position, p.fence = at, m.Seq
	return nil
}

// add the score of an event; they come in order.
func (p *publishing) add(ctx context.Context, e event, x scored) error {
	if e.seq <= p.position.Seq {
		p.out.Before++
		return nil
	}
	where, err := events.ParseStoredEvent(e.subject)
	if err != nil {
		return err
	}
	s := events.Score{
		ID: string(e.record.ID), Seq: e.seq, Entity: events.UnescapeEntity(where.Token), Kind: where.Kind,
		P: x.p, Points: x.points, Reasons: x.reasons, Band: bands[x.band], Decision: decisions[x.decision],
		Model: p.model, Contract: p.contract, Mode: x.mode, Time: e.record.Time,
	}
	if s.ID == "" {
		s.ID = strconv.FormatUint(e.seq, 10)
	}
	from := len(p.body)
	p.body = s.Append(p.body, events.JSON)
	p.pending = append(p.pending, &nats.Msg{Subject: events.RescoreSubject(p.model, s.Band, where.Token), Data: p.body[from:len(p.body):len(p.body)]})
	if p.last = e.seq; len(p.pending) == rescoreBatch {
		return p.commit(ctx, p.last)
	}
	return nil
}

// finish commits the rest: all up to through has been read.
func (p *publishing) finish(ctx context.Context, through uint64) (*Published, error) {
	if through > p.position.Seq && through >= p.first {
		if err := p.commit(ctx, through); err != nil {
			return nil, err
		}
	}
	p.out.All = Range{p.position.First, p.position.Seq}
	return &p.out, nil
}

// commit what is pending together with its position. What is not known to be stored is sent again behind the same fence; if that is refused, what is stored says
// whose it was.
func (p *publishing) commit(ctx context.Context, through uint64) error {
	position := events.RescorePosition{First: p.first, Seq: through, Incarnation: p.created, Run: p.run}
	if p.fence > 0 {
		position.First = p.position.First
	}
	body, err := json.Marshal(position)
	if err != nil {
		return fmt.Errorf("position: %w", err)
	}
	n := len(p.pending)
	deadline := time.Now().Add(commitPatience)
	for sent := 1; ; sent++ {
		last := &nats.Msg{Subject: events.RescorePositionSubject(p.model), Data: body}
		topology.Fence(last, p.fence)
		seq, err := p.committer.Commit(ctx, append(p.pending[:n:n], last))
		switch {
		case err == nil:
			p.position, p.fence = position, seq
		case errors.Is(err, topology.ErrFenced):
			if err := p.look(ctx); err != nil {
				return err
			}
			if p.position.Run != p.run || p.position.Seq != through {
				return fmt.Errorf("another replay, which may have ended by now, has published rescores of %s to event %d meanwhile: try again", p.model, p.position.Seq)
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			return fmt.Errorf("%w: try again, it goes on behind event %d", err, p.position.Seq)
		default:
			tail.Pause(ctx, commitPause)
			continue
		}
		p.out.N += uint64(n)
		p.pending, p.body = p.pending[:0], nil // the messages may still be on their way
		return nil
	}
}
