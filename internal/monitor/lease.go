package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// LeaseKey in MODELS says which monitor leads, that is, publishes alerts. It also holds what is firing, so
// that the next leader carries on with the same incidents.
const LeaseKey = "monitor.leader"

// leaseRecord is rewritten by its holder at every sample.
type leaseRecord struct {
	Instance string         `json:"instance,omitempty"` // empty: released
	Name     string         `json:"name,omitempty"`
	Renewals uint64         `json:"renewals,omitempty"`
	Firing   []events.Alert `json:"firing,omitempty"`
}

// lease is one contender's state; pure. No two clocks are compared: it may be taken from a holder whose record
// has not changed for a whole term by the taker's clock, while the holder counts from before it asked, and stops
// earlier:
//
//	asked + 3/4 term < asked + term <= first seen + term <= taken
type lease struct {
	instance string
	term     time.Duration

	revision uint64 // of the record last seen; 0: none ever
	record   leaseRecord
	gone     bool      // the latest read found none: deleted, or the replica that answered had not got it yet
	since    time.Time // when revision was first seen
	until    time.Time // we lead; zero: we do not
}

// saw notes a record that was read. A replica may be behind: older revisions are ignored.
func (l *lease) saw(record leaseRecord, revision uint64, now time.Time) {
	l.gone = false
	if revision <= l.revision {
		return
	}
	l.revision, l.record, l.since = revision, record, now
	if record.Instance != l.instance {
		l.until = time.Time{}
	}
}

// sawNone says nothing of the holder: a record that we have seen counts for its term.
func (l *lease) sawNone() { l.gone = true }

// wants says whether to write: to become the holder, or as holder when it is time or there is news.
func (l *lease) wants(now time.Time, news bool) bool {
	switch l.record.Instance {
	case "":
		return true
	case l.instance:
		return news || now.Sub(l.since) >= l.term/4
	}
	return now.Sub(l.since) >= l.term
}

func (l *lease) wrote(record leaseRecord, revision uint64, asked time.Time) {
	l.revision, l.record, l.since, l.gone = revision, record, asked, false
	l.until = asked.Add(l.term * 3 / 4)
}

func (l *lease) leads(now time.Time) bool { return now.Before(l.until) }

// contend reads the record, and writes it if we lead or may. told are the incidents that we, as the leader,
// have told of; who becomes the leader leaves those of the one before in the record.
func (l *lease) contend(ctx context.Context, kv jetstream.KeyValue, name string, told []events.Alert) error {
	entry, err := kv.Get(ctx, LeaseKey)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		l.sawNone()
	case err != nil:
		return fmt.Errorf("read %s: %w", LeaseKey, err)
	default:
		var r leaseRecord
		if json.Unmarshal(entry.Value(), &r) != nil {
			r = leaseRecord{} // somebody's experiment: as if it had been released
		}
		l.saw(r, entry.Revision(), time.Now())
	}
	record := leaseRecord{Instance: l.instance, Name: name, Renewals: 1, Firing: l.record.Firing}
	if l.record.Instance == l.instance {
		record.Renewals, record.Firing = l.record.Renewals+1, told
	}
	asked := time.Now()
	if !l.wants(asked, !slices.EqualFunc(record.Firing, l.record.Firing, sameAlert)) {
		return nil
	}
	revision, err := l.write(ctx, kv, record)
	switch {
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch):
		return nil // another was first, or a write of ours whose answer was lost: the next read tells
	case err != nil:
		return fmt.Errorf("write %s: %w", LeaseKey, err)
	}
	l.wrote(record, revision, asked)
	return nil
}

func sameAlert(a, b events.Alert) bool { return a.Incident == b.Incident && a.Cause == b.Cause }

func (l *lease) write(ctx context.Context, kv jetstream.KeyValue, record leaseRecord) (uint64, error) {
	body, err := json.Marshal(record)
	if err != nil {
		return 0, err
	}
	if l.revision == 0 || l.gone {
		return kv.Create(ctx, LeaseKey, body)
	}
	return kv.Update(ctx, LeaseKey, body, l.revision)
}

// release lets another take over at once. If it fails, that one waits for the term to pass.
func (l *lease) release(ctx context.Context, kv jetstream.KeyValue) {
	if l.leads(time.Now()) {
		_, _ = l.write(ctx, kv, leaseRecord{Firing: l.record.Firing})
	}
}
