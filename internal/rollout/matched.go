package rollout

// scored is one mature event by both versions.
type scored struct {
	p, q float64 // of the version, and of the one against it
}

// matching makes sets of a few events of either label, each event in one set at most, and compares within each how the
// two versions order them:
//
//	d = AUC of the version in the set - AUC of the other, ties half: -1 <= d <= 1
//
// The sets' mean is the difference of the AUCs of the population, and while events are drawn independently the sets
// are, too: what DeLong's test gets by a normal approximation over all pairs, betting then gets exactly, at any time.
// With many negatives to each positive next to nothing is lost against all pairs, since the variance is that of the
// positives' placements.
//
//	len(Bad) < PerBad or len(Good) < PerGood; len(Good) <= 2·PerGood: the oldest are let go
type matching struct {
	PerBad  int
	PerGood int
	Bad     []scored
	Good    []scored
}

// newMatching for a share of positives: sets have them in about that share, with at least 8 and at most 128 negatives.
func newMatching(rate float64) matching {
	odds := (1 - rate) / rate
	bad := 1
	for float64(float64(bad)*odds) < 8 && bad < 64 {
		bad++
	}
	return matching{PerBad: bad, PerGood: max(1, min(128, int(float64(float64(bad)*odds))))}
}

// take returns the difference of a set that the event completes.
func (m *matching) take(s scored, bad bool) (d float64, complete bool) {
	if bad {
		m.Bad = append(m.Bad, s)
	} else {
		m.Good = append(m.Good, s)
		if len(m.Good) > 2*m.PerGood {
			m.Good = append(m.Good[:0], m.Good[1:]...)
		}
	}
	if len(m.Bad) < m.PerBad || len(m.Good) < m.PerGood {
		return 0, false
	}
	halves := 0 // twice the difference in pairs ordered rightly
	for _, b := range m.Bad[:m.PerBad] {
		for _, g := range m.Good[:m.PerGood] {
			halves += order(b.p, g.p) - order(b.q, g.q)
		}
	}
	m.Bad = append(m.Bad[:0], m.Bad[m.PerBad:]...)
	m.Good = append(m.Good[:0], m.Good[m.PerGood:]...)
	return float64(halves) / float64(2*m.PerBad*m.PerGood), true
}

// order is 2 if the bad one stands above, 1 beside, 0 below.
func order(bad, good float64) int {
	switch {
	case bad > good:
		return 2
	case bad == good:
		return 1
	}
	return 0
}
