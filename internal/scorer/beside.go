package scorer

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/riskweir/riskweir/internal/lane"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/recall"
	"github.com/riskweir/riskweir/pkg/events"
)

// besideWait is how long the outcomes of a batch wait for what is scored beside them. Both begin at once and take about as long, so that
// there is little to wait for; a version that has been waited for in vain is not waited for until it has come back.
const besideWait = time.Millisecond

// besides scores a lane's events with the versions that do not decide, and counts where they give no answer or take too long: beside, in a goroutine
// for each batch, so that none of them can harm or hold up an outcome. What has not been scored when the outcomes are ready is left out. What
// they answer is not kept: scores are pure functions, and who wants them computes them.
//
// It belongs to the lane's goroutine, but for what work holds.
type besides struct {
	running *sync.WaitGroup // of the scorer: goroutines under way
	// tried is set by tests only: it is called before a version other than the champion scores an event, and may panic or take its time.
	tried func(version int, rec *events.Record)

	live    *model.Live
	late    time.Duration
	pending [events.MaxBeside]events.Beside // of the batch, by contender

	work *besideWork // of the batch; nil: there is none
	lost *besideWork // of a batch before, that has not come back
}

// besideWork is one batch scored beside.
type besideWork struct {
	done    chan struct{} // closed when it has come back
	stopped atomic.Bool   // nobody waits any more
	live    *model.Live
	began   time.Time
	// at is what is being scored, 0 between: contender + 1 in the low 3 bits, and above them since when, by clock.
	at      atomic.Int64
	mu      sync.Mutex
	counted [events.MaxBeside]events.Beside // by contender
}

// adopt another model.
func (b *besides) adopt(l *model.Live) {
	if b == nil {
		return
	}
	b.live = l
	b.late = time.Duration(lateAfter(&l.Schema.Contract))
	b.pending = [events.MaxBeside]events.Beside{}
}

func lateAfter(c *events.Contract) events.Duration {
	if c.Rollout == nil {
		return events.Rollout{}.WithDefaults().LateAfter
	}
	return c.Rollout.WithDefaults().LateAfter
}

// counts says whether the champion is held against another version.
func (b *besides) counts(champion int) bool {
	return b != nil && b.live != nil && len(b.live.Contenders) > 0 && b.live.Contenders[0].Version == champion
}

// served counts an event that a version decided, or was to.
func (b *besides) served(c *model.Contender, ok bool, took time.Duration) {
	if b == nil {
		return
	}
	for i := range b.live.Contenders {
		if b.live.Contenders[i].Version == c.Version {
			count(&b.pending[i], ok, took > b.late)
		}
	}
}

func (b *besides) tries() func(int, *events.Record) {
	if b == nil {
		return nil
	}
	return b.tried
}

func count(x *events.Beside, ok, late bool) {
	x.N++
	switch {
	case !ok:
		x.Failed++
	case late:
		x.Late++
	}
}

// begin scores the batch with whatever does not decide, beside.
func (b *besides) begin(s *stage, batch []lane.Event) {
	if b == nil || len(s.live.Contenders) == 0 || s.lane == events.StrayLane {
		return
	}
	b.pending = [events.MaxBeside]events.Beside{}
	if b.lost != nil {
		select {
		case <-b.lost.done:
			b.lost = nil
		default:
			b.stuck(b.lost)
			return
		}
	}
	w := &besideWork{done: make(chan struct{}), live: s.live, began: time.Now()}
	b.work = w
	j := besideJob{tried: b.tried, live: s.live, recall: s.recall, width: len(s.memory), late: b.late, batch: batch}
	b.running.Go(func() {
		defer close(w.done)
		w.run(&j)
	})
}

// stuck counts the version that does not come back as late once more.
func (b *besides) stuck(w *besideWork) {
	at := w.at.Load()
	i := int(at&7) - 1
	if took := time.Duration(w.clock()-at>>3) * time.Microsecond; i >= 0 && took > b.late {
		b.served(&w.live.Contenders[i], true, took)
	}
}

// end takes what has been counted.
func (b *besides) end() {
	if b == nil || b.work == nil {
		return
	}
	w := b.work
	b.work = nil
	select {
	case <-w.done:
	default:
		wait := time.NewTimer(besideWait)
		select {
		case <-w.done:
		case <-wait.C:
			w.stopped.Store(true)
			b.lost = w
		}
		wait.Stop()
	}
	w.mu.Lock()
	counted := w.counted
	w.mu.Unlock()
	for i, x := range counted {
		b.pending[i].N += x.N
		b.pending[i].Failed += x.Failed
		b.pending[i].Late += x.Late
	}
}

// add is before with what has been counted on top. What is not a contender any more, or in another stage, is let go.
func (b *besides) add(before events.Besides) events.Besides {
	if b == nil || b.live == nil {
		return before
	}
	var after events.Besides
	for i, c := range b.live.Contenders {
		x := before.Of(c.Version, c.Since)
		x.N += b.pending[i].N
		x.Failed += b.pending[i].Failed
		x.Late += b.pending[i].Late
		after[i] = x
	}
	b.pending = [events.MaxBeside]events.Beside{}
	return after
}

// besideJob is what a goroutine needs, none of which changes meanwhile.
type besideJob struct {
	tried  func(version int, rec *events.Record)
	live   *model.Live
	recall *recall.Recall
	width  int // of the memory
	late   time.Duration
	batch  []lane.Event
}

// run scores the batch. An event that cannot be read has no score.
func (w *besideWork) run(j *besideJob) {
	var rec events.Record
	var scratch model.Scratch
	remembered := make([]float64, j.width)
	var counted [events.MaxBeside]events.Beside
	keep := func() {
		w.mu.Lock()
		w.counted = counted
		w.mu.Unlock()
	}
	defer keep()
	for n := range j.batch {
		if w.stopped.Load() {
			return
		}
		if n%64 == 63 {
			keep()
		}
		entity, ok := j.read(&j.batch[n], &rec, remembered)
		if !ok {
			continue
		}
		decides := 0
		if c := j.live.Canary; c != nil && c.Share.Has(entity) {
			decides = c.Version
		} else if j.live.Contenders[0].Version == j.live.Version {
			decides = j.live.Version
		}
		for i := range j.live.Contenders {
			c := &j.live.Contenders[i]
			if c.Version == decides {
				continue
			}
			began := w.clock()
			w.at.Store(began<<3 | int64(i+1))
			_, ok := guarded(c, &rec, &scratch, j.tried)
			late := time.Duration(w.clock()-began)*time.Microsecond > j.late
			w.at.Store(0)
			if w.stopped.Load() { // it was counted where it was not waited for
				return
			}
			count(&counted[i], ok, late)
		}
	}
}

// read is the part of stage.score that comes before a model is asked.
func (j *besideJob) read(e *lane.Event, rec *events.Record, remembered []float64) (entity string, ok bool) {
	defer func() {
		if recover() != nil { // the lane meets it, too, and tells
			ok = false
		}
	}()
	stored, err := events.ParseStoredEvent(e.Subject)
	if err != nil {
		return "", false
	}
	enc, err := events.DetectEncoding(e.Type, e.Body)
	if err != nil || j.live.Schema.Decode(enc, e.Body, rec) != nil {
		return "", false
	}
	entity = events.UnescapeEntity(stored.Token)
	if len(rec.Entity) > 0 && string(rec.Entity) != entity {
		return "", false
	}
	if rec.Time.IsZero() {
		rec.Time = e.Stored
	}
	if j.width > 0 {
		if j.recall == nil {
			return "", false
		}
		v, known := j.recall.Features(e.Seq, remembered)
		if !known || v.Repeated() {
			return "", false
		}
		rec.SetMemory(remembered)
	}
	return entity, true
}

// clock is in µs since the work began.
func (w *besideWork) clock() int64 { return int64(time.Since(w.began) / time.Microsecond) }
