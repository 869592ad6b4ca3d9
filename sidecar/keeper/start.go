//go:build linux

package keeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/control"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
)

const (
	// starters is how many instances are started at a time.
	starters = 4
	// grace is how long an instance that has reported its outcome may take to exit.
	grace = 10 * time.Second
)

// logs says where this stage's part of an instance's output begins.
type logs struct{ stdout, stderr int64 }

// startAll starts every member, several at a time, and returns once the last was started or the stage is to end. Each
// is held right after its start until all are there: else the first ones would keep the processor from the last ones'
// starts, and a thousand would take half a minute instead of a second or two.
func (s *stage) startAll() {
	around := s.surroundings()
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(starters, len(s.members)) {
		work.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(s.members)); i = next.Add(1) - 1 {
				m := s.members[i]
				if err := m.start(around[m.group.Name], true); err != nil {
					m.unstarted(err)
				}
			}
		})
	}
	work.Wait()
	s.openGate()
	s.work.Go(s.rouseAll)
}

// openGate lets go of all that were started, unless the stage is to end already. Only then an instance has started.
func (s *stage) openGate() {
	if s.stopping() || s.openAtOnce() {
		return
	}
	s.mu.Lock()
	s.opened = time.Now()
	s.mu.Unlock()
	for _, m := range s.members {
		s.mu.Lock()
		if m.running {
			m.started = time.Now()
		}
		s.mu.Unlock()
		m.signal(unix.SIGCONT)
	}
}

// openAtOnce lets go of all by one signal to every process there is, and reports whether it could. One after the other
// they would take the processor from whoever lets go of them: a thousand then start seconds apart, not milliseconds. But
// it takes the first process of a PID namespace, or others would be meant too, and no second stage whose instances may
// be held just now, or stopped by an event.
func (s *stage) openAtOnce() bool {
	k := s.keeper
	k.mu.RLock() // no other stage is opened meanwhile
	defer k.mu.RUnlock()
	if os.Getpid() != 1 || len(k.active) > 1 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	opened, worked := time.Now(), threadTime()
	if err := unix.Kill(-1, unix.SIGCONT); err != nil {
		if !errors.Is(err, unix.ESRCH) { // that is: all have ended
			k.log.Warn("the instances could not be let go at once", "stage", s.ask.Stage, "error", err)
		}
		return false
	}
	worked = threadTime() - worked
	s.opened = opened
	for _, m := range s.members {
		if m.running {
			m.started = opened
		}
	}
	k.log.Info("the gate has opened", "stage", s.ask.Stage, "instances", len(s.members),
		"held", opened.Sub(s.now.Started), "within", worked)
	return true
}

// threadTime is the processor time of the calling thread. The kernel isn't interrupted while it signals, but whoever
// asked it to waits behind a thousand others then: the clock on the wall would tell how long that took.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// surroundings are what the members of each group share.
func (s *stage) surroundings() map[string]surroundings {
	k := s.keeper
	k.mu.RLock()
	run := k.world.ask
	k.mu.RUnlock()
	run.Run = k.run
	shared := make(map[string]surroundings)
	for _, m := range s.members {
		around := shared[m.group.Name]
		around.own++
		around.run, around.group, around.stage, around.started = run, m.group, s.ask, s.now.Started
		around.subnet, around.gateway, around.port = k.fabric.Subnet(), k.fabric.Gateway(), k.port
		around.all = len(s.members)
		shared[m.group.Name] = around
	}
	return shared
}

// errStopped says that a stage ended before an instance was started.
var errStopped = errors.New("the stage has ended")

// start starts the member's program with its output going straight into files. One that is to be held is stopped at once.
func (m *member) start(around surroundings, held bool) error {
	if m.stage.stopping() {
		return errStopped
	}
	p, k := m.place, m.stage.keeper
	env, err := environment(around, instance{
		index: p.index, host: p.host, control: p.control, data: p.data, outputs: m.outputs(), temp: m.temp(),
		starts: m.startsNow(),
	})
	if err != nil {
		return err
	}
	stdout, err := openLog(m.output("stdout.log"), m.output("run.out"), &m.logs.stdout)
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := openLog(m.output("stderr.log"), m.output("run.err"), &m.logs.stderr)
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd := &exec.Cmd{
		Path: m.group.Program, Args: m.arguments(), Env: env, Dir: m.temp(), Stdout: stdout, Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if _, err = k.reaper.Start(func() (int, error) { return m.launch(cmd) }, m.exited); err != nil {
		return err
	}
	if held {
		m.signal(unix.SIGSTOP)
	}
	return nil
}

// startsNow counts the start that is under way too.
func (m *member) startsNow() int {
	m.stage.mu.Lock()
	defer m.stage.mu.Unlock()
	return m.starts + 1
}

// launch starts the process, unless the stage is to end, and counts it in before anybody can hear of its end.
func (m *member) launch(cmd *exec.Cmd) (int, error) {
	began := time.Now()
	if err := m.stage.keeper.fabric.Start(m.place.slot, cmd); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil { // the reaper waits for it
		m.stage.keeper.log.Warn("a process handle could not be let go", "instance", m.place.name, "error", err)
	}
	m.parent = ownPeak()
	m.stage.entered(m, pid, began)
	return pid, nil
}

// entered notes that a member runs.
func (s *stage) entered(m *member, pid int, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.pid.Store(int64(pid))
	if m.starts++; m.starts == 1 {
		m.started = began
	}
	m.running = true
	s.count(m, func(c *control.Counts) { c.Running++ })
	s.changedLocked()
	close(m.entered)
}

func (m *member) arguments() []string {
	args := append([]string{m.group.Program}, m.group.Arguments...)
	return append(args, m.group.Args...)
}

// openLog opens a log for appending and notes where this stage's part begins. A copy under the plan's own name that
// an earlier stage got by a link is taken away, or the plan would write every line twice into one file.
func openLog(path, copied string, begins *int64) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening its %s: %w", filepath.Base(path), err)
	}
	*begins, err = file.Seek(0, io.SeekEnd)
	if err == nil && *begins > 0 && sameFile(path, copied) {
		err = os.Remove(copied)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening its %s: %w", filepath.Base(path), err), file.Close())
	}
	return file, nil
}

func sameFile(a, b string) bool {
	one, err := os.Lstat(a)
	if err != nil {
		return false
	}
	other, err := os.Lstat(b)
	return err == nil && os.SameFile(one, other)
}

// exited hears from the reaper that the member's process has ended. It must not block.
func (m *member) exited(exit reaper.Exit) {
	m.pid.Store(0)
	ended := time.Now()
	go m.finish(exit, ended)
}

// killAll kills whatever of the stage still runs.
func (s *stage) killAll() {
	s.look(0, 1)
	for _, m := range s.members {
		m.kill(s.cause.reason(), true)
	}
}

// kill kills the member's processes, if it still runs, for that reason.
func (m *member) kill(why string, atEnd bool) {
	s := m.stage
	s.mu.Lock()
	running := m.running
	if running && m.cut == "" {
		m.cut, m.atEnd = why, atEnd
	}
	s.mu.Unlock()
	if running {
		m.signal(unix.SIGKILL)
	}
}

// signal sends a signal to the member's processes, if they are still there.
func (m *member) signal(what unix.Signal) {
	pid := int(m.pid.Load())
	if pid == 0 {
		return
	}
	if err := m.stage.keeper.reaper.Signal(pid, what); err != nil {
		m.stage.keeper.log.Warn("an instance could not be sent a signal", "instance", m.place.name, "signal", what, "error", err)
	}
}
