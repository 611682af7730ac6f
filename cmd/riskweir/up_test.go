package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/internal/verify"
	"github.com/riskweir/riskweir/pkg/events"
)

// The fields that whoever reads the summary counts on.
func TestUpForSummary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nats, http := freePorts()
	out, errOut, code := riskweir(t, "up", "--nodes", "1", "--for", "8s", "--rate", strconv.Itoa(500/slow), "--fresh", "--dir", dir,
		"--nats-port", nats, "--http-port", http, "--context-name", "", "--summary", "json")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, errOut)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	for _, name := range []string{"events", "scored", "invalid", "missing", "duplicate", "disorder", "model_versions",
		"latency_p50_ms", "latency_p99_ms", "events_per_second", "restarts"} {
		if _, ok := fields[name].(float64); !ok {
			t.Errorf("summary has %s %v, want a number", name, fields[name])
		}
	}
	s := decodeSummary(t, []byte(out))
	if !s.OK || s.Events < 100 || s.Scored != s.Events || s.Missing+s.Duplicate+s.Disorder+s.Invalid != 0 || s.Restarts != 0 {
		t.Errorf("%+v", s)
	}
	if s.EventsPerSecond < 5 || *s.LatencyP50Ms <= 0 || *s.LatencyP99Ms < *s.LatencyP50Ms {
		t.Errorf("rate %v, latencies %v and %v", s.EventsPerSecond, *s.LatencyP50Ms, *s.LatencyP99Ms)
	}
	for file, mode := range map[string]os.FileMode{"keys": 0o700, "keys/operator.nk": 0o600, "keys/scorer.nk": 0o600, "n1.json": 0o600, "riskweir.json": 0o600,
		"tls": 0o700, "tls/ca-key.pem": 0o600, "tls/n1-key.pem": 0o600, "users": 0o700} {
		if info, err := os.Stat(filepath.Join(dir, file)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", file, info, err, mode)
		}
	}
}

// Two lives of one directory, and what is refused between and during them.
func TestUpGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	began := time.Now()
	first := up(t, upConfig{nodes: 1, source: "sim", dir: dir})
	first.scored(t, 1)
	t.Logf("measured: up -> first score known %s", time.Since(began).Round(time.Millisecond))

	_, errOut, code := riskweir(t, "up", "--nodes", "1", "--dir", dir)
	if code != 2 || !strings.Contains(errOut, "in use by another 'riskweir up'") {
		t.Errorf("a second up: exit status %d, %q", code, errOut)
	}

	champion := awaitChampion(t, first)
	t.Logf("measured: up -> first model in force %s", time.Since(began).Round(time.Millisecond))
	children := slices.Collect(maps.Values(first.pids()))
	if want := 6; len(children) < want { // node, ingest, two scorers, trainer, source
		t.Errorf("%d children, want at least %d", len(children), want)
	}
	stopping := time.Now()
	first.cancel()
	s1 := first.wait(t, long)
	t.Logf("measured: Ctrl-C -> end, one node: %s", time.Since(stopping).Round(time.Millisecond))
	awaitEnd(t, children)
	if s1.ModelVersions < 1 || s1.Champion != champion {
		t.Errorf("%+v, want the champion %s", s1, champion)
	}

	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"--nodes", "3"}, "holds the data of 1 nodes, and --nodes is 3"},
		{[]string{"--nodes", "1", "--lanes", "4"}, "kind payment has 8 lanes, not 4: another number would send entities to other lanes"},
	} {
		nats, http := freePorts()
		began := time.Now()
		_, errOut, code := riskweir(t, slices.Concat([]string{"up", "--dir", dir, "--nats-port", nats, "--http-port", http, "--context-name", ""}, x.args)...)
		if code != 2 || !strings.Contains(errOut, x.want) {
			t.Errorf("%v: exit status %d, %q, want %q", x.args, code, errOut, x.want)
		}
		t.Logf("%v refused after %s", x.args, time.Since(began).Round(time.Millisecond))
	}

	second := up(t, upConfig{nodes: 1, source: "sim", dir: dir})
	second.scored(t, 500)
	report, err := verify.Run(t.Context(), verify.Config{JS: second.js, Kind: "payment", Wait: long})
	if err != nil || !report.OK() || float64(report.Events) < first.pulse.outcomes()+500 {
		t.Errorf("after\n%+v\ncomes\n%v, %v, %q", s1, report, err, report.Offenders)
	}
	all := scores(t, second, "payment")
	life := all[len(all)-1].ID
	life = life[:strings.LastIndexByte(life, '-')] // the simulation's runs have ids of their own
	for _, score := range all {
		if strings.HasPrefix(score.ID, life) && (score.Mode != events.ModeModel || score.Model < champion) {
			t.Fatalf("the first score of the second life is %+v, want one of %s or later", score, champion)
		}
	}
}

// awaitChampion returns when a model scores.
func awaitChampion(t *testing.T, s *system) (champion string) {
	t.Helper()
	js := s.js
	testkit.Eventually(t, long, "a score is made with a model", func() (bool, string) {
		score, err := lastScore(t, js, "payment")
		if err != nil {
			return false, err.Error()
		}
		champion = score.Model
		return score.Mode == events.ModeModel && champion != "", fmt.Sprintf("%+v", score)
	})
	return champion
}

// lastScore of a kind that was committed.
func lastScore(t *testing.T, js natsjs.JetStream, kind string) (events.Score, error) {
	t.Helper()
	stream, err := js.Stream(t.Context(), events.ScoresStream(kind))
	if err != nil {
		return events.Score{}, err
	}
	msg, err := stream.GetLastMsgForSubject(t.Context(), "scores."+kind+".>")
	if err != nil {
		return events.Score{}, err
	}
	return events.DecodeScore(msg.Data)
}

// scores of a kind that are committed now, in the order of their commits.
func scores(t *testing.T, s *system, kind string) (all []events.Score) {
	t.Helper()
	ctx := testkit.Context(t)
	c, err := s.js.OrderedConsumer(ctx, events.ScoresStream(kind), natsjs.OrderedConsumerConfig{FilterSubjects: []string{"scores." + kind + ".>"}})
	if err != nil {
		t.Fatal(err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Stop()
	for range info.NumPending {
		msg, err := in.Next(natsjs.NextContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		score, err := events.DecodeScore(msg.Data())
		if err != nil {
			t.Fatalf("%s: %v", msg.Subject(), err)
		}
		all = append(all, score)
	}
	return all
}

func TestUpSurvivesKills(t *testing.T) {
	t.Parallel()
	s := up(t, upConfig{nodes: 3, source: "sim", dir: t.TempDir()})
	s.scored(t, 200)
	s.kill(t, "scorer-1")
	s.scored(t, 200)
	s.kill(t, "n2")
	s.scored(t, 200)
	report, err := verify.Run(t.Context(), verify.Config{JS: s.js, Kind: "payment", Wait: long})
	if err != nil || !report.OK() || report.Events < 600 || report.Scored != report.Events {
		t.Errorf("%v, %v, %q", report, err, report.Offenders)
	}
	children := slices.Collect(maps.Values(s.pids()))
	s.cancel()
	sum := s.wait(t, long)
	awaitEnd(t, children)
	if sum.Restarts < 2 || sum.Missing+sum.Duplicate+sum.Disorder != 0 {
		t.Errorf("%+v", sum)
	}
}

func TestUpInterrupted(t *testing.T) {
	t.Parallel()
	nats, http := freePorts()
	p := start(t, "up", "--nodes", "3", "--dir", t.TempDir(), "--nats-port", nats, "--http-port", http, "--context-name", "", "--rate", strconv.Itoa(400/slow))
	p.err.await(t, "  p50 ") // the first line of status with a latency: scores flow
	children := childrenOf(t, p.pid())
	if len(children) < 8 { // three nodes, ingest, two scorers, trainer, source
		t.Errorf("%d children", len(children))
	}
	began := time.Now()
	p.signal(t, syscall.SIGINT)
	code := p.wait(t, long)
	took := time.Since(began)
	t.Logf("measured: Ctrl-C -> end, three nodes: %s", took.Round(time.Millisecond))
	if took > slow*5*time.Second {
		t.Errorf("it took %s to end, want at most 5 s", took)
	}
	if code != 0 {
		t.Errorf("exit status %d", code)
	}
	if out := p.out.String(); !regexp.MustCompile(`(?s)ran [0-9.]+ s.*scored   [0-9]+ a second.*verify   `).MatchString(out) {
		t.Errorf("summary %q", out)
	}
	awaitEnd(t, children)
}

// Ctrl-C before it is up ends it too, and is no failure.
func TestUpInterruptedAtOnce(t *testing.T) {
	t.Parallel()
	nats, http := freePorts()
	dir := t.TempDir()
	p := start(t, "up", "--nodes", "3", "--dir", dir, "--nats-port", nats, "--http-port", http, "--context-name", "")
	testkit.Eventually(t, long, "a node has been started", func() (bool, string) {
		_, err := os.Stat(filepath.Join(dir, "logs", "n1.log"))
		return err == nil, fmt.Sprint(err)
	})
	children := childrenOf(t, p.pid())
	began := time.Now()
	p.signal(t, syscall.SIGINT)
	if code := p.wait(t, long); code != 0 || p.err.String() != "" {
		t.Errorf("exit status %d: %s", code, p.err.String())
	}
	if took := time.Since(began); took > slow*5*time.Second {
		t.Errorf("it took %s to end, want at most 5 s", took)
	}
	awaitEnd(t, children)
}

func TestChildrenEndWithTheirSupervisor(t *testing.T) {
	t.Parallel()
	nats, http := freePorts()
	p := start(t, "up", "--nodes", "1", "--dir", t.TempDir(), "--nats-port", nats, "--http-port", http, "--context-name", "", "--rate", "100")
	p.err.await(t, "http     ")
	// It may still be starting some: those that came after they were counted would not be waited for, and write into the directory as it is removed.
	testkit.Eventually(t, long, "the children are there", func() (bool, string) {
		n := len(childrenOf(t, p.pid()))
		return n >= 5, fmt.Sprintf("%d of them", n)
	})
	p.signal(t, syscall.SIGSTOP)
	children := childrenOf(t, p.pid())
	p.signal(t, syscall.SIGKILL)
	p.wait(t, long)
	began := time.Now()
	awaitEnd(t, children)
	t.Logf("measured: kill -9 of the supervisor -> all %d children ended: %s", len(children), time.Since(began).Round(time.Millisecond))
}

func TestFreshSparesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errOut, code := riskweir(t, "up", "--fresh", "--dir", dir)
	if code != 2 || !strings.Contains(errOut, "holds other things than a Riskweir system") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
	if text, err := os.ReadFile(letter); err != nil || string(text) != "dear" {
		t.Errorf("the letter is %q, %v", text, err)
	}
}

func TestUpRefusesFlags(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ args, want string }{
		{"--nodes 2", "--nodes 2: 1, or 3"},
		{"--scorers 0", "--scorers 0: want 1 to 64"},
		{"--lanes 51", "--lanes 51: want 1 to 50"},
		{"--rate 0", "--rate 0: want more than 0"},
		{"--rate NaN", "--rate NaN: want more than 0"},
		{"--until-done", "--until-done needs a file"},
		{"--for=-1s", "--for -1s: want a duration"},
		{"--source /no/such/file.csv", "--source: stat /no/such/file.csv"},
		{"--summary xml", "text,json"},
		{"--colour red", "unknown long flag"},
	} {
		_, errOut, code := riskweir(t, append([]string{"up", "--dir", t.TempDir(), "--context-name", ""}, strings.Fields(x.args)...)...)
		if code != 2 || !strings.Contains(errOut, x.want) {
			t.Errorf("%s: exit status %d, %q, want %q", x.args, code, errOut, x.want)
		}
	}
}
