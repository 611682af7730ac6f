package testkit

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

// Half of a remote write that is lost.
type Half int

const (
	Request Half = iota // it never reaches the broker: failed and not applied
	Answer              // it does, and the answer never comes back: applied, but reported failed
)

func (h Half) String() string {
	if h == Request {
		return "not applied"
	}
	return "applied, answer lost"
}

// Halves of every remote write.
var Halves = []Half{Request, Answer}

// Courier stands on the wire between a client and node 0 and loses what it is told to, whatever library wrote it. Its methods may be
// called from any goroutine.
type Courier struct {
	addr   string
	target string

	mu    sync.Mutex
	rules []*rule
	lost  int
	conns map[net.Conn]struct{}
	ended bool
}

type rule struct {
	subject string // wildcards as in NATS
	half    Half
	left    int
	replies map[string]bool // whose answers are to be lost
}

// Courier is one to node 0, until the end of the test.
func (c *Cluster) Courier(t testing.TB) *Courier {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testkit: courier: %v", err)
	}
	k := &Courier{addr: l.Addr().String(), target: fmt.Sprintf("127.0.0.1:%d", c.cfgs[0].ClientPort), conns: map[net.Conn]struct{}{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return // closed below
			}
			wg.Go(func() { k.serve(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		k.mu.Lock()
		k.ended = true
		for conn := range k.conns {
			conn.Close()
		}
		k.mu.Unlock()
		wg.Wait()
	})
	return k
}

// Connect connects through the courier, until the end of the test.
func (k *Courier) Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("nats://"+k.addr, append([]nats.Option{nats.Name(t.Name()), nats.MaxReconnects(-1), nats.IgnoreDiscoveredServers()}, opts...)...)
	if err != nil {
		t.Fatalf("testkit: connect through the courier: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Lose loses the next n messages published to a subject, wildcards allowed, or the answers to them.
func (k *Courier) Lose(subject string, half Half, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rules = append(k.rules, &rule{subject: subject, half: half, left: n, replies: map[string]bool{}})
}

// Lost is how many messages have been lost.
func (k *Courier) Lost() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.lost
}

func (k *Courier) keep(c net.Conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ended {
		c.Close()
		return false
	}
	k.conns[c] = struct{}{}
	return true
}

func (k *Courier) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", k.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !k.keep(client) || !k.keep(server) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { carry(server, client, k.published); server.Close(); client.Close() })
	both.Go(func() { carry(client, server, k.delivered); server.Close(); client.Close() })
	both.Wait()
}

// carry copies protocol lines with their payloads, but for those that are lost, until an end closes.
func carry(to io.Writer, from io.Reader, lose func(verb, subject, reply string) bool) {
	in := bufio.NewReaderSize(from, 64<<10)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		verb := ""
		if len(f) > 0 {
			verb = strings.ToUpper(f[0])
		}
		subject, reply, size, ok := frame(verb, f)
		if !ok {
			if _, err := io.WriteString(to, line); err != nil {
				return
			}
			continue
		}
		body := make([]byte, size+2) // and CR LF
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if lose(verb, subject, reply) {
			continue
		}
		if _, err := to.Write(append([]byte(line), body...)); err != nil {
			return
		}
	}
}

// frame reads a line that a payload follows:
//
//	PUB <subject> [reply] <bytes>        HPUB <subject> [reply] <header bytes> <bytes>
//	MSG <subject> <sid> [reply] <bytes>  HMSG <subject> <sid> [reply] <header bytes> <bytes>
func frame(verb string, f []string) (subject, reply string, size int, ok bool) {
	fixed := map[string]int{"PUB": 3, "HPUB": 4, "MSG": 4, "HMSG": 5}[verb]
	if fixed == 0 || len(f) < fixed || len(f) > fixed+1 {
		return "", "", 0, false
	}
	if len(f) == fixed+1 {
		reply = f[2]
		if strings.HasSuffix(verb, "MSG") {
			reply = f[3]
		}
	}
	size, err := strconv.Atoi(f[len(f)-1])
	return f[1], reply, size, err == nil && size >= 0
}

// published says whether a message of the client is lost.
func (k *Courier) published(_, subject, reply string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.rules {
		if r.left == 0 || !matches(r.subject, subject) || r.half == Answer && reply == "" {
			continue
		}
		r.left--
		if r.half == Request {
			k.lost++
			return true
		}
		r.replies[reply] = true
		return false
	}
	return false
}

// delivered says whether a message to the client is lost.
func (k *Courier) delivered(_, subject, _ string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.rules {
		if r.replies[subject] {
			delete(r.replies, subject)
			k.lost++
			return true
		}
	}
	return false
}

// matches a subject by the wildcards of NATS.
func matches(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(s) > i
		case i >= len(s) || token != "*" && token != s[i]:
			return false
		}
	}
	return len(p) == len(s)
}
