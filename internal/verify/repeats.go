package verify

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/riskweir/riskweir/pkg/events"
)

const whatUnlike = "unlike"

func isRepeat(band string) bool { return band == events.BandRepeat || band == events.BandConflict }

// likeness of an event: its id, and a digest of what the contract reads of it.
type likeness struct {
	id      string
	token   string // of its entity
	content [sha256.Size]byte
}

// readEvent is false if the event breaks the contract, or names two entities; then it has no id. Its content is not worked out yet.
func readEvent(s *events.Schema, m message, rec *events.Record) (like likeness, valid bool) {
	where, err := events.ParseStoredEvent(m.subject)
	if err != nil || where.Lane == events.StrayLane {
		return like, false
	}
	enc, err := events.DetectEncoding(m.contentType, m.data)
	if err != nil || s.Decode(enc, m.data, rec) != nil {
		return like, false
	}
	if len(rec.Entity) > 0 && string(rec.Entity) != events.UnescapeEntity(where.Token) {
		return like, false
	}
	return likeness{id: string(rec.ID), token: where.Token}, true
}

func (l *likeness) compare(s *events.Schema, rec *events.Record) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %d %d", l.token, rec.Time.Unix(), rec.Time.Nanosecond())
	for _, v := range rec.Values[:len(s.Contract.Fields)] {
		fmt.Fprintf(&b, " %d %v %q", v.State, v.Num+0, v.Text)
	}
	l.content = sha256.Sum256(b.Bytes())
}

// repeat holds an outcome against the two events, each of which is nil where it is gone or cannot be read.
func (c *checker) repeat(x events.Repeat, first, again *likeness, sameContract bool) {
	note := ""
	_, there := c.table.lane(x.First)
	switch {
	case c.erased.has(x.First):
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
