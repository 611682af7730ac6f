package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// Query says which actions are wanted; what is empty is not asked for. Texts are looked for as parts, in any case of letters.
type Query struct {
	Who, What string
	Kind      string
	About     string // a version may be named as people do: payment.v7 finds payment.v000007
	Since     time.Time
	Limit     int // the latest so many; 0: all
}

// Told is an action as AUDIT tells it.
type Told struct {
	Record              // its last
	Began     time.Time `json:"began"`          // when the server stored the first record
	Ended     time.Time `json:"ended,omitzero"` // and the last
	Sequences []uint64  `json:"sequences"`      // in AUDIT
}

const askTimeout = 10 * time.Second

// Read returns the actions that the query asks for, in the order in which they began. It reads all of AUDIT from Since on.
func Read(ctx context.Context, js jetstream.JetStream, q Query) ([]Told, error) {
	looking, cancel := context.WithTimeout(ctx, askTimeout)
	stream, err := js.Stream(looking, events.AuditStream)
	cancel()
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("audit: there is no stream %s yet: 'riskweir topology apply' makes it", events.AuditStream)
	}
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	state := stream.CachedInfo().State
	first := max(state.FirstSeq, 1)
	if first > state.LastSeq {
		return nil, nil
	}
	var all []Told
	at := map[string]int{} // action -> its place in all
	reader := &tail.Reader{JS: js, Stream: events.AuditStream, Name: "audit", Owner: "who asks who did what", Last: first - 1}
	err = reader.Through(ctx, state.LastSeq, tail.Patience, func(m tail.Message, meta *jetstream.MsgMetadata) error {
		r, err := Decode(m.Data())
		if err != nil {
			r = Record{State: "unreadable", What: m.Subject(), Error: err.Error()}
		}
		i, known := at[r.Action]
		if !known || r.Action == "" {
			i = len(all)
			at[r.Action] = i
			all = append(all, Told{Began: meta.Timestamp})
		}
		all[i].Record = r
		all[i].Sequences = append(all[i].Sequences, meta.Sequence.Stream)
		if r.State != Begun {
			all[i].Ended = meta.Timestamp
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("audit: read %s: %w", events.AuditStream, err)
	}
	var out []Told
	for _, t := range all {
		if q.matches(t) {
			out = append(out, t)
		}
	}
	if q.Limit > 0 && len(out) > q.Limit {
		out = out[len(out)-q.Limit:]
	}
	return out, nil
}

func (q Query) matches(t Told) bool {
	has := func(text, part string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(part)) }
	return has(t.Who+" "+t.NATS, q.Who) && has(t.What, q.What) && (q.Kind == "" || t.Kind == q.Kind) &&
		has(plain(t.About), plain(q.About)) && (q.Since.IsZero() || !t.Began.Before(q.Since))
}

// plain leaves out the zeros of a version: payment.v000007 is payment.v7.
func plain(s string) string {
	head, tail, ok := strings.Cut(s, ".v0")
	if !ok {
		return s
	}
	return head + ".v" + strings.TrimLeft(tail, "0")
}

// Decode is strict: an unknown field or text behind the end is an error.
func Decode(body []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("audit record: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return r, errors.New("audit record: text behind its end")
	}
	switch r.State {
	case Begun, Done, Failed:
	default:
		return r, fmt.Errorf("audit record: state %q", r.State)
	}
	if r.Action == "" || r.What == "" {
		return r, errors.New("audit record: names no action")
	}
	return r, nil
}
