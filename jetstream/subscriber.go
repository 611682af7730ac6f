package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

// Subscriber is a party that reads some outcomes of a kind, and nothing else: live, and through a durable consumer that was made for
// it. Its user may neither make a consumer nor look at the stream.
type Subscriber struct {
	Name   string // letters, digits, - and _; at most 32
	Kind   string
	Filter string // of SCORES_<kind>, such as scores.payment.high.*
}

// A subscriber that takes nothing for so long has its outcomes again; it may have so many under way.
const (
	subscriberAckWait = 30 * time.Second
	subscriberPending = 1024
	subscriberMeta    = "riskweir.subscriber" // marks its consumer
	subscriberPrefix  = "sub-"
)

// NewSubscriber checks a name and a filter.
func NewSubscriber(name, filter string) (Subscriber, error) {
	s := Subscriber{Name: name, Filter: filter}
	plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
	if name == "" || len(name) > 32 || !plain {
		return s, fmt.Errorf("subscriber %q: want letters, digits, - and _, at most 32", name)
	}
	tokens := strings.Split(filter, ".")
	if len(tokens) < 3 || tokens[0] != "scores" {
		return s, fmt.Errorf("filter %q: want scores.<kind>.<band>.<entity>, with * for any band or entity, or scores.<kind>.>", filter)
	}
	s.Kind = tokens[1]
	if err := events.CheckKind(s.Kind); err != nil {
		return s, fmt.Errorf("filter %q: %w", filter, err)
	}
	last := len(tokens) - 1
	for i, t := range tokens[2:] {
		i += 2
		bad := t == "" || strings.ContainsAny(t, " \t\r\n")
		bad = bad || strings.Contains(t, ">") && (t != ">" || i != last)
		bad = bad || strings.Contains(t, "*") && t != "*"
		if bad || i > 3 {
			return s, fmt.Errorf("filter %q: want scores.<kind>.<band>.<entity>, with * for any band or entity, or scores.<kind>.>", filter)
		}
	}
	if last < 3 && tokens[last] != ">" {
		return s, fmt.Errorf("filter %q: want scores.<kind>.<band>.<entity>, with * for any band or entity, or scores.<kind>.>", filter)
	}
	return s, nil
}

// User is the name of its NATS user, and of its consumer.
func (s Subscriber) User() string { return subscriberPrefix + s.Name }

// Role is what its user may do.
func (s Subscriber) Role() Role {
	stream, consumer := events.ScoresStream(s.Kind), s.User()
	return Role{
		Name: s.User(), Outside: true,
		Publish: sorted([]string{
			"$JS.API.CONSUMER.INFO." + stream + "." + consumer,
			"$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer,
			"$JS.ACK." + stream + "." + consumer + ".>",
			"$JS.ACK.*.*." + stream + "." + consumer + ".>",
		}),
		Subscribe: sorted([]string{s.Filter, InboxPrefix(s.User()) + ".>"}),
	}
}

// AddSubscriber makes the durable consumer, which begins with the next outcome, or with the oldest kept. It may be repeated: a consumer with
// that filter stays, wherever it has come to.
func AddSubscriber(ctx context.Context, js natsjs.JetStream, s Subscriber, fromStart bool) error {
	stream := events.ScoresStream(s.Kind)
	from := natsjs.DeliverNewPolicy
	if fromStart {
		from = natsjs.DeliverAllPolicy
	}
	_, err := js.CreateConsumer(ctx, stream, natsjs.ConsumerConfig{
		Durable: s.User(), Description: "outcomes for " + s.Name, FilterSubject: s.Filter, DeliverPolicy: from,
		AckPolicy: natsjs.AckExplicitPolicy, AckWait: subscriberAckWait, MaxAckPending: subscriberPending,
		Metadata: map[string]string{subscriberMeta: s.Name},
	})
	switch {
	case errors.Is(err, natsjs.ErrStreamNotFound):
		return fmt.Errorf("subscriber %s: kind %s is not declared", s.Name, s.Kind)
	case errors.Is(err, natsjs.ErrConsumerExists):
		have, err := js.Consumer(ctx, stream, s.User())
		if err != nil {
			return fmt.Errorf("subscriber %s: %w", s.Name, err)
		}
		if got := have.CachedInfo().Config.FilterSubject; got != s.Filter {
			return fmt.Errorf("subscriber %s: there is one, and it reads %s: remove it, or take another name", s.Name, got)
		}
		return nil // it began elsewhere, and stays there
	case err != nil:
		return fmt.Errorf("subscriber %s: %w", s.Name, err)
	}
	return nil
}

// RemoveSubscriber deletes its consumer; what it has not read stays in the stream.
func RemoveSubscriber(ctx context.Context, js natsjs.JetStream, s Subscriber) error {
	if err := js.DeleteConsumer(ctx, events.ScoresStream(s.Kind), s.User()); err != nil && !errors.Is(err, natsjs.ErrConsumerNotFound) {
		return fmt.Errorf("subscriber %s: %w", s.Name, err)
	}
	return nil
}

// SubscriberState is a subscriber with how far it is.
type SubscriberState struct {
	Subscriber
	Waiting  uint64 // outcomes not delivered yet
	UnderWay int    // delivered and not acknowledged
}

// Subscribers are those of all kinds, by kind and name.
func Subscribers(ctx context.Context, js natsjs.JetStream) ([]SubscriberState, error) {
	kinds, err := Kinds(ctx, js)
	if err != nil {
		return nil, err
	}
	var out []SubscriberState
	for _, k := range kinds {
		stream, err := js.Stream(ctx, events.ScoresStream(k.Contract.Kind))
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("subscribers of %s: %w", k.Contract.Kind, err)
		}
		list := stream.ListConsumers(ctx)
		for c := range list.Info() {
			if name := c.Config.Metadata[subscriberMeta]; name != "" {
				out = append(out, SubscriberState{Subscriber{name, k.Contract.Kind, c.Config.FilterSubject}, c.NumPending, c.NumAckPending})
			}
		}
		if err := list.Err(); err != nil {
			return nil, fmt.Errorf("subscribers of %s: %w", k.Contract.Kind, err)
		}
	}
	slices.SortFunc(out, func(a, b SubscriberState) int {
		if c := strings.Compare(a.Kind, b.Kind); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}
