package erase

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Tombstone says which messages were removed: a value of ERASURES, under <kind>.<id>. It does not name the entity.
//
//	Done: every sequence of Events, Scores, Labels and Rescores is gone, for good
type Tombstone struct {
	ID     string    `json:"id"`
	Kind   string    `json:"kind"`
	At     time.Time `json:"at"`
	By     string    `json:"by"`
	Reason string    `json:"reason"`
	Done   bool      `json:"done"`

	Incarnation time.Time `json:"incarnation"` // of EVENTS, in which Events count
	ScoresMade  time.Time `json:"scores_made"` // of SCORES, in which Scores count
	Events      Ranges    `json:"events"`
	Scores      Ranges    `json:"scores"`
	Labels      Ranges    `json:"labels"`   // in LABELS
	Rescores    Ranges    `json:"rescores"` // in RESCORES

	Models []string `json:"models,omitempty"` // versions that were trained on a range with some of Events in it
}

// Range of sequences, both inclusive.
type Range [2]uint64

// Ranges are ascending, and do not touch.
type Ranges []Range

// add is given ascending sequences.
func (r Ranges) add(seq uint64) Ranges {
	if n := len(r); n > 0 && r[n-1][1]+1 == seq {
		r[n-1][1] = seq
		return r
	}
	return append(r, Range{seq, seq})
}

func rangesOf(seqs []uint64) Ranges {
	out := Ranges{}
	seqs = slices.Clone(seqs)
	slices.Sort(seqs)
	for _, s := range slices.Compact(seqs) {
		out = out.add(s)
	}
	return out
}

// Len is how many sequences there are.
func (r Ranges) Len() (n uint64) {
	for _, x := range r {
		n += x[1] - x[0] + 1
	}
	return n
}

// all yields every sequence.
func (r Ranges) all(yield func(uint64) bool) {
	for _, x := range r {
		for s := x[0]; s <= x[1]; s++ {
			if !yield(s) {
				return
			}
		}
	}
}

// touches says whether a sequence from first to last is among them.
func (r Ranges) touches(first, last uint64) bool {
	return slices.ContainsFunc(r, func(x Range) bool { return x[0] <= last && first <= x[1] })
}

// Bounds of what a damaged record could have removed.
const (
	maxErased = 100_000_000
	maxSeq    = 1 << 62
)

var errTombstone = errors.New("tombstone")

// Decode refuses unknown members and ranges that are out of order.
func Decode(body []byte) (Tombstone, error) {
	var t Tombstone
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return Tombstone{}, fmt.Errorf("%w: %w", errTombstone, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Tombstone{}, fmt.Errorf("%w: text behind its end", errTombstone)
	}
	for _, r := range []Ranges{t.Events, t.Scores, t.Labels, t.Rescores} {
		last, n := uint64(0), uint64(0)
		for _, x := range r {
			if x[0] <= last || x[1] < x[0] || x[1] > maxSeq || x[1]-x[0] >= maxErased || n+x[1]-x[0]+1 > maxErased {
				return Tombstone{}, fmt.Errorf("%w: ranges of sequences out of order, or of too many", errTombstone)
			}
			last, n = x[1], n+x[1]-x[0]+1
		}
	}
	if t.ID == "" || t.Kind == "" {
		return Tombstone{}, fmt.Errorf("%w: names no kind", errTombstone)
	}
	return t, nil
}

func encode(t *Tombstone) ([]byte, error) {
	body, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTombstone, err)
	}
	return body, nil
}
