package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/service"
	topology "github.com/riskweir/riskweir/jetstream"
)

const doctorHelp = `Say whether a cluster will do, and what mends what does not.

Exit status: 0 it will do, 1 it will not, 2 it could not be reached.

Example: riskweir doctor --context prod --monitor http://127.0.0.1:8222`

// Needs of Riskweir: atomic batches with an "end of batch" came with API level 4 (server 2.14).
const needAPILevel = 4

type verdict string

const (
	good    verdict = "ok"
	warning verdict = "warn"
	bad     verdict = "bad"
	unseen  verdict = "cannot see it"
)

// finding is one line of the doctor's report.
type finding struct {
	Check   string  `json:"check"`
	Verdict verdict `json:"verdict"`
	Saw     string  `json:"saw"`
	Mend    string  `json:"mend,omitempty"`
}

func (a *app) doctor(cmd *fisk.CmdClause) {
	var connect service.Connection
	var monitor string
	var asJSON bool
	connect.Flags(cmd)
	cmd.Flag("monitor", "A node's monitoring address, for what clients cannot see: fsync mode, free disk").PlaceHolder("URL").StringVar(&monitor)
	cmd.Flag("json", "Report as JSON").UnNegatableBoolVar(&asJSON)
	a.run(cmd, func(ctx context.Context) error {
		return a.operation(ctx, connect, func(js natsjs.JetStream) error {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			findings := examine(ctx, js, monitor)
			if err := writeFindings(a.out, findings, asJSON); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == bad {
					return errBroken
				}
			}
			return nil
		})
	})
}

func writeFindings(w io.Writer, findings []finding, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(findings)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-14s %-12s %s\n", f.Verdict, f.Check, f.Saw); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(w, "%-27s -> %s\n", "", f.Mend); err != nil {
				return err
			}
		}
	}
	return nil
}

func examine(ctx context.Context, js natsjs.JetStream, monitor string) []finding {
	conn := js.Conn()
	findings := []finding{examineServer(conn)}
	info, err := js.AccountInfo(ctx)
	if err != nil {
		return append(findings, finding{"jetstream", bad, err.Error(), "enable JetStream in the servers' config and for this account"})
	}
	level := finding{"api level", good, fmt.Sprintf("%d", info.API.Level), ""}
	if info.API.Level < needAPILevel {
		level.Verdict, level.Mend = bad, fmt.Sprintf("nats-server 2.14 or later on every node: atomic batches need API level %d", needAPILevel)
	}
	findings = append(findings, level, examineStore(info), examinePeers(ctx, js), examineClock(ctx, conn), examineTopology(ctx, js))
	findings = append(findings, examinePermissions(ctx, js)...)
	return append(findings, examineVarz(ctx, monitor)...)
}

func examineServer(conn *nats.Conn) finding {
	v := conn.ConnectedServerVersion()
	f := finding{"server", good, v + " " + conn.ConnectedServerName(), ""}
	parts := strings.SplitN(v, ".", 3)
	major, _ := strconv.Atoi(parts[0])
	minor := 0
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	if major < 2 || major == 2 && minor < 14 {
		f.Verdict, f.Mend = bad, "nats-server 2.14 or later; the figures in the docs are of 2.15.2"
	}
	return f
}

func examineStore(info *natsjs.AccountInfo) finding {
	if info.Limits.MaxStore < 0 {
		return finding{"store", warning, fmt.Sprintf("%d MiB used, no limit for this account", info.Store>>20),
			"set the account's disk limit below what the disks hold: a full limit is an error to a publisher, a full disk stops JetStream"}
	}
	left := uint64(info.Limits.MaxStore) - min(info.Store, uint64(info.Limits.MaxStore))
	f := finding{"store", good, fmt.Sprintf("%d of %d MiB left for this account", left>>20, info.Limits.MaxStore>>20), ""}
	if left*10 < uint64(info.Limits.MaxStore) {
		f.Verdict, f.Mend = bad, "raise the account's disk limit, or shorten the retention of a kind"
	}
	return f
}

// examinePeers looks at the replicas of a stream that every Riskweir has.
func examinePeers(ctx context.Context, js natsjs.JetStream) finding {
	if js.Conn().ConnectedClusterName() == "" {
		return finding{"peers", warning, "a single node", "a cluster of three nodes survives the loss of one; this one survives none"}
	}
	s, err := js.Stream(ctx, "KV_KINDS")
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		return finding{"peers", unseen, "no stream of Riskweir yet", "riskweir topology apply, then ask again"}
	}
	if err != nil {
		return finding{"peers", bad, err.Error(), "are two of three nodes up?"}
	}
	c := s.CachedInfo().Cluster
	if c == nil {
		return finding{"peers", unseen, "the server does not say", ""}
	}
	current := 1
	for _, r := range c.Replicas {
		if r.Current && !r.Offline {
			current++
		}
	}
	f := finding{"peers", good, fmt.Sprintf("%d of %d replicas current, %s leads", current, len(c.Replicas)+1, c.Leader), ""}
	switch {
	case len(c.Replicas) < 2:
		f.Verdict, f.Mend = warning, "riskweir topology apply --replicas 3 on a cluster of three nodes"
	case current < 3:
		f.Verdict, f.Mend = bad, "bring the missing node back: the loss of another one stops the streams"
	}
	return f
}

// examineClock compares the server's clock to ours, by the time that it stamps on an answer.
func examineClock(ctx context.Context, conn *nats.Conn) finding {
	before := time.Now()
	msg, err := conn.RequestWithContext(ctx, "$JS.API.STREAM.INFO.KV_KINDS", nil)
	after := time.Now()
	var reply struct {
		Now time.Time `json:"ts"`
	}
	if err != nil || json.Unmarshal(msg.Data, &reply) != nil || reply.Now.IsZero() {
		return finding{"clock", unseen, "the server's answer has no time", "compare 'date' on the machines"}
	}
	middle := before.Add(after.Sub(before) / 2)
	offset := reply.Now.Sub(middle)
	f := finding{"clock", good, fmt.Sprintf("the server is %s off, to within %s", offset.Round(time.Millisecond), (after.Sub(before) / 2).Round(time.Millisecond)), ""}
	if offset.Abs() > time.Second {
		f.Verdict, f.Mend = warning, "run NTP: correctness does not depend on clocks, but latencies and alarms do"
	}
	return f
}

func examineTopology(ctx context.Context, js natsjs.JetStream) finding {
	changes, err := planAll(ctx, js, topology.Options{})
	switch {
	case err != nil:
		return finding{"topology", bad, err.Error(), "riskweir topology plan"}
	case len(changes) > 0:
		return finding{"topology", bad, fmt.Sprintf("%d difference(s), the first: %s", len(changes), changes[0]), "riskweir topology plan, then riskweir topology apply"}
	}
	return finding{"topology", good, "as it should be", ""}
}

// examinePermissions tries what provisioning needs, on names that nothing has.
func examinePermissions(ctx context.Context, js natsjs.JetStream) []finding {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err := js.Stream(ctx, "RISKWEIR_DOCTOR_NO_SUCH_STREAM")
	if errors.Is(err, natsjs.ErrStreamNotFound) {
		return []finding{{"permissions", good, "this user may ask the JetStream API", ""}}
	}
	return []finding{{"permissions", bad, fmt.Sprintf("the JetStream API does not answer this user: %v", err), "give the operator's user $JS.API.> and its inbox; docs/operations.md has the table"}}
}

// examineVarz asks a node's monitoring port for what clients cannot see.
func examineVarz(ctx context.Context, monitor string) []finding {
	if monitor == "" {
		return []finding{
			{"fsync", unseen, "clients cannot ask for it", "--monitor http://HOST:8222, or look for 'sync_interval: always' in the servers' config"},
			{"disk", unseen, "clients cannot ask for it", "--monitor http://HOST:8222"},
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(monitor, "/")+"/varz", nil)
	if err != nil {
		return []finding{{"monitor", bad, err.Error(), "--monitor http://HOST:PORT"}}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return []finding{{"monitor", bad, err.Error(), "is the port the one of 'http' in that server's config?"}}
	}
	defer resp.Body.Close()
	var varz struct {
		JetStream struct {
			Config struct {
				MaxStore   int64 `json:"max_storage"`
				SyncAlways bool  `json:"sync_always"`
			} `json:"config"`
			Stats struct {
				Store uint64 `json:"storage"`
			} `json:"stats"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4<<20)).Decode(&varz); err != nil {
		return []finding{{"monitor", bad, "/varz: " + err.Error(), ""}}
	}
	sync := finding{"fsync", good, "always: what is acknowledged is on disk", ""}
	if !varz.JetStream.Config.SyncAlways {
		sync.Verdict, sync.Saw = bad, "not always: a power cut on a majority loses what was acknowledged"
		sync.Mend = "jetstream { sync_interval: always } in every server's config; with three replicas it costs little"
	}
	disk := finding{"disk", good, fmt.Sprintf("%d of %d MiB used on that node", varz.JetStream.Stats.Store>>20, varz.JetStream.Config.MaxStore>>20), ""}
	if int64(varz.JetStream.Stats.Store)*10 > varz.JetStream.Config.MaxStore*9 {
		disk.Verdict, disk.Mend = bad, "raise max_file_store, or shorten the retention of a kind"
	}
	return []finding{sync, disk}
}
