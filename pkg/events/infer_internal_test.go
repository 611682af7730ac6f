package events

import (
	"iter"
	"strings"
	"testing"
)

func TestInferSaysWhatPeopleWriteAsNumbers(t *testing.T) {
	for text, want := range map[string]bool{
		"1,200.50": true, "1.200,50": true, "12,5": true, "$3": true, "4.5 %": true, "-€7": true, "1 000": true, "1'000": true,
		"12": false, "-12.5": false, "": false, "$": false, "A1": false, "1e5": false, "2026-01-01": false, "10:30": false, "+": false,
	} {
		if got := isDressed(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
	rows := func(cells ...string) iter.Seq[[]string] {
		return func(yield func([]string) bool) {
			for _, c := range cells {
				if !yield([]string{c}) {
					return
				}
			}
		}
	}
	_, notes, err := InferContract("loan", []string{"amount"}, rows("1,200.50", "90", "1,000.00"), InferOptions{})
	if err != nil || !strings.Contains(strings.Join(notes, "\n"), "amount: numbers with separators") {
		t.Errorf("%v, %q", err, notes)
	}
	if _, _, err = InferContract("loan", []string{"when"}, rows("2026-01-01 10:00:00", "2026-01-01 11:00:00"), InferOptions{Time: "when"}); err == nil || !strings.Contains(err.Error(), "every row would be refused") {
		t.Errorf("times without a zone: %v", err)
	}
}
