package verify

import (
	"crypto/sha256"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

func TestRepeatsAreHeldAgainstBothEvents(t *testing.T) {
	like := func(id, content string) *likeness { return &likeness{id: id, content: sha256.Sum256([]byte(content))} }
	for _, x := range []struct {
		first, seq uint64
		conflict   bool
		a, b       *likeness
		other      bool // contract
		note       string
	}{
		{11, 12, false, like("p", "x"), like("p", "x"), false, ""},
		{11, 12, true, like("p", "x"), like("p", "y"), false, ""},
		{11, 12, false, like("p", "x"), like("p", "y"), false, "their contents differ"},
		{11, 12, true, like("p", "x"), like("p", "x"), false, "their contents are the same"},
		{11, 12, true, like("p", "x"), like("p", "x"), true, ""},
		{11, 12, false, like("q", "x"), like("p", "x"), true, "their ids differ"},
		{11, 12, false, like("p", "x"), like("q", "x"), false, "their ids differ"},
		{11, 12, false, nil, like("q", "x"), false, "their ids differ"},
		{3, 12, false, nil, like("p", "x"), false, ""}, // left EVENTS
		{13, 14, false, nil, like("p", "x"), false, "EVENTS holds no such event"},
	} {
		c := newChecker(kind, 10, 20, 20)
		for _, seq := range []uint64{11, 12, 14} {
			if err := c.event("events.payment.0.c1", seq); err != nil {
				t.Fatal(err)
			}
		}
		c.repeat(events.Repeat{ID: "p", Seq: x.seq, First: x.first, Conflict: x.conflict}, x.a, x.b, !x.other)
		got := ""
		for _, o := range c.report.Offenders {
			got += o.Note
		}
		if (x.note == "") != (got == "") || !strings.HasSuffix(got, x.note) || c.report.OK() != (x.note == "") {
			t.Errorf("%+v: %q", x, got)
		}
	}
}

// A row whose event came again has its one outcome; one that stands twice in the source has two, though the second repeats.
func TestRepeatsOfRows(t *testing.T) {
	source := func(yield func(string, error) bool) {
		for _, id := range []string{"a", "b", "b", "c"} {
			if !yield(id, nil) {
				return
			}
		}
	}
	r, err := newRows(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		id    string
		again bool
	}{{"a", false}, {"a", true}, {"b", false}, {"b", true}, {"c", true}, {"other", true}} {
		r.outcome(x.id, x.again)
	}
	var report Report
	if err := r.finish(source, 10, &report); err != nil || *report.Source != (SourceReport{Rows: 4}) {
		t.Errorf("%+v, %v, %v", report.Source, report.Offenders, err)
	}
}

// The book against going through all earlier events each time.
func TestIDBookAgainstItsTwin(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 9))
	type past struct {
		id     string
		seq    uint64
		stored int64
	}
	for range 50 {
		b := idBook{within: time.Duration(1 + r.IntN(200)), most: 1 + r.IntN(30), by: map[[16]byte]*idSeen{}}
		var entered []past
		stored, latest := int64(1000), int64(0)
		for seq := uint64(1); seq < 300; seq++ {
			id := strconv.Itoa(r.IntN(40))
			stored = max(1, stored+int64(r.IntN(20))-3) // a clock may run back
			latest = max(latest, stored)
			var want uint64
			for i, e := range entered {
				if e.id == id && e.stored > latest-int64(b.within) && len(entered)-i <= b.most {
					want = e.seq
				}
			}
			if want == 0 {
				entered = append(entered, past{id, seq, latest})
			}
			got := b.step(id, seq, stored, false, true)
			if (got == nil) != (want == 0) || got != nil && got.seq != want {
				t.Fatalf("event %d, id %s: %+v, want %d", seq, id, got, want)
			}
		}
	}
}
