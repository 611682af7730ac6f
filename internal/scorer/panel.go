package scorer

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riskweir/riskweir/internal/model"
)

// panel is what the lanes of a scorer know together of the members of its models: the last snapshot of each kind, and who is switched
// off because it held a batch up.
type panel struct {
	now   func() time.Time
	lease time.Duration // a snapshot that has not been followed by another for so long does not vote

	mu      sync.Mutex
	latest  map[string]received    // by kind
	off     map[string]switchedOff // by kind and member: payment/boost
	out     map[string]string      // by kind: what its last scores lacked, as in mode; for heartbeats
	changed atomic.Uint64          // counts changes of latest and off
}

// received is a snapshot of ONLINE.
type received struct {
	snapshot *model.Snapshot // nil: it was refused
	sequence uint64
	at       time.Time // when it was first seen here, or when following began
}

type switchedOff struct {
	until time.Time
	for_  time.Duration
}

// A member that was switched off is tried again after a while, which doubles each time.
const (
	offAtFirst = 30 * time.Second
	offAtMost  = 10 * time.Minute
)

func newPanel(lease time.Duration) *panel {
	return &panel{now: time.Now, lease: lease, latest: map[string]received{}, off: map[string]switchedOff{}, out: map[string]string{}}
}

// take is told what was found in ONLINE: a snapshot, or one that cannot be used.
func (p *panel) take(kind string, sequence uint64, s *model.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, ok := p.latest[kind]; ok && last.sequence == sequence {
		return
	}
	p.latest[kind] = received{snapshot: s, sequence: sequence, at: p.now()}
	p.changed.Add(1)
}

func (p *panel) sequence(kind string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.latest[kind].sequence
}

// tooSlow switches a member off.
func (p *panel) tooSlow(kind, member string) (until time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, name := p.now(), kind+"/"+member
	last := p.off[name]
	if now.Before(last.until) { // another lane found it at the same time
		return last.until.Sub(now)
	}
	d := offAtFirst
	if last.for_ > 0 && now.Sub(last.until) < 2*last.for_ {
		d = min(2*last.for_, offAtMost)
	}
	p.off[name] = switchedOff{until: now.Add(d), for_: d}
	p.changed.Add(1)
	return d
}

// arrangement is what a lane's predictor was made from.
type arrangement struct {
	live    *model.Live
	changed uint64
	checked time.Time
}

// recheck is how often a lease and the end of a switching off are looked at.
const recheck = time.Second

// arrange makes the predictor for the next batch: that of the model in force, with the latest snapshot of its member online, without
// those that do not vote.
func (s *stage) arrange() {
	if s.panel == nil {
		s.predictor = s.live.Predictor
		if s.live.Canary != nil {
			s.canary = s.live.Canary.Contender
		}
		return
	}
	now := s.panel.now()
	at := arrangement{live: s.live, changed: s.panel.changed.Load(), checked: now}
	if s.arranged.live == at.live && s.arranged.changed == at.changed && now.Sub(s.arranged.checked) < recheck {
		return
	}
	s.predictor, s.arranged = s.panel.predictor(s.kind, s.live.Predictor), at
	if c := s.live.Canary; c != nil {
		s.canary = c.Contender
		s.canary.Predictor = s.panel.predictor(s.kind, c.Predictor)
	}
}

func (p *panel) predictor(kind string, next *model.Predictor) *model.Predictor {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, out := p.now(), []string(nil)
	if next.WantsSnapshot() {
		last, ok := p.latest[kind]
		if !ok {
			last.at = now
			p.latest[kind] = last
		}
		switch {
		case last.sequence > 0 && last.snapshot == nil || now.Sub(last.at) > p.lease:
			out = append(out, model.KindOnline)
		case last.snapshot != nil: // one of another version is no error: what is in the artifact votes until one of this comes
			if with, err := next.With(last.snapshot, last.sequence); err == nil {
				next = with
			}
		}
	}
	for _, m := range next.Members() {
		if now.Before(p.off[kind+"/"+m].until) && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	without, err := next.Without(out...)
	if err != nil { // the names are its own
		return next
	}
	return without
}

// noteOut remembers for heartbeats what the scores of a batch lacked.
func (p *panel) noteOut(kind, out string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out[kind] = out
}

// missing says for each kind which members its last scores lacked.
func (p *panel) missing() map[string][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string][]string{}
	for kind, out := range p.out {
		if out != "" {
			all[kind] = strings.Split(out[1:], "-")
		}
	}
	return all
}

// modes keeps the texts of modes, so that none is made for each event.
type modes struct {
	base, out, text string
}

func (m *modes) of(base, out string) string {
	if out == "" {
		return base
	}
	if m.base != base || m.out != out {
		*m = modes{base, out, fmt.Sprint(base, out)}
	}
	return m.text
}
