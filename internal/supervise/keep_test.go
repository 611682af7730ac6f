package supervise

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// live is what this test binary does as one: "deaf" does not end at SIGTERM; "try FILE" fails until it has been
// started three times; "orphan FILE" writes the file when its supervisor ends.
func live(what string) int {
	verb, file, _ := strings.Cut(what, " ")
	switch verb {
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		ctx, cancel := Orphaned(context.Background(), true)
		defer cancel()
		<-ctx.Done()
	case "try":
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
		if err != nil {
			return 9
		}
		defer f.Close()
		fmt.Fprintln(f, time.Now().UnixNano())
		if text, _ := os.ReadFile(file); strings.Count(string(text), "\n") < 3 {
			fmt.Println("not yet")
			return 7
		}
		fmt.Println("done")
	case "orphan":
		ctx, cancel := Orphaned(context.Background(), true)
		defer cancel()
		fmt.Println("waiting")
		<-ctx.Done()
		if os.WriteFile(file, []byte("ended"), 0o600) != nil {
			return 9
		}
	case "parent": // starts an orphan and is killed
		s := New(os.Args[0])
		err := s.Start(context.Background(), Spec{Name: "orphan", Env: []string{asChild + "=orphan " + file}, Log: file + ".log", Stop: time.Minute})
		if err != nil {
			return 9
		}
		select {}
	}
	return 0
}

// supervised starts one child of a supervisor of its own.
func supervised(t *testing.T, what string, change func(*Spec)) (s *Supervisor, log string) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log = filepath.Join(t.TempDir(), "x.log")
	spec := Spec{Name: "x", Env: []string{asChild + "=" + what}, Log: log, Stop: 10 * time.Second}
	if change != nil {
		change(&spec)
	}
	s = New(exe)
	if err := s.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Kill("x")
		goleak.VerifyNone(t, leaks)
	})
	return s, log
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 6: 3200, 7: 5000, 11: 5000, 1000: 5000} {
		if got := backoff(n); got != want*time.Millisecond {
			t.Errorf("before start %d: %s, want %d ms", n+1, got, want)
		}
	}
}

// A Once that fails is started again, later each time; exit status 0 is the end of it.
func TestOnce(t *testing.T) {
	tries := filepath.Join(t.TempDir(), "tries")
	s, log := supervised(t, "try "+tries, func(spec *Spec) { spec.Once = true })
	await(t, "finished", func() bool { return one(s).State == Finished })
	if st := one(s); st.Restarts != 2 || st.LastExit != "exit status 7" || st.PID != 0 {
		t.Errorf("%+v", st)
	}
	var at [3]int64
	if _, err := fmt.Sscan(read(t, tries), &at[0], &at[1], &at[2]); err != nil {
		t.Fatal(err)
	}
	for i, least := range []time.Duration{firstBackoff, 2 * firstBackoff} {
		if waited := time.Duration(at[i+1] - at[i]); waited < least {
			t.Errorf("start %d came %s after the one before, want at least %s", i+2, waited, least)
		}
	}
	if got := read(t, log); got != "not yet\nnot yet\ndone\n" {
		t.Errorf("log %q", got)
	}
	s.Stop("x")
	if st := one(s); st.State != Finished {
		t.Errorf("after Stop: %+v", st)
	}
}

// A Once that fails again and again is given up; one that is killed is not.
func TestOnceIsGivenUp(t *testing.T) {
	tries := filepath.Join(t.TempDir(), "tries")
	s, _ := supervised(t, "try "+tries, func(spec *Spec) { spec.Once, spec.Tries = true, 2 })
	await(t, "given up", func() bool { return one(s).State == Failed })
	if st := one(s); st.Restarts != 1 || st.LastExit != "exit status 7" || st.PID != 0 {
		t.Errorf("%+v", st)
	}
	killed, log := supervised(t, "deaf", func(spec *Spec) { spec.Once, spec.Tries = true, 1 })
	await(t, "deaf", func() bool { return read(t, log) == "deaf\n" })
	if err := killed.Signal("x", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "started again", func() bool { return one(killed).Restarts == 1 && one(killed).State == Up })
}

func TestStopKillsAfterTheGrace(t *testing.T) {
	const grace = 300 * time.Millisecond
	s, log := supervised(t, "deaf", func(spec *Spec) { spec.Stop = grace })
	await(t, "deaf", func() bool { return read(t, log) == "deaf\n" })
	pid := one(s).PID
	began := time.Now()
	s.Stop("x", "nobody")
	if took := time.Since(began); took < grace || took > 10*time.Second {
		t.Errorf("Stop took %s, want %s and a little", took, grace)
	}
	if st := one(s); st.State != Stopped || st.PID != 0 || st.Restarts != 0 {
		t.Errorf("%+v", st)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("process %d: %v, want none", pid, err)
	}
}

func TestStopBy(t *testing.T) {
	s, log := supervised(t, "deaf", func(spec *Spec) { spec.Stop = time.Hour })
	await(t, "deaf", func() bool { return read(t, log) == "deaf\n" })
	began := time.Now()
	s.StopBy(began.Add(200*time.Millisecond), "x")
	if took := time.Since(began); took < 200*time.Millisecond || took > 10*time.Second {
		t.Errorf("StopBy took %s, want 200 ms and a little", took)
	}
	s, log = supervised(t, "deaf", nil)
	await(t, "deaf", func() bool { return read(t, log) == "deaf\n" })
	s.StopBy(began, "x") // in the past: at once
	if st := one(s); st.State != Stopped {
		t.Errorf("%+v", st)
	}
}

// A child that cannot be started is one that died, and Stop does not wait for its next start.
func TestStopDuringBackoff(t *testing.T) {
	s := New("/no/such/program")
	if err := s.Start(t.Context(), Spec{Name: "x", Log: filepath.Join(t.TempDir(), "log"), Stop: time.Second}); err != nil {
		t.Fatal(err)
	}
	await(t, "the third death", func() bool { return one(s).Restarts >= 3 })
	if st := one(s); !strings.Contains(st.LastExit, "start x: ") || !strings.Contains(st.LastExit, "no such file") {
		t.Errorf("%+v", st)
	}
	s.Stop("x")
	if st := one(s); st.State != Stopped {
		t.Errorf("%+v", st)
	}
}

func TestLogTurnsOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.log")
	for _, x := range []struct {
		size       int64
		want, kept int64
	}{{logLimit, logLimit, -1}, {logLimit + 1, 0, logLimit + 1}} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(file, x.size); err != nil {
			t.Fatal(err)
		}
		f, err := openLog(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if got := size(file); got != x.want {
			t.Errorf("a log of %d bytes has %d after the next start, want %d", x.size, got, x.want)
		}
		if got := size(file + ".1"); got != x.kept {
			t.Errorf("of a log of %d bytes %d are kept, want %d", x.size, got, x.kept)
		}
	}
}

// size of a file, -1 if there is none.
func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return -1
	}
	return info.Size()
}

// However its supervisor ends, a child hears of it.
func TestOrphaned(t *testing.T) {
	note := filepath.Join(t.TempDir(), "note")
	s, _ := supervised(t, "parent "+note, nil)
	await(t, "the orphan waits", func() bool { return strings.Contains(read(t, note+".log"), "waiting") })
	if got := read(t, note); got != "" {
		t.Fatalf("the orphan ended before its parent: %q", got)
	}
	s.Kill("x")
	await(t, "the orphan ends", func() bool { return read(t, note) == "ended" })

	ctx, cancel := Orphaned(t.Context(), false)
	if ctx.Err() != nil {
		t.Errorf("without a supervisor: %v", ctx.Err())
	}
	cancel()
	if ctx.Err() == nil {
		t.Error("cancel does nothing")
	}
}
