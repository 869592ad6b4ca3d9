//go:build linux

package reaper

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func sh(script string) func() (int, error) {
	return func() (int, error) {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		pid := cmd.Process.Pid
		return pid, cmd.Process.Release()
	}
}

func TestEveryChildIsHeardOfOnce(t *testing.T) {
	r := New()
	defer r.Close()
	const children = 200
	var heard [children]atomic.Int32
	var ended sync.WaitGroup
	ended.Add(children)
	var starters sync.WaitGroup
	for from := range 4 {
		starters.Go(func() {
			for i := from; i < children; i += 4 {
				_, err := r.Start(sh(fmt.Sprintf("exit %d", i%100)), func(e Exit) {
					if e.Status.ExitStatus() != i%100 || e.PID == 0 {
						t.Errorf("child %d: %+v", i, e.Status)
					}
					heard[i].Add(1)
					ended.Done()
				})
				if err != nil {
					t.Error(err)
					ended.Done()
				}
			}
		})
	}
	starters.Wait()
	ended.Wait()
	for i := range heard {
		if n := heard[i].Load(); n != 1 {
			t.Errorf("child %d was heard of %d times", i, n)
		}
	}
	if len(r.waiting) != 0 || len(r.early) != 0 {
		t.Errorf("left: %d waiting, %d early", len(r.waiting), len(r.early))
	}
}

func TestChildThatEndsBeforeItIsKnown(t *testing.T) {
	r := New()
	defer r.Close()
	ended := make(chan Exit, 1)
	_, err := r.Start(func() (int, error) {
		pid, err := sh("exit 7")()
		for err == nil && unix.Kill(pid, 0) == nil { // until it has been reaped
			time.Sleep(time.Millisecond)
		}
		return pid, err
	}, func(e Exit) { ended <- e })
	if err != nil {
		t.Fatal(err)
	}
	if e := <-ended; e.Status.ExitStatus() != 7 {
		t.Errorf("%+v", e)
	}
}

func TestStartThatFails(t *testing.T) {
	r := New()
	defer r.Close()
	_, err := r.Start(func() (int, error) { return 0, exec.Command("/nowhere").Start() }, func(Exit) { t.Error("an end was heard of") })
	if err == nil {
		t.Error("no error")
	}
}

func TestOrphansAreReaped(t *testing.T) {
	r := New()
	defer r.Close()
	ended := make(chan Exit, 1)
	if _, err := r.Start(sh("(sleep 0.2 & echo $! >/dev/null) ; exit 0"), func(e Exit) { ended <- e }); err != nil {
		t.Fatal(err)
	}
	<-ended
	for { // until no child is left, dead or alive
		err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.ECHILD {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestSignalReachesTheGroup(t *testing.T) {
	r := New()
	defer r.Close()
	ended := make(chan Exit, 1)
	pid, err := r.Start(sh("sleep 60 & sleep 60"), func(e Exit) { ended <- e })
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Signal(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if e := <-ended; e.Status.Signal() != unix.SIGKILL || e.PID != pid {
		t.Errorf("%+v", e)
	}
	if err := r.Signal(pid, unix.SIGKILL); err != nil {
		t.Errorf("signalling one that was reaped: %v", err)
	}
}
