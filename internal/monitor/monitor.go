// Package monitor says how far every lane is behind, for how long, and why: snapshot -> rules (pure) -> alerts.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/lease"
	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// LeaseKey in MODELS says which monitor leads, that is, publishes alerts. The record carries what is firing, so that the
// next leader goes on with the same incidents.
const LeaseKey = "monitor.leader"

// Service is the monitor's name among the heartbeats.
const Service = "monitor"

// Endpoints is the part of a micro.Service that the monitor needs.
type Endpoints interface {
	AddEndpoint(name string, handler micro.Handler, opts ...micro.EndpointOpt) error
}

// Config of a Monitor.
type Config struct {
	Conn     *nats.Conn
	Log      *zap.Logger
	Metrics  prometheus.Registerer
	Instance string        // unique to this process
	Name     string        // as the operator started it
	Service  Endpoints     // gets the endpoint "status"; nil: Run answers on StatusSubject itself
	Every    time.Duration // between samples; 1 s if zero
	Term     time.Duration // of the lease; 5 s if zero
	Limits   Limits        // DefaultLimits if Of is zero
}

const (
	scorerService = "scorer"
	outboxMax     = 1000 // alerts that could not be published yet
)

// Monitor looks at everything once a second. Of several, one leads and publishes alerts; the others look as well, so
// that they are ready, and answer for their Status.
type Monitor struct {
	cfg     Config
	started time.Time
	status  atomic.Pointer[Status]

	// Owned by Run.
	rules   *rules
	beats   *beats
	lease   *lease.Lease[[]events.Alert] // nil: MODELS has not been opened yet
	members []string
	outbox  []events.Alert          // to be published, as leader
	told    map[string]events.Alert // published as firing and not as resolved, by incident
	led     bool
	failing map[string]string // by step, what it failed with last: said once
}

// New does no I/O.
func New(cfg Config) (*Monitor, error) {
	if cfg.Conn == nil || cfg.Log == nil || cfg.Metrics == nil || cfg.Instance == "" {
		return nil, errors.New("monitor: connection, logger, metrics and instance are needed")
	}
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Term == 0 {
		cfg.Term = 5 * time.Second
	}
	if cfg.Limits.Of == 0 {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Limits.Of > 64 || cfg.Limits.Open > cfg.Limits.Of || cfg.Limits.Open < 1 || cfg.Limits.Close < 1 {
		return nil, fmt.Errorf("monitor: open %d of %d, close %d: want 1 <= open <= of <= 64, and close >= 1", cfg.Limits.Open, cfg.Limits.Of, cfg.Limits.Close)
	}
	m := &Monitor{cfg: cfg, rules: newRules(cfg.Limits), beats: newBeats(), told: map[string]events.Alert{}, failing: map[string]string{}}
	if err := cfg.Metrics.Register(collector{m.Status}); err != nil {
		return nil, fmt.Errorf("monitor: metrics: %w", err)
	}
	return m, nil
}

// Status as of the latest look; ok is false before the first.
func (m *Monitor) Status() (Status, bool) {
	s := m.status.Load()
	if s == nil {
		return Status{}, false
	}
	return *s, true
}

// Ready says why the monitor knows nothing, if so.
func (m *Monitor) Ready() error {
	s, ok := m.Status()
	if !ok {
		return errors.New("nothing was seen yet")
	}
	if age := time.Since(s.At); age > 10*m.cfg.Every {
		return fmt.Errorf("the last look was %s ago", age.Round(time.Second))
	}
	return nil
}

// Run watches until ctx ends.
//
//	KINDS ──► catalog ─┐
//	streams, SCORERS ──┼─► sample ─► rules ─► alerts ─► (leader only) ALERTS
//	heartbeats.> ──────┘               └────► status ─► endpoint, metrics
func (m *Monitor) Run(ctx context.Context) error {
	m.started = time.Now()
	js, err := natsjs.New(m.cfg.Conn)
	if err != nil {
		return fmt.Errorf("monitor: jetstream: %w", err)
	}
	heard := make(chan *nats.Msg, 1024)
	sub, err := m.cfg.Conn.ChanSubscribe("heartbeats.>", heard)
	if err != nil {
		return fmt.Errorf("monitor: listen to heartbeats: %w", err)
	}
	stop, err := m.serve()
	if err != nil {
		return errors.Join(fmt.Errorf("monitor: endpoint: %w", err), sub.Unsubscribe())
	}
	catalog := topology.NewCatalog(js, nil) // what it cannot read shows in its kind
	g, _ := service.NewGroup(ctx)
	g.Go(catalog.Run)
	models := make(chan natsjs.KeyValue, 1)
	g.Go(func(ctx context.Context) error {
		kv, err := topology.AwaitBucket(ctx, js, events.ModelsBucket, func(err error) { m.cfg.Log.Warn("monitor: nobody can lead", zap.Error(err)) })
		if err == nil { // else ctx ended
			models <- kv
		}
		return nil
	})
	g.Go(func(ctx context.Context) error { m.loop(ctx, js, catalog, heard, models); return nil })
	g.Go(func(ctx context.Context) error {
		return service.Beat(ctx, m.cfg.Conn, events.Heartbeat{Service: Service, Instance: m.cfg.Instance, Name: m.cfg.Name, Started: m.started}, nil)
	})
	err = g.Wait()
	return errors.Join(err, closed(sub.Unsubscribe()), closed(stop()))
}

// closed forgives that the connection went first.
func closed(err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return err
}

// serve answers StatusSubject.
func (m *Monitor) serve() (stop func() error, err error) {
	const name = "status"
	if m.cfg.Service != nil {
		handler := micro.HandlerFunc(func(r micro.Request) {
			if s, ok := m.Status(); ok {
				_ = r.RespondJSON(s) // whoever asked is gone
			} else {
				_ = r.Error("503", "nothing was seen yet", nil) // likewise
			}
		})
		return func() error { return nil }, m.cfg.Service.AddEndpoint(name, handler, micro.WithEndpointSubject(StatusSubject),
			micro.WithEndpointMetadata(map[string]string{"format": "application/json", "schema": "monitor.Status"}))
	}
	sub, err := m.cfg.Conn.QueueSubscribe(StatusSubject, micro.DefaultQueueGroup, func(r *nats.Msg) {
		s, _ := m.Status()
		if body, err := json.Marshal(s); err == nil {
			_ = r.Respond(body) // as above
		}
	})
	if err != nil {
		return nil, err
	}
	return sub.Unsubscribe, nil
}

func (m *Monitor) loop(ctx context.Context, js natsjs.JetStream, catalog *topology.Catalog, heard <-chan *nats.Msg, models <-chan natsjs.KeyValue) {
	tick := time.NewTicker(m.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case msg := <-heard:
			m.hear(msg)
			continue
		case kv := <-models:
			self := lease.Holder{Instance: m.cfg.Instance, Name: m.cfg.Name, Host: service.Hostname()}
			m.lease = lease.New[[]events.Alert](kv, LeaseKey, self, m.cfg.Term)
			continue
		case <-tick.C:
			for len(heard) > 0 { // or the dead would be those that we were too busy to hear
				m.hear(<-heard)
			}
		case <-ctx.Done():
			m.release(ctx)
			return
		}
		m.look(ctx, sampler{js}, catalog)
	}
}

// release lets the next leader begin at once.
func (m *Monitor) release(ctx context.Context) {
	if m.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	m.trouble("lease", m.lease.Release(ctx, m.toldList()))
}

func (m *Monitor) hear(msg *nats.Msg) {
	if h, err := decodeBeat(msg.Data); err == nil { // anything else is not ours
		m.beats.heard(h, time.Now())
	}
}

// look takes one sample and does what follows from it.
func (m *Monitor) look(ctx context.Context, s sampler, catalog *topology.Catalog) {
	var ds []declared
	for _, name := range catalog.Names() {
		if schema, _, ok := catalog.Schema(name); ok {
			ids := false
			if m := schema.Contract.Memory; m != nil {
				within, _ := m.RepeatsOrDefault()
				ids = within > 0
			}
			ds = append(ds, declared{name, schema.Contract.Lanes, schema.Contract.Memory.HasLabels(), ids})
		}
	}
	bounded, cancel := context.WithTimeout(ctx, 2*m.cfg.Every)
	kinds := s.kinds(bounded, ds)
	members, err := s.members(bounded)
	cancel()
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		m.members = members // else as they were: no answer is not an empty one
	}
	now := time.Now()
	m.beats.forget(now)
	alerts := m.rules.step(Sample{At: now, Kinds: kinds, Members: m.members, Beating: m.beats.beating(scorerService, now), Refused: m.beats.refused(now), Missing: m.beats.missing(now)})
	m.status.Store(m.snapshot(now))
	m.tell(ctx, s.js, alerts)
}

func (m *Monitor) snapshot(now time.Time) *Status {
	s := &Status{
		At: now, Monitor: m.cfg.Instance, Leads: m.leads(now),
		Kinds: m.rules.status(now), Services: m.beats.services(now), Latency: m.beats.latency(now), Alerts: m.rules.firing(),
	}
	if len(s.Alerts) > 0 {
		s.Severity = s.Alerts[0].Severity
	}
	for i := range s.Kinds {
		k := &s.Kinds[i]
		k.Models = m.beats.models(k.Kind, now)
		for j := range k.Lanes {
			k.Lanes[j].Owner = m.beats.name(scorerService, k.Lanes[j].Owner)
		}
	}
	return s
}

func (m *Monitor) leads(now time.Time) bool { return m.lease != nil && m.lease.Leads(now) }

// tell contends for the lease and, as leader, publishes alerts. An alert goes out before the lease record names its
// incident: who dies in between leaves one told twice, never one untold.
func (m *Monitor) tell(ctx context.Context, js natsjs.JetStream, alerts []events.Alert) {
	if m.lease == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*m.cfg.Every)
	defer cancel()
	if m.leads(time.Now()) {
		m.send(ctx, js, alerts)
	} else {
		m.follow() // also if we lead again in a moment: these alerts are told then, as what is untold
	}
	begins, err := m.lease.Contend(ctx, m.toldList())
	m.trouble("lease", err)
	if begins {
		clear(m.told)
		for _, a := range m.lease.Carried() {
			m.told[a.Incident] = a
		}
	}
	switch leads := m.leads(time.Now()); {
	case !leads:
		m.follow()
	case begins || !m.led:
		m.led, m.outbox = true, nil
		m.cfg.Log.Info("leading")
		m.send(ctx, js, m.rules.adopt(m.toldList()))
	}
}

// follow ends our term, if we led. What is still firing when somebody leads again is told then.
func (m *Monitor) follow() {
	if m.led {
		m.cfg.Log.Info("not leading any more")
	}
	m.led, m.outbox = false, nil
}

func (m *Monitor) toldList() []events.Alert {
	var out []events.Alert
	for _, incident := range slices.Sorted(maps.Keys(m.told)) {
		out = append(out, m.told[incident])
	}
	return out
}

// send publishes alerts in order, those that failed before first; what fails stays for the next look.
func (m *Monitor) send(ctx context.Context, js natsjs.JetStream, alerts []events.Alert) {
	m.outbox = append(m.outbox, alerts...)
	m.outbox = m.outbox[max(0, len(m.outbox)-outboxMax):]
	for len(m.outbox) > 0 {
		a := m.outbox[0]
		body, err := json.Marshal(a)
		if err != nil {
			panic(err) // a struct of plain values
		}
		id := fmt.Sprintf("%s.%s.%s", a.Incident, a.State, a.Cause)
		_, err = js.Publish(ctx, events.AlertSubject(a.Severity, a.What), body, natsjs.WithMsgID(id))
		m.trouble("publish an alert", err)
		if err != nil {
			return
		}
		m.cfg.Log.Warn("alert", zap.String("state", a.State), zap.String("incident", a.Incident), zap.String("cause", a.Cause))
		m.outbox = m.outbox[1:]
		if m.told[a.Incident] = a; a.State == events.Resolved {
			delete(m.told, a.Incident)
		}
	}
}

// trouble with a step is logged once as long as it stays the same.
func (m *Monitor) trouble(step string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != m.failing[step] {
		m.cfg.Log.Warn("monitor: "+step, zap.Error(err))
	}
	m.failing[step] = text
}
