package events

import (
	"crypto/sha256"
	"encoding/hex"
)

// MessageID is the Nats-Msg-Id of an event with this id, by which the broker tells repetitions. A header's value may hold no
// line ends, and loses the blanks around it, so ids that are not plain are hashed: two ids must never become one.
// Whoever publishes events without Client or ingest must do the same, or a repetition by the other way is stored twice.
func MessageID(id string) string {
	plain := len(id) <= 200
	for i := 0; i < len(id) && plain; i++ {
		plain = id[i] > ' ' && id[i] < 0x7f
	}
	if plain {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "sha256-" + hex.EncodeToString(sum[:])
}
