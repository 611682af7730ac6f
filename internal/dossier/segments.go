package dossier

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/riskweir/riskweir/pkg/events"
)

// Segmentation is the records by the groups of one protected field.
type Segmentation struct {
	Field      string
	Note       string
	Groups     []Group // those that are shown, the largest first
	Suppressed int     // groups that are too small, alone or by what could be told of them from the rest
}

// Group of records.
type Group struct {
	Name string
	Measure
	Approve, Review, Decline float64 // shares
	// Relative is the share approved against that of the group with the most approved; 0: nobody is approved.
	Relative float64
}

// Low says whether the group is approved less than four fifths as often as another: the usual line to look closer.
func (g Group) Low() bool { return g.Relative > 0 && g.Relative < 0.8 }

// maxGroups of a field: more are put together by their number.
const maxGroups = 12

// segment measures by each protected field.
func (d *Dossier) segment() {
	for at, f := range d.In.Schema.Inputs {
		if !f.Protected {
			continue
		}
		s := Segmentation{Field: f.Name}
		if f.Sensitive {
			s.Note = "The contract says that the field is sensitive: its values are not named."
		}
		groups := d.groups(at, f)
		names := make([]string, 0, len(groups))
		for name := range groups {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			return cmp.Or(cmp.Compare(len(groups[b]), len(groups[a])), cmp.Compare(a, b))
		})
		// A single group that is left out could be had by subtraction, so the next smallest goes with it.
		shown := 0
		for shown < len(names) && shown < maxGroups && len(groups[names[shown]]) >= MinGroup {
			shown++
		}
		if len(names)-shown == 1 && shown > 1 {
			shown--
		}
		s.Suppressed = len(names) - shown
		best := 0.0
		for k, name := range names[:shown] {
			rows := groups[name]
			m, err := d.measureOf(rows)
			if err != nil { // numbers that Compile let through are fit to be measured
				continue
			}
			g := Group{Name: name, Measure: m}
			if f.Sensitive {
				g.Name = "group " + strconv.Itoa(k+1)
			}
			for _, i := range rows {
				switch d.scores.decision[i] {
				case events.Approve:
					g.Approve++
				case events.Review:
					g.Review++
				case events.Decline:
					g.Decline++
				}
			}
			n := float64(len(rows))
			g.Approve, g.Review, g.Decline = g.Approve/n, g.Review/n, g.Decline/n
			if m.Bad < MinClass || m.N-m.Bad < MinClass {
				g.OneClass = true // too few for an AUC
			}
			best = max(best, g.Approve)
			s.Groups = append(s.Groups, g)
		}
		for k := range s.Groups {
			if best > 0 {
				s.Groups[k].Relative = s.Groups[k].Approve / best
			}
		}
		d.Protected = append(d.Protected, s)
	}
}

// groups of the unseen records by the value of the input at a place: categories by their text, numbers by quarters.
func (d *Dossier) groups(at int, f events.Field) map[string][]int {
	data := d.In.Gathered.Data
	out := map[string][]int{}
	var rec events.Record
	var cuts []float64
	if f.Type != events.Category && f.Type != events.Bool {
		var values []float64
		for _, i := range d.Unseen {
			data.Record(i, &rec)
			if v := rec.Values[at]; v.State == events.HasNum {
				values = append(values, v.Num)
			}
		}
		cuts = quantiles(values, 4)
	}
	for _, i := range d.Unseen {
		data.Record(i, &rec)
		v := rec.Values[at]
		name := "(no value)"
		switch {
		case v.State == events.HasText:
			name = string(v.Text)
		case v.State == events.HasNum && f.Type == events.Bool:
			name = strconv.FormatBool(v.Num != 0)
		case v.State == events.HasNum:
			name = between(cuts, v.Num)
		}
		out[name] = append(out[name], i)
	}
	return out
}

// quantiles cut values into parts of about equal number; fewer where many are equal.
func quantiles(values []float64, parts int) []float64 {
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	var cuts []float64
	for k := 1; k < parts; k++ {
		cuts = append(cuts, sorted[k*len(sorted)/parts])
	}
	return slices.Compact(cuts)
}

// bin of a value: cuts[k-1] <= v < cuts[k].
func bin(cuts []float64, v float64) int {
	k := 0
	for k < len(cuts) && v >= cuts[k] {
		k++
	}
	return k
}

func between(cuts []float64, v float64) string {
	k := bin(cuts, v)
	switch {
	case len(cuts) == 0:
		return "all"
	case k == 0:
		return fmt.Sprintf("below %s", figure(cuts[0]))
	case k == len(cuts):
		return fmt.Sprintf("%s and more", figure(cuts[k-1]))
	}
	return fmt.Sprintf("%s to below %s", figure(cuts[k-1]), figure(cuts[k]))
}

// figure with four digits that count.
func figure(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
