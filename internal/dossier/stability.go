package dossier

import (
	"cmp"
	"math"
	"slices"

	"github.com/riskweir/riskweir/pkg/events"
)

// PSI, the population stability index, says how far a distribution has moved: Σ (bᵢ - aᵢ) ln(bᵢ/aᵢ) over shares aᵢ of the records
// fitted to and bᵢ of the others, by tenths of the former, or by levels. By custom below 0.1 is no change to speak of, above 0.25 a large one.
type PSI struct {
	Name  string
	Value float64
	Bins  int
	Noise float64 // about what chance alone gives: (Bins - 1)(1/n + 1/m)
}

// Grade of it, in a word.
func (p PSI) Grade() string {
	switch {
	case p.Value > 0.25:
		return "large"
	case p.Value > 0.1:
		return "some"
	}
	return "none"
}

const psiBins = 10

func (d *Dossier) stability() {
	if len(d.Fitted) < MinGroup || d.AllSeen {
		return
	}
	values := func(of func(i int) float64, rows []int) (out []float64) {
		for _, i := range rows {
			out = append(out, of(i))
		}
		return out
	}
	p := func(i int) float64 { return d.scores.p[i] }
	score := numbersPSI("score", values(p, d.Fitted), values(p, d.Unseen))
	d.ScorePSI = &score
	data := d.In.Gathered.Data
	reads := map[string]bool{}
	for _, t := range d.In.Artifact.Spec.Fields {
		reads[t.Field] = true
	}
	var rec events.Record
	for at, f := range d.In.Schema.Inputs {
		if !reads[f.Name] {
			continue
		}
		if f.Type == events.Category {
			level := func(i int) string {
				data.Record(i, &rec)
				return string(rec.Values[at].Text)
			}
			d.Inputs = append(d.Inputs, levelsPSI(f.Name, level, d.Fitted, d.Unseen))
			continue
		}
		number := func(i int) float64 {
			data.Record(i, &rec)
			if v := rec.Values[at]; v.State == events.HasNum {
				return v.Num
			}
			return math.NaN()
		}
		d.Inputs = append(d.Inputs, numbersPSI(f.Name, values(number, d.Fitted), values(number, d.Unseen)))
	}
	slices.SortStableFunc(d.Inputs, func(a, b PSI) int { return cmp.Compare(b.Value, a.Value) })
}

// numbersPSI has a bin of its own for missing values, NaN.
func numbersPSI(name string, a, b []float64) PSI {
	known := slices.DeleteFunc(slices.Clone(a), math.IsNaN)
	cuts := quantiles(known, psiBins)
	count := func(values []float64) []float64 {
		n := make([]float64, len(cuts)+2)
		for _, v := range values {
			if math.IsNaN(v) {
				n[len(cuts)+1]++
			} else {
				n[bin(cuts, v)]++
			}
		}
		return n
	}
	return psi(name, count(a), count(b))
}

// levelsPSI takes levels that few of the records fitted to have together.
func levelsPSI(name string, level func(i int) string, a, b []int) PSI {
	const most = 20
	counts := map[string]int{}
	for _, i := range a {
		counts[level(i)]++
	}
	var names []string
	for l := range counts {
		names = append(names, l)
	}
	slices.SortFunc(names, func(x, y string) int { return cmp.Or(cmp.Compare(counts[y], counts[x]), cmp.Compare(x, y)) })
	place := map[string]int{}
	for k, l := range names[:min(len(names), most)] {
		place[l] = k
	}
	count := func(rows []int) []float64 {
		n := make([]float64, len(place)+1)
		for _, i := range rows {
			if k, ok := place[level(i)]; ok {
				n[k]++
			} else {
				n[len(place)]++
			}
		}
		return n
	}
	return psi(name, count(a), count(b))
}

// psi of counts. Half a record is added to each bin, so that an empty one does not make it infinite.
func psi(name string, a, b []float64) PSI {
	p := PSI{Name: name}
	var n, m float64
	for k := range a {
		if a[k] == 0 && b[k] == 0 {
			continue
		}
		p.Bins++
		n, m = n+a[k]+0.5, m+b[k]+0.5
	}
	for k := range a {
		if a[k] == 0 && b[k] == 0 {
			continue
		}
		x, y := (a[k]+0.5)/n, (b[k]+0.5)/m
		p.Value += (y - x) * math.Log(y/x)
	}
	if n > 0 && m > 0 {
		p.Noise = float64(p.Bins-1) * (1/n + 1/m)
	}
	return p
}
