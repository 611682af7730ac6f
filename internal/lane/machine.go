// Package lane gives every event of a lane exactly one outcome, in order, whoever dies.
//
// A lane is one partition of EVENTS_<kind>. Its owner claims it, reads it through a consumer made
// for this one run, and commits outcomes and position in one atomic batch to SCORES_<kind>. The
// position's fence makes the batch of anyone else fail. Views of who owns what, clocks and
// time-outs cost time when they are wrong, never correctness.
//
//	          Own                committed              inspected            opened
//	idle ───────────► reading ─► claiming ─► inspecting ─────────► opening ────────► running ⇄ committing
//	  ▲                  ▲           │            │                   │                 │          │
//	  │ Release          └───────────┴────────────┴── any doubt ──────┴─────────────────┴──────────┘
//	  └── from everywhere                         └── no position, another incarnation ─► halted
//
// While running, a lane asks EVENTS again where it begins (checking) whenever events may have expired between two that it was shown.
//
// Machine decides and does no I/O; Runner carries its actions to the broker and the answers back.
package lane

import (
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Limits of a lane.
type Limits struct {
	MaxBatch     int           // events in one commit; with the position at most 1000 messages
	MaxBuffered  int           // events read ahead of the commit
	CarefulAt    int           // claims at one place at which the lane is taken in narrow batches, each noted before it is tried
	Narrow       int           // by which a batch is narrowed that owners may have died of: MaxBatch/Narrow events, then a Narrow-th of those, at last one
	MaxTries     int           // times an event is set out upon alone before it ends unread
	Leap         uint64        // EVENTS sequences that a run may pass over without an event of the lane before EVENTS' leader is asked whether there is none; 0: any
	Far          uint64        // EVENTS sequences by which the position of an idle lane may be behind what its run has passed; 0: any
	Silence      time.Duration // without a message or heartbeat, after which a run is over
	Refresh      time.Duration // age at which an idle lane's position is committed again, so that retention does not take it
	Backoff      time.Duration // before reading the position again, doubled at each failure in a row
	MaxBackoff   time.Duration
	HaltedRetry  time.Duration // how often a halted lane looks whether it was mended
	HeartbeatGap time.Duration // how often the server says that a run is alive
}

// DefaultLimits returns the limits that the trials were made with. Refresh depends on
// the kind's retention and stays zero: no refresh.
func DefaultLimits() Limits {
	return Limits{
		MaxBatch: 900, MaxBuffered: 2700, CarefulAt: 2, Narrow: 30, MaxTries: 2,
		Leap: 512, Far: 50_000, Silence: 1500 * time.Millisecond, HeartbeatGap: 500 * time.Millisecond,
		Backoff: 50 * time.Millisecond, MaxBackoff: time.Second, HaltedRetry: 5 * time.Second,
	}
}

// Phase is where the machine stands.
type Phase uint8

const (
	Idle       Phase = iota
	Waiting          // for Tick to reach retryAt
	Reading          // the stored position
	Claiming         // an empty commit of our own, one epoch up
	Inspecting       // the events stream: its incarnation, first and last sequence
	Opening          // the run's consumer
	Running
	Committing // running, with one commit in flight
	Checking   // running, while the events stream is asked whether something left it unseen
	Expiring   // committing that a range left EVENTS unscored; no run is open
	Releasing  // committing that the lane has no owner
	Halted     // needs a person; looked at again every HaltedRetry
)

func (p Phase) String() string {
	return [...]string{"idle", "waiting", "reading", "claiming", "inspecting", "opening", "running", "committing", "checking", "expiring", "releasing", "halted"}[p]
}

// Event is one event as a run delivered it.
type Event struct {
	Seq     uint64 // EVENTS sequence
	Stored  time.Time
	Subject string // as stored: events.<kind>.<lane>.<token>
	History bool
	Type    string // content type
	Body    []byte
}

// Treatment says what outcome a committed event gets.
type Treatment uint8

const (
	Scored  Treatment = iota
	Unread            // it killed the scorers before: invalid, without being looked at
	Expired           // a range that left EVENTS unscored
)

// Machine is the state of one lane at one scorer. It has one owner: the goroutine that steps it.
//
//	pos is what token names, stored:              nothing newer exists, or our next commit fails
//	buffer[i].Seq > pos.Seq, rising;              inflight ⊂ buffer's past: never in both
//	received >= every Seq of buffer and inflight; every event of the lane <= received, and < doubtful and leaps[0].until, is in an outcome, inflight or buffer
//	a commit is in flight  ⇔  phase is one of Claiming, Committing, Expiring, Releasing
type Machine struct {
	limits Limits
	me     string // instance of this scorer: a restarted process is another one

	phase    Phase
	wanted   bool
	pos      events.Position
	token    uint64 // SCORES sequence of pos
	revision uint64 // that the next batch is scored with

	run       uint64    // number of runs opened; names the current one
	delivered uint64    // consumer sequence of the last event taken from the run
	received  uint64    // EVENTS sequence up to which the run has shown all
	known     time.Time // what comes next was stored no earlier; zero: not known
	doubtful  uint64    // first EVENTS sequence received before which events may have left the stream unseen; 0: none
	later     uint64    // the same of what came since Checking asked
	end       uint64    // last EVENTS sequence at the claim: what killed the owners before stands no later
	leaps     []leap    // rising; no event at or behind the first one's end is committed before EVENTS' leader was asked
	probed    leap      // that Checking asks about; none: zero
	begins    uint64    // the first event that the run must show, as EVENTS' leader saw it at the claim; 0: not known
	buffer    []Event

	next    events.Position // what the commit in flight stores
	asked   uint64          // ID of the last question; only its answer counts
	careful int             // events from here on that owners may have died of; until they are passed Attempts is kept

	heard     time.Time // last sign of the run
	committed time.Time // when token was stored, by our clock
	inquired  time.Time // when EVENTS was asked last while running
	retryAt   time.Time
	failures  int    // in a row
	jitter    uint64 // so that two who quarrel do not do it in step
}

// leap is a stretch of EVENTS in which a run has shown nothing: of the lane there is no event behind after and before until, it says.
type leap struct{ after, until uint64 }

// NewMachine is an idle lane at the scorer instance me.
func NewMachine(me string, l Limits) *Machine {
	m := &Machine{me: me, limits: l, jitter: 14695981039346656037}
	for _, b := range []byte(me) {
		m.jitter = (m.jitter ^ uint64(b)) * 1099511628211 // FNV-1a
	}
	return m
}

func (m *Machine) Phase() Phase              { return m.phase }
func (m *Machine) Position() events.Position { return m.pos }
func (m *Machine) Buffered() int             { return len(m.buffer) }

// Room is how many more events the run may deliver now.
func (m *Machine) Room() int { return m.limits.MaxBuffered - len(m.buffer) }
