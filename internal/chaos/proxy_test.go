package chaos

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// echo answers every byte with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with its connection, which the test closes
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func proxied(t *testing.T) (*Proxy, net.Conn) {
	t.Helper()
	p, err := NewProxy(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return p, dial(t, p)
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ask sends text and returns what comes back before the time is up.
func ask(t *testing.T, c net.Conn, text string, within time.Duration) (string, error) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	return listen(t, c, len(text), within)
}

func listen(t *testing.T, c net.Conn, n int, within time.Duration) (string, error) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, n)
	got, err := io.ReadFull(c, buf)
	return string(buf[:got]), err
}

const (
	ample = 20 * time.Second
	brief = 60 * time.Millisecond
)

func TestProxyPassesOn(t *testing.T) {
	_, c := proxied(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go c.Write(big) // its failure shows below
	if err := c.SetReadDeadline(time.Now().Add(ample)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(big))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, big) {
		t.Errorf("1 MiB through the proxy: %v", err)
	}
}

func TestProxyHoldsOneWay(t *testing.T) {
	for _, d := range []Direction{Up, Down} {
		p, c := proxied(t)
		if got, err := ask(t, c, "a", ample); got != "a" {
			t.Fatal(got, err)
		}
		p.Set(d, Link{Hold: true})
		if got, err := ask(t, c, "b", brief); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("direction %d is held: %q, %v", d, got, err)
		}
		p.Set(d, Link{})
		if got, err := listen(t, c, 1, ample); got != "b" {
			t.Errorf("what was held: %q, %v", got, err)
		}
		// One that is reset while it is held ends all the same.
		p.Set(d, Link{Hold: true})
		if _, err := io.WriteString(c, "c"); err != nil {
			t.Fatal(err)
		}
		p.Reset()
		if got, err := listen(t, c, 1, ample); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after Reset: %q, %v", got, err)
		}
	}
}

func TestProxyDelays(t *testing.T) {
	p, c := proxied(t)
	p.Set(Up, Link{Delay: 40 * time.Millisecond})
	p.Set(Down, Link{Delay: 30 * time.Millisecond})
	began := time.Now()
	got, err := ask(t, c, "x", ample)
	if took := time.Since(began); got != "x" || took < 70*time.Millisecond {
		t.Errorf("%q, %v after %s, want 70 ms at least", got, err, took)
	}
}

func TestProxyHalves(t *testing.T) {
	p, c := proxied(t)
	p.Set(Down, Link{HalveEvery: 2})
	if got, err := ask(t, c, "first", ample); got != "first" {
		t.Fatal(got, err)
	}
	got, err := ask(t, c, "seconds!", ample)
	if len(got) > 4 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%q, %v, want at most half of it, then an end", got, err)
	}
}

func TestProxyCut(t *testing.T) {
	p, c := proxied(t)
	if got, err := ask(t, c, "a", ample); got != "a" {
		t.Fatal(got, err)
	}
	p.Cut(true)
	if got, err := listen(t, c, 1, ample); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after the cut: %q, %v", got, err)
	}
	refused(t, p)
	p.Cut(false)
	if got, err := ask(t, dial(t, p), "c", ample); got != "c" {
		t.Errorf("once mended: %q, %v", got, err)
	}
}

func TestProxyOfNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	p, err := NewProxy(nobody)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	refused(t, p)
}

// refused says that a connection is reset, whether before it is made or after.
func refused(t *testing.T, p *Proxy) {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		return
	}
	defer c.Close()
	if got, err := ask(t, c, "b", ample); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a new connection: %q, %v", got, err)
	}
}
