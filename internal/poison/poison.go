// Package poison has events that kill who scores them, for tests of that. Only a build with the tag poison takes any: in every
// other build Take and Confine do nothing.
package poison

import "time"

// Modes of poison. An event is poisoned by its entity, "poison-<mode>-<anything>".
const (
	Panic  = "panic"  // ends the process, past whatever recovers
	Hang   = "hang"   // takes Hanging
	Memory = "memory" // takes all memory that the process may have
)

// Hanging is how long an event of mode Hang takes.
const Hanging = 10 * time.Second

// Entity returns the entity of a poisoned event.
func Entity(mode, id string) string { return prefix + mode + "-" + id }

const prefix = "poison-"
