package trainer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// A row whose id an earlier row has is told with the invalid ones, and leaves no trace in what follows, however much later its own time is.
func TestRepeatedRowsAreLeftOut(t *testing.T) {
	c, err := events.ParseContract([]byte(`kind: payment
id: id
entity: card
time: at
fields:
- {name: amount, type: number}
memory:
  features:
  - {name: n, by: card, take: count}
`))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rows.csv")
	for _, x := range []struct{ rows, want, first string }{
		{"a,c,1,2026-01-01T00:00:00Z\nb,c,1,2026-01-02T00:00:00Z\na,c,1.0,2026-01-01T01:00:00+01:00\nd,c,1,2026-03-01T00:00:00Z\n", "0,a,c,0 1,b,c,1 3,d,c,2", ":4: it repeats line 2"},
		{"a,c,1,2026-01-01T00:00:00Z\na,c,1,2026-03-01T00:00:00Z\nd,c,1,2026-03-01T00:00:00Z\n", "0,a,c,0 2,d,c,1", ":3: its id is that of line 2, which holds something else"},
	} {
		if err := os.WriteFile(file, []byte("id,card,amount,at\n"+x.rows), 0o600); err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		invalid, first, err := FileFeatures(t.Context(), file, source.Options{}, c, FileLabels{}, &b)
		got := strings.Join(strings.Split(strings.TrimSpace(b.String()), "\n")[1:], " ")
		if err != nil || invalid != 1 || first == nil || !strings.HasSuffix(first.Error(), x.first) || got != x.want {
			t.Errorf("%s\n%d left out, %v, %v; want\n%s", got, invalid, first, err, x.want)
		}
	}
}
