// Package impact finds every outcome that a version of a model made.
package impact

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
)

// Config of one reading.
type Config struct {
	JS    jetstream.JetStream
	Kind  string
	Model string // as scores name it: payment.v000003
	// Each gets every outcome that the model made, in the order of the stream; nil: they are only counted. Its error ends the reading.
	Each func(Outcome) error
}

// Outcome that a model made.
type Outcome struct {
	Seq    uint64    `json:"scores_seq"` // in SCORES
	Stored time.Time `json:"stored"`     // when it was committed
	events.Score
}

// Count of outcomes of one band and decision.
type Count struct {
	Band     string `json:"band"`
	Decision string `json:"decision"`
	Mode     string `json:"mode"`
	N        uint64 `json:"n"`
}

// Report of a reading of SCORES up to where it ended when the reading began.
//
//	Outcomes = Σ Counts.N
type Report struct {
	Kind     string    `json:"kind"`
	Model    string    `json:"model"`
	Outcomes uint64    `json:"outcomes"`
	Counts   []Count   `json:"counts"`         // most first
	First    time.Time `json:"first,omitzero"` // the first of them was committed then
	Last     time.Time `json:"last,omitzero"`
	FromSeq  uint64    `json:"from_seq"` // of SCORES was read, both inclusive
	ToSeq    uint64    `json:"to_seq"`
	Since    time.Time `json:"since,omitzero"` // the first message that was read was stored then: retention has taken what was before
}

// patience bounds how long SCORES may be read without getting on: an election takes 4 to 9 s.
const patience = 30 * time.Second

const askTimeout = 5 * time.Second

var (
	errRead   = errors.New("read to the end")
	errBehind = errors.New("the node that is read from is behind the stream's leader")
)

// Run reads SCORES once, in memory that does not grow with it.
func Run(ctx context.Context, c Config) (Report, error) {
	report := Report{Kind: c.Kind, Model: c.Model}
	name := events.ScoresStream(c.Kind)
	looking, done := context.WithTimeout(ctx, askTimeout)
	stream, err := c.JS.Stream(looking, name)
	done()
	if err != nil {
		return report, fmt.Errorf("look at %s: %w", name, err)
	}
	state := stream.CachedInfo().State
	report.FromSeq, report.ToSeq = max(state.FirstSeq, 1), state.LastSeq
	r := reading{Config: c, report: &report, stream: name, counts: map[Count]uint64{}}
	if report.FromSeq <= report.ToSeq {
		if err := r.read(ctx); err != nil {
			return report, fmt.Errorf("read %s: %w", name, err)
		}
	}
	for count, n := range r.counts {
		count.N = n
		report.Counts = append(report.Counts, count)
	}
	slices.SortFunc(report.Counts, func(a, b Count) int {
		return cmp.Or(-cmp.Compare(a.N, b.N), cmp.Compare(a.Band, b.Band), cmp.Compare(a.Decision, b.Decision), cmp.Compare(a.Mode, b.Mode))
	})
	return report, nil
}

type reading struct {
	Config
	report *Report
	stream string
	counts map[Count]uint64 // keys have no N
}

func (r *reading) read(ctx context.Context) error {
	reading, end := context.WithCancelCause(ctx)
	defer end(nil)
	reader := &tail.Reader{
		JS: r.JS, Stream: r.stream, Name: "impact", Owner: "who asks for a model's impact", Last: r.report.FromSeq - 1,
		Begin: func(time.Time) {},
	}
	reached, since := reader.Last, time.Now()
	reader.Trouble = func(err error) {
		if reader.Last != reached {
			reached, since = reader.Last, time.Now()
		}
		if time.Since(since) > patience {
			end(fmt.Errorf("it did not get on for %s: %w", patience, err))
		}
	}
	reader.Idle = func() {
		switch more, err := r.holds(reading, reader.Last+1); {
		case err != nil:
			reader.Trouble(err)
		case more:
			reader.Trouble(errBehind)
		default:
			end(errRead)
		}
	}
	reader.Take = func(m tail.Message, at *jetstream.MsgMetadata) {
		switch seq := at.Sequence.Stream; {
		case reading.Err() != nil:
		case seq > r.report.ToSeq:
			end(errRead)
		default:
			if err := r.take(m, at); err != nil {
				end(fmt.Errorf("message %d: %w", seq, err))
			} else if seq == r.report.ToSeq {
				end(errRead)
			}
		}
	}
	if err := reader.Run(reading); err != nil {
		return err
	}
	if err := context.Cause(reading); !errors.Is(err, errRead) {
		return err
	}
	return nil
}

func (r *reading) take(m tail.Message, at *jetstream.MsgMetadata) error {
	if r.report.Since.IsZero() {
		r.report.Since = at.Timestamp
	}
	// A name has no letter that either encoding would escape.
	if !strings.HasPrefix(m.Subject(), "scores.") || !bytes.Contains(m.Data(), []byte(r.Model)) {
		return nil
	}
	switch strings.Split(m.Subject(), ".")[2] { // scores.<kind>.<band>.<entity>: what no model made
	case events.BandInvalid, events.BandExpired, events.BandRepeat, events.BandConflict:
		return nil
	}
	score, err := events.DecodeScore(m.Data())
	if err != nil {
		return err
	}
	if score.Model != r.Model {
		return nil
	}
	if r.report.Outcomes++; r.report.Outcomes == 1 {
		r.report.First = at.Timestamp
	}
	r.report.Last = at.Timestamp
	r.counts[Count{Band: score.Band, Decision: score.Decision, Mode: score.Mode}]++
	if r.Each == nil {
		return nil
	}
	return r.Each(Outcome{Seq: at.Sequence.Stream, Stored: at.Timestamp, Score: score})
}

// holds says whether the stream's leader has a message from first to the end of the reading.
func (r *reading) holds(ctx context.Context, first uint64) (bool, error) {
	if first > r.report.ToSeq {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := r.JS.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+r.stream, fmt.Appendf(nil, `{"seq":%d,"next_by_subj":">"}`, first))
	if err != nil {
		return false, fmt.Errorf("ask for the next message: %w", err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq uint64 `json:"seq"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(reply.Data, &answer); {
	case err != nil:
		return false, fmt.Errorf("answer of %s: %w", r.stream, err)
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return false, nil
	case answer.Error != nil:
		return false, fmt.Errorf("ask for the next message: %w", answer.Error)
	}
	return answer.Message.Seq <= r.report.ToSeq, nil
}

func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s made %d outcomes", r.Model, r.Outcomes)
	if r.Outcomes > 0 {
		fmt.Fprintf(&b, ", from %s to %s", stamp(r.First), stamp(r.Last))
	}
	for _, c := range r.Counts {
		fmt.Fprintf(&b, "\n  %-10s %-10s %-6s %12d  %5.1f %%", c.Band, c.Decision, c.Mode, c.N, 100*float64(c.N)/float64(r.Outcomes))
	}
	fmt.Fprintf(&b, "\n%s was read from message %d", events.ScoresStream(r.Kind), r.FromSeq)
	if r.FromSeq > 1 && !r.Since.IsZero() {
		fmt.Fprintf(&b, ", of %s (what was before has left it),", stamp(r.Since))
	}
	fmt.Fprintf(&b, " to %d", r.ToSeq)
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
