package trainer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/tail"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// The leading trainer tells the log of a kind what became known of the events in it, so that features of labels are a function of the log.
// What there is to tell is the difference between two things that are read, LABELS and what has been told, and every message is stored under
// the condition that the one before is the last that was read. So whoever tells, and whatever of it is lost, each change is told once.

const (
	tellTimeout = 2 * time.Second
	tellRetry   = time.Second // after trouble
	// tellStuck is waited for the message that was stored in the way of ours. Then it is none that can still be read: it has expired.
	tellStuck = time.Minute
	// tellBytes of a message, half of what a server takes by default: keys may be six times as long in JSON.
	tellBytes = 512 << 10
)

// telling is what a join knows of what the log has been told.
//
//	each row of which the log is to be told something is in due, once
type telling struct {
	plan *memory.Plan // nil: the log is told nothing
	last uint64       // sequence of the last message that tells
	due  []*row
	told int // changes, by whomever
}

// refusal is of a message that did not get in: another one is behind the one that it was to stand behind.
type refusal struct {
	join   *join
	behind uint64
	at     time.Time
}

// told is of one row.
type told struct {
	entity string       // of its subject
	label  events.Truth // as the log has it
	claim  uint64       // the label that says so, in LABELS
	due    bool
	mute   bool // it cannot be told of
}

// truth is what the log is to be told of r.
func (r *row) truth() events.Truth {
	switch r.claim.verdict {
	case good:
		return events.GoodLabel
	case bad:
		return events.BadLabel
	}
	return events.NoLabel
}

// untold says whether the log is to be told of r. What another trainer told, who knew a later label, stands.
func (r *row) untold() bool {
	return !r.told.mute && r.truth() != r.told.label && r.claim.seq > r.told.claim
}

// consider notes a row whose claim, or of which what has been told, may have changed.
func (t *telling) consider(r *row) {
	if t.plan != nil && !r.told.due && r.untold() {
		r.told.due = true
		t.due = append(t.due, r)
	}
}

// next is of which rows to tell, in the order of their labels.
func (t *telling) next(most int) []*row {
	t.due = slices.DeleteFunc(t.due, func(r *row) bool {
		r.told.due = r.untold()
		return !r.told.due
	})
	slices.SortFunc(t.due, func(a, b *row) int { return cmp.Compare(a.claim.seq, b.claim.seq) })
	return slices.Clone(t.due[:min(most, len(t.due))])
}

// takeKnown takes what the log has been told, by whomever.
func (j *join) takeKnown(seq uint64, list []events.Known) {
	if seq <= j.telling.last {
		return // it was ours, and is known since it was stored
	}
	j.telling.last = seq
	j.telling.told += len(list)
	for i := range list {
		if r := j.bySeq(list[i].Seq); r != nil {
			r.told.label, r.told.claim = list[i].Label, list[i].Claim
			j.telling.consider(r)
		}
	}
}

func (k *kind) takeKnown(m tail.Message, at *jetstream.MsgMetadata) {
	list, err := events.DecodeKnown(m.Data()) // what cannot be read tells nobody anything
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.counts.badKnown++
	}
	k.join.takeKnown(at.Sequence.Stream, list)
}

// tell tells the log of a kind, while this trainer leads.
func (t *Trainer) tell(ctx context.Context, js jetstream.JetStream) {
	tick := time.NewTicker(t.cfg.tell)
	defer tick.Stop()
	notBefore, refusals := map[*kind]time.Time{}, map[*kind]*refusal{}
	for ctx.Err() == nil {
		for _, k := range t.sortedKinds() {
			if refusals[k] == nil {
				refusals[k] = &refusal{}
			}
			n := events.MaxKnown
			for n == events.MaxKnown && time.Now().After(notBefore[k]) {
				var err error
				if n, err = k.tell(ctx, js, refusals[k]); err != nil && ctx.Err() == nil {
					t.trouble(fmt.Errorf("tell the log of %s what became known: %w", k.name, err))
					notBefore[k] = time.Now().Add(tellRetry)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// tidings are the material of one message.
type tidings struct {
	join        *join
	behind      uint64
	incarnation time.Time
	list        []events.Known
	body        []byte
}

// tidings are what there is to tell, once both streams have been read to their end.
func (k *kind) tidings() tidings {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &k.join.telling
	x := tidings{join: k.join, behind: t.last, incarnation: k.incarnation}
	if t.plan == nil || !k.eventsRead || !k.labelsRead {
		return x
	}
	var rec events.Record
	for _, r := range t.next(events.MaxKnown) {
		known, ok := tidingsOf(t.plan, r, &rec)
		line := events.AppendKnown(nil, []events.Known{known})
		if r.told.mute = !ok || !readsBack(line, known); r.told.mute {
			k.counts.mute++
			continue
		}
		if len(x.body)+len(line) > tellBytes {
			break // the rest is still due
		}
		x.list, x.body = append(x.list, known), append(x.body, line...)
	}
	return x
}

// readsBack says whether a line is understood as what it was written of. An entity that somebody wrote by hand may be no UTF-8, or too long, and a time
// no time once it is in whole microseconds; and of a message with one line that cannot be read nothing is.
func readsBack(line []byte, known events.Known) bool {
	list, err := events.DecodeKnown(line)
	return err == nil && len(list) == 1 && reflect.DeepEqual(list[0], known)
}

func tidingsOf(plan *memory.Plan, r *row, rec *events.Record) (events.Known, bool) {
	if plan.Schema.Decode(r.encoding, r.body, rec) != nil {
		return events.Known{}, false
	}
	known, ok := plan.Tell(memory.Event{Record: rec, Entity: []byte(r.told.entity), Stored: r.stored})
	known.Seq, known.Claim, known.Was, known.Label = r.seq, r.claim.seq, r.told.label, r.truth()
	return known, ok
}

// tell stores one message, and returns of how many events it tells.
func (k *kind) tell(ctx context.Context, js jetstream.JetStream, refused *refusal) (n int, err error) {
	x := k.tidings()
	if len(x.list) == 0 {
		return 0, nil
	}
	if refused.join == x.join && refused.behind == x.behind { // another one told something that is yet to be read
		if time.Since(refused.at) > tellStuck {
			k.startAgain(errTold)
		}
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	stream, err := js.Stream(ctx, events.EventsStream(k.name))
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", events.EventsStream(k.name), err)
	}
	if !stream.CachedInfo().Created.Equal(x.incarnation) {
		return 0, nil // the reader finds out, and begins again
	}
	msg := &nats.Msg{Subject: events.KnownSubject(k.name), Data: x.body, Header: nats.Header{}}
	topology.Fence(msg, x.behind)
	ack, err := js.PublishMsg(ctx, msg, jetstream.WithExpectStream(events.EventsStream(k.name)))
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence:
		*refused = refusal{x.join, x.behind, time.Now()}
		return 0, nil
	case err != nil: // it may be stored: then it will be read, and until then this condition refuses it again
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	x.join.takeKnown(ack.Sequence, x.list)
	k.trainer.log.Debug("told the log what became known", zap.String("kind", k.name), zap.Int("events", len(x.list)), zap.Uint64("seq", ack.Sequence))
	return len(x.list), nil
}

// errTold: the last message that tells is none that was read, and does not come.
var errTold = errors.New("what the log was told last is not to be read from it any more")

// startAgain ends the round of reading.
func (k *kind) startAgain(cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.again != nil {
		k.again(cause)
	}
}
