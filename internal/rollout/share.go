package rollout

import (
	"math"
	"strconv"
)

// Share of the entities of a kind for which a version decides as a canary.
//
//	hash = mix(FNV-1a 64 of kind, 0, version in decimal, 0, entity)
//	the entity is in it  <=>  hash / 2⁶⁴ < share
//
// So an entity is decided by one version as long as the share stands, on every machine; a wider share has all entities of a narrower one;
// and another canary meets other entities, since none should bear all experiments. mix is the finaliser of MurmurHash3: FNV alone tells
// names that differ in their last byte apart in its low bits only.
type Share struct {
	seed  uint64 // FNV-1a up to the entity
	limit uint64 // hash < limit; 0: nobody, MaxUint64: everybody
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// NewShare of a canary.
func NewShare(kind string, version int, share float64) Share {
	s := Share{seed: fnvOffset}
	for _, part := range []string{kind, "\x00", strconv.Itoa(version), "\x00"} {
		s.seed = fnv(s.seed, part)
	}
	switch {
	case !(share > 0):
	case share >= 1:
		s.limit = math.MaxUint64
	default:
		s.limit = uint64(math.Ldexp(share, 64))
	}
	return s
}

// Has says whether the canary decides for an entity.
func (s Share) Has(entity string) bool {
	if s.limit == math.MaxUint64 {
		return true
	}
	h := fnv(s.seed, entity)
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return h < s.limit
}

func fnv(h uint64, text string) uint64 {
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * fnvPrime
	}
	return h
}
