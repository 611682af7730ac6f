// Package recall keeps the memory of a kind at hand, from EVENTS: it folds every event in the order of the stream, and hands out the
// features of each. Snapshots spare reading the log from its beginning.
package recall

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/pkg/events"
)

// library is the snapshots of one plan of one kind.
type library struct {
	js     jetstream.JetStream
	prefix string // <kind>.<fingerprint>.
	plan   *memory.Plan

	mu      sync.Mutex
	refused map[string]bool // names of snapshots that end with another event than EVENTS holds there: it was put back
}

func newLibrary(js jetstream.JetStream, p *memory.Plan) *library {
	return &library{js: js, plan: p, prefix: p.Schema.Contract.Kind + "." + p.Fingerprint()[:16] + ".", refused: map[string]bool{}}
}

// refuse passes over a snapshot from now on. One that ends with an event that EVENTS still holds is of the events that EVENTS holds: it is put back whole.
func (l *library) refuse(at memory.Place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[l.name(at)] = true
}

func (l *library) isRefused(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused[name]
}

// book is one snapshot in the library.
type book struct {
	name        string
	incarnation int64
	seq         uint64
	written     time.Time
}

func (l *library) name(at memory.Place) string {
	return fmt.Sprintf("%s%d.%d", l.prefix, at.Incarnation, at.Seq)
}

func (l *library) open(ctx context.Context) (jetstream.ObjectStore, error) {
	store, err := l.js.ObjectStore(ctx, events.MemoryBucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		err = fmt.Errorf("%w: riskweir topology apply makes it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open the object store %s: %w", events.MemoryBucket, err)
	}
	return store, nil
}

// list is the snapshots of an incarnation of EVENTS, ascending in seq.
func (l *library) list(ctx context.Context, store jetstream.ObjectStore, incarnation int64) ([]book, error) {
	infos, err := store.List(ctx)
	if errors.Is(err, jetstream.ErrNoObjectsFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", events.MemoryBucket, err)
	}
	var out []book
	for _, info := range infos {
		rest, ok := strings.CutPrefix(info.Name, l.prefix)
		if !ok {
			continue
		}
		a, b, _ := strings.Cut(rest, ".")
		made, err := strconv.ParseInt(a, 10, 64)
		seq, err2 := strconv.ParseUint(b, 10, 64)
		if err == nil && err2 == nil && made == incarnation {
			out = append(out, book{info.Name, made, seq, info.ModTime})
		}
	}
	slices.SortFunc(out, func(a, b book) int {
		if a.seq < b.seq {
			return -1
		}
		return 1
	})
	return out, nil
}

// load reads the newest snapshot that choose admits; nil if there is none. One that cannot be read is passed over, and told of.
func (l *library) load(ctx context.Context, incarnation int64, choose func(seq uint64) bool, oldest bool, note func(error)) (*memory.Store, memory.Place, error) {
	store, err := l.open(ctx)
	if err != nil {
		return nil, memory.Place{}, err
	}
	books, err := l.list(ctx, store, incarnation)
	if err != nil {
		return nil, memory.Place{}, err
	}
	if !oldest {
		slices.Reverse(books)
	}
	for _, b := range books {
		if !choose(b.seq) || l.isRefused(b.name) {
			continue
		}
		s, at, err := l.read(ctx, store, b)
		if err == nil {
			return s, at, nil
		}
		if ctx.Err() != nil {
			return nil, memory.Place{}, err
		}
		note(err)
	}
	return nil, memory.Place{}, nil
}

func (l *library) read(ctx context.Context, store jetstream.ObjectStore, b book) (s *memory.Store, at memory.Place, err error) {
	object, err := l.get(ctx, store, b.name)
	if err != nil {
		return nil, at, fmt.Errorf("snapshot %s: %w", b.name, err)
	}
	defer func() {
		if e := object.Close(); err == nil && e != nil {
			err = fmt.Errorf("snapshot %s: %w", b.name, e)
		}
	}()
	if s, at, err = memory.Decode(l.plan, object); err != nil {
		return nil, at, fmt.Errorf("snapshot %s: %w", b.name, err)
	}
	if at.Incarnation != b.incarnation || at.Seq != b.seq {
		return nil, at, fmt.Errorf("snapshot %s is of event %d", b.name, at.Seq)
	}
	_, err = io.Copy(io.Discard, object) // so that the object's own digest is checked
	return s, at, err
}

const (
	readBase = 30 * time.Second
	readRate = 1 << 20 // bytes a second that reading a snapshot comes to at the very least, checked and unpacked, however busy the machine is
)

// reading is a snapshot that is being read.
type reading struct {
	jetstream.ObjectResult
	cancel context.CancelFunc
}

func (r *reading) Close() error {
	defer r.cancel()
	return r.ObjectResult.Close()
}

// get opens a snapshot. The client library waits for parts that do not come until the deadline, which is that of one request if it is left to it; so the
// deadline is one for all of it, and first is looked whether the parts are there.
func (l *library) get(ctx context.Context, store jetstream.ObjectStore, name string) (*reading, error) {
	info, err := store.GetInfo(ctx, name)
	if err != nil {
		return nil, err
	}
	stream, err := l.js.Stream(ctx, "OBJ_"+events.MemoryBucket)
	if err != nil {
		return nil, err
	}
	subject := "$O." + events.MemoryBucket + ".C." + info.NUID
	state, err := stream.Info(ctx, jetstream.WithSubjectFilter(subject))
	if err != nil {
		return nil, err
	}
	if n := state.State.Subjects[subject]; n != uint64(info.Chunks) {
		return nil, fmt.Errorf("%d of its %d parts are there", n, info.Chunks)
	}
	ctx, cancel := context.WithTimeout(ctx, readBase+time.Duration(info.Size/readRate)*time.Second)
	object, err := store.Get(ctx, name)
	if err != nil {
		cancel()
		return nil, err
	}
	return &reading{object, cancel}, nil
}

// save writes a snapshot under its name. Whoever else writes one of that name writes the same bytes.
func (l *library) save(ctx context.Context, f *memory.Frozen, at memory.Place) error {
	store, err := l.open(ctx)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(f.Encode(&paced{ctx: ctx, to: w, limit: rate.NewLimiter(saveRate, pacedBurst)}, at))
	}()
	_, err = store.Put(ctx, jetstream.ObjectMeta{Name: l.name(at), Description: fmt.Sprintf("memory of %s after event %d", l.plan.Schema.Contract.Kind, at.Seq)}, r)
	r.CloseWithError(errors.New("the object store takes no more"))
	<-written
	if err != nil {
		return fmt.Errorf("write snapshot %s: %w", l.name(at), err)
	}
	return nil
}

const pacedBurst = 1 << 20

// paced writes no faster than its limit, whose burst is pacedBurst.
type paced struct {
	ctx   context.Context
	to    io.Writer
	limit *rate.Limiter
}

func (p *paced) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		part := b[n:min(n+pacedBurst, len(b))]
		if err = p.limit.WaitN(p.ctx, len(part)); err == nil {
			var m int
			m, err = p.to.Write(part)
			n += m
		}
	}
	return n, err
}

const keepNewest = 3

// thin deletes what is not needed: kept are the newest few, and of the older ones one every so often for as long as EVENTS holds events,
// so that whoever reads the log from its beginning, as the trainer does, finds a state near there. Those refused are of no use to anybody.
func (l *library) thin(ctx context.Context, incarnation int64, now time.Time, retention time.Duration) error {
	store, err := l.open(ctx)
	if err != nil {
		return err
	}
	books, err := l.list(ctx, store, incarnation)
	if err != nil {
		return err
	}
	var kept time.Time
	for _, b := range books {
		if l.isRefused(b.name) {
			if err := store.Delete(ctx, b.name); err != nil {
				return fmt.Errorf("delete snapshot %s: %w", b.name, err)
			}
		}
	}
	books = slices.DeleteFunc(books, func(b book) bool { return l.isRefused(b.name) })
	for i, b := range books {
		if i >= len(books)-keepNewest || now.Sub(b.written) < retention+retention/4 && b.written.Sub(kept) >= retention/8 {
			kept = b.written
			continue
		}
		if err := store.Delete(ctx, b.name); err != nil {
			return fmt.Errorf("delete snapshot %s: %w", b.name, err)
		}
	}
	return l.sweep(ctx, store, now)
}

// litter is so old that nobody is at it any more: whoever writes a snapshot writes a part of it every second.
const litter = 10 * time.Minute

// sweep clears away what is no snapshot: the marks that deleted ones leave, which everybody who looks for a snapshot would read, and the parts of those that
// were never written to their end.
func (l *library) sweep(ctx context.Context, store jetstream.ObjectStore, now time.Time) error {
	stream, err := l.js.Stream(ctx, "OBJ_"+events.MemoryBucket)
	if err != nil {
		return fmt.Errorf("look at %s: %w", events.MemoryBucket, err)
	}
	parts := "$O." + events.MemoryBucket + ".C."
	state, err := stream.Info(ctx, jetstream.WithSubjectFilter(parts+">")) // before the list: what is written between is in neither or in the list
	if err != nil {
		return fmt.Errorf("look at the parts in %s: %w", events.MemoryBucket, err)
	}
	infos, err := store.List(ctx, jetstream.ListObjectsShowDeleted())
	if err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
		return fmt.Errorf("list %s: %w", events.MemoryBucket, err)
	}
	purge := func(subject string) error {
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
			return fmt.Errorf("purge %s: %w", subject, err)
		}
		return nil
	}
	owned := map[string]bool{}
	for _, info := range infos {
		switch {
		case !info.Deleted:
			owned[parts+info.NUID] = true
		case now.Sub(info.ModTime) > litter:
			if err := purge("$O." + events.MemoryBucket + ".M." + base64.URLEncoding.EncodeToString([]byte(info.Name))); err != nil {
				return err
			}
		}
	}
	for subject := range state.State.Subjects {
		if owned[subject] {
			continue
		}
		last, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // somebody else was here
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", subject, err)
		}
		if now.Sub(last.Time) > litter {
			if err := purge(subject); err != nil {
				return err
			}
		}
	}
	return nil
}
