package replay

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// String is the report for people.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s events %d to %d, contract revision %d: scored=%d history=%d", r.Kind, r.Events.First, r.Events.Last, r.Contract, r.Scored, r.History)
	if r.Invalid != nil {
		fmt.Fprintf(&b, " invalid=%d", *r.Invalid)
	}
	if r.Repeats != nil {
		fmt.Fprintf(&b, " repeats=%d", *r.Repeats)
	}
	b.WriteByte('\n')
	fmt.Fprintf(&b, "\n%-24s%10s%10s%10s%10s%10s%10s%10s%10s\n", "version", "mean p", "log-odds", "low", "medium", "high", "approve", "review", "decline")
	row := func(s Summary) {
		c := s.Counts
		fmt.Fprintf(&b, "%-24s%10.6f%10.4f%10d%10d%10d%10d%10d%10d\n", s.Model, s.MeanP, s.MeanLogit, c.Low, c.Medium, c.High, c.Approve, c.Review, c.Decline)
	}
	row(r.Of)
	if p := r.Published; p != nil {
		fmt.Fprintf(&b, "\npublished=%d before=%d: %s has the rescores of events %d to %d\n", p.N, p.Before, p.Subject, p.All.First, p.All.Last)
	}
	c := r.Against
	if c == nil {
		return b.String()
	}
	row(c.Against)
	fmt.Fprintf(&b, "\nlog-odds of %s less those of %s: mean %+.4f, standard deviation %.4f, n %d\n", c.Against.Model, r.Of.Model, c.Shift, c.ShiftSD, r.Scored)
	matrix := func(title string, names []string, at func(i, j int) string) {
		fmt.Fprintf(&b, "\n%s; %s down, %s across\n%-10s", title, r.Of.Model, c.Against.Model, "")
		for _, name := range names {
			fmt.Fprintf(&b, "%16s", name)
		}
		b.WriteByte('\n')
		for i, name := range names {
			fmt.Fprintf(&b, "%-10s", name)
			for j := range names {
				fmt.Fprintf(&b, "%16s", at(i, j))
			}
			b.WriteByte('\n')
		}
	}
	matrix(fmt.Sprintf("bands moved: %d of %d", c.Moved, r.Scored), bands[:], func(i, j int) string { return fmt.Sprint(c.Bands[i][j]) })
	matrix(fmt.Sprintf("decisions moved: %d of %d", c.DecisionMoved, r.Scored), decisions[:], func(i, j int) string { return fmt.Sprint(c.Decisions[i][j]) })
	l := c.Labels
	if s := c.Stake; s == nil {
		b.WriteString("\nno money at stake is told: the contract does not have exactly one money field that may be told; --amount says which\n")
	} else {
		money := func(x float64) string { return strconv.FormatFloat(x, 'f', 2, 64) }
		title := fmt.Sprintf("at stake, %s of the events whose decision moved: %s of %s %s (%d events have none)", s.Field, money(s.Moved), money(s.All), s.Unit, s.Without)
		matrix(title, decisions[:], func(i, j int) string { return money(s.Decisions[i][j]) })
		if l != nil {
			title = "of it labelled bad"
			if l.Share < 1 {
				title += ", in the sample of labels"
			}
			matrix(title, decisions[:], func(i, j int) string { return money(s.Bad[i][j]) })
		}
	}
	if l == nil {
		b.WriteString("\nno event of these has a label: no AUC, no log-loss\n")
		return b.String()
	}
	fmt.Fprintf(&b, "\nlabelled: n %d, of them bad %d", l.N, l.Positives)
	if l.Share < 1 {
		fmt.Fprintf(&b, " (a sample of 1 in %.0f labels, drawn by a hash of ids)", 1/l.Share)
	}
	b.WriteByte('\n')
	for i, name := range [...]string{r.Of.Model, c.Against.Model} {
		fmt.Fprintf(&b, "%-24slog-loss %.6f", name, l.LogLoss[i])
		if l.AUC != nil {
			fmt.Fprintf(&b, "  AUC %.4f +- %.4f", l.AUC.AUC[i], l.AUC.SE[i])
		}
		b.WriteByte('\n')
	}
	if l.AUC == nil {
		b.WriteString("no AUC: the labels are all of one class\n")
	} else if l.AUC.DifferenceSE > 0 {
		// The comparison is of the first less the second.
		fmt.Fprintf(&b, "AUC of %s less that of %s: %+.4f, 95 %% interval %+.4f to %+.4f (DeLong, paired)\n",
			c.Against.Model, r.Of.Model, -l.AUC.Difference, -l.AUC.High, -l.AUC.Low)
	}
	return b.String()
}

// String is the report for people.
func (e Equality) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "compared=%d equal=%d different=%d not_comparable=%d", e.Compared, e.Equal, e.Different, e.Not)
	if e.Unreadable > 0 {
		fmt.Fprintf(&b, " unreadable=%d", e.Unreadable)
	}
	b.WriteByte('\n')
	for _, name := range slices.Sorted(maps.Keys(e.Models)) {
		t := e.Models[name]
		fmt.Fprintf(&b, "  %-24s stored=%d equal=%d different=%d\n", name, t.Stored, t.Equal, t.Different)
		for _, why := range slices.Sorted(maps.Keys(t.Not)) {
			fmt.Fprintf(&b, "  %-24s not comparable: %d, %s\n", "", t.Not[why], why)
		}
	}
	for _, d := range e.Differences {
		fmt.Fprintf(&b, "DIFFERENT %s\n", d)
	}
	if more := e.Different - uint64(len(e.Differences)); more > 0 {
		fmt.Fprintf(&b, "  ... and %d more\n", more)
	}
	if e.Compared == 0 {
		b.WriteString("nothing could be compared: that proves nothing\n")
	}
	return b.String()
}
