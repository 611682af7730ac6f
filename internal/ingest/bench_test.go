package ingest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// A real file of 30,000 rows and 25 columns, into one node or three that sync every write.
func BenchmarkFile(b *testing.B) {
	path := "../../../shared/data/taiwan_default/UCI_Credit_Card.csv"
	if _, err := os.Stat(path); err != nil {
		b.Skipf("the real data sets are absent: %v", err)
	}
	c := events.DefaultContract()
	c.Kind, c.ID = "application", "ID"
	for i := range 23 {
		c.Fields = append(c.Fields, events.Field{Name: fmt.Sprintf("X%d", i+1), Type: events.Number})
	}
	c.Label = &events.LabelColumn{Column: "Y", Positive: []string{"1"}}
	schema, err := events.Compile(c)
	if err != nil {
		b.Fatal(err)
	}
	for _, replicas := range []int{1, 3} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			k := testkit.Start(b, replicas, testkit.Sync())
			nc := k.Connect(b)
			js, err := natsjs.New(nc)
			if err != nil {
				b.Fatal(err)
			}
			o := jetstream.Options{Replicas: replicas}
			if _, err := jetstream.ApplyShared(b.Context(), js, o); err != nil {
				b.Fatal(err)
			}
			if _, err := jetstream.ApplyKind(b.Context(), js, c, o); err != nil {
				b.Fatal(err)
			}
			rows, n := int64(0), 0
			started := time.Now()
			for b.Loop() {
				n++
				f, err := NewFile(FileConfig{Conn: nc, Log: zap.NewNop(), Schema: schema, Path: path, SourceName: fmt.Sprint(n),
					InvalidPath: filepath.Join(b.TempDir(), "invalid"), Progress: func(p Progress) {
						if p.Done {
							rows += p.Rows
						}
					}})
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rows)/time.Since(started).Seconds(), "rows/s")
		})
	}
}

// Requests of several clients at once, one event or a hundred each, to three nodes that sync every write.
func BenchmarkEvents(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			k := testkit.Start(b, 3, testkit.Sync())
			nc := k.Connect(b)
			js, err := natsjs.New(nc)
			if err != nil {
				b.Fatal(err)
			}
			o := jetstream.Options{Replicas: 3}
			if _, err := jetstream.ApplyShared(b.Context(), js, o); err != nil {
				b.Fatal(err)
			}
			c := contract(nil)
			if _, err := jetstream.ApplyKind(b.Context(), js, c, o); err != nil {
				b.Fatal(err)
			}
			schema, err := events.Compile(c)
			if err != nil {
				b.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			s, err := NewServer(ServerConfig{Conn: nc, Listener: l, Contracts: declared{schema}, Log: zap.NewNop(), Metrics: prometheus.NewRegistry(), Open: true, Rate: -1})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			body := strings.Repeat(`{"card":"c1","amount":12.5,"country":"DE"}`+"\n", batch)
			client := http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
			b.SetParallelism(16)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res, err := client.Post("http://"+l.Addr().String()+"/v1/events/payment", lineType, strings.NewReader(body))
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, res.Body) //nolint:errcheck // the status says it
					res.Body.Close()
					if res.StatusCode != http.StatusAccepted {
						b.Errorf("status %d", res.StatusCode)
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
			client.CloseIdleConnections()
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
		})
	}
}
