package sim

import (
	"math"
	"math/rand/v2"
	"strconv"
)

// regions are the countries of the simulated bank's customers and merchants, in a plane measured in km.
var regions = []struct {
	country string
	x, y    float64
	cards   float64 // share of the customers who live there
}{
	{"DE", 0, 0, 0.40},
	{"NL", -420, 180, 0.15},
	{"FR", -700, -350, 0.15},
	{"AT", 450, -450, 0.10},
	{"PL", 680, 120, 0.10},
	{"IT", 200, -950, 0.10},
	{"GB", -900, 420, 0},
	{"US", -6500, -600, 0},
	{"SG", 9900, -3500, 0},
}

// regionRadius bounds how far from its region's centre a card or terminal lies, in km.
const regionRadius = 180

// merchants are the categories of terminals. The usual payment in one is its card's usual payment times scale.
var merchants = []struct {
	name   string
	scale  float64
	share  float64 // of terminals
	online float64 // share of its terminals that are web shops
	lure   float64 // how much thieves like it: easily turned into money
}{
	{"grocery", 0.8, 0.26, 0.05, 0.5},
	{"restaurant", 0.7, 0.20, 0, 0.4},
	{"fuel", 1.1, 0.10, 0, 0.7},
	{"clothing", 1.4, 0.12, 0.4, 1},
	{"pharmacy", 0.6, 0.08, 0.1, 0.4},
	{"electronics", 3.0, 0.08, 0.5, 2.5},
	{"travel", 4.0, 0.05, 0.7, 1.5},
	{"digital_goods", 0.6, 0.05, 1, 3},
	{"jewellery", 4.5, 0.02, 0.2, 3},
	{"cash", 1.8, 0.04, 0, 2},
}

type terminal struct {
	name     string
	merchant int
	region   int
	x, y     float64
	online   bool
	risk     float64 // relative rate at which thieves choose it
}

// card is one customer's habits.
type card struct {
	name       string
	region     int
	x, y       float64
	age        string
	logUsual   float64 // mean of log(amount / merchant scale)
	sigma      float64 // its standard deviation
	favourites []int   // terminals
	hour       float64 // middle of the active time, local hours
	width      float64 // its standard deviation, hours
	weight     float64 // relative activity, (0, 1]
	strays     float64 // share of payments away from the favourites
	travels    float64 // share of payments in a foreign region
}

type world struct {
	cards     []card
	terminals []terminal
	byRegion  [][]int // terminals of a region
	lures     []float64
}

func newWorld(seed uint64, cards, terminals int) *world {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{byRegion: make([][]int, len(regions))}
	for i := range terminals {
		t := terminal{name: "t" + strconv.Itoa(i+1), merchant: pick(r, len(merchants), func(i int) float64 { return merchants[i].share })}
		// Every region has a few shops, most are where the customers are.
		t.region = pick(r, len(regions), func(i int) float64 { return 0.04 + regions[i].cards })
		t.x, t.y = around(r, regions[t.region].x, regions[t.region].y, regionRadius)
		t.online = r.Float64() < merchants[t.merchant].online
		t.risk = merchants[t.merchant].lure * math.Exp(0.8*r.NormFloat64())
		w.terminals = append(w.terminals, t)
		w.byRegion[t.region] = append(w.byRegion[t.region], i)
	}
	for i := range w.byRegion {
		if len(w.byRegion[i]) == 0 { // a world of few terminals: the region borrows one
			w.byRegion[i] = []int{r.IntN(terminals)}
		}
	}
	sum := 0.0
	for _, t := range w.terminals {
		sum += t.risk
		w.lures = append(w.lures, sum)
	}
	for i := range cards {
		c := card{name: "c" + strconv.Itoa(i+1), region: pick(r, len(regions), func(i int) float64 { return regions[i].cards })}
		c.x, c.y = around(r, regions[c.region].x, regions[c.region].y, regionRadius)
		c.age = []string{"18-25", "26-40", "41-65", "66+"}[pick(r, 4, func(i int) float64 { return []float64{0.15, 0.3, 0.38, 0.17}[i] })]
		c.logUsual = 3.2 + 0.55*r.NormFloat64()
		c.sigma = 0.45 + 0.5*r.Float64()
		for range 4 + r.IntN(8) {
			near, far := w.byRegion[c.region], w.byRegion[r.IntN(len(regions))]
			t := near[r.IntN(len(near))]
			if f := far[r.IntN(len(far))]; w.terminals[f].online && r.Float64() < 0.15 {
				t = f
			}
			c.favourites = append(c.favourites, t)
		}
		c.hour = 11 + 9*r.Float64()
		if r.Float64() < 0.08 {
			c.hour = math.Mod(c.hour+10, 24) // lives by night
		}
		c.width = 2 + 2.5*r.Float64()
		c.weight = 0.1 + 0.9*r.Float64()*r.Float64()
		c.strays = 0.03 + 0.3*r.Float64()*r.Float64()
		if r.Float64() < 0.25 {
			c.travels = 0.01 + 0.1*r.Float64()
		}
		w.cards = append(w.cards, c)
	}
	return w
}

// active is the relative rate of a card's payments at a local hour, in (0, 1].
func (c *card) active(hour float64) float64 {
	d := math.Abs(hour - c.hour)
	d = math.Min(d, 24-d)
	return c.weight * (0.03 + 0.97*math.Exp(-d*d/(2*c.width*c.width)))
}

// pick draws an index with the given weights, which need not sum to 1.
func pick(r *rand.Rand, n int, weight func(int) float64) int {
	sum := 0.0
	for i := range n {
		sum += weight(i)
	}
	u := r.Float64() * sum
	for i := range n - 1 {
		if u -= weight(i); u < 0 {
			return i
		}
	}
	return n - 1
}

// around draws a point within radius of (x, y), denser towards the middle.
func around(r *rand.Rand, x, y, radius float64) (float64, float64) {
	sin, cos := math.Sincos(2 * math.Pi * r.Float64())
	d := radius * r.Float64()
	return x + d*cos, y + d*sin
}
