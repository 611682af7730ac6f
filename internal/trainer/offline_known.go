package trainer

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/pkg/events"
)

// FileLabels says when the labels of a file's rows became known to whom they are remembered by. A row has them before it whose time is no
// later than the latest of the rows up to it.
type FileLabels struct {
	After  time.Duration // a row's own time and so long; 0 without Column: the contract's maturity
	Column string        // that holds the time, in RFC 3339; a row without one is never known
}

// fileKnown keeps the labels of rows until they are due.
type fileKnown struct {
	FileLabels
	plan     *memory.Plan
	label    string // column
	positive []string
	due      dueLabels
	now      time.Time
	rows     uint64
}

// newFileKnown is nil where the memory has no features of labels.
func newFileKnown(p *memory.Plan, l FileLabels, label string, positive []string) (*fileKnown, error) {
	if p == nil || !p.HasLabels() {
		return nil, nil
	}
	c := &p.Schema.Contract
	switch {
	case label == "":
		return nil, fmt.Errorf("contract %s: memory is taken of labels, and no column is said to hold them", c.Kind)
	case l.Column != "" && l.After != 0:
		return nil, errors.New("labels are known at the time in a column, or so long after their rows: not both")
	case l.Column == "" && l.After == 0:
		l.After = time.Duration(c.Maturity)
	}
	if l.Column == "" && l.After <= 0 {
		return nil, fmt.Errorf("contract %s: memory is taken of labels, and has no maturity: say when the labels of rows became known", c.Kind)
	}
	return &fileKnown{FileLabels: l, plan: p, label: label, positive: positive}, nil
}

// before tells store what is known as a row of the time comes.
func (k *fileKnown) before(store *memory.Store, at time.Time) {
	if at.After(k.now) {
		k.now = at
	}
	for len(k.due) > 0 && !k.due[0].at.After(k.now) {
		x := heap.Pop(&k.due).(dueLabel)
		store.Know(&x.known)
	}
}

// after keeps the label of a row.
func (k *fileKnown) after(rec *events.Record, columns, cells []string) error {
	k.rows++
	text := cellOf(columns, cells, k.label)
	if text == "" {
		return nil
	}
	at := rec.Time.Add(k.After)
	if k.Column != "" {
		when := cellOf(columns, cells, k.Column)
		if when == "" {
			return nil
		}
		var err error
		if at, err = time.Parse(time.RFC3339Nano, when); err != nil {
			return fmt.Errorf("column %s: %w", k.Column, err)
		}
	}
	known, ok := k.plan.Tell(memory.Event{Record: rec})
	if !ok {
		return nil // as it would not be told of in a stream
	}
	known.Seq, known.Label = k.rows, events.GoodLabel
	if slices.Contains(k.positive, text) {
		known.Label = events.BadLabel
	}
	heap.Push(&k.due, dueLabel{at, known})
	return nil
}

func cellOf(columns, cells []string, column string) string {
	if i := slices.Index(columns, column); i >= 0 {
		return cells[i]
	}
	return ""
}

type dueLabel struct {
	at    time.Time
	known events.Known
}

// dueLabels is a heap: what is known first stands first, of equals the row that stands first.
type dueLabels []dueLabel

func (q dueLabels) Len() int { return len(q) }
func (q dueLabels) Less(i, j int) bool {
	if n := q[i].at.Compare(q[j].at); n != 0 {
		return n < 0
	}
	return q[i].known.Seq < q[j].known.Seq
}
func (q dueLabels) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *dueLabels) Push(x any)   { *q = append(*q, x.(dueLabel)) }
func (q *dueLabels) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}
