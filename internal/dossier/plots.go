package dossier

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// A plot is an SVG whose colours are the page's: classes a and b are the two series, and dashes and marks tell them apart without colour.
type plot struct {
	strings.Builder
	x0, x1, y0, y1 float64 // of the data
}

const (
	plotWidth, plotHeight   = 460.0, 300.0
	plotLeft, plotRight     = 52.0, 14.0
	plotTop, plotBottom     = 14.0, 44.0
	innerWidth, innerHeight = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
)

func newPlot(title, desc string, x0, x1, y0, y1 float64) *plot {
	if !(x1 > x0) {
		x1 = x0 + 1
	}
	if !(y1 > y0) {
		y1 = y0 + 1
	}
	p := &plot{x0: x0, x1: x1, y0: y0, y1: y1}
	p.add(`<svg viewBox="0 0 %g %g" role="img" aria-label="%s. %s">`, plotWidth, plotHeight, template.HTMLEscapeString(title), template.HTMLEscapeString(desc))
	return p
}

func (p *plot) add(format string, a ...any) { fmt.Fprintf(&p.Builder, format+"\n", a...) }

func (p *plot) x(v float64) float64 {
	return plotLeft + (min(max(v, p.x0), p.x1)-p.x0)/(p.x1-p.x0)*innerWidth
}
func (p *plot) y(v float64) float64 {
	return plotTop + innerHeight - (min(max(v, p.y0), p.y1)-p.y0)/(p.y1-p.y0)*innerHeight
}

// axes with names, and about five ticks each.
func (p *plot) axes(nameX, nameY string, labelX, labelY func(float64) string) {
	bottom := plotTop + innerHeight
	for _, v := range ticks(p.y0, p.y1) {
		p.add(`<path class="grid" d="M%.1f %.1fH%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
			plotLeft, p.y(v), plotLeft+innerWidth, plotLeft-6, p.y(v)+4, template.HTMLEscapeString(labelY(v)))
	}
	if labelX != nil {
		for _, v := range ticks(p.x0, p.x1) {
			p.add(`<path class="axis" d="M%.1f %.1fv4"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
				p.x(v), bottom, p.x(v), bottom+17, template.HTMLEscapeString(labelX(v)))
		}
	}
	p.add(`<path class="axis" d="M%.1f %.1fV%.1fH%.1f"/>`, plotLeft, plotTop, bottom, plotLeft+innerWidth)
	p.add(`<text class="name" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, plotLeft+innerWidth/2, plotHeight-6, template.HTMLEscapeString(nameX))
	p.add(`<text class="name" transform="translate(12 %.1f) rotate(-90)" text-anchor="middle">%s</text>`, plotTop+innerHeight/2, template.HTMLEscapeString(nameY))
}

func (p *plot) end() template.HTML {
	p.add(`</svg>`)
	return template.HTML(p.String()) // made of numbers, and of texts that were escaped
}

// ticks are about five round numbers from a to b.
func ticks(a, b float64) []float64 {
	raw := (b - a) / 5
	step := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, f := range []float64{1, 2, 5, 10} {
		if step*f >= raw {
			step *= f
			break
		}
	}
	var out []float64
	for v := math.Ceil(a/step) * step; v <= b+step*1e-9; v += step {
		out = append(out, math.Round(v/step)*step)
	}
	return out
}

func percent(v float64) string { return trimmed(100*v) + " %" }
func trimmed(v float64) string {
	s := fmt.Sprintf("%.2f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func share(v float64) string { return trimmed(v) }

// ROC curve.
func (d *Dossier) ROC() template.HTML {
	if len(d.Curve) == 0 {
		return ""
	}
	p := newPlot("ROC curve", fmt.Sprintf("Share of bad records found against share of good ones taken for bad. AUC %.3f", d.Overall.AUC.AUC), 0, 1, 0, 1)
	p.axes("good records taken for bad", "bad records found", share, share)
	p.add(`<path class="chance" d="M%.1f %.1fL%.1f %.1f"/>`, p.x(0), p.y(0), p.x(1), p.y(1))
	var path strings.Builder
	for i, c := range d.Curve {
		fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[i == 0], p.x(c.FPR), p.y(c.TPR))
	}
	p.add(`<path class="line a" d="%s"/>`, path.String())
	p.add(`<text class="note" x="%.1f" y="%.1f" text-anchor="end">AUC %.3f (%.3f to %.3f)</text>`, p.x(0.98), p.y(0.06), d.Overall.AUC.AUC, d.Overall.AUC.Low, d.Overall.AUC.High)
	p.add(`<text class="note muted" x="%.1f" y="%.1f" text-anchor="middle" transform="rotate(%.1f %.1f %.1f)">chance</text>`,
		p.x(0.3), p.y(0.3)+16, -math.Atan(innerHeight/innerWidth)*180/math.Pi, p.x(0.3), p.y(0.3)+16)
	return p.end()
}

// Calibration in tenths of the records.
func (d *Dossier) Calibration() template.HTML {
	if len(d.Bins) == 0 {
		return ""
	}
	top := 0.0
	for _, b := range d.Bins {
		top = max(top, b.MeanP, b.High)
	}
	p := newPlot("Calibration", "Share of bad records against the mean probability, in tenths of the records, with intervals", 0, top*1.05, 0, top*1.05)
	p.axes("mean probability", "share that was bad", percent, percent)
	p.add(`<path class="chance" d="M%.1f %.1fL%.1f %.1f"/>`, p.x(0), p.y(0), p.x(p.x1), p.y(p.y1))
	for _, b := range d.Bins {
		p.add(`<path class="bar a" d="M%.1f %.1fV%.1f"/><circle class="dot a" cx="%.1f" cy="%.1f" r="3.5"/>`, p.x(b.MeanP), p.y(b.Low), p.y(b.High), p.x(b.MeanP), p.y(b.Rate))
	}
	return p.end()
}

// Scores of good and of bad records.
func (d *Dossier) Scores() template.HTML {
	h := d.Histogram
	if len(h.Good) == 0 {
		return ""
	}
	top := 0.0
	for k := range h.Good {
		top = max(top, h.Good[k], h.Bad[k])
	}
	p := newPlot("Scores", "Distribution of the log-odds of good records and of bad ones, each as shares of their own", h.From, h.From+h.Step*float64(len(h.Good)), 0, top*1.1)
	p.axes("log-odds of the bad outcome", "share of the records", trimmed, percent)
	for _, s := range []struct {
		class string
		bins  []float64
	}{{"a", h.Good}, {"b", h.Bad}} {
		var path strings.Builder
		fmt.Fprintf(&path, "M%.1f %.1f", p.x(h.From), p.y(0))
		for k, v := range s.bins {
			fmt.Fprintf(&path, "V%.1fH%.1f", p.y(v), p.x(h.From+h.Step*float64(k+1)))
		}
		fmt.Fprintf(&path, "V%.1f", p.y(0))
		p.add(`<path class="area %s" d="%s"/>`, s.class, path.String())
	}
	p.add(`<g transform="translate(%.1f %.1f)"><path class="line a" d="M0 0h22"/><text class="note" x="28" y="4">good</text><path class="line b" d="M70 0h22"/><text class="note" x="98" y="4">bad</text></g>`, plotLeft+10, plotTop+8)
	return p.end()
}

// AUCOverTime with intervals.
func (d *Dossier) AUCOverTime() template.HTML {
	low, any := 1.0, false
	for _, s := range d.Over {
		if !s.OneClass {
			low, any = min(low, s.AUC.Low, s.AUC.AUC), true
		}
	}
	if !any {
		return ""
	}
	if low < 0.05 && d.Overall.AUC.AUC > 0.5 {
		low = 0.4
	}
	n := float64(len(d.Over))
	p := newPlot("AUC over time", fmt.Sprintf("AUC with intervals in %d stretches of about equally many records", len(d.Over)), 0, n, math.Floor(low*10)/10, 1)
	p.axes("records in the order of time", "AUC", nil, share)
	p.labelSpans(d.Over)
	for k, s := range d.Over {
		if s.OneClass {
			continue
		}
		x := p.x(float64(k) + 0.5)
		p.add(`<path class="bar a" d="M%.1f %.1fV%.1f"/>`, x, p.y(s.AUC.Low), p.y(s.AUC.High))
		if s.Seen {
			p.add(`<circle class="hollow a" cx="%.1f" cy="%.1f" r="3.5"/>`, x, p.y(s.AUC.AUC))
		} else {
			p.add(`<circle class="dot a" cx="%.1f" cy="%.1f" r="3.5"/>`, x, p.y(s.AUC.AUC))
		}
	}
	return p.end()
}

// RateOverTime is the share of bad records, and what was expected.
func (d *Dossier) RateOverTime() template.HTML {
	if len(d.Over) == 0 {
		return ""
	}
	top := 0.0
	for _, s := range d.Over {
		top = max(top, s.RateHigh, s.Expected/float64(max(s.N, 1)))
	}
	n := float64(len(d.Over))
	p := newPlot("Bad records over time", fmt.Sprintf("Share of bad records with intervals, and the mean probability, in %d stretches of about equally many records", len(d.Over)), 0, n, 0, top*1.15)
	p.axes("records in the order of time", "share", nil, percent)
	p.labelSpans(d.Over)
	var path strings.Builder
	for k, s := range d.Over {
		x := p.x(float64(k) + 0.5)
		p.add(`<path class="bar a" d="M%.1f %.1fV%.1f"/><circle class="dot a" cx="%.1f" cy="%.1f" r="3.5"/>`, x, p.y(s.RateLow), p.y(s.RateHigh), x, p.y(s.Rate))
		fmt.Fprintf(&path, "%s%.1f %.1f", map[bool]string{true: "M", false: "L"}[k == 0], x, p.y(s.Expected/float64(max(s.N, 1))))
	}
	p.add(`<path class="line b" d="%s"/>`, path.String())
	p.add(`<g transform="translate(%.1f %.1f)"><circle class="dot a" cx="8" cy="0" r="3.5"/><text class="note" x="18" y="4">was bad</text><path class="line b" d="M86 0h22"/><text class="note" x="114" y="4">expected</text></g>`, plotLeft+10, plotTop+6)
	return p.end()
}

// labelSpans names the first and the last day.
func (p *plot) labelSpans(over []Span) {
	y := plotTop + innerHeight + 17
	form := "2006-01-02"
	if over[len(over)-1].To.Sub(over[0].From).Hours() < 72 {
		form = "01-02 15:04"
	}
	p.add(`<text class="tick" x="%.1f" y="%.1f">%s</text><text class="tick" x="%.1f" y="%.1f" text-anchor="end">%s</text>`,
		plotLeft, y, over[0].From.UTC().Format(form), plotLeft+innerWidth, y, over[len(over)-1].To.UTC().Format(form))
}
