package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/riskweir/riskweir/internal/testkit"
)

const tutorial = "../../docs/tutorial.md"

// block is a piece of the tutorial between ``` lines, with the comment above it that says what it is:
//
//	<!-- run -->                 commands, and the next marked block shows what they print
//	<!-- run in terminal 1 -->   a command that stays
//	<!-- prints -->              lines that must come in this order, others between them; … stands for anything
type block struct {
	mark string
	line int // of its first line
	text string
}

var comment = regexp.MustCompile(`^<!-- (.*) -->$`)

// blocks returns the marked ones.
func blocks(text []byte) (out []block, err error) {
	in := bufio.NewScanner(bytes.NewReader(text))
	mark, open := "", false
	var b block
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		switch {
		case open && strings.HasPrefix(line, "```"):
			if open = false; b.mark != "" {
				out = append(out, b)
			}
		case open:
			b.text += line + "\n"
		case strings.HasPrefix(line, "```"):
			b, open, mark = block{mark: mark, line: n + 1}, true, ""
		case mark != "":
			return nil, fmt.Errorf("line %d: the comment %q is not above a block", n, mark)
		default:
			if m := comment.FindStringSubmatch(line); m != nil {
				mark = m[1]
			}
		}
	}
	if open {
		return nil, fmt.Errorf("line %d: the block is not closed", b.line)
	}
	return out, in.Err()
}

// missing returns the first line of want that does not come in got, after those before it.
func missing(got, want string) string {
	lines := strings.Split(got, "\n")
	for w := range strings.Lines(want) {
		w = strings.TrimRight(w, " \n")
		re := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(w), "…", ".*") + " *$")
		for len(lines) > 0 && !re.MatchString(lines[0]) {
			lines = lines[1:]
		}
		if len(lines) == 0 {
			return w
		}
		lines = lines[1:]
	}
	return ""
}

func TestTutorialRuns(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(tutorial)
	if err != nil {
		t.Fatal(err)
	}
	all, err := blocks(text)
	if err != nil {
		t.Fatal(err)
	}
	dir, env, http := tutorialDir(t)
	var up *exec.Cmd
	var status, summary console
	stopped := make(chan error, 1)
	printed, ran := "", 0
	for _, b := range all {
		where := fmt.Sprintf("%s:%d", filepath.Base(tutorial), b.line)
		command := strings.ReplaceAll(b.text, "127.0.0.1:8080", "127.0.0.1:"+http)
		switch b.mark {
		case "run":
			// What one block exports is there in the next, as in a terminal.
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", ". ./.exports\n"+command+"\nexport -p > .exports")
			cmd.Dir, cmd.Env = dir, env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s%s\nstatus:\n%s", where, err, b.text, out, status.String())
			}
			printed, ran = string(out), ran+1
		case "run in terminal 1":
			up = exec.Command("bash", "-c", "exec "+command)
			up.Dir, up.Env, up.Stdout, up.Stderr = dir, env, &summary, &status
			if err := up.Start(); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			go func() { stopped <- up.Wait() }()
			t.Cleanup(func() {
				if up.ProcessState == nil {
					up.Process.Kill()
					<-stopped
				}
			})
			status.await(t, "context  ")
		case "prints":
			if line := missing(printed, b.text); line != "" {
				t.Errorf("%s: not printed: %s\nprinted:\n%s", where, line, printed)
			}
		default:
			t.Fatalf("%s: mark %q: want run, run in terminal 1 or prints", where, b.mark)
		}
	}
	if ran < 8 || up == nil {
		t.Errorf("%d blocks were run, and up: %t: are the marks as this test reads them?", ran, up != nil)
	}
	if err := up.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	var end error
	testkit.Eventually(t, long, "Ctrl-C ends terminal 1", func() (bool, string) {
		select {
		case end = <-stopped:
			return true, ""
		default:
			return false, status.String()
		}
	})
	if end != nil {
		t.Errorf("terminal 1: %v\n%s", end, status.String())
	}
}

// tutorialDir is the reader's folder, with riskweir in the PATH; up takes ports that are free.
func tutorialDir(t *testing.T) (dir string, env []string, http string) {
	t.Helper()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the tutorial needs %s: %v", program, err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := t.TempDir(), t.TempDir()
	files, err := filepath.Glob(filepath.Join(tutorialData, "*.csv"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no data in %s: %v", tutorialData, err)
	}
	write := func(file string, text []byte, mode os.FileMode) {
		if err := os.WriteFile(file, text, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(dir, filepath.Base(file)), text, 0o644)
	}
	write(filepath.Join(dir, ".exports"), nil, 0o644)
	nats, http := freePorts()
	write(filepath.Join(bin, "riskweir"), fmt.Appendf(nil, `#!/usr/bin/env bash
if [[ ${1-} == up ]]; then
  shift
  set -- up --nats-port %s --http-port %s "$@"
fi
exec %q "$@"
`, nats, http, exe), 0o755)
	return dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH")), http
}

func TestTutorialMarks(t *testing.T) {
	t.Parallel()
	got, err := blocks([]byte("text\n```sh\nnot run\n```\n<!-- run -->\n```sh\na\nb\n```\n<!-- prints -->\n```text\nc\n```\n"))
	want := []block{{"run", 7, "a\nb\n"}, {"prints", 12, "c\n"}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("blocks are %v, %v, want %v", got, err, want)
	}
	for _, broken := range []string{"<!-- run -->\ntext\n", "```sh\na\n"} {
		if _, err := blocks([]byte(broken)); err == nil {
			t.Errorf("%q was taken", broken)
		}
	}
	const printed = "one\ntwo 2.5 (x)\nthree\n"
	for _, x := range []struct{ want, missing string }{
		{"one\nthree\n", ""},
		{"two … (x)\n", ""},
		{"two\n", "two"},
		{"three\none\n", "one"},
		{"two …\nfour\n", "four"},
	} {
		if got := missing(printed, x.want); got != x.missing {
			t.Errorf("of %q %q is missing, want %q", x.want, got, x.missing)
		}
	}
}

// The README has a row for every command.
func TestReadmeNamesEveryCommand(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := newApp(io.Discard, io.Discard).Model().Commands
	if len(commands) < 5 {
		t.Fatalf("there are %d commands", len(commands))
	}
	for _, c := range commands {
		if !c.Hidden && c.Name != "help" && !strings.Contains(string(readme), "| `riskweir "+c.Name+"` |") {
			t.Errorf("README.md has no row for riskweir %s", c.Name)
		}
	}
}
