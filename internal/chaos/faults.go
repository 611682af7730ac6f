package chaos

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// fault breaks something.
type fault struct {
	Terms
	outage bool // nothing can be committed before it is mended: recovery counts from there
	needs  need
	// inject returns what it hit and how to mend that; no mend: nothing is left to be mended.
	inject func(ctx context.Context, e *env, choice uint64) (target string, mend func(context.Context) error, err error)
}

type need uint8

const (
	needRoutes need = 1 << iota
	needLinks
	needDisk
)

const (
	quiet     = 6 * time.Second
	longQuiet = 12 * time.Second // where an election may be needed
)

// catalogue lists all faults. Times that processes are frozen for are longer than every time-out in the system:
// the members' 2 s, a commit's 2 s, an API call's 3 s, a run's 1.5 s, pings' 3 s, leases' 10 s.
func catalogue() []fault {
	all := []fault{
		{Terms: Terms{"scorer-crash", 0, 0, quiet}, inject: crash(RoleScorer)},
		{Terms: Terms{"scorer-kill", 4 * time.Second, 8 * time.Second, quiet}, inject: down(one(RoleScorer), true)},
		{Terms: Terms{"scorer-stop", 2 * time.Second, 5 * time.Second, quiet}, inject: down(one(RoleScorer), false)},
		{Terms: Terms{"scorer-freeze", 6 * time.Second, 14 * time.Second, quiet}, inject: freeze(one(RoleScorer))},
		{Terms: Terms{"ingest-crash", 0, 0, quiet}, inject: crash(RoleIngest)},
		{Terms: Terms{"ingest-freeze", 6 * time.Second, 14 * time.Second, quiet}, inject: freeze(one(RoleIngest))},
		{Terms: Terms{"trainer-crash", 0, 0, quiet}, inject: crash(RoleTrainer)},
		{Terms: Terms{"trainer-freeze", 12 * time.Second, 16 * time.Second, quiet}, inject: freeze(one(RoleTrainer))},
		{Terms: Terms{"monitor-crash", 0, 0, quiet}, inject: crash(RoleMonitor)},
		{Terms: Terms{"monitor-freeze", 12 * time.Second, 16 * time.Second, quiet}, inject: freeze(one(RoleMonitor))},
		{Terms: Terms{"two-nodes-kill", 4 * time.Second, 8 * time.Second, longQuiet}, outage: true, inject: twoNodes},
		{Terms: Terms{"all-nodes-kill", time.Second, 4 * time.Second, longQuiet}, outage: true, inject: allNodes},
		{Terms: Terms{"route-cut", 5 * time.Second, 14 * time.Second, longQuiet}, needs: needRoutes, inject: route(func(p *Proxy) { p.Cut(true) })},
		{Terms: Terms{"route-silent", 5 * time.Second, 14 * time.Second, longQuiet}, needs: needRoutes, inject: route(func(p *Proxy) {
			p.Set(Up, Link{Hold: true})
			p.Set(Down, Link{Hold: true})
		})},
		{Terms: Terms{"route-one-way", 5 * time.Second, 14 * time.Second, longQuiet}, needs: needRoutes, inject: routeOneWay},
		{Terms: Terms{"route-slow", 5 * time.Second, 10 * time.Second, quiet}, needs: needRoutes, inject: route(func(p *Proxy) {
			p.Set(Up, Link{Delay: 20 * time.Millisecond})
			p.Set(Down, Link{Delay: 20 * time.Millisecond})
		})},
		{Terms: Terms{"link-cut", 4 * time.Second, 8 * time.Second, quiet}, needs: needLinks, inject: link(func(p *Proxy) { p.Cut(true) })},
		{Terms: Terms{"link-reset", 0, 0, quiet}, needs: needLinks, inject: link(func(p *Proxy) { p.Reset() })},
		{Terms: Terms{"link-up-silent", 4 * time.Second, 8 * time.Second, quiet}, needs: needLinks, inject: link(func(p *Proxy) { p.Set(Up, Link{Hold: true}) })},
		{Terms: Terms{"link-down-silent", 4 * time.Second, 8 * time.Second, quiet}, needs: needLinks, inject: link(func(p *Proxy) { p.Set(Down, Link{Hold: true}) })},
		{Terms: Terms{"link-slow", 4 * time.Second, 8 * time.Second, quiet}, needs: needLinks, inject: link(func(p *Proxy) {
			p.Set(Up, Link{Delay: 50 * time.Millisecond})
			p.Set(Down, Link{Delay: 50 * time.Millisecond})
		})},
		{Terms: Terms{"link-halves", 3 * time.Second, 6 * time.Second, quiet}, needs: needLinks, inject: link(func(p *Proxy) {
			p.Set(Up, Link{HalveEvery: 37})
			p.Set(Down, Link{HalveEvery: 41})
		})},
		{Terms: Terms{"clock-skew", 8 * time.Second, 12 * time.Second, quiet}, inject: skew},
		{Terms: Terms{"rolling-restart", 0, 0, longQuiet}, inject: rolling},
		{Terms: Terms{"topology-apply", 0, 0, quiet}, inject: apply},
		{Terms: Terms{"rebalance", 5 * time.Second, 8 * time.Second, quiet}, inject: rebalance},
		{Terms: Terms{"consumers-delete", 0, 0, quiet}, inject: deleteConsumers},
		{Terms: Terms{"disk-full", 6 * time.Second, 10 * time.Second, longQuiet}, needs: needDisk, inject: onOwnDisk(one(RoleNode), fillDisk)},
		{Terms: Terms{"disk-slow", 6 * time.Second, 10 * time.Second, longQuiet}, needs: needDisk, inject: onOwnDisk(leads(events.ScoresStream), slowDisk)},
		{Terms: Terms{"node-stutter", 6 * time.Second, 10 * time.Second, longQuiet}, inject: stutter},
		{Terms: Terms{"store-full", 6 * time.Second, 10 * time.Second, longQuiet}, outage: true, inject: storeFull},
	}
	all = append(all, poisons()...)
	for _, t := range []struct {
		name   string
		choose chooser
	}{
		{"node", one(RoleNode)},
		{"events-leader", leads(events.EventsStream)},
		{"scores-leader", leads(events.ScoresStream)},
		{"consumer-leader", consumerLeader},
		{"meta-leader", metaLeader},
	} {
		all = append(all,
			fault{Terms: Terms{t.name + "-kill", 4 * time.Second, 10 * time.Second, longQuiet}, inject: down(t.choose, true)},
			fault{Terms: Terms{t.name + "-stop", 2 * time.Second, 6 * time.Second, longQuiet}, inject: down(t.choose, false)},
			fault{Terms: Terms{t.name + "-freeze", 6 * time.Second, 14 * time.Second, longQuiet}, inject: freeze(t.choose)},
		)
	}
	return all
}

// Catalogue is the terms of all faults.
func Catalogue() []Terms {
	var out []Terms
	for _, f := range catalogue() {
		out = append(out, f.Terms)
	}
	return out
}

// NeedsCables says whether any of the faults works upon proxies: of routes, of a scorer's links.
func NeedsCables(faults []Terms) (routes, links bool) {
	for _, f := range catalogue() {
		for _, t := range faults {
			if t.Name == f.Name {
				routes = routes || f.needs&needRoutes != 0
				links = links || f.needs&needLinks != 0
			}
		}
	}
	return routes, links
}

type (
	chooser  func(ctx context.Context, e *env, choice uint64) (string, error)
	injector = func(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error)
)

func one(role string) chooser {
	return func(_ context.Context, e *env, choice uint64) (string, error) { return pick(choice, e.names(role)) }
}

func leads(stream func(kind string) string) chooser {
	return func(ctx context.Context, e *env, _ uint64) (string, error) {
		return e.streamLeader(ctx, stream(e.kind))
	}
}

func consumerLeader(ctx context.Context, e *env, choice uint64) (string, error) {
	_, nodes, err := e.laneConsumers(ctx, events.EventsStream(e.kind))
	if err != nil {
		return "", err
	}
	return pick(choice, nodes)
}

func metaLeader(ctx context.Context, e *env, _ uint64) (leader string, err error) {
	err = until(ctx, patience, func(ctx context.Context) error {
		leader, err = e.MetaLeader(ctx)
		return err
	})
	return leader, err
}

// crash kills a process that its supervisor starts again at once.
func crash(role string) injector {
	return func(_ context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		name, err := pick(choice, e.names(role))
		if err != nil {
			return "", nil, err
		}
		return name, nil, e.Signal(name, syscall.SIGKILL)
	}
}

// down ends a process, which stays down until it is mended.
func down(choose chooser, hard bool) injector {
	return func(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		name, err := choose(ctx, e, choice)
		if err != nil {
			return "", nil, err
		}
		if hard {
			e.Kill(name)
		} else {
			e.Stop(name)
		}
		return name, func(ctx context.Context) error { return e.Start(ctx, name) }, nil
	}
}

// freeze stops a process by SIGSTOP; it must go on as the same process when it wakes.
func freeze(choose chooser) injector {
	return func(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		name, err := choose(ctx, e, choice)
		if err != nil {
			return "", nil, err
		}
		pid := e.pid(name)
		mend := func(ctx context.Context) error {
			if err := e.Signal(name, syscall.SIGCONT); err != nil {
				return err
			}
			pause(ctx, time.Second)
			if now := e.pid(name); now != pid {
				return fmt.Errorf("%s woke up and ended: process %d is %d now", name, pid, now)
			}
			return nil
		}
		return name, mend, e.Signal(name, syscall.SIGSTOP)
	}
}

func startAll(e *env, names []string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, n := range names {
			if err := e.Start(ctx, n); err != nil {
				return err
			}
		}
		return nil
	}
}

func twoNodes(_ context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
	nodes := e.names(RoleNode)
	if len(nodes) != 3 {
		return "", nil, fmt.Errorf("two of %d nodes: want 3", len(nodes))
	}
	i := int(choice % 3)
	two := []string{nodes[i], nodes[(i+1)%3]}
	e.Kill(two...)
	return two[0] + "," + two[1], startAll(e, two), nil
}

func allNodes(_ context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	nodes := e.names(RoleNode)
	e.Kill(nodes...)
	return "all", startAll(e, nodes), nil
}

// pair chooses two nodes.
func pair(e *env, choice uint64) (key [2]string, err error) {
	nodes := e.names(RoleNode)
	if len(nodes) != 3 {
		return key, fmt.Errorf("a route among %d nodes: want 3", len(nodes))
	}
	i := int(choice % 3)
	a, b := nodes[i], nodes[(i+1)%3]
	return [2]string{min(a, b), max(a, b)}, nil
}

func mendAll(proxies []*Proxy) func(context.Context) error {
	return func(context.Context) error {
		for _, p := range proxies {
			p.Cut(false)
		}
		return nil
	}
}

// route breaks the connections between two nodes.
func route(how func(*Proxy)) injector {
	return func(_ context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		key, err := pair(e, choice)
		if err != nil {
			return "", nil, err
		}
		proxies := e.cables.Routes[key]
		for _, p := range proxies {
			how(p)
		}
		return key[0] + "-" + key[1], mendAll(proxies), nil
	}
}

// routeOneWay holds what one of two nodes says to the other. Who has dialled which connection is not known, but the first
// proxy of a pair is dialled by the lesser.
func routeOneWay(_ context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
	key, err := pair(e, choice)
	if err != nil {
		return "", nil, err
	}
	proxies := e.cables.Routes[key]
	from, to := key[0], key[1]
	d := Up
	if choice&(1<<40) != 0 {
		from, to, d = to, from, Down
	}
	for i, p := range proxies {
		if i == 0 {
			p.Set(d, Link{Hold: true})
		} else {
			p.Set(1-d, Link{Hold: true})
		}
	}
	return from + ">" + to, mendAll(proxies), nil
}

// link breaks the connections of a scorer to the cluster.
func link(how func(*Proxy)) injector {
	return func(_ context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
		for _, p := range e.cables.Links {
			how(p)
		}
		return e.cables.Scorer, mendAll(e.cables.Links), nil
	}
}

// skew starts a scorer anew with a clock that is wrong by minutes or days, either way.
func skew(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
	name, err := pick(choice, e.names(RoleScorer))
	if err != nil {
		return "", nil, err
	}
	by := []time.Duration{7 * time.Minute, -7 * time.Minute, 50 * time.Hour, -50 * time.Hour}[choice>>32%4]
	e.Stop(name)
	mend := func(ctx context.Context) error {
		e.Stop(name)
		return e.Start(ctx, name)
	}
	return fmt.Sprintf("%s %+v", name, by), mend, e.Start(ctx, name, "--clock-skew="+by.String())
}

// rolling stops and starts everything, one after the other, each node only when the one before has caught up.
func rolling(ctx context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	children := e.Children()
	for _, nodes := range []bool{true, false} {
		for _, c := range children {
			if (c.Role == RoleNode) != nodes {
				continue
			}
			e.Stop(c.Name)
			if err := e.Start(ctx, c.Name); err != nil {
				return "", nil, err
			}
			if err := until(ctx, recovery, e.Healthy); err != nil {
				return "", nil, fmt.Errorf("after the restart of %s: %w", c.Name, err)
			}
		}
	}
	return "all", nil, nil
}

func apply(ctx context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	return e.kind, nil, e.Apply(ctx)
}

// rebalance brings one more scorer in, and takes it out again.
func rebalance(ctx context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	name, err := e.AddScorer(ctx)
	return name, func(context.Context) error { e.Stop(name); return nil }, err
}

// deleteConsumers removes what lanes read by, as an operator who tidies up might.
func deleteConsumers(ctx context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	stream := events.EventsStream(e.kind)
	names, _, err := e.laneConsumers(ctx, stream)
	if err != nil {
		return "", nil, err
	}
	for _, n := range names {
		err := until(ctx, patience, func(ctx context.Context) error {
			err := e.js.DeleteConsumer(ctx, stream, n)
			if errors.Is(err, jetstream.ErrConsumerNotFound) { // its lane has begun another run
				return nil
			}
			return err
		})
		if err != nil {
			return "", nil, fmt.Errorf("delete consumer %s: %w", n, err)
		}
	}
	return fmt.Sprintf("%d consumers", len(names)), nil, nil
}

// storeFull lets the streams grow by a little only: the broker refuses whatever comes then. What streams have reserved
// counts as used when a node starts, so that is given back for the time.
func storeFull(ctx context.Context, e *env, _ uint64) (string, func(context.Context) error, error) {
	restart := func(ctx context.Context, limit int64) error {
		if err := e.Limit(limit); err != nil {
			return err
		}
		var last error
		for _, n := range e.names(RoleNode) {
			e.Stop(n)
			if err := e.Start(ctx, n); err != nil {
				return err
			}
			// With the limit of before, the others may be none too well.
			last = until(ctx, recovery/4, e.Healthy)
		}
		if last != nil {
			return fmt.Errorf("after the restart of all nodes: %w", last)
		}
		return nil
	}
	for _, name := range []string{events.AdvisoriesStream, events.AlertsStream} {
		err := until(ctx, patience, func(ctx context.Context) error {
			s, err := e.js.Stream(ctx, name)
			if err != nil {
				return err
			}
			c := s.CachedInfo().Config
			c.MaxBytes = 4 << 20
			_, err = e.js.UpdateStream(ctx, c)
			return err
		})
		if err != nil {
			return "", nil, fmt.Errorf("shrink %s: %w", name, err)
		}
	}
	var used int64
	err := until(ctx, patience, func(ctx context.Context) error {
		info, err := e.js.AccountInfo(ctx)
		if err == nil {
			used = int64(info.Store)
		}
		return err
	})
	if err != nil {
		return "", nil, fmt.Errorf("ask what is used: %w", err)
	}
	limit := (used + 4<<20) / int64(len(e.names(RoleNode)))
	mend := func(ctx context.Context) error {
		if err := restart(ctx, 0); err != nil {
			return err
		}
		return e.Apply(ctx)
	}
	return fmt.Sprintf("%d MiB a node", limit>>20), mend, restart(ctx, limit)
}
