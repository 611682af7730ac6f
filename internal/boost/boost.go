// Package boost fits and applies small gradient-boosted trees: a second opinion beside a logistic regression, which sees steps,
// humps and what two columns mean together. A tree's say is split exactly among the columns on the record's way through it.
package boost

import (
	"errors"
	"fmt"
	"math"
)

// Bounds on a model, so that one from outside can neither exhaust a scorer nor hold it up.
const (
	MaxTrees = 500
	MaxDepth = 4
	maxNodes = 1<<(MaxDepth+1) - 1
	maxValue = 64 // log-odds of a node
)

// quantum is what values are multiples of. Sums and differences of at most MaxTrees of them are exact.
const quantum = 0x1p-30

// Node of a tree. A leaf has no column.
//
//	Left, Right > own index: every way ends
type Node struct {
	Column int     `json:"c"`           // -1: a leaf
	Cut    float64 `json:"t,omitempty"` // below it Left, else Right
	Left   int     `json:"l,omitempty"`
	Right  int     `json:"r,omitempty"`
	Value  float64 `json:"v"` // log-odds: mean of the leaves below, by the training records' curvature
}

// Tree is its nodes, the root first.
type Tree []Node

// Model is a sum of trees.
//
//	logit = Intercept + Σ over trees of the value of the leaf that is reached
type Model struct {
	Intercept float64 `json:"intercept"`
	Trees     []Tree  `json:"trees"`
}

// Check returns what is wrong with a model for records of so many columns.
func (m *Model) Check(columns int) error {
	if !(math.Abs(m.Intercept) <= maxValue) {
		return fmt.Errorf("intercept %v: want a number of at most %d in magnitude", m.Intercept, maxValue)
	}
	if len(m.Trees) > MaxTrees {
		return fmt.Errorf("%d trees: want at most %d", len(m.Trees), MaxTrees)
	}
	for i, t := range m.Trees {
		if len(t) == 0 || len(t) > maxNodes {
			return fmt.Errorf("tree %d has %d nodes: want 1 to %d", i, len(t), maxNodes)
		}
		for j, n := range t {
			switch {
			case !(math.Abs(n.Value) <= maxValue):
				return fmt.Errorf("tree %d, node %d: value %v: want a number of at most %d in magnitude", i, j, n.Value, maxValue)
			case n.Column < 0:
			case n.Column >= columns:
				return fmt.Errorf("tree %d, node %d: column %d: the spec makes %d", i, j, n.Column, columns)
			case math.IsNaN(n.Cut) || n.Left <= j || n.Right <= j || n.Left >= len(t) || n.Right >= len(t):
				return fmt.Errorf("tree %d, node %d: cut %v, below %d, above %d: want a number, and nodes behind it", i, j, n.Cut, n.Left, n.Right)
			}
		}
	}
	return nil
}

// Scorer is a model made ready: its trees in one piece.
type Scorer struct {
	nodes []step
	roots []int32
	base  float64 // what a record is given before the first question
}

type step struct {
	cut    float64
	next   [2]int32
	add    [2]float64 // what each way adds
	column int32      // -1: a leaf
	group  int32
}

// Compile makes a scorer that adds up by groups of columns. The model has passed Check.
func (m *Model) Compile(groupOf []int) *Scorer {
	s := &Scorer{base: snap(m.Intercept)}
	for _, t := range m.Trees {
		from := int32(len(s.nodes))
		s.roots = append(s.roots, from)
		s.base += snap(t[0].Value)
		for _, n := range t {
			st := step{column: int32(n.Column), cut: n.Cut}
			if n.Column >= 0 {
				st.group = int32(groupOf[n.Column])
				st.next = [2]int32{from + int32(n.Left), from + int32(n.Right)}
				st.add = [2]float64{snap(t[n.Left].Value) - snap(n.Value), snap(t[n.Right].Value) - snap(n.Value)}
			}
			s.nodes = append(s.nodes, st)
		}
	}
	return s
}

// Base is the logit before the first question of any tree: what contributions are measured from.
func (s *Scorer) Base() float64 { return s.base }

// Contributions adds to groups what each step on x's way adds (Saabas, Interpreting random forests, 2014). With Base the sum is
// the logit, exactly and in any order. It allocates nothing.
func (s *Scorer) Contributions(groups, x []float64) {
	for _, at := range s.roots {
		n := &s.nodes[at]
		for n.column >= 0 {
			way := 0
			if !(x[n.column] < n.cut) {
				way = 1
			}
			groups[n.group] += n.add[way]
			n = &s.nodes[n.next[way]]
		}
	}
}

// Logit of a record.
func (m *Model) Logit(x []float64) float64 {
	z := snap(m.Intercept)
	for _, t := range m.Trees {
		n := &t[0]
		for n.Column >= 0 {
			if x[n.Column] < n.Cut {
				n = &t[n.Left]
			} else {
				n = &t[n.Right]
			}
		}
		z += snap(n.Value)
	}
	return z
}

func snap(v float64) float64 { return math.RoundToEven(v/quantum) * quantum }

var errNoRows = errors.New("boost: no rows")
