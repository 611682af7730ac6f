package rollout

import (
	"fmt"
	"math"
	"testing"
)

// The hash is part of what scores mean: one that changes moves entities between versions at an upgrade, and back.
func TestShareGolden(t *testing.T) {
	for _, c := range []struct {
		kind    string
		version int
		share   float64
		entity  string
		want    bool
	}{
		{"payment", 7, 0.1, "c1", false}, {"payment", 7, 0.1, "c2", true}, {"payment", 7, 0.1, "c3", false}, {"payment", 7, 0.1, "c4", false},
		{"payment", 7, 0.5, "c1", true}, {"payment", 7, 0.5, "c2", true}, {"payment", 7, 0.5, "c3", false}, {"payment", 7, 0.5, "c4", true},
		{"payment", 8, 0.5, "c1", true}, {"payment", 8, 0.5, "c2", false}, {"claim", 7, 0.5, "c1", false}, {"claim", 7, 0.5, "", false},
		{"payment", 7, 1, "c1", true}, {"payment", 7, 0, "c1", false}, {"payment", 7, math.NaN(), "c1", false},
	} {
		if got := NewShare(c.kind, c.version, c.share).Has(c.entity); got != c.want {
			t.Errorf("%s v%d, share %v, entity %q: %t", c.kind, c.version, c.share, c.entity, got)
		}
	}
}

// A share is what it says, a wider one has all of a narrower one, and another canary meets others.
func TestShare(t *testing.T) {
	const n = 100_000
	narrow, wide, other := NewShare("payment", 7, 0.1), NewShare("payment", 7, 0.3), NewShare("payment", 8, 0.1)
	var in, inWide, inOther, both int
	for i := range n {
		entity := fmt.Sprintf("card-%d", i)
		a, b, c := narrow.Has(entity), wide.Has(entity), other.Has(entity)
		if a && !b {
			t.Fatalf("%s is in the narrow share and not in the wide one", entity)
		}
		for _, x := range []struct {
			is bool
			n  *int
		}{{a, &in}, {b, &inWide}, {c, &inOther}, {a && c, &both}} {
			if x.is {
				*x.n++
			}
		}
	}
	for _, x := range []struct {
		what string
		got  int
		want float64
	}{{"0.1", in, 0.1}, {"0.3", inWide, 0.3}, {"0.1 of another", inOther, 0.1}, {"in both", both, 0.01}} {
		if sd := math.Sqrt(n * x.want * (1 - x.want)); math.Abs(float64(x.got)-n*x.want) > 4*sd {
			t.Errorf("share %s has %d of %d, want %v within %.0f", x.what, x.got, n, n*x.want, 4*sd)
		}
	}
}

func TestCountedIsSpread(t *testing.T) {
	for _, c := range [][3]uint64{{10, 0, 0}, {10, 3, 10}, {1, 1, 0}, {997, 31, 2}} {
		g := NewOnline(OnlinePolicy{Counted: true}, 2, 1, Shadow, 0)
		g.Counted(c[0], c[1], c[2])
		if b := g.errors.Against; uint64(b.N) != c[0] || b.Sum != float64(c[1]) || g.late.Against.Sum != float64(c[2]) {
			t.Errorf("%v: %d events, %v failed, %v late", c, b.N, b.Sum, g.late.Against.Sum)
		}
	}
}
