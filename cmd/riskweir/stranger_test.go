package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/riskweir/riskweir/internal/testkit"
)

// asStranger makes this test binary be somebody on the machine, who is told where everything is, and tries.
const asStranger = "RISKWEIR_AS_STRANGER"

// scene is what a stranger is told.
type scene struct {
	Files    []string // of the data directory
	Clients  []int    // ports
	Routes   []int
	Monitors []int
	HTTP     int
	PIDs     []int
	Secrets  []string // that nobody may show; the stranger looks for them
}

// attempt is one thing a stranger tried; Got is empty if it was refused.
type attempt struct{ What, Got string }

// strange does what a stranger might, and prints what came of it.
func strange(text string) int {
	var s scene
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var all []attempt
	try := func(what, got string) { all = append(all, attempt{what, got}) }
	for _, file := range s.Files {
		got := ""
		if b, err := os.ReadFile(file); err == nil {
			got = fmt.Sprintf("%d bytes", len(b))
		} else if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
			f.Close()
			got = "may write"
		}
		try("read or write "+file, got)
	}
	for _, port := range s.Clients {
		url := "tls://127.0.0.1:" + strconv.Itoa(port)
		key, _ := nkeys.CreateUser()
		public, _ := key.PublicKey()
		for who, o := range map[string]nats.Option{
			"nobody": nil, "a password": nats.UserInfo("anyone", "anyone"), "the routes' user": nats.UserInfo("route", "route"),
			"a token": nats.Token("riskweir"), "a key of its own": nats.Nkey(public, key.Sign),
		} {
			got := ""
			nc, err := nats.Connect(url, nats.NoReconnect(), nats.Timeout(5*time.Second), nats.Secure(&tls.Config{InsecureSkipVerify: true}), func(c *nats.Options) error {
				if o == nil {
					return nil
				}
				return o(c)
			})
			if err == nil {
				got = "is let in"
				if _, err := nc.SubscribeSync(">"); err == nil {
					got += ", subscribes"
				}
				if _, err := nc.Request("$JS.API.STREAM.NAMES", nil, time.Second); err == nil {
					got += ", asks JetStream"
				}
				nc.Close()
			} else if !strings.Contains(err.Error(), "uthoriz") && !strings.Contains(err.Error(), "uthentic") {
				got = "neither in nor refused: " + err.Error()
			}
			try("connect to "+url+" as "+who, got)
		}
		try("speak in clear to "+url, inClear(port))
	}
	for _, port := range s.Routes {
		got := ""
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", "127.0.0.1:"+strconv.Itoa(port), &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second)) // on a connection that is open
			b := make([]byte, 64)
			if n, _ := c.Read(b); n > 0 {
				got = string(b[:n])
			}
			c.Close()
		}
		try("be a node at "+strconv.Itoa(port), got)
	}
	holds := func(text string) string {
		for _, secret := range append(s.Secrets, "PRIVATE KEY") {
			if strings.Contains(text, secret) {
				return "a secret"
			}
		}
		return seedLike.FindString(text)
	}
	web := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, port := range s.Monitors {
		for _, page := range []string{"varz", "connz?auth=1&subs=detail&state=any", "routez?subs=detail", "subsz?subs=1", "accountz", "accountz?acc=APP", "accstatz?unused=1",
			"jsz?accounts=1&streams=1&consumers=1&config=1&raft=1", "healthz?details=1", "raftz", "debug/vars", "gatewayz", "leafz"} {
			url := fmt.Sprintf("http://127.0.0.1:%d/%s", port, page)
			_, body := fetch(web, http.MethodGet, url)
			try("find a secret in "+url, holds(body))
		}
	}
	for _, action := range []string{"POST /v1/events/payment", "POST /v1/labels/payment", "POST /v1/score/payment"} {
		method, path, _ := strings.Cut(action, " ")
		got := ""
		url := fmt.Sprintf("https://127.0.0.1:%d%s", s.HTTP, path)
		if status, body := fetch(web, method, url); status != http.StatusUnauthorized {
			got = fmt.Sprint(status, body)
		}
		try(action, got)
	}
	for _, pid := range s.PIDs {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // there or not
		try(fmt.Sprintf("find a secret in the command line of %d", pid), holds(string(line)))
		got := ""
		if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)); err == nil {
			got = fmt.Sprintf("%d bytes", len(env))
		}
		try(fmt.Sprintf("read the environment of %d", pid), got)
	}
	if err := json.NewEncoder(os.Stdout).Encode(all); err != nil {
		return 2
	}
	return 0
}

// seedLike is an nkey seed: of a user, an account, an operator, a node, a curve.
var seedLike = regexp.MustCompile(`\bS[UAONX][A-Z2-7]{56}\b`)

// inClear is what a node says to who asks in clear, beyond its greeting.
func inClear(port int) string {
	c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return "neither in nor refused: " + err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second)) // on a connection that is open
	_, _ = c.Write([]byte("CONNECT {\"verbose\":true}\r\nSUB > 1\r\nPUB events.payment.x 2\r\n{}\r\nPING\r\n"))
	said, _ := io.ReadAll(c)
	for line := range strings.Lines(string(said)) {
		if strings.HasPrefix(line, "+OK") || strings.HasPrefix(line, "PONG") || strings.HasPrefix(line, "MSG") {
			return line
		}
	}
	return ""
}

func fetch(web *http.Client, method, url string) (status int, body string) {
	req, err := http.NewRequest(method, url, strings.NewReader(`{"card":"c1","amount":"1.00"}`))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := web.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<20)) // what came is looked at
	return resp.StatusCode, string(b)
}

// Another user of the machine, without the files in --dir, can neither publish, nor read, nor act, and finds no secret where it can look.
func TestAStrangerOnTheMachine(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("not run: to be another user of the machine takes root")
	}
	// A place that others may enter, and a data directory that was there before with as open a mode: each file is on its own.
	place, err := os.MkdirTemp("", "riskweir-stranger-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(place) })
	dir := filepath.Join(place, "data")
	if err := errors.Join(os.Chmod(place, 0o755), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	u := up(t, upConfig{nodes: 1, source: "sim", dir: dir})
	u.scored(t, 1)
	s := scene{Clients: u.layout.ports.client, Routes: u.layout.ports.cluster, Monitors: u.layout.ports.monitor, HTTP: u.layout.ports.http, Secrets: []string{u.layout.saved.RoutePassword}}
	s.Routes = nil // one node has no routes; see testkit's TestTLS
	for _, pid := range u.pids() {
		s.PIDs = append(s.PIDs, pid)
	}
	err = filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			s.Files = append(s.Files, path)
			if text, err := os.ReadFile(path); err == nil && (filepath.Ext(path) == ".nk" || filepath.Ext(path) == ".token") {
				s.Secrets = append(s.Secrets, strings.TrimSpace(string(text)))
			}
		}
		return nil // files come and go
	})
	if err != nil || len(s.Files) < 20 || len(s.Secrets) < 5 {
		t.Fatalf("%d files, %d secrets, %v", len(s.Files), len(s.Secrets), err)
	}

	exe := filepath.Join(place, "stranger")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(exe, program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	told, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	cmd := exec.CommandContext(testkit.Context(t), exe)
	cmd.Env = []string{asStranger + "=" + string(told), "PATH=/usr/bin:/bin", "HOME=" + place}
	cmd.Dir = place
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, errOut.String())
	}
	var all []attempt
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	for _, a := range all {
		if a.Got != "" {
			t.Errorf("a stranger could %s: %s", a.What, a.Got)
		}
	}
	t.Logf("a stranger tried %d things, and each was refused", len(all))
}

// Whoever has the files can do the same things: so the stranger's test asks in the right places.
func TestTheOwnerIsNoStranger(t *testing.T) {
	t.Parallel()
	u := up(t, upConfig{nodes: 1, source: "none", dir: t.TempDir()})
	as := u.layout.connection(operatorUser)
	key, err := nats.NkeyOptionFromSeed(as.NKey)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(as.Servers, key, nats.RootCAs(as.TLSCA), nats.CustomInboxPrefix(as.Inbox))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.SubscribeSync(">"); err != nil {
		t.Error(err)
	}
	if _, err := nc.Request("$JS.API.STREAM.NAMES", nil, 10*time.Second); err != nil {
		t.Error(err)
	}
}

// A party that an operator added reads what its filter takes in, while everything runs, and nothing once it is removed.
func TestSubscriberOfUp(t *testing.T) {
	t.Parallel()
	u := up(t, upConfig{nodes: 1, source: "sim", dir: t.TempDir()})
	u.scored(t, 1)
	file := filepath.Join(t.TempDir(), "casework.nk")
	add := []string{"subscriber", "add", "casework", "--filter", "scores.payment.*.*", "--creds", file, "--context", u.context, "--from-start"}
	for range 2 { // it may be repeated
		if out, errOut, code := riskweir(t, add...); code != 0 || !strings.Contains(out, "consumer next SCORES_payment sub-casework") || seedLike.MatchString(out+errOut) {
			t.Fatalf("exit status %d: %s%s", code, out, errOut)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v", file, info, err)
	}
	if out, errOut, code := riskweir(t, "subscriber", "list", "--context", u.context); code != 0 || !strings.Contains(out, "casework                 scores.payment.*.*") {
		t.Errorf("exit status %d: %s%s", code, out, errOut)
	}
	as := u.layout.connection("sub-casework")
	key, err := nats.NkeyOptionFromSeed(file)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	nc, err := nats.Connect(as.Servers, key, nats.RootCAs(as.TLSCA), nats.CustomInboxPrefix(as.Inbox), nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(gone) }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m, err := nc.Request("$JS.API.CONSUMER.MSG.NEXT.SCORES_payment.sub-casework", nil, 10*time.Second)
	if err != nil || !strings.Contains(string(m.Data), `"kind":"payment"`) {
		t.Errorf("%v, %v", m, err)
	}
	if _, err := nc.Request("$JS.API.STREAM.NAMES", nil, time.Second); err == nil {
		t.Error("a subscriber asks JetStream for what there is")
	}
	if out, errOut, code := riskweir(t, "subscriber", "remove", "casework", "--kind", "payment", "--context", u.context); code != 0 {
		t.Errorf("exit status %d: %s%s", code, out, errOut)
	}
	select {
	case <-gone:
	case <-time.After(long):
		t.Error("it is connected, though it was removed")
	}
	if _, errOut, code := riskweir(t, append(add[:4:4], "scores.nokind.>", "--creds", file, "--context", u.context)...); code != 2 || !strings.Contains(errOut, "not declared") {
		t.Errorf("an undeclared kind: exit status %d: %s", code, errOut)
	}
}
