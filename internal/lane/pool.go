package lane

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Kind is one pipeline whose lanes are competed for.
type Kind struct {
	Name    string
	Lanes   int
	Refresh time.Duration // a quarter of the shorter retention
}

// Config of a Pool.
type Config struct {
	Conn     *nats.Conn
	JS       natsjs.JetStream
	Self     Member
	Limits   Limits // Refresh is taken from the kind
	Stage    func(k Kind, lane int) Stage
	Observer Observer
	Kinds    <-chan []Kind // every value replaces the one before

	Committer   func(kind string) Committer // a topology.Committer with a time-out of 2 s if nil
	APITimeout  time.Duration               // 3 s if zero
	StopTimeout time.Duration               // for lanes to be given up in order; 2 s if zero
	Now         func() time.Time            // time.Now if nil: a clock that is wrong costs time, never correctness
}

const (
	commitTimeout = 2 * time.Second
	horizonEvery  = 5 * time.Second
)

type laneKey struct {
	kind string
	lane int
}

type owned struct {
	control chan<- Input
	cancel  context.CancelFunc
	leaving bool
}

// Pool competes for lanes with the other members and runs those that it owns.
//
//	SCORERS ◄──announce──┐                    ┌─► runner payment/0 ──► commit
//	        ──members──► view ──► Assign ──► own ─► runner payment/3 ──► commit
//	KINDS ───────────────────────────┘        └─► ...
//
// Its loop owns every field below Config.
type Pool struct {
	Config

	kinds   []Kind
	members []string
	company company
	own     map[laneKey]*owned
	ended   chan laneKey
	views   chan []string
	wg      sync.WaitGroup
}

// NewPool does no I/O.
func NewPool(c Config) *Pool {
	if c.Committer == nil {
		c.Committer = func(kind string) Committer {
			return &topology.Committer{Conn: c.Conn, Stream: events.ScoresStream(kind), Timeout: commitTimeout}
		}
	}
	c.APITimeout = orDefault(c.APITimeout, 3*time.Second)
	c.StopTimeout = orDefault(c.StopTimeout, 2*time.Second)
	return &Pool{Config: c, own: map[laneKey]*owned{}, ended: make(chan laneKey), views: make(chan []string, 1), company: newCompany()}
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}

// Run returns when ctx has ended and every lane has been given up: in order, so that the others take
// over at once, or after StopTimeout where it stands.
func (p *Pool) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	members := &membership{
		conn: p.Conn, js: p.JS, self: p.Self, view: NewView(p.Self.Instance, MemberTTL),
		changed: p.viewed,
		note:    func(what string) { p.note("members", -1, what) },
	}
	announced := make(chan error, 1)
	go func() { announced <- members.run(ctx) }()
	lost := p.Conn.StatusChanged(nats.DISCONNECTED, nats.RECONNECTING)
	defer p.Conn.RemoveStatusListener(lost)
	horizon := time.NewTicker(horizonEvery)
	defer horizon.Stop()

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case p.kinds = <-p.Kinds:
			p.level(work)
		case p.members = <-p.views:
			p.level(work)
		case key := <-p.ended:
			delete(p.own, key)
			p.level(work)
		case <-lost:
			p.tell(RunEnded{Cause: "connection lost"})
		case <-horizon.C:
			p.look(work)
		}
	}
	return p.stop(work, stopWork, members, announced)
}

func (p *Pool) viewed(members []string) {
	select {
	case <-p.views: // a view that nobody has looked at yet is out of date
	default:
	}
	p.views <- members
}

func (p *Pool) note(kind string, lane int, what string) {
	if p.Observer.Note != nil {
		p.Observer.Note(kind, lane, what)
	}
}

// level starts the lanes that the view gives us and asks for those back that it takes away.
func (p *Pool) level(work context.Context) {
	if len(p.members) == 0 {
		return // no view yet
	}
	want := map[laneKey]Kind{}
	for _, k := range p.kinds {
		owners := Assign(k.Name, k.Lanes, p.members)
		for i, lane := range events.LaneNumbers(k.Lanes) {
			// The stray lane, which is all but always idle, has no part in the balance: it goes with lane 0.
			if owners[i%k.Lanes] == p.Self.Instance {
				want[laneKey{k.Name, lane}] = k
			}
		}
	}
	for key, o := range p.own {
		if _, ok := want[key]; !ok && !o.leaving {
			o.leaving = send(o.control, Release{})
		} else if ok && o.leaving {
			o.leaving = !send(o.control, Own{})
		}
	}
	for key, k := range want {
		if p.own[key] == nil {
			p.start(work, key, k)
		}
	}
}

// send never blocks: a lane that has no room for it is asked again at the next view.
func send(c chan<- Input, in Input) bool {
	select {
	case c <- in:
		return true
	default:
		return false
	}
}

func (p *Pool) start(work context.Context, key laneKey, k Kind) {
	ctx, cancel := context.WithCancel(work)
	limits := p.Limits
	limits.Refresh = k.Refresh
	r := newRunner(RunnerConfig{
		Conn: p.Conn, JS: p.JS, Kind: key.kind, Lane: key.lane, Instance: p.Self.Instance, Limits: limits,
		Stage: p.Stage(k, key.lane), Observer: p.Observer, Committer: p.Committer(key.kind), Company: p.company, APITimeout: p.APITimeout, Now: p.Now,
	})
	p.own[key] = &owned{control: r.control, cancel: cancel}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer cancel()
		r.loop(ctx)
		select {
		case p.ended <- key:
		case <-work.Done():
		}
	}()
}

func (p *Pool) tell(in Input) {
	for _, o := range p.own {
		send(o.control, in)
	}
}

// look tells every lane where EVENTS begins and ends now, so that none passes over events that have expired or reads on in
// a stream that was put back.
func (p *Pool) look(work context.Context) {
	for _, k := range p.kinds {
		p.wg.Add(1)
		lanes := make([]chan<- Input, 0, k.Lanes+1)
		for key, o := range p.own {
			if key.kind == k.Name {
				lanes = append(lanes, o.control)
			}
		}
		go func() {
			defer p.wg.Done()
			s, err := inspectStream(work, p.Conn, k.Name, p.APITimeout)
			if err != nil {
				return // the lanes meet the same broker and say what is wrong with it
			}
			for _, c := range lanes {
				send(c, Horizon{Incarnation: s.Created, First: s.State.First, Last: s.State.Last})
			}
		}()
	}
}

func (p *Pool) stop(work context.Context, stopWork context.CancelFunc, members *membership, announced <-chan error) error {
	deadline, cancel := context.WithTimeout(work, p.StopTimeout)
	defer cancel()
	err := <-announced
	p.tell(Release{})
	if e := members.leave(deadline); e != nil {
		p.note("members", -1, "leave: "+e.Error())
	}
	for len(p.own) > 0 && deadline.Err() == nil {
		select {
		case key := <-p.ended:
			delete(p.own, key)
		case <-deadline.Done():
		}
	}
	left := len(p.own)
	stopWork()
	p.wg.Wait()
	if left > 0 {
		p.note("pool", -1, fmt.Sprintf("%d lanes were not given up in %s; their next owners claim them", left, p.StopTimeout))
	}
	return err
}
