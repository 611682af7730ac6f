package verify

import (
	"fmt"
	"hash/fnv"
	"iter"
	"slices"

	"github.com/riskweir/riskweir/pkg/events"
)

// SourceReport compares the rows of a source with the outcomes, by id.
type SourceReport struct {
	Rows      uint64 `json:"rows"`
	Missing   uint64 `json:"missing"`   // rows without an outcome of their own
	Duplicate uint64 `json:"duplicate"` // outcomes beyond one a row
}

// rows counts outcomes by the hash of a row's id, in 12 bytes a row. Of ten million ids two share their
// 64 bits with a probability of 3e-6.
type rows struct {
	hashes []uint64       // sorted; an id that stands k times in the source stands k times here
	counts []uint32       // outcomes, at the first index of their hash
	again  map[int]uint32 // likewise, of events that repeat another: they are a row's own only where no other outcome is
	n      uint64
}

func idHash(id string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(id))
	return h.Sum64()
}

func newRows(source iter.Seq2[string, error]) (*rows, error) {
	r := &rows{again: map[int]uint32{}}
	for id, err := range source {
		if err != nil {
			return nil, err
		}
		r.hashes = append(r.hashes, idHash(id))
	}
	r.n = uint64(len(r.hashes))
	slices.Sort(r.hashes)
	r.counts = make([]uint32, len(r.hashes))
	return r, nil
}

// outcome counts one of the id. Ids that the source does not have are not its business.
func (r *rows) outcome(id string, again bool) {
	i, ok := slices.BinarySearch(r.hashes, idHash(id))
	switch {
	case !ok:
	case again:
		r.again[i]++
	default:
		r.counts[i]++
	}
}

// finish fills in report.Source, and names rows in a second pass over the source where there is need.
func (r *rows) finish(source iter.Seq2[string, error], limit int, report *Report) error {
	s := &SourceReport{Rows: r.n}
	report.Source = s
	for i := 0; i < len(r.hashes); {
		j := i + 1
		for j < len(r.hashes) && r.hashes[j] == r.hashes[i] {
			j++
		}
		want, got := uint64(j-i), uint64(r.counts[i])
		s.Missing += want - min(want, got+uint64(r.again[i]))
		s.Duplicate += got - min(want, got)
		i = j
	}
	if s.Missing+s.Duplicate == 0 {
		return nil
	}
	var row, missing, duplicate uint64
	for id, err := range source {
		if err != nil {
			return err
		}
		row++
		i, _ := slices.BinarySearch(r.hashes, idHash(id))
		want := uint32(1)
		for k := i + 1; k < len(r.hashes) && r.hashes[k] == r.hashes[i]; k++ {
			want++
		}
		switch got := r.counts[i]; {
		case got+r.again[i] < want && missing < uint64(limit):
			missing++
			report.Offenders = append(report.Offenders, Offender{What: whatMissing, Row: row, ID: id, Note: "no outcome has this id"})
		case got > want && duplicate < uint64(limit):
			duplicate++
			report.Offenders = append(report.Offenders, Offender{What: whatDuplicate, Row: row, ID: id, Note: fmt.Sprintf("%d outcomes have this id", got)})
		}
	}
	return nil
}

func outcomeID(band string, body []byte) (string, error) {
	if band == events.BandInvalid {
		x, err := events.DecodeInvalid(body)
		return x.ID, err
	}
	if isRepeat(band) {
		x, err := events.DecodeRepeat(body)
		return x.ID, err
	}
	x, err := events.DecodeScore(body)
	return x.ID, err
}
