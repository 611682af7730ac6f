package verify

import (
	"context"
	"fmt"

	"github.com/riskweir/riskweir/pkg/events"
)

const whatUntrue = "untrue"

// toldOf checks what EVENTS says became known of its events: that of each event it is a chain, that the event is there, where EVENTS still
// keeps it, and is of that entity; and collects which label is said to say so.
type toldOf struct {
	checker *checker
	last    map[uint64]events.Truth // by event
	claims  map[uint64][]events.Known
	from    uint64
	to      uint64 // in LABELS
}

// message takes the one at seq of EVENTS.
func (k *toldOf) message(seq uint64, body []byte) {
	c := k.checker
	list, err := events.DecodeKnown(body)
	if err != nil {
		k.untrue(seq, 0, err.Error())
		return
	}
	for _, x := range list {
		c.report.Told++
		if c.erased.has(x.Seq) {
			continue // what was told of it cannot be taken out of a message that tells of others
		}
		_, there := c.table.lane(x.Seq)
		token, err := events.EscapeEntity(x.Entity)
		before, told := k.last[x.Seq]
		switch {
		case x.Seq >= seq:
			k.untrue(seq, x.Seq, "it was told before the event came")
		case !there && x.Seq >= c.firstKept:
			k.untrue(seq, x.Seq, "EVENTS holds no such event")
		case there && (err != nil || !c.table.named(x.Seq, token)):
			k.untrue(seq, x.Seq, "the event is of another entity")
		case x.Was != before && (told || x.Seq >= c.firstKept):
			k.untrue(seq, x.Seq, "it goes on from a label that was not told")
		}
		k.last[x.Seq] = x.Label
		k.claims[x.Claim] = append(k.claims[x.Claim], x)
		if k.from == 0 || x.Claim < k.from {
			k.from = x.Claim
		}
		k.to = max(k.to, x.Claim)
	}
}

// label takes the one at seq of LABELS.
func (k *toldOf) label(seq uint64, body []byte) {
	list := k.claims[seq]
	if list == nil {
		return
	}
	delete(k.claims, seq)
	enc, err := events.DetectEncoding("", body)
	var l events.Label
	if err == nil {
		l, err = events.DecodeLabel(enc, body)
	}
	truth := events.NoLabel
	if l.Label != nil {
		truth = events.GoodLabel + events.Truth(*l.Label)
	}
	for _, x := range list {
		if err != nil || x.Label != truth || l.Seq != 0 && l.Seq != x.Seq {
			k.untrue(0, x.Seq, fmt.Sprintf("label %d does not say so", seq))
		}
	}
}

func (k *toldOf) untrue(at, seq uint64, note string) {
	k.checker.report.Untrue++
	if at != 0 {
		note = fmt.Sprintf("message %d of EVENTS: %s", at, note)
	}
	k.checker.offend(Offender{What: whatUntrue, Seq: seq, Note: note})
}

// readTold checks what became known of events, as far as EVENTS tells of it now.
func (cfg *Config) readTold(ctx context.Context, c *checker) error {
	stream, filter := events.EventsStream(cfg.Kind), events.KnownSubject(cfg.Kind)
	last, err := lastSeq(ctx, cfg.JS, stream, filter)
	if err != nil || last == 0 {
		return err
	}
	last = min(last, c.table.last) // what comes later may be of later events
	k := &toldOf{checker: c, last: map[uint64]events.Truth{}, claims: map[uint64][]events.Known{}}
	r := newReader(cfg.JS, stream, filter, c.table.first, false)
	defer r.close(ctx)
	if err := r.upTo(ctx, last, func(m message) error { k.message(m.seq, m.data); return nil }); err != nil {
		return err
	}
	if k.to == 0 {
		return nil
	}
	labels := newReader(cfg.JS, events.LabelsStream, "labels."+cfg.Kind+".*", k.from, false)
	defer labels.close(ctx)
	if err := labels.upTo(ctx, k.to, func(m message) error { k.label(m.seq, m.data); return nil }); err != nil {
		return err
	}
	for seq, list := range k.claims {
		k.untrue(0, list[0].Seq, fmt.Sprintf("LABELS holds no label %d", seq))
	}
	return nil
}
