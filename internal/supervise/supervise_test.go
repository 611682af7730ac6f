package supervise

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// asChild makes this test binary a child: "1" is one that ends at SIGTERM, the others are in live.
const asChild = "SUPERVISE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch what := os.Getenv(asChild); what {
	case "":
	case "1":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		<-stop
		os.Exit(0)
	default:
		os.Exit(live(what))
	}
	os.Exit(m.Run())
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func one(s *Supervisor) Status { return s.Status()[0] }

// What is killed from outside comes back; what Kill or Stop ended stays down until Start.
func TestLivesOfAChild(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := New(exe)
	spec := Spec{Name: "x", Env: []string{asChild + "=1"}, Log: filepath.Join(t.TempDir(), "log"), Stop: 10 * time.Second}
	if err := s.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill("x") })
	up := func() bool { return one(s).State == Up }
	await(t, "up", up)
	if err := s.Start(t.Context(), spec); err == nil {
		t.Error("started twice")
	}
	first := one(s).PID
	if err := s.Signal("x", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, "up again, as another process", func() bool { return up() && one(s).PID != first })
	if n := one(s).Restarts; n != 1 {
		t.Errorf("%d restarts, want 1", n)
	}

	// A frozen child does not hear SIGTERM, but Kill ends it at once.
	if err := s.Signal("x", syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.Kill("x")
	if st := one(s); st.State != Stopped || st.PID != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("after Kill: %+v in %s", st, time.Since(began))
	}
	if err := s.Signal("x", syscall.SIGCONT); err == nil {
		t.Error("signalled a child that is down")
	}
	if err := s.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	await(t, "up after Start", up)
	s.Stop("x")
	if st := s.Status(); len(st) != 1 || st[0].State != Stopped || st[0].Restarts != 1 {
		t.Errorf("after Stop: %+v", st)
	}
}
