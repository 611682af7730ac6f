package tail

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Patience bounds how long Through waits for a message that there is: an election takes 4 to 9 s.
const Patience = 30 * time.Second

var errThrough = errors.New("read to the end")

// Through hands the messages behind r.Last, up to last, to take, in order, and returns when the stream's leader holds no more of them. The replica that
// it reads from may be behind: what that has not got yet is waited for, and told to r.Trouble. It returns the error of take, ErrIncarnation, why ctx ended,
// or, if none came for as long as patience although there was one, why.
//
// Of r it needs JS, Stream, Name and Owner. It sets Take and Idle.
func (r *Reader) Through(ctx context.Context, last uint64, patience time.Duration, take func(Message, *jetstream.MsgMetadata) error) error {
	if r.Last >= last {
		return nil
	}
	reading, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var mu sync.Mutex
	why := errors.New("no answer") // under mu
	late := time.AfterFunc(patience, func() {
		mu.Lock()
		defer mu.Unlock()
		cancel(fmt.Errorf("%s did not get on for %s, try again: %w", r.Stream, patience, why))
	})
	defer late.Stop()
	told := r.Trouble
	trouble := func(err error) {
		mu.Lock()
		why = err
		mu.Unlock()
		if told != nil {
			told(err)
		}
	}
	r.Trouble = trouble
	if r.Begin == nil {
		r.Begin = func(time.Time) {}
	}
	r.Idle = func() {
		switch m, err := FirstFrom(reading, r.JS, r.Stream, r.Last+1); {
		case errors.Is(err, ErrNone), err == nil && m.Seq > last:
			cancel(errThrough)
		case err == nil:
			trouble(fmt.Errorf("its leader holds message %d, which the replica that is read has not got yet", m.Seq))
		case reading.Err() == nil:
			trouble(err)
		}
	}
	r.Take = func(m Message, at *jetstream.MsgMetadata) {
		if reading.Err() != nil {
			return
		}
		late.Stop()
		defer late.Reset(patience)
		seq := at.Sequence.Stream
		if seq <= last {
			if err := take(m, at); err != nil {
				cancel(err)
				return
			}
		}
		if seq >= last {
			cancel(errThrough)
		}
	}
	if err := r.Run(reading); err != nil {
		return err
	}
	if err := context.Cause(reading); !errors.Is(err, errThrough) {
		return err
	}
	return nil
}
