// Package lease lets one of several processes lead: by compare-and-swap on a key of a bucket, which also carries from leader
// to leader what the next one needs.
package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Lease is one contender's view of a key. It belongs to one goroutine.
//
// No two lead at one time as long as clocks run at nearly the same rate (a quarter of the term is the margin) and nobody
// deletes or edits the record by hand. A machine that was suspended may believe in its lease for a moment when it wakes:
// what must never be done twice needs a guard of its own where it is stored.
type Lease[T any] struct {
	kv    jetstream.KeyValue
	key   string
	now   func() time.Time
	state state[T]
}

// New does no I/O. Contenders with the same instance would all lead. The term is how long the others wait before one takes
// over from a leader that fell silent; a leader should contend at least every quarter of it.
func New[T any](kv jetstream.KeyValue, key string, self Holder, term time.Duration) *Lease[T] {
	return &Lease[T]{kv: kv, key: key, now: time.Now, state: state[T]{self: self, term: term}}
}

// Leads says whether we lead at now.
func (l *Lease[T]) Leads(now time.Time) bool { return l.state.leads(now) }

// Carried is what the record last seen or written carries.
func (l *Lease[T]) Carried() T { return l.state.record.Carried }

// Contend reads the record, and writes it if we may and it is time. What a leader carries is stored at once when it changed,
// and is not to be modified afterwards. begins says that we lead, and that another may have since we did last: the caller
// goes on with Carried, which is as that one left it, and must do so even if Leads is over in a moment. An error extends nothing.
func (l *Lease[T]) Contend(ctx context.Context, carried T) (begins bool, err error) {
	if err := l.read(ctx); err != nil {
		return false, err
	}
	asked := l.now()
	record := l.state.next(carried, asked)
	news, err := differ(record.Carried, l.state.record.Carried)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", l.key, err)
	}
	if !l.state.wants(asked, news) {
		return false, nil
	}
	revision, err := l.write(ctx, record)
	if isTaken(err) {
		return false, nil // another was first, or we were and did not hear of it: the next read tells
	}
	if err != nil {
		return false, err
	}
	l.state.wrote(record, revision, asked)
	return l.state.begins(l.now()), nil
}

// Release lets another take over at once, if the record is ours. After an error that one waits for the term to pass.
func (l *Lease[T]) Release(ctx context.Context, carried T) error {
	if l.state.record.Instance != l.state.self.Instance {
		return nil
	}
	// Our last write may have been stored without an answer.
	if err := l.read(ctx); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if l.state.record.Instance != l.state.self.Instance {
		return nil
	}
	record := Record[T]{Carried: l.state.next(carried, l.now()).Carried}
	l.state.resign()
	if _, err := l.write(ctx, record); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

func (l *Lease[T]) read(ctx context.Context) error {
	entry, err := l.kv.Get(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
		l.state.sawNone()
		return nil
	case err != nil:
		return fmt.Errorf("read %s: %w", l.key, err)
	}
	var record Record[T]
	if json.Unmarshal(entry.Value(), &record) != nil {
		record = Record[T]{} // edited by hand into nonsense: as if released
	}
	l.state.saw(record, entry.Revision(), l.now())
	return nil
}

func (l *Lease[T]) write(ctx context.Context, record Record[T]) (revision uint64, err error) {
	body, err := json.Marshal(record)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", l.key, err)
	}
	if at := l.state.condition(); at == 0 {
		revision, err = l.kv.Create(ctx, l.key, body)
	} else {
		revision, err = l.kv.Update(ctx, l.key, body, at)
	}
	if err != nil {
		return 0, fmt.Errorf("write %s: %w", l.key, err)
	}
	return revision, nil
}

// isTaken: the key was not at the revision that the write demanded.
func isTaken(err error) bool {
	if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
		return true
	}
	// Create over a deleted key passes this one on as it came from a stream with replicas.
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

func differ[T any](a, b T) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return !bytes.Equal(x, y), err
}
