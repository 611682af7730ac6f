package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// memory is one key of a bucket, reached by contenders through doors of their own.
type memory struct {
	mu       sync.Mutex
	value    []byte
	revision uint64
}

// door to memory; while it is shut nothing is answered.
type door struct {
	jetstream.KeyValue // of what is not used here
	*memory
	shut bool
}

type entry struct {
	jetstream.KeyValueEntry
	value    []byte
	revision uint64
}

func (e entry) Value() []byte    { return e.value }
func (e entry) Revision() uint64 { return e.revision }

func (d *door) enter(ctx context.Context) error {
	d.mu.Lock()
	shut := d.shut
	d.mu.Unlock()
	if shut {
		<-ctx.Done()
	}
	return ctx.Err()
}

func (d *door) set(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = shut
}

func (d *door) Get(ctx context.Context, _ string) (jetstream.KeyValueEntry, error) {
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.revision == 0 {
		return nil, jetstream.ErrKeyNotFound
	}
	return entry{value: d.value, revision: d.revision}, nil
}

func (d *door) Create(ctx context.Context, key string, value []byte, _ ...jetstream.KVCreateOpt) (uint64, error) {
	return d.Update(ctx, key, value, 0)
}

func (d *door) Update(ctx context.Context, _ string, value []byte, revision uint64) (uint64, error) {
	if err := d.enter(ctx); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.revision != revision {
		return 0, jetstream.ErrKeyRevisionMismatch
	}
	d.value = value
	d.revision++
	return d.revision, nil
}

// candidate runs Elect. Its clock is that of the bubble.
type candidate struct {
	*door
	stop func()

	mu       sync.Mutex
	leads    bool
	tenures  int
	ended    time.Time // the latest one
	troubles []string
}

func stand(t *testing.T, key *memory, name string, leaders *int) *candidate {
	c := &candidate{door: &door{memory: key}}
	l := New[struct{}](c.door, "leader", Holder{Instance: name}, term)
	lead := func(ctx context.Context) {
		key.mu.Lock()
		*leaders++
		if *leaders > 1 {
			t.Errorf("%d lead", *leaders)
		}
		key.mu.Unlock()
		c.note(func() { c.leads = true; c.tenures++ })
		<-ctx.Done()
		c.note(func() { c.leads = false; c.ended = time.Now() })
		key.mu.Lock()
		*leaders--
		key.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Elect(ctx, l, lead, func(err error) { c.note(func() { c.troubles = append(c.troubles, err.Error()) }) })
	}()
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	return c
}

func (c *candidate) note(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *candidate) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("leads %v, tenures %d, troubles %q", c.leads, c.tenures, c.troubles)
}

func TestElect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var key memory
		var leaders int
		expect := func(c *candidate, want string) {
			t.Helper()
			synctest.Wait()
			if got := c.String(); got != want {
				t.Errorf("%s; want %s", got, want)
			}
		}
		a := stand(t, &key, "a", &leaders)
		synctest.Wait()
		b := stand(t, &key, "b", &leaders)
		defer b.stop()
		time.Sleep(10 * term) // of the bubble's clock
		expect(a, `leads true, tenures 1, troubles []`)
		expect(b, `leads false, tenures 0, troubles []`)

		// One that stops hands over at once: at the other's next look.
		a.stop()
		time.Sleep(term / 8)
		expect(b, `leads true, tenures 1, troubles []`)

		// One that is cut off stops leading before the next begins, says why once, and follows when it is back.
		c := stand(t, &key, "c", &leaders)
		defer c.stop()
		time.Sleep(term)
		expect(c, `leads false, tenures 0, troubles []`)
		cut := time.Now()
		b.set(true)
		time.Sleep(2 * term)
		expect(c, `leads true, tenures 1, troubles []`)
		expect(b, `leads false, tenures 1, troubles ["read leader: context deadline exceeded"]`)
		if led := b.ended.Sub(cut); led <= 0 || led > term*3/4 {
			t.Errorf("cut off, it led for another %s", led)
		}
		b.set(false)
		time.Sleep(2 * term)
		expect(b, `leads false, tenures 1, troubles ["read leader: context deadline exceeded"]`)
		expect(c, `leads true, tenures 1, troubles []`)

		// A short cut does not end a tenure.
		c.set(true)
		time.Sleep(term / 4)
		c.set(false)
		time.Sleep(term)
		expect(c, `leads true, tenures 1, troubles ["read leader: context deadline exceeded"]`)

		// Nor does it hold what another has taken by force.
		key.mu.Lock()
		key.value, key.revision = []byte(`{"instance":"x"}`), key.revision+1
		key.mu.Unlock()
		time.Sleep(term / 8)
		expect(c, `leads false, tenures 1, troubles ["read leader: context deadline exceeded"]`)
		time.Sleep(term * 9 / 8)
		synctest.Wait()
		key.mu.Lock()
		defer key.mu.Unlock()
		if leaders != 1 {
			t.Errorf("%d lead after a record that nobody renews: b %s, c %s", leaders, b, c)
		}
	})
}
