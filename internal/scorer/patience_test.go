package scorer

import (
	"testing"
	"time"
)

// What is always answered after a time is found, and kept; a loss now and then costs little.
func TestPatience(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, takes := range []time.Duration{3 * ms, 100 * ms, 499 * ms, 600 * ms, 1500 * ms, 3900 * ms} {
		now, lost := leastPatience, 0
		for range 100 {
			unanswered := takes > now
			if unanswered {
				lost++
			}
			now = patience(now, min(takes, now), unanswered)
			if now < leastPatience || now > mostPatience {
				t.Fatalf("patience %s", now)
			}
		}
		if lost > 3 || now < takes {
			t.Errorf("answers that take %s: %d of 100 were not waited for, and in the end it waits %s", takes, lost, now)
		}
	}
	now := leastPatience
	for range 10 { // the broker is away
		now = patience(now, now, true)
	}
	if now != mostPatience {
		t.Errorf("patience %s after an outage, want %s", now, mostPatience)
	}
	for range 10 {
		now = patience(now, 3*ms, false)
	}
	if now != leastPatience {
		t.Errorf("patience %s long after an outage, want %s", now, leastPatience)
	}
}
