package tail

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
)

// behind answers as a consumer does whose replica has nothing yet: of what it is asked for nothing is there. Then it catches up or, stuck, never does.
type behind struct {
	jetstream.JetStream
	stuck bool
}

type consumerBehind struct {
	jetstream.Consumer
	info jetstream.ConsumerInfo
}

func (c consumerBehind) CachedInfo() *jetstream.ConsumerInfo { return &c.info }

func (b behind) CreateConsumer(ctx context.Context, stream string, cfg jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	if b.stuck {
		cfg.OptStartSeq = 1 << 40
	}
	c, err := b.JetStream.CreateConsumer(ctx, stream, cfg)
	if err != nil {
		return nil, err
	}
	info := *c.CachedInfo()
	info.NumPending = 0
	return consumerBehind{c, info}, nil
}

func logOf(t *testing.T, n int) jetstream.JetStream {
	t.Helper()
	js := testkit.Start(t, 1).JetStream(t)
	if _, err := js.CreateStream(testkit.Context(t), jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log.*"}}); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := js.Publish(testkit.Context(t), "log.a", fmt.Append(nil, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	return js
}

func TestThrough(t *testing.T) {
	js := logOf(t, 20)
	stream, err := js.Stream(testkit.Context(t), "LOG")
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{7, 19, 20} {
		if err := stream.DeleteMsg(testkit.Context(t), seq); err != nil {
			t.Fatal(err)
		}
	}
	bad := errors.New("bad")
	for _, x := range []struct {
		name    string
		js      jetstream.JetStream
		from    uint64 // Last
		to      uint64
		refuse  uint64
		want    int
		err     string
		trouble bool
	}{
		{"all, of which the last are deleted", js, 0, 20, 0, 17, "", false},
		{"a part, that ends with one deleted", js, 2, 7, 0, 4, "", false},
		{"a part, that ends with one that is there", js, 2, 6, 0, 4, "", false},
		{"what is not there yet", js, 17, 1 << 30, 0, 1, "", false},
		{"nothing", js, 5, 5, 0, 0, "", false},
		{"only deleted ones", js, 18, 20, 0, 0, "", false},
		{"take refuses", js, 0, 20, 3, 3, "bad", false},
		{"by a replica that is behind", behind{js, false}, 0, 20, 0, 17, "", true},
		{"by one that stays behind", behind{js, true}, 0, 20, 0, 0, "LOG did not get on for 300ms, try again: its leader holds message 1, which", true},
	} {
		t.Run(x.name, func(t *testing.T) {
			got, troubles := 0, 0
			r := Reader{JS: x.js, Stream: "LOG", Name: "test", Owner: "test", Last: x.from, Trouble: func(error) { troubles++ }}
			err := r.Through(testkit.Context(t), x.to, 300*time.Millisecond, func(m Message, at *jetstream.MsgMetadata) error {
				if string(m.Data()) != fmt.Sprint(at.Sequence.Stream) || at.Sequence.Stream <= x.from || at.Sequence.Stream > x.to {
					t.Errorf("message %d is %q", at.Sequence.Stream, m.Data())
				}
				if got++; at.Sequence.Stream == x.refuse {
					return bad
				}
				return nil
			})
			if got != x.want || (troubles > 0) != x.trouble || (err == nil) != (x.err == "") || err != nil && !strings.HasPrefix(err.Error(), x.err) {
				t.Errorf("%d messages, %d troubles, %v: want %d, %q", got, troubles, err, x.want, x.err)
			}
		})
	}
	ctx, stop := context.WithCancel(testkit.Context(t))
	r := Reader{JS: js, Stream: "LOG", Name: "test", Owner: "test"}
	if err := r.Through(ctx, 20, Patience, func(Message, *jetstream.MsgMetadata) error { stop(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestLeaderIsAsked(t *testing.T) {
	js := logOf(t, 5)
	stream, err := js.Stream(testkit.Context(t), "LOG")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(testkit.Context(t), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := js.PublishMsg(testkit.Context(t), &nats.Msg{Subject: "log.b", Header: nats.Header{"A": {"b"}}, Data: []byte("6")}); err != nil {
		t.Fatal(err)
	}
	fourth, err := At(testkit.Context(t), js, "LOG", 4)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		what string
		ask  func(context.Context) (Held, error)
		want uint64 // 0: none
	}{
		{"at 3, deleted", func(ctx context.Context) (Held, error) { return At(ctx, js, "LOG", 3) }, 0},
		{"at 0", func(ctx context.Context) (Held, error) { return At(ctx, js, "LOG", 0) }, 0},
		{"at 7, not there", func(ctx context.Context) (Held, error) { return At(ctx, js, "LOG", 7) }, 0},
		{"at 6", func(ctx context.Context) (Held, error) { return At(ctx, js, "LOG", 6) }, 6},
		{"from 3", func(ctx context.Context) (Held, error) { return FirstFrom(ctx, js, "LOG", 3) }, 4},
		{"from 0", func(ctx context.Context) (Held, error) { return FirstFrom(ctx, js, "LOG", 0) }, 1},
		{"from 7", func(ctx context.Context) (Held, error) { return FirstFrom(ctx, js, "LOG", 7) }, 0},
		{"since the fourth", func(ctx context.Context) (Held, error) { return FirstSince(ctx, js, "LOG", fourth.Time) }, 4},
		{"since later", func(ctx context.Context) (Held, error) { return FirstSince(ctx, js, "LOG", fourth.Time.Add(time.Hour)) }, 0},
		{"last of log.a", func(ctx context.Context) (Held, error) { return LastOf(ctx, js, "LOG", "log.a") }, 5},
		{"last of log.c", func(ctx context.Context) (Held, error) { return LastOf(ctx, js, "LOG", "log.c") }, 0},
	} {
		m, err := x.ask(testkit.Context(t))
		if m.Seq != x.want || (x.want == 0) != errors.Is(err, ErrNone) || x.want > 0 && string(m.Data) != fmt.Sprint(x.want) || x.want == 6 && m.Header.Get("A") != "b" {
			t.Errorf("%s: %+v, %v: want %d", x.what, m, err, x.want)
		}
	}
	if _, err := At(testkit.Context(t), js, "NONE", 1); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("of no stream: %v", err)
	}
}
