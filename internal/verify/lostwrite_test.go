package verify

import (
	"testing"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// The making of a consumer to read by, or its removal, is lost by either half: what is read is the same.
func TestEitherHalfOfAWriteIsLost(t *testing.T) {
	s := newStage(t)
	for _, e := range s.publish(40) {
		s.score(e, events.BandLow)
	}
	want := s.verify(Config{}).String()
	for _, subject := range []string{"$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DELETE.>"} {
		for _, half := range testkit.Halves {
			t.Run(subject+", "+half.String(), func(t *testing.T) {
				t.Parallel()
				courier := s.cluster.Courier(t)
				js, err := natsjs.New(courier.Connect(t))
				if err != nil {
					t.Fatal(err)
				}
				courier.Lose(subject, half, 1)
				r, err := Run(testkit.Context(t), Config{JS: js, Kind: kind})
				if err != nil || r.String() != want || !r.OK() {
					t.Errorf("%s, want %s (%v)", r, want, err)
				}
				if courier.Lost() != 1 {
					t.Errorf("lost %d", courier.Lost())
				}
			})
		}
	}
}
