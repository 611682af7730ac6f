package ingest

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/riskweir/riskweir/pkg/events"
)

// Fault is why an item, or a body as a whole, was refused.
type Fault struct {
	Index  *int   `json:"index,omitempty"` // of the item, from 0
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Stored string `json:"stored,omitempty"` // "no", or "unknown": send it again with the same id
}

// Answer is the JSON body of every answer but a score.
type Answer struct {
	Accepted   int       `json:"accepted"`
	Sequences  []uint64  `json:"sequences,omitempty"`  // by item; 0: not stored
	Duplicates []int     `json:"duplicates,omitempty"` // items whose id had been stored before
	Errors     []Fault   `json:"errors,omitempty"`
	Kinds      *[]string `json:"kinds,omitempty"`    // those declared, if another was asked for
	Decision   string    `json:"decision,omitempty"` // of a score that could not be had
	Mode       string    `json:"mode,omitempty"`
}

// answer is what goes back, body or raw.
type answer struct {
	status int
	body   Answer
	raw    []byte
	enc    events.Encoding // of raw
	retry  int             // seconds, for Retry-After; 0: as the status has it
}

func refuse(status int, field, reason string) answer {
	return answer{status: status, body: Answer{Errors: []Fault{{Field: field, Reason: reason}}}}
}

// retryAfter is long enough for most elections of a stream's leader to be over at the second try.
const retryAfter = 2

func (a *answer) write(w http.ResponseWriter) {
	body, kind := a.raw, events.ContentTypeJSON
	if body == nil {
		body, _ = json.Marshal(&a.body) // cannot fail: strings, numbers and slices of them
		body = append(body, '\n')
	} else {
		kind = a.enc.ContentType()
	}
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch {
	case a.retry > 0:
		h.Set("Retry-After", strconv.Itoa(a.retry))
	case a.status == http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	case a.status == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="riskweir"`)
	}
	w.WriteHeader(a.status)
	w.Write(body) //nolint:errcheck // the peer is gone
}
