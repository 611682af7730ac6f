// Package supervise keeps the child processes of 'riskweir up' alive: it starts them, starts what dies again with
// back-off, and stops them in order.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// State of a child.
type State string

const (
	Starting State = "starting"
	Up       State = "up"
	Down     State = "down" // died; will be started again
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Finished State = "finished" // a Once that did its work
	Failed   State = "failed"   // a Once that was given up
)

// Spec of a child: this same program, with Args.
type Spec struct {
	Name string
	Args []string
	Env  []string      // added to ours
	Log  string        // file that its output is appended to
	Stop time.Duration // between SIGTERM and SIGKILL
	Once bool          // it ends by itself: exit status 0 is the end of it
	// Tries of a Once that end by themselves in a row, after which it is given up; 0: it never is. An outage of the
	// others makes it fail too, so the back-off between them must outlast one.
	Tries int
}

// Status of a child, for people.
type Status struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	State    State     `json:"state"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"`
	LastExit string    `json:"last_exit,omitempty"`
}

// ParentFD is the descriptor on which a child sees its supervisor end, however that ends: it reads as closed.
const ParentFD = 3

const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// steady is how long a child has to live for its next death to count as the first.
	steady = 10 * time.Second
	// logLimit bounds a child's log; at a start beyond it the log is begun anew, with one old one kept.
	logLimit = 16 << 20
)

// backoff before the next start, after the n-th death in a row (n >= 1).
func backoff(n int) time.Duration { return min(firstBackoff<<min(n-1, 10), maxBackoff) }

// Supervisor owns its children. Every one of them has one goroutine, which Stop waits for.
type Supervisor struct {
	exe string

	mu       sync.Mutex
	children map[string]*child
	order    []string
}

type child struct {
	spec   Spec
	cancel context.CancelFunc
	done   chan struct{}

	// Owned by Supervisor.mu.
	status  Status
	process *os.Process    // of the latest life
	end     syscall.Signal // by which it is stopped
	killAt  time.Time      // should it not end by that; zero: Spec.Stop later
}

// New supervises children that are the program exe.
func New(exe string) *Supervisor { return &Supervisor{exe: exe, children: map[string]*child{}} }

// Start runs the child until Stop or Kill, after which it may be started again, with another Spec too. ctx bounds
// nothing but the start.
func (s *Supervisor) Start(ctx context.Context, spec Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	restarts := 0
	if before := s.children[spec.Name]; before != nil {
		if before.status.State != Stopped {
			return fmt.Errorf("child %s runs already", spec.Name)
		}
		restarts = before.status.Restarts
	} else {
		s.order = append(s.order, spec.Name)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &child{spec: spec, cancel: cancel, done: make(chan struct{}), end: syscall.SIGTERM,
		status: Status{Name: spec.Name, State: Starting, Since: time.Now(), Restarts: restarts}}
	s.children[spec.Name] = c
	go func() {
		defer close(c.done)
		s.keep(ctx, c)
	}()
	return nil
}

// keep runs the child again and again until ctx ends.
func (s *Supervisor) keep(ctx context.Context, c *child) {
	deaths, failures := 0, 0 // in a row; of failures it was not killed
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx, c)
		if ctx.Err() != nil {
			break
		}
		if c.spec.Once && err == nil {
			s.set(c, func(st *Status) { st.State, st.PID, st.Since = Finished, 0, time.Now() })
			return
		}
		if time.Since(began) > steady {
			deaths, failures = 0, 0
		}
		deaths++
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
			failures++
		}
		if c.spec.Once && c.spec.Tries > 0 && failures >= c.spec.Tries {
			s.set(c, func(st *Status) { st.State, st.PID, st.Since, st.LastExit = Failed, 0, time.Now(), exitText(err) })
			return
		}
		s.set(c, func(st *Status) {
			st.State, st.PID, st.Since, st.LastExit = Down, 0, time.Now(), exitText(err)
			st.Restarts++
		})
		select {
		case <-time.After(backoff(deaths)):
		case <-ctx.Done():
		}
	}
	s.set(c, func(st *Status) { st.State, st.PID, st.Since = Stopped, 0, time.Now() })
}

// once runs the child one time. It is a process group of its own, so that a Ctrl-C reaches only us, who stop it in order.
func (s *Supervisor) once(ctx context.Context, c *child) error {
	log, err := openLog(c.spec.Log)
	if err != nil {
		return err
	}
	defer log.Close()
	alive, ours, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer ours.Close()
	cmd := exec.Command(s.exe, c.spec.Args...)
	cmd.Env = append(os.Environ(), c.spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	alive.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.spec.Name, err)
	}
	s.set(c, func(st *Status) { st.State, st.PID, st.Since, c.process = Up, cmd.Process.Pid, time.Now(), cmd.Process })
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	c.status.State = Stopping
	end, grace := c.end, c.spec.Stop
	if !c.killAt.IsZero() {
		grace = min(grace, time.Until(c.killAt))
	}
	s.mu.Unlock()
	err = cmd.Process.Signal(end)
	kill := time.NewTimer(grace)
	defer kill.Stop()
	select {
	case <-exited:
		return nil
	case <-kill.C:
	}
	return errors.Join(err, cmd.Process.Kill(), <-exited)
}

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("turn the log over: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (s *Supervisor) set(c *child, f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&c.status)
}

// Status of all children, in the order in which they were started.
func (s *Supervisor) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.order))
	for _, name := range s.order {
		out = append(out, s.children[name].status)
	}
	return out
}

// Signal sends sig to the child's process as it runs now. One that dies of it is started again.
func (s *Supervisor) Signal(name string, sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.children[name]
	if c == nil || c.status.PID == 0 {
		return fmt.Errorf("signal %s: child %s does not run", sig, name)
	}
	if err := c.process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s to child %s: %w", sig, name, err)
	}
	return nil
}

// Stop ends the named children together and returns when they have ended.
func (s *Supervisor) Stop(names ...string) { s.end(syscall.SIGTERM, time.Time{}, names) }

// StopBy is Stop, but children that have not ended by then are killed, whatever grace their Spec gives.
func (s *Supervisor) StopBy(at time.Time, names ...string) { s.end(syscall.SIGTERM, at, names) }

// Kill ends the named children together by SIGKILL, frozen ones too, and returns when they have ended. Unlike
// one that is killed from outside, they stay down until Start.
func (s *Supervisor) Kill(names ...string) { s.end(syscall.SIGKILL, time.Time{}, names) }

func (s *Supervisor) end(by syscall.Signal, killAt time.Time, names []string) {
	var stopping []*child
	s.mu.Lock()
	for _, name := range names {
		if c := s.children[name]; c != nil {
			c.end, c.killAt = by, killAt
			stopping = append(stopping, c)
		}
	}
	s.mu.Unlock()
	for _, c := range stopping {
		c.cancel()
	}
	for _, c := range stopping {
		<-c.done
	}
}

// Orphaned returns a context that ends when the supervisor of this process ends, however it does. In a process
// without a supervisor it is ctx.
func Orphaned(ctx context.Context, supervised bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if !supervised {
		return ctx, cancel
	}
	parent := os.NewFile(ParentFD, "supervisor")
	go func() {
		// It ends with the process: nothing can interrupt this read but the supervisor's end.
		_, _ = io.Copy(io.Discard, parent)
		cancel()
	}()
	return ctx, cancel
}
