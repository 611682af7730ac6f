// Package sim generates the card transactions of a simulated bank: customers with habits, and three kinds of theft.
package sim

import (
	"math"
	"math/rand/v2"
	"sort"
	"strconv"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Kind is the kind of the simulated events.
const Kind = "payment"

// Maturity is the age at which Contract takes an event without a label for honest.
const Maturity = 10 * time.Second

// Contract of the simulated payments. Only the amount is required, so that a payment can be sent by hand.
func Contract() events.Contract {
	c := events.DefaultContract()
	c.Kind = Kind
	c.Description = "card payments of a simulated bank"
	c.ID, c.Entity, c.Time = "id", "card", "time"
	c.Zone = "Europe/Berlin"
	c.Fields = []events.Field{
		{Name: "amount", Type: events.Money, Required: true, Currency: "EUR"},
		{Name: "amount_ratio", Type: events.Number, Unit: "times the card's usual amount"},
		{Name: "category", Type: events.Category},
		{Name: "terminal", Type: events.Category},
		{Name: "channel", Type: events.Category},
		{Name: "country", Type: events.Category},
		{Name: "card_present", Type: events.Bool},
		{Name: "known_device", Type: events.Bool},
		{Name: "distance", Type: events.Number, Unit: "km from home"},
		{Name: "local_hour", Type: events.Number, Unit: "h"},
		{Name: "age", Type: events.Category, Protected: true},
	}
	c.Maturity = events.Duration(Maturity)
	c.Rollout = events.PlaygroundRollout()
	c.Prior = fraudShare
	c.Thresholds = events.Thresholds{Medium: 0.05, High: 0.3}
	c.Retention = events.Retention{Events: events.Duration(24 * time.Hour), Scores: events.Duration(48 * time.Hour)}
	return c
}

// Config of a Generator. Equal Configs give equal events.
type Config struct {
	Seed      uint64    // of the cards and terminals: the same bank
	Start     time.Time // of the run, in whole ms: each has payments and ids of its own
	Cards     int       // default 2000
	Terminals int       // default 500
	Day       int       // payments in a simulated day; default 20000
	// Turn: after so many payments thieves do otherwise than before: small amounts in web shops, from devices that are known. 0: never.
	Turn int
}

// Event is one payment and what the simulation knows of it.
type Event struct {
	ID     string
	Entity string // the card
	Body   []byte // JSON under Contract
	Time   time.Time
	Fraud  bool
	Theft  Theft // which, if it is one

	Labelled   bool          // most payments never are
	Label      int           // what the label will claim
	LabelDelay time.Duration // from Time
}

// Theft is how a payment was one.
type Theft uint8

const (
	Honest      Theft = iota
	Stolen            // one of many in a short time with a stolen card
	Compromised       // at a manipulated terminal
	TakenOver         // one alone
)

const (
	fraudShare = 0.015 // of all payments

	sprees     = 2 // stolen cards in use at any time
	spreeLen   = 25
	skimmers   = 3   // compromised terminals at any time
	skimmerLen = 150 // fraudulent payments at one
	skimmedMax = 64  // cards copied and not yet abused
)

// spree is the abuse of one stolen card.
type spree struct {
	card   int
	left   int
	region int  // where its thief shops
	remote bool // with the number alone, on the web
}

// skimmer is a compromised terminal.
type skimmer struct {
	terminal int
	left     int
}

// Generator draws payments. It is not safe for concurrent use.
type Generator struct {
	world *world
	r     *rand.Rand
	run   string
	n     uint64
	day   float64
	turn  uint64 // 0: never

	sprees   [sprees]spree
	skimmers [skimmers]skimmer
	skimmed  []int // cards seen at a skimmer, oldest first; len <= skimmedMax
}

// New makes the bank of c.Seed and a run of its payments.
func New(c Config) *Generator {
	if c.Cards <= 0 {
		c.Cards = 2000
	}
	if c.Terminals <= 0 {
		c.Terminals = 500
	}
	if c.Day <= 0 {
		c.Day = 20000
	}
	run := uint64(c.Start.UnixMilli())
	return &Generator{
		world: newWorld(c.Seed, c.Cards, c.Terminals),
		r:     rand.New(rand.NewPCG(c.Seed, run)),
		run:   strconv.FormatUint(c.Seed, 36) + "-" + strconv.FormatUint(run, 36) + "-",
		day:   float64(c.Day),
		turn:  uint64(max(c.Turn, 0)),
	}
}

// payment is an event before it is written down.
type payment struct {
	card, terminal int
	amount         float64
	channel        string
	known          bool // device; means something on the web only
	theft          Theft
}

// Next draws the payment made at the given time. All but its Time is the same whenever it is made:
// the hours of the simulated day pass with the payments.
func (g *Generator) Next(at time.Time) Event {
	hour := 24 * math.Mod(float64(g.n)/g.day+0.25, 1)
	var p payment
	if g.r.Float64() < fraudShare {
		p = g.theft(hour)
	} else {
		p = g.honest(hour)
	}
	g.n++
	e := Event{
		ID:     g.run + strconv.FormatUint(g.n, 10),
		Entity: g.world.cards[p.card].name,
		Time:   at,
		Fraud:  p.theft != Honest,
		Theft:  p.theft,
	}
	e.Body = g.body(&e, &p, hour)
	g.label(&e)
	return e
}

// label decides what becomes known and when. Customers report most thefts; of honest payments only the few
// that somebody looked into are ever confirmed.
func (g *Generator) label(e *Event) {
	u, delay := g.r.Float64(), g.r.ExpFloat64()
	if e.Fraud {
		e.Labelled, e.Label = u < 0.85, 1
	} else {
		e.Labelled, e.Label = u < 0.01, 0
	}
	e.LabelDelay = min(time.Second+time.Duration(float64(2500*time.Millisecond)*delay), 2*Maturity).Round(time.Millisecond)
}

// owner draws a card that is active at the hour.
func (g *Generator) owner(hour float64) int {
	for {
		i := g.r.IntN(len(g.world.cards))
		c := &g.world.cards[i]
		if u := g.r.Float64(); u < c.weight && u < c.active(hour) { // weight bounds active, and is cheap
			return i
		}
	}
}

func (g *Generator) honest(hour float64) payment {
	i := g.owner(hour)
	c := &g.world.cards[i]
	p := payment{card: i, known: g.r.Float64() < 0.88}
	switch u := g.r.Float64(); {
	case u < c.travels:
		p.terminal = g.in(g.r.IntN(len(regions)))
	case u < c.travels+c.strays:
		p.terminal = g.in(c.region)
	default:
		p.terminal = c.favourites[g.r.IntN(len(c.favourites))]
	}
	p.amount = g.usual(c, p.terminal)
	if g.r.Float64() < 0.04 { // the washing machine broke
		p.amount *= 2 + 5*g.r.Float64()
	}
	p.channel = g.channel(p, 0.04)
	for _, s := range g.skimmers {
		if s.terminal == p.terminal && s.left > 0 && len(g.skimmed) < skimmedMax {
			g.skimmed = append(g.skimmed, i)
		}
	}
	return p
}

// theft draws from one of the three kinds. The first two have a past that a single payment does not show.
func (g *Generator) theft(hour float64) payment {
	var p payment
	if g.turn > 0 && g.n >= g.turn {
		p = g.careful()
		p.theft = TakenOver
		return p
	}
	switch u := g.r.Float64(); {
	case u < 0.56:
		p = g.stolen()
		p.theft = Stolen
	case u < 0.82:
		p = g.compromised(hour)
		p.theft = Compromised
	default:
		p = g.takenOver()
		p.theft = TakenOver
	}
	return p
}

// stolen: a burst of larger, faster, often foreign spending on one card.
func (g *Generator) stolen() payment {
	s := &g.sprees[g.r.IntN(sprees)]
	if s.left == 0 {
		*s = spree{card: g.r.IntN(len(g.world.cards)), left: 5 + g.r.IntN(2*spreeLen-10), region: g.r.IntN(len(regions)), remote: g.r.Float64() < 0.5}
		if len(g.skimmed) > 0 && g.r.Float64() < 0.6 {
			s.card, g.skimmed = g.skimmed[0], g.skimmed[1:]
		}
		if home := g.world.cards[s.card].region; g.r.Float64() < 0.58 {
			s.region = home
		}
	}
	s.left--
	c := &g.world.cards[s.card]
	p := payment{card: s.card, known: g.r.Float64() < 0.3}
	for range 30 { // a lucrative terminal of the thief's place; whichever comes last, if there is none
		p.terminal = g.lure()
		if t := g.world.terminals[p.terminal]; t.online == s.remote && (s.remote || t.region == s.region) {
			break
		}
	}
	if g.r.Float64() < 0.12 { // is the card still good?
		p.amount = 0.5 + 3*g.r.Float64()
	} else {
		p.amount = g.usual(c, p.terminal) * math.Exp(0.3+0.6*g.r.NormFloat64())
	}
	p.channel = g.channel(p, 0.2)
	return p
}

// compromised: at a manipulated terminal, on a card that looks as on any other day.
func (g *Generator) compromised(hour float64) payment {
	s := &g.skimmers[g.r.IntN(skimmers)]
	if s.left == 0 {
		*s = skimmer{terminal: g.lure(), left: skimmerLen/2 + g.r.IntN(skimmerLen)}
	}
	s.left--
	p := payment{card: g.owner(hour), terminal: s.terminal, known: g.r.Float64() < 0.5}
	p.amount = g.usual(&g.world.cards[p.card], p.terminal) * math.Exp(0.3+0.4*g.r.NormFloat64())
	p.channel = g.channel(p, 0.35)
	return p
}

// takenOver: one payment out of all habit.
func (g *Generator) takenOver() payment {
	p := payment{card: g.r.IntN(len(g.world.cards)), terminal: g.lure(), known: g.r.Float64() < 0.4}
	p.amount = g.usual(&g.world.cards[p.card], p.terminal) * (2 + 6*g.r.Float64())
	p.channel = g.channel(p, 0.1)
	return p
}

// careful thieves stay below what they did before.
func (g *Generator) careful() payment {
	p := payment{card: g.r.IntN(len(g.world.cards)), known: g.r.Float64() < 0.95}
	for range 30 {
		if p.terminal = g.lure(); g.world.terminals[p.terminal].online {
			break
		}
	}
	p.amount = g.usual(&g.world.cards[p.card], p.terminal) * math.Exp(-0.7+0.3*g.r.NormFloat64())
	p.channel = g.channel(p, 0.02)
	return p
}

func (g *Generator) in(region int) int {
	ts := g.world.byRegion[region]
	return ts[g.r.IntN(len(ts))]
}

// lure draws a terminal by its attraction to thieves.
func (g *Generator) lure() int {
	sum := g.world.lures
	return min(sort.SearchFloat64s(sum, g.r.Float64()*sum[len(sum)-1]), len(sum)-1)
}

func (g *Generator) usual(c *card, terminal int) float64 {
	return math.Exp(c.logUsual+c.sigma*g.r.NormFloat64()) * merchants[g.world.terminals[terminal].merchant].scale
}

func (g *Generator) channel(p payment, stripe float64) string {
	t := &g.world.terminals[p.terminal]
	u := g.r.Float64()
	switch {
	case t.online:
		return "online"
	case u < stripe:
		return "magstripe"
	case merchants[t.merchant].name == "cash":
		return "atm"
	case p.amount < 50 && u < 0.8:
		return "contactless"
	}
	return "chip"
}

// body writes the payment as JSON, always in the same order of fields.
func (g *Generator) body(e *Event, p *payment, hour float64) []byte {
	c, t := &g.world.cards[p.card], &g.world.terminals[p.terminal]
	amount := math.Max(0.01, math.Round(p.amount*100)/100)
	b := make([]byte, 0, 384)
	text := func(name, v string) {
		b = append(append(append(append(b, `,"`...), name...), `":"`...), v...)
		b = append(b, '"')
	}
	number := func(name string, v float64, digits int) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = strconv.AppendFloat(b, v, 'f', digits, 64)
	}
	truth := func(name string, v bool) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = strconv.AppendBool(b, v)
	}
	b = append(append(append(b, `{"id":"`...), e.ID...), '"')
	text("card", e.Entity)
	text("time", e.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
	text("amount", strconv.FormatFloat(amount, 'f', 2, 64))
	number("amount_ratio", amount/math.Exp(c.logUsual), 3)
	text("category", merchants[t.merchant].name)
	text("terminal", t.name)
	text("channel", p.channel)
	text("country", regions[t.region].country)
	truth("card_present", !t.online)
	if t.online {
		truth("known_device", p.known)
	} else {
		number("distance", math.Hypot(t.x-c.x, t.y-c.y), 1)
	}
	number("local_hour", hour, 2)
	text("age", c.age)
	return append(b, '}')
}
