package events

import (
	"slices"
	"strings"
)

// Modes of a score: what it was made with. A score without some members of its model names them behind, ascending:
// model-online, stale-boost-online.
const (
	ModeModel = "model"
	ModePrior = "prior" // no model has been published yet, or none of its members could answer
	ModeStale = "stale" // the scorer could not see the registry for longer than its lease
	ModeLate  = "late"  // the deadline came first; the score itself follows on the stream
)

// Mode writes a mode: the base word, and the members that were left out. The prior has none.
func Mode(base string, out ...string) string {
	if base == ModePrior || len(out) == 0 {
		return base
	}
	out = slices.Clone(out)
	slices.Sort(out)
	return base + "-" + strings.Join(out, "-")
}

// ParseMode is the inverse of Mode. It is false for a text that Mode does not write.
func ParseMode(mode string) (base string, out []string, ok bool) {
	base, rest, some := strings.Cut(mode, "-")
	switch base {
	case ModeModel, ModePrior, ModeStale, ModeLate:
	default:
		return base, nil, false
	}
	if some {
		out = strings.Split(rest, "-")
	}
	return base, out, Mode(base, out...) == mode && !slices.Contains(out, "") && !slices.ContainsFunc(out, func(m string) bool {
		return strings.Trim(m, "abcdefghijklmnopqrstuvwxyz") != ""
	}) && len(slices.Compact(slices.Clone(out))) == len(out)
}

// stricter of two decisions: a review costs less than what it may prevent.
func stricter(a, b string) string {
	for _, d := range []string{Decline, Review} {
		if a == d || b == d {
			return d
		}
	}
	return a
}
