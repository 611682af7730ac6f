//go:build natscli

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The commands of docs/operations.md that bring up a system with an operator and JWT, as they stand there but for the ports, by the real nats CLI and
// a nats-server of the version in go.mod.
func TestNatsCLIByTheBook(t *testing.T) {
	cli := os.Getenv("NATS_CLI")
	if cli == "" {
		t.Fatal("NATS_CLI does not name the nats CLI")
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, script, ok := strings.Cut(string(page), "\n## Production, step by step\n")
	if !ok {
		t.Fatal("the page has lost its commands")
	}
	_, script, _ = strings.Cut(script, "```sh\n")
	script, _, _ = strings.Cut(script, "```\n")

	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(cli, filepath.Join(bin, "nats")); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "nats-server"), "github.com/nats-io/nats-server/v2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("bin/riskweir", "#!/bin/sh\nexec "+self+" \"$@\"\n", 0o700)
	for _, service := range []string{"ingest", "scorer", "trainer", "monitor"} {
		write("bin/"+service, "#!/bin/sh\nexec "+self+" run "+service+" \"$@\"\n", 0o700)
	}
	write("payment.yaml", cardContract, 0o600)
	for _, usual := range []string{"4222", "8222", "8080"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, free, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		script = strings.ReplaceAll(script, usual, free)
	}
	write("book.sh", "set -e\n"+script, 0o600)

	var out bytes.Buffer
	cmd := exec.Command("sh", "book.sh")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "XDG_DATA_HOME="+filepath.Join(dir, "share"), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // what it leaves behind ends with the test
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) }) // fails if all of it has ended
	select {
	case err = <-ended:
	case <-time.After(long):
		t.Fatalf("it does not end: %s", out.String())
	}
	logs := ""
	files, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, f := range files {
		text, _ := os.ReadFile(f)
		logs += fmt.Sprintf("%s:\n%s\n", filepath.Base(f), text)
	}
	if err != nil && !strings.Contains(err.Error(), "WaitDelay") { // its services hold the output open
		t.Fatalf("%v: %s\n%s", err, out.String(), logs)
	}
	for _, want := range []string{`Update completed on n1`, `"stream":"EVENTS_payment"`, `subj: scores\.payment\.low\.c1 `, `"entity":"c1","p":0\.02`,
		`events=1 scored=1 invalid=0 missing=0 duplicate=0 disorder=0`} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("it does not say %s: %s", want, out.String())
		}
	}
	if strings.Contains(strings.ToLower(logs), "permissions violation") {
		t.Errorf("a service was refused: %s", logs)
	}
	if seedLike.MatchString(out.String() + logs) {
		t.Error("it shows a seed")
	}
	// A user of the account without a permission for it.
	again := exec.Command(filepath.Join(bin, "nats"), "--creds", "publisher.creds", "--inbox-prefix", "_INBOX_publisher", "--timeout", "2s", "sub", "scores.>", "--count", "1")
	again.Dir, again.Env = dir, append(cmd.Env, "NATS_CA=tls/ca.pem", "NATS_URL="+regexp.MustCompile(`tls://127\.0\.0\.1:[0-9]+`).FindString(script))
	said, err := again.CombinedOutput()
	if !strings.Contains(strings.ToLower(string(said)), "permissions violation") {
		t.Errorf("a publisher subscribes to scores: %v: %s", err, said)
	}
}
