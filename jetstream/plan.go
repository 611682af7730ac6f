package jetstream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// Action is what a plan means to do with a stream.
type Action string

const (
	Create Action = "create"
	Update Action = "update"
	Refuse Action = "refuse" // Reason says why, and what to do
)

// Change of one stream.
type Change struct {
	Stream string
	Action Action
	Diffs  []Diff // of an update or a refusal, by field name
	Reason string // of a refusal
	Want   natsjs.StreamConfig
}

// Diff is one field of a stream's config, by its name in the server's API.
type Diff struct {
	Field string
	Have  string // JSON
	Want  string // JSON
}

func (d Diff) String() string { return d.Field + ": " + d.Have + " -> " + d.Want }

func (c Change) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.Action, c.Stream)
	for _, d := range c.Diffs {
		b.WriteString("\n    " + d.String())
	}
	if c.Reason != "" {
		b.WriteString("\n    " + c.Reason)
	}
	return b.String()
}

// Plan says how to get from the streams there are to those wanted. Streams in have that are not wanted
// are left alone, as are a stream's placement and the metadata that the templates do not name. A change
// that would destroy data or send entities to other lanes is refused; with shorten, limits of
// age, count and size may be tightened all the same.
func Plan(have, want []natsjs.StreamConfig, shorten bool) []Change {
	byName := make(map[string]natsjs.StreamConfig, len(have))
	for _, h := range have {
		byName[h.Name] = h
	}
	var out []Change
	for _, w := range want {
		h, ok := byName[w.Name]
		if !ok {
			out = append(out, Change{Stream: w.Name, Action: Create, Want: w})
			continue
		}
		w = keepForeign(h, w)
		diffs := diff(h, w)
		if len(diffs) == 0 {
			continue
		}
		c := Change{Stream: w.Name, Action: Update, Diffs: diffs, Want: w}
		var reasons []string
		for _, d := range diffs {
			if r := refusal(d.Field, h, w, shorten); r != "" {
				reasons = append(reasons, r)
			}
		}
		if len(reasons) > 0 {
			c.Action, c.Reason = Refuse, strings.Join(reasons, "; ")
		}
		out = append(out, c)
	}
	return out
}

// keepForeign returns want with what others have set on the stream and the templates are silent about.
func keepForeign(have, want natsjs.StreamConfig) natsjs.StreamConfig {
	if want.Placement == nil {
		want.Placement = have.Placement
	}
	merged := maps.Clone(want.Metadata)
	for k, v := range have.Metadata {
		if _, ours := merged[k]; !ours && !strings.HasPrefix(k, "riskweir.") && !strings.HasPrefix(k, "io.nats.monitor.") {
			if merged == nil {
				merged = map[string]string{}
			}
			merged[k] = v
		}
	}
	want.Metadata = merged
	return want
}

// diff compares field by field as the API names them.
func diff(have, want natsjs.StreamConfig) []Diff {
	h, w := fields(have), fields(want)
	names := slices.Sorted(maps.Keys(h))
	for name := range w {
		if _, ok := h[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out []Diff
	for _, name := range names {
		if !reflect.DeepEqual(h[name], w[name]) {
			out = append(out, Diff{Field: name, Have: text(h[name]), Want: text(w[name])})
		}
	}
	return out
}

func fields(c natsjs.StreamConfig) map[string]any {
	if m := c.Metadata; m != nil {
		c.Metadata = maps.Clone(m)
		maps.DeleteFunc(c.Metadata, func(k, _ string) bool { return strings.HasPrefix(k, "_nats.") }) // the server's own notes
		if len(c.Metadata) == 0 {
			c.Metadata = nil
		}
	}
	body, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("stream config %s cannot be JSON: %v", c.Name, err)) // enums out of range: not from a server, nor from a template
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var out map[string]any
	if err := dec.Decode(&out); err != nil {
		panic(fmt.Sprintf("stream config %s: %v", c.Name, err))
	}
	return out
}

func text(v any) string {
	if v == nil {
		return "none"
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}

// refusal says why a difference in one field must not be applied; empty: it may.
func refusal(field string, have, want natsjs.StreamConfig, shorten bool) string {
	switch field {
	case "subject_transform":
		return "another transform would send entities to other lanes, or store under other subjects: " +
			"lanes are fixed when the kind is made; declare a kind of another name, move its publishers, let the old one drain"
	case "storage", "retention", "mirror", "sources", "sealed", "persist_mode", "first_seq":
		return field + " cannot be changed in place without losing data"
	case "deny_purge", "deny_delete":
		return field + " cannot be taken back"
	case "subjects":
		for _, s := range have.Subjects {
			if !slices.Contains(want.Subjects, s) {
				return fmt.Sprintf("subject %s would no longer be stored", s)
			}
		}
	case "num_replicas":
		if want.Replicas < have.Replicas {
			return fmt.Sprintf("%d copies would become %d", have.Replicas, want.Replicas)
		}
	case "max_age", "max_msgs", "max_bytes", "max_msgs_per_subject":
		if !shorten && tighter(field, have, want) {
			return "a tighter " + field + " would delete what is stored; if that is meant, allow limits to be shortened (--shorten)"
		}
	}
	return ""
}

func tighter(field string, have, want natsjs.StreamConfig) bool {
	limit := func(n int64) int64 { // 0 and -1 are none
		if n <= 0 {
			return math.MaxInt64
		}
		return n
	}
	switch field {
	case "max_age":
		return limit(int64(want.MaxAge)) < limit(int64(have.MaxAge))
	case "max_msgs":
		return limit(want.MaxMsgs) < limit(have.MaxMsgs)
	case "max_bytes":
		return limit(want.MaxBytes) < limit(have.MaxBytes)
	}
	return limit(want.MaxMsgsPerSubject) < limit(have.MaxMsgsPerSubject)
}
