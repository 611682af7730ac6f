package events

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// MinEntityKey is the least length of a key for HashEntity, in bytes.
const MinEntityKey = 32

// HashEntity is what stands for an entity of a kind whose contract has entity_hash: HMAC-SHA-256 of kind, a zero byte and the entity, in base64url. The same
// entity has the same one in a kind, under a key, and others in other kinds. Whoever publishes over NATS directly calls this first.
func HashEntity(key []byte, kind, entity string) (string, error) {
	if len(key) < MinEntityKey {
		return "", fmt.Errorf("entity key of %d bytes: want at least %d", len(key), MinEntityKey)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(kind))
	mac.Write([]byte{0})
	mac.Write([]byte(entity))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}
