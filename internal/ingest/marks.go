package ingest

import (
	"context"
	"io"
	"sync"
	"time"
)

// marks remembers when rows were committed, so that their labels can follow after the delay. Commits within
// a thousandth of the delay share a mark, so there are about a thousand at most.
//
//	rows and at rise from mark to mark
type marks struct {
	delay time.Duration

	mu      sync.Mutex
	list    []mark
	closed  bool // no mark follows
	changed chan struct{}
}

type mark struct {
	rows  int64     // committed by
	at    time.Time // the last commit that it stands for
	since time.Time // the first
}

func newMarks(delay time.Duration) *marks {
	return &marks{delay: delay, changed: make(chan struct{})}
}

func (m *marks) add(rows int64, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.list)
	switch {
	case rows == 0 || n > 0 && rows <= m.list[n-1].rows:
		return
	case n > 0 && at.Sub(m.list[n-1].since) < m.delay/1000:
		m.list[n-1].rows, m.list[n-1].at = rows, at
	default:
		m.list = append(m.list, mark{rows: rows, at: at, since: at})
	}
	m.tell()
}

func (m *marks) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.tell()
}

func (m *marks) tell() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// due says when the label of the row with this index may go. Marks before it are forgotten.
func (m *marks) due(index int64) (at time.Time, known, closed bool, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.list) > 0 && m.list[0].rows <= index {
		if len(m.list) == 1 { // kept, so that rows never falls
			return time.Time{}, false, m.closed, m.changed
		}
		m.list = m.list[1:]
	}
	if len(m.list) == 0 {
		return time.Time{}, false, m.closed, m.changed
	}
	return m.list[0].at.Add(m.delay), true, m.closed, m.changed
}

// wait returns when the label of the row with this index may go, io.EOF if that row will never be committed.
func (m *marks) wait(ctx context.Context, index int64) error {
	for {
		at, known, closed, changed := m.due(index)
		if !known && closed {
			return io.EOF
		}
		var timer *time.Timer
		var fire <-chan time.Time
		if known {
			left := time.Until(at)
			if left <= 0 {
				return nil
			}
			timer = time.NewTimer(left)
			fire = timer.C
		}
		select {
		case <-ctx.Done():
		case <-fire:
		case <-changed:
		}
		if timer != nil {
			timer.Stop()
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
