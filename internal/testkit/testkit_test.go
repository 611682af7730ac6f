package testkit

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/riskweir/riskweir/internal/embedded"
)

func TestSingleNodeStartsFast(t *testing.T) {
	start := time.Now()
	c := Start(t, 1)
	took := time.Since(start)
	t.Logf("started in %s", took)
	if took > 2*time.Second { // 300 ms on a quiet machine
		t.Errorf("took %s to start", took)
	}
	js := c.JetStream(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s.1", nil); err != nil {
		t.Fatal(err)
	}
	c.RestartNode(t, 0)
	Eventually(t, Deadline, "the message is back", func() (bool, string) {
		s, err := js.Stream(t.Context(), "S")
		if err != nil {
			return false, err.Error()
		}
		return s.CachedInfo().State.Msgs == 1, "another count"
	})
	if got := c.StreamLeader("S"); got != 0 {
		t.Errorf("leader %d, want 0", got)
	}
}

func TestThreeNodes(t *testing.T) {
	start := time.Now()
	c := Start(t, 3)
	t.Logf("started in %s", time.Since(start))
	js := c.JetStream(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	publish := func(id string) {
		t.Helper()
		Eventually(t, Deadline, "a message is stored", func() (bool, string) {
			_, err := js.Publish(t.Context(), "s.1", nil, jetstream.WithMsgID(id), jetstream.WithRetryAttempts(0))
			return err == nil, errText(err)
		})
	}
	publish("1")
	leader := c.StreamLeader("S")
	if leader < 0 {
		t.Fatal("no leader")
	}
	start = time.Now()
	c.StopNode(t, leader)
	t.Logf("stopped in %s", time.Since(start))
	start = time.Now()
	publish("2")
	t.Logf("published again after %s", time.Since(start))
	c.RestartNode(t, leader)
	next := c.StreamLeader("S")
	if next < 0 || next == leader {
		t.Fatalf("leader %d after %d was stopped", next, leader)
	}
	c.KillNode(t, next)
	start = time.Now()
	publish("3")
	t.Logf("published after a kill after %s", time.Since(start))
	c.RestartNode(t, next)
	s, err := js.Stream(Context(t), "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

// Nodes speak TLS with each other too, and a node talks to none that has no certificate.
func TestTLS(t *testing.T) {
	c := Start(t, 3, TLS(), Users(embedded.User{Name: "someone", All: true}))
	js, err := jetstream.New(c.ConnectAs(t, "someone"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(Context(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(Context(t), "s.1", nil); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(c.CA())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	node, err := tls.LoadX509KeyPair(c.cfgs[0].TLS.Cert, c.cfgs[0].TLS.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i, cfg := range c.cfgs {
		for _, certs := range [][]tls.Certificate{nil, {node}} {
			conn, err := tls.Dial("tcp", cfg.Routes[i], &tls.Config{RootCAs: roots, Certificates: certs})
			if err != nil {
				t.Fatal(err)
			}
			info, err := bufio.NewReader(conn).ReadString('\n')
			conn.Close()
			if came := strings.HasPrefix(info, "INFO {"); came != (certs != nil) {
				t.Errorf("a route of %s, with %d certificates: %q, %v", cfg.Name, len(certs), info, err)
			}
		}
	}
}

func TestUsers(t *testing.T) {
	c := Start(t, 1, Users(
		embedded.User{Name: "writer", Publish: []string{"a.>"}, Subscribe: []string{InboxPrefix("writer") + ".>"}},
		embedded.User{Name: "answerer", Subscribe: []string{"q"}, AllowResponses: true},
	))
	refused := make(chan error, 1)
	nc := c.ConnectAs(t, "writer", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	sub, err := c.Connect(t).SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	Eventually(t, Deadline, "an allowed message arrives", func() (bool, string) {
		if err := nc.Publish("a.1", nil); err != nil {
			return false, err.Error()
		}
		m, err := sub.NextMsg(50 * time.Millisecond)
		return err == nil && m.Subject == "a.1", errText(err)
	})
	if err := nc.Publish("b.1", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-refused:
		t.Log(err)
	case <-time.After(Deadline):
		t.Error("b.1 was not refused")
	}
	if _, err := nats.Connect(c.URL()); err == nil {
		t.Error("connected without a key")
	}

	answerer := c.ConnectAs(t, "answerer")
	if _, err := answerer.Subscribe("q", func(m *nats.Msg) { _ = m.Respond(nil) }); err != nil {
		t.Fatal(err)
	}
	if err := answerer.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Connect(t).RequestWithContext(Context(t), "q", nil); err != nil {
		t.Errorf("the answer to a request: %v", err)
	}
}

func TestNothingIsLeft(t *testing.T) {
	t.Run("cluster", func(t *testing.T) {
		c := Start(t, 3)
		js := c.JetStream(t)
		if _, err := js.CreateStream(Context(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3}); err != nil {
			t.Fatal(err)
		}
	})
	goleak.VerifyNone(t)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
