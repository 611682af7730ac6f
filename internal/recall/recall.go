package recall

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// Config of a Recall.
type Config struct {
	JS    jetstream.JetStream
	Plan  *memory.Plan
	Owner string
	Note  func(error)
	// Save says whether snapshots are to be written here; nil: never. Several writers cost traffic, none costs time at a start.
	Save      func() bool
	SaveEvery time.Duration // least time between snapshots; 30 s if zero
	Bytes     int           // of the features kept for lanes that are behind; 32 MiB if zero
	Now       func() time.Time
	// Folded is told the state behind each event as it has been folded; nil: nobody is. It may read it, and returns before the next is.
	Folded func(seq uint64, s *memory.Store)
}

const (
	defaultSave  = 30 * time.Second
	saveIdle     = 10 * time.Minute // after which one event is worth a snapshot
	saveEvents   = 10_000
	saveKeys     = 8       // and an event for so many keys: who starts reads a large state longer than the events behind it
	saveShare    = 5       // of the time one in so much may go into writing
	saveRate     = 8 << 20 // bytes a second: a state of a million keys is as much as the disks take in a second, which events wait for
	defaultBytes = 32 << 20
	minEvents    = 1 << 12
	maxEvents    = 1 << 20

	gateLife  = 10 * time.Second // a lane that has asked for nothing since holds nobody up
	gatePause = 5 * time.Millisecond
	patience  = 10 * time.Second // without progress
	retry     = 500 * time.Millisecond
	unasked   = 15 * time.Second // after which a replica for a lane that was behind ends
)

// Recall follows EVENTS and has the features of the latest events at hand. Its main replica follows the stream's end; a lane that is further
// behind than the features kept gets a replica of its own, from a snapshot, until it has caught up.
type Recall struct {
	cfg      Config
	kind     string
	lib      *library
	capacity int

	mu     sync.Mutex
	main   *replica
	behind []*replica
	gates  map[int]gate // by lane
	saves  sync.WaitGroup
	start  func(from uint64) *replica
}

// gate is what a lane has asked for last.
type gate struct {
	first uint64
	asked time.Time
}

const startGate = -1

// replica folds the stream from one place on.
type replica struct {
	*Recall
	cancel context.CancelFunc
	ring   ring   // of Recall.mu, as are the next
	front  uint64 // last event folded
	ready  bool   // front and ring.low mean something
	asked  time.Time
	moved  chan struct{} // closed at the next event, if somebody waits

	folder Folder
	began  memory.Place // of the snapshot
	place  memory.Place
	out    []float64
	anchor bool // the next event is the snapshot's last, and only looked at
	saved  memory.Place
	when   time.Time
	took   atomic.Int64 // ns that the last one took
	saving atomic.Bool
	thaw   bool
}

// New does no I/O.
func New(cfg Config) *Recall {
	if cfg.SaveEvery == 0 {
		cfg.SaveEvery = defaultSave
	}
	if cfg.Bytes == 0 {
		cfg.Bytes = defaultBytes
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Note == nil {
		cfg.Note = func(error) {}
	}
	r := &Recall{cfg: cfg, kind: cfg.Plan.Schema.Contract.Kind, lib: newLibrary(cfg.JS, cfg.Plan), gates: map[int]gate{}}
	r.capacity = min(max(cfg.Bytes/(8*cfg.Plan.Width()+25), minEvents), maxEvents)
	return r
}

func (r *Recall) newReplica() *replica {
	return &replica{Recall: r, ring: ring{width: r.cfg.Plan.Width(), capacity: r.capacity}, out: make([]float64, r.cfg.Plan.Width()), asked: r.cfg.Now()}
}

// Run returns nil when ctx ends.
func (r *Recall) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer r.saves.Wait()
	defer running.Wait()
	r.mu.Lock()
	r.main = r.newReplica()
	r.start = func(from uint64) *replica { // needs r.mu
		x := r.newReplica()
		ctx, cancel := context.WithCancel(ctx)
		x.cancel = cancel
		running.Go(func() {
			defer cancel()
			x.run(ctx, func(context.Context) (uint64, error) { return from, nil })
		})
		return x
	}
	main := r.main
	r.mu.Unlock()
	main.run(ctx, r.lowest)
	r.mu.Lock()
	r.start = nil
	r.mu.Unlock()
	return nil
}

// lowest is the first event that some lane has yet to score.
func (r *Recall) lowest(ctx context.Context) (uint64, error) {
	stream, err := r.cfg.JS.Stream(ctx, events.ScoresStream(r.kind))
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", events.ScoresStream(r.kind), err)
	}
	lowest := ^uint64(0)
	for lane := range r.cfg.Plan.Schema.Contract.Lanes {
		m, err := stream.GetLastMsgForSubject(ctx, events.PositionSubject(r.kind, lane))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // a halted lane
		}
		if err != nil {
			return 0, fmt.Errorf("position of lane %d: %w", lane, err)
		}
		p, err := events.DecodePosition(m.Data)
		if err != nil {
			return 0, fmt.Errorf("position of lane %d: %w", lane, err)
		}
		lowest = min(lowest, p.Seq+1)
	}
	return lowest, nil
}

// run follows the stream until ctx ends, from the newest snapshot before the event that from says.
func (x *replica) run(ctx context.Context, from func(context.Context) (uint64, error)) {
	for ctx.Err() == nil {
		err := x.follow(ctx, from)
		if errors.Is(err, errAnchor) {
			x.lib.refuse(x.began)
		}
		x.mu.Lock()
		x.ready = false
		x.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		x.cfg.Note(fmt.Errorf("memory of %s: %w", x.kind, err))
		t := time.NewTimer(retry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

var errAnchor = errors.New("the snapshot is of another EVENTS than there is now: it was put back")

func (x *replica) follow(ctx context.Context, from func(context.Context) (uint64, error)) error {
	first, err := from(ctx)
	if err != nil {
		return err
	}
	begin, err := x.lib.begin(ctx, first, false, x.cfg.Note)
	if err != nil {
		return err
	}
	x.folder = Folder{Store: begin.Store}
	x.began, x.place, x.saved, x.when = begin.Place, begin.Place, begin.Place, x.cfg.Now()
	x.mu.Lock()
	x.ring = ring{width: x.ring.width, capacity: x.ring.capacity, low: begin.Place.Seq + 1}
	x.front, x.ready = begin.Place.Seq, true
	if x == x.main {
		x.gates[startGate] = gate{max(first, x.ring.low), x.cfg.Now()}
	}
	x.wake()
	x.mu.Unlock()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x.anchor = begin.Place.Stored != 0
	reader := &tail.Reader{
		JS: x.cfg.JS, Name: "memory", Stream: events.EventsStream(x.kind), Owner: x.cfg.Owner,
		Incarnation: begin.incarnation, Last: begin.Place.Seq,
		Take: func(m tail.Message, at *jetstream.MsgMetadata) {
			if err := x.take(ctx, m, at); err != nil {
				cancel(err)
			}
		},
		Idle:    func() { x.save(ctx) },
		Trouble: x.cfg.Note,
	}
	if x.anchor {
		reader.Last--
	}
	if err := reader.Run(ctx); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func (x *replica) take(ctx context.Context, m tail.Message, at *jetstream.MsgMetadata) error {
	seq := at.Sequence.Stream
	if ctx.Err() != nil {
		return nil
	}
	if x.anchor {
		x.anchor = false
		if seq <= x.place.Seq {
			if seq != x.place.Seq || at.Timestamp.UnixNano() != x.place.Stored {
				return errAnchor
			}
			return nil
		}
	}
	if !x.pass(ctx, seq) {
		return nil
	}
	v, err := x.folder.Step(seq, m.Subject(), m.Headers().Get("Content-Type"), m.Data(), at.Timestamp, x.out)
	x.place.Seq, x.place.Stored = seq, at.Timestamp.UnixNano()
	if x.cfg.Folded != nil {
		x.cfg.Folded(seq, x.folder.Store)
	}
	x.mu.Lock()
	copy(x.ring.push(seq, err == nil, v), x.out)
	x.front = seq
	x.wake()
	x.mu.Unlock()
	if seq%256 == 0 {
		x.save(ctx)
	}
	return nil
}

// wake needs mu.
func (x *replica) wake() {
	if x.moved != nil {
		close(x.moved)
		x.moved = nil
	}
}

// pass waits until the event is not further ahead of a lane that reads from here than half of what is kept. It is false if ctx ends, or
// nobody has asked for long.
func (x *replica) pass(ctx context.Context, seq uint64) bool {
	for ctx.Err() == nil {
		x.mu.Lock()
		open := true
		now := x.cfg.Now()
		if len(x.ring.seqs) > x.capacity/2 {
			mid := x.ring.seqs[x.ring.at(len(x.ring.seqs)-x.capacity/2)]
			for lane, g := range x.gates {
				if now.Sub(g.asked) > gateLife {
					delete(x.gates, lane)
				} else if g.first >= x.ring.low && g.first < mid {
					open = false
				}
			}
		}
		if x != x.main && now.Sub(x.asked) > unasked {
			x.cancel()
		}
		x.mu.Unlock()
		if open {
			return ctx.Err() == nil
		}
		t := time.NewTimer(gatePause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return false
}

// save writes a snapshot if one is due, in a goroutine of its own, while folding goes on.
func (x *replica) save(ctx context.Context) {
	if x.thaw && !x.saving.Load() {
		x.folder.Store.Thaw()
		x.thaw = false
	}
	now := x.cfg.Now()
	since, n := now.Sub(x.when), x.place.Seq-x.saved.Seq
	if x.cfg.Save == nil || x.thaw || n == 0 || since < max(x.cfg.SaveEvery, saveShare*time.Duration(x.took.Load())) ||
		n < x.worth() && since < saveIdle && x.saved.Stored != 0 || x != x.mainNow() || !x.cfg.Save() {
		return
	}
	frozen, at := x.folder.Store.Freeze(), x.place
	x.saved, x.when, x.thaw = at, now, true
	x.saving.Store(true)
	x.saves.Go(func() {
		defer x.saving.Store(false)
		began := x.cfg.Now()
		err := x.lib.save(ctx, frozen, at)
		x.took.Store(int64(x.cfg.Now().Sub(began)))
		if err == nil {
			err = x.lib.thin(ctx, at.Incarnation, x.cfg.Now(), time.Duration(x.cfg.Plan.Schema.Contract.Retention.Events))
		}
		if err != nil && ctx.Err() == nil {
			x.cfg.Note(err)
		}
	})
}

// worth is the number of events that a snapshot is worth being written for.
func (x *replica) worth() uint64 { return max(saveEvents, uint64(x.folder.Store.Keys())/saveKeys) }

func (x *replica) mainNow() *replica {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.main
}

// pick is the replica that holds, or will come to, the events from first on; nil: none. It needs mu.
func (r *Recall) pick(first uint64) *replica {
	if r.main != nil && (!r.main.ready || r.main.ring.low <= first) {
		return r.main
	}
	for i := len(r.behind) - 1; i >= 0; i-- {
		x := r.behind[i]
		if !x.ready || x.ring.low <= first {
			return x
		}
	}
	return nil
}

// At says whether the features of the events first to last, of those there are, are at hand. lane says for whom: nobody reads on so far
// that its next ones are let go.
func (r *Recall) At(lane int, first, last uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	r.gates[lane] = gate{first, now}
	x := r.pick(first)
	if x == nil {
		return false
	}
	x.asked = now
	return x.ready && x.front >= last
}

// Await returns when they are.
func (r *Recall) Await(ctx context.Context, lane int, first, last uint64) error {
	deadline := r.cfg.Now().Add(patience)
	progress := uint64(0)
	for {
		r.mu.Lock()
		now := r.cfg.Now()
		r.gates[lane] = gate{first, now}
		x := r.pick(first)
		if x == nil && r.start != nil {
			x = r.start(first)
			r.behind = append(r.behind, x)
		}
		if x == nil {
			r.mu.Unlock()
			return fmt.Errorf("memory of %s is not followed", r.kind)
		}
		x.asked = now
		r.tidy(now)
		if x.ready && x.front >= last {
			r.mu.Unlock()
			return nil
		}
		if x.front > progress {
			progress, deadline = x.front, now.Add(patience)
		}
		if x.moved == nil {
			x.moved = make(chan struct{})
		}
		moved, front := x.moved, x.front
		r.mu.Unlock()
		if now.After(deadline) {
			return fmt.Errorf("memory of %s stands at event %d, and %d is waited for", r.kind, front, last)
		}
		t := time.NewTimer(time.Second)
		select {
		case <-moved:
			t.Stop()
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// tidy lets replicas go that nobody has asked for a while. It needs mu.
func (r *Recall) tidy(now time.Time) {
	keep := r.behind[:0]
	for _, x := range r.behind {
		if now.Sub(x.asked) > unasked {
			x.cancel()
			continue
		}
		keep = append(keep, x)
	}
	clear(r.behind[len(keep):])
	r.behind = keep
}

// Features copies those of an event into out, and says whether its id is an earlier one's: then they are missing; false if they are not at
// hand, or the event was invalid.
func (r *Recall) Features(seq uint64, out []float64) (memory.Verdict, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.pick(seq)
	if x == nil || !x.ready {
		return memory.Verdict{}, false
	}
	f, v := x.ring.find(seq)
	copy(out, f)
	return v, f != nil
}

// Front is the last event that the main replica has folded.
func (r *Recall) Front() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.main == nil || !r.main.ready {
		return 0
	}
	return r.main.front
}

// Beginning is a state to fold from.
type Beginning struct {
	Store *memory.Store
	Place memory.Place // the next event to fold is the one after Place.Seq

	incarnation time.Time
}

// Begin is the state to fold from if the features of the event first are wanted, and of those after it: the newest snapshot before it, or
// else nothing at the first event that EVENTS holds. With whole it is, for one who reads the log from its beginning, the
// oldest snapshot without a gap before the log.
func Begin(ctx context.Context, js jetstream.JetStream, p *memory.Plan, first uint64, note func(error)) (Beginning, error) {
	return newLibrary(js, p).begin(ctx, first, false, note)
}

// BeginOldest is the state to fold from for one who reads all that EVENTS holds: nothing, if it holds all there were; else the oldest
// snapshot that no event is missing behind; else nothing at its first event. Features of events up to Place.Seq are not known.
func BeginOldest(ctx context.Context, js jetstream.JetStream, p *memory.Plan, note func(error)) (Beginning, error) {
	return newLibrary(js, p).begin(ctx, 0, true, note)
}

func (l *library) begin(ctx context.Context, before uint64, oldest bool, note func(error)) (Beginning, error) {
	kind := l.plan.Schema.Contract.Kind
	stream, err := l.js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		return Beginning{}, fmt.Errorf("look at %s: %w", events.EventsStream(kind), err)
	}
	info := stream.CachedInfo()
	b := Beginning{incarnation: info.Created}
	first, made := max(info.State.FirstSeq, 1), info.Created.UnixNano()
	if !oldest || first > 1 {
		b.Store, b.Place, err = l.load(ctx, made, func(seq uint64) bool {
			return seq+1 >= first && seq <= info.State.LastSeq && (oldest || seq < before)
		}, oldest, note)
		switch {
		case errors.Is(err, jetstream.ErrBucketNotFound) && first == 1: // nothing is lost but time
			note(err)
		case err != nil:
			return Beginning{}, err
		}
	}
	if b.Store == nil {
		b.Store, b.Place = memory.New(l.plan), memory.Place{Incarnation: made, Origin: first, Seq: first - 1}
		if first > 1 {
			note(fmt.Errorf("memory of %s begins at event %d: those before have left EVENTS, and there is no snapshot of them", kind, first))
		}
	}
	return b, nil
}
