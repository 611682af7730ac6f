package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Roles of children.
const (
	RoleNode    = "node"
	RoleScorer  = "scorer"
	RoleIngest  = "ingest"
	RoleTrainer = "trainer"
	RoleMonitor = "monitor"
)

// Child is a process of the system.
type Child struct {
	Name string
	Role string
	PID  int // 0: it does not run
}

// System is what is broken. Its methods are called one at a time.
type System interface {
	Children() []Child
	Signal(name string, sig syscall.Signal) error
	// Stop ends children in order, Kill by SIGKILL, frozen ones too; both return when they have ended, and they stay down until Start.
	Stop(names ...string)
	Kill(names ...string)
	// Start starts children that are down; args are added to those that they had at first.
	Start(ctx context.Context, name string, args ...string) error
	// AddScorer starts one more scorer and returns its name.
	AddScorer(ctx context.Context) (string, error)
	// Limit sets how many bytes the streams may take on a node; 0: as at first. It holds once the nodes are started again.
	Limit(bytes int64) error
	// OwnDisk moves the store of a node that is down to a disk of its own with so many bytes free. With an error there may be a disk yet, which
	// is to be removed.
	OwnDisk(node string, free int64) (Disk, error)
	// Healthy says what is not as it should be: a node that does not run or is behind.
	Healthy(ctx context.Context) error
	MetaLeader(ctx context.Context) (string, error)
	// Apply applies the topology again.
	Apply(ctx context.Context) error
	// Usage is the memory of all processes and the disk space of all nodes, in bytes.
	Usage() (rss, disk int64)
}

// Cables are the connections that go through proxies; both may be empty.
type Cables struct {
	Routes map[[2]string][]*Proxy // between two nodes: by the names of both, the lesser first
	Scorer string                 // whose connections to the cluster these are
	Links  []*Proxy
}

// env is what a fault works with.
type env struct {
	System
	conn   *nats.Conn // of an operator
	js     jetstream.JetStream
	kind   string
	cables Cables

	lane *int // of the event that has to end as invalid; nil: there was none
}

// apiTimeout bounds one question to the cluster, patience the repeating of it: an election takes 4 to 9 s.
const (
	apiTimeout = 2 * time.Second
	patience   = 45 * time.Second
	settling   = 100 * time.Millisecond
)

// until repeats try until it succeeds.
func until(ctx context.Context, d time.Duration, try func(ctx context.Context) error) error {
	for end := time.Now().Add(d); ; {
		one, cancel := context.WithTimeout(ctx, apiTimeout)
		err := try(one)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		pause(ctx, settling)
	}
}

// names of the children of a role.
func (e *env) names(role string) []string {
	var out []string
	for _, c := range e.Children() {
		if c.Role == role {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return out
}

func pick(choice uint64, names []string) (string, error) {
	if len(names) == 0 {
		return "", errors.New("there is nothing to choose from")
	}
	return names[choice%uint64(len(names))], nil
}

func (e *env) pid(name string) int {
	for _, c := range e.Children() {
		if c.Name == name {
			return c.PID
		}
	}
	return 0
}

// streamLeader is the node that leads a stream.
func (e *env) streamLeader(ctx context.Context, stream string) (leader string, err error) {
	err = until(ctx, patience, func(ctx context.Context) error {
		s, err := e.js.Stream(ctx, stream)
		if err != nil {
			return err
		}
		if c := s.CachedInfo().Cluster; c != nil {
			leader = c.Leader
		}
		if leader == "" {
			return fmt.Errorf("%s has no leader", stream)
		}
		return nil
	})
	return leader, err
}

// laneConsumers are the consumers of the runs, with their nodes.
func (e *env) laneConsumers(ctx context.Context, stream string) (names, nodes []string, err error) {
	err = until(ctx, patience, func(ctx context.Context) error {
		names, nodes = nil, nil
		m, err := e.conn.RequestWithContext(ctx, "$JS.API.CONSUMER.LIST."+stream, nil)
		if err != nil {
			return err
		}
		var reply struct {
			Error     *jetstream.APIError `json:"error"`
			Consumers []struct {
				Name    string `json:"name"`
				Cluster struct {
					Leader string `json:"leader"`
				} `json:"cluster"`
			} `json:"consumers"`
		}
		if err := json.Unmarshal(m.Data, &reply); err != nil {
			return err
		}
		if reply.Error != nil {
			return reply.Error
		}
		for _, c := range reply.Consumers {
			if strings.HasPrefix(c.Name, "lane-") && c.Cluster.Leader != "" {
				names, nodes = append(names, c.Name), append(nodes, c.Cluster.Leader)
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("no lane reads %s", stream)
		}
		return nil
	})
	return names, nodes, err
}
