package lane

import (
	"fmt"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Inputs. Each is one thing that happened to the lane.
type (
	Own     struct{} // the view of the members gives us the lane
	Release struct{} // the view takes it away, or we stop
	Tick    struct{}
	Revised struct{ Revision uint64 } // another model version is in force

	PositionRead struct { // answers ReadPosition
		ID       uint64
		Found    bool // false: the stream answered that there is none
		Err      error
		Token    uint64
		Position events.Position
	}
	Inspected struct { // answers Inspect
		ID          uint64
		Err         error
		Incarnation time.Time
		First, Last uint64 // EVENTS sequences
		Next        uint64 // of the lane's first event behind the position, by EVENTS' leader; 0: there was none, or it is not known
	}
	Opened struct { // answers OpenRun
		Run uint64
		Err error
	}
	Delivered struct {
		Run      uint64
		Consumer uint64 // consumer sequence
		Event    Event
	}
	Heartbeat struct {
		Run      uint64
		Consumer uint64 // last consumer sequence that the server has sent
		Stream   uint64 // EVENTS sequence up to which it has looked
	}
	RunEnded struct {
		Run   uint64
		Cause string
	}
	Horizon struct { // of EVENTS, now
		Incarnation time.Time
		First, Last uint64
	}
	CommitEnd struct { // answers Commit
		ID     uint64
		Result Result
		Token  uint64 // if Stored
		Err    error
	}
)

// Result of a commit, as far as it is known.
type Result uint8

const (
	Stored  Result = iota
	Fenced         // a newer position exists: another owner
	Refused        // not stored, the position may be ours still
	Unknown        // stored now, later or never
)

// Actions. The carrier answers each with the input named beside it. An answer carries the ID
// of its question: one that comes late, when something else has been asked, is dropped.
type (
	ReadPosition struct{ ID uint64 } // PositionRead
	Inspect      struct {            // Inspected, once revision Revision is in force here
		ID       uint64
		Revision uint64
		Begin    bool // a run is to begin behind After, an EVENTS sequence: Next is wanted
		After    uint64
	}
	OpenRun struct { // Opened, then Delivered, Heartbeat, RunEnded
		Run   uint64
		Epoch uint64
		From  uint64 // EVENTS sequence
	}
	CloseRun struct{ Run uint64 }
	Commit   struct { // CommitEnd
		ID          uint64
		Fence       uint64
		Position    events.Position
		Events      []Event
		Treatment   Treatment
		First, Last uint64 // Treatment Expired: the range
		Attempts    int    // Treatment Unread: owners that died at this place
		SetsOut     bool   // upon events that owners may have died of: nothing else may be tried until their own commit has ended
	}
	Halt     struct{ Cause string } // alarm
	Note     struct{ What string }  // worth a line in the log
	Released struct{}               // the lane is no longer ours
)

// Input and Action are the closed sets above.
type (
	Input  any
	Action any
)

// Step takes one input at time now and returns what is to be done, in order.
func (m *Machine) Step(in Input, now time.Time) []Action {
	switch in := in.(type) {
	case Own:
		m.wanted = true
		if m.phase == Idle {
			return m.read()
		}
	case Release:
		m.wanted = false
		return m.release()
	case Revised:
		m.revision = max(m.revision, in.Revision)
		return m.proceed(now)
	case Tick:
		return m.tick(now)
	case PositionRead:
		if m.phase == Reading && in.ID == m.asked {
			return m.positionRead(in, now)
		}
	case Inspected:
		if (m.phase == Inspecting || m.phase == Checking) && in.ID == m.asked {
			return m.inspected(in, now)
		}
	case Opened:
		if m.phase == Opening && in.Run == m.run {
			if in.Err != nil {
				return m.doubt(now, "make the run's consumer: "+in.Err.Error())
			}
			m.phase, m.heard = Running, now
			return m.proceed(now)
		}
	case Delivered:
		if m.current(in.Run) {
			return m.take(in, now)
		}
	case Heartbeat:
		if m.current(in.Run) {
			return m.heartbeat(in, now)
		}
	case RunEnded:
		if m.current(in.Run) {
			return m.doubt(now, "run ended: "+in.Cause)
		}
	case Horizon:
		switch {
		case m.phase != Running:
		case !in.Incarnation.Equal(m.pos.Incarnation):
			return m.doubt(now, "EVENTS is another stream than the one that the lane reads")
		case in.Last < m.end:
			return m.doubt(now, fmt.Sprintf("EVENTS ends at %d, and ended at %d when the lane was claimed", in.Last, m.end))
		case in.First > m.received+1:
			return m.doubt(now, fmt.Sprintf("events up to %d left the stream while the lane had read up to %d", in.First-1, m.received))
		}
	case CommitEnd:
		switch m.phase {
		case Claiming, Committing, Expiring, Releasing:
			if in.ID == m.asked {
				return m.commitEnd(in, now)
			}
		}
	}
	return nil
}

func (m *Machine) current(run uint64) bool {
	return run == m.run && (m.phase == Running || m.phase == Committing || m.phase == Checking)
}

func (m *Machine) ask() uint64 {
	m.asked++
	return m.asked
}

func (m *Machine) read() []Action {
	m.phase = Reading
	return []Action{ReadPosition{m.ask()}}
}

// doubt ends whatever is under way: what is not committed is dropped, and the lane begins again from
// the stored position with a claim of its own. A claim is what settles a commit of unknown result.
func (m *Machine) doubt(now time.Time, why string) []Action {
	actions := m.closeRun()
	m.phase, m.retryAt = Waiting, now.Add(m.backoff())
	m.failures++
	return append(actions, Note{why})
}

func (m *Machine) backoff() time.Duration {
	if m.failures == 0 {
		return 0
	}
	d := min(m.limits.Backoff<<min(m.failures-1, 16), m.limits.MaxBackoff)
	m.jitter ^= m.jitter << 13
	m.jitter ^= m.jitter >> 7
	m.jitter ^= m.jitter << 17
	return d/2 + time.Duration(m.jitter%uint64(d/2+1))
}

func (m *Machine) closeRun() []Action {
	open := m.phase == Opening || m.phase == Running || m.phase == Committing || m.phase == Checking
	m.buffer, m.careful = nil, 0
	if !open {
		return nil
	}
	return []Action{CloseRun{m.run}}
}

func (m *Machine) halt(now time.Time, cause string) []Action {
	actions := m.closeRun()
	m.phase, m.retryAt = Halted, now.Add(m.limits.HaltedRetry)
	return append(actions, Halt{cause})
}

func (m *Machine) tick(now time.Time) []Action {
	switch m.phase {
	case Waiting, Halted:
		if !now.Before(m.retryAt) {
			return m.read()
		}
	case Running:
		if now.Sub(m.heard) > m.limits.Silence {
			return m.doubt(now, "no sign of the run for "+now.Sub(m.heard).Round(time.Millisecond).String())
		}
		return m.proceed(now)
	}
	return nil
}

func (m *Machine) positionRead(in PositionRead, now time.Time) []Action {
	switch {
	case in.Err != nil:
		return m.doubt(now, "read the position: "+in.Err.Error())
	case !in.Found && !m.wanted:
		m.phase = Idle
		return []Action{Released{}}
	case !in.Found:
		return m.halt(now, "the lane has no position: it was purged, or SCORES was made anew; nothing is scored until 'riskweir lane rebase' says where to go on")
	}
	m.pos, m.token = in.Position, in.Token
	if !m.wanted {
		return m.letGo()
	}
	claim := suspected(m.alive(m.pos), m.limits.Narrow)
	claim.Epoch++
	if claim.Owner != "" && claim.Owner != m.me {
		claim.Attempts++
	}
	claim.Owner = m.me
	m.revision = max(m.revision, m.pos.Revision)
	return m.commit(Claiming, claim, nil, Scored)
}

// alive takes back that we set out upon some events with nothing else: we came back, or never went.
func (m *Machine) alive(p events.Position) events.Position {
	if p.Trier == m.me {
		p.Trier = ""
		if p.Tries--; p.Tries == 0 {
			p.Trying, p.Taken = 0, 0
		}
	}
	return p
}

// passed is p at seq. What is known of events up to there is of no more use.
func passed(p events.Position, seq uint64) events.Position {
	p.Seq = seq
	if p.Trying <= seq {
		p.Trying, p.Taken, p.Tries, p.Trier = 0, 0, 0, ""
	}
	if p.Until <= seq {
		p.Until, p.Width = 0, 0
	}
	return p
}

// suspected turns the mark of one who did not come back from several events into the range in which what it died of
// stands, to be taken in narrower batches. The mark upon a single event stays: the next try is counted there.
func suspected(p events.Position, narrow int) events.Position {
	if p.Tries > 0 && p.Taken > 1 {
		p.Until, p.Width = p.Trying, max(1, p.Taken/narrow)
		p.Trying, p.Taken, p.Tries, p.Trier = 0, 0, 0, ""
	}
	return p
}

// Counted adds to the position of the commit that is being made what its events' versions came to, which the stage knows.
func (m *Machine) Counted(commit uint64, b events.Besides) {
	if m.phase == Committing && m.asked == commit {
		m.next.Beside = b
	}
}

// commit stores next under the fence of token. If we die on the next line it is stored or
// not; either way the next owner finds one position and goes on behind it.
func (m *Machine) commit(p Phase, next events.Position, batch []Event, t Treatment) []Action {
	m.phase, m.next = p, next
	return []Action{Commit{ID: m.ask(), Fence: m.token, Position: next, Events: batch, Treatment: t, Attempts: m.pos.Attempts}}
}

func (m *Machine) commitEnd(in CommitEnd, now time.Time) []Action {
	was := m.phase
	switch {
	case was == Releasing && in.Result == Fenced: // perhaps by a commit of our own, taken for lost, whose mark must not stay
		return m.read()
	case was == Releasing && in.Result == Stored:
		m.phase = Idle
		if m.wanted {
			return m.read()
		}
		return []Action{Released{}}
	}
	switch in.Result {
	case Stored:
	case Fenced:
		return m.doubt(now, "fenced: another owner has a newer position")
	default:
		return m.doubt(now, fmt.Sprintf("commit: %v", in.Err))
	}
	if m.next.Seq > m.pos.Seq {
		m.failures = 0
	}
	m.pos, m.token, m.committed, m.heard = m.next, in.Token, now, now
	if m.phase = Inspecting; was == Committing {
		m.phase = Running
	}
	if !m.wanted {
		return m.release()
	}
	if was == Committing {
		return m.proceed(now)
	}
	return []Action{Inspect{ID: m.ask(), Revision: m.pos.Revision, Begin: true, After: m.pos.Seq}}
}

func (m *Machine) inspected(in Inspected, now time.Time) []Action {
	switch {
	case in.Err != nil:
		return m.doubt(now, "inspect the events stream: "+in.Err.Error())
	case !in.Incarnation.Equal(m.pos.Incarnation):
		return m.halt(now, fmt.Sprintf("the position counts in the EVENTS stream made at %s, and this one was made at %s (deleted and made again?): say where to go on with 'riskweir lane rebase'",
			m.pos.Incarnation.Format(time.RFC3339Nano), in.Incarnation.Format(time.RFC3339Nano)))
	case in.Last < m.pos.Seq:
		return m.halt(now, fmt.Sprintf("the position is at event %d, and EVENTS ends at %d (restored from an older backup?): say where to go on with 'riskweir lane rebase'", m.pos.Seq, in.Last))
	case m.phase == Checking && in.Next != 0 && in.Next < m.probed.until:
		return m.late(now, m.probed.until-1, in.Next)
	case m.phase == Checking:
		m.phase, m.doubtful, m.later, m.probed = Running, m.later, 0, leap{}
		if in.First <= m.pos.Seq+1 {
			return m.proceed(now)
		}
		for len(m.buffer) > 0 && m.buffer[0].Seq < in.First {
			m.buffer = m.buffer[1:]
		}
		m.received = max(m.received, in.First-1)
		return m.expire(Committing, in.First-1)
	case in.First > m.pos.Seq+1:
		return m.expire(Expiring, in.First-1)
	}
	if m.suspicious() {
		m.careful = m.limits.MaxBatch // the batch that the owner before us died of may have been as long
	}
	m.run++
	m.delivered, m.received, m.end, m.begins = 0, m.pos.Seq, in.Last, in.Next
	m.known, m.doubtful, m.later, m.leaps, m.probed = time.Time{}, 0, 0, nil, leap{}
	m.phase = Opening
	return []Action{OpenRun{Run: m.run, Epoch: m.pos.Epoch, From: m.pos.Seq + 1}}
}

// expire commits that what is behind the position up to last left EVENTS without an outcome.
func (m *Machine) expire(p Phase, last uint64) []Action {
	next := passed(m.pos, last)
	actions := m.commit(p, next, nil, Expired)
	c := actions[0].(Commit)
	c.First, c.Last = m.pos.Seq+1, last
	return []Action{c}
}

// reached notes that the run has shown all up to seq. A consumer passes over what has left the stream without a gap
// in its numbers. So what it shows is doubtful where that cannot be ruled out: at the start of a run, and behind an
// event so old that the next one may have expired, by half the retention, which forgives any clock.
func (m *Machine) reached(seq uint64, now time.Time) {
	m.received = max(m.received, seq)
	old := m.limits.Refresh > 0 && now.Sub(m.known) > 2*m.limits.Refresh
	switch {
	case !m.known.IsZero() && !old:
	case m.phase == Checking && m.later == 0:
		m.later = seq
	case m.phase != Checking && m.doubtful == 0:
		m.doubtful = seq
	}
}

// leapt notes that the run is about to show seq, or that there is no event up to it, and has passed over much since it showed something.
// Consumers were seen to pass over thousands of events, with nothing in their numbers to show it, on nodes that had just been parted and
// frozen.
func (m *Machine) leapt(until uint64) {
	switch n := len(m.leaps); {
	case m.limits.Leap == 0 || until <= m.received+m.limits.Leap:
	case n > 0 && m.leaps[n-1].until == m.received+1 && (len(m.buffer) == 0 || m.buffer[len(m.buffer)-1].Seq <= m.leaps[n-1].after):
		m.leaps[n-1].until = until // an idle lane, at each heartbeat
	default:
		m.leaps = append(m.leaps, leap{m.received, until})
	}
}

// check asks EVENTS, after the doubtful has been received, where it begins, and after a leap for what would have been in it.
func (m *Machine) check(now time.Time) []Action {
	m.phase, m.inquired = Checking, now
	a := Inspect{ID: m.ask(), Revision: m.pos.Revision}
	if len(m.leaps) > 0 {
		m.probed, m.leaps = m.leaps[0], m.leaps[1:]
		a.Begin, a.After = true, m.probed.after
	}
	return []Action{a}
}

// unproven says that what the run has shown up to seq is not to be committed before EVENTS is asked.
func (m *Machine) unproven(seq uint64) bool {
	return m.doubtful != 0 && seq >= m.doubtful || len(m.leaps) > 0 && seq >= m.leaps[0].until
}

// take accepts only the next consumer sequence of the current run: a run is numbered 1, 2, 3 without a gap,
// and its name is its identity, so nothing of another run can be taken for it.
func (m *Machine) take(in Delivered, now time.Time) []Action {
	if in.Consumer != m.delivered+1 || in.Event.Seq <= m.received {
		return m.doubt(now, fmt.Sprintf("gap in the run: message %d (event %d) after %d (event %d)", in.Consumer, in.Event.Seq, m.delivered, m.received))
	}
	if m.delivered == 0 && m.begins != 0 && in.Event.Seq > m.begins {
		return m.late(now, in.Event.Seq, m.begins)
	}
	m.leapt(in.Event.Seq)
	m.reached(in.Event.Seq, now)
	m.delivered, m.known, m.heard = in.Consumer, in.Event.Stored, now
	m.buffer = append(m.buffer, in.Event)
	return m.proceed(now)
}

// late ends a run that has looked past an event of the lane without showing it.
func (m *Machine) late(now time.Time, seq, missed uint64) []Action {
	return m.doubt(now, fmt.Sprintf("the run has passed over event %d of the lane and is at %d", missed, seq))
}

// heartbeat catches the tail that a gap cannot show: messages sent after which nothing more came.
func (m *Machine) heartbeat(in Heartbeat, now time.Time) []Action {
	if in.Consumer != m.delivered {
		return m.doubt(now, fmt.Sprintf("the server has sent %d messages of the run, %d came", in.Consumer, m.delivered))
	}
	if m.delivered == 0 && m.begins != 0 && in.Stream >= m.begins {
		return m.late(now, in.Stream, m.begins)
	}
	m.heard, m.failures = now, 0
	if in.Stream > m.received {
		m.leapt(in.Stream + 1)
		m.reached(in.Stream, now)
	}
	return m.proceed(now)
}

// proceed commits the next thing, if nothing is in flight: a batch, or whatever an idle lane owes.
func (m *Machine) proceed(now time.Time) []Action {
	switch {
	case m.phase != Running:
		return nil
	case len(m.buffer) == 0:
		return m.owed(now)
	case m.unproven(m.buffer[0].Seq):
		return m.check(now)
	case m.careful > 0 && (m.pos.Attempts >= m.limits.CarefulAt || m.pos.Tries > 0 || m.pos.Until > 0):
		return m.setOut()
	}
	return m.score(m.first(m.limits.MaxBatch, math.MaxUint64), Scored)
}

// suspicious says that owners before us may have died of what is behind the position.
func (m *Machine) suspicious() bool { return m.pos.Attempts > 0 || m.pos.Tries > 0 || m.pos.Until > 0 }

// first is how many events, of the first n, are no later than last, and not doubtful; the first of all is neither.
func (m *Machine) first(n int, last uint64) int {
	n = min(n, len(m.buffer))
	for n > 1 && (m.buffer[n-1].Seq > last || m.unproven(m.buffer[n-1].Seq)) {
		n--
	}
	return n
}

func (m *Machine) score(n int, t Treatment) []Action {
	batch := m.buffer[:n:n]
	m.buffer = m.buffer[n:]
	next := passed(m.pos, batch[n-1].Seq)
	next.Revision = m.revision
	if m.careful = max(0, m.careful-n); m.careful == 0 {
		next.Attempts = 0
	}
	if t == Unread || m.careful == 0 {
		next.Until, next.Width = 0, 0
	}
	return m.commit(Committing, next, batch, t)
}

// setOut takes a narrow batch from the head of the buffer, and first stores that it is about to: should the process die of
// it, the next owner knows of which events, and takes them in narrower batches yet. An event alone from which MaxTries
// owners have not come back ends unread. Whoever does come back takes that back with its next claim.
func (m *Machine) setOut() []Action {
	head := m.buffer[0].Seq
	next := m.pos
	switch alone := next.Tries > 0 && next.Taken == 1 && next.Trying == head; {
	case next.Tries > 0 && next.Trier == m.me && next.Trying >= head:
		return m.score(m.first(next.Taken, next.Trying), Scored)
	case alone && next.Tries >= m.limits.MaxTries:
		return m.score(1, Unread)
	case alone:
		next.Tries++
	case next.Until >= head:
		next.Taken = m.first(next.Width, next.Until) // what came alone is taken alone, and the next are as many as may be
		next.Trying, next.Tries = m.buffer[next.Taken-1].Seq, 1
	default:
		next.Until, next.Width = 0, 0
		next.Taken = m.first(max(1, m.limits.MaxBatch/m.limits.Narrow), math.MaxUint64)
		next.Trying, next.Tries = m.buffer[next.Taken-1].Seq, 1
	}
	next.Trier = m.me
	actions := m.commit(Committing, next, nil, Scored)
	c := actions[0].(Commit)
	c.SetsOut = true
	return []Action{c}
}

// owed commits a position without events: at a new model revision, so that a promotion can be seen to be
// complete; when all that stood there at the claim is passed, so that claims of an idle lane are not taken for crashes;
// before retention takes the position away; and when it is far behind, since for a run that begins there the server looks at
// every subject of EVENTS, under the stream's lock (nats-server 2.15.2, NumPending and NumPendingMulti: 0.2 s for 1.5 million).
func (m *Machine) owed(now time.Time) []Action {
	stale := m.limits.Refresh > 0 && now.Sub(m.committed) >= m.limits.Refresh || m.limits.Far > 0 && m.received >= m.pos.Seq+m.limits.Far
	all := m.received >= m.end
	suspect := all && m.suspicious()
	switch {
	case len(m.leaps) > 0 && now.Sub(m.inquired) >= m.limits.Silence: // an event that was passed over may be the last for long
		return m.check(now)
	case !stale && !suspect && m.revision <= m.pos.Revision:
		return nil
	case (m.doubtful != 0 || len(m.leaps) > 0) && m.received > m.pos.Seq:
		return m.check(now)
	}
	next := passed(m.pos, m.received)
	next.Revision = m.revision
	if all {
		next.Attempts, next.Trying, next.Taken, next.Tries, next.Trier, next.Until, next.Width, m.careful = 0, 0, 0, 0, "", 0, 0, 0
	}
	return m.commit(Committing, next, nil, Scored)
}

// release gives the lane up. What is in flight is waited for; what is only read is left to the next owner. As long as the
// position may be ours it goes on, as with any doubt: whoever comes next would take us for dead. Who cannot wait ends the loop.
func (m *Machine) release() []Action {
	switch m.phase {
	case Claiming, Committing, Expiring, Releasing:
		return nil // commitEnd comes back here
	case Reading:
		return nil // positionRead lets go
	case Waiting:
		return m.read()
	case Inspecting, Opening, Running, Checking:
		return append(m.closeRun(), m.letGo()...)
	}
	m.phase = Idle
	return []Action{Released{}}
}

// letGo stores that the lane has no owner, if we were it.
func (m *Machine) letGo() []Action {
	if m.pos.Owner != m.me {
		m.phase = Idle
		return []Action{Released{}}
	}
	next := m.alive(m.pos)
	next.Owner = ""
	return m.commit(Releasing, next, nil, Scored)
}
