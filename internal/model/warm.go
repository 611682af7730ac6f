package model

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

// beside is a version that does not decide, kept ready: a shadow, the canary, or the champion before, so that going back to it needs nothing but
// the record.
//
//	predictor != nil  =>  it is compiled for schema
type beside struct {
	artifact  *Artifact // nil: not read yet
	predictor *Predictor
	schema    *events.Schema // that predictor is for, or cannot be for: then it is not tried again
	reported  bool           // that it cannot be read
}

// others are the versions of a record that are kept ready beside the champion.
func (r *Rollout) others() []int {
	var list []int
	add := func(v int) {
		if v != 0 && v != r.Champion && !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	add(r.Previous)
	if r.Canary != nil {
		add(r.Canary.Version)
	}
	for _, v := range r.Shadow {
		add(v)
	}
	return list
}

// contend gives l the canary and the contenders of the record, as far as they are ready. It needs k.mu.
func (k *watched) contend(l *Live) {
	l.Canary, l.Contenders = nil, nil
	if k.artifact == nil {
		return
	}
	state := k.record.State()
	contender := func(v int) (Contender, bool) {
		b := k.beside[v]
		if b == nil || b.predictor == nil || b.schema != l.Schema {
			return Contender{}, false
		}
		return Contender{Version: v, Name: Name(k.kind, v), Since: sinceOf(&state, v), Predictor: b.predictor}, true
	}
	if k.record.Previous != 0 || k.record.Canary != nil {
		l.Contenders = append(l.Contenders, Contender{Version: l.Version, Name: l.Name, Since: sinceOf(&state, l.Version), Predictor: l.Predictor})
	}
	if c := k.record.Canary; c != nil {
		if x, ok := contender(c.Version); ok {
			l.Canary = &Canarying{Contender: x, Share: rollout.NewShare(k.kind, c.Version, c.Share)}
			l.Contenders = append(l.Contenders, x)
		}
	}
	for _, v := range k.record.Shadow {
		if x, ok := contender(v); ok && len(l.Contenders) < events.MaxBeside {
			l.Contenders = append(l.Contenders, x)
		}
	}
}

// sinceOf is when a version came into its stage, in Unix ms.
func sinceOf(s *rollout.State, version int) int64 {
	if l := s.Of(version); l != nil {
		return l.Since.UnixMilli()
	}
	return 0
}

func (w *Watcher) wantWarm() {
	select {
	case w.warm <- struct{}{}:
	default:
	}
}

// keepWarm loads, until ctx ends, what serves beside the champion: apart from the loop that follows the record, which must not wait for it.
func (w *Watcher) keepWarm(ctx context.Context) {
	again := time.NewTimer(w.cfg.Poll)
	defer again.Stop()
	wait := againMin
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.warm:
			wait = againMin
		case <-again.C:
		}
		whole := true
		for _, k := range *w.kinds.Load() {
			whole = w.warmUp(ctx, k) && whole
		}
		if again.Reset(wait); whole {
			again.Reset(w.cfg.Poll)
		}
		wait = min(2*wait, w.cfg.Poll)
	}
}

// warmUp loads what a kind's record names and is not ready, and lets go what it does not name. It is false if something may be readable later.
func (w *Watcher) warmUp(ctx context.Context, k *watched) bool {
	k.mu.Lock()
	wanted, revision := k.record.others(), k.live.Load().Revision
	for v := range k.beside {
		if !slices.Contains(wanted, v) {
			delete(k.beside, v)
		}
	}
	k.mu.Unlock()
	whole, changed := true, false
	for _, v := range wanted {
		k.mu.Lock()
		b, schema := k.beside[v], k.live.Load().Schema
		if b == nil {
			b = &beside{}
			k.beside[v] = b
		}
		a, ready := b.artifact, b.schema == schema
		k.mu.Unlock()
		if ready {
			continue
		}
		var err error
		if a == nil {
			a, err = w.registry.Get(ctx, k.kind, v)
		}
		var p *Predictor
		if err == nil {
			p, err = compileGuarded(a, schema)
		}
		later := err != nil && a == nil && (errors.Is(err, ErrUntrusted) || !errors.Is(err, ErrArtifact)) // keys may yet be told
		k.mu.Lock()
		tell := err != nil && !b.reported
		b.artifact, b.predictor, b.reported = a, p, err != nil
		if !later {
			b.schema = schema
		}
		k.mu.Unlock()
		whole, changed = whole && !later, changed || p != nil
		if tell && ctx.Err() == nil {
			w.report(Event{Kind: k.kind, Revision: revision, Err: fmt.Errorf("%s is left out beside the champion, which goes on: %w", Name(k.kind, v), err)})
		}
	}
	if changed {
		k.mu.Lock()
		next := *k.live.Load()
		k.contend(&next)
		k.install(&next)
		k.mu.Unlock()
	}
	return whole
}

// compileGuarded is Compile for a version that nobody's decision hangs on: a panic is one more reason to leave it out.
func compileGuarded(a *Artifact, schema *events.Schema) (p *Predictor, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: compiling it panicked: %v", ErrArtifact, r)
		}
	}()
	return Compile(a, schema)
}
