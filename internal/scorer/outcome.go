package scorer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/poison"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/pkg/events"
)

// tally is told of each outcome that was made; it may be made again if its commit fails.
type tally struct {
	unknownFields func(kind string, n int)
	panicked      func(kind string, seq uint64, what any)
	repeated      func(r *events.Repeat)
	slow          func(kind, member string, for_ time.Duration)
}

// stage makes the outcomes of one lane. It belongs to the lane's goroutine, but for Await.
type stage struct {
	kind    string
	watcher *model.Watcher
	lists   *model.Lists // nil in tests of kinds without overrides
	lane    int
	recalls *recalls      // nil in tests of kinds without a memory
	await   time.Duration // how long a new owner waits for the model that it found in the position
	tally   tally

	panel *panel // of all lanes; nil in tests without members

	live      *model.Live
	predictor *model.Predictor // of live, with the latest snapshot and the members that are not switched off
	arranged  arrangement
	modes     modes
	missing   string // what the last score that lacked members lacked
	abandoned atomic.Bool
	stale     bool
	list      *model.List     // of overrides; nil: none
	beside    *besides        // nil in tests that count nothing
	canary    model.Contender // of live, likewise arranged
	record    events.Record
	scratch   model.Scratch
	recall    *recall.Recall // of live; nil: the contract declares no memory
	memory    []float64

	text           strings.Builder // subjects and ids of a batch
	size, textSize int             // bytes that an event's outcome, and its part of text, took in the batch before

	// remembered is set by tests only: it is told the features of each event.
	remembered func(seq uint64, features []float64)
	// panicOn is set by tests only: the sequence upon which scoring panics.
	panicOn uint64
}

// Adopt takes the model in force. The prior of a kind that has had no rollout record is revision 0.
func (s *stage) Adopt() uint64 {
	live := s.watcher.Live(s.kind)
	if s.recalls != nil && (s.live == nil || s.live.Schema != live.Schema) {
		s.recall = s.recalls.of(live.Schema)
		s.memory = make([]float64, len(live.Schema.Inputs)-len(live.Schema.Contract.Fields))
	}
	if s.live != live {
		s.beside.adopt(live)
	}
	s.live, s.stale = live, s.watcher.Stale()
	s.arrange()
	if s.lists != nil {
		s.list = s.lists.Of(s.kind)
	}
	return s.live.Revision
}

// Await lets a lane that was scored at a newer revision than we know wait for it. When the registry can't be
// seen, or refuses the revision here, the lane goes on with the last good model: an answer is owed.
func (s *stage) Await(ctx context.Context, revision uint64) error {
	wait, cancel := context.WithTimeout(ctx, s.await)
	defer cancel()
	err := s.watcher.WaitRevision(wait, s.kind, revision)
	if err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, model.ErrRefused) || s.watcher.Stale() {
		return nil
	}
	return err
}

// Prepare waits until the memory of the kind has come as far as the batch. Strays are no part of it: all of them are invalid.
func (s *stage) Prepare(batch []lane.Event) func(context.Context) error {
	if s.recall == nil || s.lane == events.StrayLane {
		return nil
	}
	r, n, first, last := s.recall, s.lane, batch[0].Seq, batch[len(batch)-1].Seq
	if r.At(n, first, last) {
		return nil
	}
	return func(ctx context.Context) error { return r.Await(ctx, n, first, last) }
}

func (s *stage) Outcomes(batch []lane.Event) []*nats.Msg {
	// What the messages are made of is allocated for the batch, and lives as long as they do: 4 allocations a batch, not 3 an event.
	msgs, slab := make([]*nats.Msg, len(batch)), make([]nats.Msg, len(batch))
	buf := make([]byte, 0, len(batch)*s.size)
	s.text.Reset()
	s.text.Grow(len(batch) * s.textSize)
	s.beside.begin(s, batch)
	for i := range batch {
		from := len(buf)
		var band, token string
		buf, band, token = s.outcome(buf, &batch[i])
		slab[i].Subject, slab[i].Data = s.commitSubject(band, token), buf[from:len(buf):len(buf)]
		msgs[i] = &slab[i]
	}
	s.size, s.textSize = roomFor(len(buf), len(batch)), roomFor(s.text.Len(), len(batch))
	s.beside.end()
	return msgs
}

// Beside adds what begin and end have counted.
func (s *stage) Beside(before events.Besides) events.Besides { return s.beside.add(before) }

// roomFor is what an event of the next batch is given, where n of this took size bytes.
func roomFor(size, n int) int { return size/n + size/n/16 + 1 }

// commitSubject is events.CommitSubject.
func (s *stage) commitSubject(band, token string) string {
	from := s.text.Len()
	for _, part := range [...]string{"commit.", s.kind, ".", band, ".", token} {
		s.text.WriteString(part)
	}
	return s.text.String()[from:]
}

// keep returns b as a string that lives as long as the batch.
func (s *stage) keep(b []byte) string {
	from := s.text.Len()
	s.text.Write(b)
	return s.text.String()[from:]
}

// outcome appends the outcome of one event: a score, that it repeats another or, for whatever reason, invalid.
func (s *stage) outcome(buf []byte, e *lane.Event) (out []byte, band, token string) {
	stored, err := events.ParseStoredEvent(e.Subject)
	if err == nil && stored.Lane == events.StrayLane {
		err = fmt.Errorf("published to %s: a wildcard where an entity should be", e.Subject)
	}
	if err != nil {
		return s.invalid(buf, e, events.StrayToken, events.Invalid{Reason: err.Error()}), events.BandInvalid, events.StrayToken
	}
	poison.Take(stored.Token)
	enc, err := events.DetectEncoding(e.Type, e.Body)
	if err != nil {
		return s.invalid(buf, e, stored.Token, events.Invalid{Reason: err.Error()}), events.BandInvalid, stored.Token
	}
	from := len(buf)
	out, band, err = s.score(buf, e, enc, stored.Token)
	if err != nil {
		bad := events.Invalid{ID: string(s.record.ID), Reason: err.Error()}
		var broken *events.InvalidError
		if errors.As(err, &broken) {
			bad.Field, bad.Reason = broken.Field, broken.Reason
		}
		return s.invalid(out[:from], e, stored.Token, bad), events.BandInvalid, stored.Token
	}
	return out, band, stored.Token
}

// score appends the score of one event or, if an earlier one has its id, which. A panic is the event's own doing, since scoring is a pure function of it: the
// next owner would meet it again, so it ends here as invalid.
func (s *stage) score(buf []byte, e *lane.Event, enc events.Encoding, token string) (out []byte, band string, err error) {
	from := len(buf)
	defer func() {
		if r := recover(); r != nil {
			if s.tally.panicked != nil {
				s.tally.panicked(s.kind, e.Seq, r)
			}
			out, err = buf[:from], errors.New("scoring it panicked")
		}
	}()
	if s.panicOn != 0 && e.Seq == s.panicOn {
		panic("test")
	}
	if err := s.live.Schema.Decode(enc, e.Body, &s.record); err != nil {
		return buf, "", err
	}
	if s.record.Unknown > 0 && s.tally.unknownFields != nil {
		s.tally.unknownFields(s.kind, s.record.Unknown)
	}
	entity := events.UnescapeEntity(token)
	if len(s.record.Entity) > 0 && string(s.record.Entity) != entity {
		return buf, "", &events.InvalidError{Field: s.live.Schema.Contract.Entity, Reason: "is not the entity of the subject"}
	}
	if s.record.Time.IsZero() {
		s.record.Time = e.Stored
	}
	if len(s.memory) > 0 {
		if s.recall == nil {
			return buf, "", errors.New("the memory of the kind is not followed")
		}
		verdict, ok := s.recall.Features(e.Seq, s.memory)
		switch {
		case !ok:
			return buf, "", errors.New("the memory of the kind has no features of it")
		case verdict.Repeated():
			again := events.Repeat{
				ID: string(s.record.ID), Seq: e.Seq, First: verdict.First, Kind: s.kind, Entity: entity, Conflict: verdict.Conflict,
				Contract: s.live.ContractRevision,
			}
			if s.tally.repeated != nil {
				s.tally.repeated(&again)
			}
			return again.Append(buf, enc), again.Band(), nil
		}
		s.record.SetMemory(s.memory)
		if s.remembered != nil {
			s.remembered(e.Seq, s.memory)
		}
	}
	if s.abandoned.Load() {
		runtime.Goexit() // the batch has been scored without the member that held this up
	}
	r, served := s.decide(e.Seq, entity)
	contract := &s.live.Schema.Contract
	score := events.Score{
		ID: s.keep(s.record.ID), Seq: e.Seq, Kind: s.kind, Entity: entity,
		P: r.P, Points: r.Points, Band: contract.Band(r.P), Reasons: r.Reasons,
		Model: served, Revision: s.live.Revision, Contract: s.live.ContractRevision,
		Snapshot: r.Snapshot, Time: s.record.Time,
	}
	if score.ID == "" {
		score.ID = strconv.FormatUint(e.Seq, 10)
	}
	switch {
	case s.live.Predictor.IsPrior():
		score.Mode = events.ModePrior
	case r.Prior: // no member could answer
		score.Mode, score.Model = events.ModePrior, ""
	case s.stale:
		score.Mode = s.modes.of(events.ModeStale, r.Out)
	default:
		score.Mode = s.modes.of(events.ModeModel, r.Out)
	}
	if r.Out != "" {
		s.missing = r.Out
	}
	score.Decision = contract.Decide(score.Mode, score.Band)
	if e.History {
		score.Band, score.Decision = events.BandHistory, events.None
	} else if o := s.list.Of(entity, e.Stored); o != nil {
		score.Decision, score.Override, score.OverrideRevision = events.Overridden(o.List), o.List, s.list.Revision
	}
	return score.Append(buf, enc), score.Band, nil
}

// decide scores the record with the version that decides for the entity, and names it. A canary that gives no answer is none to wait for: the
// champion decides.
func (s *stage) decide(seq uint64, entity string) (r model.Result, served string) {
	if c := s.live.Canary; c != nil && c.Share.Has(entity) {
		began := time.Now()
		r, ok := guarded(&s.canary, &s.record, &s.scratch, s.beside.tries())
		s.beside.served(&c.Contender, ok, time.Since(began))
		if ok {
			return r, c.Name
		}
	}
	if !s.beside.counts(s.live.Version) {
		return s.predictor.Score(&s.record, &s.scratch), s.live.Name
	}
	began := time.Now()
	r = s.predictor.Score(&s.record, &s.scratch)
	s.beside.served(&s.live.Contenders[0], r.P >= 0 && r.P <= 1, time.Since(began))
	return r, s.live.Name
}

// guarded is false where the version panics, or answers with what is no probability.
func guarded(c *model.Contender, rec *events.Record, scratch *model.Scratch, tried func(int, *events.Record)) (r model.Result, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	if tried != nil {
		tried(c.Version, rec)
	}
	r = c.Predictor.Score(rec, scratch)
	return r, r.P >= 0 && r.P <= 1
}

func (s *stage) invalid(buf []byte, e *lane.Event, token string, bad events.Invalid) []byte {
	bad.Seq, bad.Kind, bad.Entity, bad.Contract = e.Seq, s.kind, events.UnescapeEntity(token), s.live.ContractRevision
	enc, err := events.DetectEncoding(e.Type, e.Body)
	if err != nil {
		enc = events.JSON
	}
	return bad.Append(buf, enc)
}

// Unread ends an event that scorers died on, without looking into it.
func (s *stage) Unread(e lane.Event, attempts int) *nats.Msg {
	token := events.StrayToken
	if stored, err := events.ParseStoredEvent(e.Subject); err == nil {
		token = stored.Token
	}
	bad := events.Invalid{
		Seq: e.Seq, Kind: s.kind, Entity: events.UnescapeEntity(token), Contract: s.live.ContractRevision, Attempts: attempts,
		Reason: fmt.Sprintf("%d scorers ended while they scored it: it was set aside unread", attempts),
	}
	return &nats.Msg{Subject: events.CommitSubject(s.kind, events.BandInvalid, token), Data: bad.Append(nil, events.JSON)}
}

// Expired covers the events of a lane that left EVENTS before anyone scored them.
func (s *laneStage) Expired(first, last uint64) *nats.Msg {
	x := events.Expired{First: first, Last: last, Kind: s.kind, Lane: s.lane}
	return &nats.Msg{Subject: events.CommitSubject(s.kind, events.BandExpired, "lane-"+strconv.Itoa(s.lane)), Data: x.Append(nil)}
}
