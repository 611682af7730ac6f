package events

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
)

// KnownSubject is where, in EVENTS_<kind>, stands what became known of earlier events of it. Four tokens, as a stored event has, so that one
// filter, KnownFilter, is for both.
func KnownSubject(kind string) string { return "known." + kind + ".from.labels" }

// KnownFilter matches the stored events of a kind and what became known of them.
func KnownFilter(kind string) string { return "*." + kind + ".*.*" }

// IsKnown says whether a subject of EVENTS_<kind> is KnownSubject.
func IsKnown(subject string) bool {
	rest, ok := strings.CutPrefix(subject, "known.")
	return ok && strings.HasSuffix(rest, ".from.labels")
}

// Known is what became known of one event: its label, as far as memory is concerned, was Was and is now Label. What is written of an
// event is a chain that begins with NoLabel.
//
//	Label != Was
//	At is in whole microseconds
type Known struct {
	Seq    uint64    // of the event, in EVENTS_<kind>
	Claim  uint64    // of the label that says so, in LABELS
	At     time.Time // the event's own time, as memory counts it
	Entity string
	Keys   []KeyValue // what memory may go by: the event's fields that have a value, in the contract's order
	Was    Truth
	Label  Truth
}

// KeyValue is the value that an event has in a field.
type KeyValue struct{ Field, Value string }

// Truth is what is known of how an event ended.
type Truth int8

const (
	NoLabel   Truth = iota
	GoodLabel       // 0 on the wire
	BadLabel        // 1
)

const (
	// MaxKnown bounds how many events one message tells of.
	MaxKnown = 256
	// MaxKeyBytes bounds the values of one event's keys together: of an event that has more, nothing is ever told.
	MaxKeyBytes = 2048

	keyPrefix = "key."
)

// AppendKnown writes a message: for each of the list, a line that is a flat JSON object.
func AppendKnown(dst []byte, list []Known) []byte {
	for i := range list {
		k := &list[i]
		w := writer{dst: dst, enc: JSON}
		w.open(6 + len(k.Keys))
		w.uint("seq", k.Seq)
		w.uint("claim", k.Claim)
		w.time("at", k.At)
		w.str("entity", k.Entity)
		w.truth("was", k.Was)
		w.truth("label", k.Label)
		for _, x := range k.Keys {
			w.str(keyPrefix+x.Field, x.Value)
		}
		dst = append(w.close(), '\n')
	}
	return dst
}

func (w *writer) truth(k string, v Truth) {
	if v == NoLabel {
		w.null(k)
		return
	}
	w.uint(k, uint64(v-GoodLabel))
}

// DecodeKnown reads what AppendKnown wrote, strictly: state is folded from it, and two readers must not take it for two things.
func DecodeKnown(body []byte) ([]Known, error) {
	var list []Known
	for len(body) > 0 {
		line, rest, ok := bytes.Cut(body, []byte{'\n'})
		switch {
		case !ok:
			return nil, errors.New("known: the last line has no end")
		case len(list) == MaxKnown:
			return nil, fmt.Errorf("known: more than %d lines", MaxKnown)
		}
		k, err := decodeKnown(line)
		if err != nil {
			return nil, fmt.Errorf("known: line %d: %w", len(list)+1, err)
		}
		list, body = append(list, k), rest
	}
	if len(list) == 0 {
		return nil, errors.New("known: it tells of no event")
	}
	return list, nil
}

func decodeKnown(line []byte) (Known, error) {
	var k Known
	seen, size := map[string]bool{}, 0
	err := eachField(JSON, line, func(key string, t *token) (reason string) {
		seen[key] = true
		switch key {
		case "seq":
			k.Seq, reason = t.count()
		case "claim":
			k.Claim, reason = t.count()
		case "at":
			if k.At, reason = t.time(); reason == "" && k.At.Nanosecond()%1000 != 0 {
				reason = "want whole microseconds"
			}
			k.At = k.At.UTC()
		case "entity":
			if k.Entity, reason = t.str(); k.Entity == "" || len(k.Entity) > MaxEntityBytes {
				reason = "want an entity"
			}
		case "was":
			k.Was, reason = t.truth()
		case "label":
			k.Label, reason = t.truth()
		default:
			field, ok := strings.CutPrefix(key, keyPrefix)
			x := KeyValue{Field: strings.Clone(field)}
			if x.Value, reason = t.str(); !ok || x.Value == "" {
				return "want a key and its value"
			}
			if size += len(x.Value); size > MaxKeyBytes || len(k.Keys) == MaxKeyFields {
				return fmt.Sprintf("more than %d keys, or %d bytes of them", MaxKeyFields, MaxKeyBytes)
			}
			k.Keys = append(k.Keys, x)
		}
		return reason
	})
	if err == nil {
		err = need(seen, "seq", "claim", "at", "entity", "was", "label")
	}
	switch {
	case err != nil:
		return Known{}, err
	case k.Seq == 0 || k.Claim == 0:
		return Known{}, errors.New("seq and claim are 1 or more")
	case k.Was == k.Label:
		return Known{}, errors.New("label is what it was")
	}
	return k, nil
}

func (t *token) truth() (Truth, string) {
	if t.kind == kindNull {
		return NoLabel, ""
	}
	v, ok := t.uint()
	if !ok || v > 1 {
		return NoLabel, "want 1 (bad), 0 (good) or null (none)"
	}
	return GoodLabel + Truth(v), ""
}

// HasLabels says whether a feature is taken of labels, so that what becomes known is to be copied into the log.
func (m *Memory) HasLabels() bool {
	if m == nil {
		return false
	}
	for _, f := range m.Features {
		if f.Take.OfLabels() {
			return true
		}
	}
	return false
}

// KeyFields are the fields, the entity's left out, that the memory goes by, in the contract's order.
func (c *Contract) KeyFields() []string {
	if c.Memory == nil {
		return nil
	}
	used := map[string]bool{}
	for _, f := range c.Memory.Features {
		for _, list := range []Names{f.By, f.For} {
			for _, k := range list {
				used[k] = k != c.Entity
			}
		}
	}
	var out []string
	for _, f := range c.Fields {
		if used[f.Name] {
			out = append(out, f.Name)
		}
	}
	return out
}
