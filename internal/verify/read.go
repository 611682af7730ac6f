package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

const (
	pullBatch  = 4000
	pullExpiry = 5 * time.Second
	pullBeat   = time.Second
	idle       = pullBeat / 2                      // then read returns empty-handed
	silence    = 2*pullBeat + 500*time.Millisecond // then the consumer is taken for dead
	retryPause = 200 * time.Millisecond
	apiTimeout = 5 * time.Second
)

// message of a stream. Its fields alias the client's buffers: they stay valid.
type message struct {
	subject     string
	seq         uint64
	stored      int64 // ns
	contentType string
	data        []byte
}

// reader reads the messages of a stream that match a filter, in order and without gaps, through
// consumers of its own: on any doubt it makes a new one at the next sequence.
type reader struct {
	js          jetstream.JetStream
	stream      string
	filter      string
	headersOnly bool
	next        uint64 // first stream sequence not yet returned
	opened      time.Time

	// Of the consumer in use; name is empty when there is none.
	name  string
	sub   *nats.Subscription
	ch    chan *nats.Msg
	cseq  uint64 // of the last message
	asked int    // messages that may still come for pulls made
	beat  time.Time
	tick  *time.Ticker
}

func newReader(js jetstream.JetStream, stream, filter string, from uint64, headersOnly bool) *reader {
	return &reader{js: js, stream: stream, filter: filter, headersOnly: headersOnly, next: from, tick: time.NewTicker(idle)}
}

// close ends the reader. Its consumer is deleted, or else ends by itself.
func (r *reader) close(ctx context.Context) {
	r.tick.Stop()
	if r.name == "" {
		return
	}
	name := r.name
	r.drop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.js.DeleteConsumer(ctx, r.stream, name) // gone after its inactivity threshold in any case
}

func (r *reader) drop() {
	if r.sub != nil {
		_ = r.sub.Unsubscribe() // fails on a closed connection only
	}
	r.name, r.sub, r.ch = "", nil, nil
}

// open makes a consumer that begins at next.
func (r *reader) open(ctx context.Context) error {
	nc := r.js.Conn()
	// Deep enough for all that can come of two pulls, so that the client never drops any.
	ch := make(chan *nats.Msg, 3*pullBatch)
	sub, err := nc.ChanSubscribe(nc.NewInbox(), ch)
	if err != nil {
		return err
	}
	name := "verify-" + nuid.Next()
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	_, err = r.js.CreateConsumer(ctx, r.stream, jetstream.ConsumerConfig{
		Name:              name,
		Description:       "the independent checker",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       max(r.next, 1),
		AckPolicy:         jetstream.AckNonePolicy,
		FilterSubject:     r.filter,
		HeadersOnly:       r.headersOnly,
		InactiveThreshold: 30 * time.Second,
		Replicas:          1,
		MemoryStorage:     true,
	})
	if err != nil {
		_ = sub.Unsubscribe() // as in drop
		return fmt.Errorf("make a consumer on %s: %w", r.stream, err)
	}
	r.name, r.sub, r.ch, r.cseq, r.asked, r.beat = name, sub, ch, 0, 0, time.Now()
	return nil
}

// read returns the next message; ok is false if none came for a while.
func (r *reader) read(ctx context.Context) (m message, ok bool, err error) {
	for {
		if r.name == "" {
			select {
			case <-ctx.Done():
				return m, false, context.Cause(ctx)
			case <-time.After(time.Until(r.opened.Add(retryPause))):
			}
			r.opened = time.Now()
			if err := r.open(ctx); lasting(err) {
				return m, false, err
			} else if err != nil {
				return m, false, context.Cause(ctx) // nil: an outage; the caller's patience decides
			}
		}
		if r.asked <= pullBatch/2 {
			if err := r.pull(); err != nil {
				return m, false, fmt.Errorf("read %s: %w", r.stream, err)
			}
		}
		var next *nats.Msg
		select {
		case next = <-r.ch:
		default:
			select {
			case next = <-r.ch:
			case <-ctx.Done():
				return m, false, context.Cause(ctx)
			case <-r.tick.C:
				if time.Since(r.beat) > silence {
					r.drop()
				}
				return m, false, nil
			}
		}
		r.beat = time.Now()
		if m, ok = r.accept(next); ok {
			return m, true, nil
		}
	}
}

// upTo hands on all messages up to last, which is one that matches the filter, or was.
func (r *reader) upTo(ctx context.Context, last uint64, each func(message) error) error {
	for r.next <= last {
		m, ok, err := r.read(ctx)
		switch {
		case err != nil:
			return err
		case !ok: // did the last one leave the stream before its turn?
			now, err := lastSeq(ctx, r.js, r.stream, r.filter)
			if err != nil {
				return err
			}
			last = min(last, now)
		case m.seq > last:
			r.drop() // begin at m again
			r.next = m.seq
			return nil
		default:
			if err := each(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// accept takes a message of the stream, or deals with a word of the server.
func (r *reader) accept(m *nats.Msg) (message, bool) {
	if m.Reply == "" {
		switch m.Header.Get("Status") {
		case "100": // heartbeat
		case "404", "408": // the pull has ended
			r.asked = max(0, r.asked-pending(m, pullBatch))
		default: // the consumer, its leader or its stream went away
			r.drop()
		}
		return message{}, false
	}
	consumer, seq, cseq, at, err := parseReply(m.Reply)
	if err != nil || consumer != r.name {
		return message{}, false
	}
	if cseq != r.cseq+1 || seq < r.next {
		r.drop()
		return message{}, false
	}
	r.cseq, r.next, r.asked = cseq, seq+1, r.asked-1
	return message{subject: m.Subject, seq: seq, stored: at, contentType: m.Header.Get("Content-Type"), data: m.Data}, true
}

// pending is how many messages of a pull had not come when it ended.
func pending(m *nats.Msg, otherwise int) int {
	if n, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages")); err == nil {
		return n
	}
	return otherwise
}

func (r *reader) pull() error {
	body := fmt.Sprintf(`{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, pullBatch, pullExpiry, pullBeat)
	r.asked += pullBatch
	return r.js.Conn().PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+r.stream+"."+r.name, r.sub.Subject, []byte(body))
}

// lasting says that trying again will not help.
func lasting(err error) bool {
	return errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrPermissionViolation)
}

// parseReply reads $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<seq>.<cseq>.<time>.<pending>[.<token>]
func parseReply(reply string) (consumer string, seq, cseq uint64, stored int64, err error) {
	rest, ok := strings.CutPrefix(reply, "$JS.ACK.")
	if n := strings.Count(reply, "."); !ok || n < 8 || n == 9 {
		return "", 0, 0, 0, fmt.Errorf("reply subject %q: want that of a JetStream delivery", reply)
	} else if n > 9 {
		_, rest, _ = strings.Cut(rest, ".")
		_, rest, _ = strings.Cut(rest, ".")
	}
	_, rest, _ = strings.Cut(rest, ".")
	consumer, rest, _ = strings.Cut(rest, ".")
	_, rest, _ = strings.Cut(rest, ".")
	a, rest, _ := strings.Cut(rest, ".")
	b, rest, _ := strings.Cut(rest, ".")
	c, _, _ := strings.Cut(rest, ".")
	if seq, err = strconv.ParseUint(a, 10, 64); err == nil {
		if cseq, err = strconv.ParseUint(b, 10, 64); err == nil {
			stored, err = strconv.ParseInt(c, 10, 64)
		}
	}
	return consumer, seq, cseq, stored, err
}

// stored is a message as STREAM.MSG.GET gives it.
type stored struct {
	Subject string `json:"subject"`
	Seq     uint64 `json:"seq"`
}

// patience bounds how long a question to the cluster is repeated: an election takes 4 to 9 s.
const patience = 20 * time.Second

// persist repeats ask until it is answered.
func persist(ctx context.Context, ask func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	for {
		once, cancel := context.WithTimeout(ctx, apiTimeout)
		err := ask(once)
		cancel()
		if err == nil || lasting(err) || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

// get asks the stream's leader: a direct get may be answered by a replica that is behind. No
// message is not an error: ok is false.
func get(ctx context.Context, js jetstream.JetStream, stream string, request map[string]any) (m stored, ok bool, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return m, false, err
	}
	err = persist(ctx, func(ctx context.Context) error {
		reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, body)
		if err != nil {
			return err
		}
		var answer struct {
			Error   *jetstream.APIError `json:"error"`
			Message *stored             `json:"message"`
		}
		switch err := json.Unmarshal(reply.Data, &answer); {
		case err != nil:
			return err
		case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
			return nil
		case answer.Error != nil:
			return answer.Error
		case answer.Message != nil:
			m, ok = *answer.Message, true
		}
		return nil
	})
	if err != nil {
		return m, false, fmt.Errorf("get a message of %s: %w", stream, err)
	}
	return m, ok, nil
}

// lastSeq is the sequence of the last message that matches the filter, 0 if there is none.
func lastSeq(ctx context.Context, js jetstream.JetStream, stream, filter string) (uint64, error) {
	m, _, err := get(ctx, js, stream, map[string]any{"last_by_subj": filter})
	return m.Seq, err
}

// firstSeq is that of the oldest message of the stream, or where the first one would be.
func firstSeq(ctx context.Context, js jetstream.JetStream, stream string) (first uint64, err error) {
	err = persist(ctx, func(ctx context.Context) error {
		s, err := js.Stream(ctx, stream)
		if err == nil {
			first = max(s.CachedInfo().State.FirstSeq, 1)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	return first, nil
}
