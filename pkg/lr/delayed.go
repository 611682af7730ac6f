package lr

import (
	"container/list"
	"fmt"
	"slices"
)

// Delayed is an [FTRL] learner for labels that come later than their rows, in any order or
// never: it keeps what was predicted until the label comes.
//
// The label is learned with the weights of the moment it comes, by the gradient there. But it
// is the prediction as it was published that [FTRL.Progressive] judges, made without
// the labels that came between. So what is learned depends on the order of the labels only,
// and the measure says how delay hurts.
//
// A Delayed must not be used by two goroutines at a time.
type Delayed struct {
	learner  *FTRL
	capacity int
	expired  int
	order    *list.List // of *waiting, the oldest first
	rows     map[uint64]*list.Element
}

// waiting is a row whose label has not come.
type waiting struct {
	id    uint64
	p     float64 // as predicted
	index []int32
	data  []float64
}

// PendingError says that a row is not waiting for a label, or already is.
type PendingError struct {
	ID      uint64
	Waiting bool // it already is
}

func (e *PendingError) Error() string {
	if e.Waiting {
		return fmt.Sprintf("lr: row %d already waits for its label", e.ID)
	}
	return fmt.Sprintf("lr: row %d does not wait for a label: it was never predicted, has its label, or was forgotten", e.ID)
}

// NewDelayed keeps at most capacity rows, at least 1, waiting for labels of learner, which
// from now on must be taught through it only.
func NewDelayed(learner *FTRL, capacity int) (*Delayed, error) {
	if capacity < 1 {
		return nil, &ShapeError{What: "capacity", Got: capacity, Want: "at least 1"}
	}
	return &Delayed{learner: learner, capacity: capacity, order: list.New(), rows: map[uint64]*list.Element{}}, nil
}

// Predict returns the probability of label 1 for a row and keeps a copy of it until
// [Delayed.Label] is called with the same id, such as the number of the event. If capacity
// rows wait already, the oldest is forgotten. The error is a [PendingError] if a row of
// this id waits, or as those of [FTRL.Learn], and leaves d as it was.
func (d *Delayed) Predict(id uint64, index []int32, data []float64) (p float64, err error) {
	if _, ok := d.rows[id]; ok {
		return 0, &PendingError{ID: id, Waiting: true}
	}
	if err := d.learner.check(index, data); err != nil {
		return 0, err
	}
	if len(d.rows) == d.capacity {
		oldest := d.order.Front()
		delete(d.rows, d.order.Remove(oldest).(*waiting).id)
		d.expired++
	}
	w := &waiting{id: id, p: d.learner.Prob(index, data), index: slices.Clone(index), data: slices.Clone(data)}
	d.rows[id] = d.order.PushBack(w)
	return w.p, nil
}

// Label learns the label y, 0 or 1, of the row that was predicted as id, and returns what
// was predicted. weight is as for [FTRL.Learn]. The error is a [PendingError] if no row of
// this id waits, or a [ValueError], and leaves d as it was.
func (d *Delayed) Label(id uint64, y, weight float64) (p float64, err error) {
	if err := checkExample(y, weight); err != nil {
		return 0, err
	}
	e, ok := d.rows[id]
	if !ok {
		return 0, &PendingError{ID: id}
	}
	w := d.order.Remove(e).(*waiting)
	delete(d.rows, id)
	if weight == 0 {
		return w.p, nil
	}
	d.learner.judge(w.p, y, weight)
	d.learner.update(w.index, w.data, float64(weight*(d.learner.Prob(w.index, w.data)-y)))
	return w.p, nil
}

// Learner returns the learner, to be read.
func (d *Delayed) Learner() *FTRL { return d.learner }

// Waiting returns how many rows wait for labels.
func (d *Delayed) Waiting() int { return len(d.rows) }

// Expired returns how many rows were forgotten because others needed their place.
func (d *Delayed) Expired() int { return d.expired }
