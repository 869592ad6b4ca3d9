package launch

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process whose parent dies becomes a child of PID 1, and stays a zombie until PID 1 has waited for it. But PID 1 is
// also the parent of the instances, and their exit statuses belong to whoever started them. So the reaper has to know
// which are which: that is what StartChild is for.

const (
	// sweepPause is how long the reaper lets exits gather before it looks.
	sweepPause = 50 * time.Millisecond
	// owedFor is how long a child started by StartChild may stay a zombie before it is taken for something else: an
	// orphan that was given the process id of a child long gone.
	owedFor = 10 * time.Second
)

var reaper = struct {
	// The read side is held from before a child exists until it is known.
	sync.RWMutex
	on       bool
	children sync.Map // process id → struct{}
}{}

// StartChild starts cmd and keeps the reaper's hands off it. After Prepare, every process that somebody waits for has
// to be started by it.
func StartChild(cmd *exec.Cmd) error {
	reaper.RLock()
	defer reaper.RUnlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if reaper.on {
		reaper.children.Store(cmd.Process.Pid, struct{}{})
	}
	return nil
}

// startReaper collects orphans from now on.
func startReaper() {
	// The first use of package os for a process finds out about pidfds by starting and collecting a child. That has to
	// be over before anybody else collects.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	reaper.Lock()
	reaper.on = true
	reaper.Unlock()
	exits := make(chan os.Signal, 1)
	signal.Notify(exits, unix.SIGCHLD)
	go func() {
		var s sweeper
		for range exits {
			time.Sleep(sweepPause)
			for s.sweep() {
				time.Sleep(sweepPause)
			}
		}
	}()
}

// sweeper remembers the zombie that its last sweep stopped at.
type sweeper struct {
	pid   int
	since time.Time
}

// sweep collects orphans. It stops at a zombie that somebody else is about to collect, and reports whether it did so: the
// kernel only shows the first zombie.
func (s *sweeper) sweep() (again bool) {
	reaper.Lock()
	defer reaper.Unlock()
	for {
		pid, err := firstZombie()
		if err != nil || pid == 0 {
			*s = sweeper{}
			return false
		}
		if _, owed := reaper.children.Load(pid); owed {
			if s.pid != pid {
				*s = sweeper{pid: pid, since: time.Now()}
			}
			if time.Since(s.since) < owedFor {
				return true
			}
			reaper.children.Delete(pid)
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
}

// firstZombie returns the process id of a child that has ended, without collecting it; 0: there is none.
func firstZombie() (int, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return siginfoPid(&info), err
		}
	}
}

// siginfoPid reads si_pid, which begins the union behind three int32s, aligned as a pointer is.
func siginfoPid(info *unix.Siginfo) int {
	const word = unsafe.Sizeof(uintptr(0))
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), (12+word-1)&^(word-1))))
}
