package main

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/impact"
	"github.com/riskweir/riskweir/internal/replay"
)

// build of the command for an architecture.
type build struct {
	name string
	run  []string // the command that is it
}

// builds of the command that this machine can run: for amd64 of both ends, and for arm64 if there is an emulator.
func builds(t *testing.T) (native []build, foreign *build) {
	t.Helper()
	dir := t.TempDir()
	compile := func(name string, env ...string) string {
		exe := filepath.Join(dir, "riskweir-"+strings.ReplaceAll(name, " ", "-"))
		c := exec.Command("go", "build", "-o", exe, ".")
		c.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
		return exe
	}
	if runtime.GOARCH != "amd64" {
		t.Skipf("on %s: want amd64", runtime.GOARCH)
	}
	for _, level := range []string{"v1", "v3"} {
		exe := compile("amd64 "+level, "GOARCH=amd64", "GOAMD64="+level)
		if out, err := exec.Command(exe, "--version").CombinedOutput(); err != nil {
			t.Logf("NOT TRIED: GOAMD64=%s, which this processor does not run: %v, %s", level, err, out)
			continue
		}
		native = append(native, build{"GOAMD64=" + level, []string{exe}})
	}
	emulator, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Logf("NOT TRIED: arm64: %v (Debian: apt-get install qemu-user)", err)
		return native, nil
	}
	return native, &build{"arm64, emulated", []string{emulator, compile("arm64", "GOARCH=arm64")}}
}

func (b build) start(t *testing.T, args ...string) *process {
	return startBinary(t, b.run[0], append(slices.Clone(b.run[1:]), args...)...)
}

// promoteNewest puts the newest version in force, if that is not so already, and tells if it may not be.
func promoteNewest(t *testing.T, b build, user string) {
	t.Helper()
	list := b.start(t, "model", "list", "payment", "--json", "--context", user)
	var all []listed
	if code := list.wait(t, 5*time.Minute); code != 0 || json.Unmarshal([]byte(list.out.String()), &all) != nil || len(all) == 0 {
		t.Logf("no version to promote: status %d, %s%s", code, list.out.String(), list.err.String())
		return
	}
	newest := slices.MaxFunc(all, func(a, b listed) int { return cmp.Compare(a.Version, b.Version) })
	p := b.start(t, "model", "promote", "payment", "v"+strconv.Itoa(newest.Version), "--reason", "the newest", "--by", "ann", "--context", user)
	code := p.wait(t, 5*time.Minute)
	t.Logf("promote v%d: status %d, %s%s", newest.Version, code, p.out.String(), p.err.String())
}

// Scores that real scorers made, over restarts and promotions, of one build and of another, are what any build computes. RISKWEIR_REPLAY_SCORES says how
// many there should be at least, RISKWEIR_REPLAY_NODES on how many nodes (1 or 3).
func TestReplayOfRealScorers(t *testing.T) {
	want, err := strconv.ParseUint(cmp.Or(os.Getenv("RISKWEIR_REPLAY_SCORES"), "0"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if want == 0 {
		t.Skip("RISKWEIR_REPLAY_SCORES says how many scores to make and replay; a million takes ten minutes")
	}
	native, foreign := builds(t)
	nats, http := freePorts()
	dir := t.TempDir()
	const user = "replayed" // a context among the tests' own
	up := func(b build, args ...string) *process {
		return b.start(t, append([]string{"up", "--nodes", cmp.Or(os.Getenv("RISKWEIR_REPLAY_NODES"), "1"), "--dir", dir, "--nats-port", nats, "--http-port", http, "--context-name", user}, args...)...)
	}
	round := time.Minute
	if want < 200_000 {
		round = 20 * time.Second
	}
	scored := uint64(0)
	// Gates take their time, so from the second round on the newest version is put in force by hand. Of the last one there may be no score yet: with
	// four that were in force there are scores of three.
	inForce := map[string]bool{}
	for i := 0; i < 3 || scored < want || len(inForce) < 4; i++ {
		if i == 60 {
			t.Fatalf("%d scores after %d rounds, in force were %v", scored, i, inForce)
		}
		b := native[i%len(native)]
		p := up(b, "--rate", "6000", "--for", round.String(), "--seed", strconv.Itoa(i+1), "--summary", "json")
		if i > 0 {
			p.err.await(t, "http     ")
			promoteNewest(t, b, user)
		}
		code := p.wait(t, round+5*time.Minute)
		var sum struct {
			OK              bool
			Events, Scored  uint64
			Missing         uint64
			Duplicate       uint64
			Champion        string
			EventsPerSecond float64 `json:"events_per_second"`
		}
		if err := json.Unmarshal([]byte(p.out.String()), &sum); err != nil || code != 0 || !sum.OK {
			t.Fatalf("round %d of %s: status %d, %v\n%s", i+1, b.name, code, err, p.out.String())
		}
		scored = sum.Scored
		inForce[sum.Champion] = true
		t.Logf("round %d, made by %s: %d events, %d scored, %.0f a second; champion %s", i+1, b.name, sum.Events, sum.Scored, sum.EventsPerSecond, sum.Champion)
	}
	impactOf := func() (n uint64) {
		t.Helper()
		p := native[0].start(t, "model", "impact", "payment", "v1", "--json", "--context", user)
		var r impact.Report
		if code := p.wait(t, 30*time.Minute); code != 0 || json.Unmarshal([]byte(p.out.String()), &r) != nil {
			t.Fatalf("impact: status %d\n%s%s", code, p.out.String(), p.err.String())
		}
		return r.Outcomes
	}
	// The first version once more, beside the champion: what it decides for its share of the entities names it, and is its own.
	p := up(native[0], "--rate", "3000", "--for", round.String(), "--seed", "1000", "--summary", "json")
	p.err.await(t, "http     ")
	alone := impactOf()
	for _, x := range [][]string{{"shadow", "ann"}, {"canary", "bob"}} {
		verb := native[0].start(t, "model", x[0], "payment", "v1", "--reason", "replayed", "--by", x[1], "--context", user)
		if code := verb.wait(t, 5*time.Minute); code != 0 {
			t.Fatalf("%s: status %d\n%s%s", x[0], code, verb.out.String(), verb.err.String())
		}
	}
	if code := p.wait(t, round+5*time.Minute); code != 0 {
		t.Fatalf("the round with a canary: status %d\n%s%s", code, p.out.String(), p.err.String())
	}
	p = up(native[0], "--source", "none")
	p.err.await(t, "http     ")
	if beside := impactOf(); beside <= alone {
		t.Errorf("v1 made %d outcomes before it was a canary, and %d after", alone, beside)
	} else {
		t.Logf("as a canary v1 made %d outcomes more", beside-alone)
	}
	prove := func(b build, atLeast uint64, versions int, args ...string) {
		t.Helper()
		began := time.Now()
		p := b.start(t, append([]string{"replay", "payment", "--model", "all", "--assert-equal", "--json", "--context", user}, args...)...)
		code := p.wait(t, 30*time.Minute)
		var e replay.Equality
		if err := json.Unmarshal([]byte(p.out.String()), &e); err != nil {
			t.Fatalf("%s: status %d, %v\n%s%s", b.name, code, err, p.out.String(), p.err.String())
		}
		took := time.Since(began)
		resident := int64(0)
		if usage, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			resident = usage.Maxrss >> 10
		}
		t.Logf("replay by %s %s: %s, %d MiB resident\n%s", b.name, strings.Join(args, " "), took.Round(100*time.Millisecond), resident, e)
		delete(e.Models, "prior")
		if code != 0 || !e.OK() || e.Different != 0 || e.Not != 0 || e.Equal < atLeast || len(e.Models) < versions {
			t.Errorf("%s: status %d, %d versions: want %d equal, by %d versions", b.name, code, len(e.Models), atLeast, versions)
		}
	}
	for _, b := range native {
		prove(b, want, 3)
	}
	if foreign != nil {
		for _, from := range []int{int(scored / 2), int(scored) - 10_000} {
			prove(*foreign, 1000, 1, "--from", strconv.Itoa(from), "--to", strconv.Itoa(from+9_999))
		}
	}
	rescored := func() (r replay.Report) {
		t.Helper()
		p := native[0].start(t, "replay", "payment", "--model", "v1", "--against", "v2", "--publish", "--json", "--context", user)
		if code := p.wait(t, 30*time.Minute); code != 0 {
			t.Fatalf("publish: status %d\n%s", code, p.err.String())
		}
		if err := json.Unmarshal([]byte(p.out.String()), &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	began := time.Now()
	r := rescored()
	t.Logf("published %d rescores, and compared two versions, in %s\n%s", r.Published.N, time.Since(began).Round(100*time.Millisecond), r)
	if again := rescored(); r.Published.N != r.Scored || again.Published.N != 0 || again.Published.Before != r.Scored {
		t.Errorf("%d scored; published %+v, and again %+v", r.Scored, r.Published, again.Published)
	}
}
