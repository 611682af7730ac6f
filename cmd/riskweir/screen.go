package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/riskweir/riskweir/internal/supervise"
	"github.com/riskweir/riskweir/pkg/events"
)

// view is one look at the running system.
type view struct {
	elapsed   time.Duration
	kind      string
	stored    uint64 // events in EVENTS
	arrivals  float64
	scored    float64
	p50, p99  time.Duration
	measured  bool
	model     string
	children  []supervise.Status
	alive     map[string]events.Heartbeat // by name
	lanes     []laneView
	laneTrust bool // the monitor answered
}

type laneView struct {
	lane    int
	owner   string
	pending uint64
	age     time.Duration
	state   string
}

// screen draws views: over and over in place on a terminal, a line at a time elsewhere.
type screen struct {
	w     io.Writer
	fancy bool
	lines int // drawn last time
}

func newScreen(w io.Writer, fancy bool) *screen { return &screen{w: w, fancy: fancy} }

func (s *screen) every() time.Duration {
	if s.fancy {
		return 500 * time.Millisecond
	}
	return 5 * time.Second
}

func (s *screen) draw(v view) {
	if !s.fancy {
		fmt.Fprintln(s.w, v.line())
		return
	}
	text := v.page()
	// Up over the last page, then clear to the end of the screen: what was printed before stays readable.
	if s.lines > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.lines)
	}
	io.WriteString(s.w, text)
	s.lines = strings.Count(text, "\n")
}

// leave ends the page where it is.
func (s *screen) leave() {
	if s.fancy {
		fmt.Fprintln(s.w)
	}
}

// line is a view for a log.
func (v view) line() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%6s  in %.0f/s  scored %.0f/s  events %d", v.elapsed.Round(time.Second), v.arrivals, v.scored, v.stored)
	if lag, age := v.worst(); v.laneTrust {
		fmt.Fprintf(&b, "  waiting %d  oldest %s", lag, short(age))
	}
	if v.measured {
		fmt.Fprintf(&b, "  p50 %s  p99 %s", short(v.p50), short(v.p99))
	}
	fmt.Fprintf(&b, "  model %s", v.model)
	for _, c := range v.children {
		if c.Restarts > 0 || c.State == supervise.Down {
			fmt.Fprintf(&b, "  %s %s (%d restarts)", c.Name, c.State, c.Restarts)
		}
	}
	return b.String()
}

func (v view) worst() (pending uint64, age time.Duration) {
	for _, l := range v.lanes {
		pending += l.pending
		age = max(age, l.age)
	}
	return pending, age
}

const (
	bold  = "\x1b[1m"
	dim   = "\x1b[2m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	amber = "\x1b[33m"
	reset = "\x1b[0m"
)

// page is a view for a terminal of 80 columns.
func (v view) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%s  running %s   events %d   model %s%s%s\n", bold, orNone(v.kind), reset, v.elapsed.Round(time.Second), v.stored, bold, v.model, reset)
	latency := "-"
	if v.measured {
		latency = fmt.Sprintf("p50 %s  p99 %s", short(v.p50), short(v.p99))
	}
	fmt.Fprintf(&b, "in %.0f/s   scored %.0f/s   latency %s\n", v.arrivals, v.scored, latency)
	if v.laneTrust {
		fmt.Fprintf(&b, "\n%s%-5s %-12s %9s %9s  %s%s\n", dim, "lane", "owner", "waiting", "oldest", "state", reset)
		for _, l := range v.lanes {
			colour := green
			switch l.state {
			case "ok", "idle":
			case "lagging", "slow":
				colour = amber
			default:
				colour = red
			}
			fmt.Fprintf(&b, "%-5d %-12s %9d %9s  %s%s%s\n", l.lane, clip(l.owner, 12), l.pending, short(l.age), colour, l.state, reset)
		}
	}
	fmt.Fprintf(&b, "\n%s%-12s %8s %9s %9s  %s%s\n", dim, "process", "pid", "state", "restarts", "owns", reset)
	for _, c := range v.children {
		colour := green
		switch c.State {
		case supervise.Down:
			colour = red
		case supervise.Starting, supervise.Stopping:
			colour = amber
		}
		owns := ""
		if h, ok := v.alive[c.Name]; ok && len(h.Lanes) > 0 {
			owns = fmt.Sprintf("%d lanes", len(h.Lanes))
		}
		fmt.Fprintf(&b, "%-12s %8d %s%9s%s %9d  %s\n", clip(c.Name, 12), c.PID, colour, c.State, reset, c.Restarts, owns)
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n-1] + "…"
	}
	return s
}

// short writes a duration in at most seven characters.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 100*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// look gathers a view. What cannot be had now is left out: a cluster without a quorum must not stop the screen.
func (u *upRun) look(ctx context.Context) view {
	now := time.Now()
	v := view{elapsed: now.Sub(u.began), kind: u.kind, children: u.sup.Status(), alive: map[string]events.Heartbeat{}, model: "none yet"}
	for _, h := range u.pulse.alive() {
		v.alive[h.Name] = h
		if m := h.Model[u.kind]; m != "" && u.kind != "" {
			v.model = m
		}
	}
	v.p50, v.measured = u.pulse.latency(.5)
	v.p99, _ = u.pulse.latency(.99)
	scored := u.pulse.outcomes()
	stored := u.seen.stored
	if u.kind != "" {
		ctx, cancel := context.WithTimeout(ctx, 400*time.Millisecond)
		defer cancel()
		if s, err := u.js.Stream(ctx, events.EventsStream(u.kind)); err == nil {
			stored = s.CachedInfo().State.Msgs
		}
		v.lanes, v.laneTrust = u.askMonitor(ctx)
	}
	v.stored = stored
	if dt := now.Sub(u.seen.at).Seconds(); dt > 0 && !u.seen.at.IsZero() {
		// Heartbeats come once a second: rates over shorter spans would jump.
		weight := min(1, dt/2)
		u.seen.arrivals += weight * (max(0, float64(stored)-float64(u.seen.stored))/dt - u.seen.arrivals)
		u.seen.scored += weight * (max(0, scored-u.seen.outcomes)/dt - u.seen.scored)
	}
	u.seen.at, u.seen.stored, u.seen.outcomes = now, stored, scored
	v.arrivals, v.scored = u.seen.arrivals, u.seen.scored
	return v
}

// lastLook is what rates are measured against.
type lastLook struct {
	at       time.Time
	stored   uint64
	outcomes float64
	arrivals float64
	scored   float64
}

func (u *upRun) askMonitor(ctx context.Context) ([]laneView, bool) { return nil, false }
