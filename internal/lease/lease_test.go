package lease

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/riskweir/riskweir/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fault is what becomes of one write.
type fault string

const (
	none       fault = ""
	unanswered fault = "stored, not answered"
	lost       fault = "not stored"
)

// faulty is a bucket of whose writes the next has a fault.
type faulty struct {
	jetstream.KeyValue
	next fault
	soon func() // runs before the next write is stored
	late func() // runs before the next write is answered
}

func (f *faulty) write(store func() (uint64, error)) (uint64, error) {
	fault := f.next
	f.next = none
	if f.soon != nil {
		f.soon()
		f.soon = nil
	}
	if fault == lost {
		return 0, nats.ErrTimeout
	}
	revision, err := store()
	if f.late != nil {
		f.late()
		f.late = nil
	}
	if fault == unanswered {
		return 0, errors.Join(err, nats.ErrTimeout)
	}
	return revision, err
}

func (f *faulty) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return f.write(func() (uint64, error) { return f.KeyValue.Create(ctx, key, value, opts...) })
}

func (f *faulty) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return f.write(func() (uint64, error) { return f.KeyValue.Update(ctx, key, value, revision) })
}

const term = 8 * time.Second

// pair are two contenders at a key of a real bucket, whose clock stands still until it is set forward.
type pair struct {
	t    *testing.T
	now  time.Time
	kv   *faulty // of a
	a, b *Lease[[]string]
}

func newPair(t *testing.T, kv jetstream.KeyValue, key string) *pair {
	p := &pair{t: t, now: epoch, kv: &faulty{KeyValue: kv}}
	p.a = New[[]string](p.kv, key, Holder{Instance: "1", Name: "a", Host: "here"}, term)
	p.b = New[[]string](kv, key, Holder{Instance: "2", Name: "b"}, term)
	p.a.now = func() time.Time { return p.now }
	p.b.now = p.a.now
	return p
}

// contend fails if an error comes where none should, or the other way round.
func (p *pair) contend(l *Lease[[]string], fails bool, carried ...string) (begins bool) {
	p.t.Helper()
	begins, err := l.Contend(testkit.Context(p.t), carried)
	if (err != nil) != fails {
		p.t.Fatalf("contend: %v", err)
	}
	if p.a.Leads(p.now) && p.b.Leads(p.now) {
		p.t.Fatal("two lead")
	}
	return begins
}

func (p *pair) lead(a, b bool) {
	p.t.Helper()
	if p.a.Leads(p.now) != a || p.b.Leads(p.now) != b {
		p.t.Fatalf("a leads: %v, b leads: %v; want %v, %v", p.a.Leads(p.now), p.b.Leads(p.now), a, b)
	}
}

func (p *pair) carried(want string) {
	p.t.Helper()
	entry, err := p.kv.Get(testkit.Context(p.t), p.a.key)
	if err != nil {
		p.t.Fatal(err)
	}
	var r struct {
		Carried []string `json:"carried"`
	}
	if err := json.Unmarshal(entry.Value(), &r); err != nil || len(r.Carried) != 1 || r.Carried[0] != want {
		p.t.Fatalf("%s is stored, want it to carry %s", entry.Value(), want)
	}
}

func newBucket(t *testing.T) jetstream.KeyValue {
	t.Helper()
	kv, err := testkit.Start(t, 1).JetStream(t).CreateKeyValue(testkit.Context(t), jetstream.KeyValueConfig{Bucket: "LEASES"})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

func TestLease(t *testing.T) {
	kv := newBucket(t)

	t.Run("taken, renewed, carried on and released", func(t *testing.T) {
		p := newPair(t, kv, "plain")
		if !p.contend(p.a, false) || p.contend(p.b, false) {
			t.Error("the first to contend does not begin, or the second does")
		}
		p.lead(true, false)
		if p.contend(p.a, false, "x") { // news, so before it is due
			t.Error("begins again")
		}
		p.carried("x")
		entry, err := kv.Get(testkit.Context(t), "plain")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := string(entry.Value()), `{"instance":"1","name":"a","host":"here","since":"2023-11-14T22:13:20Z","renewals":2,"carried":["x"]}`; got != want {
			t.Errorf("stored\n     %s\nwant %s", got, want)
		}
		p.contend(p.a, false, "x") // neither news nor due
		if again, err := kv.Get(testkit.Context(t), "plain"); err != nil || again.Revision() != entry.Revision() {
			t.Errorf("revision %d became %d, %v", entry.Revision(), again.Revision(), err)
		}
		if err := p.a.Release(testkit.Context(t), []string{"y"}); err != nil {
			t.Fatal(err)
		}
		p.lead(false, false)
		p.contend(p.b, false, "not known to lead yet")
		p.lead(false, true)
		p.carried("y")
		if c := p.b.Carried(); len(c) != 1 || c[0] != "y" {
			t.Errorf("the next leader goes on with %v, want y", c)
		}
		if err := p.a.Release(testkit.Context(t), []string{"z"}); err != nil { // it is not ours any more
			t.Fatal(err)
		}
		p.carried("y")
	})

	t.Run("deleted or edited by hand", func(t *testing.T) {
		p := newPair(t, kv, "hand")
		p.contend(p.a, false)
		if err := kv.Delete(testkit.Context(t), "hand"); err != nil {
			t.Fatal(err)
		}
		p.now = p.now.Add(term / 4)
		p.contend(p.a, false)
		p.lead(true, false)
		if _, err := kv.Put(testkit.Context(t), "hand", []byte("me!")); err != nil {
			t.Fatal(err)
		}
		if !p.contend(p.a, false) { // as if another had released it
			t.Error("does not begin again")
		}
		p.lead(true, false)
		p.contend(p.b, false)
		p.lead(true, false)
	})

	t.Run("another was first", func(t *testing.T) {
		p := newPair(t, kv, "first")
		p.kv.soon = func() { p.contend(p.b, false) }
		p.contend(p.a, false) // it is no error
		p.lead(false, true)
		if err := p.b.Release(testkit.Context(t), nil); err != nil {
			t.Fatal(err)
		}
		p.kv.soon = func() { p.contend(p.b, false) }
		p.contend(p.a, false)
		p.lead(false, true)
	})

	t.Run("answered too late", func(t *testing.T) {
		p := newPair(t, kv, "late")
		p.contend(p.b, false)
		p.contend(p.b, false, "incident")
		if err := p.b.Release(testkit.Context(t), []string{"incident"}); err != nil {
			t.Fatal(err)
		}
		p.kv.late = func() { p.now = p.now.Add(term * 3 / 4) }
		if p.contend(p.a, false) {
			t.Error("begins when its trust is over")
		}
		p.lead(false, false)
		p.carried("incident")
		p.contend(p.a, false, "what a stranger to the incidents carries")
		p.lead(true, false)
		p.carried("incident")
	})

	t.Run("another led while we were frozen", func(t *testing.T) {
		p := newPair(t, kv, "frozen")
		p.contend(p.a, false)
		p.contend(p.a, false, "old")
		p.contend(p.b, false)
		p.now = p.now.Add(term)
		p.contend(p.b, false)
		p.contend(p.b, false, "new")
		if err := p.b.Release(testkit.Context(t), []string{"new"}); err != nil {
			t.Fatal(err)
		}
		if !p.contend(p.a, false, "old") {
			t.Error("does not begin again")
		}
		p.lead(true, false)
		p.carried("new")
	})

	for _, f := range []fault{unanswered, lost} {
		t.Run("take over, "+string(f), func(t *testing.T) {
			p := newPair(t, kv, "take-"+string(f[0]))
			p.contend(p.b, false)
			p.contend(p.b, false, "incident")
			p.contend(p.a, false) // sees it
			p.now = p.now.Add(term)
			p.kv.next = f
			p.contend(p.a, true)
			p.lead(false, false)
			p.contend(p.b, false, "incident") // as holder again, if it finds itself in the record
			if f == lost {
				p.lead(false, true)
				return
			}
			p.lead(false, false)
			p.contend(p.a, false, "what a stranger to the incidents carries")
			p.lead(true, false)
			p.carried("incident")
		})
		t.Run("renewal, "+string(f), func(t *testing.T) {
			p := newPair(t, kv, "renew-"+string(f[0]))
			p.contend(p.a, false)
			p.contend(p.b, false)
			p.now = p.now.Add(term / 4)
			p.kv.next = f
			p.contend(p.a, true, "x")
			p.lead(true, false) // by the first write still
			p.now = p.now.Add(term / 4)
			p.contend(p.b, false)
			p.contend(p.a, false, "x")
			p.carried("x")
			p.now = p.now.Add(term * 5 / 8)
			p.contend(p.b, false)
			p.lead(true, false) // by the last one
			p.now = p.now.Add(term / 8)
			p.lead(false, false) // a was silent, and knows for how long
			p.now = p.now.Add(term * 7 / 8)
			p.contend(p.b, false)
			p.lead(false, true)
		})
		t.Run("renewal before a release, "+string(f), func(t *testing.T) {
			p := newPair(t, kv, "before-"+string(f[0]))
			p.contend(p.a, false)
			p.contend(p.b, false)
			p.kv.next = f
			p.contend(p.a, true, "x")
			if err := p.a.Release(testkit.Context(t), []string{"y"}); err != nil {
				t.Fatal(err)
			}
			p.contend(p.b, false)
			p.lead(false, true)
			p.carried("y")
		})
		t.Run("release, "+string(f), func(t *testing.T) {
			p := newPair(t, kv, "release-"+string(f[0]))
			p.contend(p.a, false)
			p.contend(p.b, false)
			p.kv.next = f
			if err := p.a.Release(testkit.Context(t), nil); err == nil {
				t.Fatal("no error")
			}
			p.lead(false, false) // whatever became of it
			p.contend(p.b, false)
			p.lead(false, f == unanswered)
			p.now = p.now.Add(term)
			p.contend(p.b, false)
			p.lead(false, true)
		})
	}
}
