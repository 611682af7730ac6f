package events

import (
	"slices"
	"testing"
)

func TestModes(t *testing.T) {
	for _, x := range []struct {
		mode, base string
		out        []string
	}{
		{"model", ModeModel, nil},
		{"prior", ModePrior, nil},
		{"late", ModeLate, nil},
		{"model-online", ModeModel, []string{"online"}},
		{"stale-boost-online", ModeStale, []string{"boost", "online"}},
	} {
		base, out, ok := ParseMode(x.mode)
		if !ok || base != x.base || !slices.Equal(out, x.out) {
			t.Errorf("%s is %q, %q, %t", x.mode, base, out, ok)
		}
		slices.Reverse(out)
		if got := Mode(base, out...); got != x.mode {
			t.Errorf("%q and %q make %s, want %s", base, out, got, x.mode)
		}
	}
	if got := Mode(ModePrior, "boost"); got != ModePrior {
		t.Errorf("the prior without a member is %s", got)
	}
	for _, bad := range []string{"", "modell", "model-", "model--boost", "model-online-boost", "model-boost-boost", "prior-boost", "model-B", "-boost"} {
		if _, _, ok := ParseMode(bad); ok {
			t.Errorf("%q was taken for a mode", bad)
		}
	}
}

// TestAMissingMemberDecides: what the contract says of it, or of the stale if that is stricter, and never what the band says.
func TestAMissingMemberDecides(t *testing.T) {
	c := DefaultContract()
	c.Decisions.Low = Approve
	for _, x := range []struct{ member, stale, mode, band, want string }{
		{Review, Review, "model-online", BandLow, Review},
		{Decline, Review, "model-online", BandLow, Decline},
		{Approve, Review, "model-online", BandHigh, Approve}, // who wants it so
		{Approve, Review, "stale-online", BandLow, Review},
		{Decline, Review, "stale-online", BandLow, Decline},
		{Review, Decline, "stale-online", BandLow, Decline},
		{Review, Approve, "stale", BandHigh, Approve},
		{Review, Review, "model", BandLow, Approve},
	} {
		c.Decisions.MemberMissing, c.Decisions.Stale = x.member, x.stale
		if got := c.Decide(x.mode, x.band); got != x.want {
			t.Errorf("%+v: %s", x, got)
		}
	}
	if d := DefaultContract().Decisions.MemberMissing; d != Review {
		t.Errorf("by default a missing member means %s", d)
	}
}
