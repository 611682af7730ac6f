package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

const whatUnlike = "unlike"

func isRepeat(band string) bool { return band == events.BandRepeat || band == events.BandConflict }

// likeness of an event: its id, and a digest of what the contract reads of it.
type likeness struct {
	id      string
	content [sha256.Size]byte
}

func likenessOf(s *events.Schema, subject string, body []byte, rec *events.Record) (likeness, error) {
	where, err := events.ParseStoredEvent(subject)
	if err != nil {
		return likeness{}, err
	}
	enc, err := events.DetectEncoding("", body)
	if err != nil {
		return likeness{}, err
	}
	if err := s.Decode(enc, body, rec); err != nil {
		return likeness{}, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d %d", where.Token, rec.Time.Unix(), rec.Time.Nanosecond())
	for _, v := range rec.Values[:len(s.Contract.Fields)] {
		fmt.Fprintf(&b, " %d %v %q", v.State, v.Num+0, v.Text)
	}
	return likeness{string(rec.ID), sha256.Sum256(b.Bytes())}, nil
}

// readRepeats compares each event that is said to repeat another with that one, where EVENTS keeps both. Under another contract than the
// outcome's only ids can be compared, and those only of events that it still reads.
func (cfg *Config) readRepeats(ctx context.Context, c *checker) error {
	if len(c.repeats) == 0 {
		return nil
	}
	kinds, err := cfg.JS.KeyValue(ctx, events.KindsBucket)
	if err != nil {
		return fmt.Errorf("open %s: %w", events.KindsBucket, err)
	}
	declared, err := kinds.Get(ctx, cfg.Kind)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil // nothing says how to read the events
	}
	if err != nil {
		return fmt.Errorf("contract: %w", err)
	}
	contract, err := events.ParseContract(declared.Value())
	if err != nil {
		return fmt.Errorf("contract: %w", err)
	}
	schema, err := events.Compile(contract)
	if err != nil {
		return err
	}
	found := map[uint64]*likeness{}
	from, to := c.repeats[0].First, uint64(0)
	for _, x := range c.repeats {
		found[x.First], found[x.Seq] = nil, nil
		from, to = min(from, x.First), max(to, x.Seq)
	}
	stream := events.EventsStream(cfg.Kind)
	r := newReader(cfg.JS, stream, "events."+cfg.Kind+".>", max(from, c.firstKept), false)
	defer r.close(ctx)
	var rec events.Record
	if err := r.upTo(ctx, min(to, c.table.last), func(m message) error {
		cfg.progress(stream, m.seq, to)
		if _, wanted := found[m.seq]; wanted {
			if like, err := likenessOf(schema, m.subject, m.data, &rec); err == nil {
				found[m.seq] = &like
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, x := range c.repeats {
		c.repeat(x, found[x.First], found[x.Seq], x.Contract == declared.Revision())
	}
	return nil
}

// repeat holds an outcome against the two events, each of which is nil where it is gone or cannot be read.
func (c *checker) repeat(x events.Repeat, first, again *likeness, sameContract bool) {
	note := ""
	_, there := c.table.lane(x.First)
	switch {
	case !there && x.First >= c.firstKept:
		note = "EVENTS holds no such event"
	case first != nil && first.id != x.ID || again != nil && again.id != x.ID:
		note = "their ids differ"
	case first == nil || again == nil || !sameContract:
	case (first.content == again.content) == x.Conflict:
		note = "their contents differ"
		if x.Conflict {
			note = "their contents are the same"
		}
	}
	if note != "" {
		c.report.Unlike++
		c.offend(Offender{What: whatUnlike, Seq: x.Seq, ID: x.ID, Note: fmt.Sprintf("said to be event %d again, as a %s: %s", x.First, x.Band(), note)})
	}
}
