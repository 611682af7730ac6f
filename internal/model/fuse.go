package model

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Bounds on what a field, and the baseline, can add to a fused logit, in log-odds: an event with a wild value gets a probability next
// to 0 or 1, and puts no member out. With at most 200 fields all sums are exact: 200·32 + 1024 < 8192.
const (
	maxPart = 32
	maxBase = 1024
)

// fuse has the members score side by side on one encoded record. Who cannot answer is left out, and the rest has weights for that.
func (p *Predictor) fuse(rec *events.Record, s *Scratch) Result {
	c, groups := p.members, len(p.fields)
	s.x = sized(s.x, p.encoder.Dim())
	s.groups = sized(s.groups, groups)
	s.parts = sized(s.parts, groups*len(c.names))
	p.encoder.Encode(s.x, rec)
	out := p.out
	for i := range c.names {
		if out>>i&1 == 0 && !p.vote(i, s.parts[i*groups:(i+1)*groups], rec, s) {
			out |= 1 << i
		}
	}
	voting := c.all() &^ out
	if voting == 0 {
		return Result{Logit: p.base, P: p.prior, Points: p.points(p.base), Out: c.suffix[out], Prior: true}
	}
	f := &c.fusions[voting]
	slope := 1.0
	if online := c.of(KindOnline); voting&online != 0 {
		slope = c.corrects[0]
	}
	clear(s.groups)
	for i := range c.names {
		if voting>>i&1 == 1 {
			w := float64(slope * f.weights[i])
			for g, v := range s.parts[i*groups : (i+1)*groups] {
				s.groups[g] += float64(w * v)
			}
		}
	}
	logit := c.baseOf(voting)
	for g, v := range s.groups {
		v = lr.Quantise(min(max(v, -maxPart), maxPart))
		s.groups[g] = v
		logit += v
	}
	r := Result{Logit: logit, P: lr.Sigmoid(logit), Points: p.points(logit), Reasons: p.reasons(s), Out: c.suffix[out]}
	if voting&c.of(KindOnline) != 0 {
		r.Snapshot = c.snapshot
	}
	return r
}

// vote leaves the contributions of member i in parts. It is false if they are no numbers, or the member panicked.
func (p *Predictor) vote(i int, parts []float64, rec *events.Record, s *Scratch) (ok bool) {
	c := p.members
	name := c.names[i]
	s.began++
	s.Working.Store(s.began<<8 | uint64(i+1))
	defer func() {
		s.Working.Store(0)
		if recover() != nil {
			ok = false
		}
	}()
	wrong := 0.0
	if s.Fault != nil {
		wrong = s.Fault(name)
	}
	clear(parts)
	switch name {
	case KindBatch:
		c.batch.contributions(parts, s.x, p.groupOf)
	case KindOnline:
		c.online.contributions(parts, s.x, p.groupOf)
	case KindBoost:
		c.boost.Contributions(parts, s.x)
	case KindScorecard:
		c.card.contributions(parts, rec)
	}
	for _, v := range parts {
		wrong += v
	}
	return wrong-wrong == 0
}

// baseOf is the fused logit of the baseline, if those members vote.
func (c *panel) baseOf(voting uint32) float64 {
	f := &c.fusions[voting]
	z := f.bias
	for i, name := range c.names {
		if voting>>i&1 == 1 {
			z += float64(f.weights[i] * c.base(name))
		}
	}
	if voting&c.of(KindOnline) != 0 {
		z = float64(c.corrects[0]*z) + c.corrects[1]
	}
	return lr.Quantise(min(max(z, -maxBase), maxBase))
}

// base is a member's logit of the baseline.
func (c *panel) base(name string) float64 {
	switch name {
	case KindBatch:
		return c.batch.base
	case KindOnline:
		return c.online.base
	case KindBoost:
		return c.boost.Base()
	}
	return c.card.base
}

func (c *panel) all() uint32 { return 1<<len(c.names) - 1 }

// of is the mask of one member; 0: there is none of the kind.
func (c *panel) of(kind string) uint32 {
	for i, name := range c.names {
		if name == kind {
			return 1 << i
		}
	}
	return 0
}

func (p *Predictor) voting() uint32 { return p.members.all() &^ p.out }

// Members of the ensemble, ascending; none for one regression.
func (p *Predictor) Members() []string {
	if p.members == nil {
		return nil
	}
	return p.members.names
}

// Unusable says of members that were left out when the predictor was made, or given a snapshot, why.
func (p *Predictor) Unusable() []string {
	if p.members == nil {
		return nil
	}
	return p.members.why
}

// Out is the members that do not vote, as in Result.
func (p *Predictor) Out() string {
	if p.members == nil {
		return ""
	}
	return p.members.suffix[p.out]
}

// Without returns a predictor in which these members do not vote.
func (p *Predictor) Without(members ...string) (*Predictor, error) {
	if len(members) == 0 {
		return p, nil
	}
	next := *p
	for _, m := range members {
		if p.members == nil || p.members.of(m) == 0 {
			return nil, fmt.Errorf("%s has no member %q: its members are %s", p.name, m, strings.Join(p.Members(), ", "))
		}
		next.out |= p.members.of(m)
	}
	return &next, nil
}

// Only returns a predictor in which all members vote but these, whatever was left out before. It is for scores computed again.
func (p *Predictor) Only(out []string) (*Predictor, error) {
	next, err := p.Without(out...)
	if err != nil || p.members == nil {
		return next, err
	}
	if missing := p.out &^ next.named(out); missing != 0 {
		return nil, fmt.Errorf("%s voted with %s, which cannot be used here: %s", p.name, p.members.names[bits.TrailingZeros32(missing)], strings.Join(p.members.why, "; "))
	}
	return next, nil
}

func (p *Predictor) named(members []string) (mask uint32) {
	for _, m := range members {
		mask |= p.members.of(m)
	}
	return mask
}

// WantsSnapshot says whether a member of it comes in snapshots.
func (p *Predictor) WantsSnapshot() bool { return p.members != nil && p.members.of(KindOnline) != 0 }

// With returns a predictor whose member online is that of the snapshot, stored in ONLINE at the sequence.
func (p *Predictor) With(s *Snapshot, sequence uint64) (*Predictor, error) {
	if !p.WantsSnapshot() {
		return nil, fmt.Errorf("%s has no member %s", p.name, KindOnline)
	}
	if name := Name(s.Kind, s.Version); name != p.name || len(s.Weights) != len(p.means) {
		return nil, fmt.Errorf("snapshot %d is of %s with %d columns: this is %s with %d", sequence, name, len(s.Weights), p.name, len(p.means))
	}
	next, c := *p, *p.members
	c.setOnline(&s.Online, p.means)
	c.snapshot = sequence
	c.broken &^= c.of(KindOnline)
	c.why = slices.DeleteFunc(slices.Clone(c.why), func(w string) bool { return strings.HasPrefix(w, KindOnline+":") })
	next.members = &c
	next.out &^= c.of(KindOnline)
	return &next, nil
}

func (c *panel) setOnline(o *Online, means []float64) {
	c.online = newLinear(o.Intercept, o.Weights, means)
	c.corrects = [2]float64{o.Slope, o.Shift}
}

// Logits of a record by each member, as fusions take them; NaN of one that does not vote. It is for whoever learns how to fuse, and
// returns the encoded record, valid until s is used again.
func (p *Predictor) Logits(dst []float64, rec *events.Record, s *Scratch) []float64 {
	c, groups := p.members, len(p.fields)
	s.x = sized(s.x, p.encoder.Dim())
	s.parts = sized(s.parts, groups*len(c.names))
	p.encoder.Encode(s.x, rec)
	for i, name := range c.names {
		parts := s.parts[i*groups : (i+1)*groups]
		dst[i] = math.NaN()
		if p.out>>i&1 == 0 && p.vote(i, parts, rec, s) {
			dst[i] = c.base(name)
			for _, v := range parts {
				dst[i] += v
			}
		}
	}
	return s.x
}

// Fuse is the fused logit, before the correction of its level, of the members' logits with that of the member online in place of its own.
func (p *Predictor) Fuse(logits []float64, online float64) float64 {
	c := p.members
	voting := c.of(KindOnline)
	for i, z := range logits {
		if !math.IsNaN(z) {
			voting |= 1 << i
		}
	}
	f := &c.fusions[voting]
	z := f.bias
	for i, name := range c.names {
		switch {
		case name == KindOnline:
			z += float64(f.weights[i] * online)
		case voting>>i&1 == 1:
			z += float64(f.weights[i] * logits[i])
		}
	}
	return z
}
