package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// Headers of the server's atomic batch publishing and of its fence.
const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
	headerExpectSubject = "Nats-Expected-Last-Subject-Sequence"
	headerExpectStream  = "Nats-Expected-Stream"
)

// MaxBatch is the server's limit of messages in one atomic batch.
const MaxBatch = 1000

// Server error codes that a commit branches on (nats-server server/errors.json).
const (
	codeWrongLastSequence = 10071 // another position is newer
	codeSequenceInFlight  = 10164 // another position is being decided on
)

// What became of a commit, where it is known. Any other error of Commit leaves the result
// unknown: the batch may be stored now, later, or never. Do not decide by reading; claim again.
var (
	ErrFenced   = errors.New("fenced: a newer position exists")
	ErrInFlight = errors.New("another position is in flight")
	ErrRefused  = errors.New("refused by the server: nothing of the batch is stored")
)

// Fence makes a message conditional on the last sequence of its own subject.
// Zero demands that there be none yet.
func Fence(m *nats.Msg, lastSubjectSequence uint64) {
	if m.Header == nil {
		m.Header = nats.Header{}
	}
	m.Header[headerExpectSubject] = []string{strconv.FormatUint(lastSubjectSequence, 10)}
}

// Committer publishes atomic batches to one stream: outputs together with the position they were read up to.
type Committer struct {
	Conn    *nats.Conn
	Stream  string
	Timeout time.Duration // for the server's answer; it commits within a round of replication or not at all
}

type pubAck struct {
	Error *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
	Stream   string `json:"stream"`
	Sequence uint64 `json:"seq"`
}

// Commit stores all of msgs, in order, or none, and returns the stream sequence of the last.
// It takes 1 to MaxBatch messages and owns their headers from then on. Only the last message is
// answered, since what the server holds against an earlier one it says at the commit.
func (c *Committer) Commit(ctx context.Context, msgs []*nats.Msg) (uint64, error) {
	if len(msgs) == 0 || len(msgs) > MaxBatch {
		return 0, fmt.Errorf("commit to %s: %d messages: want 1 to %d", c.Stream, len(msgs), MaxBatch)
	}
	last := msgs[len(msgs)-1]
	if last.Header == nil {
		last.Header = nats.Header{}
	}
	last.Header[headerExpectStream] = []string{c.Stream}
	if len(msgs) > 1 {
		id := []string{nuid.Next()}
		for i, m := range msgs {
			if m.Header == nil {
				m.Header = make(nats.Header, 2)
			}
			m.Header[headerBatchID] = id
			m.Header[headerBatchSequence] = []string{strconv.Itoa(i + 1)}
		}
		last.Header[headerBatchCommit] = []string{"1"}
		for i, m := range msgs[:len(msgs)-1] {
			if err := c.Conn.PublishMsg(m); err != nil {
				return 0, fmt.Errorf("commit to %s: message %d of %d: %w", c.Stream, i+1, len(msgs), err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	reply, err := c.Conn.RequestMsgWithContext(ctx, last)
	if err != nil {
		return 0, fmt.Errorf("commit to %s: %w", c.Stream, err)
	}
	return c.outcome(reply.Data)
}

func (c *Committer) outcome(body []byte) (uint64, error) {
	var ack pubAck
	if err := json.Unmarshal(body, &ack); err != nil {
		return 0, fmt.Errorf("commit to %s: answer: %w", c.Stream, err)
	}
	switch {
	case ack.Error == nil && ack.Stream == c.Stream && ack.Sequence > 0:
		return ack.Sequence, nil
	case ack.Error == nil:
		return 0, fmt.Errorf("commit to %s: the answer %q is no acknowledgement of this stream", c.Stream, body)
	case ack.Error.ErrCode == codeWrongLastSequence:
		return 0, fmt.Errorf("commit to %s: %w", c.Stream, ErrFenced)
	case ack.Error.ErrCode == codeSequenceInFlight:
		return 0, fmt.Errorf("commit to %s: %w", c.Stream, ErrInFlight)
	}
	return 0, fmt.Errorf("commit to %s: %w: %s (%d)", c.Stream, ErrRefused, ack.Error.Description, ack.Error.ErrCode)
}
