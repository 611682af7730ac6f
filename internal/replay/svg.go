package replay

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// distribution counts scores by their log-odds, in steps of binWidth from -binLimit to binLimit. What is beyond is in the outermost.
type distribution [binCount]uint64

const (
	binLimit   = 12
	binsInUnit = 4
	binWidth   = 1.0 / binsInUnit
	binCount   = 2 * binLimit * binsInUnit
)

func (d *distribution) add(logit float64) {
	i := math.Floor((logit + binLimit) / binWidth)
	d[int(min(max(i, 0), binCount-1))]++
}

// Sizes of the picture, in pixels.
const (
	width, height = 720, 360
	left, right   = 60, 20
	top, bottom   = 50, 50
)

// SVG draws the distributions of the scores of both versions: shares of the events by log-odds, as two outlines.
func (r Report) SVG(w io.Writer) error {
	if r.Against == nil {
		return fmt.Errorf("draw %s: there is nothing to compare with", r.Of.Model)
	}
	a, b := &r.Of.distribution, &r.Against.Against.distribution
	from, to, most := 0, binCount, uint64(1)
	for from < to-8 && a[from]+b[from] == 0 {
		from++
	}
	for to > from+8 && a[to-1]+b[to-1] == 0 {
		to--
	}
	for i := range a {
		most = max(most, a[i], b[i])
	}
	x := func(i int) float64 { return left + float64(i-from)*(width-left-right)/float64(to-from) }
	y := func(n uint64) float64 { return height - bottom - float64(n)*(height-top-bottom)/float64(most) }
	outline := func(d *distribution) string {
		var path strings.Builder
		fmt.Fprintf(&path, "M%.1f %.1f", x(from), y(0))
		for i := from; i < to; i++ {
			fmt.Fprintf(&path, "V%.1fH%.1f", y(d[i]), x(i+1))
		}
		fmt.Fprintf(&path, "V%.1f", y(0))
		return path.String()
	}
	var s strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	line(`<rect width="%d" height="%d" fill="#fff"/>`, width, height)
	line(`<text x="%d" y="20" font-size="14">Scores of %d events of %s</text>`, left, r.Scored, r.Kind) // a kind is plain text: events.CheckKind
	for i, v := range [...]struct{ name, colour string }{{r.Of.Model, "#1f5fa8"}, {r.Against.Against.Model, "#c2510c"}} {
		line(`<rect x="%d" y="30" width="10" height="10" fill="%s"/><text x="%d" y="39">%s</text>`, left+i*180, v.colour, left+14+i*180, v.name)
	}
	line(`<path d="%s" fill="#1f5fa8" fill-opacity=".2" stroke="#1f5fa8"/>`, outline(a))
	line(`<path d="%s" fill="#c2510c" fill-opacity=".2" stroke="#c2510c"/>`, outline(b))
	line(`<path d="M%d %dH%d" stroke="#333"/>`, left, height-bottom, width-right)
	step := binsInUnit * max(1, (to-from)/binsInUnit/10)
	for i := (from + step - 1) / step * step; i <= to; i += step {
		line(`<path d="M%.1f %dv5" stroke="#333"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>`, x(i), height-bottom, x(i), height-bottom+18, float64(i)*binWidth-binLimit)
	}
	line(`<text x="%d" y="%d" text-anchor="middle">log-odds of the bad outcome</text>`, (left+width-right)/2, height-12)
	share := 100 * float64(most) / float64(max(r.Scored, 1))
	line(`<text x="%d" y="%d" text-anchor="end">%.1f %%</text><text x="%d" y="%d" text-anchor="end">0</text>`, left-6, top+4, share, left-6, height-bottom+4)
	line(`</svg>`)
	_, err := io.WriteString(w, s.String())
	return err
}
