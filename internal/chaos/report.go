package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/riskweir/riskweir/internal/verify"
)

// Report of a run.
type Report struct {
	OK     bool     `json:"ok"`
	Broken []string `json:"broken,omitempty"` // promises, each a sentence

	Seed    uint64  `json:"seed"`
	Seconds float64 `json:"seconds"` // of load
	Faults  int     `json:"faults"`
	Kinds   int     `json:"kinds"` // of faults

	Stored Stored        `json:"stored"`
	Verify verify.Report `json:"verify"`
	Load   LoadReport    `json:"load"`
	Answer Answers       `json:"answers"` // to all requests for a score

	RSSBytes  int64 `json:"rss_bytes"` // most that all processes took together, as sampled
	DiskBytes int64 `json:"disk_bytes"`

	Rows     []Row        `json:"rows"`
	Happened []Occurrence `json:"happened"`
}

// LoadReport is what the load met with.
type LoadReport struct {
	Events  uint64 `json:"events"`   // made
	Tries   uint64 `json:"tries"`    // to send one, or a batch through HTTP
	GivenUp uint64 `json:"given_up"` // never acknowledged: nothing is promised of them
	Refused uint64 `json:"refused"`  // called at fault, which none is
	Odd     string `json:"odd,omitempty"`
}

// Answers to requests for a score.
type Answers struct {
	Asked  int            `json:"asked"`
	InTime int            `json:"in_time"` // with something to decide on, before the deadline
	Modes  map[string]int `json:"modes"`
}

// Share in time.
func (a Answers) Share() float64 {
	if a.Asked == 0 {
		return 0
	}
	return float64(a.InTime) / float64(a.Asked)
}

func (a *Answers) add(p probe, deadline time.Duration) {
	a.Asked++
	if p.said && p.took <= deadline {
		a.InTime++
	}
	if a.Modes == nil {
		a.Modes = map[string]int{}
	}
	a.Modes[p.mode]++
}

// Row is all occurrences of one fault.
type Row struct {
	Fault          string  `json:"fault"`
	Times          int     `json:"times"`
	Events         uint64  `json:"events"`
	Missing        uint64  `json:"missing"`
	Duplicate      uint64  `json:"duplicate"`
	Disorder       uint64  `json:"disorder"`
	LongestPauseMS float64 `json:"longest_pause_ms"`
	OthersPauseMS  float64 `json:"others_pause_ms"`
	RecoverP50MS   float64 `json:"recover_p50_ms"`
	RecoverMaxMS   float64 `json:"recover_max_ms"`
	Answer         Answers `json:"answers"`
}

func ms(d time.Duration) float64 { return float64(d.Milliseconds()) }

func (r *runner) report(checked verify.Report, stored Stored, h *history) Report {
	out := Report{
		Seed: r.Seed, Seconds: r.ended.Sub(r.began).Seconds(), Faults: len(r.happened), Stored: stored, Verify: checked,
		RSSBytes: r.rss, DiskBytes: r.disk, Broken: r.broken,
		Load: LoadReport{Events: r.Load.made, Tries: r.Load.tries, GivenUp: r.Load.givenUp, Refused: r.Load.refused, Odd: r.Load.odd},
	}
	breach := func(n uint64, what string) {
		if n > 0 {
			out.Broken = append(out.Broken, fmt.Sprintf("%d %s", n, what))
		}
	}
	breach(stored.Lost, "events that were acknowledged are not in EVENTS")
	breach(stored.Doubled, "events are in EVENTS more than once")
	breach(stored.Misplaced, "events are in EVENTS under another sequence than was acknowledged")
	breach(checked.Missing, "events have no outcome")
	breach(checked.Duplicate, "outcomes are doubled")
	breach(checked.Disorder, "outcomes are out of order")
	breach(checked.Unknown, "outcomes are of no event")
	breach(checked.Misnamed, "outcomes are under another entity than their event")
	breach(checked.Expired, "ranges expired unscored")
	poisoned := uint64(0)
	for _, o := range r.happened {
		if o.Lane != nil {
			poisoned++
		}
	}
	if checked.Invalid != poisoned {
		out.Broken = append(out.Broken, fmt.Sprintf("%d events ended as invalid, and %d had to", checked.Invalid, poisoned))
	}
	breach(out.Load.Refused, "events were refused that are in order: "+out.Load.Odd)
	out.OK = len(out.Broken) == 0

	outages := map[string]bool{}
	for _, f := range catalogue() {
		outages[f.Name] = f.outage
	}
	rows := map[string]*Row{}
	recover := map[string][]time.Duration{}
	for i := range r.happened {
		o := &r.happened[i]
		blame(o, checked.Offenders, h)
		longest, took := recovered(o, h.pause, outages[o.Fault])
		o.LongestPauseMS, o.RecoverMS, o.OthersPauseMS = ms(longest), ms(took), ms(others(o, h.pause))
		row := rows[o.Fault]
		if row == nil {
			row = &Row{Fault: o.Fault}
			rows[o.Fault] = row
		}
		row.Times++
		row.Events += o.Events
		row.Missing += o.Missing
		row.Duplicate += o.Duplicate
		row.Disorder += o.Disorder
		row.LongestPauseMS = max(row.LongestPauseMS, o.LongestPauseMS)
		row.OthersPauseMS = max(row.OthersPauseMS, o.OthersPauseMS)
		recover[o.Fault] = append(recover[o.Fault], took)
		for _, p := range r.Load.probes {
			if !p.at.Before(o.Injected) && p.at.Before(o.Until) {
				row.Answer.add(p, r.Load.cfg.Deadline)
			}
		}
	}
	for _, p := range r.Load.probes {
		out.Answer.add(p, r.Load.cfg.Deadline)
	}
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		row := rows[name]
		row.RecoverP50MS, row.RecoverMaxMS = ms(quantile(.5, recover[name])), ms(quantile(1, recover[name]))
		out.Rows = append(out.Rows, *row)
	}
	out.Kinds, out.Happened = len(rows), r.happened
	return out
}

// blame puts the defects that verify names down to the fault in whose time their event was stored.
func blame(o *Occurrence, offenders []verify.Offender, h *history) {
	for _, x := range offenders {
		at, ok := h.at(x.Seq)
		if !ok || at.Before(o.Injected) || !at.Before(o.Until) {
			continue
		}
		switch x.What {
		case "missing":
			o.Missing++
		case "duplicate":
			o.Duplicate++
		case "disorder":
			o.Disorder++
		}
	}
}

// strikes is how soon after it was injected a fault has stopped those lanes that it stops at once.
const strikes = 2 * time.Second

// recovered returns the longest pause of a lane that is put down to a fault, and how long the lanes that it stopped took to commit
// again after it was injected; after it was mended, where nothing can work before.
func recovered(o *Occurrence, all []Pause, outage bool) (longest, took time.Duration) {
	for _, p := range begun(all, o.Injected, o.Until, leastPause) {
		longest = max(longest, p.Length())
		switch {
		case outage:
			took = max(took, p.To.Sub(o.Mended))
		case p.From.Before(o.Injected.Add(strikes)):
			took = max(took, p.To.Sub(o.Injected))
		}
	}
	return longest, took
}

// others returns the longest pause of a lane that the fault was not meant for.
func others(o *Occurrence, all []Pause) (longest time.Duration) {
	for _, p := range begun(all, o.Injected, o.Until, leastPause) {
		if o.Lane == nil || p.Lane != *o.Lane {
			longest = max(longest, p.Length())
		}
	}
	return longest
}

// Write is the report for people.
func (r Report) Write(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "fault\ttimes\tevents\tmissing\tduplicate\tdisorder\tlongest pause\tother lanes\trecover p50\tmax\tin time\tmodes\t")
	for _, x := range r.Rows {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%.1f %%\t%s\t\n", x.Fault, x.Times, x.Events, x.Missing, x.Duplicate, x.Disorder,
			seconds(x.LongestPauseMS), seconds(x.OthersPauseMS), seconds(x.RecoverP50MS), seconds(x.RecoverMaxMS), 100*x.Answer.Share(), modes(x.Answer.Modes))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(&b, "\nseed %d: %d faults of %d kinds in %.0f s\n", r.Seed, r.Faults, r.Kinds, r.Seconds)
	fmt.Fprintf(&b, "acknowledged %d: lost %d, doubled %d, misplaced %d; %d more are stored that nobody was told of; given up %d; %.2f tries an event\n",
		r.Stored.Acknowledged, r.Stored.Lost, r.Stored.Doubled, r.Stored.Misplaced, r.Stored.Unacknowledged, r.Load.GivenUp, float64(r.Load.Tries)/float64(max(1, r.Load.Events)))
	fmt.Fprintf(&b, "verify       %s\n", r.Verify)
	fmt.Fprintf(&b, "scores       %d asked for, %.2f %% answered in time; %s\n", r.Answer.Asked, 100*r.Answer.Share(), modes(r.Answer.Modes))
	fmt.Fprintf(&b, "taken        %d MiB of memory, %d MiB of disk\n", r.RSSBytes>>20, r.DiskBytes>>20)
	for _, n := range r.Stored.Named {
		fmt.Fprintln(&b, " ", n)
	}
	for _, o := range r.Verify.Offenders {
		fmt.Fprintln(&b, " ", o)
	}
	if r.OK {
		b.WriteString("every promise was kept\n")
	} else {
		for _, p := range r.Broken {
			fmt.Fprintln(&b, "BROKEN", p)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func seconds(ms float64) string { return fmt.Sprintf("%.2f s", ms/1000) }

func modes(m map[string]int) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
