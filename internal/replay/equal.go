package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/explain"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// A window is so many sequences of EVENTS. The scores of one window are held at a time.
const windowSize = 1 << 16

// crowded windows hold more scores than this for each sequence: some events have many.
const crowded = 4

// Difference is a stored score that is not what is computed.
type Difference struct {
	Outcome uint64   `json:"outcome"` // sequence in SCORES
	Event   uint64   `json:"event"`   // in EVENTS
	ID      string   `json:"id"`
	Entity  string   `json:"entity"`
	Model   string   `json:"model"`
	What    []string `json:"what"`
}

func (d Difference) String() string {
	return fmt.Sprintf("outcome %d of event %d, %s of %s, %s: %s", d.Outcome, d.Event, d.ID, d.Entity, cmp.Or(d.Model, prior), strings.Join(d.What, "; "))
}

// prior is how scores without a model are called.
const prior = "prior"

// Tally of the stored scores of one version.
//
//	Stored = Equal + Different + sum of Not
type Tally struct {
	Stored    uint64            `json:"stored"` // of events in the range
	Equal     uint64            `json:"equal"`
	Different uint64            `json:"different"`
	Not       map[string]uint64 `json:"not_comparable,omitempty"` // by the reason
}

// Equality is the report of AssertEqual.
type Equality struct {
	Kind        string            `json:"kind"`
	Events      Range             `json:"events"` // in EVENTS
	Models      map[string]*Tally `json:"models"` // by name
	Compared    uint64            `json:"compared"`
	Equal       uint64            `json:"equal"`
	Different   uint64            `json:"different"`
	Not         uint64            `json:"not_comparable"`
	Unreadable  uint64            `json:"unreadable"` // outcomes under a score's subject that are no scores: of which version is not known
	Differences []Difference      `json:"differences,omitempty"`
	Elapsed     time.Duration     `json:"elapsed_ns"`
}

// OK says that all that can be compared is equal, and that there was something.
func (e Equality) OK() bool { return e.Compared > 0 && e.Different == 0 && e.Unreadable == 0 }

const (
	whyLeft     = "the event has left EVENTS"
	whyContract = "KINDS has its contract revision no more"
	whyGone     = "MODELS has the version no more"
	whyRefused  = "the version may not serve"
	whyScoreWas = "the score left SCORES meanwhile"
	whySnapshot = "ONLINE has its snapshot no more"
)

// stored is a score of SCORES.
type stored struct {
	outcome uint64 // sequence
	band    string // of its subject
	score   events.Score
}

// window is where the scores of the events of a window stand in SCORES.
type window struct {
	first, last uint64
	n           int
}

// asserting is the state of AssertEqual.
type asserting struct {
	Config
	report   Equality
	size     uint64                        // of a window
	windows  map[uint64]map[uint64]*window // by contract revision, and sequence of the event / size
	asked    Range                         // of events, those that have left EVENTS among them
	held     Range                         // of events, what EVENTS held as it began; the windows are of these
	registry *model.Registry
	scratch  model.Scratch
	versions map[string]version // under the contract revision at hand
	voters   map[voters]version // likewise
}

// version is a predictor, or why there is none.
type version struct {
	predictor *model.Predictor
	why       string // it is there no more
	broken    string // and cannot have been
}

// AssertEqual computes each stored score of a version again, from what it names, and compares it bit for bit.
//
// It reads SCORES to learn where the scores of each window of 65,536 events stand, then EVENTS window by window, and for each window what SCORES holds of it
// again: so it trusts no order of SCORES, and holds the scores of one window (at most 262,144), some 100 bytes for each window, and the memory that the contract
// declares. EVENTS is read once for each revision of the contract that the scores name, as far as theirs reach.
func AssertEqual(ctx context.Context, cfg Config) (Equality, error) {
	began := time.Now()
	a := &asserting{Config: cfg, size: cmp.Or(cfg.window, windowSize), windows: map[uint64]map[uint64]*window{}}
	if a.Differences <= 0 {
		a.Differences = 20
	}
	a.report = Equality{Kind: cfg.Kind, Models: map[string]*Tally{}}
	if err := a.run(ctx); err != nil {
		return Equality{}, fmt.Errorf("replay %s: %w", cfg.Kind, err)
	}
	for _, t := range a.report.Models {
		met := t.Equal + t.Different
		for _, n := range t.Not {
			met += n
		}
		if met < t.Stored {
			a.count(t, whyScoreWas, t.Stored-met)
		}
		a.report.Equal += t.Equal
		a.report.Different += t.Different
		for _, n := range t.Not {
			a.report.Not += n
		}
	}
	a.report.Compared = a.report.Equal + a.report.Different
	slices.SortStableFunc(a.report.Differences, func(x, y Difference) int { return cmp.Compare(x.Outcome, y.Outcome) })
	a.report.Elapsed = time.Since(began)
	return a.report, nil
}

func (a *asserting) run(ctx context.Context) error {
	if err := events.CheckKind(a.Kind); err != nil {
		return err
	}
	// SCORES first: an outcome up to here names an event that EVENTS holds, or held.
	scores := events.ScoresStream(a.Kind)
	first, last, err := ends(ctx, a.JS, scores)
	if err != nil {
		return err
	}
	if a.report.Events, err = a.span(ctx); err != nil {
		return err
	}
	_, newest, err := ends(ctx, a.JS, events.EventsStream(a.Kind))
	if err != nil {
		return err
	}
	a.held = Range{a.report.Events.First, newest}
	kv, err := a.JS.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return fmt.Errorf("open %s: %w", events.ModelsBucket, err)
	}
	a.registry = model.NewRegistry(kv)
	a.asked = a.report.Events
	if a.From == (Bound{}) {
		a.asked.First = 0 // those that have left EVENTS are told of
	}
	if a.To == (Bound{}) {
		a.asked.Last = ^uint64(0)
	}
	err = messages(ctx, a.JS, scores, first, last, func(m tail.Message, at *jetstream.MsgMetadata) error {
		a.progress("scores", at.Sequence.Stream-first+1, last-first+1)
		a.note(m, at.Sequence.Stream)
		return nil
	})
	if err != nil {
		return err
	}
	for _, revision := range slices.Sorted(maps.Keys(a.windows)) {
		if err := a.revision(ctx, revision); err != nil {
			return err
		}
	}
	return nil
}

// read returns a score that is wanted.
func (a *asserting) read(m tail.Message, seq uint64) (s stored, ok bool, err error) {
	subject, err := events.ParseStoredScore(m.Subject())
	if err != nil {
		return s, false, nil // a position
	}
	switch subject.Band {
	case events.BandInvalid, events.BandRepeat, events.BandConflict, events.BandExpired:
		return s, false, nil
	}
	if s.score, err = events.DecodeScore(m.Data()); err != nil {
		return s, false, err
	}
	s.outcome, s.band = seq, subject.Band
	if s.score.Seq < a.asked.First || s.score.Seq > a.asked.Last {
		return s, false, nil
	}
	return s, a.Model == 0 || s.score.Model == model.Name(a.Kind, a.Model), nil
}

// note enters an outcome into the windows. One whose event cannot be read is dealt with here.
func (a *asserting) note(m tail.Message, seq uint64) {
	s, ok, err := a.read(m, seq)
	if err != nil {
		a.report.Unreadable++
		return
	}
	if !ok {
		return
	}
	t := a.tally(s)
	t.Stored++
	switch event := s.score.Seq; {
	case event == 0 || event > a.held.Last:
		a.differ(s, "EVENTS never held its event")
	case event < a.held.First:
		a.not(s, whyLeft)
	default:
		of := a.windows[s.score.Contract]
		if of == nil {
			of = map[uint64]*window{}
			a.windows[s.score.Contract] = of
		}
		w := of[event/a.size]
		if w == nil {
			w = &window{first: seq}
			of[event/a.size] = w
		}
		w.last = seq
		w.n++
	}
}

func (a *asserting) tally(s stored) *Tally {
	name := cmp.Or(s.score.Model, prior)
	t := a.report.Models[name]
	if t == nil {
		t = &Tally{}
		a.report.Models[name] = t
	}
	return t
}

func (a *asserting) not(s stored, why string) { a.count(a.tally(s), why, 1) }

func (a *asserting) count(t *Tally, why string, n uint64) {
	if t.Not == nil {
		t.Not = map[string]uint64{}
	}
	t.Not[why] += n
}

func (a *asserting) differ(s stored, what ...string) {
	a.tally(s).Different++
	if len(a.report.Differences) < a.Differences {
		a.report.Differences = append(a.report.Differences, Difference{
			Outcome: s.outcome, Event: s.score.Seq, ID: s.score.ID, Entity: s.score.Entity, Model: s.score.Model, What: what,
		})
	}
}

// revision compares the scores that name a revision of the contract.
func (a *asserting) revision(ctx context.Context, revision uint64) error {
	windows := a.windows[revision]
	order := slices.Sorted(maps.Keys(windows))
	schema, err := a.contract(ctx, revision)
	gone := errors.Is(err, jetstream.ErrKeyNotFound) || errors.Is(err, jetstream.ErrKeyDeleted)
	if err != nil && !gone {
		return err
	}
	if gone {
		m, err := tail.At(ctx, a.JS, "KV_"+events.KindsBucket, revision)
		if err := isGone(m, err, events.KindsBucket, a.Kind); err != nil {
			return err
		}
	}
	a.versions, a.voters = map[string]version{}, map[voters]version{}
	var held []stored // the window's, ascending in their event
	next := 0         // of order
	load := func() error {
		w := order[next]
		next++
		if held, err = a.load(ctx, revision, w, windows[w]); err != nil {
			return err
		}
		return nil
	}
	if gone {
		for next < len(order) {
			if err := load(); err != nil {
				return err
			}
			for _, s := range held {
				a.not(s, whyContract)
			}
		}
		return nil
	}
	// until deals with the scores of events below seq, which were not met.
	until := func(seq uint64) error {
		for {
			for len(held) > 0 && held[0].score.Seq < seq {
				if err := a.unmet(ctx, schema, held[0]); err != nil {
					return err
				}
				held = held[1:]
			}
			if len(held) > 0 || next == len(order) || order[next] > seq/a.size {
				return nil
			}
			if err := load(); err != nil {
				return err
			}
		}
	}
	first := max(order[0]*a.size, a.report.Events.First)
	last := min(order[len(order)-1]*a.size+a.size-1, a.report.Events.Last)
	err = pass(ctx, a.JS, schema, first, last, func(uint64) {}, func(e event) error {
		a.progress("events", e.seq-first+1, last-first+1)
		if err := until(e.seq); err != nil {
			return err
		}
		for len(held) > 0 && held[0].score.Seq == e.seq {
			if err := a.compare(ctx, schema, held[0], e); err != nil {
				return err
			}
			held = held[1:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	return until(^uint64(0))
}

// contract at a revision. Revision 0 names none.
func (a *asserting) contract(ctx context.Context, revision uint64) (*events.Schema, error) {
	if revision == 0 {
		return nil, jetstream.ErrKeyNotFound
	}
	return explain.Contract(ctx, a.JS, a.Kind, revision)
}

// load reads the scores of a window again.
func (a *asserting) load(ctx context.Context, revision, number uint64, w *window) ([]stored, error) {
	if uint64(w.n) > crowded*a.size {
		return nil, fmt.Errorf("%d events from %d have %d scores: riskweir verify says which have more than one", a.size, number*a.size, w.n)
	}
	held := make([]stored, 0, w.n)
	err := messages(ctx, a.JS, events.ScoresStream(a.Kind), w.first, w.last, func(m tail.Message, at *jetstream.MsgMetadata) error {
		s, ok, err := a.read(m, at.Sequence.Stream)
		event := s.score.Seq
		if err == nil && ok && s.score.Contract == revision && event/a.size == number && event >= a.held.First && event <= a.held.Last {
			held = append(held, s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(held, func(x, y stored) int { return cmp.Compare(x.score.Seq, y.score.Seq) })
	return held, nil
}

// unmet deals with the score of an event that was not among the valid ones.
func (a *asserting) unmet(ctx context.Context, schema *events.Schema, s stored) error {
	m, err := tail.At(ctx, a.JS, events.EventsStream(a.Kind), s.score.Seq)
	switch {
	case errors.Is(err, tail.ErrNone):
		a.not(s, whyLeft)
		return nil
	case err != nil:
		return err
	}
	var rec events.Record
	if where, err := events.ParseStoredEvent(m.Subject); err == nil && decode(schema, where, m.Header.Get("Content-Type"), m.Data, &rec) {
		return fmt.Errorf("event %d is in EVENTS, and was not among those read: this is a fault of replay, or EVENTS was altered meanwhile", s.score.Seq)
	}
	a.differ(s, "its event is not one that its contract lets be scored")
	return nil
}

func (a *asserting) compare(ctx context.Context, schema *events.Schema, s stored, e event) error {
	if e.repeats != 0 {
		a.differ(s, fmt.Sprintf("its event repeats event %d", e.repeats))
		return nil
	}
	v, err := a.voting(ctx, &s.score, schema)
	switch {
	case err != nil:
		return err
	case v.broken != "":
		a.differ(s, v.broken)
		return nil
	case v.why != "":
		a.not(s, v.why)
		return nil
	}
	r := v.predictor.Score(e.record, &a.scratch)
	what := explain.Compare(&s.score, r, &schema.Contract, explain.Event{ID: string(e.record.ID), Seq: e.seq, Subject: e.subject, Time: e.record.Time, History: e.history})
	if s.band != s.score.Band {
		what = append(what, fmt.Sprintf("subject: its band is %s, the score says %s", s.band, s.score.Band))
	}
	if len(what) > 0 {
		a.differ(s, what...)
		return nil
	}
	a.tally(s).Equal++
	return nil
}

// isGone is an error if the leader of a bucket holds under key what a replica, which may be behind, did not.
func isGone(m tail.Held, err error, bucket, key string) error {
	switch {
	case errors.Is(err, tail.ErrNone), err == nil && (m.Subject != "$KV."+bucket+"."+key || m.Header.Get("KV-Operation") != ""):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%s has %s at revision %d, and a replica that is behind did not: try again", bucket, key, m.Seq)
}

// voters are what a score was made with beside its version.
type voters struct {
	model, mode string
	snapshot    uint64
}

// mostVoters are kept at a time; the scores of a few minutes share some.
const mostVoters = 4096

// voting is the version that a score names as it was then: see explain.Voting.
func (a *asserting) voting(ctx context.Context, s *events.Score, schema *events.Schema) (version, error) {
	v, err := a.version(ctx, s.Model, schema)
	if err != nil || v.predictor == nil || s.Snapshot == 0 && len(v.predictor.Members()) == 0 {
		return v, err
	}
	key := voters{s.Model, s.Mode, s.Snapshot}
	if v, ok := a.voters[key]; ok {
		return v, nil
	}
	p, err := explain.Voting(ctx, a.JS, v.predictor, s)
	switch {
	case errors.Is(err, explain.ErrNotFound):
		v = version{why: whySnapshot}
	case errors.Is(err, explain.ErrVoters):
		v = version{broken: err.Error()}
	case err != nil:
		return v, err
	default:
		v = version{predictor: p}
	}
	if len(a.voters) >= mostVoters {
		clear(a.voters)
	}
	a.voters[key] = v
	return v, nil
}

// version that a score names, for events of the schema.
func (a *asserting) version(ctx context.Context, name string, schema *events.Schema) (v version, err error) {
	if v, ok := a.versions[name]; ok {
		return v, nil
	}
	defer func() {
		if err == nil {
			a.versions[name] = v
		}
	}()
	if name == "" {
		v.predictor = model.Prior(&schema.Contract)
		return v, nil
	}
	kind, number, err := model.ParseName(name)
	if err != nil || kind != a.Kind {
		v.broken = fmt.Sprintf("it names the model %q, which is none of the kind", name)
		return v, nil
	}
	artifact, err := a.registry.Get(ctx, kind, number)
	switch {
	case errors.Is(err, model.ErrNoVersion):
		v.why = whyGone
		m, err := tail.LastOf(ctx, a.JS, "KV_"+events.ModelsBucket, "$KV."+events.ModelsBucket+"."+name)
		return v, isGone(m, err, events.ModelsBucket, name)
	case errors.Is(err, model.ErrArtifact):
		v.why = whyRefused
		return v, nil
	case err != nil:
		return v, err
	}
	if v.predictor, err = model.Compile(artifact, schema); err != nil {
		v.broken = err.Error()
	}
	return v, nil
}
