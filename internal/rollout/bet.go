package rollout

// Bet is evidence, good however often it is looked at, against the claim that bounded numbers have a mean of at most
// Claim, given the ones before. It is the betting of Waudby-Smith and Ramdas (Estimating means of bounded random variables
// by betting, Journal of the Royal Statistical Society B 86, 2024): a gambler who stakes the share λ pays 1 and gets
//
//	Wealth ← Wealth · (1 + λ(x - Claim)),  0 <= λ < 1/(Claim - Least)
//
// which under the claim does not grow on average, whatever the distribution, so that by Ville's inequality it reaches
// 1/α with a probability of at most α at any time. The best λ is not known: bets stakes are held side by side, and
// their mean wealth is as good as evidence.
//
// A Bet that watches (Watch) sets each stake that fell below 1 back to 1. It is then the e-detector of Shin, Ramdas and
// Rinaldo (E-detectors: a nonparametric framework for sequential change detection, New England Journal of Statistics in
// Data Science 2, 2024) in its CUSUM form: while the claim holds it reaches h after h numbers on average at the soonest;
// after the claim broke it does not have to win back what it lost before.
//
//	Least <= x <= Most, Least < Claim < Most
//	Value <= Highest
type Bet struct {
	Least   float64       `json:"least"`
	Most    float64       `json:"most"`
	Claim   float64       `json:"claim"`
	Watch   bool          `json:"watch,omitempty"`
	N       int           `json:"n"`
	Sum     float64       `json:"sum"`
	Wealth  [bets]float64 `json:"wealth"`
	Highest float64       `json:"highest"` // value so far: evidence once there stays
}

const bets = 5

// NewBet against a mean of at most claim of numbers between least and most.
func NewBet(least, most, claim float64, watch bool) Bet {
	b := Bet{Least: least, Most: most, Claim: claim, Watch: watch, Highest: 1}
	for i := range b.Wealth {
		b.Wealth[i] = 1
	}
	return b
}

// maxWealth is kept, lest wealth become infinite and then NaN. It is far beyond any odds that are asked for.
const maxWealth = 1e200

// Take a number, which is brought between Least and Most.
func (b *Bet) Take(x float64) {
	x = min(max(x, b.Least), b.Most)
	b.N++
	b.Sum += x
	d := x - b.Claim
	stake := 0.9 / (b.Claim - b.Least)
	for i := range b.Wealth {
		w := b.Wealth[i] * (1 + float64(stake*d))
		if b.Watch {
			w = max(w, 1)
		}
		b.Wealth[i] = min(w, maxWealth)
		stake /= 2
	}
	b.Highest = max(b.Highest, b.Value())
}

// Value is the evidence now, 1 at the beginning.
func (b *Bet) Value() float64 {
	sum := 0.0
	for _, w := range b.Wealth {
		sum += w
	}
	return sum / bets
}

// Mean of the numbers so far; 0 without any.
func (b *Bet) Mean() float64 {
	if b.N == 0 {
		return 0
	}
	return b.Sum / float64(b.N)
}
