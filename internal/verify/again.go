package verify

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/pkg/events"
)

const whatUnnoticed = "unnoticed"

// contract as it is declared, and those revisions of it under which the same events repeat others.
type contract struct {
	schema   *events.Schema
	revision uint64
	within   time.Duration // 0: ids are not looked at
	ids      int
	reads    string // all that says which events are valid and repeat others
	alike    map[uint64]bool
	revised  func(revision uint64) (*events.Contract, error)
}

// readContract is nil where none is declared: nothing says how to read the events.
func (cfg *Config) readContract(ctx context.Context) (*contract, error) {
	kinds, err := cfg.JS.KeyValue(ctx, events.KindsBucket)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", events.KindsBucket, err)
	}
	declared, err := kinds.Get(ctx, cfg.Kind)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	parsed, err := events.ParseContract(declared.Value())
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	c := &contract{revision: declared.Revision(), reads: whatIsRead(&parsed), alike: map[uint64]bool{declared.Revision(): true}}
	if parsed.Memory != nil && parsed.ID != "" {
		c.within, c.ids = parsed.Memory.RepeatsOrDefault()
	}
	c.revised = func(revision uint64) (*events.Contract, error) {
		var old events.Contract
		entry, err := kinds.GetRevision(ctx, cfg.Kind, revision)
		if err == nil {
			old, err = events.ParseContract(entry.Value())
		}
		return &old, err
	}
	c.schema, err = events.Compile(parsed)
	return c, err
}

// whatIsRead of an event, by which its id is judged.
func whatIsRead(c *events.Contract) string {
	var within time.Duration
	var ids int
	if c.Memory != nil {
		within, ids = c.Memory.RepeatsOrDefault()
	}
	text, err := json.Marshal([]any{c.ID, c.Entity, c.Time, c.Label, c.Fields, within, ids})
	if err != nil {
		return "" // which no other contract's is
	}
	return string(text)
}

// same says whether the revision judges ids as the one declared. One that KINDS no longer holds is taken for another.
func (c *contract) same(revision uint64) bool {
	same, known := c.alike[revision]
	if !known {
		old, err := c.revised(revision)
		same = err == nil && c.reads != "" && whatIsRead(old) == c.reads
		c.alike[revision] = same
	}
	return same
}

// idBook is what a scorer should know of ids, kept in the plainest way: the valid events with an id, of the latest within, and at most so many.
type idBook struct {
	within time.Duration
	most   int
	clock  int64 // ns
	by     map[[16]byte]*idSeen
	queue  []*idSeen // in the order of the stream
}

type idSeen struct {
	key    [16]byte
	seq    uint64
	stored int64
	sure   bool // a scorer entered it as well
}

// step takes the next valid event with an id, and returns the earlier one that has it, if a scorer must have known that. An event that was said to be a
// repeat is entered by nobody.
func (b *idBook) step(id string, seq uint64, stored int64, repeat, sure bool) *idSeen {
	b.clock = max(b.clock, stored)
	for len(b.queue) > 0 && b.queue[0].stored <= b.clock-int64(b.within) {
		b.drop()
	}
	sum := sha256.Sum256([]byte(id))
	key := [16]byte(sum[:16])
	if first := b.by[key]; first != nil {
		if !first.sure {
			return nil
		}
		return first
	}
	if repeat { // of one that has left EVENTS
		return nil
	}
	if len(b.queue) >= b.most {
		b.drop()
	}
	seen := &idSeen{key, seq, b.clock, sure}
	b.by[key] = seen
	b.queue = append(b.queue, seen)
	return nil
}

func (b *idBook) drop() {
	delete(b.by, b.queue[0].key)
	b.queue[0] = nil
	b.queue = b.queue[1:]
}

// readRepeats goes through EVENTS once more. It compares each event that is said to repeat another with that one, where EVENTS keeps both: under another
// contract than the outcome's only ids can be compared, and those only of events that it still reads. And it looks for events that were
// scored under the contract, or one that judges ids alike, though an earlier event that EVENTS keeps has their id.
func (cfg *Config) readRepeats(ctx context.Context, c *checker) error {
	declared := c.contract
	if declared == nil || len(c.repeats) == 0 && declared.within == 0 {
		return nil
	}
	found, repeats := map[uint64]*likeness{}, map[uint64]bool{}
	from, to := c.firstKept, c.table.last
	for _, x := range c.repeats {
		found[x.First], found[x.Seq] = nil, nil
		repeats[x.Seq] = true
	}
	if declared.within == 0 {
		from, to = c.repeats[0].First, 0
		for _, x := range c.repeats {
			from, to = min(from, x.First), max(to, x.Seq)
		}
	}
	stream := events.EventsStream(cfg.Kind)
	r := newReader(cfg.JS, stream, "events."+cfg.Kind+".>", max(from, c.firstKept), false)
	defer r.close(ctx)
	book := idBook{within: declared.within, most: declared.ids, by: map[[16]byte]*idSeen{}}
	var rec events.Record
	if err := r.upTo(ctx, min(to, c.table.last), func(m message) error {
		cfg.progress(stream, m.seq, to)
		like, valid := readEvent(declared.schema, m, &rec)
		if !valid {
			return nil
		}
		if _, wanted := found[m.seq]; wanted {
			like.compare(declared.schema, &rec)
			found[m.seq] = &like
		}
		if declared.within == 0 || like.id == "" {
			return nil
		}
		scored := c.scored.has(m.seq)
		if first := book.step(like.id, m.seq, m.stored, repeats[m.seq], scored || c.firstKept <= 1); first != nil && scored {
			c.report.Unnoticed++
			c.offend(Offender{What: whatUnnoticed, Seq: m.seq, ID: like.id, Subject: m.subject, Note: fmt.Sprintf("scored, though event %d has this id, and came %s before",
				first.seq, time.Duration(m.stored-first.stored).Round(time.Millisecond))})
		}
		return nil
	}); err != nil {
		return err
	}
	for _, x := range c.repeats {
		c.repeat(x, found[x.First], found[x.Seq], x.Contract == declared.revision)
	}
	return nil
}
