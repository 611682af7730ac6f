package events

import (
	"fmt"
	"time"
)

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

// Record is an event decoded under a contract. It is reused from event to event.
type Record struct {
	ID      []byte    // aliases like Value.Text; empty: none given
	Entity  []byte    // from the body; empty: none given
	Time    time.Time // zero: none given
	Values  []Value   // by position in Contract.Fields
	Unknown int       // fields that the contract does not name: kept in the stream, ignored here

	scratch []byte
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

// Schema is a contract made ready to decode by. It is safe for concurrent use.
type Schema struct {
	Contract Contract
	Zone     *time.Location
	index    map[string]int // field name -> position in Contract.Fields, or one of the roles below
}

// Roles that are not among Contract.Fields.
const (
	roleID = -1 - iota
	roleEntity
	roleTime
	roleLabel // never read from an event: a label arrives by itself, later
)
