package trainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	"github.com/riskweir/riskweir/pkg/events"
)

// Outcome of one attempt to train.
type Outcome struct {
	Kind     string `json:"kind"`
	Version  string `json:"version,omitempty"` // payment.v000003; empty: none was published
	Promoted bool   `json:"promoted"`
	Reason   string `json:"reason"`
	Rows     int    `json:"rows"`
	Bad      int    `json:"bad"` // of Rows
}

// history is what the leader knows of a kind's training so far.
type history struct {
	known     bool      // the rest has been read from the registry in this term
	trained   bool      // there is a version
	since     uint64    // LABELS up to here have been trained on, or tried
	attempted time.Time // by our clock; zero: not in this term
	notBefore time.Time // after an attempt that failed for reasons of the broker's

	refused   string    // the checks that failed, as last put on record
	refusedAt time.Time //
}

// term is one trainer's time as leader. It belongs to one goroutine.
type term struct {
	trainer  *Trainer
	registry *model.Registry
	kinds    map[*kind]*history
}

// policy is when a model is due.
type policy struct {
	minLabels, minClass int
	retrainLabels       int
	retrainEvery        time.Duration
}

// minRetry is waited after an attempt that failed, and five times what it took.
const minRetry = 5 * time.Second

// enough says why there is too little to train on; "" that there is enough.
func (p policy) enough(t tally) string {
	if t.good+t.bad < p.minLabels || t.good < p.minClass || t.bad < p.minClass {
		return fmt.Sprintf("%d records have a label, %d good and %d bad: want %d, at least %d of each", t.good+t.bad, t.good, t.bad, p.minLabels, p.minClass)
	}
	return ""
}

// due says whether to train at now. Without a version a failed attempt is repeated sooner: an eighth more labels may be what it
// takes.
func (p policy) due(t tally, h history, now time.Time) bool {
	if now.Before(h.notBefore) || p.enough(t) != "" {
		return false
	}
	wanted := p.retrainLabels
	if !h.trained {
		wanted = min(wanted, max(1, p.minLabels/8))
	}
	switch {
	case !h.trained && h.attempted.IsZero():
		return true
	case t.fresh == 0:
		return false
	case t.fresh >= wanted:
		return true
	}
	return !h.attempted.IsZero() && now.Sub(h.attempted) >= p.retrainEvery
}

func (c *Config) policy() policy {
	return policy{minLabels: c.MinLabels, minClass: c.MinClass, retrainLabels: c.RetrainLabels, retrainEvery: c.RetrainEvery}
}

// consider trains a model of the kind if one is due.
func (r *term) consider(ctx context.Context, k *kind) {
	h, err := r.history(ctx, k)
	if err != nil {
		if ctx.Err() == nil {
			r.trainer.trouble(err)
		}
		return
	}
	t, ready := k.tally(h.since)
	if !ready || !r.trainer.cfg.policy().due(t, *h, time.Now()) {
		return
	}
	record, _, err := r.registry.Rollout(ctx, k.name)
	if err == nil && awaits(record, k.rollout()) {
		return
	}
	if _, err := r.train(ctx, k, h); err != nil && ctx.Err() == nil {
		r.trainer.trouble(err)
	}
}

// asked trains a model of the kind, if that can be done, because somebody wants one.
func (r *term) asked(ctx context.Context, name string) (Outcome, error) {
	k := r.trainer.kind(name)
	if k == nil {
		return Outcome{}, fmt.Errorf("kind %q is not declared", name)
	}
	h, err := r.history(ctx, k)
	if err != nil {
		return Outcome{}, err
	}
	t, ready := k.tally(h.since)
	if !ready {
		return Outcome{Kind: name, Reason: "the events and labels have not been read to their end yet: ask again"}, nil
	}
	if why := r.trainer.cfg.policy().enough(t); why != "" {
		return Outcome{Kind: name, Reason: why}, nil
	}
	return r.train(ctx, k, h)
}

// history reads, once a term, what the latest version was trained on.
func (r *term) history(ctx context.Context, k *kind) (*history, error) {
	h := r.kinds[k]
	if h == nil {
		h = &history{}
		r.kinds[k] = h
	}
	if h.known {
		return h, nil
	}
	versions, err := r.registry.List(ctx, k.name)
	if err != nil {
		return nil, err
	}
	if len(versions) > 0 {
		h.trained = true
		h.attempted = time.Now()
		latest, err := r.registry.Get(ctx, k.name, versions[len(versions)-1].Version)
		switch {
		case errors.Is(err, model.ErrArtifact) || errors.Is(err, model.ErrNoVersion): // then as if all labels were new
		case err != nil:
			return nil, err
		case latest.Training.Stream == events.EventsStream(k.name):
			h.since = latest.Training.LabelsSeq
		}
	}
	h.known = true
	return h, nil
}

// tally is ready once both streams have been read to their end.
func (k *kind) tally(since uint64) (t tally, ready bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.eventsRead || !k.labelsRead {
		return tally{}, false
	}
	return k.join.tally(k.cutoff(), time.Duration(k.schema.Contract.Maturity), since), true
}

// material is a snapshot of what there is to train on.
type material struct {
	schema      *events.Schema
	revision    uint64
	incarnation time.Time
	cutoff      time.Time
	labels      uint64
	examples    []example
}

func (k *kind) material(most int) material {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := material{schema: k.schema, revision: k.revision, incarnation: k.incarnation, cutoff: k.cutoff(), labels: k.join.labels}
	m.examples = k.join.examples(m.cutoff, time.Duration(k.schema.Contract.Maturity), most)
	return m
}

// train fits a model to what there is, and publishes and proposes it unless the gate refuses it.
func (r *term) train(ctx context.Context, k *kind, h *history) (Outcome, error) {
	began := time.Now()
	m := k.material(r.trainer.cfg.MaxRows)
	o, err := r.attempt(ctx, k, m)
	if err != nil {
		h.notBefore = time.Now().Add(max(minRetry, 5*time.Since(began)))
		return o, fmt.Errorf("train a model of %s: %w", k.name, err)
	}
	h.since, h.attempted, h.trained = m.labels, began, h.trained || o.Version != ""
	r.trainer.log.Info("trained", zap.String("kind", o.Kind), zap.String("version", o.Version), zap.Bool("promoted", o.Promoted),
		zap.String("reason", o.Reason), zap.Int("rows", o.Rows), zap.Int("bad", o.Bad), zap.Duration("took", time.Since(began)))
	return o, nil
}

func (r *term) attempt(ctx context.Context, k *kind, m material) (Outcome, error) {
	o := Outcome{Kind: k.name}
	record, _, err := r.registry.Rollout(ctx, k.name)
	if err != nil { // also one that was edited into nonsense: somebody is at it, who will not want it overwritten
		return o, err
	}
	data, seqs, training := m.dataset()
	o.Rows, o.Bad = training.Rows, training.Positives
	in := FitInput{Data: data, Features: r.trainer.cfg.Features, LR: r.trainer.cfg.LR}
	in.Members, in.Card = !r.trainer.cfg.Single, r.trainer.card(k.name, data.Schema())
	in.Train, in.Test = Time80(Sequence(data.Len()))
	policy := model.PolicyOf(&m.schema.Contract)
	if record.Champion == 0 && policy.Mode == rollout.Gated {
		if o.Reason = starved(ctx, in, seqs, policy); o.Reason != "" {
			return o, nil
		}
	}
	fit, err := Fit(ctx, in)
	switch {
	case errors.Is(err, ErrTooFewLabels):
		o.Reason = err.Error()
		return o, nil
	case err != nil:
		return o, err
	case fit.OneClass:
		o.Reason = fmt.Sprintf("the %d later records to measure it by all have the same label", fit.Test.N)
		return o, nil
	}
	if r.trainer.cfg.spoil != nil {
		r.trainer.cfg.spoil(&fit)
	}
	champion, err := r.champion(ctx, k.name, record.Champion)
	if err != nil {
		return o, err
	}
	j := judged{fit: &fit, data: data, test: in.Test, seqs: seqs, kind: k.name, champion: champion, against: record.Champion}
	evidence := j.evidence(policy.Offline())
	o.Reason = evidence.Sentence()
	by := "trainer " + r.trainer.cfg.Instance
	switch evidence.Verdict() {
	case rollout.Fail:
		return o, r.refuse(ctx, k, policy, by, evidence)
	case rollout.Inconclusive:
		if record.Champion == 0 && policy.Mode == rollout.Gated {
			return o, nil // more labels will tell, and there is nothing that it could be a shadow of
		}
	}
	contract := model.ContractRef{Version: m.schema.Contract.Version, Revision: m.revision}
	version, err := r.registry.PublishFit(ctx, k.declared(), fit.Artifact(k.name, by, time.Now(), record.Champion, contract, training))
	if err != nil {
		return o, err
	}
	r.trainer.models.Add(1)
	// From here the version stands. If we die before it is proposed it is a candidate to whoever orders it.
	o.Version = model.Name(k.name, version)
	evidence.Version = version
	done, err := r.registry.Take(ctx, k.name, policy, rollout.Proposal{Version: version, By: by, Evidence: evidence})
	if err != nil {
		return o, fmt.Errorf("%s is published but not proposed: %w", o.Version, err)
	}
	r.trainer.told(k.name, done)
	o.Promoted = done.Now.Champion == version
	if o.Promoted {
		r.trainer.promoted.Add(1)
	}
	return o, nil
}

// starved says that a first model would wait for more labels only to be known as calibrated: the regression by itself tells, in a small part of
// the time that all members take. "" says nothing.
func starved(ctx context.Context, in FitInput, seqs []uint64, p rollout.Policy) string {
	if !in.Members {
		return ""
	}
	in.Members = false
	fit, err := Fit(ctx, in)
	if err != nil || fit.OneClass {
		return ""
	}
	j := judged{fit: &fit, data: in.Data, test: in.Test, seqs: seqs}
	e := j.evidence(p.Offline())
	for _, c := range e.Checks {
		if c.Verdict != rollout.Pass && (c.Name != "calibration" || c.Verdict == rollout.Fail) {
			return ""
		}
	}
	if e.Verdict() == rollout.Pass {
		return ""
	}
	return e.Sentence()
}

// refuse has it on record that what was fitted is not published, and why. Until there is a champion many are refused for want of labels: the same
// reason is told once.
func (r *term) refuse(ctx context.Context, k *kind, p rollout.Policy, by string, e rollout.Evidence) error {
	r.trainer.refused.Add(1)
	h := r.kinds[k]
	why := strings.Join(e.Failed(), ",")
	if h.refused == why && time.Since(h.refusedAt) < r.trainer.cfg.RetrainEvery {
		return nil
	}
	done, err := r.registry.Take(ctx, k.name, p, rollout.Proposal{By: by, Evidence: e})
	if err != nil {
		return fmt.Errorf("put on record that it was refused: %w", err)
	}
	h.refused, h.refusedAt = why, time.Now()
	r.trainer.told(k.name, done)
	return nil
}

// champion is nil where there is none, or none that can be compared with. An error means that it is not known.
func (r *term) champion(ctx context.Context, kind string, version int) (*model.Artifact, error) {
	if version == 0 {
		return nil, nil
	}
	a, err := r.registry.Get(ctx, kind, version)
	if errors.Is(err, model.ErrArtifact) || errors.Is(err, model.ErrNoVersion) || errors.Is(err, model.ErrUntrusted) {
		return nil, nil
	}
	return a, err
}

// awaits says that a version of the kind is still to be judged, or that there is no room for another: one that comes now would put the oldest
// out before anybody knows what it is worth.
func awaits(record model.Rollout, p rollout.Policy) bool {
	state := record.State()
	shadows := state.In(rollout.Shadow)
	return state.Canary() != 0 || len(shadows) >= p.Room() || slices.ContainsFunc(shadows, func(v int) bool { return !state.Of(v).Passed })
}

// dataset decodes the examples under the contract as it is now, and returns the sequence of each record. Those that
// do not keep it any more are left out.
func (m material) dataset() (*Dataset, []uint64, model.Training) {
	data := NewDataset(m.schema)
	t := model.Training{Stream: events.EventsStream(m.schema.Contract.Kind), Incarnation: m.incarnation.UTC(), LabelsSeq: m.labels, LabelCutoff: m.cutoff.UTC()}
	var seqs []uint64
	var rec events.Record
	remembers := fingerprint(m.schema)
	for _, e := range m.examples {
		if e.fingerprint != remembers || m.schema.Decode(e.encoding, e.body, &rec) != nil {
			continue
		}
		rec.SetMemory(e.memory)
		if rec.Time.IsZero() {
			rec.Time = e.stored
		}
		data.Append(&rec, e.bad)
		seqs = append(seqs, e.seq)
		if e.bad {
			t.Positives++
		}
		if e.silent {
			t.Silent++
		}
	}
	if t.Rows = len(seqs); t.Rows > 0 {
		t.FirstSeq, t.LastSeq = slices.Min(seqs), slices.Max(seqs)
		t.FirstTime, t.LastTime = data.Time(0), data.Time(t.Rows-1)
	}
	t.DataHash = data.Hash()
	return data, seqs, t
}
