package events

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// MaxEventBytes and MaxFields bound an event; MaxDepth bounds the nesting of a value that the
// contract does not name.
const (
	MaxEventBytes = 1 << 20
	MaxFields     = 4096
	MaxDepth      = 64
)

// MaxIDBytes bounds an event's id.
const MaxIDBytes = 256

// ValueState says whether a field has a value.
type ValueState uint8

const (
	Missing ValueState = iota
	HasNum             // number, money (major units), bool (0 or 1), time (Unix seconds)
	HasText            // category
)

// Value of one field. Num is finite. Text aliases the decoded body or the record's
// scratch: it is valid until the record is decoded into again.
type Value struct {
	State ValueState
	Num   float64
	Text  []byte
}

// Record is an event decoded under a contract. It is reused from event to event, by one
// goroutine at a time; its zero value is ready.
type Record struct {
	ID      []byte    // aliases like Value.Text; empty: none given
	Entity  []byte    // from the body; empty: none given
	Time    time.Time // UTC; zero: none given
	Values  []Value   // by position in Schema.Inputs: the contract's fields, which decoding sets, and its memory's features, which SetMemory does
	Unknown int       // fields that the contract does not name: kept in the stream, ignored here

	schema *Schema
	r      reader   // its scratch holds texts that stand otherwise in the body
	seen   []uint64 // a bit a slot
	order  []int32  // slot of the k-th key of the event before: publishers seldom change the order
	others [][]byte // names of the unknown fields, to find one that stands twice
}

// Reset empties the record and gives it one missing value for each field of s.
func (r *Record) Reset(s *Schema) {
	if r.schema != s {
		n := len(s.Inputs)
		r.schema = s
		r.Values = slices.Grow(r.Values[:0], n)[:n]
		r.seen = make([]uint64, (len(s.slots)+63)/64)
		r.order = r.order[:0]
	}
	r.ID, r.Entity, r.Time, r.Unknown = nil, nil, time.Time{}, 0
	clear(r.Values)
	clear(r.seen)
	r.r.scratch = r.r.scratch[:0]
	r.others = r.others[:0]
}

// mark notes that a slot has been read and says whether it had been before.
func (r *Record) mark(slot int) (again bool) {
	w, bit := slot>>6, uint64(1)<<(slot&63)
	again = r.seen[w]&bit != 0
	r.seen[w] |= bit
	return again
}

// SetMemory sets the memory's features, in the contract's order; NaN is a missing value.
func (r *Record) SetMemory(features []float64) {
	values := r.Values[len(r.Values)-len(features):]
	for i, x := range features {
		values[i] = Value{}
		if x == x {
			values[i] = Value{State: HasNum, Num: x}
		}
	}
}

// InvalidError says why an event breaks its contract.
type InvalidError struct {
	Field  string // empty: the event as a whole
	Reason string // never holds the value of a sensitive field
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return fmt.Sprintf("field %s: %s", e.Field, e.Reason)
}

func invalidf(format string, a ...any) *InvalidError {
	return &InvalidError{Reason: fmt.Sprintf(format, a...)}
}

// Schema is a contract made ready to decode by. It is safe for concurrent use.
type Schema struct {
	Contract Contract
	Zone     *time.Location
	Inputs   []Field        // Contract.Inputs
	slots    []slot         // Contract.Fields in their order, then the roles that are not among them
	index    map[string]int // name -> position in slots
	required []int
}

type role uint8

const (
	roleField role = iota
	roleID
	roleEntity
	roleIDEntity // one field is both: every event is an entity of its own
	roleTime
	roleLabel // never read from an event: a label arrives by itself, later
)

// slot is a name that the contract gives a meaning.
type slot struct {
	Field
	role        role
	usual       bool      // a number or category of which nothing means that it is missing: see Schema.usual
	div         float64   // 10^Minor
	missingNums []float64 // those of Missing that are numbers
}

// Compile makes a contract ready to decode by.
func Compile(c Contract) (*Schema, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return nil, fmt.Errorf("contract %s: zone %q: %w", c.Kind, c.Zone, err)
	}
	s := &Schema{Contract: c, Zone: zone, Inputs: c.Inputs(), index: make(map[string]int, len(c.Fields)+4)}
	add := func(x slot) {
		s.index[x.Name] = len(s.slots)
		s.slots = append(s.slots, x)
	}
	for i, f := range c.Fields {
		x := slot{Field: f, div: pow10[f.Minor], usual: len(f.Missing) == 0 && (f.Type == Number || f.Type == Category)}
		for _, m := range f.Missing {
			if v, err := strconv.ParseFloat(m, 64); err == nil && !math.IsInf(v, 0) && !math.IsNaN(v) {
				x.missingNums = append(x.missingNums, v)
			}
		}
		if f.Required {
			s.required = append(s.required, i)
		}
		add(x)
	}
	switch {
	case c.ID != "" && c.ID == c.Entity:
		add(slot{Field: Field{Name: c.ID}, role: roleIDEntity})
	default:
		if c.ID != "" {
			add(slot{Field: Field{Name: c.ID}, role: roleID})
		}
		if c.Entity != "" {
			add(slot{Field: Field{Name: c.Entity}, role: roleEntity})
		}
	}
	if c.Time != "" {
		add(slot{Field: Field{Name: c.Time}, role: roleTime})
	}
	if c.Label != nil {
		add(slot{Field: Field{Name: c.Label.Column}, role: roleLabel})
	}
	return s, nil
}

// Check says whether every required field of rec has a value. Decode has done so already;
// it is for records made by SetText.
func (s *Schema) Check(rec *Record) error {
	if e := s.check(rec); e != nil {
		return e
	}
	return nil
}

func (s *Schema) check(rec *Record) *InvalidError {
	for _, i := range s.required {
		if rec.Values[i].State == Missing {
			return s.missing(i)
		}
	}
	return nil
}

func (s *Schema) missing(i int) *InvalidError {
	return &InvalidError{Field: s.slots[i].Name, Reason: "is required and has no value"}
}
