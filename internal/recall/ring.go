package recall

import (
	"sort"

	"github.com/riskweir/riskweir/internal/memory"
)

// ring holds the features of the latest events.
//
//	seqs ascends from head on, cyclically; every event from low up to the last folded is in it
type ring struct {
	width    int
	capacity int
	seqs     []uint64
	valid    []bool
	verdicts []memory.Verdict
	values   []float64 // width of each
	head     int       // the oldest, once seqs is full
	low      uint64
}

func (r *ring) at(i int) int { return (r.head + i) % len(r.seqs) }

// push returns where the features of the event go.
func (r *ring) push(seq uint64, valid bool, v memory.Verdict) []float64 {
	k := len(r.seqs)
	if k < r.capacity {
		r.seqs, r.valid, r.verdicts = append(r.seqs, seq), append(r.valid, valid), append(r.verdicts, v)
		for range r.width {
			r.values = append(r.values, 0)
		}
	} else {
		k = r.head
		r.low = r.seqs[k] + 1
		r.seqs[k], r.valid[k], r.verdicts[k] = seq, valid, v
		r.head = (r.head + 1) % len(r.seqs)
	}
	return r.values[k*r.width : (k+1)*r.width]
}

// find is nil for an event that is not in it, or was invalid.
func (r *ring) find(seq uint64) ([]float64, memory.Verdict) {
	n := len(r.seqs)
	i := sort.Search(n, func(i int) bool { return r.seqs[r.at(i)] >= seq })
	if i == n || r.seqs[r.at(i)] != seq || !r.valid[r.at(i)] {
		return nil, memory.Verdict{}
	}
	k := r.at(i)
	return r.values[k*r.width : (k+1)*r.width], r.verdicts[k]
}
