package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/trainer"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// The events: 30 numbers and 5 categories of 8 levels, as wide as a payment with its usual enrichment.
const (
	numbers    = 30
	categories = 5
	levels     = 8
	entities   = 10_000
)

// contract of the kind that is measured.
func contract(kind string, lanes int) events.Contract {
	c := events.DefaultContract()
	c.Kind, c.Lanes, c.ID, c.Entity = kind, lanes, "id", "account"
	c.Description = "made by riskweir bench"
	for i := range numbers {
		c.Fields = append(c.Fields, events.Field{Name: numberName(i), Type: events.Number})
	}
	for i := range categories {
		c.Fields = append(c.Fields, events.Field{Name: categoryName(i), Type: events.Category})
	}
	return c
}

func numberName(i int) string   { return fmt.Sprintf("n%02d", i+1) }
func categoryName(i int) string { return fmt.Sprintf("c%d", i+1) }

// event is one row of the workload.
type event struct {
	id, account string
	n           [numbers]float64
	c           [categories]int

	shop string    // memory's alone
	at   time.Time // likewise
}

// generator of events; the same seed, the same events.
type generator struct {
	r *rand.Rand
	n int // events drawn
}

func newGenerator(seed uint64) *generator {
	return &generator{r: rand.New(rand.NewPCG(seed, 0x5bd1e995))}
}

func (g *generator) event() event {
	e := event{id: "e" + strconv.Itoa(g.n), account: "a" + strconv.Itoa(g.r.IntN(entities))}
	g.n++
	for i := range e.n {
		e.n[i] = math.Round(g.r.NormFloat64()*1e4) / 1e4 // as many digits as amounts and ratios have
	}
	for i := range e.c {
		e.c[i] = g.r.IntN(levels)
	}
	return e
}

// next is an event as it is published.
func (g *generator) next(kind string, enc events.Encoding) (*nats.Msg, error) {
	e := g.event()
	body, err := e.body(enc)
	if err != nil {
		return nil, err
	}
	subject, err := events.EventSubject(kind, e.account)
	return &nats.Msg{Subject: subject, Data: body}, err
}

// bad draws the label: a fifth of the numbers matters.
func (g *generator) bad(e *event) bool {
	z := -2.0
	for i := 0; i < numbers; i += 5 {
		z += float64(0.7 * e.n[i])
	}
	return g.r.Float64() < 1/(1+math.Exp(-z))
}

func (e *event) json(dst []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, e.id...)
	dst = append(dst, `","account":"`...)
	dst = append(dst, e.account...)
	dst = append(dst, '"')
	for i, v := range e.n {
		dst = append(dst, `,"`...)
		dst = append(dst, numberName(i)...)
		dst = append(dst, `":`...)
		dst = strconv.AppendFloat(dst, v, 'g', -1, 64)
	}
	for i, v := range e.c {
		dst = append(dst, `,"`...)
		dst = append(dst, categoryName(i)...)
		dst = append(dst, `":"L`...)
		dst = strconv.AppendInt(dst, int64(v), 10)
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

func (e *event) msgpack() ([]byte, error) { return e.msgpackOf(numbers) }

// msgpackOf is the event with its first n numbers, and with categories only if n is all of them.
func (e *event) msgpackOf(n int) ([]byte, error) {
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	size := 2 + n
	if n == numbers {
		size += categories
	}
	if e.shop != "" {
		size += 2
	}
	err := enc.EncodeMapLen(size)
	put := func(key string, write func() error) {
		if err == nil {
			err = enc.EncodeString(key)
		}
		if err == nil {
			err = write()
		}
	}
	put("id", func() error { return enc.EncodeString(e.id) })
	put("account", func() error { return enc.EncodeString(e.account) })
	if e.shop != "" {
		put("shop", func() error { return enc.EncodeString(e.shop) })
		put("time", func() error { return enc.EncodeString(e.at.UTC().Format(time.RFC3339Nano)) })
	}
	for i, v := range e.n[:n] {
		put(numberName(i), func() error { return enc.EncodeFloat64(v) })
	}
	if n == numbers {
		for i, v := range e.c {
			put(categoryName(i), func() error { return enc.EncodeString("L" + strconv.Itoa(v)) })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("encode an event: %w", err)
	}
	return b.Bytes(), nil
}

// body of an event in the encoding.
func (e *event) body(enc events.Encoding) ([]byte, error) {
	if enc == events.Msgpack {
		return e.msgpack()
	}
	return e.json(nil), nil
}

// fit trains the model that scores: on n events of the workload.
func fit(ctx context.Context, c events.Contract, ref model.ContractRef, n int) (*model.Artifact, error) {
	schema, err := events.Compile(c)
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	g, data := newGenerator(7), trainer.NewDataset(schema)
	var rec events.Record
	var remembered *memory.Store
	var past []float64
	if c.Memory != nil {
		plan, err := memory.Compile(schema)
		if err != nil {
			return nil, fmt.Errorf("memory: %w", err)
		}
		remembered, past = memory.New(plan), make([]float64, plan.Width())
	}
	positives := 0
	for i := range n {
		e := g.event()
		if err := schema.Decode(events.JSON, e.json(nil), &rec); err != nil {
			return nil, fmt.Errorf("decode an event of the workload: %w", err)
		}
		if remembered != nil {
			rec.Time = time.Unix(int64(60*i), 0)
			remembered.Step(memory.Event{Record: &rec}, past)
			rec.SetMemory(past)
		}
		bad := g.bad(&e)
		if bad {
			positives++
		}
		data.Append(&rec, bad)
	}
	result, err := trainer.Fit(ctx, trainer.FitInput{Data: data, LR: lr.Options{}})
	if err != nil {
		return nil, fmt.Errorf("model of the workload: %w", err)
	}
	return result.Artifact(c.Kind, "bench", time.Now(), 0, ref, model.Training{Rows: n, Positives: positives, DataHash: data.Hash()}), nil
}
