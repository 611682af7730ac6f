package recall

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// Seen is one event, and what was remembered as it came.
type Seen struct {
	Seq      uint64
	Subject  string
	History  bool         // its header says so
	Event    memory.Event // valid until the func returns
	Features []float64    // likewise
	Store    *memory.Store
	Verdict  memory.Verdict // if an earlier event has its id, it has no features and will not be folded
	Origin   uint64         // the memory is of the events from here on
}

// Walk folds from the newest snapshot before the event first, and calls see for each valid event from first to last before it is folded.
// What a replica that is behind has not got yet is waited for: it returns nil only if all that the leader of EVENTS held as it began was read.
func Walk(ctx context.Context, js jetstream.JetStream, p *memory.Plan, first, last uint64, note func(error), see func(Seen) error) error {
	lib := newLibrary(js, p)
	for {
		b, err := lib.begin(ctx, first, false, note)
		if err != nil {
			return err
		}
		if err = walk(ctx, js, p, b, first, last, note, see); !errors.Is(err, errAnchor) { // which comes before any event is seen
			return err
		}
		note(err)
		lib.refuse(b.Place)
	}
}

func walk(ctx context.Context, js jetstream.JetStream, p *memory.Plan, b Beginning, first, last uint64, note func(error), see func(Seen) error) error {
	kind := p.Schema.Contract.Kind
	stream, err := js.Stream(ctx, events.EventsStream(kind))
	if err != nil {
		return fmt.Errorf("look at %s: %w", events.EventsStream(kind), err)
	}
	last = min(last, stream.CachedInfo().State.LastSeq)
	if b.Place.Seq >= last {
		return nil
	}
	f := Folder{Store: b.Store}
	out := make([]float64, p.Width())
	anchored := b.Place.Stored != 0
	reader := &tail.Reader{
		JS: js, Name: "walk", Stream: events.EventsStream(kind), Owner: "who asked for features",
		Incarnation: b.incarnation, Last: b.Place.Seq, Trouble: note,
	}
	if anchored {
		reader.Last--
	}
	return reader.Through(ctx, last, tail.Patience, func(m tail.Message, at *jetstream.MsgMetadata) error {
		seq := at.Sequence.Stream
		if anchored && seq <= b.Place.Seq {
			if anchored = false; at.Timestamp.UnixNano() != b.Place.Stored {
				return errAnchor
			}
			return nil
		}
		if events.IsKnown(m.Subject()) {
			_ = f.know(m.Data()) // as in take: what cannot be read leaves no trace
			return nil
		}
		ev, err := f.decode(seq, m.Subject(), m.Headers().Get("Content-Type"), m.Data(), at.Timestamp)
		if err != nil {
			return nil
		}
		if seq >= first {
			v := f.Store.Read(ev, out)
			if err := see(Seen{
				Seq: seq, Subject: m.Subject(), History: m.Headers().Get(events.HeaderHistory) == "1",
				Event: ev, Features: out, Store: f.Store, Verdict: v, Origin: b.Place.Origin,
			}); err != nil {
				return err
			}
		}
		f.Store.Step(ev, out)
		return nil
	})
}
