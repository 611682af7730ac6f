package events

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// A contract that is small and would be enormous, or endless, is refused before it is.
func TestContractBombs(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&laughs, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	for name, text := range map[string]string{
		"aliases that multiply":   laughs.String() + "kind: payment\nfields: *a11\n",
		"an alias to itself":      "kind: &a [*a]\n",
		"deep":                    "kind: " + strings.Repeat("[", 200_000),
		"deep maps":               strings.Repeat("{a: ", 100_000),
		"a name twice":            "kind: payment\nkind: loan\nfields: [{name: a, type: number}]\n",
		"a name of a field twice": "kind: payment\nfields: [{name: a, type: number, type: category}]\n",
		"a number beyond":         "kind: payment\nlanes: 99999999999999999999\nfields: [{name: a, type: number}]\n",
		"many fields":             "kind: payment\nfields: [" + strings.Repeat("{name: a, type: number}, ", 20_000) + "]\n",
		"two documents":           sampleContract + "\n---\nkind: loan\n",
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseContract([]byte(text))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
		if grew := after.TotalAlloc - before.TotalAlloc; grew > 512<<20 {
			t.Errorf("%s: %d MiB were needed for %d bytes", name, grew>>20, len(text))
		}
	}
}
