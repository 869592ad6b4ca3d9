//go:build linux

// Package reaper waits for every child of this process with one goroutine, and tells whoever started it how it ended
// and what it used. In the first process of a PID namespace that includes the orphans of all others: nobody else may
// wait for a child then, os/exec's Wait least of all.
package reaper

import (
	"errors"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// Exit is how a child ended.
type Exit struct {
	PID    int
	Status unix.WaitStatus
	Usage  unix.Rusage
}

// Reaper reaps. Make one per process, with New.
type Reaper struct {
	signals chan os.Signal
	done    chan struct{}

	mu sync.Mutex
	// waiting holds the children that were started and not yet reaped.
	waiting map[int]func(Exit)
	// starting counts the starts under way. A child may end before its number is known here: until no start is under
	// way, the ends of unknown children are kept in early.
	starting int
	early    map[int]Exit
}

// New begins to reap.
func New() *Reaper {
	// The os package starts and waits for a child of its own, once, to try the kernel: let it, before it can't any more.
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		_ = self.Release()
	}
	r := &Reaper{
		signals: make(chan os.Signal, 1),
		done:    make(chan struct{}),
		waiting: make(map[int]func(Exit)),
		early:   make(map[int]Exit),
	}
	signal.Notify(r.signals, unix.SIGCHLD)
	go r.loop()
	return r
}

// Close stops reaping.
func (r *Reaper) Close() {
	signal.Stop(r.signals)
	close(r.signals)
	<-r.done
}

// Start runs start, which starts a child and returns its number, and has ended called once the child is reaped. ended
// must return at once; it may be called before Start returns.
func (r *Reaper) Start(start func() (pid int, err error), ended func(Exit)) (int, error) {
	r.mu.Lock()
	r.starting++
	r.mu.Unlock()
	pid, err := start()

	r.mu.Lock()
	exit, over := r.early[pid]
	switch {
	case err != nil:
		over = false
	case over:
		delete(r.early, pid)
	default:
		r.waiting[pid] = ended
	}
	if r.starting--; r.starting == 0 {
		clear(r.early)
	}
	r.mu.Unlock()
	if over {
		ended(exit)
	}
	return pid, err
}

// Signal sends a signal to the process group that a child leads. A child that was reaped is left alone, since its number
// may be another's by now; what remains of its group has to be found by other means.
func (r *Reaper) Signal(pid int, what unix.Signal) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.waiting[pid]; !there {
		return nil
	}
	err := unix.Kill(-pid, what)
	if errors.Is(err, unix.ESRCH) { // it has left its group, or never had one
		err = unix.Kill(pid, what)
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// loop reaps all that has ended each time that something has.
func (r *Reaper) loop() {
	defer close(r.done)
	for range r.signals {
		for r.reap() {
		}
	}
}

// reap reaps one child, and reports whether there was one.
func (r *Reaper) reap() bool {
	r.mu.Lock()
	exit := Exit{}
	pid, err := unix.Wait4(-1, &exit.Status, unix.WNOHANG, &exit.Usage)
	if errors.Is(err, unix.EINTR) {
		r.mu.Unlock()
		return true
	}
	if err != nil || pid == 0 {
		r.mu.Unlock()
		return false
	}
	exit.PID = pid
	ended, known := r.waiting[pid]
	delete(r.waiting, pid)
	if !known && r.starting > 0 {
		r.early[pid] = exit
	}
	r.mu.Unlock()
	if known {
		ended(exit)
	}
	return true
}
