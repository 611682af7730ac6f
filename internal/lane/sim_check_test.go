package lane

import "github.com/riskweir/riskweir/pkg/events"

// apply is the moment at which a commit becomes the truth: every invariant of outcomes and positions is held here.
//
//	an event has at most one outcome;           outcomes of a lane are in the order of its events
//	every event of the lane <= pos.Seq has one; an expired range holds only events that left without
//	epoch and revision never fall;              another owner, another epoch
//	an event ends unread only if MaxTries owners set out upon it alone and were not heard of before the next one did
func (w *world) apply(lane int, c Commit) {
	l := &w.lanes[lane]
	was, p := l.top().pos, c.Position
	w.count.commits++
	if w.tracing {
		w.tracef("STORED lane %d: %s", lane, show(c))
	}
	switch {
	case l.missing:
		w.fail("lane %d has lost its position, and %s commits %d after fence %d", lane, p.Owner, p.Seq, c.Fence)
	case p.Seq < was.Seq:
		w.fail("lane %d: position falls from %d to %d", lane, was.Seq, p.Seq)
	case p.Epoch < was.Epoch:
		w.fail("lane %d: epoch falls from %d to %d", lane, was.Epoch, p.Epoch)
	case p.Revision < was.Revision:
		w.fail("lane %d: revision falls from %d to %d", lane, was.Revision, p.Revision)
	case !p.Incarnation.Equal(was.Incarnation):
		w.fail("lane %d: incarnation changes", lane)
	case p.Tries > 0 && (p.Trying <= p.Seq || p.Taken < 1) || p.Tries > 1 && p.Taken != 1 || p.Until > 0 && (p.Until <= p.Seq || p.Width < 1):
		w.fail("lane %d: position %+v cannot be", lane, p)
	case p.Owner != "" && p.Owner != was.Owner && (p.Epoch != was.Epoch+1 || p.Seq != was.Seq || len(c.Events) > 0):
		w.fail("lane %d: %s commits without a claim after %q", lane, p.Owner, was.Owner)
	}
	if p.Epoch > was.Epoch {
		w.count.claims++
	}
	if !p.Incarnation.Equal(w.gen.created) {
		for _, e := range c.Events {
			if e.Subject == w.gen.name {
				w.fail("lane %d: event %d of the new EVENTS is counted in the old one", lane, e.Seq)
			}
		}
		return
	}
	next := 0
	for seq := was.Seq + 1; seq <= p.Seq; seq++ {
		listed := next < len(c.Events) && c.Events[next].Seq == seq
		if seq > w.gen.last() {
			if listed { // read before EVENTS was shortened
				next++
			}
			continue
		}
		e := w.gen.event(seq)
		switch {
		case listed:
			next++
			w.end(lane, seq, e, c)
		case e.lane != lane:
		case e.outcome != none:
			w.fail("lane %d: event %d behind position %d has an outcome", lane, seq, was.Seq)
		case c.Treatment != Expired:
			w.fail("lane %d: position goes from %d to %d over event %d without an outcome", lane, was.Seq, p.Seq, seq)
		case seq < c.First || seq > c.Last || !e.left:
			w.fail("lane %d: expired range %d-%d, first %d: event %d is still there", lane, c.First, c.Last, w.gen.first, seq)
		default:
			e.outcome = expired
			w.count.expired++
		}
	}
	if next != len(c.Events) {
		w.fail("lane %d: batch %s out of order, or behind position %d", lane, show(c), was.Seq)
	}
	w.mark(was, c)
}

// mark keeps the truth about who set out upon an event alone: whoever commits something else afterwards came back, unless
// another has set out meanwhile. So scorers that quarrel about a lane, and live, may be held against an event; one that is
// alone with its lane is not.
func (w *world) mark(was events.Position, c Commit) {
	p := c.Position
	if was.Taken == 1 && was.Trying != 0 && was.Trying <= w.gen.last() {
		e := w.gen.event(was.Trying)
		by := p.Owner
		if by == "" {
			by = was.Owner
		}
		if n := len(e.markers); n > e.sealed && e.markers[n-1] == by && e.outcome == none {
			e.markers = e.markers[:n-1]
		}
	}
	if p.Taken == 1 && p.Trying != 0 && p.Trying <= w.gen.last() && len(c.Events) == 0 && p.Epoch == was.Epoch && p.Tries > 0 && p.Owner != "" &&
		(p.Trying != was.Trying || p.Tries > was.Tries) {
		e := w.gen.event(p.Trying)
		e.sealed = len(e.markers)
		e.markers = append(e.markers, p.Owner)
	}
}

// end gives an event its outcome.
func (w *world) end(lane int, seq uint64, e *simEvent, c Commit) {
	switch {
	case e.lane != lane:
		w.fail("lane %d: event %d is of lane %d", lane, seq, e.lane)
	case e.outcome != none:
		w.fail("lane %d: event %d gets a second outcome", lane, seq)
	}
	if e.outcome = scored; c.Treatment != Unread {
		return
	}
	e.outcome = unread
	w.count.unread++
	if len(e.markers) < w.limits.MaxTries {
		w.fail("lane %d: event %d ends unread, and only %v set out upon it and did not come back", lane, seq, e.markers)
	}
	// A process that dies takes all its lanes along, so that with more than one an event may be blamed for another's poison.
	if w.f.view == orderly && len(w.lanes) == 1 && e.alone < w.limits.MaxTries {
		w.fail("lane %d: event %d ends unread and has killed %d owners alone, %d in all", lane, seq, e.alone, e.kills)
	}
}

// checkMachine holds the formulas in Machine's comment.
func (w *world) checkMachine(lane int, m *Machine) {
	last := m.pos.Seq
	for _, e := range m.buffer {
		if e.Seq <= last {
			w.fail("lane %d at %s: buffer is not rising: %d after %d", lane, m.me, e.Seq, last)
		}
		last = e.Seq
	}
	running := m.phase == Running || m.phase == Committing || m.phase == Checking
	if running && (last > m.received || len(m.buffer) > 0 && m.next.Seq >= m.buffer[0].Seq && m.phase == Committing) {
		w.fail("lane %d at %s: received %d, in flight to %d, buffer ends at %d", lane, m.me, m.received, m.next.Seq, last)
	}
	if !running && len(m.buffer) > 0 {
		w.fail("lane %d at %s: %s with %d events", lane, m.me, m.phase, len(m.buffer))
	}
}
