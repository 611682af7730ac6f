package jetstream_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	topology "github.com/riskweir/riskweir/jetstream"
)

func TestPlan(t *testing.T) {
	type config = natsjs.StreamConfig
	base := func() config {
		cfgs, err := topology.ForKind(payment(), 3)
		if err != nil {
			t.Fatal(err)
		}
		return cfgs[1] // EVENTS_payment
	}
	tests := []struct {
		name    string
		have    func(c *config) // changes what there is, against what is wanted
		shorten bool
		action  topology.Action // empty: no change
		fields  []string
		reason  string
	}{
		{name: "the same"},
		{name: "the server's own metadata", have: func(c *config) { c.Metadata["_nats.ver"] = "2.15.2" }},
		{name: "somebody's metadata", have: func(c *config) { c.Metadata["team"] = "fraud" }},
		{name: "somebody's placement", have: func(c *config) { c.Placement = &natsjs.Placement{Tags: []string{"ssd"}} }},
		{name: "a stale note of ours", have: func(c *config) { c.Metadata["riskweir.old"] = "x" }, action: topology.Update, fields: []string{"metadata"}},
		{name: "another description", have: func(c *config) { c.Description = "x" }, action: topology.Update, fields: []string{"description"}},
		{name: "no direct get", have: func(c *config) { c.AllowDirect = false }, action: topology.Update, fields: []string{"allow_direct"}},
		{name: "more copies", have: func(c *config) { c.Replicas = 1 }, action: topology.Update, fields: []string{"num_replicas"}},
		{name: "fewer copies", have: func(c *config) { c.Replicas = 5 }, action: topology.Refuse, fields: []string{"num_replicas"}, reason: "5 copies would become 3"},
		{name: "other lanes", have: func(c *config) {
			c.SubjectTransform = &natsjs.SubjectTransformConfig{Source: "events.payment.*", Destination: "events.payment.{{partition(4,1)}}.{{wildcard(1)}}"}
		}, action: topology.Refuse, fields: []string{"subject_transform"}, reason: "lanes are fixed"},
		{name: "no transform yet", have: func(c *config) { c.SubjectTransform = nil }, action: topology.Refuse, fields: []string{"subject_transform"}, reason: "lanes are fixed"},
		{name: "memory", have: func(c *config) { c.Storage = natsjs.MemoryStorage }, action: topology.Refuse, fields: []string{"storage"}, reason: "storage"},
		{name: "longer life", have: func(c *config) { c.MaxAge /= 2 }, action: topology.Update, fields: []string{"max_age"}},
		{name: "life to come", have: func(c *config) { c.MaxAge = 0 }, action: topology.Refuse, fields: []string{"max_age"}, reason: "--shorten"},
		{name: "shorter life", have: func(c *config) { c.MaxAge *= 2 }, action: topology.Refuse, fields: []string{"max_age"}, reason: "--shorten"},
		{name: "shorter life as asked", have: func(c *config) { c.MaxAge *= 2 }, shorten: true, action: topology.Update, fields: []string{"max_age"}},
		{name: "a size limit set by hand", have: func(c *config) { c.MaxBytes = 1 << 30 }, action: topology.Update, fields: []string{"max_bytes"}},
		{name: "one more subject to come", have: func(c *config) { c.Subjects = c.Subjects[:1] }, action: topology.Update, fields: []string{"subjects"}},
		{name: "a subject to go", have: func(c *config) { c.Subjects = append(slices.Clone(c.Subjects), "extra.payment") }, action: topology.Refuse, fields: []string{"subjects"}, reason: "extra.payment"},
		{name: "purge cannot be denied less", have: func(c *config) { c.DenyDelete = true }, action: topology.Refuse, fields: []string{"deny_delete"}, reason: "deny_delete"},
		{name: "two at once", have: func(c *config) { c.Description, c.Storage = "x", natsjs.MemoryStorage }, action: topology.Refuse, fields: []string{"description", "storage"}, reason: "storage"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			have := base()
			have.Metadata = maps.Clone(have.Metadata)
			if tt.have != nil {
				tt.have(&have)
			}
			got := topology.Plan([]config{have}, []config{base()}, tt.shorten)
			if tt.action == "" {
				if len(got) != 0 {
					t.Fatalf("got %v, want no change", got)
				}
				return
			}
			if len(got) != 1 || got[0].Action != tt.action {
				t.Fatalf("got %v, want one %s", got, tt.action)
			}
			var fields []string
			for _, d := range got[0].Diffs {
				fields = append(fields, d.Field)
			}
			if !slices.Equal(fields, tt.fields) {
				t.Errorf("fields %v, want %v", fields, tt.fields)
			}
			if !strings.Contains(got[0].Reason, tt.reason) || (got[0].Reason == "") != (tt.reason == "") {
				t.Errorf("reason %q, want it to say %q", got[0].Reason, tt.reason)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		got := topology.Plan([]config{{Name: "OTHER"}}, []config{base()}, false)
		if len(got) != 1 || got[0].Action != topology.Create || got[0].Stream != "EVENTS_payment" {
			t.Errorf("got %v", got)
		}
	})
	t.Run("shown", func(t *testing.T) {
		have := base()
		have.MaxAge = time.Hour
		got := topology.Plan([]config{have}, []config{base()}, false)[0].String()
		if want := "update EVENTS_payment\n    max_age: 3600000000000 -> 2592000000000000"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}
