package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/riskweir/riskweir/internal/monitor"
	"github.com/riskweir/riskweir/internal/supervise"
	"github.com/riskweir/riskweir/pkg/events"
)

// view is one look at the running system.
type view struct {
	elapsed  time.Duration
	kind     string
	p50, p99 time.Duration
	measured bool
	model    string
	children []supervise.Status
	alive    map[string]events.Heartbeat // by name

	monitored bool // the monitor answered
	seen      bool // and knows the kind; what follows is its account
	stored    uint64
	arrivals  float64
	scored    float64
	pending   uint64
	age       time.Duration
	lanes     []monitor.LaneStatus
	alerts    []events.Alert
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
	text := fit(v.page(), s.height())
	// Up over the last page, then clear to the end of the screen: what was printed before stays readable.
	if s.lines > 0 {
		fmt.Fprintf(s.w, "\x1b[%dA\x1b[J", s.lines)
	}
	io.WriteString(s.w, text)
	s.lines = strings.Count(text, "\n")
}

// height of the terminal in lines; 0: not known.
func (s *screen) height() int {
	f, ok := s.w.(*os.File)
	if !ok {
		return 0
	}
	_, h, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return h
}

// fit cuts a page to the lines that a terminal has: of what has scrolled away nothing can be redrawn.
func fit(page string, height int) string {
	lines := strings.SplitAfter(page, "\n")
	if height < 2 || len(lines) <= height {
		return page
	}
	return strings.Join(lines[:height-1], "")
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
	fmt.Fprintf(&b, "%6s", v.elapsed.Round(time.Second))
	if v.seen {
		fmt.Fprintf(&b, "  in %.0f/s  scored %.0f/s  events %d  waiting %d  oldest %s", v.arrivals, v.scored, v.stored, v.pending, short(v.age))
	} else if v.monitored {
		b.WriteString("  no kind is declared yet: riskweir kind apply")
	} else {
		b.WriteString("  (no answer from the monitor)")
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
	for _, a := range v.alerts {
		fmt.Fprintf(&b, "  ALERT %s: %s", a.What, a.Cause)
	}
	return b.String()
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
	fmt.Fprintf(&b, "%s%s%s  running %s   events %d   waiting %d, oldest %s   model %s%s%s\n",
		bold, orNone(v.kind), reset, v.elapsed.Round(time.Second), v.stored, v.pending, short(v.age), bold, v.model, reset)
	latency := "-"
	if v.measured {
		latency = fmt.Sprintf("p50 %s  p99 %s", short(v.p50), short(v.p99))
	}
	fmt.Fprintf(&b, "in %.0f/s   scored %.0f/s   latency %s\n", v.arrivals, v.scored, latency)
	if v.seen {
		writeLanes(&b, v.lanes, true)
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
	for _, a := range v.alerts {
		fmt.Fprintf(&b, "%s%s%s %s: %s\n", red, a.Severity, reset, a.What, a.Cause)
	}
	return b.String()
}

// writeLanes is one row a lane.
func writeLanes(b *strings.Builder, lanes []monitor.LaneStatus, colours bool) {
	paint := func(colour, text string) string {
		if !colours {
			return text
		}
		return colour + text + reset
	}
	fmt.Fprintf(b, "\n%s\n", paint(dim, fmt.Sprintf("%-5s %-22s %10s %9s %9s  %s", "lane", "owner", "position", "waiting", "oldest", "state")))
	for _, l := range lanes {
		name := strconv.Itoa(l.Lane)
		if l.Lane == events.StrayLane {
			if l.State == monitor.Idle {
				continue
			}
			name = "stray"
		}
		colour := red
		switch l.State {
		case monitor.Idle, monitor.Busy:
			colour = green
		case monitor.Late, monitor.Unknown:
			colour = amber
		}
		fmt.Fprintf(b, "%-5s %-22s %10d %9d %9s  %s\n", name, clip(l.Owner, 22), l.Position, l.Pending, short(ms(l.AgeMS)), paint(colour, l.State))
	}
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
	if status, err := u.askMonitor(ctx); err == nil {
		v.take(status, u.kind)
	}
	return v
}

const askFor = 400 * time.Millisecond

func (u *upRun) askMonitor(ctx context.Context) (monitor.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	return monitor.Fetch(ctx, u.conn)
}

// take adds what the monitor knows. Another kind than the source's is shown where there is no source.
func (v *view) take(s monitor.Status, kind string) {
	for _, k := range s.Kinds {
		if kind != "" && k.Kind != kind || kind == "" && v.seen {
			continue
		}
		v.seen, v.kind = true, k.Kind
		v.stored, v.arrivals, v.scored = k.Stored, k.Arriving, k.Scoring
		v.lanes, v.pending, v.age = k.Lanes, k.Pending, ms(k.AgeMS)
		if len(k.Models) > 0 {
			v.model = strings.Join(k.Models, " ")
		}
	}
	v.alerts, v.monitored = s.Alerts, true
}

func ms(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }
