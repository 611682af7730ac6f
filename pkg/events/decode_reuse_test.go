package events

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// A record that was used before reads an event as a new one does, whatever the events before it were: the order of their fields is
// remembered, and nothing else.
func TestReusedRecordReadsTheSame(t *testing.T) {
	c := DefaultContract()
	c.Kind, c.ID, c.Entity = "loan", "id", "who"
	for i := range 6 {
		c.Fields = append(c.Fields, Field{Name: fmt.Sprintf("n%d", i), Type: Number})
	}
	c.Fields = append(c.Fields, Field{Name: "c0", Type: Category}, Field{Name: "c1", Type: Category, Missing: []string{"?"}}, Field{Name: "n7", Type: Number, Required: true})
	s, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 1))
	say := func(rec *Record, err error) string {
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("%q %q %d %+v", rec.ID, rec.Entity, rec.Unknown, rec.Values)
	}
	var reused Record
	read := map[bool]int{}
	for round := range 20_000 {
		body := someEvent(t, r, s)
		err := s.Decode(Msgpack, body, &reused)
		got := say(&reused, err)
		var fresh Record
		if want := say(&fresh, s.Decode(Msgpack, body, &fresh)); got != want {
			t.Fatalf("seed %d, round %d: %x\nreused %s\nnew    %s", seed, round, body, got, want)
		}
		read[err == nil]++
	}
	if read[true] < 1000 || read[false] < 1000 {
		t.Errorf("%v: too few of one sort to say anything", read)
	}
}

// someEvent is mostly an event of the schema in the usual order, with whatever can be wrong with one now and then.
func someEvent(t *testing.T, r *rand.Rand, s *Schema) []byte {
	t.Helper()
	type entry struct {
		key   string
		value any
	}
	all := []entry{{"id", "e1"}, {"who", "a"}}
	for _, f := range s.Contract.Fields {
		var v any = r.NormFloat64()
		if f.Type == Category {
			v = []string{"x", "yes", "?", "", "\xff", "ü", "a text of more than thirty-one bytes"}[r.IntN(7)]
		}
		switch r.IntN(40) {
		case 0:
			v = nil
		case 1:
			v = int64(r.IntN(9))
		case 2:
			v = "12.5"
		case 3:
			continue
		}
		all = append(all, entry{f.Name, v})
	}
	switch r.IntN(8) {
	case 0:
		r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	case 1:
		all = append(all, all[r.IntN(len(all))]) // twice
	case 2:
		all = append(all, entry{"nobody knows it", 1.5})
	}
	var b bytes.Buffer
	enc := msgpack.NewEncoder(&b)
	err := enc.EncodeMapLen(len(all))
	for _, e := range all {
		if err == nil {
			err = enc.EncodeString(e.key)
		}
		if err == nil {
			err = enc.Encode(e.value)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	body := b.Bytes()
	if r.IntN(10) == 0 {
		body = body[:r.IntN(len(body))]
	}
	return body
}
