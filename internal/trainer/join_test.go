package trainer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var roomy = joinLimits{labelled: 1000, silent: 1000, early: 1000}

// clock counts minutes, the unit of these scenarios.
func clock(minute int) time.Time {
	return time.Unix(1_700_000_000, 0).Add(time.Duration(minute) * time.Minute)
}

// play runs a scenario: one message a line, as
//
//	event SEQ stored MINUTE [id ID] [at MINUTE]
//	label SEQ stored MINUTE (id ID | of SEQ) (bad|good|withdrawn) known MINUTE
//	probe SEQ stored MINUTE
func play(t testing.TB, j *join, scenario string) {
	t.Helper()
	for line := range strings.Lines(scenario) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		number := func(text string) int {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return n
		}
		of := map[string]string{}
		verdicts := map[string]verdict{"bad": bad, "good": good, "withdrawn": withdrawn}
		var v verdict
		for i := 2; i < len(words); i++ {
			if is, ok := verdicts[words[i]]; ok {
				v = is
				continue
			}
			of[words[i]] = words[i+1]
			i++
		}
		seq, stored := uint64(number(words[1])), clock(number(of["stored"]))
		switch words[0] {
		case "event":
			r := &row{seq: seq, stored: stored, at: stored.Unix(), id: of["id"]}
			if at, ok := of["at"]; ok {
				r.at = clock(number(at)).Unix()
			}
			j.addEvent(r)
		case "label":
			l := labelMsg{id: of["id"], stored: stored, claim: claim{verdict: v, knownAt: clock(number(of["known"])), seq: seq}}
			if l.id == "" {
				l.event = uint64(number(of["of"]))
			}
			j.addLabel(l)
		case "probe":
			j.pass(seq, stored)
		default:
			t.Fatalf("%q is no message", line)
		}
		checkJoin(t, j)
	}
}

// checkJoin holds the invariants that stand beside the type.
func checkJoin(t testing.TB, j *join) {
	t.Helper()
	if len(j.byName) != len(j.rows) {
		t.Fatalf("%d names for %d rows", len(j.byName), len(j.rows))
	}
	for i, r := range j.rows {
		if j.byName[r.name()] != r {
			t.Fatalf("row %d is not found by its name %s", r.seq, r.name())
		}
		if i > 0 && j.rows[i-1].seq >= r.seq {
			t.Fatalf("row %d comes after %d", r.seq, j.rows[i-1].seq)
		}
	}
	if len(j.early) > j.limits.early || len(j.order) > 2*j.limits.early {
		t.Fatalf("%d early claims, %d names, the limit is %d", len(j.early), len(j.order), j.limits.early)
	}
}

// describe draws examples: 3+ is event 3, bad; 4- good by a claim; 5? good by silence.
func describe(list []example) string {
	var words []string
	for _, e := range list {
		mark := "-"
		switch {
		case e.bad:
			mark = "+"
		case e.silent:
			mark = "?"
		}
		words = append(words, strconv.FormatUint(e.seq, 10)+mark)
	}
	return strings.Join(words, " ")
}

func TestJoinScenarios(t *testing.T) {
	for _, c := range []struct {
		name     string
		scenario string
		maturity int // minutes
		want     string
	}{
		{"no labels", `
			event 1 stored 1 id a`, 0, ""},
		{"labels by id and by sequence", `
			event 1 stored 1 id a
			event 2 stored 2 id b
			label 1 stored 3 id a bad known 3
			label 2 stored 3 of 2 good known 3`, 0, "1+ 2-"},
		{"an event without an id is named by its sequence", `
			event 7 stored 1
			label 1 stored 2 id 7 bad known 2`, 0, "7+"},
		{"labels before their events", `
			label 1 stored 0 id a bad known 0
			label 2 stored 0 of 2 good known 0
			label 3 stored 0 id 3 bad known 0
			event 1 stored 1 id a
			event 2 stored 2 id b
			event 3 stored 3`, 0, "1+ 2- 3+"},
		{"the latest known wins, in whatever order claims come", `
			event 1 stored 1 id a
			event 2 stored 1 id b
			label 1 stored 5 id a bad known 9
			label 2 stored 6 id a good known 8
			label 3 stored 7 id b bad known 8
			label 4 stored 8 id b good known 9`, 0, "1+ 2-"},
		{"likewise before the event", `
			label 1 stored 0 id a bad known 9
			label 2 stored 0 id a good known 8
			event 1 stored 1 id a`, 0, "1+"},
		{"of equally late claims the later in the stream wins", `
			event 1 stored 1 id a
			label 1 stored 2 id a bad known 5
			label 2 stored 3 id a good known 5`, 0, "1-"},
		{"claims by id and by sequence are of one event", `
			label 1 stored 0 of 1 bad known 7
			label 2 stored 0 id a good known 6
			event 1 stored 1 id a`, 0, "1+"},
		{"a withdrawn label is no label", `
			event 1 stored 1 id a
			label 1 stored 2 id a bad known 2
			label 2 stored 3 id a withdrawn known 3`, 0, ""},
		{"and no silence", `
			event 1 stored 1 id a
			label 1 stored 2 id a bad known 2
			label 2 stored 3 id a withdrawn known 3
			event 2 stored 99`, 10, ""},
		{"a claim after a withdrawal counts", `
			event 1 stored 1 id a
			label 1 stored 3 id a withdrawn known 3
			label 2 stored 4 id a bad known 4`, 0, "1+"},
		{"silence at maturity is good", `
			event 1 stored 1 id a
			event 2 stored 2 id b
			event 3 stored 3 id c
			label 1 stored 12 id b bad known 12`, 10, "1? 2+"},
		{"a young event does not count, whatever is claimed of it", `
			event 1 stored 1 id a
			event 2 stored 9 id b
			label 1 stored 12 id b bad known 12`, 10, "1?"},
		{"a late claim beats silence", `
			event 1 stored 1 id a
			event 2 stored 50
			label 1 stored 51 id a bad known 51`, 10, "1+"},
		{"maturity goes by when an event was stored, not by its own time", `
			event 1 stored 1 id a at -500
			event 2 stored 5`, 10, ""},
		{"the order is that of the events' own time", `
			event 1 stored 1 id a at 30
			event 2 stored 2 id b at 20
			event 3 stored 3 id c at 20
			label 1 stored 4 id a bad known 4
			label 2 stored 4 id b bad known 4
			label 3 stored 4 id c good known 4`, 0, "2+ 3- 1+"},
		{"an event sent twice counts once", `
			event 1 stored 1 id a
			event 2 stored 2 id a
			label 1 stored 3 id a bad known 3`, 0, "1+"},
		{"a label of an event that was left out goes nowhere", `
			probe 1 stored 1
			label 1 stored 2 of 1 bad known 2
			event 2 stored 3`, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJoin(roomy)
			play(t, j, c.scenario)
			got := describe(j.examples(j.newest, time.Duration(c.maturity)*time.Minute, 1000))
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestJoinBounds(t *testing.T) {
	j := newJoin(joinLimits{labelled: 4, silent: 8, early: 5})
	var b strings.Builder
	for i := 1; i <= 40; i++ {
		fmt.Fprintf(&b, "event %d stored %d id e%d\n", i, i, i)
		if i%4 == 0 {
			fmt.Fprintf(&b, "label %d stored %d id e%d bad known %d\n", i, i, i, i)
		}
	}
	for i := 50; i <= 70; i++ {
		fmt.Fprintf(&b, "label %d stored 41 id e%d good known 41\n", i, i)
	}
	fmt.Fprintf(&b, "label 90 stored 42 of 3 bad known 42\n") // event 3 was let go
	play(t, j, b.String())

	if n := len(j.rows); n > 15 || n < 12 { // 12, and a quarter more between two cuts
		t.Errorf("%d rows are held, want 12 to 15", n)
	}
	if got := describe(j.examples(j.newest, 0, 3)); got != "32+ 36+ 40+" {
		t.Errorf("the latest three are %q", got)
	}
	if j.stats.unmatched != 1 {
		t.Errorf("%d unmatched, want 1", j.stats.unmatched)
	}
	if len(j.early) != 5 {
		t.Errorf("%d early claims are held, want 5", len(j.early))
	}
	if want := j.stats.events - len(j.rows) + 16; j.stats.dropped != want {
		t.Errorf("%d dropped, want %d: rows, and 16 early claims", j.stats.dropped, want)
	}
	play(t, j, "event 66 stored 43 id e66\nevent 99 stored 43 id e99")
	if got := describe(j.examples(j.newest, 0, 1)); got != "66-" {
		t.Errorf("the early claims kept are not the latest: %q", got)
	}
}

// TestJoinKeepsShares: where silence means good, what is left of a time whose silent events were let go is no sample of it.
func TestJoinKeepsShares(t *testing.T) {
	j := newJoin(joinLimits{labelled: 8, silent: 8, early: 5})
	var b strings.Builder
	for i := 1; i <= 40; i++ {
		fmt.Fprintf(&b, "event %d stored %d id e%d\n", i, i, i)
		if i%8 == 0 {
			fmt.Fprintf(&b, "label %d stored %d id e%d bad known %d\n", i, i, i, i)
		}
	}
	play(t, j, b.String())
	list := j.examples(clock(100), 10*time.Minute, 1000)
	bad := 0
	for _, e := range list {
		if e.bad {
			bad++
		}
	}
	if len(list) < 8 || bad < len(list)/8 || bad > len(list)/8+1 {
		t.Errorf("%d of %d are bad, in the stream one of eight is: %s", bad, len(list), describe(list))
	}
	if n := j.tally(clock(100), 10*time.Minute, 0); n.bad != bad || n.good != len(list)-bad {
		t.Errorf("the tally %+v is not of the examples", n)
	}
}

// TestJoinTwin holds the fold against a plain definition, on random streams interleaved at random.
func TestJoinTwin(t *testing.T) {
	seed := uint64(20261124)
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for round := range 300 {
		var rows []row
		for seq := range 1 + r.IntN(30) {
			x := row{seq: uint64(seq + 1), stored: clock(seq), at: clock(r.IntN(20)).Unix()}
			if r.IntN(3) > 0 {
				x.id = "e" + strconv.Itoa(r.IntN(40))
			}
			rows = append(rows, x)
		}
		var labels []labelMsg
		for seq := range r.IntN(60) {
			l := labelMsg{stored: clock(seq), claim: claim{verdict: good + verdict(r.IntN(3)), knownAt: clock(r.IntN(8)), seq: uint64(seq + 1)}}
			switch r.IntN(3) {
			case 0:
				l.event = uint64(1 + r.IntN(35))
			case 1:
				l.id = "e" + strconv.Itoa(r.IntN(40))
			case 2:
				l.id = strconv.Itoa(1 + r.IntN(35))
			}
			labels = append(labels, l)
		}
		maturity := time.Duration(r.IntN(2)*10) * time.Minute
		cutoff := clock(25)
		want := describe(plainJoin(rows, labels, cutoff, maturity))
		for range 4 {
			j := newJoin(roomy)
			for e, l := 0, 0; e < len(rows) || l < len(labels); {
				if l == len(labels) || e < len(rows) && r.IntN(2) == 0 {
					x := rows[e]
					j.addEvent(&x)
					e++
				} else {
					j.addLabel(labels[l])
					l++
				}
			}
			checkJoin(t, j)
			if got := describe(j.examples(cutoff, maturity, 1000)); got != want {
				t.Fatalf("round %d: got %q, want %q", round, got, want)
			}
		}
	}
}

func plainJoin(rows []row, labels []labelMsg, cutoff time.Time, maturity time.Duration) []example {
	var list []example
	names := map[string]bool{}
	for _, r := range rows {
		if names[r.name()] {
			continue
		}
		names[r.name()] = true
		var claims []claim
		for _, l := range labels {
			if l.event == r.seq || l.event == 0 && l.id == r.name() {
				claims = append(claims, l.claim)
			}
		}
		slices.SortStableFunc(claims, func(a, b claim) int { return a.knownAt.Compare(b.knownAt) })
		switch {
		case maturity > 0 && cutoff.Sub(r.stored) < maturity:
		case len(claims) > 0:
			if v := claims[len(claims)-1].verdict; v != withdrawn {
				list = append(list, example{row: &r, bad: v == bad})
			}
		case maturity > 0:
			list = append(list, example{row: &r, silent: true})
		}
	}
	slices.SortStableFunc(list, func(a, b example) int { return int(a.at - b.at) })
	return list
}

func TestTally(t *testing.T) {
	j := newJoin(roomy)
	play(t, j, `
		event 1 stored 1 id a
		event 2 stored 2 id b
		event 3 stored 3 id c
		event 4 stored 20 id d
		label 5 stored 21 id a bad known 1
		label 6 stored 21 id b good known 1
		label 7 stored 21 id d withdrawn known 1`)
	if got, want := j.tally(j.newest, 10*time.Minute, 5), (tally{good: 2, bad: 1, fresh: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
