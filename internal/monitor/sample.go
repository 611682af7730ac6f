package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/riskweir/riskweir/pkg/events"
)

// sampler looks at the broker. It reads only, and makes no consumers.
type sampler struct {
	js natsjs.JetStream
}

// declared is a kind to look at.
type declared struct {
	kind  string
	lanes int
	told  bool // of labels, in EVENTS
	ids   bool // are remembered
}

// kinds looks at all of them side by side.
func (s sampler) kinds(ctx context.Context, ds []declared) []KindSample {
	out := make([]KindSample, len(ds))
	var wg sync.WaitGroup
	for i, d := range ds {
		wg.Go(func() {
			k, err := s.kind(ctx, d)
			if err != nil {
				k = KindSample{Kind: d.kind, Err: err.Error()}
			}
			out[i] = k
		})
	}
	wg.Wait()
	return out
}

func (s sampler) kind(ctx context.Context, d declared) (KindSample, error) {
	k := KindSample{Kind: d.kind}
	for _, lane := range events.LaneNumbers(d.lanes) {
		k.Lanes = append(k.Lanes, LaneSample{Lane: lane})
	}
	// From the leaders: without one, the kind cannot work either.
	scores, err := s.js.Stream(ctx, events.ScoresStream(d.kind))
	if err != nil {
		return k, fmt.Errorf("look at %s: %w", events.ScoresStream(d.kind), err)
	}
	if d.ids {
		if k.Conflict, err = conflict(ctx, scores, d.kind); err != nil {
			return k, fmt.Errorf("conflicts of %s: %w", d.kind, err)
		}
	}
	if err := s.positions(ctx, &k); err != nil {
		return k, fmt.Errorf("positions of %s: %w", d.kind, err)
	}
	stream, err := s.js.Stream(ctx, events.EventsStream(d.kind))
	if err != nil {
		return k, fmt.Errorf("look at %s: %w", events.EventsStream(d.kind), err)
	}
	info := stream.CachedInfo()
	k.Created, k.Stored, k.LastSeq = info.Created, info.State.Msgs, info.State.LastSeq
	if d.told {
		told, err := stream.Info(ctx, natsjs.WithSubjectFilter(events.KnownSubject(d.kind)))
		if err != nil {
			return k, fmt.Errorf("look at %s: %w", events.EventsStream(d.kind), err)
		}
		k.Told = min(told.State.Subjects[events.KnownSubject(d.kind)], k.Stored)
		k.Stored -= k.Told
	}
	asked := time.Now()
	for i := range k.Lanes {
		l := &k.Lanes[i]
		if !l.Found || l.Position.Seq >= k.LastSeq {
			continue
		}
		oldest, pending, err := s.waiting(ctx, d.kind, l.Lane, l.Position.Seq+1)
		if err != nil {
			return k, fmt.Errorf("events of %s lane %d: %w", d.kind, l.Lane, err)
		}
		l.Pending = pending
		if pending > 0 {
			// By the clock of the stream's leader, which may not be ours.
			l.Age = max(0, info.TimeStamp.Add(time.Since(asked)).Sub(oldest))
		}
	}
	return k, nil
}

// conflict is the latest one.
func conflict(ctx context.Context, scores natsjs.Stream, kind string) (*ConflictSample, error) {
	asked := time.Now()
	m, err := scores.GetLastMsgForSubject(ctx, events.ScoreSubject(kind, events.BandConflict, "*"))
	if errors.Is(err, natsjs.ErrMsgNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x, err := events.DecodeRepeat(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%s at %d: %w", m.Subject, m.Sequence, err)
	}
	return &ConflictSample{Seq: x.Seq, First: x.First, Age: max(0, scores.CachedInfo().TimeStamp.Add(time.Since(asked)).Sub(m.Time))}, nil
}

// positions reads those of all lanes at once. A replica that is a moment behind makes a lane look a moment older.
func (s sampler) positions(ctx context.Context, k *KindSample) error {
	subjects := make([]string, len(k.Lanes))
	for i, l := range k.Lanes {
		subjects[i] = events.PositionSubject(k.Kind, l.Lane)
	}
	all, err := jetstreamext.GetLastMsgsFor(ctx, s.js, events.ScoresStream(k.Kind), subjects)
	if err != nil {
		return err
	}
	for m, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil
		}
		if err != nil {
			return err
		}
		_, lane, err := events.ParsePositionSubject(m.Subject)
		i := slices.IndexFunc(k.Lanes, func(l LaneSample) bool { return l.Lane == lane })
		if err != nil || i < 0 {
			return fmt.Errorf("a message on %s: not asked for", m.Subject)
		}
		if k.Lanes[i].Position, err = events.DecodePosition(m.Data); err != nil {
			return fmt.Errorf("lane %d: %w", lane, err)
		}
		k.Lanes[i].Found = true
	}
	return nil
}

// waiting returns when the first event of the lane from seq on was stored, and how many there are. It asks the stream's leader: a replica
// that is behind has no such event yet, which would look as if nothing waited.
func (s sampler) waiting(ctx context.Context, kind string, lane int, seq uint64) (oldest time.Time, n uint64, err error) {
	stream, filter := events.EventsStream(kind), events.LaneFilter(kind, lane)
	var first struct {
		Error   *natsjs.APIError `json:"error"`
		Message *struct {
			Seq  uint64    `json:"seq"`
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	// As JSON, and not as the message itself, whose headers may hold what looks like a word of the server's.
	if err := s.ask(ctx, "$JS.API.STREAM.MSG.GET."+stream, map[string]any{"seq": seq, "next_by_subj": filter}, &first); err != nil {
		return oldest, 0, err
	}
	switch {
	case first.Error != nil && first.Error.ErrorCode == natsjs.JSErrCodeMessageNotFound:
		return oldest, 0, nil
	case first.Error != nil:
		return oldest, 0, first.Error
	case first.Message == nil:
		return oldest, 0, errors.New("the answer has no message")
	}
	n, err = s.count(ctx, stream, filter, first.Message.Seq)
	return first.Message.Time, max(1, n), err
}

func (s sampler) ask(ctx context.Context, subject string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	msg, err := s.js.Conn().RequestWithContext(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("%s: answer: %w", subject, err)
	}
	return nil
}

// count of the events of the filter from seq on, by any replica. Stored headers are left out, so that what has a header is the server's.
func (s sampler) count(ctx context.Context, stream, filter string, seq uint64) (n uint64, err error) {
	body, err := json.Marshal(map[string]any{"seq": seq, "next_by_subj": filter, "batch": 1, "no_hdr": true})
	if err != nil {
		return 0, err
	}
	conn := s.js.Conn()
	inbox := conn.NewInbox()
	sub, err := conn.SubscribeSync(inbox)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sub.Unsubscribe()) }()
	if err := conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox, body); err != nil {
		return 0, err
	}
	for {
		msg, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return 0, fmt.Errorf("count the events from %d on: %w", seq, err)
		}
		switch msg.Header.Get("Status") {
		case "":
			n++
		case "204":
			behind, err := strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
			return max(n, behind), err // without headers the server counts the message that it sent among those behind
		case "404":
			return 0, nil
		default:
			return 0, fmt.Errorf("count the events from %d on: %s %s", seq, msg.Header.Get("Status"), msg.Header.Get("Description"))
		}
	}
}

// members are the scorers in SCORERS, by instance.
func (s sampler) members(ctx context.Context) ([]string, error) {
	prefix := "$KV." + events.ScorersBucket + "."
	all, err := jetstreamext.GetLastMsgsFor(ctx, s.js, "KV_"+events.ScorersBucket, []string{prefix + ">"})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", events.ScorersBucket, err)
	}
	var out []string
	for m, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", events.ScorersBucket, err)
		}
		if m.Header.Get("KV-Operation") == "" {
			out = append(out, strings.TrimPrefix(m.Subject, prefix))
		}
	}
	slices.Sort(out)
	return out, nil
}

func decodeBeat(body []byte) (events.Heartbeat, error) {
	var h events.Heartbeat
	if err := json.Unmarshal(body, &h); err != nil {
		return h, err
	}
	if h.Service == "" || h.Instance == "" {
		return h, errors.New("no service or instance")
	}
	return h, nil
}
