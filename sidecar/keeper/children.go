//go:build linux

package keeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/runs"
	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
)

// folderMakers is how many instances get their folders at a time.
const folderMakers = 8

// Namespaces are the network namespaces that children run in.
type Namespaces interface {
	// Start starts cmd inside the slot's namespaces.
	Start(slot int, cmd *exec.Cmd) error
	// Inode is that of the slot's network namespace; 0 where there is none.
	Inode(slot int) uint64
}

// Children are programs that run as children of this process, with their output going straight into files of the run's
// folder.
type Children struct {
	folder runs.Folder
	spaces Namespaces
	reaper *reaper.Reaper
	log    *slog.Logger
	procs  processes

	mu    sync.Mutex
	homes map[int]Home
	last  map[int]*child // by slot: what was started there last
}

// NewChildren makes Programs that start nothing yet.
func NewChildren(folder runs.Folder, spaces Namespaces, reaper *reaper.Reaper, log *slog.Logger) (*Children, error) {
	procs, err := newProcesses()
	if err != nil {
		return nil, err
	}
	return &Children{
		folder: folder, spaces: spaces, reaper: reaper, log: log, procs: procs,
		homes: make(map[int]Home), last: make(map[int]*child),
	}, nil
}

// Place makes the folders of homes, several at a time.
func (c *Children) Place(_ context.Context, homes []Home) []error {
	faults := make([]error, len(homes))
	var work sync.WaitGroup
	for from := range folderMakers {
		work.Go(func() {
			for i := from; i < len(homes); i += folderMakers {
				faults[i] = c.makeFolders(homes[i])
			}
		})
	}
	work.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, home := range homes {
		if faults[i] == nil {
			c.homes[home.Slot] = home
		}
	}
	return faults
}

func (c *Children) makeFolders(h Home) error {
	if err := os.MkdirAll(c.folder.Outputs(h.Group, h.Index), 0o755); err != nil {
		return fmt.Errorf("making its outputs folder: %w", err)
	}
	if err := os.MkdirAll(c.folder.Temp(h.Group, h.Index), 0o755); err != nil {
		return fmt.Errorf("making its temporary folder: %w", err)
	}
	return nil
}

// Folders are those of the run's folder.
func (c *Children) Folders(slot int) (outputs, temp string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.homes[slot]
	return c.folder.Outputs(h.Group, h.Index), c.folder.Temp(h.Group, h.Index)
}

// Outputs opens the slot's folder of outputs.
func (c *Children) Outputs(slot int) (*os.Root, error) {
	outputs, _ := c.Folders(slot)
	return os.OpenRoot(outputs)
}

// Start starts a program in the slot's namespaces. One that is to be held is stopped at once.
func (c *Children) Start(slot int, p Program, ended func(Exit)) (Started, error) {
	next := &child{key: p.Key, starts: p.Starts, procs: c.procs, hears: []func(Exit){ended}}
	c.mu.Lock()
	before := c.last[slot]
	if same := before != nil && before.key == p.Key && before.starts == p.Starts; same {
		c.mu.Unlock()
		return before.started, before.attach(ended)
	}
	c.last[slot] = next
	c.mu.Unlock()
	err := c.start(slot, p, next)
	if err != nil {
		c.mu.Lock()
		delete(c.last, slot)
		c.mu.Unlock()
	}
	return next.started, err
}

func (c *Children) start(slot int, p Program, next *child) error {
	outputs, temp := c.Folders(slot)
	stdout, err := openLog(outputs, "stdout.log", "run.out", &next.started.Stdout)
	if err != nil {
		return err
	}
	defer stdout.Close()
	stderr, err := openLog(outputs, "stderr.log", "run.err", &next.started.Stderr)
	if err != nil {
		return err
	}
	defer stderr.Close()
	cmd := &exec.Cmd{
		Path: p.Path, Args: p.Args, Env: p.Env, Dir: temp, Stdout: stdout, Stderr: stderr,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if _, err = c.reaper.Start(func() (int, error) { return c.launch(slot, cmd, next) }, next.exited); err != nil {
		return err
	}
	if p.Held {
		return c.Signal(slot, unix.SIGSTOP)
	}
	return nil
}

// launch starts the process, and notes what has to be known before anybody hears of its end.
func (c *Children) launch(slot int, cmd *exec.Cmd, next *child) (int, error) {
	next.started.At = time.Now()
	if err := c.spaces.Start(slot, cmd); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	if err := cmd.Process.Release(); err != nil { // the reaper waits for it
		c.log.Warn("a process handle could not be let go", "slot", slot, "error", err)
	}
	next.parent = ownPeak()
	next.pid.Store(int64(pid))
	return pid, nil
}

// openLog opens a log for appending and notes where the part begins that is written now. A copy under the plan's own name
// that an earlier stage got by a link is taken away.
func openLog(folder, name, copied string, begins *int64) (*os.File, error) {
	path := filepath.Join(folder, name)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening its %s: %w", name, err)
	}
	*begins, err = file.Seek(0, io.SeekEnd)
	if copied = filepath.Join(folder, copied); err == nil && *begins > 0 && sameFile(path, copied) {
		err = os.Remove(copied)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening its %s: %w", name, err), file.Close())
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

// at is what was started at a slot last, nil where nothing was.
func (c *Children) at(slot int) *child {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last[slot]
}

// Signal sends a signal to the process group of the child at a slot, if that is still there.
func (c *Children) Signal(slot int, what unix.Signal) error {
	child := c.at(slot)
	if child == nil {
		return nil
	}
	if pid := int(child.pid.Load()); pid != 0 {
		return c.reaper.Signal(pid, what)
	}
	return nil
}

// SignalAll sends a signal to every process in the slots' namespaces, each once, until it finds no more: one that is just
// being stopped may have started another.
func (c *Children) SignalAll(slots []int, what unix.Signal) error {
	for _, slot := range slots {
		if err := c.Signal(slot, what); err != nil {
			return err
		}
	}
	if len(slots) == 0 {
		return nil
	}
	inside, sent := c.namespaces(slots), make(map[int]bool)
	for again := true; again; {
		again = false
		found, err := c.procs.inside(inside)
		if err != nil {
			return err
		}
		for _, pid := range found {
			if sent[pid] {
				continue
			}
			again, sent[pid] = true, true
			if err := send(pid, what); err != nil {
				return fmt.Errorf("sending %s to process %d: %w", unix.SignalName(what), pid, err)
			}
		}
	}
	return nil
}

// Clear kills every process in the slots' namespaces, whatever it has become.
func (c *Children) Clear(ctx context.Context, slots []int) (left int, err error) {
	return c.procs.clear(ctx, c.namespaces(slots))
}

// LetGo lets go of all by one signal to every process there is. One after the other they would take the processor from
// whoever lets go of them: a thousand then start seconds apart, not milliseconds. But it takes the first process of a PID
// namespace, or others would be meant too.
func (c *Children) LetGo(slots []int) (at time.Time, done bool) {
	if os.Getpid() != 1 {
		return at, false
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at, worked := time.Now(), threadTime()
	if err := unix.Kill(-1, unix.SIGCONT); err != nil {
		if !errors.Is(err, unix.ESRCH) { // that is: all have ended
			c.log.Warn("the instances could not be let go at once", "error", err)
		}
		return at, false
	}
	c.log.Info("the instances were let go", "instances", len(slots), "within", threadTime()-worked)
	return at, true
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

// Rouse lets go of processes in the slots' namespaces that are stopped.
func (c *Children) Rouse(slots []int) (int, error) {
	asleep, err := c.procs.stopped(c.namespaces(slots))
	if err != nil {
		return 0, err
	}
	for i, pid := range asleep {
		if err := send(pid, unix.SIGCONT); err != nil {
			return i, fmt.Errorf("letting go of process %d: %w", pid, err)
		}
	}
	return len(asleep), nil
}

// Look notes how much memory the child at a slot has had at most.
func (c *Children) Look(slot int) {
	if child := c.at(slot); child != nil {
		child.look()
	}
}

// namespaces are the network namespaces of slots.
func (c *Children) namespaces(slots []int) map[uint64]bool {
	inside := make(map[uint64]bool, len(slots))
	for _, slot := range slots {
		inside[c.spaces.Inode(slot)] = true
	}
	delete(inside, 0)
	return inside
}
