package ingest

import (
	"net"
	"sync"
)

// maxConns are open at once; the next waits in the system's queue. Each that says nothing is ended by its time-outs.
const maxConns = 4096

// narrow takes no more connections than there is room for.
type narrow struct {
	net.Listener
	room   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newNarrow(l net.Listener, most int) *narrow {
	return &narrow{Listener: l, room: make(chan struct{}, most), closed: make(chan struct{})}
}

func (n *narrow) Accept() (net.Conn, error) {
	select {
	case n.room <- struct{}{}:
	case <-n.closed:
		return nil, net.ErrClosed
	}
	c, err := n.Listener.Accept()
	if err != nil {
		<-n.room
		return nil, err
	}
	return &counted{Conn: c, leave: sync.OnceFunc(func() { <-n.room })}, nil
}

func (n *narrow) Close() error {
	n.once.Do(func() { close(n.closed) })
	return n.Listener.Close()
}

// counted gives its place back once.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}
