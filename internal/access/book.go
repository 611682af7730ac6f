package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/pkg/events"
)

// bookEvery is how long a revoked caller may go on, and a new one has to wait.
const bookEvery = time.Second

// Book keeps the callers at hand, as CALLERS has them. What it has never read, or cannot read, is nobody; while the bucket is
// away it goes on with what it has. It is safe for concurrent use.
type Book struct {
	js     jetstream.JetStream
	report func(error)

	mu      sync.RWMutex
	callers map[string]Caller // by name
	seen    map[string]uint64 // the highest revision of each key
	ready   chan struct{}     // closed when CALLERS has been read once
}

// NewBook does no I/O. report is told of callers that cannot be read, and of CALLERS being away.
func NewBook(js jetstream.JetStream, report func(error)) *Book {
	return &Book{js: js, report: report, callers: map[string]Caller{}, seen: map[string]uint64{}, ready: make(chan struct{})}
}

// Ready is closed when CALLERS has been read once.
func (b *Book) Ready() <-chan struct{} { return b.ready }

// Loaded says whether CALLERS has been read once.
func (b *Book) Loaded() bool {
	select {
	case <-b.ready:
		return true
	default:
		return false
	}
}

// Run keeps reading until ctx ends: one small direct get a second, which needs no consumer that could be lost.
func (b *Book) Run(ctx context.Context) error {
	tick := time.NewTicker(bookEvery)
	defer tick.Stop()
	failing := false
	for {
		switch err := b.Load(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			b.report(err)
			failing = true
		case err == nil:
			failing = false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Load reads CALLERS once.
func (b *Book) Load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	prefix := "$KV." + events.CallersBucket + "."
	all, err := jetstreamext.GetLastMsgsFor(ctx, b.js, "KV_"+events.CallersBucket, []string{prefix + ">"})
	if err != nil {
		return fmt.Errorf("read %s: %w", events.CallersBucket, err)
	}
	for msg, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", events.CallersBucket, err)
		}
		body := msg.Data
		if msg.Header.Get("KV-Operation") != "" {
			body = nil // deleted
		}
		b.Take(strings.TrimPrefix(msg.Subject, prefix), msg.Sequence, body)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.ready:
	default:
		close(b.ready)
	}
	return nil
}

// Take is told of a value of CALLERS. A replica that is behind cannot bring back who was revoked: an older revision is passed over. One
// that cannot be read ends the caller that it replaces.
func (b *Book) Take(name string, revision uint64, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen[name] >= revision {
		return
	}
	b.seen[name] = revision
	delete(b.callers, name)
	if body == nil {
		return
	}
	c, err := Decode(body)
	if err == nil && c.Name != name {
		err = fmt.Errorf("%w: it is of %s", ErrCaller, c.Name)
	}
	if err != nil {
		b.report(fmt.Errorf("%s at revision %d of %s is let in no more: %w", name, revision, events.CallersBucket, err))
		return
	}
	b.callers[name] = c
}

// ByToken is the caller whose token it is.
func (b *Book) ByToken(token string, now time.Time) (Caller, bool) {
	name, ok := nameIn(token)
	b.mu.RLock()
	c := b.callers[name]
	b.mu.RUnlock()
	// The comparison is made for whoever is nobody, too.
	fits := same(token, c.SHA256)
	return c, ok && fits && c.live(now)
}

// ByCertificate is the caller of a certificate's common name. The certificate has been verified by then. A name that two live callers
// have is nobody's.
func (b *Book) ByCertificate(commonName string, now time.Time) (found Caller, ok bool) {
	if commonName == "" {
		return found, false
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, c := range b.callers {
		if c.Certificate == commonName && c.live(now) {
			if ok {
				return Caller{}, false
			}
			found, ok = c, true
		}
	}
	return found, ok
}

// Callers there are, sorted by name, revoked ones too.
func (b *Book) Callers() []Caller {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]Caller, 0, len(b.callers))
	for _, c := range b.callers {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Caller) int { return strings.Compare(a.Name, b.Name) })
	return out
}
