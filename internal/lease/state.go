package lease

import "time"

// Holder is a process that contends.
type Holder struct {
	Instance string `json:"instance,omitempty"` // unique to the process; empty in a record: released
	Name     string `json:"name,omitempty"`     // as the operator started it: monitor-1
	Host     string `json:"host,omitempty"`
}

// Record is what the key holds, as JSON.
type Record[T any] struct {
	Holder
	Since    time.Time `json:"since,omitzero"`     // by the holder's clock, for people to read
	Renewals uint64    `json:"renewals,omitempty"` // makes every write another record
	Carried  T         `json:"carried,omitzero"`   // goes from leader to leader
}

// state is what one contender knows; pure. No two clocks are compared: a record may be taken from its holder when it has
// not changed for a whole term by the taker's clock, while the holder counts from before it asked, and stops earlier:
//
//	trusted = asked + 3/4 term < asked + term <= seen + term <= taken
//
// What keeps two from leading is that inequality and the compare-and-swap, which makes sure that the record taken is the one
// that had been seen for so long. Whatever a read says, be it from a replica that is behind, can only make a contender
// wait longer or make its write be refused.
type state[T any] struct {
	self Holder
	term time.Duration

	revision uint64    // of record; 0: none was ever seen
	record   Record[T] // last seen or written
	seen     time.Time // when revision was first seen, or asked for by us
	gone     bool      // the latest read found none: deleted, or the replica that answered has not got it yet
	trusted  time.Time // we lead until then; zero: since another's record was seen, no write of ours has been answered
	begun    bool      // our caller was told that we lead, and no record of another has been seen since
}

// saw notes a record that was read. One older than what we have seen is of a replica behind and says nothing; but if it is
// all there is for two terms, the bucket was made anew and counts from 1 again.
func (s *state[T]) saw(record Record[T], revision uint64, now time.Time) {
	s.gone = false
	if revision == s.revision || revision < s.revision && now.Sub(s.seen) < 2*s.term {
		return
	}
	s.revision, s.record, s.seen = revision, record, now
	if record.Instance != s.self.Instance {
		s.trusted, s.begun = time.Time{}, false
	}
}

// sawNone says nothing of the holder: a record that we have seen counts for its term.
func (s *state[T]) sawNone() { s.gone = true }

// wants says whether to write: to become the holder, or as holder when there is news or a quarter of the term is over. A
// record of ours whose write was not answered gives us nothing: it is written again at once.
func (s *state[T]) wants(now time.Time, news bool) bool {
	switch s.record.Instance {
	case "":
		return true
	case s.self.Instance:
		return news || !now.Before(s.trusted.Add(-s.term/2)) // trusted - term/2 = asked + term/4
	}
	return now.Sub(s.seen) >= s.term
}

// next is the record that we would write at now. What we carry replaces what the leader before did only once our
// caller knows what that was.
func (s *state[T]) next(carried T, now time.Time) Record[T] {
	r := Record[T]{Holder: s.self, Since: now.UTC(), Renewals: 1, Carried: s.record.Carried}
	if s.record.Instance == s.self.Instance {
		r.Since, r.Renewals = s.record.Since, s.record.Renewals+1
	}
	if s.begun {
		r.Carried = carried
	}
	return r
}

// begins says, once, that we lead: our caller is to go on with what the record carries. An answer may come so late that trust
// is over by then: that is no beginning.
func (s *state[T]) begins(now time.Time) bool {
	if s.begun || !s.leads(now) {
		return false
	}
	s.begun = true
	return true
}

// condition is the revision that the key must be at for our write to be stored; 0: there is none.
func (s *state[T]) condition() uint64 {
	if s.gone {
		return 0
	}
	return s.revision
}

// wrote notes that our record is stored at revision, which was asked for at asked.
func (s *state[T]) wrote(record Record[T], revision uint64, asked time.Time) {
	s.revision, s.record, s.seen, s.gone = revision, record, asked, false
	s.trusted = asked.Add(s.term * 3 / 4)
}

func (s *state[T]) leads(now time.Time) bool { return now.Before(s.trusted) }

// resign ends our trust, before another is let in.
func (s *state[T]) resign() { s.trusted = time.Time{} }
