package dossier

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"time"
)

//go:embed page.html
var page string

// WriteHTML writes the page: one file, with nothing from elsewhere.
func (d *Dossier) WriteHTML(w io.Writer) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"day": day,
		"f3":  func(v float64) string { return fixed(v, 3) },
		"f4":  func(v float64) string { return fixed(v, 4) },
		"f5":  func(v float64) string { return fixed(v, 5) },
		"g":   figure,
		"g3":  func(v float64) string { return fmt.Sprintf("%.3g", v) },
		"pc":  func(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) },
		"sub": func(a, b int) int { return a - b },
		"div": func(a float64, b int) float64 { return a / float64(max(b, 1)) },
		"mul": func(a, b float64) float64 { return a * b },
		"rate": func(bad, rows int) float64 {
			return float64(bad) / float64(max(rows, 1))
		},
		"sign": func(s int) string {
			switch {
			case s > 0:
				return "+"
			case s < 0:
				return "−"
			}
			return ""
		},
		"signOf": func(v float64) string {
			switch {
			case v > 0:
				return "+"
			case v < 0:
				return "−"
			}
			return "0"
		},
		"pvalue": func(p float64) string {
			if p < 0.001 {
				return "< 0.001"
			}
			return fixed(p, 3)
		},
		"rfc": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := t.Execute(w, d); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// fixed has a true minus sign.
func fixed(v float64, digits int) string {
	if v < 0 && math.Round(v*math.Pow10(digits)) != 0 {
		return "−" + fmt.Sprintf("%.*f", digits, -v)
	}
	return fmt.Sprintf("%.*f", digits, math.Abs(v))
}
