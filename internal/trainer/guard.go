package trainer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The leading trainer holds each shadow and canary against the champion, and a new champion against the one before, and puts what the gates say to
// the policy of the kind. Scores are pure functions, so that it computes both sides of each pair itself, of the events as it reads them; what only
// scorers know, errors and lateness, stands in their positions. A gate is a fold over the log since the version came into its stage: whoever
// leads next makes the same of it, as far back as it holds events. Only of errors and lateness it finds the sums, and not their order.

// gateKey is one version in one stage, and what it is held against. Anything else is another gate, which begins anew.
type gateKey struct {
	version, against int
	stage            rollout.Stage
	share            float64
	since            int64 // Unix ms
}

// duel is one gate with what it is fed with.
type duel struct {
	key     gateKey
	since   time.Time
	online  *rollout.Online
	schema  *events.Schema
	p, q    *model.Predictor
	of      time.Time // creation time of the EVENTS stream that seen counts in
	seen    uint64    // EVENTS up to here has been taken
	pending []pair    // in the order of the log: their labels are not mature
	counted events.Beside
}

// pair is one event by both versions.
type pair struct {
	seq    uint64
	stored time.Time
	p, q   float64
}

const (
	rowsAtOnce   = 20_000  // of a duel, at one look
	mostPending  = 200_000 // of a duel; beyond, the oldest are let go
	countsAtOnce = 1_000_000
)

// guards belong to the goroutine of guard.
type guards struct {
	trainer  *Trainer
	registry *model.Registry
	duels    map[*kind]map[gateKey]*duel
	incident map[*kind]string // trouble that was told
}

// guard looks at what serves or is to, while this trainer leads.
func (t *Trainer) guard(ctx context.Context, registry *model.Registry) {
	g := guards{trainer: t, registry: registry, duels: map[*kind]map[gateKey]*duel{}, incident: map[*kind]string{}}
	tick := time.NewTicker(t.cfg.check)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, k := range t.sortedKinds() {
			err := g.look(ctx, k)
			said := ""
			if err != nil {
				said = err.Error()
			}
			if ctx.Err() == nil && err != nil && said != g.incident[k] {
				t.trouble(fmt.Errorf("hold the versions of %s against each other: %w", k.name, err))
			}
			g.incident[k] = said
		}
	}
}

// look feeds the gates of a kind and lets the policy decide.
func (g *guards) look(ctx context.Context, k *kind) error {
	k.mu.Lock()
	schema, join, ready, incarnation := k.schema, k.join, k.eventsRead && k.labelsRead, k.incarnation
	k.mu.Unlock()
	if !ready {
		return nil
	}
	record, _, err := g.registry.Rollout(ctx, k.name)
	if err != nil || record.Champion == 0 {
		return err
	}
	policy := model.PolicyOf(&schema.Contract)
	duels, unready := g.prepare(ctx, k, schema, join, incarnation, &record, policy)
	if len(duels) > 0 {
		if err := g.count(ctx, k, &schema.Contract, duels); err != nil {
			return err
		}
	}
	state := record.State()
	put := func(in rollout.Input) error {
		next, decisions, err := policy.Step(state, in, time.Now())
		if err != nil || len(decisions) == 0 && !news(state, next) {
			return err
		}
		done, err := g.registry.Take(ctx, k.name, policy, in)
		if err != nil {
			return err
		}
		g.trainer.told(k.name, done)
		if done.Changed && done.Now.Champion != done.Before.Champion {
			g.trainer.promoted.Add(1)
		}
		state = done.Now.State()
		return nil
	}
	for _, t := range duels {
		if err := put(t.online.Observe()); err != nil {
			return err
		}
	}
	return errors.Join(unready, put(rollout.Tick{}))
}

// news says that a gate's verdict has changed.
func news(a, b rollout.State) bool {
	return !slices.EqualFunc(a.Lives, b.Lives, func(x, y rollout.Life) bool { return x.Version == y.Version && x.Passed == y.Passed })
}

// prepare returns the duels that the record asks for, the canary's first, fed with what has been read. The error is of those that cannot be held.
func (g *guards) prepare(ctx context.Context, k *kind, schema *events.Schema, join *join, incarnation time.Time, record *model.Rollout, policy rollout.Policy) ([]*duel, error) {
	had := g.duels[k]
	has := map[gateKey]*duel{}
	var list []*duel
	var errs []error
	for _, key := range wanted(record, time.Duration(watchOf(&schema.Contract))) {
		t := had[key.gateKey]
		if t == nil || t.schema != schema || !t.of.Equal(incarnation) {
			var err error
			if t, err = g.begin(ctx, k.name, schema, key, policy); err != nil {
				errs = append(errs, err)
				continue
			}
			t.of = incarnation
		}
		has[key.gateKey] = t
		k.feed(join, t, fingerprint(schema))
		list = append(list, t)
	}
	g.duels[k] = has
	return list, errors.Join(errs...)
}

func watchOf(c *events.Contract) events.Duration {
	if c.Rollout == nil {
		return events.Rollout{}.WithDefaults().Watch
	}
	return c.Rollout.WithDefaults().Watch
}

// asked is a key with the exact time.
type asked struct {
	gateKey
	since time.Time
}

// wanted are the gates that a record asks for.
func wanted(record *model.Rollout, watch time.Duration) []asked {
	state := record.State()
	var list []asked
	add := func(version, against int) {
		l := state.Of(version)
		list = append(list, asked{gateKey{version, against, l.Stage, l.Share, l.Since.UnixMilli()}, l.Since})
	}
	champion := state.Champion()
	if c := state.Canary(); c != 0 {
		add(c, champion)
	}
	if state.Previous != 0 && time.Since(state.Of(champion).Since) < watch {
		add(champion, state.Previous)
	}
	for _, v := range state.In(rollout.Shadow) {
		add(v, champion)
	}
	return list
}

// begin a duel. The share of bad events is that of the version's training records, so that every leader takes the same.
func (g *guards) begin(ctx context.Context, kind string, schema *events.Schema, key asked, policy rollout.Policy) (*duel, error) {
	t := &duel{key: key.gateKey, since: key.since, schema: schema}
	rate := 0.01
	for _, x := range []struct {
		version int
		of      **model.Predictor
	}{{key.version, &t.p}, {key.against, &t.q}} {
		a, err := g.registry.Get(ctx, kind, x.version)
		if err != nil {
			return nil, err
		}
		if *x.of, err = model.Compile(a, schema); err == nil && (*x.of).WantsSnapshot() { // as in judged.pair
			*x.of, err = (*x.of).Without(model.KindOnline)
		}
		if err != nil {
			return nil, err
		}
		if tr := a.Training; x.version == key.version && tr.Rows > 0 {
			rate = min(max(float64(tr.Positives)/float64(tr.Rows), 0.0005), 0.5)
		}
	}
	o := policy.Online(key.stage, rate)
	o.Counted = true
	t.online = rollout.NewOnline(o, key.version, key.against, key.stage, key.share)
	return t, nil
}

// feed a duel with events, and with labels that have become mature.
func (k *kind) feed(join *join, t *duel, remembers string) {
	k.mu.Lock()
	if k.join != join { // all is read again: the duel goes on behind what it has seen
		k.mu.Unlock()
		return
	}
	rows := join.rows
	from := sort.Search(len(rows), func(i int) bool { return rows[i].seq > t.seen && rows[i].stored.After(t.since) })
	rows = slices.Clone(rows[from:min(len(rows), from+rowsAtOnce)])
	k.mu.Unlock()

	var rec events.Record
	var scratch model.Scratch
	contract := &t.schema.Contract
	for _, r := range rows {
		t.seen = r.seq
		if r.fingerprint != remembers || t.schema.Decode(r.encoding, r.body, &rec) != nil {
			continue
		}
		rec.SetMemory(r.memory)
		if rec.Time.IsZero() {
			rec.Time = r.stored
		}
		x := pair{seq: r.seq, stored: r.stored, p: scoreOf(t.p, &rec, &scratch), q: scoreOf(t.q, &rec, &scratch)}
		flagged := func(p float64) bool {
			return contract.Decide(events.ModeModel, contract.Band(p)) != events.Approve
		}
		t.online.Seen(rollout.Scored{Seq: r.seq, P: x.p, Q: x.q, Flagged: [2]bool{flagged(x.p), flagged(x.q)}})
		t.pending = append(t.pending, x)
	}
	if over := len(t.pending) - mostPending; over > 0 {
		t.pending = slices.Delete(t.pending, 0, over)
	}
	for _, m := range k.matured(join, t) {
		t.online.Mature(m.p, m.q, m.bad)
	}
}

// scoreOf is -1, which is no probability, where the version panics.
func scoreOf(p *model.Predictor, rec *events.Record, scratch *model.Scratch) (score float64) {
	defer func() {
		if recover() != nil {
			score = -1
		}
	}()
	return p.Score(rec, scratch).P
}

// mature is a pair with its label.
type mature struct {
	pair
	bad   bool
	claim uint64 // in LABELS
}

// matured takes of what is pending what has its label: in the order of the log where silence means something, for what is bad would be known before
// what is good; else in the order of the labels, since most may never come.
func (k *kind) matured(join *join, t *duel) []mature {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.join != join {
		return nil
	}
	maturity, cutoff := time.Duration(t.schema.Contract.Maturity), k.cutoff()
	var list []mature
	take := func(x pair) (done bool) {
		r := join.bySeq(x.seq)
		if r == nil {
			return true // let go
		}
		v, _ := r.verdictAt(cutoff, maturity)
		if v == good || v == bad {
			list = append(list, mature{x, v == bad, r.claim.seq})
		}
		return v != unclaimed
	}
	if maturity > 0 {
		n := 0
		for n < len(t.pending) && !t.pending[n].stored.After(cutoff.Add(-maturity)) {
			take(t.pending[n])
			n++
		}
		t.pending = slices.Delete(t.pending, 0, n)
		return list
	}
	t.pending = slices.DeleteFunc(t.pending, take)
	slices.SortStableFunc(list, func(a, b mature) int { return int(int64(a.claim) - int64(b.claim)) })
	return list
}

// count tells the gates what scorers have counted since.
func (g *guards) count(ctx context.Context, k *kind, c *events.Contract, duels []*duel) error {
	sums := map[gateKey]events.Beside{}
	for _, lane := range events.LaneNumbers(c.Lanes) {
		p, found, err := topology.GlimpsePosition(ctx, g.trainer.cfg.Conn, k.name, lane)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		for _, t := range duels {
			x, sum := p.Beside.Of(t.key.version, t.key.since), sums[t.key]
			sum.N, sum.Failed, sum.Late = sum.N+x.N, sum.Failed+x.Failed, sum.Late+x.Late
			sums[t.key] = sum
		}
	}
	for _, t := range duels {
		sum, was := sums[t.key], t.counted
		if sum.N < was.N || sum.Failed < was.Failed || sum.Late < was.Late {
			continue // a lane's counts began anew
		}
		n := min(sum.N-was.N, countsAtOnce)
		t.online.Counted(n, min(n, sum.Failed-was.Failed), min(n, sum.Late-was.Late))
		t.counted = sum
	}
	return nil
}

// rollout is the policy of the kind.
func (k *kind) rollout() rollout.Policy {
	k.mu.Lock()
	defer k.mu.Unlock()
	return model.PolicyOf(&k.schema.Contract)
}
