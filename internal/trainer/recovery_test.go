package trainer

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

var update = flag.Bool("update", false, "rewrite docs/recovery.svg")

// The simulated bank of which thieves change their ways at a known payment, in which no version is trained anew.
const (
	recoverySeeds  = 3
	recoveryTrain  = 20_000
	recoveryTurn   = 32_000
	recoveryEnd    = 60_000
	recoveryWindow = 2_000
)

// TestRecovery: as thieves change, the members that stand still go blind and stay so, and the fused score comes back, since one of its
// members learns on. Each label is known at once. With -update it draws docs/recovery.svg.
func TestRecovery(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("trains on 60,000 simulated payments, three times")
	}
	windows := (recoveryEnd - recoveryTrain) / recoveryWindow
	labels := make([][]float64, windows)
	ps := map[string][][]float64{} // by member, by window, over all seeds
	for _, name := range []string{model.KindBatch, model.KindBoost, model.KindOnline, Fused} {
		ps[name] = make([][]float64, windows)
	}
	for seed := range uint64(recoverySeeds) {
		r, y := recover1(t, seed+1)
		for i, label := range y {
			w := i / recoveryWindow
			labels[w] = append(labels[w], label)
			for k, name := range r.Names {
				ps[name][w] = append(ps[name][w], lr.Sigmoid(r.Logits[k][i]))
			}
			ps[Fused][w] = append(ps[Fused][w], lr.Sigmoid(r.Fused[i]))
		}
	}
	curves := map[string][]lr.Metrics{}
	for name, by := range ps {
		for w, p := range by {
			m, err := lr.Evaluate(labels[w], p)
			if err != nil {
				t.Fatal(err)
			}
			curves[name] = append(curves[name], m)
		}
	}
	mean := func(name string, from, to int) (auc float64) {
		for w := from; w < to; w++ {
			auc += curves[name][w].AUC / float64(to-from)
		}
		return auc
	}
	turn := (recoveryTurn - recoveryTrain) / recoveryWindow
	for _, name := range []string{model.KindBatch, model.KindBoost, model.KindOnline, Fused} {
		t.Logf("| %s | %.3f | %.3f | %.3f | %.3f |", name, mean(name, 0, turn), mean(name, turn, turn+1), mean(name, turn+1, turn+5), mean(name, windows-5, windows))
	}
	before, stands, back := mean(Fused, 0, turn), max(mean(model.KindBatch, windows-5, windows), mean(model.KindBoost, windows-5, windows)), mean(Fused, windows-5, windows)
	if back < stands+0.03 || back > before+0.05 {
		t.Errorf("fused AUC is %.3f before the turn and %.3f in the end, where the best that stands still has %.3f", before, back, stands)
	}
	const path = "../../docs/recovery.svg"
	svg := drawRecovery(curves, turn)
	if *update {
		if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if was, err := os.ReadFile(path); err != nil || string(was) != svg {
		t.Errorf("%s is not what this test draws (%v): go test ./internal/trainer -run TestRecovery -update", path, err)
	}
}

func recover1(t *testing.T, seed uint64) (*Later, []float64) {
	t.Helper()
	start := time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)
	g := sim.New(sim.Config{Seed: seed, Start: start, Turn: recoveryTurn})
	schema, err := events.Compile(sim.Contract())
	if err != nil {
		t.Fatal(err)
	}
	d := NewDataset(schema)
	var rec events.Record
	for i := range recoveryEnd {
		e := g.Next(start.Add(time.Duration(i) * 4 * time.Second))
		if err := schema.Decode(events.JSON, e.Body, &rec); err != nil {
			t.Fatal(err)
		}
		d.Append(&rec, e.Fraud)
	}
	all := Sequence(recoveryEnd)
	r, err := Fit(context.Background(), FitInput{Data: d, Train: all[:recoveryTrain], Test: all[recoveryTrain:], Members: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.Later, d.targets(all[recoveryTrain:])
}

// drawRecovery plots AUC by window.
func drawRecovery(curves map[string][]lr.Metrics, turn int) string {
	const left, top, width, height, low, high = 50, 20, 620, 260, 0.4, 1.0
	n := len(curves[Fused])
	x := func(w float64) float64 { return left + width*w/float64(n-1) }
	y := func(auc float64) float64 { return top + height*(high-auc)/(high-low) }
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 330\" font-family=\"sans-serif\" font-size=\"12\">\n")
	fmt.Fprintf(&b, "<title>AUC by %d payments, before and after thieves change their ways</title>\n<rect width=\"800\" height=\"330\" fill=\"white\"/>\n", recoveryWindow)
	for auc := low; auc < high+0.01; auc += 0.1 {
		fmt.Fprintf(&b, "<path d=\"M%d %.1fh%d\" stroke=\"#ddd\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n", left, y(auc), width, left-6, y(auc)+4, auc)
	}
	at := x(float64(turn) - 0.5)
	fmt.Fprintf(&b, "<path d=\"M%.1f %dv%d\" stroke=\"#666\" stroke-dasharray=\"4 3\"/><text x=\"%.1f\" y=\"%d\">thieves change</text>\n", at, top, height, at+5, top+height-8)
	for w := 0; w < n; w += 5 {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d,000</text>\n", x(float64(w)), top+height+18, (recoveryTrain+w*recoveryWindow)/1000)
	}
	fmt.Fprintf(&b, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">payments</text>\n", left+width/2, top+height+36)
	for i, c := range []struct{ name, colour string }{{model.KindBatch, "#999999"}, {model.KindBoost, "#c58b2a"}, {model.KindOnline, "#3a7dbd"}, {Fused, "#b02030"}} {
		fmt.Fprintf(&b, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"2\" d=\"", c.colour)
		for w, m := range curves[c.name] {
			fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(w, 1)], x(float64(w)), y(m.AUC))
		}
		fmt.Fprintf(&b, "\"/>\n<path d=\"M690 %dh20\" stroke=\"%s\" stroke-width=\"2\"/><text x=\"716\" y=\"%d\">%s</text>\n", 40+20*i, c.colour, 44+20*i, c.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
