package rollout

import (
	"math"
	"math/rand/v2"
	"testing"
)

// wealthOfOne is the dumb twin: one stake, with logarithms.
func wealthOfOne(stake, claim float64, xs []float64) float64 {
	sum := 0.0
	for _, x := range xs {
		sum += math.Log(1 + stake*(x-claim))
	}
	return math.Exp(sum)
}

func TestBetAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	b := NewBet(-1, 1, 0.1, false)
	var xs []float64
	for range 500 {
		x := min(max(0.15+0.2*r.NormFloat64(), -1), 1)
		xs = append(xs, x)
		b.Take(x)
		want, stake := 0.0, 0.9/1.1
		for range bets {
			want += wealthOfOne(stake, 0.1, xs) / bets
			stake /= 2
		}
		if got := b.Value(); math.Abs(got-want) > 1e-9*want {
			t.Fatalf("after %d: %v, want %v", len(xs), got, want)
		}
	}
	if b.Highest < 20 {
		t.Errorf("evidence %v that 0.15 is above 0.1", b.Highest)
	}
	b.Take(math.Inf(-1)) // brought to -1
	if v := b.Value(); !(v > 0) {
		t.Errorf("a number out of bounds leaves %v", v)
	}
}

// TestBetHoldsItsLevel: at the edge of the claim, and far from normal, evidence of 20 is reached by at most 1 in 20 however long
// one looks; a watch for evidence of 3 needs 3 numbers on average at the least.
func TestBetHoldsItsLevel(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	draw := func() float64 { // mean 0: rarely 1, else a little below 0
		if r.Float64() < 0.02 {
			return 1
		}
		return -0.02 / 0.98
	}
	const runs = 2000
	reached, until := 0, 0
	for range runs {
		b, w := NewBet(-1, 1, 0, false), NewBet(-1, 1, 0, true)
		hit := 0
		for n := 1; n <= 1000 && b.Highest < 20; n++ {
			x := draw()
			b.Take(x)
			w.Take(x)
			if hit == 0 && w.Highest >= 3 {
				hit = n
			}
		}
		if b.Highest >= 20 {
			reached++
		}
		if hit == 0 {
			hit = 1000
		}
		until += hit
	}
	t.Logf("evidence 20 in %d of %d; watches %.0f numbers on average, at least", reached, runs, float64(until)/runs)
	if reached > runs/20 || until < 3*runs {
		t.Errorf("evidence 20 in %d of %d, watches %v numbers on average", reached, runs, float64(until)/runs)
	}
	if reached == 0 {
		t.Error("never: the test does not try it")
	}
}

// TestMatchingAgainstAllPairs: the mean over sets is the difference of the AUCs, and set by set that of its own events.
func TestMatchingAgainstAllPairs(t *testing.T) {
	w := newWorld(3, 0, 0.01)
	m := newMatching(rate)
	if m.PerBad != 1 || m.PerGood != 124 {
		t.Errorf("sets of %d and %d", m.PerBad, m.PerGood)
	}
	for _, share := range []float64{0.001, 0.05, 0.3, 0.5, 0.9, 0.999} {
		if n := newMatching(share); n.PerBad < 1 || n.PerGood < 1 || n.PerGood > 128 || n.PerBad > 64 {
			t.Errorf("share %v: sets of %d and %d", share, n.PerBad, n.PerGood)
		}
	}
	sum, squares, sets := 0.0, 0.0, 0
	for range 400_000 {
		e := w.draw(0)
		if d, complete := m.take(scored{e.p, e.q}, e.bad); complete {
			if d < -1 || d > 1 {
				t.Fatalf("a set says %v", d)
			}
			sum, squares, sets = sum+d, squares+d*d, sets+1
		}
		if len(m.Good) > 2*m.PerGood {
			t.Fatalf("%d good ones are held", len(m.Good))
		}
	}
	mean := sum / float64(sets)
	se := math.Sqrt((squares/float64(sets) - mean*mean) / float64(sets))
	t.Logf("%d sets, mean %.4f ± %.4f", sets, mean, se)
	if sets < 3000 || math.Abs(mean-0.01) > 4*se {
		t.Errorf("%d sets, mean %v ± %v, want 0.01", sets, mean, se)
	}
	// One set by hand: of 2·2 pairs p orders 3 and ties 1, q orders 1.
	hand := matching{PerBad: 2, PerGood: 2}
	hand.take(scored{0.9, 0.1}, true)
	hand.take(scored{0.1, 0.2}, false)
	hand.take(scored{0.5, 0.4}, false)
	if d, ok := hand.take(scored{0.5, 0.3}, true); !ok || d != 3.5/4-1.0/4 {
		t.Errorf("by hand: %v, %t", d, ok)
	}
}

// TestMethods compares what betting costs with tests that are exact only for many events: evidence by a normal mixture (Howard,
// Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49,
// 2021, the one-sided normal mixture), and alpha spending after O'Brien and Fleming, looked at after every set.
func TestMethods(t *testing.T) {
	const seed, runs, most = 20260104, 100, 1500
	const alpha = 0.05
	z := 1.959963984540054 // of α/2: by the reflection principle a Brownian motion passes it by the end with probability α
	sd := 0.095            // of a set, known beforehand to the methods that need it
	for _, difference := range []float64{0, 0.005, 0.01} {
		var power [3]int
		var took [3]int
		for run := range uint64(runs) {
			r := rand.New(rand.NewPCG(seed, run))
			a, b := separation(0.85), separation(0.85+difference)
			bet := NewBet(-1, 1, 0, false)
			sum := 0.0
			var done [3]bool
			for n := 1; n <= most; n++ {
				// One positive among a great many negatives: the placement of each is Φ of its noise and shift.
				u := r.NormFloat64()
				v := 0.9*u + math.Sqrt(1-0.81)*r.NormFloat64()
				d := phi(b+v) - phi(a+u)
				bet.Take(d)
				sum += d
				variance := float64(n) * sd * sd
				rho := 50 * sd * sd
				mixture := math.Sqrt(2 * (variance + rho) * math.Log(math.Sqrt((variance+rho)/rho)/(2*alpha)+1))
				for i, now := range []bool{bet.Highest >= 1/alpha, sum >= mixture, sum >= z*sd*math.Sqrt(most)} {
					if now && !done[i] {
						done[i] = true
						power[i]++
						took[i] += n
					}
				}
			}
		}
		mean := func(i int) int { return took[i] / max(1, power[i]) }
		t.Logf("true %+.3f, %d positives at most, n = %d: betting %d (mean %d), normal mixture %d (%d), O'Brien and Fleming %d (%d)",
			difference, most, runs, power[0], mean(0), power[1], mean(1), power[2], mean(2))
		if difference == 0 && power[0] > runs/20 || difference == 0.01 && power[0] < runs*9/10 {
			t.Errorf("betting finds %d of %d at %v", power[0], runs, difference)
		}
	}
}

func phi(z float64) float64 { return 0.5 * math.Erfc(-z/math.Sqrt2) }
