package riskweir_test

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/riskweir/riskweir/jetstream"
)

var update = flag.Bool("update", false, "rewrite what documents show of the code")

// documents are the pages written for people.
func documents(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && len(name) > 1 && name[0] == '.':
			return fs.SkipDir
		case !d.IsDir() && filepath.Ext(name) == ".md":
			out = append(out, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 5 {
		t.Fatalf("there are %d documents: this is not the root of the project", len(out))
	}
	return out
}

// rewrite replaces a page if asked to, and else holds it to what it should be.
func rewrite(t *testing.T, file string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatalf("%v (make it with go test . -update)", err)
	}
	if bytes.Equal(got, want) {
		return
	}
	if !*update {
		t.Errorf("%s is not what the code says; rewrite it with go test . -update", file)
		return
	}
	if err := os.WriteFile(file, want, 0o644); err != nil {
		t.Fatal(err)
	}
}

var sample = regexp.MustCompile("(?m)^<!-- sample ([a-z_.]+) -->\n(```[a-z]+)\n(?s:.*?)^```$")

// Samples on a page are the golden files of testdata/wire, which other tests write and read.
func TestSamplesOnPages(t *testing.T) {
	shown := map[string]bool{}
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, file, sample.ReplaceAllFunc(text, func(block []byte) []byte {
			m := sample.FindSubmatch(block)
			shown[string(m[1])] = true
			body, err := os.ReadFile(filepath.Join("testdata", "wire", string(m[1])))
			if err != nil {
				t.Errorf("%s: %v", file, err)
				return block
			}
			return fmt.Appendf(nil, "<!-- sample %s -->\n%s\n%s\n```", m[1], m[2], bytes.TrimRight(body, "\n"))
		}))
	}
	samples, err := filepath.Glob("testdata/wire/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples {
		if name := filepath.Base(s); !shown[name] && filepath.Ext(name) != ".msgpack" {
			t.Errorf("no page shows the sample %s", name)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)|(?:src|srcset|href)="([^"]+)"`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	fenced  = regexp.MustCompile("(?ms)^```.*?^```$")
)

// Links to files, and to headings in them, lead somewhere. Links into the network are not followed.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(fenced.ReplaceAll(text, nil)), -1) {
			to := m[1] + m[2]
			if strings.Contains(to, "://") {
				continue
			}
			name, anchor, _ := strings.Cut(to, "#")
			target := file
			if name != "" {
				target = filepath.Join(filepath.Dir(file), name)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", file, to, err)
			} else if anchor != "" && !hasAnchor(t, target, anchor) {
				t.Errorf("%s links to %s: %s has no such heading", file, to, target)
			}
		}
	}
}

// hasAnchor says whether a page has a heading of that anchor: small letters, blanks as -, all else but - and _ left out.
func hasAnchor(t *testing.T, file, anchor string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range heading.FindAllStringSubmatch(string(fenced.ReplaceAll(text, nil)), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r > 127:
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		if name == anchor {
			return true
		}
	}
	return false
}

// The page of permissions is the table of the code, for a kind called payment.
func TestPermissionsPage(t *testing.T) {
	var b bytes.Buffer
	b.WriteString(`# Permissions

Every role connects as a NATS user of its own, with an inbox prefix of its own, and may use these subjects and no others. The table
is ` + "[`jetstream/permissions.go`](../jetstream/permissions.go)" + `, for a kind called payment; with ` + "`*`" + ` in place of the kind it holds for
kinds to come, less exactly. What permissions cannot hold is in [jetstream/README.md](../jetstream/README.md#permissions).

This page is made by ` + "`go test . -update`" + `.
`)
	for _, r := range jetstream.Roles("payment") {
		fmt.Fprintf(&b, "\n## %s\n\n", r.Name)
		if r.All {
			fmt.Fprintf(&b, "Everything in the account. Its inbox prefix is `%s`.\n", jetstream.InboxPrefix(r.Name))
			continue
		}
		for _, x := range []struct {
			verb     string
			subjects []string
		}{{"publishes", r.Publish}, {"subscribes", r.Subscribe}} {
			fmt.Fprintf(&b, "%s\n\n```text\n%s\n```\n\n", x.verb, strings.Join(x.subjects, "\n"))
		}
		if r.Outside {
			b.WriteString("In an account of its own, see [below](#accounts-of-outsiders).\n\n")
		}
		b.Truncate(b.Len() - 1)
	}
	out := jetstream.Outside()
	fmt.Fprintf(&b, `
## accounts of outsiders

Publishers, subscribers and callers are each in an account of their own, without streams, which imports from the streams' account

as services

`+"```text\n%s\n```"+`

as services with many answers

`+"```text\n%s\n```"+`

as streams

`+"```text\n%s\n```"+`

and of that a user may use what its permissions allow. [Why](adr/0012-outsiders-have-accounts.md).
`, strings.Join(out.Publish, "\n"), strings.Join(out.Many, "\n"), strings.Join(out.Live, "\n"))
	rewrite(t, filepath.Join("docs", "permissions.md"), b.Bytes())
}

var (
	named   = regexp.MustCompile("`((?:Test|Fuzz|Benchmark|Example)[A-Z][A-Za-z0-9_]*)`")
	defined = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark|Example)[A-Za-z0-9_]*)\(`)
)

// A test that a page relies on is there.
func TestNamedTestsExist(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range defined.FindAllSubmatch(text, -1) {
			there[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range documents(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllSubmatch(text, -1) {
			if !there[string(m[1])] {
				t.Errorf("%s names %s, and there is no such test", file, m[1])
			}
		}
	}
}

// Each module that we import, or run as a tool, has a row that says what for; and no row is of a module that is gone.
func TestEveryDependencyIsJustified(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+( // indirect)?$`).FindAllSubmatch(mod, -1) {
		if len(m[2]) == 0 {
			want[string(m[1])] = true
		}
	}
	// A tool stands among the indirect ones, by its module.
	_, tools, _ := strings.Cut(string(mod), "\ntool (")
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+)$`).FindAllStringSubmatch(tools, -1) {
		module, _, _ := strings.Cut(m[1], "/cmd/")
		want[module] = true
	}
	if len(want) < 10 {
		t.Fatalf("go.mod has %d direct dependencies: it is read wrongly", len(want))
	}
	page, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]{10,} \\|").FindAllSubmatch(page, -1) {
		rows[string(m[1])] = true
	}
	for module := range want {
		if !rows[module] {
			t.Errorf("docs/dependencies.md does not say what %s is for", module)
		}
	}
	for module := range rows {
		if !want[module] {
			t.Errorf("docs/dependencies.md has a row for %s, which go.mod does not require", module)
		}
	}
}
