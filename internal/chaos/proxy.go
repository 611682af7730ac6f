package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Direction of a link: Up from who dialled the proxy to the target.
type Direction int

const (
	Up Direction = iota
	Down
)

// Link is how a proxy treats one direction. The zero value passes everything on at once.
type Link struct {
	// Hold takes bytes in no more, and so neither end is told anything: a cut cable. What waits goes on when it is mended.
	Hold  bool
	Delay time.Duration // of every piece
	// Every n-th piece is passed on by half, and the connection is reset: 0: none.
	HalveEvery int
}

// Proxy stands between a client and a server of a TCP protocol.
type Proxy struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu     sync.Mutex
	links  [2]Link
	refuse bool
	turned chan struct{} // closed when links change or connections are reset
	conns  map[*net.TCPConn]struct{}
	closed bool
}

// NewProxy listens on a free port of the loopback for connections to target, host:port.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	return &Proxy{listener: l, target: target, turned: make(chan struct{}), conns: map[*net.TCPConn]struct{}{}}, nil
}

// Addr is host:port to connect to instead of the target.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Run serves until ctx ends; all its connections end with it.
func (p *Proxy) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, p.close)
	defer stop()
	defer p.wg.Wait()
	defer p.close()
	for {
		c, err := p.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("proxy to %s: %w", p.target, err)
		}
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.serve(ctx, c.(*net.TCPConn))
		}()
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.listener.Close()
	p.Reset()
}

// Set treats a direction so from now on.
func (p *Proxy) Set(d Direction, l Link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[d] = l
	p.turn()
}

// turn wakes who waits at a link, under mu.
func (p *Proxy) turn() {
	close(p.turned)
	p.turned = make(chan struct{})
}

// Refuse resets new connections, or takes them again.
func (p *Proxy) Refuse(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = yes
}

// Cut ends all connections and takes none, or mends everything. Held links are mended too.
func (p *Proxy) Cut(yes bool) {
	p.Refuse(yes)
	if yes {
		p.Reset()
		return
	}
	p.Set(Up, Link{})
	p.Set(Down, Link{})
}

// Reset ends all connections by RST.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		reset(c)
		delete(p.conns, c)
	}
	p.turn()
}

// reset makes the peer see ECONNRESET. Both calls fail on a closed connection only.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (p *Proxy) keep(c *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) forget(c *net.TCPConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Proxy) serve(ctx context.Context, client *net.TCPConn) {
	if !p.keep(client) {
		reset(client)
		return
	}
	defer p.forget(client)
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", p.target)
	if err != nil {
		reset(client) // the target is down: so is its proxy
		return
	}
	server := raw.(*net.TCPConn)
	if !p.keep(server) {
		reset(server)
		reset(client)
		return
	}
	defer p.forget(server)
	done := make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { p.pump(done, Up, server, client) })
	both.Go(func() { p.pump(done, Down, client, server) })
	ended := make(chan struct{})
	go func() { both.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	close(done)
	client.Close()
	server.Close()
	<-ended
}

// pump copies until one end ends, and then ends both.
func (p *Proxy) pump(done <-chan struct{}, d Direction, to, from *net.TCPConn) {
	buf := make([]byte, 32<<10)
	for pieces := 1; ; pieces++ {
		n, err := from.Read(buf)
		if n > 0 {
			l, ok := p.pass(done, d, from)
			if !ok {
				break
			}
			if l.HalveEvery > 0 && pieces%l.HalveEvery == 0 {
				_, _ = to.Write(buf[:n/2]) // the reset that follows is what both ends see
				break
			}
			if _, err := to.Write(buf[:n]); err != nil {
				break
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite() // a half-closed connection may yet answer
			return
		}
		if err != nil {
			break
		}
	}
	reset(to)
	reset(from)
}

// pass waits until the link lets a piece of from through; false: the connection has been reset meanwhile.
func (p *Proxy) pass(done <-chan struct{}, d Direction, from *net.TCPConn) (Link, bool) {
	var late <-chan time.Time
	for {
		p.mu.Lock()
		l, turned := p.links[d], p.turned
		_, alive := p.conns[from]
		p.mu.Unlock()
		switch {
		case !alive:
			return l, false
		case l.Hold:
		case l.Delay == 0 || late != nil:
			return l, true
		default:
			t := time.NewTimer(l.Delay)
			defer t.Stop()
			late = t.C
			select {
			case <-late:
			case <-done:
				return l, false
			}
			continue
		}
		select {
		case <-turned:
		case <-done:
			return l, false
		}
	}
}
