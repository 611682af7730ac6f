package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/pkg/events"
)

// viewBuffer is how many outcomes of its entity a waiter may be behind before it is told to read the stream.
const viewBuffer = 32

// view hands committed outcomes, as the live view shows them, to whoever waits for one of the entity's. A kind is
// subscribed to, once for all waiters, when somebody first waits for it: a subscription
// a request would have to be known to every node before the score is out.
type view struct {
	conn *nats.Conn

	mu      sync.Mutex
	kinds   map[string]*nats.Subscription
	waiters map[string][]*waiter // by <kind>.<entity token>
	closed  bool
}

// waiter for an outcome of one entity.
type waiter struct {
	key  string
	seen chan *nats.Msg
	lost chan struct{} // holds a token when something was not put into seen
}

func newView(conn *nats.Conn) view {
	return view{conn: conn, kinds: map[string]*nats.Subscription{}, waiters: map[string][]*waiter{}}
}

var errViewClosed = errors.New("the service is stopping")

// wait registers a waiter: what is committed from now on comes to it. leave ends it.
func (v *view) wait(ctx context.Context, kind, token string) (*waiter, error) {
	w := &waiter{key: kind + "." + token, seen: make(chan *nats.Msg, viewBuffer), lost: make(chan struct{}, 1)}
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return nil, errViewClosed
	}
	first := v.kinds[kind] == nil
	if first {
		sub, err := v.conn.Subscribe(events.ScoreSubject(kind, "*", "*"), v.show)
		if err != nil {
			v.mu.Unlock()
			return nil, fmt.Errorf("subscribe to scores of %s: %w", kind, err)
		}
		v.kinds[kind] = sub
	}
	v.waiters[w.key] = append(v.waiters[w.key], w)
	v.mu.Unlock()
	if first {
		v.conn.FlushWithContext(ctx) //nolint:errcheck // without it the stream is read, a little later
	}
	return w, nil
}

func (v *view) leave(w *waiter) {
	v.mu.Lock()
	defer v.mu.Unlock()
	rest := slices.DeleteFunc(v.waiters[w.key], func(x *waiter) bool { return x == w })
	if len(rest) == 0 {
		delete(v.waiters, w.key)
		return
	}
	v.waiters[w.key] = rest
}

// show is called for every outcome of the kinds subscribed to.
func (v *view) show(m *nats.Msg) {
	kind, rest, _ := strings.Cut(strings.TrimPrefix(m.Subject, "scores."), ".")
	_, token, _ := strings.Cut(rest, ".")
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.waiters) == 0 {
		return
	}
	for _, w := range v.waiters[kind+"."+token] {
		select {
		case w.seen <- m:
		default:
			select {
			case w.lost <- struct{}{}:
			default:
			}
		}
	}
}

func (v *view) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	for _, sub := range v.kinds {
		sub.Unsubscribe() //nolint:errcheck // the connection is closed, then
	}
}
