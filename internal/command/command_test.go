package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/choria-io/fisk"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/testkit"
	topology "github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// defined is a command of its own, without the exits of a real one.
func defined(define func(Flags) Runner, args ...string) (Runner, error) {
	app := fisk.New("test", "").Terminate(nil)
	app.ErrorWriter(io.Discard)
	app.UsageWriter(io.Discard)
	run := define(app)
	_, err := app.Parse(args)
	return run, err
}

func files(f Flags) Runner { return ReadFile(f.(*fisk.Application)) }

func TestFlags(t *testing.T) {
	for _, x := range []struct {
		name   string
		define func(Flags) Runner
		args   string
		want   string // error
	}{
		{"node", Node, "--config n1.json", ""},
		{"node", Node, "", "required flag --config not provided"},
		{"scorer", Scorer, "", ""},
		{"scorer", Scorer, "--nats nats://a:1,nats://b:2 --creds c --name s --lease 5s --admin :9100 --pprof", ""},
		{"scorer", Scorer, "--log-level loud", "must be one of debug,info,warn,error, got 'loud'"},
		{"scorer", Scorer, "--lease soon", "invalid duration"},
		{"scorer", Scorer, "--colour red", "unknown long flag '--colour'"},
		{"scorer", Scorer, "stray", "unexpected argument stray"},
		{"ingest", Ingest, "--listen :0 --ack-timeout 1s --deadline 100ms", ""},
		{"trainer", Trainer, "--min-labels 50 --retrain-labels 10 --retrain-every 30s", ""},
		{"trainer", Trainer, "--min-labels many", "invalid syntax"},
		{"monitor", Monitor, "--every 2s", ""},
		{"sim", Sim, "--rate 10 --seed 7", ""},
		{"sim", Sim, "--seed=-1", "invalid syntax"},
		{"file", files, "a.csv --kind k --delimiter tab --columns a,b --columns c --label-delay 1s", ""},
		{"file", files, "a.csv", "required flag --kind not provided"},
		{"file", files, "--kind k", "required argument 'file' not provided"},
		{"file", files, "a.csv --kind k --delimiter ab", `"ab": want one character, or tab, comma, semicolon`},
	} {
		run, err := defined(x.define, strings.Fields(x.args)...)
		if run == nil || (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %s: error %v, want %q", x.name, x.args, err, x.want)
		}
	}
}

// A scorer is not started without a word on whose models it serves, nor a trainer without one on who signs.
func TestKeys(t *testing.T) {
	dir := t.TempDir()
	signer, err := model.CreateSigner(filepath.Join(dir, "models.nk"))
	if err != nil {
		t.Fatal(err)
	}
	file, public := filepath.Join(dir, "models.nk"), signer.Public()
	t.Setenv("RISKWEIR_TRUST_KEY", "")
	for _, x := range []struct {
		name   string
		define func(Flags) Runner
		args   []string
		want   string
	}{
		{"scorer", Scorer, nil, "--trust-key"},
		{"scorer", Scorer, []string{"--trust-key", file}, "want the public key"},
		{"scorer", Scorer, []string{"--trust-key", public, "--unsigned-models"}, "not for the same time"},
		{"trainer", Trainer, nil, "--signing-key"},
		{"trainer", Trainer, []string{"--trust-key", public}, "--signing-key"},
		{"trainer", Trainer, []string{"--signing-key", filepath.Join(dir, "none.nk")}, "no such file"},
		{"trainer", Trainer, []string{"--signing-key", file, "--unsigned-models"}, "not for the same time"},
	} {
		run, err := defined(x.define, x.args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := run(t.Context()); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s %v: %v, want %q", x.name, x.args, err, x.want)
		}
	}

	flags := func(args ...string) *Keys {
		var k Keys
		app := fisk.New("x", "")
		k.SigningFlags(app)
		if _, err := app.Parse(args); err != nil {
			t.Fatal(err)
		}
		return &k
	}
	s, trust, err := flags("--signing-key", file).Signer()
	if err != nil || s.Public() != public || len(trust.Keys()) != 1 {
		t.Errorf("a signer trusts itself: %v, %v, %v", s, trust.Keys(), err)
	}
	if s, trust, err := flags("--unsigned-models").Signer(); s != nil || trust != nil || err != nil {
		t.Errorf("unsigned: %v, %v, %v", s, trust, err)
	}
	t.Setenv("RISKWEIR_TRUST_KEY", public)
	if trust, err := flags().Trust(); err != nil || len(trust.Keys()) != 1 {
		t.Errorf("by the environment: %v, %v", trust.Keys(), err)
	}
	t.Setenv("RISKWEIR_TRUST_KEY", "")
	k := flags("--unsigned-models")
	k.Default(file, public)
	if trust, err := k.IfAny(); trust != nil || err != nil {
		t.Errorf("what lies beside, though none is looked at: %v, %v", trust, err)
	}
}

func TestDelimiterValue(t *testing.T) {
	for in, want := range map[string]byte{"tab": '\t', `\t`: '\t', "comma": ',', "semicolon": ';', "|": '|', " ": ' '} {
		var b byte
		v := delimiterValue{&b}
		if err := v.Set(in); err != nil || b != want || v.String() != string(rune(want)) {
			t.Errorf("%q: %q, %v, want %q", in, b, err, want)
		}
	}
	for _, in := range []string{"", "ab", "é"} {
		if err := (&delimiterValue{new(byte)}).Set(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
	if s := (&delimiterValue{}).String(); s != "" {
		t.Errorf("no delimiter is %q", s)
	}
}

func TestList(t *testing.T) {
	var to []string
	v := List(&to)
	for _, in := range []string{"a, b", "", "c,,d "} {
		if err := v.Set(in); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(to, []string{"a", "b", "c", "d"}) || v.String() != "a,b,c,d" {
		t.Errorf("%q, %s", to, v)
	}
}

func TestExit(t *testing.T) {
	for _, x := range []struct {
		err  error
		want int
	}{
		{nil, ExitOK},
		{context.Canceled, ExitOK},
		{fmt.Errorf("connect: %w", context.Canceled), ExitOK},
		{ErrBroken, ExitBroken},
		{fmt.Errorf("verify: %w", ErrBroken), ExitBroken},
		{errors.New("no"), ExitFailed},
		{context.DeadlineExceeded, ExitFailed},
	} {
		if got := Exit("test", x.err); got != x.want {
			t.Errorf("%v: exit status %d, want %d", x.err, got, x.want)
		}
	}
}

func TestSignalled(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		err := Signalled(func(ctx context.Context) error {
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(testkit.Deadline):
				return errors.New("the signal did not come")
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", sig, err)
		}
	}
}

func TestInstanceOf(t *testing.T) {
	if got := instanceOf("scorer-1"); !strings.HasPrefix(got, "scorer-1-") || len(got) != len("scorer-1-")+8 {
		t.Errorf("%q", got)
	}
	if got := instanceOf("a b.c>*é" + strings.Repeat("x", 100)); !strings.HasPrefix(got, "a_b_c___xxx") || len(got) != 32+1+8 {
		t.Errorf("%q", got)
	}
}

// free is an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func status(url string) (int, string) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testkit.Deadline}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, strings.TrimSpace(string(body))
}

func awaitStatus(t *testing.T, url string, code int, want string) {
	t.Helper()
	testkit.Eventually(t, testkit.Deadline, fmt.Sprintf("%s says %d %s", url, code, want), func() (bool, string) {
		got, body := status(url)
		return got == code && strings.Contains(body, want), fmt.Sprint(got, " ", body)
	})
}

// A service outlives its cluster, and may be started before it.
func TestServiceWithoutCluster(t *testing.T) {
	c := testkit.Start(t, 1)
	c.StopNode(t, 0)
	admin := free(t)
	run, err := defined(Scorer, "--nats", c.URL(), "--admin", admin, "--name", "s1", "--log-level", "error", "--unsigned-models")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	awaitStatus(t, "http://"+admin+"/healthz", 200, "ok")
	awaitStatus(t, "http://"+admin+"/readyz", 503, "not connected to NATS yet")
	awaitStatus(t, "http://"+admin+"/metrics", 200, "go_goroutines")

	c.RestartNode(t, 0)
	awaitStatus(t, "http://"+admin+"/readyz", 503, "the kinds have not been read yet")
	js := c.JetStream(t)
	if _, err := topology.ApplyShared(t.Context(), js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, "http://"+admin+"/readyz", 200, "ok")

	c.StopNode(t, 0)
	awaitStatus(t, "http://"+admin+"/readyz", 503, "NATS is away")
	awaitStatus(t, "http://"+admin+"/healthz", 200, "ok")
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(testkit.Deadline):
		t.Fatal("the scorer did not end without its cluster")
	}
}

// Each service runs on an empty cluster, is listed as a micro service, and ends when it is told to.
func TestServices(t *testing.T) {
	c := testkit.Start(t, 1)
	js := c.JetStream(t)
	if _, err := topology.ApplyShared(t.Context(), js, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	contract := events.DefaultContract()
	contract.Kind, contract.Fields = "payment", []events.Field{{Name: "amount", Type: events.Number}}
	if _, err := topology.ApplyKind(t.Context(), js, contract, topology.Options{Replicas: 1}); err != nil {
		t.Fatal(err)
	}
	unsigned := []string{"--unsigned-models"}
	for _, x := range []struct {
		name   string
		define func(Flags) Runner
		args   []string
	}{
		{"scorer", Scorer, unsigned}, {"ingest", Ingest, []string{"--listen", "127.0.0.1:0"}}, {"trainer", Trainer, unsigned}, {"monitor", Monitor, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			admin := free(t)
			run, err := defined(x.define, slices.Concat([]string{"--nats", c.URL(), "--admin", admin, "--log-level", "error"}, x.args)...)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- run(ctx) }()
			awaitStatus(t, "http://"+admin+"/readyz", 200, "ok")
			if _, err := js.Conn().Request("$SRV.PING.riskweir-"+x.name, nil, testkit.Deadline); err != nil {
				t.Errorf("micro service: %v", err)
			}
			awaitMember(t, js, x.name)
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(testkit.Deadline):
				t.Fatal("it did not end")
			}
			taken, err := net.Listen("tcp", admin)
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			if err := run(t.Context()); err == nil || !strings.Contains(err.Error(), "address already in use") {
				t.Errorf("with its admin port taken: %v", err)
			}
		})
	}
}

// awaitMember waits for a heartbeat of the service.
func awaitMember(t *testing.T, js natsjs.JetStream, service string) {
	t.Helper()
	sub, err := js.Conn().SubscribeSync("heartbeats." + service + ".>")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if _, err := sub.NextMsg(testkit.Deadline); err != nil {
		t.Errorf("heartbeat: %v", err)
	}
}

// An error of usage names what was typed.
func TestUsageError(t *testing.T) {
	for _, x := range []struct {
		args []string
		want string
	}{
		{[]string{"--rate", "x"}, `--rate "x": want a number`},
		{[]string{"--nodes=three"}, `--nodes "three": want a number`},
		{[]string{"--rate", "1e999"}, `--rate "1e999": is too large`},
		{[]string{"--for", "5"}, `--for "5": invalid duration`},
		{[]string{"--mode", "c"}, `--mode "c": enum value must be one of a,b, got 'c'`},
		{[]string{"--what"}, "unknown long flag '--what'"},
		{[]string{"--rate"}, "expected argument for flag '--rate'"},
	} {
		app := fisk.New("test", "")
		var rate float64
		var nodes int
		var length time.Duration
		var mode string
		app.Flag("rate", "").Float64Var(&rate)
		app.Flag("nodes", "").IntVar(&nodes)
		app.Flag("for", "").DurationVar(&length)
		app.Flag("mode", "").EnumVar(&mode, "a", "b")
		_, err := app.Parse(x.args)
		if err == nil {
			t.Errorf("%q is taken", x.args)
			continue
		}
		if err = UsageError(app, x.args, err); err.Error() != x.want {
			t.Errorf("%q: %v, want %s", x.args, err, x.want)
		}
	}
}
