//go:build linux

package keeper

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/groundplan/groundplan/sidecar/keeper/reaper"
)

// child is one start of a program as a child of this process.
type child struct {
	key    string
	starts int
	procs  processes
	// Set before it is known to run.
	started Started
	parent  int64 // this process's own peak when it started the child
	// pid is 0 while it doesn't run. seen is the largest resident set so far, in bytes.
	pid  atomic.Int64
	seen atomic.Int64

	mu    sync.Mutex
	hears []func(Exit)
	exit  *Exit
}

// attach has one more hear of the end.
func (c *child) attach(ended func(Exit)) error {
	c.mu.Lock()
	exit := c.exit
	if exit == nil {
		c.hears = append(c.hears, ended)
	}
	c.mu.Unlock()
	if exit != nil {
		ended(*exit)
	}
	return nil
}

// exited hears from the reaper that the process has ended. It does not block.
func (c *child) exited(how reaper.Exit) {
	c.pid.Store(0)
	exit := Exit{
		At: time.Now(), Status: how.Status,
		PeakMemory: peak(c.seen.Load(), how.Usage.Maxrss<<10, c.parent),
		CPU:        seconds(how.Usage.Utime) + seconds(how.Usage.Stime),
	}
	c.mu.Lock()
	hears := c.hears
	c.exit, c.hears = &exit, nil
	c.mu.Unlock()
	for _, ended := range hears {
		ended(exit)
	}
}

func seconds(t unix.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// look notes how much memory the process has had at most.
func (c *child) look() {
	pid := int(c.pid.Load())
	if pid == 0 {
		return
	}
	seen := c.procs.peakOf(pid)
	for old := c.seen.Load(); seen > old && !c.seen.CompareAndSwap(old, seen); old = c.seen.Load() {
	}
}
