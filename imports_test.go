package riskweir_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/riskweir/riskweir/"

// below are the rooms that stages stand upon.
var below = []string{"internal/service", "internal/certs", "internal/boost", "internal/lane", "internal/lease", "internal/feature", "internal/memory", "internal/recall", "internal/tail", "internal/model", "internal/source", "internal/poison", "internal/rollout", "internal/access", "jetstream", "pkg/events", "pkg/lr"}

// everything is what wires may take: all but commands, and what is for tests only.
var everything = append([]string{"internal/ingest", "internal/scorer", "internal/trainer", "internal/monitor",
	"internal/embedded", "internal/supervise", "internal/sim", "internal/verify", "internal/explain", "internal/replay", "internal/impact", "internal/audit", "internal/erase"}, below...)

// room is a package and what it may import of the project. Imports run one way: a row names rows above it only.
type room struct {
	name string
	may  []string
	why  string
}

var house = []room{
	{"pkg/events", nil, "it is the wire, which everything else speaks and users import"},
	{"pkg/lr", nil, "it is mathematics, which users import by itself"},
	{"pkg/lr/internal/race", []string{"pkg/lr"}, "it races what users import, from outside"},
	{"internal/sbom", nil, "it reads binaries, whatever is in them"},
	{"internal/embedded", nil, "a broker node knows nothing of what runs on it"},
	{"internal/certs", nil, "certificates are files, whoever shows them"},
	{"internal/source", nil, "rows of files mean nothing until a contract is laid upon them"},
	{"internal/supervise", nil, "it keeps any child process alive"},
	{"internal/lease", nil, "who leads is decided without knowing at what"},
	{"internal/poison", nil, "it does harm, and nothing else"},
	{"internal/service", []string{"pkg/events"}, "it is what every process does alike, so that it knows none of them"},
	{"jetstream", []string{"pkg/events"}, "streams are made of subjects and contracts, and do not know who reads them"},
	{"internal/lane", []string{"jetstream", "pkg/events"}, "owning, reading and committing are the same whatever an outcome is"},
	{"internal/feature", []string{"pkg/events", "pkg/lr"}, "event -> vector is pure: no broker, no model"},
	{"internal/boost", []string{"pkg/lr"}, "trees are mathematics, grown by the trainer and asked by the scorer"},
	{"internal/memory", []string{"internal/feature", "pkg/events"}, "what earlier events say is a pure function of them: no broker, no model"},
	{"internal/tail", nil, "a stream is read alike, whatever it holds"},
	{"internal/audit", []string{"internal/tail", "pkg/events"}, "who did what is kept alike, whatever was done"},
	{"internal/access", []string{"pkg/events"}, "who may call is the same whatever is called"},
	{"internal/recall", []string{"internal/memory", "internal/tail", "jetstream", "pkg/events"}, "scorers and trainers remember alike"},
	{"internal/rollout", []string{"pkg/lr"}, "who serves is decided purely: no broker, no artifact, no clock"},
	{"internal/model", []string{"internal/boost", "internal/feature", "internal/rollout", "jetstream", "pkg/events", "pkg/lr"}, "artifacts are trained and served alike, by stages that do not know each other"},
	{"internal/erase", []string{"internal/model", "jetstream", "pkg/events"}, "it removes what is stored, and asks no stage"},
	{"internal/sim", []string{"pkg/events"}, "it publishes as any stranger would, by the public package alone"},
	{"internal/verify", []string{"pkg/events"}, "a checker that shared code with what it checks would share its mistakes"},
	{"internal/explain", []string{"internal/feature", "internal/memory", "internal/model", "internal/recall", "jetstream", "pkg/events", "pkg/lr"}, "it computes again what a scorer did, and does not ask one"},
	{"internal/replay", []string{"internal/explain", "internal/feature", "internal/memory", "internal/model", "internal/recall", "internal/tail", "jetstream", "pkg/events", "pkg/lr"}, "it computes again what scorers did, and does not ask one"},
	{"internal/impact", []string{"internal/tail", "pkg/events"}, "it counts what is stored, and does not ask who stored it"},

	{"internal/ingest", below, "a stage meets other stages in streams and buckets only"},
	{"internal/scorer", below, "a stage meets other stages in streams and buckets only"},
	{"internal/trainer", below, "a stage meets other stages in streams and buckets only"},
	{"internal/monitor", below, "a stage meets other stages in streams and buckets only"},

	{"internal/bench", append([]string{"internal/trainer"}, below...), "it runs lanes with nothing between, and fits a model to measure with"},

	{"internal/dossier", []string{"internal/feature", "internal/model", "internal/trainer", "pkg/events", "pkg/lr"}, "a version is measured on the records that it would be trained on, made by the trainer's own join"},

	{"internal/command", append([]string{"internal/bench"}, everything...), "it turns flags into the Config of any service"},
	{"cmd/ingest", []string{"internal/command"}, "a service's command is its flags and its exit code"},
	{"cmd/scorer", []string{"internal/command"}, "a service's command is its flags and its exit code"},
	{"cmd/trainer", []string{"internal/command"}, "a service's command is its flags and its exit code"},
	{"cmd/monitor", []string{"internal/command"}, "a service's command is its flags and its exit code"},
	{"internal/chaos", []string{"internal/poison", "internal/sim", "internal/verify", "jetstream", "pkg/events"}, "it breaks processes and links from outside, and judges by what is stored"},
	{"cmd/riskweir", append([]string{"internal/command", "internal/dossier", "internal/chaos", "internal/bench"}, everything...), "it starts and operates all of it"},

	{"internal/testkit", []string{"internal/certs", "internal/embedded", "jetstream", "pkg/events"}, "it is a broker for tests"},
}

// forTests are what tests may import beside what their package may: a broker, streams on it, and simulated payments.
var forTests = []string{"internal/sim", "internal/testkit", "internal/certs", "internal/embedded", "jetstream", "pkg/events", "pkg/lr"}

// testsOnly may be imported by tests and by each other, never by what is shipped.
var testsOnly = []string{"internal/testkit"}

// guarded are modules that one package keeps from all others.
var guarded = []struct{ module, keeper, why string }{
	{"github.com/nats-io/nats-server", "internal/embedded", "the broker is a process beside ours, reached by its protocol; linked in, it would be in every service"},
	{"github.com/stretchr/testify", "", "tests are plain Go: a failure says what was wanted and what came"},
}

// emptyNames say nothing of what a package does.
var emptyNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "types", "models"}

// pkg is what 'go list -json' says of a package.
type pkg struct {
	ImportPath   string
	Name         string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// offences against the house rules, each a sentence.
func offences(pkgs []pkg, house []room) []string {
	var out []string
	say := func(format string, a ...any) { out = append(out, fmt.Sprintf(format, a...)) }
	rooms := map[string]room{}
	for i, r := range house {
		rooms[r.name] = r
		for _, to := range r.may {
			if !slices.ContainsFunc(house[:i], func(x room) bool { return x.name == to }) {
				say("the table lets %s import %s, which does not stand above it: imports run one way", r.name, to)
			}
			if strings.HasPrefix(r.name, "pkg/") && !strings.HasPrefix(to, "pkg/") {
				say("the table lets %s import %s: pkg is public, and may import pkg only", r.name, to)
			}
		}
	}
	present := map[string]bool{}
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		present[name] = true
		if slices.Contains(emptyNames, path.Base(name)) || slices.Contains(emptyNames, p.Name) {
			say("package %s: its name does not say what it does", name)
		}
		if p.ImportPath+"/" == module {
			continue // this test
		}
		r, known := rooms[name]
		if !known {
			say("package %s has no row in imports_test.go: add one that says what it may import, and why no more", name)
			continue
		}
		for _, to := range p.Imports {
			if why := forbidden(r, to, nil); why != "" {
				say("%s imports %s: %s", name, strings.TrimPrefix(to, module), why)
			}
		}
		for _, to := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := forbidden(r, to, forTests); why != "" {
				say("a test of %s imports %s: %s", name, strings.TrimPrefix(to, module), why)
			}
		}
	}
	for _, r := range house {
		if !present[r.name] {
			say("imports_test.go has a row for %s, and there is no such package", r.name)
		}
	}
	return out
}

func isTestsOnly(name string) bool { return slices.Contains(testsOnly, name) }

// forbidden says why from may not import the package to, or nothing. Tests may import more.
func forbidden(from room, to string, more []string) string {
	for _, g := range guarded {
		if (to == g.module || strings.HasPrefix(to, g.module+"/")) && from.name != g.keeper {
			return g.why
		}
	}
	name, ours := strings.CutPrefix(to, module)
	switch {
	case !ours, name == from.name, slices.Contains(more, name):
		return ""
	case strings.HasPrefix(name, "cmd/"):
		return "nothing imports a command"
	case isTestsOnly(name):
		return "it is for tests only, and this is shipped"
	case slices.Contains(from.may, name):
		return ""
	case len(from.may) == 0:
		return "it may import nothing of the project, since " + from.why
	}
	return fmt.Sprintf("it may import %s only, since %s", strings.Join(from.may, ", "), from.why)
}

func TestImportsRunOneWay(t *testing.T) {
	for _, o := range offences(list(t), house) {
		t.Error(o)
	}
}

// list is every package of the module, files behind the project's own build tags included.
func list(t *testing.T) []pkg {
	t.Helper()
	// The go command keeps the results of tests and does not see what another process reads: to look at every directory here
	// is what makes this test run again when a file has changed.
	if err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && len(name) > 1 && name[0] == '.' {
			return fs.SkipDir
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-tags=natscli,docs", "-json=ImportPath,Name,Imports,TestImports,XTestImports", "./...")
	text, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(text)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read the answer of go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages: it looked in the wrong place", len(pkgs))
	}
	return pkgs
}

// Each case is a house with one thing wrong with it, or with nothing.
func TestOffencesAreFound(t *testing.T) {
	rows := []room{
		{"pkg/events", nil, "it is the wire"},
		{"internal/embedded", nil, "it is a node"},
		{"internal/ingest", []string{"pkg/events"}, "stages meet in streams"},
		{"internal/scorer", []string{"pkg/events"}, "stages meet in streams"},
		{"cmd/scorer", []string{"internal/scorer"}, "it is a command"},
		{"internal/testkit", []string{"internal/embedded"}, "it is for tests"},
	}
	ours := func(names ...string) []string {
		for i := range names {
			names[i] = module + names[i]
		}
		return names
	}
	tests := []struct {
		name   string
		change func(p map[string]*pkg, house *[]room)
		want   string // the whole offence; empty: none
	}{
		{"nothing wrong", func(map[string]*pkg, *[]room) {}, ""},
		{"a stage imports another", func(p map[string]*pkg, _ *[]room) {
			p["internal/scorer"].Imports = ours("pkg/events", "internal/ingest")
		}, "internal/scorer imports internal/ingest: it may import pkg/events only, since stages meet in streams"},
		{"a stage's test imports another", func(p map[string]*pkg, _ *[]room) {
			p["internal/scorer"].XTestImports = ours("internal/ingest", "internal/scorer", "internal/testkit")
		}, "a test of internal/scorer imports internal/ingest: it may import pkg/events only, since stages meet in streams"},
		{"a leaf imports", func(p map[string]*pkg, _ *[]room) {
			p["pkg/events"].Imports = ours("internal/embedded")
		}, "pkg/events imports internal/embedded: it may import nothing of the project, since it is the wire"},
		{"a command is imported", func(p map[string]*pkg, _ *[]room) {
			p["internal/ingest"].TestImports = ours("cmd/scorer")
		}, "a test of internal/ingest imports cmd/scorer: nothing imports a command"},
		{"the test kit is shipped", func(p map[string]*pkg, _ *[]room) {
			p["cmd/scorer"].Imports = ours("internal/testkit")
		}, "cmd/scorer imports internal/testkit: it is for tests only, and this is shipped"},
		{"the server is linked in", func(p map[string]*pkg, _ *[]room) {
			p["internal/scorer"].Imports = []string{"github.com/nats-io/nats-server/v2/server"}
		}, "internal/scorer imports github.com/nats-io/nats-server/v2/server: " + guarded[0].why},
		{"the server is linked into a test", func(p map[string]*pkg, _ *[]room) {
			p["internal/scorer"].TestImports = []string{"github.com/nats-io/nats-server/v2/server"}
		}, "a test of internal/scorer imports github.com/nats-io/nats-server/v2/server: " + guarded[0].why},
		{"an empty name", func(p map[string]*pkg, _ *[]room) {
			p["pkg/events"].Name = "util"
		}, "package pkg/events: its name does not say what it does"},
		{"a package without a row", func(p map[string]*pkg, house *[]room) {
			*house = slices.DeleteFunc(*house, func(r room) bool { return r.name == "cmd/scorer" })
		}, "package cmd/scorer has no row in imports_test.go: add one that says what it may import, and why no more"},
		{"a row without a package", func(p map[string]*pkg, _ *[]room) {
			delete(p, "cmd/scorer")
		}, "imports_test.go has a row for cmd/scorer, and there is no such package"},
		{"a table that runs in a circle", func(_ map[string]*pkg, house *[]room) {
			(*house)[2].may = []string{"pkg/events", "internal/scorer"}
		}, "the table lets internal/ingest import internal/scorer, which does not stand above it: imports run one way"},
		{"a table that opens pkg", func(_ map[string]*pkg, house *[]room) {
			*house = append([]room{{"internal/embedded", nil, ""}, {"pkg/events", []string{"internal/embedded"}, ""}}, (*house)[2:]...)
		}, "the table lets pkg/events import internal/embedded: pkg is public, and may import pkg only"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rows := slices.Clone(rows)
			present := map[string]*pkg{}
			for _, r := range rows {
				imports := append([]string{"fmt", "github.com/nats-io/nats.go"}, ours(slices.Clone(r.may)...)...)
				present[r.name] = &pkg{ImportPath: module + r.name, Name: path.Base(r.name), Imports: imports}
			}
			tt.change(present, &rows)
			var pkgs []pkg
			for _, r := range []string{"pkg/events", "internal/embedded", "internal/ingest", "internal/scorer", "cmd/scorer", "internal/testkit"} {
				if p := present[r]; p != nil {
					pkgs = append(pkgs, *p)
				}
			}
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if got := offences(pkgs, rows); !slices.Equal(got, want) {
				t.Errorf("offences\n got %q\nwant %q", got, want)
			}
		})
	}
}
