package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
)

// asMain makes this test binary be riskweir: 'up' starts its children by its own executable, which here is the tests'.
const asMain = "RISKWEIR_AS_MAIN"

func TestMain(m *testing.M) {
	if told := os.Getenv(asStranger); told != "" {
		os.Exit(strange(told))
	}
	if os.Getenv(asMain) != "" && !slices.Contains(os.Args, "-test.fuzzworker") {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(withEnvironment(m))
}

// withEnvironment keeps the tests out of the user's configuration, and the user's connection out of the tests.
func withEnvironment(m *testing.M) int {
	dir, err := os.MkdirTemp("", "riskweir-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(dir)
	for k, v := range map[string]string{asMain: "1", "XDG_CONFIG_HOME": dir, "XDG_DATA_HOME": filepath.Join(dir, "data")} {
		os.Setenv(k, v)
	}
	for _, k := range []string{"NATS_URL", "NATS_CONTEXT", "NATS_CREDS", "NATS_NKEY", "NATS_CERT", "NATS_KEY", "NATS_CA"} {
		os.Unsetenv(k)
	}
	return m.Run()
}

// long bounds what a loaded machine may take; only a broken thing meets it.
const long = 2 * time.Minute

// console is what a process has written so far.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *console) await(t *testing.T, what string) {
	t.Helper()
	testkit.Eventually(t, long, fmt.Sprintf("the output says %q", what), func() (bool, string) {
		s := c.String()
		return strings.Contains(s, what), s
	})
}

// portBase gives every system of these tests ports of its own, below those that outgoing connections get: a port
// that is free when 'up' looks must still be free when its child binds it.
var portBase atomic.Int64

func freePorts() (nats, http string) {
	n := portBase.Add(1)
	base := 10000 + (os.Getpid()%60)*200 + int(n)*10
	return strconv.Itoa(base), strconv.Itoa(base + 6000)
}

// process is a riskweir of its own.
type process struct {
	cmd      *exec.Cmd
	out, err console
	ended    chan struct{} // closed when code is set
	code     int
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startBinary(t, exe, args...)
}

// startBinary starts a riskweir that was built, or what runs one.
func startBinary(t *testing.T, exe string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(exe, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		var exit *exec.ExitError
		switch err := p.cmd.Wait(); {
		case errors.As(err, &exit):
			p.code = exit.ExitCode()
		case err != nil:
			p.code = -1
		}
	}()
	t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			children := childrenOf(t, p.pid())
			p.signal(t, syscall.SIGKILL)
			<-p.ended
			awaitEnd(t, children)
		}
		if t.Failed() {
			t.Logf("%s\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), p.out.String(), p.err.String())
		}
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatalf("signal %s: %v", s, err)
	}
}

func (p *process) wait(t *testing.T, within time.Duration) (code int) {
	t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(within):
		t.Fatalf("process did not end within %s; stderr:\n%s", within, p.err.String())
		return -1
	}
}

// riskweir runs to its end and returns what it printed.
func riskweir(t *testing.T, args ...string) (out, errOut string, code int) {
	t.Helper()
	return riskweirWithin(t, long, args...)
}

func riskweirWithin(t *testing.T, within time.Duration, args ...string) (out, errOut string, code int) {
	t.Helper()
	p := start(t, args...)
	code = p.wait(t, within)
	return p.out.String(), p.err.String(), code
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(t *testing.T, pid int) (children []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Skipf("this system has no /proc to find children in (%v)", err)
	}
	for _, file := range stats {
		if parent, state := parentOf(file); parent == pid && state != "Z" {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			children = append(children, child)
		}
	}
	return children
}

// parentOf reads /proc/<pid>/stat: pid (name) state parent ...
func parentOf(stat string) (parent int, state string) {
	text, err := os.ReadFile(stat)
	if err != nil {
		return -1, "" // ended meanwhile
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return -1, ""
	}
	parent, err = strconv.Atoi(fields[1])
	if err != nil {
		return -1, ""
	}
	return parent, fields[0]
}

// alive says whether a process runs; one that has ended and whose parent has not asked yet does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	_, state := parentOf(fmt.Sprintf("/proc/%d/stat", pid))
	return state != "Z"
}

// awaitEnd waits for processes to end by themselves.
func awaitEnd(t *testing.T, pids []int) {
	t.Helper()
	testkit.Eventually(t, long, "the children end", func() (bool, string) {
		var left []int
		for _, pid := range pids {
			if alive(pid) {
				left = append(left, pid)
			}
		}
		return len(left) == 0, fmt.Sprintf("still there: %v of %v", left, pids)
	})
}

// system is an 'up' in this process; its children are processes of their own.
type system struct {
	*upRun
	out    bytes.Buffer // read it after stop or wait
	status console
	cancel context.CancelFunc
	ended  chan struct{} // closed when err is set
	err    error
}

// up starts a system and returns when its services have been started.
func up(t *testing.T, c upConfig) *system {
	t.Helper()
	s := &system{ended: make(chan struct{})}
	nats, http := freePorts()
	c.natsPort, c.httpPort = atoi(t, nats), atoi(t, http)
	c.scorers, c.seed, c.context, c.logLevel, c.summary = 2, 1, "riskweir-"+nats, cmp.Or(c.logLevel, "info"), "json"
	if c.rate == 0 {
		c.rate = 400 / slow
	}
	if err := c.validate(); err != nil {
		t.Fatal(err)
	}
	s.upRun = &upRun{upConfig: c, out: &s.out, status: &s.status}
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	go func() {
		defer close(s.ended)
		s.err = s.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-s.ended:
		case <-time.After(long):
			t.Errorf("up did not end within %s", long)
		}
		nothingRefused(t, c.dir)
		if t.Failed() {
			t.Logf("status:\n%s\nsummary:\n%s", s.status.String(), s.out.String())
			tails(t, c.dir)
		}
	})
	testkit.Eventually(t, long, "the services are started", func() (bool, string) {
		select {
		case <-s.ended:
			t.Fatalf("up ended: %v", s.err)
		default:
		}
		text := s.status.String()
		return strings.Contains(text, "context  "), text
	})
	return s
}

// nothingRefused checks that each service could do all of its work under its own user.
func nothingRefused(t *testing.T, dir string) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Errorf("%d logs in %s, %v", len(logs), dir, err)
	}
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(strings.ToLower(line), "permissions violation") {
				t.Errorf("%s: %s", filepath.Base(file), line)
			}
		}
	}
}

// tails logs the end of every child's log.
func tails(t *testing.T, dir string) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(dir, "logs", "*.log"))
	for _, file := range logs {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Logf("%v", err)
			continue
		}
		t.Logf("%s:\n%s", filepath.Base(file), text[max(0, len(text)-3000):])
	}
}

func (s *system) wait(t *testing.T, within time.Duration) summary {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(within):
		t.Fatalf("up did not end within %s", within)
	}
	if s.err != nil {
		t.Fatalf("up: %v", s.err)
	}
	return decodeSummary(t, s.out.Bytes())
}

func decodeSummary(t *testing.T, text []byte) (s summary) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		t.Fatalf("summary %q: %v", text, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("summary %q: want one JSON object", text)
	}
	return s
}

// pids of the running children, by name.
func (s *system) pids() map[string]int {
	pids := map[string]int{}
	for _, c := range s.sup.Status() {
		if c.PID != 0 {
			pids[c.Name] = c.PID
		}
	}
	return pids
}

// kill is a kill -9 of one child; it returns when another process has taken its place.
func (s *system) kill(t *testing.T, name string) {
	t.Helper()
	old := s.pids()[name]
	if old == 0 {
		t.Fatalf("%s does not run", name)
	}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", name, err)
	}
	testkit.Eventually(t, long, name+" is started again", func() (bool, string) {
		now := s.pids()[name]
		return now != 0 && now != old, fmt.Sprint(s.sup.Status())
	})
}

// scored waits until so many more outcomes are committed.
func (s *system) scored(t *testing.T, more float64) {
	t.Helper()
	from := s.pulse.outcomes()
	testkit.Eventually(t, long, fmt.Sprintf("%.0f outcomes more than %.0f", more, from), func() (bool, string) {
		n := s.pulse.outcomes()
		return n >= from+more, fmt.Sprint(n)
	})
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
