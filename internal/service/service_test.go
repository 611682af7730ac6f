package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

// Latency against all durations, sorted.
func TestLatencyQuantile(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 200 {
		var l Latency
		n := 1 + r.IntN(300)
		all := make([]int64, n)
		scale := math.Exp2(float64(r.IntN(34)))
		for i := range all {
			all[i] = int64(r.ExpFloat64() * scale)
			l.Observe(time.Duration(all[i]) * time.Microsecond)
		}
		slices.Sort(all)
		merged := map[int64]int64{}
		var last int64 = -1
		for _, b := range l.Buckets() {
			if b.Micros <= last || b.Count <= 0 {
				t.Fatalf("seed %d, round %d: buckets %v do not rise", seed, round, l.Buckets())
			}
			last = b.Micros
			merged[b.Micros] += b.Count
		}
		for _, q := range []float64{0, .01, .5, .9, .99, 1} {
			got, ok := Quantile(q, merged)
			want := all[int(q*float64(n-1))]
			if us := got.Microseconds(); !ok || us < want || float64(us) > float64(want)*17/16 {
				t.Fatalf("seed %d, round %d: quantile %v of %d durations is %d µs, %v, want %d to %.0f", seed, round, q, n, us, ok, want, float64(want)*17/16)
			}
		}
	}
}

// Every duration has one bucket, whose bound is the largest that has it.
func TestLatencyBuckets(t *testing.T) {
	for b := range latencyBuckets - 1 {
		upper := latencyUpper(b)
		if latencyBucket(upper) != b || latencyBucket(upper+1) != b+1 {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d; %d is in %d", b, upper, latencyBucket(upper), upper+1, latencyBucket(upper+1))
		}
	}
	var l Latency
	l.Observe(-time.Hour) // clocks differ
	l.Observe(math.MaxInt64)
	if b := l.Buckets(); len(b) != 2 || b[0] != (events.LatencyBucket{Micros: 0, Count: 1}) || b[1].Count != 1 {
		t.Errorf("buckets %v", b)
	}
	if d, ok := Quantile(.5, nil); ok {
		t.Errorf("the median of nothing is %s", d)
	}
}

// serve runs a until the end of the test and returns its address.
func serve(t *testing.T, a Admin) string {
	t.Helper()
	bound := make(chan string, 1)
	a.OnBound = func(addr string) { bound <- addr }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("admin: %v", err)
		}
	})
	select {
	case addr := <-bound:
		return "http://" + addr
	case err := <-ended:
		ended <- err
		t.Fatalf("admin: %v", err)
		return ""
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestAdmin(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	addr := serve(t, Admin{
		Listen: "127.0.0.1:0", Metrics: NewRegistry(),
		Ready: func() error {
			if away.Load() {
				return errors.New("NATS is away")
			}
			return nil
		},
		Extra: map[string]http.Handler{"GET /extra": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "more") })},
	})
	check := func(path string, status int, want string) {
		t.Helper()
		if got, body := get(t, addr+path); got != status || !strings.Contains(body, want) {
			t.Errorf("%s: %d %q, want %d %q", path, got, body, status, want)
		}
	}
	check("/healthz", 200, "ok") // also while NATS is away
	check("/readyz", 503, "NATS is away")
	away.Store(false)
	check("/readyz", 200, "ok")
	check("/metrics", 200, "go_goroutines ")
	check("/extra", 200, "more")
	check("/debug/pprof/", 404, "")
	check("/", 404, "")

	// A name of a stranger's that leads here: what a page in a browser could ask for.
	req, err := http.NewRequestWithContext(t.Context(), "GET", addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example:80"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("by another name: %d", resp.StatusCode)
	}

	profiled := serve(t, Admin{Listen: "127.0.0.1:0", Metrics: NewRegistry(), Pprof: true})
	if got, body := get(t, profiled+"/debug/pprof/goroutine?debug=1"); got != 200 || !strings.Contains(body, "goroutine profile:") {
		t.Errorf("/debug/pprof/goroutine: %d %q", got, body)
	}
	if got, _ := get(t, profiled+"/readyz"); got != 200 {
		t.Errorf("/readyz of a process that is always ready: %d", got)
	}

	err = Admin{Listen: strings.TrimPrefix(addr, "http://"), Metrics: NewRegistry()}.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("an address that is taken: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (Admin{}).Run(ctx); err != nil {
		t.Errorf("no address: %v", err)
	}
}

// A request that is under way when the server stops is answered.
func TestServeHTTPFinishesWhatIsUnderWay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	bound, entered, ended := make(chan string, 1), make(chan struct{}), make(chan error, 1)
	stopping := make(chan struct{})
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-stopping
		if r.Context().Err() == nil {
			fmt.Fprint(w, "answered")
		}
	})
	go func() { ended <- ServeHTTP(ctx, "127.0.0.1:0", h, func(a string) { bound <- a }) }()
	addr := <-bound
	answer := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + addr)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		answer <- string(text)
	}()
	<-entered
	cancel()
	testkit.Eventually(t, testkit.Deadline, "new requests are refused", func() (bool, string) {
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}).Get("http://" + addr)
		if err != nil && strings.Contains(err.Error(), "refused") {
			return true, ""
		}
		if err == nil {
			resp.Body.Close()
		}
		return false, fmt.Sprint(err)
	})
	close(stopping)
	if got := <-answer; got != "answered" {
		t.Errorf("%q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestGroup(t *testing.T) {
	broken := errors.New("broken")
	g, ctx := NewGroup(t.Context())
	g.Go(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	g.Go(func(ctx context.Context) error { <-ctx.Done(); return errors.New("later") })
	g.Go(func(context.Context) error { return nil })
	g.Go(func(context.Context) error { return broken })
	if err := g.Wait(); err != broken {
		t.Errorf("error %v, want the first", err)
	}
	if context.Cause(ctx) != broken {
		t.Errorf("cause %v", context.Cause(ctx))
	}
	parent, cancel := context.WithCancel(t.Context())
	g, _ = NewGroup(parent)
	g.Go(func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("stopped: %w", ctx.Err()) })
	cancel()
	if err := g.Wait(); err != nil {
		t.Errorf("a group that was told to end: %v", err)
	}
}

func TestBeatAndMicro(t *testing.T) {
	conn := testkit.Start(t, 1).Connect(t)
	sub, err := conn.SubscribeSync("heartbeats.>")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	beating := make(chan error, 1)
	started := time.Now()
	var n float64 // owned by Beat's goroutine
	go func() {
		beating <- Beat(ctx, conn, events.Heartbeat{Service: "scorer", Instance: "i1", Name: "scorer-1", Started: started}, func(h *events.Heartbeat) {
			n++
			h.Counters = map[string]float64{"n": n}
		})
	}()
	for want := 1.0; want <= 2; want++ {
		msg, err := sub.NextMsg(testkit.Deadline)
		if err != nil {
			t.Fatal(err)
		}
		var h events.Heartbeat
		if err := json.Unmarshal(msg.Data, &h); err != nil {
			t.Fatal(err)
		}
		if msg.Subject != "heartbeats.scorer.i1" || h.Name != "scorer-1" || h.PID == 0 || h.Host == "" || !h.Started.Equal(started) || h.Counters["n"] != want {
			t.Errorf("%s: %+v", msg.Subject, h)
		}
	}
	cancel()
	if err := <-beating; err != nil {
		t.Error(err)
	}

	s, err := Micro(conn, "riskweir-scorer", "0.1.0", "Riskweir scorer", map[string]string{"name": "scorer-1"}, func() any { return map[string]int{"lag": 3} })
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddEndpoint("ask", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(nil) })); err != nil {
		t.Fatal(err)
	}
	reply, err := conn.Request("$SRV.STATS.riskweir-scorer", nil, testkit.Deadline)
	if err != nil {
		t.Fatal(err)
	}
	var stats micro.Stats
	if err := json.Unmarshal(reply.Data, &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Metadata["name"] != "scorer-1" || stats.Version != "0.1.0" || len(stats.Endpoints) != 1 || string(stats.Endpoints[0].Data) != `{"lag":3}` {
		t.Errorf("%s", reply.Data)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := Micro(conn, "no spaces", "0.1.0", "", nil, nil); err == nil || !strings.Contains(err.Error(), "micro service no spaces: ") {
		t.Errorf("a bad name: %v", err)
	}
}

func TestNewLogger(t *testing.T) {
	if _, err := NewLogger("loud", "scorer", "s1"); err == nil || !strings.Contains(err.Error(), `log level "loud": want debug, info, warn or error`) {
		t.Errorf("%v", err)
	}
	log, err := NewLogger("error", "scorer", "s1")
	if err != nil || log.Core().Enabled(-1) || !log.Core().Enabled(2) {
		t.Errorf("%v, %v", log, err)
	}
}

// The admin address is for this machine, unless somebody says otherwise; pprof always.
func TestAdminIsForThisMachine(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		a    Admin
		want string
	}{
		{"anywhere", Admin{Listen: "0.0.0.0:0"}, "--admin-anywhere"},
		{"anywhere by leaving out", Admin{Listen: ":0"}, "--admin-anywhere"},
		{"pprof anywhere", Admin{Listen: "0.0.0.0:0", Pprof: true, Anywhere: true}, "pprof"},
	} {
		x.a.Metrics = NewRegistry()
		if err := x.a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.name, err)
		}
	}
	for address, want := range map[string]bool{"127.0.0.1:1": true, "localhost:1": true, "[::1]:1": true, "127.9.9.9:1": true, "0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "127.0.0.1.evil.example:1": false, "": false} {
		if got := Loopback(address); got != want {
			t.Errorf("%q: %t", address, got)
		}
	}
}
