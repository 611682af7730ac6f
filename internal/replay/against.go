package replay

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/tail"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// level of the interval of the difference in AUC.
const level = 0.95

// Comparison of two versions on the same events: Of (A) and Against (B).
type Comparison struct {
	Against       Summary      `json:"version"`
	Shift         float64      `json:"logit_shift"`    // mean of log-odds of B less A
	ShiftSD       float64      `json:"logit_shift_sd"` // standard deviation of the same
	Bands         [3][3]uint64 `json:"bands"`          // by A's band, then B's: low, medium, high
	Moved         uint64       `json:"bands_moved"`    // off the diagonal
	Decisions     [4][4]uint64 `json:"decisions"`      // likewise: approve, review, decline, none
	DecisionMoved uint64       `json:"decisions_moved"`

	Stake  *Stake    `json:"stake,omitempty"`  // nil: no field was named, and the contract has not one money field alone
	Labels *Labelled `json:"labels,omitempty"` // nil: no event of the range has a label
}

// Labelled are the metrics of both on the events that have a label, good or bad.
type Labelled struct {
	N         int        `json:"n"`
	Positives int        `json:"positives"`
	Share     float64    `json:"share"` // of the labels that were held; 1: all
	LogLoss   [2]float64 `json:"log_loss"`

	AUC *lr.AUCComparison `json:"auc,omitempty"` // nil: all labels are of one class
}

// comparing is the second side of a comparison.
type comparing struct {
	*side
	out     Comparison
	sum, sq float64 // of differences of logits
	labels  *labels
	stake   *staking  // nil: nothing is known of money
	y, p, q []float64 // of events with a label
}

func (cfg *Config) compareWith(ctx context.Context, schema *events.Schema) (*comparing, error) {
	s, err := cfg.side(ctx, schema, cfg.Against)
	if err != nil {
		return nil, err
	}
	c := &comparing{side: s}
	if c.stake, err = stakeOf(&schema.Contract, cfg.Amount); err != nil {
		return nil, err
	}
	c.labels, err = cfg.readLabels(ctx)
	return c, err
}

func (c *comparing) add(x scored, contract *events.Contract, e event) {
	y := c.score(contract, e.record)
	d := y.logit - x.logit
	c.sum += d
	c.sq += float64(d * d)
	c.out.Bands[x.band][y.band]++
	c.out.Decisions[x.decision][y.decision]++
	if x.band != y.band {
		c.out.Moved++
	}
	if x.decision != y.decision {
		c.out.DecisionMoved++
	}
	label, ok := c.labels.of(e)
	if ok {
		c.y, c.p, c.q = append(c.y, label), append(c.p, x.p), append(c.q, y.p)
	}
	if c.stake != nil {
		c.stake.add(e.record, x.decision, y.decision, ok && label == 1)
	}
}

func (c *comparing) finish(n uint64) (*Comparison, error) {
	c.summary.finish(n)
	c.out.Against = *c.summary
	if n > 0 {
		c.out.Shift = c.sum / float64(n)
		c.out.ShiftSD = math.Sqrt(max(0, c.sq/float64(n)-float64(c.out.Shift*c.out.Shift)))
	}
	if c.stake != nil {
		c.out.Stake = c.stake.finish()
	}
	if len(c.y) == 0 {
		return &c.out, nil
	}
	l := &Labelled{N: len(c.y), Share: 1 / float64(uint64(1)<<c.labels.halved)}
	for _, y := range c.y {
		l.Positives += int(y)
	}
	for i, p := range [...][]float64{c.p, c.q} {
		var err error
		if l.LogLoss[i], err = lr.LogLoss(c.y, p); err != nil {
			return nil, fmt.Errorf("log-loss: %w", err)
		}
	}
	auc, err := lr.CompareAUC(c.y, c.p, c.q, nil, level)
	var one *lr.OneClassError
	switch {
	case err == nil:
		l.AUC = &auc
	case !errors.As(err, &one):
		return nil, fmt.Errorf("AUC: %w", err)
	}
	c.out.Labels = l
	return &c.out, nil
}

// labels of a kind by what they name, as they count: the latest known and, of equals, the later in LABELS. In a sample, an event that has labels by its id and
// others by its sequence may be left with those of one name.
//
//	len(by) <= most
//	by holds what has a hash whose lowest halved bits are 0, and nothing else
type labels struct {
	most   int
	halved uint
	by     map[[16]byte]claim
}

// claim is a label as it counts.
type claim struct {
	label int8   // 0 or 1; -1: withdrawn
	known int64  // Unix nanoseconds
	seq   uint64 // in LABELS
}

func (c claim) beats(d claim) bool {
	if c.known != d.known {
		return c.known > d.known
	}
	return c.seq > d.seq
}

// hash of an event's name: its id, or by number its sequence.
func hash(by byte, name string) (h [16]byte) {
	sum := sha256.Sum256(append([]byte{by}, name...))
	copy(h[:], sum[:])
	return h
}

const (
	byID  = 'i'
	bySeq = 's'
)

func (l *labels) holds(h [16]byte) bool {
	return binary.LittleEndian.Uint64(h[:])&(1<<l.halved-1) == 0
}

func (l *labels) add(h [16]byte, c claim) {
	if !l.holds(h) {
		return
	}
	if d, ok := l.by[h]; ok && d.beats(c) {
		return
	}
	l.by[h] = c
	for len(l.by) > l.most {
		l.halved++
		for h := range l.by {
			if !l.holds(h) {
				delete(l.by, h)
			}
		}
	}
}

// of is the label of an event, 0 or 1, if it has one that counts. A label may name an event that gave no id by its sequence as if that were its id.
func (l *labels) of(e event) (label float64, ok bool) {
	seq := strconv.FormatUint(e.seq, 10)
	id := string(e.record.ID)
	if id == "" {
		id = seq
	}
	var best claim
	for _, h := range [...][16]byte{hash(bySeq, seq), hash(byID, id)} {
		if c, has := l.by[h]; has && (!ok || c.beats(best)) {
			best, ok = c, true
		}
	}
	return float64(best.label), ok && best.label >= 0
}

// readLabels reads all labels of the kind that LABELS holds.
func (cfg *Config) readLabels(ctx context.Context) (*labels, error) {
	l := &labels{most: cfg.Labels, by: map[[16]byte]claim{}}
	if l.most <= 0 {
		l.most = 1_000_000
	}
	first, last, err := ends(ctx, cfg.JS, events.LabelsStream)
	if err != nil {
		return nil, err
	}
	prefix := "labels." + cfg.Kind + "."
	err = messages(ctx, cfg.JS, events.LabelsStream, first, last, func(m tail.Message, at *jetstream.MsgMetadata) error {
		cfg.progress("labels", at.Sequence.Stream-first+1, last-first+1)
		if !strings.HasPrefix(m.Subject(), prefix) {
			return nil
		}
		enc, err := events.DetectEncoding(m.Headers().Get("Content-Type"), m.Data())
		if err != nil {
			return nil // as the trainer does: what cannot be read is no label
		}
		x, err := events.DecodeLabel(enc, m.Data())
		if err != nil {
			return nil
		}
		c := claim{label: -1, known: at.Timestamp.UnixNano(), seq: at.Sequence.Stream}
		if x.Label != nil {
			c.label = int8(*x.Label)
		}
		if !x.KnownAt.IsZero() {
			c.known = x.KnownAt.UnixNano()
		}
		if x.Seq != 0 {
			l.add(hash(bySeq, strconv.FormatUint(x.Seq, 10)), c)
		} else {
			l.add(hash(byID, x.ID), c)
		}
		return nil
	})
	return l, err
}
