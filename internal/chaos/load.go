package chaos

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/sim"
	"github.com/riskweir/riskweir/pkg/events"
)

const (
	// Together they bound what is on its way; while all of them wait no event is made.
	natsWorkers = 192
	httpWorkers = 4
	httpBatch   = 20 // events a request

	oneTry     = 5 * time.Second // above the 4 s of a fast election
	retryEvery = 200 * time.Millisecond
	// An event is sent again until it is acknowledged, but never beyond the dedupe window of EVENTS (2 minutes): then it would be
	// another event.
	giveUpAfter = 90 * time.Second

	maxLabels = 20_000 // waiting
)

// LoadConfig of a Load.
type LoadConfig struct {
	Conn      *nats.Conn // of a publisher
	Generator *sim.Generator
	HTTP      string // base URL of an ingest
	Token     string // of a caller that may publish and score
	TLS       *tls.Config
	Rate      float64 // events a second; a fifth of them through HTTP
	Probes    float64 // requests for a score a second, beside
	Deadline  time.Duration
}

// Load publishes simulated payments, through NATS and through HTTP, each until it is acknowledged, and knows what was.
type Load struct {
	cfg  LoadConfig
	js   jetstream.JetStream
	acks Acks

	mu     sync.Mutex
	made   uint64 // events; the number of the latest
	prefix string // of their ids
	givenUp, refused,
	tries uint64
	labels []label // in no order: few
	probes []probe
	odd    string // a refusal, for people
}

type label struct {
	at  time.Time
	msg *nats.Msg
}

// probe is one request for a score.
type probe struct {
	at   time.Time
	took time.Duration
	mode string // of the answer, or why there is none
	said bool   // an answer to decide on
}

func NewLoad(c LoadConfig) (*Load, error) {
	js, err := jetstream.New(c.Conn)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return &Load{cfg: c, js: js}, nil
}

// Run loads until ctx ends, then waits for the acknowledgements under way, giveUpAfter at most.
func (l *Load) Run(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	due := make(chan bool) // true: for HTTP
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(due)
		pace(ctx, l.cfg.Rate, func(i uint64) {
			select {
			case due <- i%100 < 20:
			case <-ctx.Done():
			}
		})
	})
	batches := make(chan []*sim.Event)
	one := make(chan *sim.Event)
	wg.Go(func() {
		defer close(one)
		defer close(batches)
		var batch []*sim.Event
		for byHTTP := range due {
			e := l.next()
			if !byHTTP {
				one <- e
				continue
			}
			if batch = append(batch, e); len(batch) == httpBatch {
				batches <- batch
				batch = nil
			}
		}
		if len(batch) > 0 {
			batches <- batch
		}
	})
	for range natsWorkers {
		wg.Go(func() {
			for e := range one {
				l.publish(work, e)
			}
		})
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: httpWorkers, TLSClientConfig: l.cfg.TLS}, Timeout: oneTry + 2*time.Second}
	defer client.CloseIdleConnections()
	for range httpWorkers {
		wg.Go(func() {
			for b := range batches {
				l.post(work, client, b)
			}
		})
	}
	wg.Go(func() { l.tell(ctx) })
	wg.Go(func() { l.probe(ctx) })
	wg.Wait()
	return nil
}

// pace calls f rate times a second. What is late by a second is let go.
func pace(ctx context.Context, rate float64, f func(i uint64)) {
	gap := time.Duration(float64(time.Second) / rate)
	next := time.Now()
	t := time.NewTimer(0)
	defer t.Stop()
	for i := uint64(0); ; i++ {
		now := time.Now()
		if late := now.Sub(next); late > time.Second {
			next = now
		}
		if wait := next.Sub(now); wait > 0 {
			t.Reset(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				return
			}
		} else if ctx.Err() != nil {
			return
		}
		f(i)
		next = next.Add(gap)
	}
}

// next makes an event. Its id ends in its number.
func (l *Load) next() *sim.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.cfg.Generator.Next(time.Now())
	l.made++
	if l.prefix == "" {
		l.prefix = e.ID[:strings.LastIndexByte(e.ID, '-')+1]
	}
	return &e
}

// number of an event of this load.
func (l *Load) number(id string) (uint64, bool) {
	l.mu.Lock()
	prefix := l.prefix
	l.mu.Unlock()
	tail, ok := strings.CutPrefix(id, prefix)
	n, err := strconv.ParseUint(tail, 10, 64)
	return n, ok && prefix != "" && err == nil
}

func (l *Load) acknowledged(e *sim.Event, seq uint64) {
	n, ok := l.number(e.ID)
	if !ok {
		panic("event " + e.ID + " is none of this load")
	}
	l.acks.Add(n, seq)
	if !e.Labelled {
		return
	}
	subject, err := events.LabelSubject(sim.Kind, e.Entity)
	if err != nil {
		panic(err) // the generator's own names are plain
	}
	at := e.Time.Add(e.LabelDelay)
	body, err := json.Marshal(events.Label{ID: e.ID, Label: &e.Label, KnownAt: at, Source: "review"})
	if err != nil {
		panic(err) // a struct of plain values
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.labels) < maxLabels {
		l.labels = append(l.labels, label{at, &nats.Msg{Subject: subject, Data: body, Header: nats.Header{jetstream.MsgIDHeader: {"label-" + e.ID}}}})
	}
}

func (l *Load) gaveUp(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.givenUp += uint64(n)
}

func (l *Load) tried() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries++
}

// publish sends one event until it is acknowledged.
func (l *Load) publish(ctx context.Context, e *sim.Event) {
	subject, err := events.EventSubject(sim.Kind, e.Entity)
	if err != nil {
		panic(err)
	}
	for end := time.Now().Add(giveUpAfter); time.Now().Before(end); {
		msg := &nats.Msg{Subject: subject, Data: e.Body, Header: nats.Header{jetstream.MsgIDHeader: {e.ID}, "Content-Type": {events.ContentTypeJSON}}}
		try, cancel := context.WithTimeout(ctx, oneTry)
		ack, err := l.js.PublishMsg(try, msg, jetstream.WithRetryAttempts(0))
		cancel()
		l.tried()
		if err == nil {
			l.acknowledged(e, ack.Sequence)
			return
		}
		pause(ctx, retryEvery)
	}
	l.gaveUp(1)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// post sends a batch as JSON lines until all of it is acknowledged.
func (l *Load) post(ctx context.Context, client *http.Client, batch []*sim.Event) {
	var body bytes.Buffer
	for _, e := range batch {
		body.Write(e.Body)
		body.WriteByte('\n')
	}
	left := len(batch)
	done := make([]bool, len(batch))
	for end := time.Now().Add(giveUpAfter); time.Now().Before(end); {
		l.tried()
		status, answer, err := l.request(ctx, client, l.cfg.HTTP+"/v1/events/"+sim.Kind, "application/x-ndjson", body.Bytes())
		var a struct {
			Sequences []uint64 `json:"sequences"` // by line; 0: not stored
		}
		if err == nil && json.Unmarshal(answer, &a) == nil {
			for i, seq := range a.Sequences {
				if seq > 0 && i < len(batch) {
					l.acknowledged(batch[i], seq)
					if !done[i] {
						done[i] = true
						left--
					}
				}
			}
			if status >= 400 && status < 500 {
				l.mu.Lock()
				l.refused += uint64(left)
				l.odd = fmt.Sprintf("HTTP %d: %.200s", status, answer)
				l.mu.Unlock()
				return
			}
		}
		if left == 0 {
			return
		}
		pause(ctx, retryEvery)
	}
	l.gaveUp(left)
}

func (l *Load) request(ctx context.Context, client *http.Client, url, contentType string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+l.cfg.Token)
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, answer, err
}

// tell publishes labels when they are due. A lost one costs the trainer a label.
func (l *Load) tell(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			l.mu.Lock()
			var due []*nats.Msg
			kept := l.labels[:0]
			for _, x := range l.labels {
				if x.at.After(now) {
					kept = append(kept, x)
				} else {
					due = append(due, x.msg)
				}
			}
			l.labels = kept
			l.mu.Unlock()
			for _, m := range due {
				_ = l.cfg.Conn.PublishMsg(m) // see above
			}
		}
	}
}

// probe asks for scores at a steady rate, whatever becomes of the last.
func (l *Load) probe(ctx context.Context) {
	if l.cfg.Probes <= 0 {
		return
	}
	const most = 64 // at once
	room := make(chan struct{}, most)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: most, TLSClientConfig: l.cfg.TLS}, Timeout: 2 * time.Second}
	defer client.CloseIdleConnections()
	var wg sync.WaitGroup
	defer wg.Wait()
	work := context.WithoutCancel(ctx)
	url := l.cfg.HTTP + "/v1/score/" + sim.Kind + "?deadline=" + l.cfg.Deadline.String()
	pace(ctx, l.cfg.Probes, func(uint64) {
		select {
		case room <- struct{}{}:
		default:
			return // as many as there can be wait for their time-out
		}
		wg.Go(func() {
			defer func() { <-room }()
			p := l.ask(work, client, url)
			l.mu.Lock()
			l.probes = append(l.probes, p)
			l.mu.Unlock()
		})
	})
}

func (l *Load) ask(ctx context.Context, client *http.Client, url string) probe {
	e := l.next()
	p := probe{at: time.Now()}
	status, body, err := l.request(ctx, client, url, events.ContentTypeJSON, e.Body)
	p.took = time.Since(p.at)
	if err != nil {
		p.mode = "unreachable"
		if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "Client.Timeout") {
			p.mode = "no answer"
		}
		return p
	}
	var a struct {
		Seq      uint64 `json:"seq"`
		Mode     string `json:"mode"`
		Decision string `json:"decision"`
	}
	if json.Unmarshal(body, &a) != nil {
		p.mode = "unreadable"
		return p
	}
	p.said = a.Decision != ""
	p.mode = a.Mode
	switch {
	case status == http.StatusServiceUnavailable:
		p.mode = "not accepted"
	case status != http.StatusOK:
		p.mode = "HTTP " + strconv.Itoa(status)
	case a.Seq > 0:
		l.acknowledged(e, a.Seq)
	}
	return p
}
