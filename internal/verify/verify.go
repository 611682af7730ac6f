// Package verify checks, from the two streams of a kind alone, that every event has exactly one outcome
// and that the outcomes of a lane stand in the order of its events. It trusts no position message and
// shares no code with the scorer but the parsing of subjects and bodies.
package verify

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// Config of Run.
type Config struct {
	JS   jetstream.JetStream
	Kind string

	// Wait bounds how long outcomes may yet come for events that are in EVENTS when Run begins. After that
	// they are missing. 0 asks for the state as it is.
	Wait time.Duration

	// Source yields the id of every row that should have become an event. It may be ranged over twice.
	// nil: no source is checked.
	Source iter.Seq2[string, error]

	// Offenders bounds how many of each defect are named. Default 20.
	Offenders int

	// Progress is called now and then with the stream being read and how far; nil: not at all.
	Progress func(stream string, seq, last uint64)
}

// Report of Run. Without Missing, Duplicate, Disorder, Unknown and Misnamed (Told and Untrue are of no outcomes, Unlike is of those that count as Repeat and Conflict,
// Unnoticed of Scored and History):
//
//	Events = Scored + Invalid + History + Repeat + Conflict + events that expired unscored, while EVENTS keeps all of them
type Report struct {
	Kind      string `json:"kind"`
	Events    uint64 `json:"events"` // in EVENTS when Run began
	Scored    uint64 `json:"scored"` // outcomes, of those and of events that EVENTS no longer keeps
	Invalid   uint64 `json:"invalid"`
	History   uint64 `json:"history"`  // outcomes that feed training only
	Repeat    uint64 `json:"repeat"`   // outcomes of events with the id and the content of an earlier one
	Conflict  uint64 `json:"conflict"` // outcomes of events with the id of an earlier one, and other content
	Expired   uint64 `json:"expired"`  // outcomes that say that a range of a lane left EVENTS unscored
	Erased    uint64 `json:"erased"`   // events that were erased, as ERASURES says; neither they nor their outcomes are counted elsewhere
	Aged      uint64 `json:"aged"`     // outcomes whose event EVENTS no longer keeps
	Missing   uint64 `json:"missing"`  // events without an outcome
	Pending   uint64 `json:"pending"`  // of the missing, those after the last outcome of their lane
	Duplicate uint64 `json:"duplicate"`
	Disorder  uint64 `json:"disorder"` // outcomes of an event older than one of the same lane that came before
	Unknown   uint64 `json:"unknown"`  // outcomes that name no event that EVENTS has, or had, or that cannot be read
	Misnamed  uint64 `json:"misnamed"` // outcomes under another entity than their event

	Unlike    uint64 `json:"unlike"`    // of Repeat and Conflict, those of which that is not so: the two events have other ids, or are as like as is not said
	Unnoticed uint64 `json:"unnoticed"` // of Scored and History, those whose id an earlier event has, within what the contract says: they repeat it, and nobody said so

	Told   uint64 `json:"told,omitempty"`   // labels that EVENTS tells of, for memory
	Untrue uint64 `json:"untrue,omitempty"` // of them, those that no label says, or of no such event; and messages that cannot be read

	Source *SourceReport `json:"source,omitempty"`

	Offenders []Offender    `json:"offenders,omitempty"`
	Elapsed   time.Duration `json:"elapsed_ns"`
}

// Offender is one defect by its place.
type Offender struct {
	What    string `json:"what"`
	Seq     uint64 `json:"seq,omitempty"`     // of the event, in EVENTS
	Outcome uint64 `json:"outcome,omitempty"` // sequence of the outcome, in SCORES
	Subject string `json:"subject,omitempty"` // of the outcome, or of the event where it has none
	Row     uint64 `json:"row,omitempty"`     // of the source, from 1
	ID      string `json:"id,omitempty"`
	Note    string `json:"note,omitempty"`
}

// OK says that nothing is missing, doubled or out of order.
func (r Report) OK() bool {
	return r.Missing == 0 && r.Duplicate == 0 && r.Disorder == 0 && r.Unknown == 0 && r.Misnamed == 0 && r.Unlike == 0 && r.Unnoticed == 0 && r.Untrue == 0 &&
		(r.Source == nil || r.Source.Missing == 0 && r.Source.Duplicate == 0)
}

// String is the report on one line.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "events=%d scored=%d invalid=%d missing=%d duplicate=%d disorder=%d", r.Events, r.Scored, r.Invalid, r.Missing, r.Duplicate, r.Disorder)
	for _, x := range []struct {
		name string
		n    uint64
	}{{"history", r.History}, {"repeat", r.Repeat}, {"conflict", r.Conflict}, {"unlike", r.Unlike}, {"unnoticed", r.Unnoticed}, {"expired", r.Expired}, {"erased", r.Erased}, {"aged", r.Aged}, {"pending", r.Pending}, {"unknown", r.Unknown}, {"misnamed", r.Misnamed}, {"told", r.Told}, {"untrue", r.Untrue}} {
		if x.n > 0 {
			fmt.Fprintf(&b, " %s=%d", x.name, x.n)
		}
	}
	if s := r.Source; s != nil {
		fmt.Fprintf(&b, " rows=%d rows_missing=%d rows_duplicate=%d", s.Rows, s.Missing, s.Duplicate)
	}
	return b.String()
}

func (o Offender) String() string {
	var b strings.Builder
	b.WriteString(o.What)
	if o.Row > 0 {
		fmt.Fprintf(&b, " row %d", o.Row)
	}
	if o.ID != "" {
		fmt.Fprintf(&b, " id %s", o.ID)
	}
	if o.Seq > 0 {
		fmt.Fprintf(&b, " event %d", o.Seq)
	}
	if o.Outcome > 0 {
		fmt.Fprintf(&b, " outcome %d", o.Outcome)
	}
	if o.Subject != "" {
		fmt.Fprintf(&b, " %s", o.Subject)
	}
	if o.Note != "" {
		fmt.Fprintf(&b, ": %s", o.Note)
	}
	return b.String()
}

// checker is the pure part: it is told all events, then outcomes in the order of SCORES.
type checker struct {
	kind   string
	table  *table
	erased seqSet // events
	rows   *rows  // nil: no source

	firstKept    uint64 // by EVENTS once all of it was read: what is older may have aged away
	scoresBefore uint64 // last sequence of SCORES before that of EVENTS was taken

	lastEvent []uint64 // by lane
	lastSeen  []uint64 // by lane: the event of its latest outcome in order

	repeats  []events.Repeat // of events that EVENTS held as Run began
	contract *contract       // nil: none is declared
	scored   seqSet          // events scored under contract, or one that judges ids alike, if it judges them at all

	limit  int
	named  map[string]int // offenders by what
	report Report
}

const (
	whatMissing   = "missing"
	whatDuplicate = "duplicate"
	whatDisorder  = "disorder"
	whatUnknown   = "unknown"
	whatMisnamed  = "misnamed"
)

func newChecker(kind string, first, last uint64, limit int) *checker {
	return &checker{
		kind: kind, table: newTable(first, last), erased: seqSet{}, scored: seqSet{}, firstKept: first, limit: limit, named: map[string]int{}, report: Report{Kind: kind},
		lastEvent: make([]uint64, maxLane+1), lastSeen: make([]uint64, maxLane+1),
	}
}

func (c *checker) event(subject string, seq uint64) error {
	e, err := events.ParseStoredEvent(subject)
	if err != nil || e.Lane > maxLane {
		return fmt.Errorf("event %d: subject %q: want events.%s.<lane>.<entity>", seq, subject, c.kind)
	}
	if c.erased.has(seq) {
		return nil // it is about to go
	}
	c.table.event(seq, e.Lane, e.Token)
	c.lastEvent[e.Lane] = seq
	c.report.Events++
	return nil
}

func (c *checker) offend(o Offender) {
	if c.named[o.What]++; c.named[o.What] <= c.limit {
		c.report.Offenders = append(c.report.Offenders, o)
	}
}

// outcome takes message at of SCORES.
func (c *checker) outcome(subject string, at uint64, body []byte) {
	bad := func(what string, seq uint64, note string) {
		c.offend(Offender{What: what, Seq: seq, Outcome: at, Subject: subject, Note: note})
	}
	s, err := events.ParseStoredScore(subject)
	var first, last uint64
	if err == nil {
		first, last, err = events.OutcomeSeq(body)
	}
	if err != nil {
		c.report.Unknown++
		bad(whatUnknown, 0, err.Error())
		return
	}
	if first > c.table.last {
		if at <= c.scoresBefore { // it was there before we asked for the last event
			c.report.Unknown++
			bad(whatUnknown, first, fmt.Sprintf("EVENTS ended at %d: was it made anew?", c.table.last))
		}
		return // of an event later than the end of this check
	}
	if s.Band != events.BandExpired && c.erased.has(first) {
		return // the same
	}
	switch s.Band {
	case events.BandExpired:
		c.expired(subject, at, first, last, body)
		return
	case events.BandInvalid:
		c.report.Invalid++
	case events.BandHistory:
		c.report.History++
	case events.BandRepeat, events.BandConflict:
		x, err := events.DecodeRepeat(body)
		if err != nil || x.Band() != s.Band {
			c.report.Unknown++
			bad(whatUnknown, first, fmt.Sprintf("not a %s: %v", s.Band, err))
			return
		}
		if c.repeats = append(c.repeats, x); x.Conflict {
			c.report.Conflict++
		} else {
			c.report.Repeat++
		}
	default:
		c.report.Scored++
	}
	c.judged(s.Band, first, body)
	if c.rows != nil {
		id, err := outcomeID(s.Band, body)
		if err != nil {
			c.report.Unknown++
			bad(whatUnknown, first, err.Error())
			return
		}
		c.rows.outcome(id, isRepeat(s.Band))
	}
	lane, known := c.table.lane(first)
	if !known {
		if first >= c.firstKept {
			c.report.Unknown++
			bad(whatUnknown, first, "EVENTS holds no such event")
			return
		}
		c.report.Aged++
		if first < c.table.first && c.table.outcome(first) {
			c.report.Duplicate++
			bad(whatDuplicate, first, "")
		}
		return
	}
	if !c.table.named(first, s.Token) {
		c.report.Misnamed++
		bad(whatMisnamed, first, "the event is of another entity")
	}
	c.mark(subject, at, first, lane)
}

// judged notes that whoever made the outcome took the event for no repeat.
func (c *checker) judged(band string, seq uint64, body []byte) {
	if c.contract == nil || c.contract.within == 0 || seq < c.table.first || band == events.BandInvalid || isRepeat(band) {
		return
	}
	if x, err := events.DecodeScore(body); err == nil && c.contract.same(x.Contract) {
		c.scored.add(seq)
	}
}

func (c *checker) mark(subject string, at, seq uint64, lane int) {
	switch {
	case c.table.outcome(seq):
		c.report.Duplicate++
		c.offend(Offender{What: whatDuplicate, Seq: seq, Outcome: at, Subject: subject})
	case seq < c.lastSeen[lane]:
		c.report.Disorder++
		c.offend(Offender{What: whatDisorder, Seq: seq, Outcome: at, Subject: subject,
			Note: fmt.Sprintf("lane %d had an outcome of event %d before", lane, c.lastSeen[lane])})
	default:
		c.lastSeen[lane] = seq
	}
}

// expired takes the outcome of a lane's events from first to last, most of which are no longer in EVENTS.
func (c *checker) expired(subject string, at, first, last uint64, body []byte) {
	x, err := events.DecodeExpired(body)
	if err != nil || x.Lane < 0 || x.Lane > maxLane || first > last {
		c.report.Unknown++
		c.offend(Offender{What: whatUnknown, Seq: first, Outcome: at, Subject: subject, Note: "not the range of a lane"})
		return
	}
	c.report.Expired++
	for seq := max(first, c.table.first); seq <= min(last, c.table.last); seq++ {
		if lane, known := c.table.lane(seq); known && lane == x.Lane {
			c.mark(subject, at, seq, lane)
		}
	}
}

// drained says that each lane has an outcome of its last event, or of none.
func (c *checker) drained() bool {
	for lane, seq := range c.lastEvent {
		if c.lastSeen[lane] < seq {
			return false
		}
	}
	return true
}

// finish counts what has no outcome. Offenders get the subject of their events from subject.
func (c *checker) finish(subject func(seq uint64) string) Report {
	c.table.missing(func(seq uint64, lane int) bool {
		c.report.Missing++
		if seq > c.lastSeen[lane] {
			c.report.Pending++
		}
		if c.named[whatMissing] < c.limit {
			c.offend(Offender{What: whatMissing, Seq: seq, Subject: subject(seq)})
		}
		return true
	})
	return c.report
}

// Run reads both streams of the kind and compares them. The end is fixed when it begins: later events
// are no part of it.
func Run(ctx context.Context, cfg Config) (Report, error) {
	began := time.Now()
	if cfg.Offenders <= 0 {
		cfg.Offenders = 20
	}
	if err := events.CheckKind(cfg.Kind); err != nil {
		return Report{}, err
	}
	var rs *rows
	if cfg.Source != nil {
		var err error
		if rs, err = newRows(cfg.Source); err != nil {
			return Report{}, fmt.Errorf("read the source: %w", err)
		}
	}
	c, err := cfg.readEvents(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", cfg.Kind, err)
	}
	c.rows = rs
	if c.contract, err = cfg.readContract(ctx); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", cfg.Kind, err)
	}
	if err := cfg.readTold(ctx, c); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", cfg.Kind, err)
	}
	if err := cfg.readScores(ctx, c, began.Add(cfg.Wait)); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", cfg.Kind, err)
	}
	if err := cfg.readRepeats(ctx, c); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", cfg.Kind, err)
	}
	report := c.finish(func(seq uint64) string {
		m, _, err := get(ctx, cfg.JS, events.EventsStream(cfg.Kind), map[string]any{"seq": seq})
		if err != nil {
			return "" // a report without a subject is better than none
		}
		return m.Subject
	})
	if rs != nil {
		if err := rs.finish(cfg.Source, cfg.Offenders, &report); err != nil {
			return Report{}, fmt.Errorf("read the source again: %w", err)
		}
	}
	report.Elapsed = time.Since(began)
	return report, nil
}

// readEvents enters all events up to the last one there is now.
func (cfg *Config) readEvents(ctx context.Context) (*checker, error) {
	scores, stream := events.ScoresStream(cfg.Kind), events.EventsStream(cfg.Kind)
	// SCORES first: an outcome up to here names an event that is in EVENTS up to last, or was.
	scoresBefore, err := lastSeq(ctx, cfg.JS, scores, scoresFilter(cfg.Kind))
	if err != nil {
		return nil, err
	}
	filter := "events." + cfg.Kind + ".>"
	last, err := lastSeq(ctx, cfg.JS, stream, filter)
	if err != nil {
		return nil, err
	}
	first, err := firstSeq(ctx, cfg.JS, stream)
	if err != nil {
		return nil, err
	}
	c := newChecker(cfg.Kind, first, last, cfg.Offenders)
	c.scoresBefore = scoresBefore
	if err := cfg.readErased(ctx, c); err != nil {
		return nil, err
	}
	r := newReader(cfg.JS, stream, filter, first, true)
	defer r.close(ctx)
	err = r.upTo(ctx, last, func(m message) error {
		cfg.progress(stream, m.seq, last)
		return c.event(m.subject, m.seq)
	})
	if err != nil {
		return nil, err
	}
	if c.firstKept, err = firstSeq(ctx, cfg.JS, stream); err != nil {
		return nil, err
	}
	return c, nil
}

// readScores takes the outcomes that are there, and those that come until all lanes are drained or the
// deadline. Then it takes once more what is there: a second outcome may follow close upon the first.
func (cfg *Config) readScores(ctx context.Context, c *checker, deadline time.Time) error {
	stream, filter := events.ScoresStream(cfg.Kind), scoresFilter(cfg.Kind)
	first, err := firstSeq(ctx, cfg.JS, stream)
	if err != nil {
		return err
	}
	r := newReader(cfg.JS, stream, filter, first, false)
	defer r.close(ctx)
	catchUp := func() error {
		last, err := lastSeq(ctx, cfg.JS, stream, filter)
		if err != nil {
			return err
		}
		return r.upTo(ctx, last, func(m message) error {
			cfg.progress(stream, m.seq, last)
			c.outcome(m.subject, m.seq, m.data)
			return nil
		})
	}
	if err := catchUp(); err != nil {
		return err
	}
	for !c.drained() && time.Now().Before(deadline) {
		m, ok, err := r.read(ctx)
		if err != nil {
			return err
		}
		if ok {
			c.outcome(m.subject, m.seq, m.data)
		}
	}
	return catchUp()
}

func (cfg *Config) progress(stream string, seq, last uint64) {
	if cfg.Progress != nil && seq%(1<<14) == 0 {
		cfg.Progress(stream, seq, last)
	}
}

func scoresFilter(kind string) string { return "scores." + kind + ".>" }
