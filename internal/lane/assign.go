package lane

import (
	"hash/fnv"
	"slices"
)

// Assign gives each lane of a kind an owner among members, the same at whoever computes it from the same
// members: rendezvous hashing, levelled so that nobody owns more than ceil(lanes/members). Without members it
// returns empty names.
func Assign(kind string, lanes int, members []string) []string {
	owners := make([]string, lanes)
	if len(members) == 0 {
		return owners
	}
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	limit := (lanes + len(members) - 1) / len(members)
	load := make(map[string]int, len(members))
	for lane := range owners {
		var best string
		var weight uint64
		for _, m := range members {
			if w := rendezvous(kind, lane, m); load[m] < limit && (best == "" || w > weight) {
				best, weight = m, w
			}
		}
		owners[lane] = best
		load[best]++
	}
	return owners
}

func rendezvous(kind string, lane int, member string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(kind))
	h.Write([]byte{0, byte(lane), byte(lane >> 8), 0})
	h.Write([]byte(member))
	// FNV mixes its last bytes into the low bits only; the finaliser of MurmurHash3 spreads them.
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
