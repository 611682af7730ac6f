// Package erase takes an entity out of a kind's streams: its events when they have their outcomes, the outcomes, labels and rescores. What
// was removed stands in ERASURES by sequence, before anything is, so that whoever dies in the middle is followed by the same code.
package erase

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Config of Run.
type Config struct {
	JS     jetstream.JetStream
	Kind   string
	Entity string // as publishers name it, or its hash where those are published; empty: only what was begun is ended
	By     string
	Reason string
	Wait   time.Duration // for outcomes of the entity's latest events
	// Step is told before each removal; an error ends the run there. nil: nobody is.
	Step func(done, all uint64) error
}

// ErrUnscored says that events of the entity have no outcome yet: nothing was removed.
var ErrUnscored = errors.New("have no outcome yet")

const (
	oneTry  = 5 * time.Second
	patient = 30 * time.Second // an election takes 4 to 9 s
	pause   = 200 * time.Millisecond
)

// Run erases, in this order. What holds if we die behind each line:
//
//	wait until the lane has committed outcomes up to the entity's last event      nothing was changed
//	write a tombstone with every sequence of it                                   verify and replay pass over these; the next run goes on here
//	remove events, outcomes, labels, rescores by sequence, overwritten on disk    the same; a sequence that is gone already is done
//	remove the kind's snapshots of memory                                         the same
//	mark the tombstone as done                                                    all of it holds
//
// It begins with what earlier runs left unfinished, and returns all that it has ended, its own last.
func Run(ctx context.Context, cfg Config) ([]Tombstone, error) {
	r := &run{Config: cfg}
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	left, err := r.unfinished(ctx)
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	var ended []Tombstone
	for _, t := range left {
		if err := r.remove(ctx, &t); err != nil {
			return ended, fmt.Errorf("erase: go on with %s: %w", t.ID, err)
		}
		ended = append(ended, t)
	}
	if cfg.Entity == "" {
		return ended, nil
	}
	t, err := r.find(ctx)
	if err != nil {
		return ended, fmt.Errorf("erase: %w", err)
	}
	if t.Events.Len()+t.Scores.Len()+t.Labels.Len()+t.Rescores.Len() == 0 {
		return ended, nil
	}
	if err := r.store(ctx, &t); err != nil {
		return ended, fmt.Errorf("erase: nothing was removed: %w", err)
	}
	if err := r.remove(ctx, &t); err != nil {
		return ended, fmt.Errorf("erase: %s was begun and not ended, the same command goes on: %w", t.ID, err)
	}
	return append(ended, t), nil
}

type run struct {
	Config
	kv        jetstream.KeyValue
	schema    *events.Schema
	made      map[string]time.Time // streams, by name
	revisions map[string]uint64    // of tombstones in ERASURES, by id
}

func (r *run) open(ctx context.Context) error {
	declared, err := topology.ReadKind(ctx, r.JS, r.Kind)
	if err != nil {
		return err
	}
	if r.schema, err = events.Compile(declared.Contract); err != nil {
		return fmt.Errorf("contract of %s: %w", r.Kind, err)
	}
	r.made, r.revisions = map[string]time.Time{}, map[string]uint64{}
	for _, name := range []string{r.events(), r.scores(), events.LabelsStream, events.RescoresStream} {
		err := persist(ctx, func(ctx context.Context) error {
			s, err := r.JS.Stream(ctx, name)
			if err == nil {
				r.made[name] = s.CachedInfo().Created
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("look at %s: %w", name, err)
		}
	}
	return persist(ctx, func(ctx context.Context) (err error) {
		r.kv, err = r.JS.KeyValue(ctx, events.ErasuresBucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			return fmt.Errorf("%s: %w: 'riskweir topology apply' makes it", events.ErasuresBucket, err)
		}
		return err
	})
}

func (r *run) events() string { return events.EventsStream(r.Kind) }
func (r *run) scores() string { return events.ScoresStream(r.Kind) }

// unfinished are the tombstones of the kind that are not done.
func (r *run) unfinished(ctx context.Context) ([]Tombstone, error) {
	var out []Tombstone
	err := r.each(ctx, "KV_"+events.ErasuresBucket, "$KV."+events.ErasuresBucket+"."+r.Kind+".*", func(m *jetstream.RawStreamMsg) error {
		if m.Header.Get("KV-Operation") != "" {
			return nil
		}
		t, err := Decode(m.Data)
		if err != nil {
			return fmt.Errorf("%s: %w", m.Subject, err)
		}
		latest := r.revisions[t.ID]
		r.revisions[t.ID] = m.Sequence
		if latest > 0 {
			for i := range out {
				if out[i].ID == t.ID {
					out = append(out[:i], out[i+1:]...)
					break
				}
			}
		}
		if !t.Done {
			out = append(out, t)
		}
		return nil
	})
	return out, err
}

// find waits for outcomes and lists all that there is of the entity.
func (r *run) find(ctx context.Context) (Tombstone, error) {
	t := Tombstone{
		ID: nuid.Next(), Kind: r.Kind, At: time.Now().UTC(), By: r.By, Reason: r.Reason,
		Incarnation: r.made[r.events()], ScoresMade: r.made[r.scores()],
	}
	token, err := events.EscapeEntity(r.Entity)
	if err != nil {
		return t, err
	}
	var rec events.Record
	var own, outcomes, labels, rescores []uint64
	lanes := map[int]uint64{}             // the entity's last event
	names := map[string]bool{token: true} // under which its labels may stand
	name := func(text string) {
		if token, err := events.EscapeEntity(text); err == nil {
			names[token] = true
		}
	}
	err = r.each(ctx, r.events(), "events."+r.Kind+".*."+token, func(m *jetstream.RawStreamMsg) error {
		e, err := events.ParseStoredEvent(m.Subject)
		if err != nil {
			return err
		}
		own = append(own, m.Sequence)
		lanes[e.Lane] = m.Sequence
		name(fmt.Sprint(m.Sequence))
		if enc, err := events.DetectEncoding(m.Header.Get(events.HeaderContentType), m.Data); err == nil && r.schema.Decode(enc, m.Data, &rec) == nil && len(rec.ID) > 0 {
			name(string(rec.ID))
		}
		return nil
	})
	if err != nil {
		return t, err
	}
	for lane, last := range lanes {
		if err := r.await(ctx, lane, last); err != nil {
			return t, err
		}
	}
	collect := func(stream, filter string, to *[]uint64) {
		if err == nil {
			err = r.each(ctx, stream, filter, func(m *jetstream.RawStreamMsg) error { *to = append(*to, m.Sequence); return nil })
		}
	}
	collect(r.scores(), "scores."+r.Kind+".*."+token, &outcomes)
	for token := range names {
		collect(events.LabelsStream, "labels."+r.Kind+"."+token, &labels)
	}
	collect(events.RescoresStream, "rescores."+r.Kind+".*.*."+token, &rescores)
	if err != nil {
		return t, err
	}
	t.Events, t.Scores, t.Labels, t.Rescores = rangesOf(own), rangesOf(outcomes), rangesOf(labels), rangesOf(rescores)
	t.Models, err = r.trainedOn(ctx, t)
	return t, err
}

// await gives the entity's unscored events their outcome by waiting for whoever owns the lane: nobody else may commit one.
func (r *run) await(ctx context.Context, lane int, last uint64) error {
	waiting, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	for {
		p, found, err := topology.ReadPosition(ctx, r.JS.Conn(), r.Kind, lane)
		switch {
		case err != nil:
			return err
		case found && p.Incarnation.Equal(r.made[r.events()]) && p.Seq >= last:
			return nil
		}
		select {
		case <-time.After(pause):
		case <-waiting.Done():
			return fmt.Errorf("its events up to %d %w, and lane %d has come to %d: is a scorer running? Nothing was removed", last, ErrUnscored, lane, p.Seq)
		}
	}
}

// trainedOn lists the versions whose training saw a range of events with some of these in it.
func (r *run) trainedOn(ctx context.Context, t Tombstone) ([]string, error) {
	kv, err := r.JS.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return nil, fmt.Errorf("models: %w", err)
	}
	registry := model.NewRegistry(kv)
	entries, err := registry.List(ctx, r.Kind)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		a, err := registry.Get(ctx, r.Kind, e.Version)
		if err != nil {
			out = append(out, model.Name(r.Kind, e.Version)+" (cannot be read)")
			continue
		}
		if tr := a.Training; tr.Stream == r.events() && tr.Incarnation.Equal(t.Incarnation) && t.Events.touches(tr.FirstSeq, tr.LastSeq) {
			out = append(out, model.Name(r.Kind, e.Version))
		}
	}
	return out, nil
}

// store writes the tombstone. Its key is new or ours, so that a write whose answer was lost may be made again.
func (r *run) store(ctx context.Context, t *Tombstone) error {
	body, err := encode(t)
	if err != nil {
		return err
	}
	return persist(ctx, func(ctx context.Context) error {
		revision, err := r.kv.Put(ctx, t.Kind+"."+t.ID, body)
		r.revisions[t.ID] = revision
		return err
	})
}

// remove takes away what the tombstone names, and marks it as done.
func (r *run) remove(ctx context.Context, t *Tombstone) error {
	parts := []struct {
		stream string
		made   time.Time // zero: whichever there is; LABELS and RESCORES have no other incarnation on record
		seqs   Ranges
	}{
		{r.events(), t.Incarnation, t.Events},
		{r.scores(), t.ScoresMade, t.Scores},
		{events.LabelsStream, time.Time{}, t.Labels},
		{events.RescoresStream, time.Time{}, t.Rescores},
	}
	var done, all uint64
	for _, p := range parts {
		all += p.seqs.Len()
	}
	for _, p := range parts {
		if !p.made.IsZero() && !p.made.Equal(r.made[p.stream]) {
			continue // the stream was made anew: its sequences are other messages
		}
		var stream jetstream.Stream
		err := persist(ctx, func(ctx context.Context) (err error) { stream, err = r.JS.Stream(ctx, p.stream); return err })
		if err != nil {
			return fmt.Errorf("look at %s: %w", p.stream, err)
		}
		for seq := range p.seqs.all {
			if r.Step != nil {
				if err := r.Step(done, all); err != nil {
					return err
				}
			}
			if err := removeOne(ctx, stream, seq); err != nil {
				return fmt.Errorf("remove message %d of %s: %w", seq, p.stream, err)
			}
			done++
		}
	}
	if err := r.forget(ctx); err != nil {
		return err
	}
	t.Done = true
	return r.store(ctx, t)
}

// removeOne overwrites a message on disk and takes it away. One that is gone is done.
func removeOne(ctx context.Context, stream jetstream.Stream, seq uint64) error {
	return persist(ctx, func(ctx context.Context) error {
		err := stream.SecureDeleteMsg(ctx, seq)
		if err == nil {
			return nil
		}
		if _, look := stream.GetMsg(ctx, seq); errors.Is(look, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
}

// forget removes the kind's snapshots of memory: each holds sums of the entity under a hash of its name. A scorer that runs holds them too, and
// may write them again: see docs/security.md.
func (r *run) forget(ctx context.Context) error {
	if r.schema.Contract.Memory == nil {
		return nil
	}
	return persist(ctx, func(ctx context.Context) error {
		store, err := r.JS.ObjectStore(ctx, events.MemoryBucket)
		if err != nil {
			return fmt.Errorf("snapshots: %w", err)
		}
		infos, err := store.List(ctx)
		if errors.Is(err, jetstream.ErrNoObjectsFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("snapshots: %w", err)
		}
		for _, info := range infos {
			if !strings.HasPrefix(info.Name, r.Kind+".") {
				continue
			}
			if err := store.Delete(ctx, info.Name); err != nil && !errors.Is(err, jetstream.ErrObjectNotFound) {
				return fmt.Errorf("snapshot %s: %w", info.Name, err)
			}
		}
		return nil
	})
}

// each hands on the messages of a stream that match the filter, up to its end as of now, asked of its leader one after the other.
func (r *run) each(ctx context.Context, name, filter string, f func(*jetstream.RawStreamMsg) error) error {
	var stream jetstream.Stream
	err := persist(ctx, func(ctx context.Context) (err error) { stream, err = r.JS.Stream(ctx, name); return err })
	if err != nil {
		return fmt.Errorf("look at %s: %w", name, err)
	}
	last := stream.CachedInfo().State.LastSeq
	for seq := uint64(1); seq <= last; {
		var m *jetstream.RawStreamMsg
		err := persist(ctx, func(ctx context.Context) (err error) {
			m, err = stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				m, err = nil, nil
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if m == nil || m.Sequence > last {
			return nil
		}
		if err := f(m); err != nil {
			return fmt.Errorf("message %d of %s: %w", m.Sequence, name, err)
		}
		seq = m.Sequence + 1
	}
	return nil
}

// persist repeats f, which may be done twice, while the cluster does not answer.
func persist(ctx context.Context, f func(context.Context) error) error {
	end := time.Now().Add(patient)
	for {
		try, cancel := context.WithTimeout(ctx, oneTry)
		err := f(try)
		cancel()
		if err == nil || ctx.Err() != nil || time.Now().After(end) || errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrBucketNotFound) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}
