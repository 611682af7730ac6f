package monitor

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Causes, as in the design's table.
const (
	causeNoScorer   = "NO_SCORER"   // no member, and no scorer's heart beats
	causeWedged     = "WEDGED"      // events wait, the position is frozen
	causePoison     = "POISON"      // as WEDGED, and scorers have tried again and again at one position
	causeSlow       = "SLOW"        // the position moves, but the oldest event waits too long
	causeNoQuorum   = "NO_QUORUM"   // the streams do not answer
	causeNoPosition = "NO_POSITION" // the lane has none
	causeRecreated  = "RECREATED"   // it counts in another EVENTS than there is
	causeRewind     = "REWIND"      // EVENTS ends before it
	causeConflict   = "CONFLICT"    // an event has the id of an earlier one, and other content
	causeUntrusted  = "UNTRUSTED"   // what a rollout record puts in force is not what a trusted key signed
	causeUnfit      = "UNFIT"       // scorers cannot serve it for another reason
	causeMemberGone = "MEMBER_GONE" // a member of the model does not vote
)

// What an alert is about.
const (
	whatNoScorer     = "no_scorer"
	whatKindUnseen   = "kind_unseen"
	whatLaneStalled  = "lane_stalled"
	whatLaneLate     = "lane_late"
	whatLaneHalted   = "lane_halted"
	whatIDConflict   = "id_conflict"
	whatModelRefused = "model_refused"
	whatMemberGone   = "member_missing"
)

var actions = map[string]string{
	causeNoScorer:   "start a scorer",
	causeWedged:     "see the owner's log; restart it if its heart beats and nothing moves",
	causePoison:     "look at the event after the position; it ends as invalid by itself after the last try",
	causeSlow:       "add a scorer, or find out what slows them down",
	causeNoQuorum:   "bring nodes back: a stream needs two of three",
	causeNoPosition: "find out who deleted it, then `riskweir lane rebase`",
	causeRecreated:  "if EVENTS was made anew on purpose, `riskweir lane rebase`",
	causeRewind:     "if EVENTS was restored from a backup, `riskweir lane rebase`",
	causeUntrusted:  "the model before goes on; find out who wrote it and who put it in force; put another in force, or, if you know where it is from, `riskweir model sign`",
	causeUnfit:      "the model before goes on; put another in force: `riskweir model rollback`",
	causeMemberGone: "the other members score without it; see the scorers' logs for why. For `online`: does a trainer lead, and publish into ONLINE?",
	causeConflict:   "find out who sends two events under one id; the later one is not scored",
}

// Limits of the rules.
type Limits struct {
	Age    time.Duration // the oldest event without an outcome should not be older
	Stall  time.Duration // events wait and the position does not move for so long: stalled
	Unseen time.Duration // without a sample of a kind: its lanes are unknown
	Absent time.Duration // without any scorer
	Recent time.Duration // a conflict of ids is told so long

	// An incident opens when Open of the last Of samples are bad, and closes after Close good ones in a row.
	// Of <= 64.
	Open, Of, Close int
}

// DefaultLimits suit a sample a second: a lost scorer or node is replaced before they alarm, if all is well.
func DefaultLimits() Limits {
	return Limits{Age: 10 * time.Second, Stall: 4 * time.Second, Unseen: 5 * time.Second, Absent: 3 * time.Second, Recent: 10 * time.Minute, Open: 3, Of: 5, Close: 3}
}

// Sample is one look at everything.
type Sample struct {
	At      time.Time       // by the monitor's own clock
	Kinds   []KindSample    // in the order of their names
	Members []string        // scorers that compete for lanes, by instance
	Beating []string        // scorers whose heart beats, by instance
	Refused []RefusedSample // by kind and model
	Missing []MissingSample // by kind and member
}

// MissingSample is a member of a model that the last scores of some scorers lacked.
type MissingSample struct {
	Kind, Member string
	By           []string // scorers, by name
}

// RefusedSample is what scorers passed over.
type RefusedSample struct {
	Kind string
	By   []string // scorers, by name
	events.RefusedModel
}

// KindSample of one kind.
type KindSample struct {
	Kind    string
	Err     string // not seen; the rest is empty
	Created time.Time
	Stored  uint64 // events, and how far files have been ingested
	Told    uint64 // messages that tell of labels, and are no events
	LastSeq uint64
	Lanes   []LaneSample // by lane

	Conflict *ConflictSample // the latest; nil: there is none, or the kind remembers no ids
}

// ConflictSample of an event whose id an earlier one has, with other content.
type ConflictSample struct {
	Seq, First uint64
	Age        time.Duration // of the outcome
}

// LaneSample of one lane.
type LaneSample struct {
	Lane     int
	Found    bool // there is a position
	Position events.Position
	Pending  uint64        // events after it
	Age      time.Duration // of the oldest of those
}

// rules is the state of the evaluator. It does no I/O and knows no clock but that of the samples.
type rules struct {
	limits    Limits
	kinds     map[string]*kindState
	incidents map[string]*incident // by key
	scorers   time.Time            // when there was one last
	began     time.Time
	noScorer  bool // in the latest sample
	deaf      bool // no scorer's heart beats in it
}

type kindState struct {
	seen     time.Time // last good sample
	last     KindSample
	err      string
	lanes    []laneState
	arriving rate
	scoring  rate
	pending  uint64
}

type laneState struct {
	position uint64
	moved    time.Time // when it moved last, or nothing waited
	state    string
}

// incident is one root cause from open to close.
//
//	open  =>  id names it in every alert, from firing to resolved
type incident struct {
	what, kind string
	window     uint64 // latest samples, newest in bit 0; 1: bad
	clean      int    // good samples in a row
	open       bool
	alert      events.Alert // as last told; its Incident is the id
}

// finding is that something is bad in one sample.
type finding struct {
	what, kind, severity, cause string
	model                       string // each is an incident of its own; empty: it is about none
	member                      string // likewise, of a model
	lanes                       []int
	evidence                    map[string]string
}

func newRules(l Limits) *rules {
	return &rules{limits: l, kinds: map[string]*kindState{}, incidents: map[string]*incident{}}
}

// step takes a sample and returns the alerts that follow from it.
func (r *rules) step(s Sample) []events.Alert {
	if r.began.IsZero() {
		r.began, r.scorers = s.At, s.At
	}
	r.deaf = len(s.Beating) == 0
	if len(s.Members)+len(s.Beating) > 0 {
		r.scorers = s.At
	}
	declared := map[string]bool{}
	for _, k := range s.Kinds {
		declared[k.Kind] = true
		r.kind(k, s.At)
	}
	for name := range r.kinds {
		if !declared[name] {
			delete(r.kinds, name)
		}
	}
	return r.judge(r.findings(s), s.At)
}

func (r *rules) kind(k KindSample, now time.Time) {
	st := r.kinds[k.Kind]
	if st == nil {
		st = &kindState{seen: now}
		r.kinds[k.Kind] = st
	}
	st.err = k.Err
	if k.Err != "" {
		return
	}
	var pending uint64
	for _, l := range k.Lanes {
		pending += l.Pending
	}
	if dt := now.Sub(st.seen); dt > 0 && k.LastSeq >= st.last.LastSeq && st.last.Kind != "" {
		came := max(0, float64(k.LastSeq-st.last.LastSeq)-max(0, float64(k.Told)-float64(st.last.Told)))
		done := max(0, came-(float64(pending)-float64(st.pending)))
		st.arriving.observe(came, dt)
		st.scoring.observe(done, dt)
	}
	st.seen, st.last, st.pending = now, k, pending
	for len(st.lanes) < len(k.Lanes) {
		st.lanes = append(st.lanes, laneState{moved: now})
	}
	for i, l := range k.Lanes {
		ls := &st.lanes[i]
		if l.Pending == 0 || l.Position.Seq != ls.position {
			ls.moved = now
		}
		ls.position = l.Position.Seq
		ls.state = r.laneState(k, l, now.Sub(ls.moved))
	}
}

func (r *rules) laneState(k KindSample, l LaneSample, frozen time.Duration) string {
	switch {
	case haltCause(k, l) != "":
		return Halted
	case l.Pending == 0:
		return Idle
	case frozen >= r.limits.Stall:
		return Stalled
	case l.Age >= r.limits.Age:
		return Late
	}
	return Busy
}

func haltCause(k KindSample, l LaneSample) string {
	switch {
	case !l.Found:
		return causeNoPosition
	case !l.Position.Incarnation.Equal(k.Created):
		return causeRecreated
	case l.Position.Seq > k.LastSeq:
		return causeRewind
	}
	return ""
}

// findings of one sample, roots first: what follows from another finding is left out.
func (r *rules) findings(s Sample) []finding {
	var out []finding
	r.noScorer = len(r.kinds) > 0 && s.At.Sub(r.scorers) >= r.limits.Absent
	if r.noScorer {
		out = append(out, finding{what: whatNoScorer, severity: events.Page, cause: causeNoScorer,
			evidence: map[string]string{"absent": round(s.At.Sub(r.scorers))}})
	}
	for _, name := range slices.Sorted(maps.Keys(r.kinds)) {
		k := r.kinds[name]
		if unseen := s.At.Sub(k.seen); unseen >= r.limits.Unseen {
			out = append(out, finding{what: whatKindUnseen, kind: name, severity: events.Page, cause: causeNoQuorum,
				evidence: map[string]string{"unseen": round(unseen), "error": k.err}})
			for i := range k.lanes {
				k.lanes[i].state = Unknown
			}
			continue
		}
		if k.err != "" {
			continue
		}
		out = append(out, r.laneFindings(name, k, s)...)
		if c := k.last.Conflict; c != nil && c.Age < r.limits.Recent {
			out = append(out, finding{what: whatIDConflict, kind: name, severity: events.Ticket, cause: causeConflict, evidence: map[string]string{
				"event": strconv.FormatUint(c.Seq, 10), "first": strconv.FormatUint(c.First, 10), "age": round(c.Age)}})
		}
	}
	for _, x := range s.Refused {
		if r.kinds[x.Kind] == nil {
			continue
		}
		f := finding{what: whatModelRefused, kind: x.Kind, model: x.Model, severity: events.Ticket, cause: causeUnfit, evidence: map[string]string{
			"revision": strconv.FormatUint(x.Revision, 10), "scorers": strings.Join(x.By, ","), "why": x.Why}}
		if x.Untrusted {
			f.cause, f.severity = causeUntrusted, events.Page
		}
		out = append(out, f)
	}
	for _, x := range s.Missing {
		if r.kinds[x.Kind] != nil {
			out = append(out, finding{what: whatMemberGone, kind: x.Kind, member: x.Member, severity: events.Ticket, cause: causeMemberGone,
				evidence: map[string]string{"scorers": strings.Join(x.By, ",")}})
		}
	}
	return out
}

func (r *rules) laneFindings(kind string, k *kindState, s Sample) []finding {
	by := map[string]*finding{}
	for i, l := range k.last.Lanes {
		f := finding{kind: kind, severity: events.Page}
		switch k.lanes[i].state {
		case Halted:
			f.what, f.cause = whatLaneHalted, haltCause(k.last, l)
		case Stalled:
			if r.noScorer {
				continue
			}
			f.what, f.cause = whatLaneStalled, causeWedged
			if l.Position.Attempts >= 2 || l.Position.Tries > 0 {
				f.cause = causePoison
			}
		case Late:
			if r.noScorer {
				continue
			}
			f.what, f.cause, f.severity = whatLaneLate, causeSlow, events.Ticket
		default:
			continue
		}
		b := by[f.what]
		if b == nil {
			f.evidence = evidence(k, l, k.lanes[i].moved, s)
			by[f.what] = &f
			b = &f
		}
		b.lanes = append(b.lanes, l.Lane)
	}
	var out []finding
	for _, what := range slices.Sorted(maps.Keys(by)) {
		out = append(out, *by[what])
	}
	return out
}

func evidence(k *kindState, l LaneSample, moved time.Time, s Sample) map[string]string {
	owner := "nobody"
	if l.Position.Owner != "" {
		owner = l.Position.Owner + ", its heart does not beat"
		if slices.Contains(s.Beating, l.Position.Owner) {
			owner = l.Position.Owner + ", its heart beats"
		}
	}
	return map[string]string{
		"owner": owner, "position": strconv.FormatUint(l.Position.Seq, 10), "epoch": strconv.FormatUint(l.Position.Epoch, 10),
		"pending": strconv.FormatUint(l.Pending, 10), "age": round(l.Age), "frozen": round(s.At.Sub(moved)),
	}
}

func round(d time.Duration) string { return d.Round(100 * time.Millisecond).String() }

// judge opens and closes incidents.
func (r *rules) judge(found []finding, now time.Time) []events.Alert {
	var alerts []events.Alert
	bad := map[string]bool{}
	for _, f := range found {
		key := f.key()
		bad[key] = true
		in := r.incidents[key]
		if in == nil {
			in = &incident{what: f.what, kind: f.kind}
			r.incidents[key] = in
		}
		in.window, in.clean = in.window<<1|1, 0
		alert := f.alert(now)
		switch {
		case in.open && in.alert.Cause != alert.Cause:
			alert.Incident = in.alert.Incident
			in.alert = alert
			alerts = append(alerts, alert)
		case in.open:
			alert.Incident, alert.At = in.alert.Incident, in.alert.At
			in.alert = alert // fresh evidence for Status
		case r.opens(in.window):
			alert.Incident = fmt.Sprintf("%s-%s", strings.TrimSuffix(f.what+"-"+cmp.Or(f.model, strings.Trim(f.kind+"-"+f.member, "-")), "-"), strconv.FormatInt(now.UnixMilli(), 36))
			in.open, in.alert = true, alert
			alerts = append(alerts, alert)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.incidents)) {
		in := r.incidents[key]
		if bad[key] || r.blind(in, now) {
			continue
		}
		in.window <<= 1
		in.clean++
		if in.clean < r.limits.Close {
			continue
		}
		if in.open {
			alert := in.alert
			alert.State, alert.At = events.Resolved, now
			alerts = append(alerts, alert)
		}
		delete(r.incidents, key)
	}
	return alerts
}

func (r *rules) opens(window uint64) bool {
	n := 0
	for i := range r.limits.Of {
		n += int(window >> i & 1)
	}
	return n >= r.limits.Open
}

// blind says that nothing was seen that could prove the incident over: its kind was out of sight, or what is
// found is another root's doing.
func (r *rules) blind(in *incident, now time.Time) bool {
	switch in.what {
	case whatLaneLate, whatLaneStalled:
		if r.noScorer {
			return true
		}
	case whatModelRefused, whatMemberGone:
		return r.deaf
	case whatLaneHalted, whatIDConflict:
	default:
		return false
	}
	k := r.kinds[in.kind]
	return k != nil && k.seen.Before(now)
}

// key of the incident that a finding belongs to.
func (f finding) key() string { return incidentKey(f.what, f.kind, cmp.Or(f.model, f.member)) }

// keyOf is the key of the incident that an alert tells of.
func keyOf(a events.Alert) string {
	return incidentKey(a.What, a.Kind, cmp.Or(a.Evidence[evidenceModel], a.Evidence[evidenceMember]))
}

func incidentKey(what, kind, model string) string {
	return strings.TrimRight(what+" "+kind+" "+model, " ")
}

const (
	evidenceModel  = "model"
	evidenceMember = "member"
)

func (f finding) alert(now time.Time) events.Alert {
	if f.model != "" {
		f.evidence[evidenceModel] = f.model
	}
	if f.member != "" {
		f.evidence[evidenceMember] = f.member
	}
	a := events.Alert{State: events.Firing, Severity: f.severity, What: f.what, Kind: f.kind, Cause: f.cause, Evidence: f.evidence, Action: actions[f.cause], At: now}
	if len(f.lanes) == 1 {
		a.Lane = &f.lanes[0]
	} else if len(f.lanes) > 1 {
		lanes := make([]string, len(f.lanes))
		for i, l := range f.lanes {
			lanes[i] = strconv.Itoa(l)
		}
		a.Evidence["lanes"] = strings.Join(lanes, ",")
	}
	return a
}

// firing are the open incidents, by severity and then by age.
func (r *rules) firing() []events.Alert {
	out := []events.Alert{}
	for _, in := range r.incidents {
		if in.open {
			out = append(out, in.alert)
		}
	}
	slices.SortFunc(out, func(a, b events.Alert) int {
		return cmp.Or(strings.Compare(a.Severity, b.Severity), a.At.Compare(b.At), strings.Compare(a.Incident, b.Incident))
	})
	return out
}

// adopt carries on with the incidents that the leader before had told of, and returns what it had not.
func (r *rules) adopt(told []events.Alert) []events.Alert {
	known := map[string]bool{}
	for _, a := range told {
		key := keyOf(a)
		known[key] = true
		in := r.incidents[key]
		if in == nil {
			in = &incident{what: a.What, kind: a.Kind}
			r.incidents[key] = in
		}
		if !in.open {
			in.open, in.alert = true, a
		} else {
			in.alert.Incident, in.alert.At = a.Incident, a.At
		}
	}
	var untold []events.Alert
	for _, a := range r.firing() {
		if !known[keyOf(a)] {
			untold = append(untold, a)
		}
	}
	return untold
}

// status fills in what the rules know of the kinds.
func (r *rules) status(now time.Time) []KindStatus {
	out := []KindStatus{}
	for _, name := range slices.Sorted(maps.Keys(r.kinds)) {
		k := r.kinds[name]
		st := KindStatus{Kind: name, Error: k.err, Stored: k.last.Stored, LastSeq: k.last.LastSeq, Pending: k.pending,
			Arriving: k.arriving.perSecond, Scoring: k.scoring.perSecond, Lanes: []LaneStatus{}}
		for i, l := range k.last.Lanes {
			ls := LaneStatus{Lane: l.Lane, State: k.lanes[i].state, Owner: l.Position.Owner, Position: l.Position.Seq, Epoch: l.Position.Epoch,
				Attempts: l.Position.Attempts, Pending: l.Pending, AgeMS: ms(l.Age)}
			if l.Pending > 0 {
				ls.FrozenMS = ms(now.Sub(k.lanes[i].moved))
			}
			st.AgeMS = max(st.AgeMS, ls.AgeMS)
			st.Lanes = append(st.Lanes, ls)
		}
		out = append(out, st)
	}
	return out
}

// rate is an average that forgets: an observation of dt ago counts exp(-dt/rateMemory) as much.
type rate struct {
	perSecond float64
	warm      bool
}

const rateMemory = 5 * time.Second

func (r *rate) observe(n float64, dt time.Duration) {
	now := n / dt.Seconds()
	if !r.warm {
		r.perSecond, r.warm = now, true
		return
	}
	r.perSecond += (now - r.perSecond) * -math.Expm1(-dt.Seconds()/rateMemory.Seconds())
}
