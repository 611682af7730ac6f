package events

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const memoryContract = `
kind: payment
entity: card
fields:
- {name: amount, type: money, currency: EUR}
- {name: shop, type: category, sensitive: true}
- {name: sex, type: category, protected: true}
- {name: chip, type: bool}
- {name: refund, type: number, past: true}
memory:
  features:
  - FEATURE
`

func TestMemoryContract(t *testing.T) {
	for _, x := range []struct{ feature, err string }{
		{"{name: n, by: card, take: count}", ""},
		{"{name: n, by: [card, shop], for: [shop, card], take: distinct, field: shop, window: 24h}", ""},
		{"{name: n, by: shop, take: mean, field: refund, where: {field: chip, above: 0}, empty: 0, log: true}", ""},
		{"{name: n, by: card, take: ratio, field: amount, window: 30d}", ""},
		{"{name: n, by: shop, for: card, take: bad_share, window: 7d, delay: 1d, empty: 0}", ""},
		{"{name: n, by: card, take: known, log: true}", ""},
		{"{name: n, by: [chip], take: distinct, field: card, window: 7d}", "want a category, or the entity"},
		{"{name: n, by: card, take: distinct, field: card}", ""},
		{"{name: n, by: card, take: mean, field: card}", "field card is not in the contract"},
		{"{name: n, by: card, take: bad, delay: 500d}", "delay 500d"},
		{"{name: n, by: card, take: count, delay: 1d}", "of known, bad or bad_share only"},
		{"{name: n, by: card, take: bad, where: {field: amount, above: 1}}", "a condition is for share"},
		{"{name: n, by: card, take: bad, field: amount}", "of their labels"},
		{"{name: amount, by: card, take: count}", "stands twice, or is a field's"},
		{"{name: n, by: amount, take: count}", "want a category, or the entity"},
		{"{name: n, by: sex, take: count}", "is protected"},
		{"{name: n, by: card, take: distinct, field: sex}", "is protected"},
		{"{name: n, by: card, take: share, where: {field: sex, is: [f]}}", "is protected"},
		{"{name: n, by: [], take: count}", "want 1 to 4 fields"},
		{"{name: n, by: card, for: [card, shop], take: count}", "as many of the one as of the other"},
		{"{name: n, by: card, take: median, field: amount}", "take \"median\""},
		{"{name: n, by: card, take: mean}", "field \"\""},
		{"{name: n, by: card, take: count, field: amount}", "field \"amount\""},
		{"{name: n, by: card, take: mean, field: shop}", "take mean of field shop, a category"},
		{"{name: n, by: card, take: ratio, field: refund}", "known only later"},
		{"{name: n, by: card, take: share}", "needs one"},
		{"{name: n, by: card, take: count, where: {field: amount}}", "want below or above, or is"},
		{"{name: n, by: card, take: count, where: {field: shop, below: 1}}", "below and above are for numbers"},
		{"{name: n, by: card, take: count, where: {field: amount, above: .inf}}", "not a finite number"},
		{"{name: n, by: card, take: count, window: 10ms}", "want whole seconds"},
		{"{name: n, by: card, take: count, window: 500d}", "want whole seconds"},
		{"{name: n, by: nobody, take: count}", "is not in the contract"},
		{"{name: n, by: card, take: count, colour: red}", "colour"},
	} {
		c, err := ParseContract([]byte(strings.Replace(memoryContract, "FEATURE", x.feature, 1)))
		switch {
		case x.err == "" && err != nil:
			t.Errorf("%s: %v", x.feature, err)
		case x.err != "" && (err == nil || !strings.Contains(err.Error(), x.err)):
			t.Errorf("%s: %v, want %q", x.feature, err, x.err)
		case err == nil:
			text, err := c.YAML()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseContract(text)
			if err != nil || len(DiffContracts(c, again)) > 0 {
				t.Errorf("%s comes back as %v, %v", x.feature, DiffContracts(c, again), err)
			}
			in := c.Inputs()
			last := in[len(in)-1]
			if len(in) != len(c.Fields)+1 || last.Name != "n" || last.Type != Number || last.Sensitive != strings.Contains(x.feature, "shop") {
				t.Errorf("%s: input %+v", x.feature, last)
			}
		}
	}
}

// How long is remembered has bounds: below a microsecond every key would be idle at once.
func TestMemoryBounds(t *testing.T) {
	text := strings.Replace(memoryContract, "FEATURE", "{name: n, by: card, take: count}", 1)
	for _, x := range []struct{ line, err string }{
		{"idle: 1s", ""},
		{"idle: 1ns", "idle 1ns: want 1s"},
		{"idle: -3d", "want a whole number of days"},
		{"idle: 40000d", "whole number of days"},
		{"repeats: {within: 0s, ids: 1}", ""},
		{"repeats: {within: -1s}", "duration \"-1s\""},
		{"repeats: {within: 401d}", "up to"},
		{"repeats: {ids: -4}", "ids -4"},
		{"repeats: {ids: 3000000}", "want 1 to 2000000"},
	} {
		_, err := ParseContract([]byte(strings.Replace(text, "memory:\n", "memory:\n  "+x.line+"\n", 1)))
		if (x.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), x.err) {
			t.Errorf("%s: %v, want %q", x.line, err, x.err)
		}
	}
}

// A model that reads a feature keeps it as it was trained.
func TestMemoryCompatible(t *testing.T) {
	parse := func(feature string) Contract {
		t.Helper()
		c, err := ParseContract([]byte(strings.Replace(memoryContract, "FEATURE", feature, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	old, next := parse("{name: n, by: card, take: count}"), parse("{name: n, by: card, take: count, window: 1h}")
	reads := func(name string) bool { return name == "n" }
	if err := Compatible(old, next, reads); err == nil || !strings.Contains(err.Error(), "memory feature n") {
		t.Errorf("%v", err)
	}
	if err := Compatible(old, next, func(string) bool { return false }); err != nil {
		t.Error(err)
	}
	idle := old
	m := *old.Memory
	m.Idle = MaxMemoryIdle
	idle.Memory = &m
	if err := Compatible(old, idle, reads); err == nil || !strings.Contains(err.Error(), "idle") {
		t.Errorf("%v", err)
	}
	if d := DiffContracts(old, next); len(d) != 1 || !strings.Contains(d[0], "memory feature n") {
		t.Errorf("%q", d)
	}
}

// What is left out is on, for a week and a million ids; only 0s is off.
func TestRepeatsContract(t *testing.T) {
	for _, x := range []struct {
		repeats string
		within  time.Duration
		ids     int
		err     string
	}{
		{"", 168 * time.Hour, 1_000_000, ""},
		{"{}", 168 * time.Hour, 1_000_000, ""},
		{"{within: 30d}", 720 * time.Hour, 1_000_000, ""},
		{"{ids: 5}", 168 * time.Hour, 5, ""},
		{"{within: 1s, ids: 2000000}", time.Second, 2_000_000, ""},
		{"{within: 0s}", 0, 1_000_000, ""},
		{"{within: 401d}", 0, 0, "repeats: within 401d: want whole seconds, up to 400d"},
		{"{within: 10ms}", 0, 0, "repeats: within 10ms"},
		{"{ids: -1}", 0, 0, "repeats: ids -1: want 1 to 2000000"},
		{"{ids: 20000001}", 0, 0, "repeats: ids 20000001"},
		{"{for: 1d}", 0, 0, "field for not found"},
	} {
		text := strings.Replace(memoryContract, "FEATURE", "{name: n, by: card, take: count}", 1)
		if x.repeats != "" {
			text += "  repeats: " + x.repeats + "\n"
		}
		c, err := ParseContract([]byte(text))
		if x.err != "" {
			if err == nil || !strings.Contains(err.Error(), x.err) {
				t.Errorf("%s: %v, want %q", x.repeats, err, x.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", x.repeats, err)
			continue
		}
		if within, ids := c.Memory.RepeatsOrDefault(); within != x.within || ids != x.ids {
			t.Errorf("%s: %s, %d ids", x.repeats, within, ids)
		}
		text2, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseContract(text2); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%s comes back as\n%s\n%v", x.repeats, text2, err)
		}
	}
}
