// Package events holds the words of Riskweir on the wire, and a client to speak them.
//
// A kind's Contract, in YAML, names the fields of its events. Compiled into a Schema it reads an event,
// one flat JSON object or msgpack map, into a Record:
//
//	contract, err := events.ParseContract(yaml)
//	schema, err := events.Compile(contract)
//	var rec events.Record // used again from event to event
//	err = schema.Decode(events.JSON, body, &rec)
//
// Every valid event becomes one Score, every other one Invalid. Label, Position, SourcePosition, Expired, Alert
// and Heartbeat are the other messages; the functions in subject.go build and parse the subjects on which
// they travel. A sample of each stands in testdata/wire.
//
// Client publishes events and labels and reads scores over a NATS connection.
package events
