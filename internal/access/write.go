package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// ErrThere says that a caller of that name is there already.
var ErrThere = errors.New("is there already")

const (
	writeTries = 5
	oneTry     = 3 * time.Second
)

// Put stores a caller where there is none of its name, or one that is revoked; with replace also where there is a live one. It returns what stood there
// before, of no name if nothing did. A write whose answer was lost is told from one that did not happen by reading: what one writes is unique by its hash and time. If
// we die behind it the caller is there, and whoever was to have its token must get another.
func Put(ctx context.Context, js jetstream.JetStream, c Caller, replace bool) (before Caller, err error) {
	if err := c.Validate(); err != nil {
		return Caller{}, err
	}
	return change(ctx, js, c.Name, func(old Caller) (Caller, error) {
		if old.Name != "" && old.Revoked.IsZero() && !replace {
			return c, fmt.Errorf("%s %w: revoke it first", c.Name, ErrThere)
		}
		return c, nil
	})
}

// Revoke ends a caller, for every ingest within a second or two.
func Revoke(ctx context.Context, js jetstream.JetStream, name string, now time.Time) (before Caller, err error) {
	return change(ctx, js, name, func(old Caller) (Caller, error) {
		switch {
		case old.Name == "":
			return old, fmt.Errorf("%s: there is no such caller: 'riskweir token list' lists them", clip(name))
		case !old.Revoked.IsZero():
			return old, nil
		}
		next := old
		next.SHA256, next.Certificate, next.Revoked = "", "", now.UTC()
		return next, nil
	})
}

// change is one compare-and-swap, asked for until its outcome is known.
func change(ctx context.Context, js jetstream.JetStream, name string, next func(Caller) (Caller, error)) (before Caller, err error) {
	if !callerName.MatchString(name) {
		return before, fmt.Errorf("%w: %q is no name", ErrCaller, clip(name))
	}
	kv, err := js.KeyValue(ctx, events.CallersBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		return before, fmt.Errorf("no bucket %s: run 'riskweir topology apply' first: %w", events.CallersBucket, err)
	}
	if err != nil {
		return before, fmt.Errorf("%s: %w", events.CallersBucket, err)
	}
	var last error
	var wrote []byte
	for range writeTries {
		try, cancel := context.WithTimeout(ctx, oneTry)
		entry, err := kv.Get(try, name)
		cancel()
		var revision uint64
		old := Caller{}
		switch {
		case err == nil:
			revision = entry.Revision()
			if wrote != nil && bytes.Equal(entry.Value(), wrote) {
				return before, nil
			}
			if old, err = Decode(entry.Value()); err != nil {
				old = Caller{Name: name} // whatever it is, it lets nobody in, and is in the way of nobody
				old.Revoked = time.Unix(0, 0)
			}
		case errors.Is(err, jetstream.ErrKeyNotFound):
			try, cancel := context.WithTimeout(ctx, oneTry)
			history, err := kv.History(try, name)
			cancel()
			if err == nil && len(history) > 0 { // deleted by hand
				revision = history[len(history)-1].Revision()
			}
		default:
			return before, fmt.Errorf("read caller %s: %w", name, err)
		}
		before = old
		c, err := next(old)
		if err != nil {
			return before, err
		}
		if wrote, err = json.Marshal(c); err != nil {
			return before, fmt.Errorf("caller %s: %w", name, err)
		}
		try, cancel = context.WithTimeout(ctx, oneTry)
		_, last = kv.Update(try, name, wrote, revision)
		cancel()
		if last == nil {
			return before, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return before, fmt.Errorf("write caller %s: %w", name, last)
}
