// Package impact finds every outcome that a version of a model made.
package impact

import (
	"bytes"
	"cmp"
	"context"
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

const askTimeout = 5 * time.Second

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
	reader := &tail.Reader{JS: r.JS, Stream: r.stream, Name: "impact", Owner: "who asks for a model's impact", Last: r.report.FromSeq - 1}
	return reader.Through(ctx, r.report.ToSeq, tail.Patience, func(m tail.Message, at *jetstream.MsgMetadata) error {
		if err := r.take(m, at); err != nil {
			return fmt.Errorf("message %d: %w", at.Sequence.Stream, err)
		}
		return nil
	})
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
