package memory

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

func encoded(t testing.TB, s *Store, at Place) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Freeze().Encode(&b, at); err != nil {
		t.Fatal(err)
	}
	s.Thaw()
	return b.Bytes()
}

// A snapshot and the events after it give the bytes that having been there gives; also when the store goes on while it is written.
func TestSnapshot(t *testing.T) {
	p := everyTake(t, "30d")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &generator{r: rand.New(rand.NewPCG(seed, 7)), p: p, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), step: 20 * time.Hour, late: 6, cards: 30}
	there := New(p)
	others := map[int]*Store{}
	var rec events.Record
	out, again := make([]float64, p.Width()), make([]float64, p.Width())
	var frozen *Frozen
	var want []byte
	for i := range 600 {
		g.next(&rec)
		for k, s := range others {
			s.Step(Event{Record: &rec}, again)
			there.Read(Event{Record: &rec}, out)
			for j := range out {
				if !same(out[j], again[j]) {
					t.Fatalf("event %d, from the snapshot at %d: feature %d is %v, want %v", i, k, j, again[j], out[j])
				}
			}
		}
		there.Step(Event{Record: &rec}, out)
		if i%97 == 0 {
			b := encoded(t, there, Place{1, 1, uint64(i), 9})
			s, at, err := Decode(p, bytes.NewReader(b))
			if err != nil || at != (Place{1, 1, uint64(i), 9}) {
				t.Fatal(at, err)
			}
			others[i] = s
			for j := range 3 { // a byte that is wrong, or missing
				k := (i*31 + j*1009) % len(b)
				bad := bytes.Clone(b)
				bad[k] ^= 1 << j
				if _, _, err := Decode(p, bytes.NewReader(bad)); err == nil {
					t.Fatalf("byte %d of %d is wrong, and it is read", k, len(b))
				}
				if _, _, err := Decode(p, bytes.NewReader(b[:k])); err == nil {
					t.Fatalf("%d of %d bytes are read", k, len(b))
				}
			}
		}
		switch i {
		case 300:
			want = encoded(t, there, Place{})
			frozen = there.Freeze()
		case 400:
			var b bytes.Buffer
			if err := frozen.Encode(&b, Place{}); err != nil || !bytes.Equal(b.Bytes(), want) {
				t.Fatalf("what was frozen has changed: %v", err)
			}
			there.Thaw()
		}
	}
	want = encoded(t, there, Place{1, 1, 600, 9})
	for k, s := range others {
		if !bytes.Equal(encoded(t, s, Place{1, 1, 600, 9}), want) {
			t.Errorf("from the snapshot at %d the state is another", k)
		}
	}
}
