package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Disk of a node alone.
type Disk interface {
	Fill() error                    // takes what is free
	Throttle(pid, writes int) error // lets a process write so many times a second
	Release() error                 // undoes Throttle
	Remove() error                  // moves the store back; the node must be down
}

const (
	diskFree   = 512 << 20 // above what the store takes when it is moved: more than comes while that lasts and while it is held, at 6 MB a second
	slowWrites = 20        // a second; an fsync takes two or more
)

// onOwnDisk moves a node's store to a disk of its own, which is then broken, and moves it back to mend that.
func onOwnDisk(choose chooser, how func(ctx context.Context, e *env, d Disk, node string) error) injector {
	return func(ctx context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
		node, err := choose(ctx, e, choice)
		if err != nil {
			return "", nil, err
		}
		e.Stop(node)
		d, err := e.OwnDisk(node, diskFree)
		if d == nil {
			return node, func(ctx context.Context) error { return e.Start(ctx, node) }, fmt.Errorf("give %s a disk of its own: %w", node, err)
		}
		mend := func(ctx context.Context) error {
			if err := d.Release(); err != nil {
				return fmt.Errorf("the disk of %s: %w", node, err)
			}
			e.Stop(node) // a node that met with a full disk has given JetStream up until it is started again
			if err := d.Remove(); err != nil {
				return fmt.Errorf("the disk of %s: %w", node, err)
			}
			return e.Start(ctx, node)
		}
		if err != nil {
			return node, mend, fmt.Errorf("move the store of %s: %w", node, err)
		}
		if err := e.Start(ctx, node); err != nil {
			return node, mend, err
		}
		if err := until(ctx, recovery, e.Healthy); err != nil {
			return node, mend, fmt.Errorf("on its own disk: %w", err)
		}
		return node, mend, how(ctx, e, d, node)
	}
}

func fillDisk(_ context.Context, _ *env, d Disk, _ string) error { return d.Fill() }

// stepDown is how long a stream is given to be led by another node: an election takes up to 9 s, a handover much less.
const stepDown = 3 * time.Second

// slowDisk makes the node lead SCORES again: of one that follows nobody would notice.
func slowDisk(ctx context.Context, e *env, d Disk, node string) error {
	stream := events.ScoresStream(e.kind)
	asked := time.Time{}
	err := until(ctx, patience, func(ctx context.Context) error {
		leader, err := e.streamLeader(ctx, stream)
		if err != nil || leader == node {
			return err
		}
		if time.Since(asked) > stepDown { // asked sooner again, it would take the lead away from whoever is taking it
			asked = time.Now()
			if _, err := e.conn.RequestWithContext(ctx, "$JS.API.STREAM.LEADER.STEPDOWN."+stream, fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, node)); err != nil {
				return err
			}
		}
		return fmt.Errorf("%s is led by %s", stream, leader)
	})
	if err != nil {
		return fmt.Errorf("let %s lead: %w", node, err)
	}
	return d.Throttle(e.pid(node), slowWrites)
}

// stutter stops and continues a node by turns: it has two fifths of the time, as on a machine that others take.
func stutter(_ context.Context, e *env, choice uint64) (string, func(context.Context) error, error) {
	const still, running = 150 * time.Millisecond, 100 * time.Millisecond
	node, err := pick(choice, e.names(RoleNode))
	if err != nil {
		return "", nil, err
	}
	pid := e.pid(node)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var failed error // by the goroutine; read when it has ended
	wg.Go(func() {
		for i := 0; failed == nil; i++ {
			sig, d := syscall.SIGSTOP, still
			if i%2 == 1 {
				sig, d = syscall.SIGCONT, running
			}
			failed = syscall.Kill(pid, sig)
			t := time.NewTimer(d)
			select {
			case <-stop:
				t.Stop()
				failed = syscall.Kill(pid, syscall.SIGCONT)
				return
			case <-t.C:
			}
		}
	})
	return node, func(context.Context) error { close(stop); wg.Wait(); return failed }, nil
}

// NeedsDisk says which faults want a disk for a node alone, which not every machine gives.
func NeedsDisk(name string) bool {
	return slices.ContainsFunc(catalogue(), func(f fault) bool { return f.Name == name && f.needs&needDisk != 0 })
}
