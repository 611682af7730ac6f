// Package explain says why an event got its score: it computes the score again from what the score names (the event, the
// model version, the contract's revision) and compares every bit.
package explain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/recall"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// ErrVoters says that no predictor can have been as a score says that it was.
var ErrVoters = errors.New("it cannot have been made by the members that it names")

// ErrNotFound says that no such event or outcome is in the streams.
var ErrNotFound = errors.New("not found")

// Query names one event: by its sequence in EVENTS, or by its entity and id, or, by the entity alone, the one scored last.
type Query struct {
	Kind   string
	Seq    uint64
	Entity string
	ID     string

	Language string // of the texts of reason codes; empty: no texts
}

// Explanation of one outcome. Contributions + Base are the logit, bit for bit.
type Explanation struct {
	OutcomeSeq  uint64          `json:"outcome_seq"` // in SCORES
	OutcomeTime time.Time       `json:"outcome_time"`
	Score       *events.Score   `json:"score,omitempty"` // one of these three
	Invalid     *events.Invalid `json:"invalid,omitempty"`
	Repeat      *events.Repeat  `json:"repeat,omitempty"`

	Stored  time.Time `json:"stored,omitzero"` // when EVENTS took the event; zero: it is no longer there
	Subject string    `json:"subject,omitempty"`
	Fields  []Field   `json:"fields,omitempty"` // in the contract's order
	Unknown int       `json:"unknown_fields,omitempty"`

	Memory     []memory.KeyState `json:"memory,omitempty"`      // what the event's features of earlier events were read from
	MemoryFrom uint64            `json:"memory_from,omitempty"` // it is of the events from here on: those before had left EVENTS

	Base          float64         `json:"base"`                    // log-odds of a typical event
	Contributions []events.Reason `json:"contributions,omitempty"` // log-odds, the largest in magnitude first
	Logit         float64         `json:"logit"`

	Texts        map[string]string `json:"texts,omitempty"`         // reason code -> text, in Query.Language
	TextsVersion int               `json:"texts_version,omitempty"` // of the table that is declared now

	Override     *model.Override `json:"override,omitempty"` // the entry that made the decision
	OverrideNote string          `json:"override_note,omitempty"`

	Recomputed  bool     `json:"recomputed"`            // the score was computed again
	Differences []string `json:"differences,omitempty"` // what then was not the same; the score is not reproducible
	Note        string   `json:"note,omitempty"`        // why it was not computed again
}

// Field of the event as the scorer read it.
type Field struct {
	Name  string `json:"name"`
	Value string `json:"value"` // empty: missing
}

// Run finds the outcome and explains it.
func Run(ctx context.Context, js jetstream.JetStream, q Query) (Explanation, error) {
	e, err := run(ctx, js, q)
	if err != nil {
		return e, fmt.Errorf("explain %s: %w", q, err)
	}
	return e, nil
}

func (q Query) String() string {
	switch {
	case q.Seq > 0:
		return q.Kind + " event " + strconv.FormatUint(q.Seq, 10)
	case q.ID != "":
		return q.Kind + "/" + q.Entity + "/" + q.ID
	}
	return q.Kind + "/" + q.Entity
}

func run(ctx context.Context, js jetstream.JetStream, q Query) (Explanation, error) {
	var e Explanation
	if err := events.CheckKind(q.Kind); err != nil {
		return e, err
	}
	found, err := find(ctx, js, q)
	if err != nil {
		return e, err
	}
	e.OutcomeSeq, e.OutcomeTime = found.Sequence, found.Time
	subject, err := events.ParseStoredScore(found.Subject)
	if err != nil {
		return e, err
	}
	seq, _, err := events.OutcomeSeq(found.Data)
	if err != nil {
		return e, fmt.Errorf("outcome %d: %w", found.Sequence, err)
	}
	event, err := message(ctx, js, events.EventsStream(q.Kind), seq)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return e, err
	}
	if event != nil {
		e.Stored, e.Subject = event.Time, event.Subject
	}
	if subject.Band == events.BandInvalid {
		bad, err := events.DecodeInvalid(found.Data)
		e.Invalid, e.Note = &bad, "an invalid event has no score"
		return e, err
	}
	if isRepeat(subject.Band) {
		again, err := events.DecodeRepeat(found.Data)
		e.Repeat, e.Note = &again, fmt.Sprintf("event %d has the id, and the outcome that counts", again.First)
		return e, err
	}
	score, err := events.DecodeScore(found.Data)
	if err != nil {
		return e, fmt.Errorf("outcome %d: %w", found.Sequence, err)
	}
	e.Score = &score
	if err := e.texts(ctx, js, q); err != nil {
		return e, err
	}
	if event == nil {
		e.Note = "the event is no longer in " + events.EventsStream(q.Kind)
		return e, nil
	}
	return e, e.recompute(ctx, js, event)
}

// recompute scores the event again, as the scorer did.
func (e *Explanation) recompute(ctx context.Context, js jetstream.JetStream, event *jetstream.RawStreamMsg) error {
	schema, err := Contract(ctx, js, e.Score.Kind, e.Score.Contract)
	if err != nil {
		return err
	}
	predictor, err := Predictor(ctx, js, e.Score.Model, schema)
	if err != nil {
		return err
	}
	if predictor, err = Voting(ctx, js, predictor, e.Score); errors.Is(err, ErrNotFound) {
		e.Note = err.Error()
		return nil
	} else if err != nil {
		return err
	}
	enc, err := events.DetectEncoding(event.Header.Get("Content-Type"), event.Data)
	if err != nil {
		return fmt.Errorf("event %d: %w", event.Sequence, err)
	}
	var rec events.Record
	if err := schema.Decode(enc, event.Data, &rec); err != nil {
		return fmt.Errorf("event %d has a score, but now: %w", event.Sequence, err)
	}
	if rec.Time.IsZero() {
		rec.Time = event.Time
	}
	if err := e.remember(ctx, js, schema, event.Sequence, &rec); err != nil {
		return err
	}
	e.Fields, e.Unknown = fields(schema, &rec), rec.Unknown
	var scratch model.Scratch
	r := predictor.Score(&rec, &scratch)
	e.Base, e.Logit, e.Recomputed = predictor.Base(), r.Logit, true
	e.Contributions = predictor.Explain(&rec)
	slices.SortStableFunc(e.Contributions, func(a, b events.Reason) int { return cmp.Compare(math.Abs(b.Add), math.Abs(a.Add)) })
	at := Event{ID: string(rec.ID), Seq: event.Sequence, Subject: event.Subject, Time: rec.Time, History: event.Header.Get(events.HeaderHistory) == "1"}
	e.Differences = Compare(e.Score, r, &schema.Contract, at)
	return e.override(ctx, js)
}

// texts looks up what the reasons' codes mean, in the table that is declared now: nothing is scored by it.
func (e *Explanation) texts(ctx context.Context, js jetstream.JetStream, q Query) error {
	if q.Language == "" {
		return nil
	}
	declared, err := topology.ReadKind(ctx, js, q.Kind)
	if err != nil {
		return err
	}
	table := declared.Contract.Reasons
	e.Texts = map[string]string{}
	for _, r := range e.Score.Reasons {
		if text, ok := table.Text(q.Language, r.Code); ok {
			e.Texts[r.Code] = text
		}
	}
	if len(e.Texts) == 0 && len(e.Score.Reasons) > 0 {
		return fmt.Errorf("the contract of %s has no text in %q for any of the reasons; it has texts in %v", q.Kind, q.Language, table.Languages())
	}
	if table != nil {
		e.TextsVersion = table.Version
	}
	return nil
}

// override looks up the list that made the decision, as it was then.
func (e *Explanation) override(ctx context.Context, js jetstream.JetStream) error {
	s := e.Score
	if s.Override == "" {
		return nil
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return fmt.Errorf("models: %w", err)
	}
	list, err := model.NewRegistry(kv).OverridesAt(ctx, s.Kind, s.OverrideRevision)
	if errors.Is(err, model.ErrNoVersion) {
		e.OverrideNote = fmt.Sprintf("the lists of revision %d are no longer kept: AUDIT has what was changed", s.OverrideRevision)
		return nil
	}
	if err != nil {
		return err
	}
	o := list.Of(s.Entity)
	if o == nil || o.List != s.Override || !o.Holds(e.Stored) {
		e.Differences = append(e.Differences, fmt.Sprintf("override: stored %s, and the lists of revision %d do not say so of %s", s.Override, s.OverrideRevision, s.Entity))
		return nil
	}
	e.Override = o
	return nil
}

// remember folds the events before, as scorers did, and sets the features of rec.
func (e *Explanation) remember(ctx context.Context, js jetstream.JetStream, schema *events.Schema, seq uint64, rec *events.Record) error {
	plan, err := memory.Compile(schema)
	if plan == nil || err != nil {
		return err
	}
	found := false
	err = recall.Walk(ctx, js, plan, seq, seq, func(error) {}, func(s recall.Seen) error {
		found = true
		rec.SetMemory(s.Features)
		e.Memory, e.MemoryFrom = s.Store.Trace(s.Event, model.Withheld), s.Origin
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("event %d was not met where the events before it are remembered", seq)
	}
	return err
}

// Event is what a score says of its event beside what was computed.
type Event struct {
	ID      string // empty: it gave none
	Seq     uint64
	Subject string
	Time    time.Time // it gives, or it was stored at
	History bool
}

// Compare returns what is not the same in a stored score and one computed again, to the bit.
func Compare(s *events.Score, r model.Result, contract *events.Contract, event Event) []string {
	var out []string
	differ := func(what string, stored, now any) {
		out = append(out, fmt.Sprintf("%s: stored %v, computed %v", what, stored, now))
	}
	if math.Float64bits(s.P) != math.Float64bits(r.P) {
		differ("p", s.P, r.P)
	}
	if s.Snapshot != r.Snapshot {
		differ("snapshot", s.Snapshot, r.Snapshot)
	}
	if s.Points != r.Points {
		differ("points", s.Points, r.Points)
	}
	if !slices.EqualFunc(s.Reasons, r.Reasons, func(a, b events.Reason) bool {
		return a.Field == b.Field && a.Code == b.Code && math.Float64bits(a.Add) == math.Float64bits(b.Add)
	}) {
		differ("reasons", s.Reasons, r.Reasons)
	}
	band := contract.Band(r.P)
	decision := contract.Decide(s.Mode, band)
	switch s.Override {
	case "":
	case events.Allow, events.Deny: // whether the entity was on it, the list says: see Override
		decision = events.Overridden(s.Override)
	default:
		out = append(out, fmt.Sprintf("override: stored %q: there is no such list", s.Override))
	}
	if event.History {
		band, decision = events.BandHistory, events.None
	}
	if s.Band != band {
		differ("band", s.Band, band)
	}
	if s.Decision != decision {
		differ("decision", s.Decision, decision)
	}
	if byPrior := s.Model == ""; byPrior != (s.Mode == events.ModePrior) {
		out = append(out, fmt.Sprintf("mode: stored %s, of the model %q", s.Mode, s.Model))
	}
	if s.Kind != contract.Kind {
		differ("kind", s.Kind, contract.Kind)
	}
	if !s.Time.Equal(event.Time) {
		differ("time", s.Time, event.Time)
	}
	id := event.ID
	if id == "" {
		id = strconv.FormatUint(event.Seq, 10)
	}
	if s.ID != id {
		differ("id", s.ID, id)
	}
	if stored, err := events.ParseStoredEvent(event.Subject); err != nil || s.Entity != events.UnescapeEntity(stored.Token) {
		differ("entity", s.Entity, event.Subject)
	}
	return out
}

// fields of a record, as text. Sensitive values are withheld.
func fields(schema *events.Schema, rec *events.Record) []Field {
	var out []Field
	for i, f := range schema.Inputs {
		v := Field{Name: f.Name}
		switch x := rec.Values[i]; {
		case x.State == events.Missing:
		case f.Sensitive:
			v.Value = model.Withheld
		case x.State == events.HasText:
			v.Value = string(x.Text)
		case f.Type == events.Bool:
			v.Value = strconv.FormatBool(x.Num != 0)
		case f.Type == events.Time:
			whole := math.Floor(x.Num)
			v.Value = time.Unix(int64(whole), int64((x.Num-whole)*1e9)).UTC().Format(time.RFC3339Nano)
		default:
			v.Value = strconv.FormatFloat(x.Num, 'g', -1, 64)
		}
		out = append(out, v)
	}
	return out
}

// Contract of a kind at a revision of KINDS; jetstream.ErrKeyNotFound if KINDS no longer has it.
func Contract(ctx context.Context, js jetstream.JetStream, kind string, revision uint64) (*events.Schema, error) {
	kv, err := js.KeyValue(ctx, events.KindsBucket)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", events.KindsBucket, err)
	}
	entry, err := kv.GetRevision(ctx, kind, revision)
	if err != nil {
		return nil, fmt.Errorf("contract of %s at revision %d: %w", kind, revision, err)
	}
	c, err := events.ParseContract(entry.Value())
	if err != nil {
		return nil, fmt.Errorf("contract of %s at revision %d: %w", kind, revision, err)
	}
	return events.Compile(c)
}

// Predictor of a model by its name; empty: the contract's prior. Errors are those of model.Registry.Get and model.Compile.
func Predictor(ctx context.Context, js jetstream.JetStream, name string, schema *events.Schema) (*model.Predictor, error) {
	if name == "" {
		return model.Prior(&schema.Contract), nil
	}
	kind, version, err := model.ParseName(name)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", events.ModelsBucket, err)
	}
	a, err := model.NewRegistry(kv).Get(ctx, kind, version)
	if err != nil {
		return nil, err
	}
	return model.Compile(a, schema)
}

// Voting is the predictor as it was for a score: with its snapshot, and without the members that its mode names. The error wraps
// ErrNotFound if ONLINE has the snapshot no more, and ErrVoters if the score cannot be right.
func Voting(ctx context.Context, js jetstream.JetStream, p *model.Predictor, s *events.Score) (*model.Predictor, error) {
	_, out, ok := events.ParseMode(s.Mode)
	if !ok {
		return nil, fmt.Errorf("%w: mode %q", ErrVoters, s.Mode)
	}
	if s.Snapshot != 0 {
		m, err := message(ctx, js, events.OnlineStream, s.Snapshot)
		if err != nil {
			return nil, err
		}
		snapshot, err := model.DecodeSnapshot(m.Data)
		if err != nil {
			return nil, fmt.Errorf("%w: message %d of %s: %w", ErrVoters, s.Snapshot, events.OnlineStream, err)
		}
		if p, err = p.With(snapshot, s.Snapshot); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrVoters, err)
		}
	}
	voting, err := p.Only(out)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrVoters, err)
	}
	return voting, nil
}

// message of a stream by its sequence; ErrNotFound if there is none.
func message(ctx context.Context, js jetstream.JetStream, stream string, seq uint64) (*jetstream.RawStreamMsg, error) {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", stream, err)
	}
	m, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: %s holds no message %d", ErrNotFound, stream, seq)
	}
	if err != nil {
		return nil, fmt.Errorf("message %d of %s: %w", seq, stream, err)
	}
	return m, nil
}

// find returns the outcome that the query names.
func find(ctx context.Context, js jetstream.JetStream, q Query) (*jetstream.RawStreamMsg, error) {
	if q.Seq > 0 {
		event, err := message(ctx, js, events.EventsStream(q.Kind), q.Seq)
		if err != nil {
			return nil, err
		}
		stored, err := events.ParseStoredEvent(event.Subject)
		if err != nil {
			return nil, err
		}
		// An outcome is stored after its event, by clocks that may differ a little.
		return search(ctx, js, q.Kind, stored.Token, event.Time.Add(-clockSlack), func(m *jetstream.RawStreamMsg) (bool, error) {
			seq, _, err := events.OutcomeSeq(m.Data)
			return seq == q.Seq, err
		})
	}
	token, err := events.EscapeEntity(q.Entity)
	if err != nil {
		return nil, err
	}
	if q.ID != "" {
		return search(ctx, js, q.Kind, token, time.Time{}, func(m *jetstream.RawStreamMsg) (bool, error) {
			id, err := outcomeID(m)
			return id == q.ID, err
		})
	}
	scores, err := js.Stream(ctx, events.ScoresStream(q.Kind))
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", events.ScoresStream(q.Kind), err)
	}
	m, err := scores.GetLastMsgForSubject(ctx, entityFilter(q.Kind, token))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, fmt.Errorf("%w: no outcome of this entity", ErrNotFound)
	}
	return m, err
}

const clockSlack = time.Minute

func entityFilter(kind, token string) string { return "scores." + kind + ".*." + token }

func outcomeID(m *jetstream.RawStreamMsg) (string, error) {
	s, err := events.ParseStoredScore(m.Subject)
	if err != nil {
		return "", err
	}
	if s.Band == events.BandInvalid {
		x, err := events.DecodeInvalid(m.Data)
		return x.ID, err
	}
	if isRepeat(s.Band) {
		x, err := events.DecodeRepeat(m.Data)
		return x.ID, err
	}
	x, err := events.DecodeScore(m.Data)
	return x.ID, err
}

func isRepeat(band string) bool { return band == events.BandRepeat || band == events.BandConflict }

// search goes through the outcomes of an entity from a time on.
func search(ctx context.Context, js jetstream.JetStream, kind, token string, from time.Time, is func(*jetstream.RawStreamMsg) (bool, error)) (*jetstream.RawStreamMsg, error) {
	stream := events.ScoresStream(kind)
	start := jetstreamext.GetBatchSeq(1)
	if !from.IsZero() {
		start = jetstreamext.GetBatchStartTime(from)
	}
	for {
		all, err := jetstreamext.GetBatch(ctx, js, stream, 200, start, jetstreamext.GetBatchSubject(entityFilter(kind, token)))
		if err != nil {
			return nil, fmt.Errorf("search %s: %w", stream, err)
		}
		last := uint64(0)
		for m, err := range all {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("search %s: %w", stream, err)
			}
			found, err := is(m)
			if err != nil {
				return nil, fmt.Errorf("outcome %d: %w", m.Sequence, err)
			}
			if found {
				return m, nil
			}
			last = m.Sequence
		}
		if last == 0 {
			return nil, fmt.Errorf("%w: no such outcome of entity %s; it may not be scored yet", ErrNotFound, events.UnescapeEntity(token))
		}
		start = jetstreamext.GetBatchSeq(last + 1)
	}
}

// String is the explanation for people.
func (e Explanation) String() string {
	var b strings.Builder
	line := func(name, format string, a ...any) { fmt.Fprintf(&b, "%-14s%s\n", name, fmt.Sprintf(format, a...)) }
	if x := e.Invalid; x != nil {
		line("event", "%s of %s, sequence %d", cmp.Or(x.ID, "(no id)"), x.Entity, x.Seq)
		line("invalid", "%s", x.Reason)
		if x.Field != "" {
			line("field", "%s", x.Field)
		}
		return b.String()
	}
	if x := e.Repeat; x != nil {
		line("event", "%s of %s, sequence %d", x.ID, x.Entity, x.Seq)
		if x.Conflict {
			line("conflict", "event %d has this id, and other content", x.First)
		} else {
			line("repeat", "of event %d, in all that the contract reads", x.First)
		}
		line("score", "that of event %d counts: riskweir explain %s --seq %d", x.First, x.Kind, x.First)
		return b.String()
	}
	s := e.Score
	line("event", "%s of %s, sequence %d", s.ID, s.Entity, s.Seq)
	line("time", "%s", s.Time.Format(time.RFC3339Nano))
	line("score", "p %s, %d points, %s -> %s", strconv.FormatFloat(s.P, 'g', -1, 64), s.Points, s.Band, s.Decision)
	line("model", "%s, mode %s, contract revision %d", cmp.Or(s.Model, "none: the contract's prior"), s.Mode, s.Contract)
	if s.Snapshot != 0 {
		line("online", "as in snapshot %d", s.Snapshot)
	}
	for _, r := range s.Reasons {
		if r.Code != "" {
			line("reason", "%s", strings.TrimSpace(r.Code+" "+e.Texts[r.Code]))
		}
	}
	if s.Override != "" {
		line("override", "%s, by the lists of revision %d%s", s.Override, s.OverrideRevision, e.overrideText())
	}
	if !e.Recomputed {
		line("recomputed", "no: %s", e.Note)
		return b.String()
	}
	if len(e.Differences) == 0 {
		line("recomputed", "yes, the same to the last bit")
	}
	for _, d := range e.Differences {
		line("DIFFERENT", "%s", d)
	}
	values := map[string]string{}
	for _, f := range e.Fields {
		values[f.Name] = cmp.Or(f.Value, "(missing)")
	}
	line("", "")
	line("log-odds", "%+10.4f  a typical event", e.Base)
	for _, c := range e.Contributions {
		value := values[c.Field]
		if value != "" {
			value = " = " + value
		}
		line("", "%+10.4f  %s%s", c.Add, c.Field, value)
	}
	line("", "%+10.4f  in all: p = %.6f", e.Logit, s.P)
	for i, k := range e.Memory {
		if i == 0 {
			line("", "")
		}
		line("memory", "%s", k)
	}
	if e.MemoryFrom > 1 {
		line("", "of the events from %d on: those before had left %s", e.MemoryFrom, events.EventsStream(s.Kind))
	}
	return b.String()
}

func (e *Explanation) overrideText() string {
	switch o := e.Override; {
	case o != nil && o.Until.IsZero():
		return fmt.Sprintf(": %s, %s", o.By, o.Reason)
	case o != nil:
		return fmt.Sprintf(": %s, %s, for events stored before %s", o.By, o.Reason, o.Until.Format(time.RFC3339))
	case e.OverrideNote != "":
		return "; " + e.OverrideNote
	}
	return ""
}
