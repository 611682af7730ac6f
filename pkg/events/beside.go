package events

import (
	"encoding/json"
	"fmt"
	"slices"
)

// MaxBeside is how many versions are counted beside the champion: shadows, and a canary.
const MaxBeside = MaxShadows + 2

// Beside counts how a version fared on a lane's events since it came into its stage. On some events it was not tried: what is scored beside must
// not hold up what is decided.
//
//	Failed + Late <= N
type Beside struct {
	Version int    `json:"version"`
	Since   int64  `json:"since"` // Unix ms: it came into its stage, by the rollout record
	N       uint64 `json:"n"`     // events that it was tried on
	Failed  uint64 `json:"failed,omitempty"`
	Late    uint64 `json:"late,omitempty"`
}

// Besides are of different versions; those behind the last are zero. It is an array, so that positions can be compared.
type Besides [MaxBeside]Beside

// Of returns the counts of a version in a stage, zero if there are none.
func (b *Besides) Of(version int, since int64) Beside {
	for _, x := range b {
		if x.Version == version && x.Since == since {
			return x
		}
	}
	return Beside{Version: version, Since: since}
}

// MarshalJSON writes a list of those that are not zero.
func (b Besides) MarshalJSON() ([]byte, error) {
	n := slices.IndexFunc(b[:], func(x Beside) bool { return x == Beside{} })
	if n < 0 {
		n = len(b)
	}
	return json.Marshal(b[:n])
}

// UnmarshalJSON refuses more than there is room for, and counts that cannot be.
func (b *Besides) UnmarshalJSON(text []byte) error {
	var list []Beside
	if err := json.Unmarshal(text, &list); err != nil {
		return err
	}
	*b = Besides{}
	if len(list) > len(b) {
		return fmt.Errorf("%d versions are counted beside the champion: at most %d", len(list), len(b))
	}
	for i, x := range list {
		if x.Version < 1 || x.Failed > x.N || x.Late > x.N-x.Failed {
			return fmt.Errorf("version %d failed on %d and was late on %d of %d events: that cannot be", x.Version, x.Failed, x.Late, x.N)
		}
		b[i] = x
	}
	return nil
}
