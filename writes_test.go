package riskweir_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// remoteWrite is a call that changes what the broker holds. Receivers are named as this project names them.
var remoteWrite = regexp.MustCompile(`\.(Publish|PublishMsg|PublishMsgAsync|PublishRequest|CreateStream|UpdateStream|DeleteStream|CreateConsumer|DeleteConsumer|OrderedConsumer|PurgeStream)\(|` +
	`\b(kv|store)\.(Create|Put|Update|Delete|Purge)\(|\.Commit\(`)

// notWrites are lines that match and change nothing there, by a part of each.
var notWrites = []string{
	"CONSUMER.MSG.NEXT",                   // asks for messages
	"PublishRequest(p.subject",            // so does tail/pull.go
	"PublishRequest(\"$JS.API.DIRECT.GET", // asks for one
	"registry.Publish(",                   // model/registry.go, which does write
	"func (",                              // defines one
}

// rooms whose writes are none of the product's: they break it, or play it.
var notProduct = []string{"internal/testkit/", "internal/chaos/", "internal/bench/", "pkg/lr/"}

// Every file that writes to the broker stands in the table of docs/reliability.md, with tests that there are.
func TestEveryRemoteWriteHasItsTest(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(doc), "\n## Both halves of every lost acknowledgement\n")
	if !ok {
		t.Fatal("docs/reliability.md has lost its table of writes")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	wrote, tests := map[string][]string{}, map[string]bool{}
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		path = filepath.ToSlash(path)
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(text), -1) {
				tests[m[1]] = true
			}
			return nil
		}
		if slices.ContainsFunc(notProduct, func(room string) bool { return strings.HasPrefix(path, room) }) {
			return nil
		}
		for line := range strings.Lines(string(text)) {
			code, _, _ := strings.Cut(line, "//")
			if remoteWrite.MatchString(code) && !slices.ContainsFunc(notWrites, func(part string) bool { return strings.Contains(code, part) }) {
				wrote[path] = append(wrote[path], strings.TrimSpace(code))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(wrote) < 15 {
		t.Errorf("only %d files write: the pattern has lost its sight", len(wrote))
	}
	for _, path := range slices.Sorted(maps.Keys(wrote)) {
		// As the table says it: without internal/, which nearly all are in.
		if name := strings.TrimPrefix(path, "internal/"); !strings.Contains(table, "`"+name+"`") {
			t.Errorf("the table does not name %s, which writes:\n  %s", name, strings.Join(wrote[path], "\n  "))
		}
	}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || strings.HasPrefix(line, "|---") || strings.Contains(cells[2], " where ") {
			continue
		}
		named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(cells[4], -1)
		if len(named) == 0 {
			t.Errorf("no test stands in %q", strings.TrimSpace(line))
		}
		for _, m := range named {
			if !tests[m[1]] {
				t.Errorf("%s is in the table, and not in the code", m[1])
			}
		}
		for _, m := range regexp.MustCompile("`([a-z/]+\\.go)`").FindAllStringSubmatch(cells[2], -1) {
			if wrote[m[1]] == nil && wrote["internal/"+m[1]] == nil {
				t.Errorf("%s is in the table, and writes nothing", m[1])
			}
		}
	}
}
