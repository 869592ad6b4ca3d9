package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/groundplan/groundplan/activities/stage"
	"github.com/groundplan/groundplan/runs"
)

// beOwner is what the test binary does as the process that is killed: it owns a home's services until then.
func beOwner(home runs.Home) int {
	s, err := Open(context.Background(), testConfig(home))
	if err != nil {
		fmt.Fprintln(os.Stderr, "owner:", err)
		return 1
	}
	time.Sleep(10 * time.Minute) // it is killed long before
	_ = s.Close()                // so that the session is kept until then: its lock would go with it
	return 2
}

// spawn starts a process that owns the home's services; ready says whether to wait until they are up.
func spawn(t *testing.T, home runs.Home, ready bool) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "WORKER_TEST_OWNER="+string(home))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Skipf("can't run the test binary again: %v", err)
	}
	t.Cleanup(func() { kill(t, cmd) })
	if ready {
		until(t, "the owner is up", func() bool {
			up, err := readServices(home)
			return err == nil && up.PID == cmd.Process.Pid
		})
	}
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if cmd.ProcessState != nil {
		return
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
}

// The owner is killed while a stage runs: a session that waits becomes the owner, and its handle goes on.
func TestTakeOverFromTheDead(t *testing.T) {
	home := runs.Home(t.TempDir())
	owner := spawn(t, home, true)
	s := openSession(t, testConfig(home))
	if s.Owner() {
		t.Fatal("the owner is somebody else")
	}
	h := start(t, s, "run", "ok-build slow-run ok-collect")
	until(t, "the stage runs", func() bool { return len(starts(t, home, "run")) == 2 })

	killed := time.Now()
	kill(t, owner)
	until(t, "the stage runs again", func() bool { return len(starts(t, home, "run")) == 3 })
	t.Logf("taken up %v after the kill", time.Since(killed))
	if !s.Owner() || s.Info().PID != os.Getpid() {
		t.Errorf("the session did not take over: %+v", s.Info())
	}
	touch(t, home, "go")
	if output := wait(t, h); output.Verdict != stage.Passed {
		t.Errorf("got %+v", output)
	}
	want := []string{"ok-build 1 1", "slow-run 1 1", "slow-run 1 2", "ok-collect 1 1"}
	if got := starts(t, home, "run"); !slices.Equal(got, want) {
		t.Errorf("started were %q, want %q", got, want)
	}
}

// The owner leaves in good order while others are attached: one of them takes over, with the run going on.
func TestTakeOverFromTheLeaving(t *testing.T) {
	home := runs.Home(t.TempDir())
	first, err := Open(t.Context(), testConfig(home))
	if err != nil {
		t.Fatal(err)
	}
	others := []*Session{openSession(t, testConfig(home)), openSession(t, testConfig(home))}
	h := start(t, others[0], "run", "ok-build slow-run ok-collect")
	until(t, "the stage runs", func() bool { return len(starts(t, home, "run")) == 2 })
	done := make(chan stage.Verdict)
	go func() {
		output, err := h.Wait(t.Context())
		if err != nil {
			t.Error(err)
		}
		done <- output.Verdict
	}()
	left := time.Now()
	closeSession(t, first)
	until(t, "the stage runs again", func() bool { return len(starts(t, home, "run")) == 3 })
	t.Logf("taken up %v after the owner left", time.Since(left))
	if others[0].Owner() == others[1].Owner() {
		t.Error("not exactly one took over")
	}
	touch(t, home, "go")
	if verdict := <-done; verdict != stage.Passed {
		t.Errorf("the verdict is %s", verdict)
	}
	if err := first.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

// The owner is killed at random moments, its start among them, and started again: every run ends well, and no stage that
// ended is run again.
func TestKilledAtRandomMoments(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	home := runs.Home(t.TempDir())
	owner := spawn(t, home, true)
	s, err := Find(t.Context(), testConfig(home))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stages := "ok-build ok-schedule ok-network slow-run ok-run-a ok-run-b ok-collect"
	h := start(t, s, "run", stages)
	for range rounds {
		time.Sleep(time.Duration(random.IntN(700)) * time.Millisecond)
		kill(t, owner)
		owner = spawn(t, home, random.IntN(2) == 0)
	}
	touch(t, home, "go")
	output := wait(t, h)
	if output.Verdict != stage.Passed || len(output.Results) != 7 {
		t.Errorf("got %+v", output)
	}
	t.Logf("started were %q", starts(t, home, "run"))
	if matches, err := filepath.Glob(filepath.Join(string(home), "*.new*")); err != nil || len(matches) > 0 {
		t.Errorf("left behind: %v, %v", matches, err)
	}
}

func TestFindStartsNothing(t *testing.T) {
	home := runs.Home(t.TempDir())
	if err := writeServices(home, services{Temporal: "127.0.0.1:1", PID: 1}); err != nil { // stale: nobody holds the lock
		t.Fatal(err)
	}
	if _, err := Find(t.Context(), testConfig(home)); !errors.Is(err, ErrNoServices) {
		t.Errorf("got %v", err)
	}
}

// A session that is not the owner leaves nothing behind in its process. (An owner does: the server's goroutines end only
// with the process, by its making.) The session has a process of its own, since the goroutines of servers that other
// tests started in this one come and go for as long as it lives.
func TestSessionLeaksNothing(t *testing.T) {
	home := runs.Home(t.TempDir())
	spawn(t, home, true)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "WORKER_TEST_GUEST="+string(home))
	out, err := cmd.CombinedOutput()
	t.Logf("the session said: %s", out)
	if err != nil {
		t.Fatalf("a session in a process of its own: %v", err)
	}
}

// beGuest is what the test binary does as the process whose session is no owner's: a run passes through it, and then
// nothing of it is left.
func beGuest(home runs.Home) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	before := goleak.IgnoreCurrent()
	s, err := Open(ctx, testConfig(home))
	if err != nil {
		return err
	}
	if s.Owner() {
		return errors.Join(errors.New("it became the owner"), s.Close())
	}
	if err := passThrough(ctx, s); err != nil {
		return errors.Join(err, s.Close())
	}
	if err := s.Close(); err != nil {
		return err
	}
	for range 10 { // a closed connection's goroutines take their time on a busy machine
		if err = goleak.Find(before); err == nil {
			return nil
		}
	}
	return err
}

func passThrough(ctx context.Context, s *Session) error {
	h, err := s.Start(ctx, StartOptions{Run: stage.Run{ID: "run", Ground: GroundLocal, Root: "/"}, Pipeline: pipeline(five)})
	if err != nil {
		return err
	}
	output, err := h.Wait(ctx)
	if err != nil {
		return err
	}
	if output.Verdict != stage.Passed {
		return fmt.Errorf("its run got %+v", output)
	}
	return nil
}
