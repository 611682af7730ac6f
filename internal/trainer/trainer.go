// Package trainer learns models from events and the labels that arrive for them later: the service that follows the
// streams, and the same on a file.
package trainer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/lease"
	"github.com/riskweir/riskweir/internal/model"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// LeaseKey in MODELS says which trainer leads. (Every key of SCORERS is a scorer, so it is not there.) Two leaders would
// cost work, never correctness: versions and rollouts are changed by compare-and-swap.
const LeaseKey = "trainer.leader"

// Config of a Trainer. Zero values are the defaults given.
type Config struct {
	Conn       *nats.Conn // neither closed nor drained here
	Logger     *zap.Logger
	Registerer prometheus.Registerer // nil: no metrics
	// Service gets the endpoint "train". nil: Run makes the micro service riskweir-trainer itself.
	Service  Endpoints
	Instance string // unique among trainers that run; required
	Name     string // as the operator started it, such as trainer-1
	Host     string

	MinLabels     int           // records with a label before the first model; 200
	MinClass      int           // of them of either label; 20
	RetrainLabels int           // new claims after which a model is trained again; 2000
	RetrainEvery  time.Duration // or, if there is any new claim, this long after the last attempt; 10 m

	// MaxRows is how many labelled records are held and trained on, the newest of them; 100,000. MaxPending is how many
	// events without a label are held, likewise: an event whose label comes after MaxPending others is not trained on;
	// 200,000. Each costs about 250 bytes and its body; so do, nearly, up to MaxPending labels that came before their event.
	MaxRows    int
	MaxPending int

	// Signer signs what is published; nil: nobody does. Trust says whose champion to compare with; nil: anybody's.
	Signer *model.Signer
	Trust  *model.Trust

	// ProbePrefix: events of entities whose id starts so are no training data. Empty: there are none.
	ProbePrefix string

	// Lease is how long the trainers that follow wait before one takes over from a leader that fell silent; 15 s. One that
	// stops hands over at once.
	Lease time.Duration

	Features feature.Options
	LR       lr.Options

	spoil  func(*FitResult) // set by tests only: does harm to what was fitted
	Single bool             // train one regression, without the other members of an ensemble
	// Snapshots is how often the member that learns online takes in what has become known, and is published if that has changed it; 2 s.
	Snapshots  time.Duration
	Scorecards string // directory of scorecards, <kind>.yaml: each a member of its kind's models; empty: there are none

	check time.Duration // how often the leader looks whether a model is due; 1 s
	tell  time.Duration // and whether there is anything to tell the log; 250 ms
}

func (c *Config) setDefaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&c.MinLabels, 200)
	def(&c.MinClass, 20)
	def(&c.RetrainLabels, 2000)
	def(&c.MaxRows, 100_000)
	def(&c.MaxPending, 200_000)
	if c.RetrainEvery == 0 {
		c.RetrainEvery = 10 * time.Minute
	}
	if c.Lease == 0 {
		c.Lease = 15 * time.Second
	}
	if c.Snapshots == 0 {
		c.Snapshots = 2 * time.Second
	}
	if c.check == 0 {
		c.check = time.Second
	}
	if c.tell == 0 {
		c.tell = 250 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
}

func (c *Config) validate() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("trainer: "+format, a...)) }
	if c.Conn == nil {
		bad("no connection")
	}
	if c.Instance == "" {
		bad("no instance: trainers with the same one would all lead")
	}
	if c.MinClass < 1 || c.MinLabels < 2*c.MinClass {
		bad("min labels %d, of either class %d: want at least 1 of each class, and no fewer than twice that in all", c.MinLabels, c.MinClass)
	}
	if c.MaxRows < c.MinLabels || c.MaxPending < 1 {
		bad("max rows %d, max pending %d: want at least %d (min labels) and 1", c.MaxRows, c.MaxPending, c.MinLabels)
	}
	if c.RetrainLabels < 1 || c.RetrainEvery < 0 || c.Lease < 100*time.Millisecond {
		bad("retrain after %d labels or %s, lease %s: want at least 1 label, and a lease of 100ms", c.RetrainLabels, c.RetrainEvery, c.Lease)
	}
	return errors.Join(errs...)
}

// Trainer follows EVENTS and LABELS of every declared kind. Of several that run one leads: it trains, publishes and promotes;
// the others keep what they have read ready.
//
//	KINDS ──► kind: EVENTS_<kind> ──► reader ─┐
//	                LABELS ─────────► reader ─┴► join ─┬► leader: due? ─► Fit ─► offline gate ─► MODELS: version ─► rollout
//	                                                   └► leader: online gates of what serves or is to ─────────────► rollout
//	                                                        ▲
//	                                   lease, endpoint "train"
type Trainer struct {
	cfg      Config
	log      *zap.Logger
	asks     chan ask
	leads    atomic.Bool
	ready    atomic.Bool  // MODELS has been opened
	models   atomic.Int64 // published
	promoted atomic.Int64 // of them
	refused  atomic.Int64 // fitted, but stopped by the gate

	mu    sync.Mutex
	kinds map[string]*kind
}

// New does no I/O.
func New(cfg Config) (*Trainer, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	t := &Trainer{cfg: cfg, log: cfg.Logger, asks: make(chan ask, 16), kinds: map[string]*kind{}}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{t}); err != nil {
			return nil, fmt.Errorf("trainer: register metrics: %w", err)
		}
	}
	return t, nil
}

// Run trains until ctx ends. Trouble with the broker is logged and waited out.
func (t *Trainer) Run(ctx context.Context) error {
	js, err := jetstream.New(t.cfg.Conn)
	if err != nil {
		return fmt.Errorf("trainer: %w", err)
	}
	stop, err := t.serve()
	if err != nil {
		return fmt.Errorf("trainer: %w", err)
	}
	if models, err := topology.AwaitBucket(ctx, js, events.ModelsBucket, t.trouble); err == nil { // else ctx ended
		t.run(ctx, js, models)
	}
	if err := stop(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("trainer: stop the micro service: %w", err)
	}
	return nil
}

func (t *Trainer) run(ctx context.Context, js jetstream.JetStream, models jetstream.KeyValue) {
	t.ready.Store(true)
	registry := model.NewRegistry(models).Keyed(t.cfg.Signer, t.cfg.Trust)
	self := lease.Holder{Instance: t.cfg.Instance, Name: t.cfg.Name, Host: t.cfg.Host}
	candidacy := lease.New[struct{}](models, LeaseKey, self, t.cfg.Lease)
	catalog := topology.NewCatalog(js, t.trouble)
	var running sync.WaitGroup
	running.Go(func() {
		lease.Elect(ctx, candidacy, func(ctx context.Context) { t.lead(ctx, js, registry) }, t.trouble)
	})
	running.Go(func() { t.followKinds(ctx, js, catalog, &running) })
	// It returns nil only, when ctx ends.
	running.Go(func() { _ = catalog.Run(ctx) })
	running.Wait()
}

// told logs what was decided.
func (t *Trainer) told(kind string, done model.Switched) {
	if !done.Changed {
		return
	}
	for _, d := range done.Now.Decisions {
		t.log.Info("rollout", zap.String("kind", kind), zap.Int("version", d.Version), zap.String("from", string(d.From)), zap.String("to", string(d.To)),
			zap.Float64("share", d.Share), zap.String("by", d.By), zap.String("reason", d.Reason), zap.String("evidence", d.Hash), zap.Uint64("revision", done.Revision))
	}
}

func (t *Trainer) trouble(err error) { t.log.Warn("trainer", zap.Error(err)) }

// Leads says whether this trainer leads now.
func (t *Trainer) Leads() bool { return t.leads.Load() }

// Ready says why the trainer can't do its work now.
func (t *Trainer) Ready() error {
	if !t.ready.Load() {
		return errors.New("bucket " + events.ModelsBucket + " has not been opened yet")
	}
	return nil
}

// lead is the work of one term.
func (t *Trainer) lead(ctx context.Context, js jetstream.JetStream, registry *model.Registry) {
	t.log.Info("leading", zap.String("instance", t.cfg.Instance))
	t.leads.Store(true)
	term := term{trainer: t, registry: registry, kinds: map[*kind]*history{}}
	var telling sync.WaitGroup
	telling.Go(func() { t.tell(ctx, js) })
	telling.Go(func() { t.guard(ctx, registry) })
	if !t.cfg.Single {
		telling.Go(func() { t.teach(ctx, js, registry) })
	}
	defer telling.Wait()
	tick := time.NewTicker(t.cfg.check)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case a := <-t.asks:
			a.answer(term.asked(ctx, a.kind))
		case <-tick.C:
			for _, k := range t.sortedKinds() {
				term.consider(ctx, k)
			}
		}
	}
	t.leads.Store(false)
	for {
		select {
		case a := <-t.asks:
			a.answer(Outcome{}, errors.New("the trainer that was asked does not lead any more: ask again"))
			continue
		default:
		}
		break
	}
	t.log.Info("leading no more", zap.String("instance", t.cfg.Instance))
}

func (t *Trainer) sortedKinds() []*kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*kind
	for _, name := range slices.Sorted(maps.Keys(t.kinds)) {
		list = append(list, t.kinds[name])
	}
	return list
}

func (t *Trainer) kind(name string) *kind {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.kinds[name]
}
