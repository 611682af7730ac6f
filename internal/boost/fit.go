package boost

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/riskweir/riskweir/pkg/lr"
)

// Options of a fit. Zero values are the defaults given.
type Options struct {
	Trees   int     // at most; 100
	Depth   int     // questions on a record's way through a tree; 3
	Rate    float64 // share of a tree's improvement that is taken; 0.1
	L2      float64 // penalty on a leaf's value, in units of curvature; 5
	MinRows int     // drawn, on either side of a question; 10
	Bins    int     // that a column is cut into; 64

	Workers int // 0: as many as processors. The result does not depend on it.
}

// Bounds on the work: the cost of a fit is trees · depth · cells.
const (
	maxColumns = 256       // those with the most rows that are not 0
	maxCells   = 6_000_000 // of rows · columns: beyond, every k-th row is taken
)

func (o *Options) setDefaults() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.Trees, 100)
	def(&o.Depth, 3)
	def(&o.MinRows, 10)
	def(&o.Bins, 64)
	def(&o.Workers, runtime.GOMAXPROCS(0))
	if o.Rate == 0 {
		o.Rate = 0.1
	}
	if o.L2 == 0 {
		o.L2 = 5
	}
	if o.Trees < 1 || o.Trees > MaxTrees || o.Depth < 1 || o.Depth > MaxDepth || o.MinRows < 1 || o.Bins < 2 || o.Bins > 256 || !(o.Rate > 0 && o.Rate <= 1) || !(o.L2 >= 0) {
		return fmt.Errorf("boost: %+v: want 1 to %d trees, depth 1 to %d, 2 to 256 bins, a rate above 0 up to 1", *o, MaxTrees, MaxDepth)
	}
	return nil
}

// Fit boosts trees on the rows of x with labels y (Friedman, Greedy function approximation, 2001, with Newton's step in each
// leaf). The bits of the result do not depend on the number of workers or the processor. after, if not nil, is told the model
// after each tree, and ends the fit by returning false.
func Fit(ctx context.Context, x lr.Matrix, y []float64, o Options, after func(m *Model) bool) (*Model, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	if x.Rows == 0 || len(y) != x.Rows {
		return nil, errNoRows
	}
	g := newGrower(x, y, o)
	positives := 0.0
	for _, v := range g.y {
		positives += v
	}
	n := float64(len(g.y))
	if positives == 0 || positives == n {
		return nil, &lr.OneClassError{Class: int(min(positives, 1)), N: len(g.y)}
	}
	m := &Model{Intercept: snap(lr.Log(positives / (n - positives)))}
	for i := range g.logit {
		g.logit[i] = m.Intercept
	}
	for len(m.Trees) < o.Trees {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("boost: %w", err)
		}
		t := g.tree()
		if len(t) == 1 {
			break // nothing is left to ask
		}
		m.Trees = append(m.Trees, t)
		if after != nil && !after(m) {
			break
		}
	}
	return m, nil
}

// grower holds the rows in bins, column by column.
type grower struct {
	o       Options
	columns []int // those looked at
	cuts    [][]float64
	bins    [][]uint8 // by column looked at, by row
	y       []float64
	logit   []float64
	push    []push  // by row
	drawn   []int32 // rows of this tree, by node of the level, in their order
	pushed  []push  // of drawn, in its order
	spare   []int32
	trees   int // grown
}

// push is what a row wants of its leaf: the derivatives of its loss by the logit.
type push struct{ slope, curve float64 } // p - y, p(1-p)

func newGrower(x lr.Matrix, y []float64, o Options) *grower {
	g := &grower{o: o}
	filled := make([]int, x.Cols)
	for i := range x.Rows {
		for j, v := range x.Row(i) {
			if v != 0 {
				filled[j]++
			}
		}
	}
	for j, n := range filled {
		if n >= o.MinRows {
			g.columns = append(g.columns, j)
		}
	}
	if len(g.columns) > maxColumns {
		slices.SortStableFunc(g.columns, func(a, b int) int { return filled[b] - filled[a] })
		g.columns = g.columns[:maxColumns]
		slices.Sort(g.columns)
	}
	every := max(1, (x.Rows*len(g.columns)+maxCells-1)/maxCells)
	var taken []int
	for i := every - 1; i < x.Rows; i += every {
		taken = append(taken, i)
		g.y = append(g.y, y[i])
	}
	n := len(taken)
	g.logit, g.push, g.pushed = make([]float64, n), make([]push, n), make([]push, n)
	g.drawn, g.spare = make([]int32, 0, n), make([]int32, n)
	g.cuts, g.bins = make([][]float64, len(g.columns)), make([][]uint8, len(g.columns))
	g.each(func(k int) {
		values := make([]float64, n)
		for i, row := range taken {
			values[i] = x.Data[row*x.Cols+g.columns[k]]
		}
		g.cuts[k] = cuts(values, o.Bins)
		g.bins[k] = make([]uint8, n)
		for i, v := range values {
			g.bins[k][i] = uint8(lr.BinOf(g.cuts[k], v))
		}
	})
	return g
}

// cuts between the values, at most bins-1: all of them if there are few.
func cuts(values []float64, bins int) []float64 {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	distinct := slices.Compact(slices.Clone(sorted))
	var out []float64
	if len(distinct) <= bins {
		for i := 1; i < len(distinct); i++ {
			out = append(out, between(distinct[i-1], distinct[i]))
		}
		return out
	}
	for b := 1; b < bins; b++ {
		at := sorted[len(sorted)*b/bins]
		k, _ := slices.BinarySearch(distinct, at)
		if k == 0 {
			continue
		}
		if c := between(distinct[k-1], distinct[k]); len(out) == 0 || c > out[len(out)-1] {
			out = append(out, c)
		}
	}
	return out
}

// between is a number above a and not above b, of few digits.
func between(a, b float64) float64 {
	for scale := 0x1p2; scale < 0x1p40; scale *= 4 {
		if c := math.Ceil(float64((a+b)/2*scale)) / scale; c > a && c <= b {
			return c
		}
	}
	return b
}

// each calls f for every column looked at, by the workers.
func (g *grower) each(f func(k int)) {
	workers := min(g.o.Workers, len(g.columns))
	if workers <= 1 {
		for k := range g.columns {
			f(k)
		}
		return
	}
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			for k := w; k < len(g.columns); k += workers {
				f(k)
			}
		})
	}
	running.Wait()
}

// open is a node that may still be parted.
type open struct {
	node     int // of the tree
	from, to int // of rows
	slope    float64
	curve    float64
}

// question that parts a node best; gain 0: there is none.
type question struct {
	gain   float64
	column int // looked at
	bin    int // rows of lower bins go left
	cut    float64
}

// tree grows one, level by level, on half of the rows (Friedman, Stochastic gradient boosting, 2002), and adds it to the logits of
// all.
func (g *grower) tree() Tree {
	g.draw()
	root := open{to: len(g.drawn)}
	for _, r := range g.drawn {
		p := lr.Sigmoid(g.logit[r])
		g.push[r] = push{p - g.y[r], float64(p * (1 - p))}
		root.slope += g.push[r].slope
		root.curve += g.push[r].curve
	}
	t := Tree{{Column: -1, Value: g.value(root)}}
	level, bins := []open{root}, []int{0} // bins: of each node's cut
	var leaves []open
	for depth := 0; depth < g.o.Depth && len(level) > 0; depth++ {
		best := g.best(level)
		var next []open
		for i, n := range level {
			q := best[i]
			if q.gain <= 0 {
				leaves = append(leaves, n)
				continue
			}
			left, right := g.part(n, q)
			left.node, right.node = len(t), len(t)+1
			t[n.node].Column, t[n.node].Cut, t[n.node].Left, t[n.node].Right = q.column, q.cut, left.node, right.node
			bins[n.node] = q.bin
			t = append(t, Node{Column: -1, Value: g.value(left)}, Node{Column: -1, Value: g.value(right)})
			bins = append(bins, 0, 0)
			next = append(next, left, right)
		}
		level = next
	}
	t.settle(leaves, level)
	for r := range g.logit {
		n := 0
		for t[n].Column >= 0 {
			if int(g.bins[t[n].Column][r]) < bins[n] {
				n = t[n].Left
			} else {
				n = t[n].Right
			}
		}
		g.logit[r] += t[n].Value
	}
	for j := range t {
		if t[j].Column >= 0 {
			t[j].Column = g.columns[t[j].Column]
		}
	}
	g.trees++
	return t
}

// draw takes half of the rows, others for each tree, by splitmix64 of both numbers.
func (g *grower) draw() {
	g.drawn = g.drawn[:0]
	for r := range g.logit {
		z := (uint64(g.trees)<<32 + uint64(r) + 1) * 0x9E3779B97F4A7C15
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		if (z^z>>31)&1 == 0 {
			g.drawn = append(g.drawn, int32(r))
		}
	}
}

// settle gives inner nodes the mean of the leaves below them, by curvature.
func (t Tree) settle(parts ...[]open) {
	weight := make([]float64, len(t))
	for _, part := range parts {
		for _, n := range part {
			weight[n.node] = n.curve
		}
	}
	for j := len(t) - 1; j >= 0; j-- {
		if n := &t[j]; n.Column >= 0 {
			l, r := weight[n.Left], weight[n.Right]
			weight[j] = l + r
			n.Value = snap((float64(l*t[n.Left].Value) + float64(r*t[n.Right].Value)) / (l + r))
		}
	}
}

func (g *grower) value(n open) float64 {
	v := -float64(g.o.Rate*n.slope) / (n.curve + g.o.L2)
	return snap(min(max(v, -4), 4))
}

// part puts the rows of a node in two, each in their order.
func (g *grower) part(n open, q question) (left, right open) {
	bins := g.bins[q.column]
	left.from, right.to = n.from, n.to
	at, spare := n.from, g.spare[:0]
	for _, r := range g.drawn[n.from:n.to] {
		if int(bins[r]) < q.bin {
			left.slope += g.push[r].slope
			left.curve += g.push[r].curve
			g.drawn[at] = r
			at++
		} else {
			right.slope += g.push[r].slope
			right.curve += g.push[r].curve
			spare = append(spare, r)
		}
	}
	copy(g.drawn[at:n.to], spare)
	left.to, right.from = at, at
	return left, right
}

type cell struct {
	slope, curve float64
	n            int
}

// best question of each node of a level. Of equal ones the first column's and lowest bin's is taken.
func (g *grower) best(level []open) []question {
	byColumn := make([][]question, len(g.columns))
	for i, r := range g.drawn { // side by side, for every column to read them so
		g.pushed[i] = g.push[r]
	}
	g.each(func(k int) {
		found := make([]question, len(level))
		cells := make([]cell, len(g.cuts[k])+1)
		for i, n := range level {
			clear(cells)
			bins := g.bins[k]
			pushed := g.pushed[n.from:n.to]
			for at, r := range g.drawn[n.from:n.to] {
				c := &cells[bins[r]]
				c.slope += pushed[at].slope
				c.curve += pushed[at].curve
				c.n++
			}
			found[i] = g.scan(cells, n, k)
		}
		byColumn[k] = found
	})
	best := make([]question, len(level))
	for _, found := range byColumn {
		for i, q := range found {
			if q.gain > best[i].gain {
				best[i] = q
			}
		}
	}
	return best
}

// scan tries every cut of a column.
func (g *grower) scan(cells []cell, n open, k int) (best question) {
	total := cell{n: n.to - n.from}
	for _, c := range cells { // in the same order as below, so that nothing is left over
		total.slope += c.slope
		total.curve += c.curve
	}
	whole := float64(total.slope*total.slope) / (total.curve + g.o.L2)
	var low cell
	for b, c := range cells[:len(cells)-1] {
		low.slope += c.slope
		low.curve += c.curve
		low.n += c.n
		if low.n < g.o.MinRows || total.n-low.n < g.o.MinRows {
			continue
		}
		slope, curve := total.slope-low.slope, total.curve-low.curve
		gain := float64(low.slope*low.slope)/(low.curve+g.o.L2) + float64(slope*slope)/(curve+g.o.L2) - whole
		if gain > best.gain+1e-9 {
			best = question{gain: gain, column: k, bin: b + 1, cut: g.cuts[k][b]}
		}
	}
	return best
}
