package ingest

import (
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/riskweir/riskweir/internal/access"
)

// DefaultRate is how many events and labels a caller may send a second where nothing else is said.
const DefaultRate = 20_000

const (
	// A body that is refused costs as much as one that is taken. A caller may send one full body at once at least.
	leastBurst = MaxItems
	// Refused tries of a machine, a second and at once. Whoever says who it is is never held up by them.
	strangerRate  = 5
	strangerBurst = 50
	// Machines that are kept in mind; beyond, they share one account.
	maxStrangers = 1024
)

// guard lets in whom access.Book knows, to what it may do, as often as it may.
type guard struct {
	book *access.Book // nil: everybody may do everything
	rate float64

	mu        sync.Mutex
	callers   map[string]*allowance    // by name: a closed set
	strangers map[string]*rate.Limiter // by address
	rest      *rate.Limiter            // of all other strangers
}

// allowance of a caller, made anew when its rate is changed.
type allowance struct {
	rate    float64
	limiter *rate.Limiter
}

func newGuard(book *access.Book, perCaller float64) *guard {
	return &guard{book: book, rate: perCaller, callers: map[string]*allowance{}, strangers: map[string]*rate.Limiter{}, rest: rate.NewLimiter(strangerRate, strangerBurst)}
}

// anybody is the caller where nobody is asked.
var anybody = access.Caller{Name: "anybody", May: []string{access.Publish, access.Label, access.Score}, Kinds: []string{access.AnyKind}}

// admit says who calls, or why it may not. Nothing of the body has been read by then.
func (g *guard) admit(r *http.Request, what, kind string) (access.Caller, *answer) {
	now := time.Now()
	c, known := anybody, true
	if g.book != nil {
		c, known = g.who(r, now)
	}
	if !known {
		return c, g.stranger(r, now)
	}
	if !c.Allows(what, kind) {
		a := refuse(http.StatusForbidden, "", fmt.Sprintf("%s may not %s events of kind %s", c.Name, what, clip(kind)))
		return c, &a
	}
	return c, g.spend(c, 1, now)
}

// who calls. A token that is shown counts alone: whoever shows a bad one beside a good certificate is told so.
func (g *guard) who(r *http.Request, now time.Time) (access.Caller, bool) {
	if shown := r.Header.Values("Authorization"); len(shown) > 0 {
		scheme, token, ok := strings.Cut(shown[0], " ")
		if !ok || len(shown) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return access.Caller{}, false
		}
		return g.book.ByToken(strings.TrimSpace(token), now)
	}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return g.book.ByCertificate(r.TLS.PeerCertificates[0].Subject.CommonName, now)
	}
	return access.Caller{}, false
}

// stranger is refused, and told to wait if it keeps on guessing.
func (g *guard) stranger(r *http.Request, now time.Time) *answer {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	g.mu.Lock()
	limiter, ok := g.strangers[host]
	if !ok {
		if len(g.strangers) >= maxStrangers {
			for address, l := range g.strangers { // those that have been quiet
				if l.TokensAt(now) >= strangerBurst {
					delete(g.strangers, address)
				}
			}
		}
		if limiter = g.rest; len(g.strangers) < maxStrangers {
			limiter = rate.NewLimiter(strangerRate, strangerBurst)
			g.strangers[host] = limiter
		}
	}
	g.mu.Unlock()
	if !limiter.AllowN(now, 1) {
		return tooMany("too many requests without a valid token", 1)
	}
	a := refuse(http.StatusUnauthorized, "", "say who you are: a header 'Authorization: Bearer TOKEN', of 'riskweir token add', or a client certificate")
	return &a
}

// spend takes n events or labels of the caller's allowance. The first is taken before the body is read.
func (g *guard) spend(c access.Caller, n int, now time.Time) *answer {
	each := c.Rate
	if each == 0 {
		each = g.rate
	}
	if n == 0 || each == 0 {
		return nil
	}
	g.mu.Lock()
	a := g.callers[c.Name]
	if a == nil || a.rate != each {
		a = &allowance{rate: each, limiter: rate.NewLimiter(rate.Limit(each), max(leastBurst, int(each)))}
		g.callers[c.Name] = a
	}
	g.mu.Unlock()
	if a.limiter.AllowN(now, n) {
		return nil
	}
	missing := float64(n) - a.limiter.TokensAt(now)
	return tooMany(fmt.Sprintf("more than %v events and labels a second", each), max(1, int(math.Ceil(missing/each))))
}

func tooMany(reason string, seconds int) *answer {
	a := refuse(http.StatusTooManyRequests, "", reason)
	a.retry = seconds
	return &a
}

// parameters refuses what would be passed over without a word: a deadline that is misspelt is none.
func parameters(r *http.Request, known ...string) error {
	for name, values := range r.URL.Query() {
		if !slices.Contains(known, name) {
			return fmt.Errorf("parameter %q is unknown here: there are %s", clip(name), strings.Join(known, ", "))
		}
		if len(values) > 1 {
			return fmt.Errorf("parameter %s stands there %d times", name, len(values))
		}
	}
	return nil
}

// harden sets on every answer, those of the mux too, what keeps a browser from making more of it than it is, and refuses what a page of
// somebody else's has a browser send: a client certificate would go with it.
func harden(h http.Handler) http.Handler {
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Cache-Control", "no-store")
		head.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		head.Set("Referrer-Policy", "no-referrer")
		if r.TLS != nil {
			head.Set("Strict-Transport-Security", "max-age=31536000")
		}
		h.ServeHTTP(w, r)
	})
}
