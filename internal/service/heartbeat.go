package service

import (
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/riskweir/riskweir/pkg/events"
)

// HeartbeatEvery is how often a service says that it lives.
const HeartbeatEvery = time.Second

// Beat publishes fill's heartbeat until ctx ends. It is core NATS: one that is lost is made up for by the next.
func Beat(ctx context.Context, conn *nats.Conn, base events.Heartbeat, fill func(*events.Heartbeat)) error {
	base.Host, base.PID = Hostname(), os.Getpid()
	subject := events.HeartbeatSubject(base.Service, base.Instance)
	tick := time.NewTicker(HeartbeatEvery)
	defer tick.Stop()
	for {
		h := base
		if fill != nil {
			fill(&h)
		}
		body, err := json.Marshal(h)
		if err != nil {
			return fmt.Errorf("heartbeat: %w", err)
		}
		// While the connection is away nobody would hear it.
		_ = conn.Publish(subject, body)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Micro makes the process visible to 'nats micro ls|info|stats'. The caller adds endpoints and stops it.
func Micro(conn *nats.Conn, name, version, description string, metadata map[string]string, stats func() any) (micro.Service, error) {
	cfg := micro.Config{Name: name, Version: version, Description: description, Metadata: metadata}
	if stats != nil {
		cfg.StatsHandler = func(*micro.Endpoint) any { return stats() }
	}
	s, err := micro.AddService(conn, cfg)
	if err != nil {
		return nil, fmt.Errorf("micro service %s: %w", name, err)
	}
	return s, nil
}

// Latency counts durations in buckets that grow by a sixteenth: each quantile is known to 6 %. It is safe for concurrent use.
type Latency struct {
	counts [latencyBuckets]atomic.Int64
}

// 16 buckets an octave of microseconds, to 2^40 µs (12 days).
const latencyBuckets = 37 * 16

func (l *Latency) Observe(d time.Duration) {
	l.counts[latencyBucket(max(0, d.Microseconds()))].Add(1)
}

func latencyBucket(us int64) int {
	if us < 16 {
		return int(us)
	}
	octave := bits.Len64(uint64(us)) - 5 // us >> octave is in [16, 32)
	return min(16+octave*16+int(us>>octave)-16, latencyBuckets-1)
}

// latencyUpper is the largest value of a bucket.
func latencyUpper(b int) int64 {
	if b < 16 {
		return int64(b)
	}
	octave, rest := (b-16)/16, (b-16)%16
	return (int64(rest+17) << octave) - 1
}

// Buckets returns the buckets that hold anything, rising.
func (l *Latency) Buckets() []events.LatencyBucket {
	var out []events.LatencyBucket
	for i := range l.counts {
		if n := l.counts[i].Load(); n > 0 {
			out = append(out, events.LatencyBucket{Micros: latencyUpper(i), Count: n})
		}
	}
	return out
}

// Quantile of merged buckets, which need not be in order; ok is false when they are empty.
func Quantile(q float64, buckets map[int64]int64) (d time.Duration, ok bool) {
	var l [latencyBuckets]int64
	var total int64
	for us, n := range buckets {
		l[latencyBucket(us)] += n
		total += n
	}
	if total == 0 {
		return 0, false
	}
	rank := int64(q*float64(total-1)) + 1
	for i, n := range l {
		if rank -= n; rank <= 0 {
			return time.Duration(latencyUpper(i)) * time.Microsecond, true
		}
	}
	return 0, false
}
