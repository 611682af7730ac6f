package trainer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// The labels of a file's rows are known to later rows so long after them, or at the time in a column; a late row does not make them unknown.
func TestFileLabelsAreKnownLater(t *testing.T) {
	c, err := events.ParseContract([]byte(strings.Replace(tellingContract, "memory:", "label:\n  column: fraud\n  positive: [\"1\"]\nmemory:", 1) +
		"  - {name: share, by: terminal, take: bad_share, empty: -1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rows.csv")
	rows := `id,card,terminal,amount,at,fraud,heard
a,c1,t1,1,2026-01-01T00:00:00Z,1,2026-01-05T00:00:00Z
b,c2,t1,1,2026-01-01T01:00:00Z,0,
c,c3,t1,1,2026-01-02T00:00:00Z,1,2026-01-02T00:00:00Z
d,c1,t2,1,2026-01-03T00:00:00Z,0,2026-01-03T00:00:00Z
e,c2,t1,1,2026-01-01T02:00:00Z,,
f,c4,t1,1,2026-01-05T00:00:00Z,1,2026-01-05T00:00:00Z
g,c4,t1,1,2026-01-05T00:00:01Z,1,2026-01-05T00:00:00Z
`
	if err := os.WriteFile(file, []byte(rows), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		labels FileLabels
		want   string // bad and share of each row
	}{
		// bad is by the row's own time, an hour before: e's is 2026-01-02T00:00, its terminal's clock.
		{FileLabels{After: 24 * time.Hour}, "0,-1 0,-1 1,1 0,-1 1,0.6666666666666666 2,0.6666666666666666 2,0.6666666666666666"},
		{FileLabels{After: 400 * 24 * time.Hour}, "0,-1 0,-1 0,-1 0,-1 0,-1 0,-1 0,-1"},
		{FileLabels{Column: "heard"}, "0,-1 0,-1 0,-1 0,-1 0,1 2,1 2,1"},
	} {
		var b strings.Builder
		if _, first, err := FileFeatures(t.Context(), file, source.Options{}, c, x.labels, &b); err != nil || first != nil {
			t.Fatal(first, err)
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(b.String()), "\n")[1:] {
			got = append(got, strings.Join(strings.Split(line, ",")[3:], ","))
		}
		if s := strings.Join(got, " "); s != x.want {
			t.Errorf("%+v:\n%s, want\n%s", x.labels, s, x.want)
		}
	}
	for _, x := range []struct {
		labels FileLabels
		err    string
	}{
		{FileLabels{}, "has no maturity"},
		{FileLabels{After: time.Hour, Column: "heard"}, "not both"},
		{FileLabels{Column: "card"}, "column card"},
	} {
		if _, _, err := FileFeatures(t.Context(), file, source.Options{}, c, x.labels, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), x.err) {
			t.Errorf("%+v: %v, want %q", x.labels, err, x.err)
		}
	}
	c.Label = nil
	if _, _, err := FileFeatures(t.Context(), file, source.Options{}, c, FileLabels{After: time.Hour}, &strings.Builder{}); err == nil || !strings.Contains(err.Error(), "no column") {
		t.Errorf("without a label: %v", err)
	}
}
