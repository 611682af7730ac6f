package events_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/pkg/events"
)

const paymentContract = `
kind: payment
id: id
entity: card
fields:
  - {name: amount, type: money, currency: EUR, required: true}
  - {name: merchant, type: category}
  - {name: age_days, type: number, missing: ["999"]}
`

func paymentSchema() *events.Schema {
	c, err := events.ParseContract([]byte(paymentContract))
	if err != nil {
		log.Fatal(err)
	}
	schema, err := events.Compile(c)
	if err != nil {
		log.Fatal(err)
	}
	return schema
}

func ExampleSchema_Decode() {
	schema := paymentSchema()
	var rec events.Record // used again for every event
	for _, body := range []string{
		`{"id":"p-1","card":"c-7","amount":"12.50","merchant":"books","age_days":999,"note":["kept","ignored"]}`,
		`{"id":"p-2","card":"c-7","amount":"a lot"}`,
		`{"id":"p-3","card":"c-7"}`,
	} {
		if err := schema.Decode(events.JSON, []byte(body), &rec); err != nil {
			fmt.Printf("%s invalid: %v\n", rec.ID, err)
			continue
		}
		fmt.Printf("%s of %s: amount %v, merchant %s, age missing %v, unknown fields %d\n", rec.ID, rec.Entity,
			rec.Values[0].Num, rec.Values[1].Text, rec.Values[2].State == events.Missing, rec.Unknown)
	}
	// Output:
	// p-1 of c-7: amount 12.5, merchant books, age missing true, unknown fields 1
	// p-2 invalid: field amount: is the string "a lot": want a decimal such as "12.50"
	// p-3 invalid: field amount: is required and has no value
}

func ExampleSchema_AppendRow() {
	schema := paymentSchema()
	columns := []string{"id", "card", "amount", "merchant", "age_days", "branch"}
	for _, cells := range [][]string{
		{"17", "c-7", "012.50", "books", "", "01"},
		{"18", "c-7", "12,50", "books", "3", "01"},
	} {
		body, err := schema.AppendRow(nil, columns, cells)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s\n", body)
	}
	// Output:
	// {"id":"17","card":"c-7","amount":12.50,"merchant":"books","branch":"01"}
	// field amount: is the string "12,50": want an amount
}

func ExampleEventSubject() {
	for _, entity := range []string{"c-7", "iban.de 12*"} {
		subject, err := events.EventSubject("payment", entity)
		fmt.Println(subject, err)
	}
	_, err := events.EventSubject("payment", "")
	fmt.Println(err)
	// Output:
	// events.payment.c-7 <nil>
	// events.payment.iban%2Ede%2012%2A <nil>
	// entity id is empty: every event needs one
}

func ExampleInferContract() {
	rows := [][]string{
		{"1", "c-7", "12.50", "01234", "?", "no"},
		{"2", "c-8", "8", "10115", "3", "yes"},
	}
	c, notes, err := events.InferContract("payment", []string{"id", "card", "amount", "zip", "age_days", "fraud"}, slices.Values(rows),
		events.InferOptions{Entity: "card", Label: "fraud"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("id", c.ID, "label", c.Label.Column, "positive", c.Label.Positive, "prior", c.Prior)
	for _, f := range c.Fields {
		fmt.Println(f.Name, f.Type, f.Missing)
	}
	for _, n := range notes {
		fmt.Println("note:", n)
	}
	// Output:
	// id id label fraud positive [yes] prior 0.5
	// amount number []
	// zip category []
	// age_days number [?]
	// note: zip: numbers with leading zeros: taken for codes, a category
	// note: no column is the event's time: events bear the time at which they are stored
}

func ExampleClient_Publish() {
	nc, stop := demo("publisher")
	defer stop()
	client, err := events.NewClient(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	// It returns when a majority of the replicas has the event. The ID makes it safe to repeat.
	e := events.Event{Entity: "c-7", ID: "p-1", Fields: map[string]any{"id": "p-1", "amount": 12.5}}
	for range 2 {
		ack, err := client.Publish(ctx, "payment", e)
		fmt.Println(ack.Seq, ack.Duplicate, err)
	}
	_, err = client.Publish(ctx, "loan", e) // the user may publish events of kind payment
	fmt.Println(errors.Is(err, events.ErrNotAccepted), errors.Is(err, nats.ErrPermissionViolation))
	// Output:
	// 1 false <nil>
	// 1 true <nil>
	// true true
}

func ExampleClient_PublishBatch() {
	nc, stop := demo("publisher")
	defer stop()
	client, err := events.NewClient(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	results, err := client.PublishBatch(ctx, "payment", []events.Event{
		{Entity: "c-7", ID: "p-1", Body: []byte(`{"id":"p-1","amount":12.5}`)},
		{Entity: "c-8", ID: "p-2", Body: []byte(`amount=8`)},
	})
	fmt.Println(err)
	for i, r := range results {
		fmt.Println(i, r.Ack.Seq, r.Err)
	}
	// Output:
	// 1 of 2 events not stored; the first is number 1: event: body is neither a JSON object nor a msgpack map
	// 0 1 <nil>
	// 1 0 event: body is neither a JSON object nor a msgpack map
}

func ExampleClient_Score() {
	nc, stop := demo("caller")
	defer stop()
	client, err := events.NewClient(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	for _, amount := range []any{12.5, 800, "a lot"} {
		s, err := client.Score(ctx, "payment", events.Event{Entity: "c-7", Fields: map[string]any{"amount": amount}})
		if bad, ok := errors.AsType[*events.InvalidOutcome](err); ok {
			fmt.Println("invalid:", bad.Field, bad.Reason)
			continue
		}
		if late, ok := errors.AsType[*events.LateError](err); ok {
			fmt.Println("stored at", late.Seq, "and not scored in time")
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s.P, s.Band, s.Decision)
	}
	// Output:
	// 0.0125 low approve
	// 0.8 high decline
	// invalid: amount is the string "a lot": want a number
}

func ExampleClient_Subscribe() {
	nc, stop := demo("caller")
	defer stop()
	client, err := events.NewClient(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, amount := range []int{5, 700, 900} {
		if _, err := client.Score(ctx, "payment", events.Event{Entity: "c-7", Fields: map[string]any{"amount": amount}}); err != nil {
			log.Fatal(err)
		}
	}

	// The durable remembers what "alarm" has handled, from run to run.
	seen := 0
	err = client.Subscribe(ctx, "payment", events.Subscription{Band: events.BandHigh, Durable: "alarm", FromStart: true},
		func(_ context.Context, o events.Outcome) error {
			fmt.Println(o.Entity, o.Score.P, o.Score.Decision)
			if seen++; seen == 2 {
				cancel()
			}
			return nil
		})
	fmt.Println(err)
	// Output:
	// c-7 0.7 decline
	// c-7 0.9 decline
	// <nil>
}

// demo is a broker of one node, with the kind payment, a plain scorer, and permissions in force, and a connection of a
// user of the role. It is made with nats.CustomInboxPrefix("_INBOX_" + role).
func demo(role string) (*nats.Conn, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	tb := &demoTB{ctx: ctx, cancel: cancel}
	cluster, js := guarded(tb, kind)
	score(tb, js)
	return cluster.ConnectAs(tb, role, nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})), tb.end
}

// demoTB lets examples use what tests use.
type demoTB struct {
	testing.TB
	ctx      context.Context
	cancel   context.CancelFunc
	cleanups []func()
}

func (d *demoTB) Helper()                      {}
func (d *demoTB) Name() string                 { return "example" }
func (d *demoTB) Context() context.Context     { return d.ctx }
func (d *demoTB) Cleanup(f func())             { d.cleanups = append(d.cleanups, f) }
func (d *demoTB) Fatal(args ...any)            { log.Panic(args...) }
func (d *demoTB) Fatalf(f string, args ...any) { log.Panicf(f, args...) }
func (d *demoTB) Errorf(f string, args ...any) { log.Panicf(f, args...) }

func (d *demoTB) TempDir() string {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Panic(err)
	}
	d.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (d *demoTB) end() {
	d.cancel()
	for _, f := range slices.Backward(d.cleanups) {
		f()
	}
}
