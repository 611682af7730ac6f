package testkit

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestCourier(t *testing.T) {
	ctx := Context(t)
	c := Start(t, 1)
	k := c.Courier(t)
	js, err := jetstream.New(k.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func(subject string) error {
		ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		_, err := js.Publish(ctx, subject, []byte("body\r\nof two lines"), jetstream.WithRetryAttempts(0))
		return err
	}
	last := func() uint64 {
		t.Helper()
		info, err := s.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return info.State.LastSeq
	}
	k.Lose("s.a", Request, 1)
	k.Lose("s.*", Answer, 1)
	for i, x := range []struct {
		subject string
		err     error
		seq     uint64
	}{
		{"s.a", context.DeadlineExceeded, 0},
		{"s.a", context.DeadlineExceeded, 1},
		{"s.a", nil, 2},
		{"s.b", nil, 3},
	} {
		if err := publish(x.subject); !errors.Is(err, x.err) || x.err == nil && err != nil || last() != x.seq {
			t.Errorf("publish %d: %v, and the stream is at %d; want %v and %d", i, err, last(), x.err, x.seq)
		}
	}
	if k.Lost() != 2 {
		t.Errorf("lost %d, want 2", k.Lost())
	}
}

func TestMatches(t *testing.T) {
	for _, x := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.b", "a.b.c", false}, {"a.*", "a.b", true}, {"a.*", "a", false}, {"a.*", "a.b.c", false},
		{"a.>", "a.b.c", true}, {"a.>", "a", false}, {">", "a", true}, {"a.*.c", "a.b.c", true}, {"a.*.c", "a.b.d", false},
	} {
		if matches(x.pattern, x.subject) != x.want {
			t.Errorf("%s and %s: want %v", x.pattern, x.subject, x.want)
		}
	}
}
